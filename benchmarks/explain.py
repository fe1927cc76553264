"""The price of an explanation: CPU time of explaining one student with a loaded bundle, beside predicting one and beside shap itself.

Each family runs in a process of its own, with one thread. Its calls take turns, and each figure is the median over the turns, so that a
busy machine is equally busy for all. The linear bundle is the one that ships; the others are trained on the shipped sample first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from measure import as_table, run, say

AIMS = {"linear": 2.0} | dict.fromkeys(["tree", "random_forest", "gradient_boosting", "hist_gradient_boosting", "xgboost", "catboost"], 20.0)
OTHERS = ("knn", "svr")  # explained by asking; no aim
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Measured:
    """What one family took: medians over the turns, in CPU milliseconds."""

    family: str
    explain_ms: float  # `studperf.explain` of one student, with the bundle loaded
    predict_ms: float  # `studperf.predict` of the same student
    shap_ms: float | None  # the pipeline's encoding and shap's explainer, made beforehand; None: shap cannot read the model
    ratio_to_predict: float
    ratio_to_shap: float | None
    first_ms: float  # the first explanation in the process: imports and the making of the explainer
    loads_shap: bool  # did explaining import shap?
    gap: float  # contributions and base against the prediction, at most, in points
    aim_ms: float | None
    aim_met: bool | None


def cpu_ms(call: Callable[[], object]) -> float:
    """CPU milliseconds of one call, all threads counted."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)


def shap_alone(bundle, row) -> Callable[[], object] | None:
    """Encode one row and ask shap's own explainer, as one would without studperf."""
    import shap

    from studperf import load
    from studperf.schema import validate

    prepare, model = bundle.pipeline.regressor_["prepare"], bundle.pipeline.regressor_["model"]
    frame = validate(row, bundle.schema).frame()
    try:
        if bundle.additive is not None:
            background = prepare.transform(validate(load("exams"), bundle.schema).frame())
            explainer = shap.LinearExplainer(model, shap.maskers.Independent(background, max_samples=len(background)))
        else:
            explainer = shap.TreeExplainer(model)
        call = lambda: explainer.shap_values(prepare.transform(frame))  # noqa: E731
        call()
        return call
    except Exception:  # each library has its own way to say that it cannot read a model
        return None


def side(family: str, folder: Path, repeat: int) -> Measured:
    """Measure one family in this process."""
    from studperf import explain, load, predict
    from studperf.prediction import load_model

    bundle = load_model(folder)
    rows = load("exams").drop(columns=bundle.schema.target.name).to_dict("records")[:repeat]
    predict(rows[0], model=folder)
    first = cpu_ms(lambda: explain(rows[0], model=folder))
    loads = "shap" in sys.modules
    alone = shap_alone(bundle, rows[0])
    spent: dict[str, list[float]] = {"explain": [], "predict": [], "shap": []}
    for row in rows:
        spent["explain"].append(cpu_ms(lambda row=row: explain(row, model=folder)))
        spent["predict"].append(cpu_ms(lambda row=row: predict(row, model=folder)))
        spent["shap"].append(cpu_ms(alone) if alone else float("nan"))
    explained = explain(rows, model=folder)
    gap = float((explained.drop(columns="prediction").sum(axis=1) - explained["prediction"]).abs().max())
    ours, theirs, shap = (median(spent[name]) for name in ("explain", "predict", "shap"))
    aim = AIMS.get(family)
    return Measured(family, ours, theirs, shap if alone else None, ours / theirs, ours / shap if alone else None, first, loads, gap, aim,
                    None if aim is None else ours <= aim)  # fmt: skip


def bundle_of(family: str, home: Path) -> Path:
    """The folder of a production bundle: the shipped one for the linear family, a new one for any other."""
    code = "from importlib.resources import files; print(files('studperf') / 'data' / 'production')"
    if family != "linear":
        options = f"families=[{family!r}], seed=42, out={str(home)!r}"
        code = f"import studperf; studperf.train({options}); print({str(home / 'production')!r})"
    return Path(run([sys.executable, "-c", code], folder=home.parent).output.strip().splitlines()[-1])


def measure(families: Sequence[str], repeat: int) -> list[Measured]:
    """Every family in a process of its own, in an empty folder."""
    os.environ |= dict.fromkeys(THREADS, "1")
    results = []
    with tempfile.TemporaryDirectory(prefix="studperf-bench-") as name:
        for family in families:
            say(f"{family} ...")
            folder = bundle_of(family, Path(name) / family)
            command = [sys.executable, __file__, "--side", family, str(folder), "--repeat", str(repeat)]
            results.append(Measured(**json.loads(run(command, folder=name).output)))
    return results


def report(results: Sequence[Measured]) -> str:
    """The results as a table, the last line the verdict."""
    header = ["one student", "CPU ms", "x predict", "x shap", "predict ms", "shap ms", "first ms", "shap loaded", "gap", "aim", "met"]
    words = {None: "", True: "yes", False: "NO"}
    rows = [[m.family, f"{m.explain_ms:.2f}", f"{m.ratio_to_predict:.2f}", "-" if m.ratio_to_shap is None else f"{m.ratio_to_shap:.2f}",
             f"{m.predict_ms:.2f}", "-" if m.shap_ms is None else f"{m.shap_ms:.2f}", f"{m.first_ms:.0f}", "yes" if m.loads_shap else "no",
             f"{m.gap:.0e}", "" if m.aim_ms is None else f"<= {m.aim_ms:.0f} ms", words[m.aim_met]] for m in results]  # fmt: skip
    missed = [m.family for m in results if m.aim_met is False]
    missed += [f"{m.family} imports shap" for m in results if m.family == "linear" and m.loads_shap]
    return f"{as_table(header, rows)}\n\n{'aim missed: ' + ', '.join(missed) if missed else 'aims met'}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=50, help="students; the median counts (default: 50)")
    parser.add_argument("--families", default=",".join([*AIMS, *OTHERS]), help="comma-separated (default: linear, trees, and two that are asked)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--side", nargs=2, metavar=("FAMILY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.repeat < 1:
        parser.error("--repeat must be at least 1")
    if args.side:
        print(json.dumps(asdict(side(args.side[0], Path(args.side[1]), args.repeat))))
        return
    results = measure(args.families.split(","), args.repeat)
    plain = {"repeat": args.repeat, "cpus": os.cpu_count(), "families": [asdict(result) for result in results]}
    print(json.dumps(plain, indent=1) if args.json else report(results))


if __name__ == "__main__":
    main()

"""The price of a good model: the public grid and `studperf.train`, on the same families and the same 1,000 students.

Each side is a process of its own that reads the table, learns, and predicts 20,000 fresh students whose answers it
never sees; this program keeps the answers, and scores both.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import Cost, as_table, main, run, say

import studperf
from studperf.comparison import scores
from studperf.datasets import exam_schema
from studperf.schema import validate

HERE = Path(__file__).resolve().parent
FRESH_ROWS, FRESH_SEED = 20_000, 2026
CPU_RATIO = 0.33  # the aim: at most a third of the grid's CPU seconds
IMPORTS = "import catboost, pandas, sklearn.compose, sklearn.ensemble, sklearn.model_selection, xgboost"


def write_tables(
    data: str,  # what `studperf.load` takes: a table of exams
    folder: Path,
) -> np.ndarray:  # (20,000,) the answers for the fresh students
    """Write the table to learn from, and fresh students without their answers."""
    schema = exam_schema()
    checked = validate(studperf.load(data), schema, target=True)
    checked.frame().to_csv(folder / "table.csv", index=False)
    fresh = studperf.simulate(FRESH_ROWS, seed=FRESH_SEED)
    fresh.drop(columns=schema.target.name).to_csv(folder / "fresh.csv", index=False)
    return fresh[schema.target.name].to_numpy(float)


def run_side(script: str, folder: Path, answers: np.ndarray, options: list[str]) -> dict:
    """One side in a fresh interpreter: what it cost, what it chose, and how good that is."""
    predictions = folder / f"{script}.npy"
    say(f"\n{script}")
    arguments = ["table.csv", "fresh.csv", predictions.name, "--target", exam_schema().target.name, *options]
    cost = run([sys.executable, str(HERE / script), *arguments], folder=folder)
    r2 = float(scores(answers, np.load(predictions))["r2"])
    return {**json.loads(cost.output), "fresh_r2": r2, **seconds(cost)}


def seconds(cost: Cost) -> dict[str, float]:
    """The two figures of a cost."""
    return {"cpu_seconds": cost.cpu_seconds, "wall_seconds": cost.wall_seconds}


def measure(data: str, *, as_published: bool) -> dict:
    """Both sides, and the libraries' imports alone, which both of them pay."""
    with tempfile.TemporaryDirectory(prefix="studperf-bench-") as name:
        folder = Path(name)
        answers = write_tables(data, folder)
        imports = seconds(run([sys.executable, "-c", IMPORTS], folder=folder))
        grid = run_side("public_grid.py", folder, answers, ["--as-published"] * as_published)
        ours = run_side("our_train.py", folder, answers, [])
    facts = {"data": data, "grid_threads": "as published" if as_published else "one"}
    return facts | {"imports": imports, "grid": grid, "studperf": ours} | verdict(grid, ours, imports["cpu_seconds"])


def verdict(grid: dict, ours: dict, imports: float) -> dict:
    """The ratios and the difference that the aim is about."""
    ratio = ours["cpu_seconds"] / grid["cpu_seconds"]
    difference = ours["fresh_r2"] - grid["fresh_r2"]
    return {
        "cpu_ratio": ratio,
        "cpu_ratio_without_imports": (ours["cpu_seconds"] - imports) / (grid["cpu_seconds"] - imports),
        "wall_ratio": ours["wall_seconds"] / grid["wall_seconds"],
        "r2_difference": difference,
        "aim_met": ratio <= CPU_RATIO and round(difference, 4) >= 0,
    }


def spent(side: dict) -> list[str]:
    """The cells that say what a side cost."""
    return [f"{side['cpu_seconds']:.1f}", f"{side['wall_seconds']:.1f}"]


def scored(side: dict) -> list[str]:
    """The cells that say what it came to."""
    return [f"{side['fresh_r2']:.4f}", f"{side['test_r2']:.4f}", side["chosen"]]


def report(result: dict) -> str:
    """The result as a table, the last line the verdict."""
    grid, ours, imports = result["grid"], result["studperf"], result["imports"]
    header = ["", "CPU s", "wall s", "R2, fresh rows", "R2, test rows", "chosen"]
    rows = [
        ["imports alone, in both", *spent(imports), "", "", ""],
        [f"public grid, {grid['fits']} fits", *spent(grid), *scored(grid)],
        ["studperf.train", *spent(ours), *scored(ours)],
        ["studperf / grid", f"{result['cpu_ratio']:.2f}", f"{result['wall_ratio']:.2f}", "", "", ""],
        ["  without the imports", f"{result['cpu_ratio_without_imports']:.2f}", "", "", "", ""],
    ]
    return (
        f"data: {result['data']}; threads of the grid: {result['grid_threads']}\n\n{as_table(header, rows)}\n\n"
        f"aim {'met' if result['aim_met'] else 'missed'}: CPU ratio {result['cpu_ratio']:.2f} (aim <= {CPU_RATIO}), "
        f"R2 difference {result['r2_difference']:+.4f}"
    )


if __name__ == "__main__":
    main(__doc__, measure, report)

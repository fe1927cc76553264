"""The comparison held to known truth and to public data: who wins, what the checks say, and that a stopped run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PROVE, clean_environment, size

from studperf.comparison import FAMILIES, QUICK, Work, choose_families, compare, compare_families
from studperf.datasets import load, simulate
from studperf.schema import InputError

QUIET = Work(n_jobs=2, progress=False)
LINES = {"linear", "ridge"}
BOOSTING = {"gradient_boosting", "hist_gradient_boosting", "xgboost", "catboost"}
FORESTS = {"random_forest", *BOOSTING}


# Known truth ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world", "interaction", "right"), [("plain", 0.0, LINES), ("planted interaction", 14.0, BOOSTING)])
def test_the_right_family_wins_and_the_report_says_so(world, interaction, right):
    seeds, wrong, alarms = range(100, 100 + size(2, 50)), {}, 0
    for seed in seeds:
        found = compare(simulate(1000, seed=seed, interaction=interaction), quick=True, work=QUIET)
        if found.chosen.family.name not in right or found.chosen.family.label not in found.reason:
            wrong[seed] = found.chosen.family.name
        alarms += any(check.severity == "error" for check in found.checks)
        print(f"{world}, seed {seed}: {found.chosen.family.name}, R2 {found.chosen.r2}, {[check.code for check in found.checks]}", flush=True)
    print(f"{world}: right in {len(seeds) - len(wrong)} of {len(seeds)}; wrong {wrong}; checks of severity error in {alarms}")
    assert len(wrong) <= 0.05 * len(seeds) and alarms <= 0.05 * len(seeds)


# The public files -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stud(real_data):
    """The full comparison of all families on the public exam table."""
    return compare(real_data / "exams" / "stud.csv", work=QUIET)


def test_a_line_wins_the_exam_table_and_nothing_is_above_it(stud):
    assert stud.chosen.family.name in LINES and len(stud.entries) == len(choose_families())
    for entry in stud.entries:
        if entry.family.name in LINES:
            assert 0.868 <= entry.r2.value <= 0.875, entry.r2
        assert entry.difference.low <= 0, f"{entry.family.name} is above the chosen family by more than its interval"
    print(stud)


def test_the_ceiling_of_the_exam_table_holds_what_is_known_of_it(stud):
    assert stud.ceiling.r2.low <= 0.875 <= stud.ceiling.r2.high < 0.91
    assert stud.checks == ()


def test_a_copy_of_the_target_is_found(real_data):
    table = load(real_data / "exams" / "stud.csv")
    leaked = table.assign(final_mark=(table["math_score"] / 5 + np.random.default_rng(1).normal(0, 0.1, len(table))).round(1))
    found = compare(leaked, target="math_score", schema=_inferred(leaked), families="linear,random_forest", quick=True, work=QUIET)
    assert "target_among_features" in {check.code for check in found.checks}


def test_a_mean_that_contains_the_target_is_found(real_data):
    table = load(real_data / "exams" / "stud.csv")
    leaked = table.assign(average=table[["math_score", "reading_score", "writing_score"]].mean(axis=1))
    found = compare(leaked, target="math_score", schema=_inferred(leaked), families="linear", quick=True, work=QUIET)
    assert "target_among_features" in {check.code for check in found.checks}


def test_rows_that_stand_twice_are_found(real_data):
    table = load(real_data / "exams" / "stud.csv")
    doubled = pd.concat([table, table.sample(60, random_state=0)], ignore_index=True)
    found = compare(doubled, families="linear,knn", quick=True, work=QUIET)
    assert "duplicates_across_folds" in {check.code for check in found.checks}


def test_a_cherry_picked_split_is_found(real_data):
    table = load(real_data / "exams" / "stud.csv").reset_index(drop=True)
    rows = _cherry_picked(table, wanted=0.91)
    found = compare(table.drop(index=rows), test=table.loc[rows], families="linear,ridge,gradient_boosting", quick=True, work=QUIET)
    assert "lucky_test_set" in {check.code for check in found.checks}
    honest = compare(table.iloc[200:], test=table.iloc[:200], families="linear", quick=True, work=QUIET)
    assert "lucky_test_set" not in {check.code for check in honest.checks}


def _inferred(table):
    from studperf.schema import infer

    return infer(table, "math_score")


def _cherry_picked(table: pd.DataFrame, *, wanted: float) -> np.ndarray:
    """Test rows of a random 80/20 split on which linear regression happens to reach the wanted R2."""
    Z = np.column_stack([np.ones(len(table)), pd.get_dummies(table.drop(columns="math_score"), dtype=float).to_numpy()])
    y, rng = table["math_score"].to_numpy(float), np.random.default_rng(7)
    for _ in range(20_000):
        rows = rng.permutation(len(y))
        train, test = rows[200:], rows[:200]
        error = y[test] - Z[test] @ np.linalg.lstsq(Z[train], y[train], rcond=None)[0]
        if 1 - np.mean(error**2) / np.var(y[test]) >= wanted:
            return test
    raise AssertionError("no such split in 20,000")


@pytest.mark.parametrize(("absent", "rmse", "winners"), [((), 1.70, FORESTS), (("G2",), 2.45, FORESTS), (("G1", "G2"), 4.0, set(FAMILIES))])
def test_the_uci_table_is_predicted_as_well_as_published(real_data, absent, rmse, winners):
    table = load(real_data / "uci" / "student-mat.csv").drop(columns=list(absent))
    found = compare(table, target="G3", quick=not PROVE, work=QUIET)
    print(f"without {absent}: {found.chosen.family.name}, RMSE {found.chosen.rmse}; {found.reason}")
    assert found.chosen.family.name in winners and found.chosen.rmse.value <= rmse


# The work -------------------------------------------------------------------------------------------------------------

SMALL = ["compare", "--families", "linear,ridge,lasso,tree,random_forest,gradient_boosting,svr", "--quick", "--json"]


def _without_cost(plain: dict) -> dict:
    costs = ("fit_seconds", "predict_seconds", "size_bytes", "cpu_seconds")
    board = [{name: value for name, value in entry.items() if name not in costs} for entry in plain["leaderboard"]]
    return {**plain, "leaderboard": board}


def test_the_json_is_what_is_promised_and_does_not_depend_on_the_number_of_jobs(cli, tmp_path):
    one, two = (cli(*SMALL, "--jobs", jobs) for jobs in (1, 2))
    assert one.code == two.code == 0, one.err
    plain = one.json
    assert _without_cost(plain) == _without_cost(two.json)
    assert plain["winner"] in LINES and plain["checks"] == [] and plain["interrupted"] is False
    assert {"value", "low", "high"} <= set(plain["ceiling"]["r2"])
    for entry in plain["leaderboard"]:
        for name in ("r2", "rmse", "mae", "difference"):
            assert set(entry[name]) == {"value", "low", "high"}
        assert entry["cpu_seconds"] >= 0
    assert not list((tmp_path / "artifacts" / "comparing").iterdir()), "nothing is left behind when it is finished"


def _started(folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "studperf", *SMALL, *options]
    return subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def _lines(folder: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in (folder / "artifacts" / "comparing").glob("*.jsonl"))


def _wait_for(folder: Path, pieces: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while _lines(folder) < pieces and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_run_goes_on_where_it_was_to_the_same_result(tmp_path, cli, jobs):
    expected = _without_cost(cli(*SMALL, "--keep", tmp_path / "elsewhere", "--jobs", "2").json)
    for turn in range(size(1, 8)):
        process = _started(tmp_path, "--jobs", jobs)
        _wait_for(tmp_path, 7 + 3 * turn, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kept = _lines(tmp_path)
        assert kept >= 7
        resumed = _started(tmp_path, "--jobs", jobs)
        out, err = resumed.communicate(timeout=300)
        assert resumed.returncode == 0, err.decode()
        assert _without_cost(json.loads(out)) == expected and _lines(tmp_path) == 0


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_keeps_and_shows_what_is_finished(tmp_path, jobs):
    process = _started(tmp_path, "--jobs", jobs)
    _wait_for(tmp_path, 17, process)  # the mean, linear and ridge are done
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err.decode()
    plain = json.loads(out)
    assert plain["interrupted"] and "interrupted" in {check["code"] for check in plain["checks"]}
    assert {"mean", "linear", "ridge"} <= {entry["family"] for entry in plain["leaderboard"]} and len(plain["leaderboard"]) < 8
    assert b"Traceback" not in err
    assert _lines(tmp_path) >= 15


def test_an_interrupted_comparison_publishes_nothing(monkeypatch, tmp_path):
    import studperf.training.steps as steps

    stopped = replace(compare("exams", families="linear", quick=True, work=Work(progress=False)), interrupted=True)
    monkeypatch.setattr(steps, "compare_families", lambda *args, **options: stopped)
    with pytest.raises(KeyboardInterrupt):
        steps.train("exams", families=["linear"], out=tmp_path / "artifacts")
    assert not (tmp_path / "artifacts" / "production").exists()


def test_groups_are_never_on_both_sides():
    table = simulate(300, seed=3)
    classes = np.repeat(np.arange(30), 10)
    features = [name for name in table if name != "math_score"]
    from studperf.datasets import exam_schema

    found = compare_families(choose_families("linear"), exam_schema(), table[features], table["math_score"], effort=QUICK, groups=classes,
                             work=Work(progress=False))  # fmt: skip
    for train, test in found.question.cuts:
        assert not set(classes[train]) & set(classes[test])


def test_html_is_one_file_that_asks_for_nothing(cli, tmp_path):
    done = cli("compare", "--families", "linear,tree", "--quick", "--importance", "--html", "report.html", "--jobs", "1")
    assert done.code == 0, done.err
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text and "http:" not in text and "https:" not in text and len(text) < 2_000_000
    assert "Linear regression" in text and "report: report.html" in done.out


@pytest.mark.parametrize("wrong", [["--families", "oracle"], ["--group", "school"], ["--jobs", "0"], ["--test", "nowhere.csv"], ["--html", "x.pdf"],
                                   ["--seed", "-1"], ["--target", "lunch"]])  # fmt: skip
def test_mistakes_are_told_at_once(command, wrong):
    started = time.process_time()
    done = command("compare", "--quick", *wrong)
    assert done.code == 2 and done.err.startswith("studperf: ") and "Traceback" not in done.err
    assert time.process_time() - started < 5, "before any work is done"


def test_too_few_rows_are_refused(tmp_path, command):
    load("exams").head(20).to_csv(tmp_path / "few.csv", index=False)
    done = command("compare", "--data", tmp_path / "few.csv")
    assert done.code == 2 and "too few" in done.err
    with pytest.raises(InputError):
        compare(load("exams").head(20))

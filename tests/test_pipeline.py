"""The training notebook as a job: parameters, results, failures, and what the executed copy may not carry."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

import studperf
from studperf.artifact import load_bundle

NOTEBOOK = REPO / "nbs" / "pipelines" / "train.ipynb"


def test_a_run_leaves_a_bundle_results_and_a_clean_copy(cli, tmp_path):
    data = tmp_path / "class of 2024.csv"
    studperf.simulate(120, seed=3).to_csv(data, index=False)
    given = ["-p", "data", data, "-p", "families", "[linear, tree]", "-p", "seed", 7]
    answer = cli("run", NOTEBOOK, *given, "--out", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    run = Path(answer.json["run"])
    results = json.loads((run / "results.json").read_text())
    assert results["seed"] == 7 and {entry["family"] for entry in results["leaderboard"]} == {"mean", "linear", "tree"}
    assert load_bundle(run / results["bundle"]).version == results["version"]
    copy = (run / "train.ipynb").read_text()
    assert '"image/png"' in copy and not [
        p for p in (str(tmp_path), str(REPO), sys.prefix, str(Path.home())) if re.search(re.escape(p) + r"(?![\w-])", copy)
    ]
    assert {"environment.txt", "folds.csv", "log.txt", "parameters.json", "results.json", "schema.yaml", "split.csv", "train.ipynb"} == {
        p.name for p in run.iterdir()
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sede", "7", "'sede'; expected one of data, target"),
        ("seed", "seven", "seed: 'seven'; expected int"),
        ("families", "linear", "expected list[str] | None"),
    ],
)
def test_wrong_parameters_start_nothing(cli, tmp_path, name, value, message):
    answer = cli("run", NOTEBOOK, "-p", name, value, "--out", tmp_path / "out")
    assert answer.code == 2 and message in answer.err and not (tmp_path / "out").exists() and "Traceback" not in answer.err


def test_a_failed_run_keeps_the_copy_with_the_error_and_the_old_bundle(cli, tmp_path):
    assert cli("run", NOTEBOOK, "-p", "families", "[linear]", "--out", tmp_path / "out").code == 0
    before = load_bundle(tmp_path / "out" / "production").version
    bad = tmp_path / "bad.csv"
    studperf.simulate(120, seed=3, dirt=0.2).to_csv(bad, index=False)
    answer = cli("run", NOTEBOOK, "-p", "data", bad, "--out", tmp_path / "out", "--json")
    assert answer.code == 2 and "rows cannot be used" in answer.json["error"]
    copy = Path(answer.json["notebook"]).read_text()
    assert "InputError" in copy and str(tmp_path) not in copy
    assert load_bundle(tmp_path / "out" / "production").version == before


def test_plain_papermill_runs_it_too(tmp_path):
    code = "import papermill as p, sys; p.execute_notebook(sys.argv[1], 'copy.ipynb', {'families': ['linear'], 'out': 'out'}, progress_bar=False)"
    subprocess.run([sys.executable, "-c", code, str(NOTEBOOK)], check=True, cwd=tmp_path, capture_output=True)
    assert load_bundle(tmp_path / "out" / "production").manifest["family"] == "linear"

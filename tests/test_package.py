"""The package as a stranger gets it: a wheel in an empty environment, the shipped model, the shipped tables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPO, clean_environment

import studperf
from studperf.artifact import load_bundle

SHIPPED = REPO / "studperf" / "data" / "production"
OFFLINE = "import socket; socket.socket = socket.create_connection = None; "


def run(*command: object, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Path:
    """An environment with the core dependencies, as locked, and the wheel; nothing else."""
    place = tmp_path_factory.mktemp("stranger")
    source = place / "source"
    shutil.copytree(REPO, source, ignore=shutil.ignore_patterns(".venv", ".git", "artifacts", "build", "dist", "*.egg-info", "_docs", "_proc"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, source)
    venv.create(place / "env", with_pip=True)
    python = place / "env" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run(*pip, "--require-hashes", "-r", REPO / "requirements" / "core.lock")
    run(*pip, "--no-deps", next(place.glob("*.whl")))
    shutil.rmtree(source)
    return python


def stranger_environment() -> dict[str, str]:
    return {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}


def test_the_wheel_predicts_offline_in_another_folder(stranger, tmp_path):
    code = OFFLINE + (
        "import importlib.util as u, studperf; "
        "assert not [m for m in ('xgboost', 'catboost', 'matplotlib', 'jupyterlab', 'papermill', 'shap', 'mlflow', 'nbdev') if u.find_spec(m)]; "
        "print(studperf.predict(studperf.load('class'))['prediction'].tolist())"
    )
    told = json.loads(run(stranger, "-I", "-c", code, cwd=tmp_path, env=stranger_environment()))
    assert told == studperf.predict(studperf.load("class"), model=SHIPPED)["prediction"].tolist()


def test_the_wheel_trains_with_what_it_has_and_says_what_it_lacks(stranger, tmp_path):
    command = stranger.parent / "studperf"
    data = tmp_path / "exams.csv"
    run(command, "data", "export", "exams", data, cwd=tmp_path, env=stranger_environment())
    told = json.loads(run(command, "train", "--data", data, "--families", "linear,ridge", "--json", cwd=tmp_path, env=stranger_environment()))
    assert told["family"] == "linear"
    done = subprocess.run([command, "train", "--families", "xgboost"], capture_output=True, text=True, cwd=tmp_path, env=stranger_environment())
    assert done.returncode == 2 and "pip install 'studperf[boost]'" in done.stderr


def test_without_network_the_wheel_still_predicts_in_a_network_of_its_own(stranger, tmp_path):
    alone = ["unshare", "--net", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine cannot take the network away from a process")
    roster = tmp_path / "class.csv"
    studperf.load("class").to_csv(roster, index=False)
    out = run(*alone, stranger.parent / "studperf", "predict", roster, cwd=tmp_path, env=stranger_environment())
    assert len(out.splitlines()) == 25 and out.startswith("gender,")


def test_the_shipped_tables_are_what_the_simulator_makes():
    made = {"exams": studperf.simulate(1000, seed=0), "class": studperf.simulate(24, seed=1).drop(columns="math_score")}
    for name, table in made.items():
        pd.testing.assert_frame_equal(studperf.load(name), table, check_dtype=False)


def test_the_shipped_model_is_what_training_makes(tmp_path):
    shipped, again = load_bundle(SHIPPED), studperf.train("exams", out=tmp_path / "artifacts").bundle
    facts = ("family", "feature_set", "seed", "data", "schema", "predictor")
    assert {key: again.manifest[key] for key in facts} == {key: shipped.manifest[key] for key in facts}
    table = studperf.simulate(2000, seed=5)
    apart = np.abs(studperf.predict(table, model=again)["prediction"] - studperf.predict(table, model=shipped)["prediction"]).max()
    assert apart < 1e-6
    for name in ("cv", "test"):
        for score, numbers in shipped.manifest[name].items():
            assert again.manifest[name][score] == pytest.approx(numbers, rel=1e-6)


def test_which_model_answers(tmp_path, monkeypatch, linear):
    row = studperf.load("class").head(1)
    shipped = studperf.predict(row).attrs["model"]
    os.makedirs("artifacts")
    os.symlink(linear.resolve(), "artifacts/production")
    local = studperf.predict(row).attrs["model"]
    monkeypatch.setenv("STUDPERF_MODEL", str(SHIPPED))
    assert local == load_bundle(linear).version != shipped
    assert studperf.predict(row).attrs["model"] == shipped
    assert studperf.predict(row, model=linear).attrs["model"] == studperf.predict(row, model=linear.parent).attrs["model"] == local
    monkeypatch.setenv("STUDPERF_MODEL", "nowhere")
    with pytest.raises(studperf.InputError, match="no such model"):
        studperf.predict(row)

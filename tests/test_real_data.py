"""The public tables, from the file to the claim; and the same bytes from the same data and seed, in any process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import clean_environment

from studperf import load, load_model, predict, train
from studperf.artifact import load_pipeline
from studperf.comparison import FAMILIES, choose_families, cut, make_pipeline
from studperf.datasets import exam_schema
from studperf.schema import validate
from studperf.uncertainty import calibrate

LINEAR = {"linear", "ridge", "lasso"}
CEILING = 0.91  # what public projects claim for the exam table, and no honest model reaches


@pytest.fixture(scope="module")
def snake_case(real_data, tmp_path_factory) -> dict:
    """`studperf train --data stud.csv --json` with all families."""
    out = tmp_path_factory.mktemp("stud")
    command = [sys.executable, "-m", "studperf", "train", "--data", real_data / "exams" / "stud.csv", "--out", out, "--json"]
    done = subprocess.run(command, capture_output=True, env=clean_environment(), cwd=out, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def as_published(real_data, tmp_path_factory):
    """`studperf.train` on StudentsPerformance.csv with all families."""
    return train(real_data / "exams" / "StudentsPerformance.csv", out=tmp_path_factory.mktemp("published"))


# The exam table -------------------------------------------------------------------------------------------------------


def test_a_linear_model_is_chosen(snake_case, as_published):
    assert snake_case["family"] == as_published.bundle.manifest["family"] in LINEAR
    compared = [entry["family"] for entry in snake_case["leaderboard"]]
    assert set(compared) == {family.name for family in choose_families()}, "every installed family took part"
    print(f"chosen: {snake_case['family']}; {snake_case['reason']}")


def test_both_header_styles_give_the_same_bundle(snake_case, as_published):
    theirs, ours = load_model(snake_case["bundle"]), as_published.bundle
    assert snake_case["data"] == as_published.to_dict()["data"]
    assert theirs.manifest["data"]["sha256"] == ours.manifest["data"]["sha256"]
    assert snake_case["version"] == theirs.version == ours.version
    places = Path(snake_case["bundle"]), as_published.home / "production"
    assert contents(places[0]) == contents(places[1])


def test_the_scores_are_what_is_reachable(snake_case):
    test, cv = snake_case["test"], snake_case["cv"]
    for scores in (test, cv):
        assert set(scores) == {"r2", "rmse", "mae"}
        assert all(score["low"] <= score["value"] <= score["high"] for score in scores.values())
    assert test["r2"]["value"] >= 0.875
    assert 0.865 <= cv["r2"]["value"] <= 0.877
    assert cv["rmse"]["value"] == pytest.approx(5.40, abs=0.15)
    for part in ("test", "cv"):
        print(part, {name: round(score["value"], 4) for name, score in snake_case[part].items()})


def test_the_test_rows_are_the_popular_ones_and_the_score_is_theirs(snake_case, real_data):
    from sklearn.metrics import r2_score
    from sklearn.model_selection import train_test_split

    table = load(real_data / "exams" / "stud.csv")
    _, test = train_test_split(table, test_size=0.2, random_state=42)
    answers = predict(test, model=snake_case["bundle"])["prediction"]
    assert r2_score(test["math_score"], answers) == pytest.approx(snake_case["test"]["r2"]["value"], abs=1e-12)


def test_nothing_claims_more_than_is_reachable(snake_case):
    claims = [snake_case["test"]["r2"]["value"], snake_case["cv"]["r2"]["value"], *(entry["r2"]["value"] for entry in snake_case["leaderboard"])]
    assert max(claims) < CEILING
    card = (Path(snake_case["bundle"]) / "card.md").read_text()
    assert f"{snake_case['test']['r2']['value']:.3f}" in card


@pytest.mark.parametrize("file", ["stud.csv", "StudentsPerformance.csv"])
def test_predictions_equal_the_fitted_pipelines_on_all_rows(file, snake_case, real_data):
    bundle, table = load_model(snake_case["bundle"]), load(real_data / "exams" / file)
    pipeline = load_pipeline((Path(snake_case["bundle"]) / "pipeline.skops").read_bytes())
    fitted = pipeline.predict(validate(table, bundle.schema).frame())
    apart = np.abs(predict(table, model=bundle)["prediction"].to_numpy() - fitted)
    print(f"{file}: at most {apart.max():.2e} points apart on {len(table):,} rows")
    assert len(apart) == 1000 and apart.max() <= 1e-6


def test_the_run_folder_holds_the_split_and_no_path_of_this_machine(as_published, real_data):
    run = as_published.run
    assert {"split.csv", "folds.csv", "environment.txt", "parameters.json", "results.json", "log.txt"} <= {path.name for path in run.iterdir()}
    split = load(run / "split.csv")
    assert split["part"].value_counts().to_dict() == {"train": 800, "test": 200}
    for path in run.iterdir():
        assert str(real_data) not in path.read_text() and str(Path.home()) not in path.read_text(), path.name


# Another table --------------------------------------------------------------------------------------------------------


def test_another_table_works_through_an_inferred_schema(real_data, tmp_path):
    trained = train(real_data / "uci" / "student-mat.csv", target="G3", out=tmp_path / "uci")
    results = trained.to_dict()
    assert results["target"] == "G3" and len(trained.task.names) == 32
    assert results["cv"]["rmse"]["value"] <= 1.80
    assert results["cv"]["r2"]["value"] < CEILING
    table = load(real_data / "uci" / "student-mat.csv")
    answers = predict(table.drop(columns="G3"), model=tmp_path / "uci")
    assert len(answers) == 395 and answers["prediction"].between(0, 20).all()
    print(f"G3: {results['family']}, cv RMSE {results['cv']['rmse']['value']:.3f}, test {results['test']['rmse']['value']:.3f}")


# What it does not know ------------------------------------------------------------------------------------------------


def test_intervals_of_the_exam_data_keep_their_promise(real_data):
    """Cross-validated twice over: the outer folds judge, the inner ones calibrate."""
    schema, table = exam_schema(), load(real_data / "exams" / "stud.csv")
    names, y = [column.name for column in schema.features()], table[schema.target.name].to_numpy(float)
    inside, width = np.empty(len(y), bool), np.empty(len(y))
    for train_rows, test_rows in cut(y, folds=10, seed=3):
        X, own = table[names].iloc[train_rows], y[train_rows]
        unseen = np.empty(len(own))
        for a, b in cut(own, folds=5, seed=4):
            unseen[b] = make_pipeline(FAMILIES["linear"], schema, names, seed=0).fit(X.iloc[a], own[a]).predict(X.iloc[b])
        predicted = make_pipeline(FAMILIES["linear"], schema, names, seed=0).fit(X, own).predict(table[names].iloc[test_rows])
        lower, upper = calibrate(own, unseen, low=0, high=100).interval(predicted)
        inside[test_rows], width[test_rows] = (lower <= y[test_rows]) & (y[test_rows] <= upper), upper - lower
    print(f"stud.csv: {inside.mean():.3f} of 1,000 inside, {width.mean():.2f} points wide")
    assert 0.89 <= inside.mean() <= 0.91 and width.mean() <= 18.8


def test_what_gender_is_worth_on_the_exam_data(real_data, tmp_path):
    trained = train(real_data / "exams" / "stud.csv", families=["linear"], out=tmp_path / "artifacts")
    facts = trained.bundle.manifest
    moved = {group["group"]: group["moved"]["value"] for group in facts["protected"]["groups"] if group["column"] == "gender"}
    print(f"without the protected columns R2 falls by {facts['protected']['r2']['cost']}; {moved}")
    assert 0.14 < facts["protected"]["r2"]["cost"]["value"] < 0.20
    assert moved["female"] > 5 and moved["male"] < -5
    assert facts["coverage"]["width"]["value"] <= 18.8 and not facts["coverage"]["varies"]
    blind = train(real_data / "exams" / "stud.csv", families=["linear"], feature_set="unprotected", out=tmp_path / "blind")
    flags = {(flag["code"], flag["column"]) for flag in blind.bundle.manifest["audit"]["flags"]}
    assert ("bias", "gender") in flags and blind.bundle.manifest["protected"] is None
    assert not [flag for flag in facts["audit"]["flags"] if flag["column"] == "gender"]


def test_a_table_with_varying_noise_and_no_protected_column_is_trained_whole(real_data, tmp_path):
    trained = train(real_data / "uci" / "student-mat.csv", target="G3", families=["linear"], out=tmp_path / "uci")
    facts = trained.bundle.manifest
    assert facts["audit"] is None and facts["protected"] is None and facts["effects"] == {}
    table = load(real_data / "uci" / "student-mat.csv").drop(columns="G3")
    answers = predict(table, model=tmp_path / "uci", threshold=10)
    widths = (answers["upper"] - answers["lower"]).round(6)
    assert facts["coverage"]["varies"] == (widths.nunique() > 300)
    assert (answers["lower"] <= answers["prediction"]).all() and (answers["prediction"] <= answers["upper"]).all()
    assert answers["p_below"].between(0, 1).all() and answers["abstain"].mean() < 0.05
    print(f"UCI, linear: {facts['coverage']}")


# The same bytes -------------------------------------------------------------------------------------------------------

TRAIN_EACH = """
import sys
from studperf import simulate, train

table = simulate(150, seed=11)
for family in sys.argv[2:]:
    trained = train(table, families=[family], seed=5, out=f"{sys.argv[1]}/{family}")
    assert trained.bundle.manifest["family"] == family
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_training_twice_gives_the_same_bytes_for_every_family(tmp_path):
    names, running = [family.name for family in choose_families()], []
    for place, hash_seed in (("one", "1"), ("two", "4242")):
        (tmp_path / place).mkdir()
        command = [sys.executable, "-c", TRAIN_EACH, ".", *names]
        environment = clean_environment() | {"PYTHONHASHSEED": hash_seed}
        running.append(subprocess.Popen(command, cwd=tmp_path / place, env=environment, stderr=subprocess.PIPE))
    for process in running:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()
    for name in names:
        one, two = (contents(tmp_path / place / name / "production") for place in ("one", "two"))
        assert sorted(one) == sorted(two)
        assert [file for file in one if one[file] != two[file]] == [], name
    print(f"{len(names)} of {len(FAMILIES)} families: the same bytes from two processes")


def test_every_family_is_installed_in_ci():
    if not os.environ.get("CI"):
        pytest.skip("not in CI: families may be absent")
    assert len(choose_families()) == len(FAMILIES)

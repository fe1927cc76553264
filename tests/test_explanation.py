"""Explanations held to arithmetic and to other libraries: they add up on every row, and they are the Shapley values they claim to be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import clean_environment, size
from threadpoolctl import threadpool_limits

from studperf import load_model, predict, simulate
from studperf.artifact import Bundle, compile_pipeline, dump_pipeline
from studperf.comparison import FAMILIES, make_pipeline
from studperf.datasets import exam_schema, load
from studperf.explanation import additive_contributions, explain, nearest, plot_beeswarm, plot_dependence, plot_waterfall, sentences, what_if
from studperf.explanation.any import any_explainer
from studperf.explanation.trees import column_owners
from studperf.schema import Column, Schema, validate

SCHEMA = exam_schema()
LENIENT = replace(SCHEMA, columns=tuple(c if c.kind == "target" else replace(c, missing="impute", unknown="ignore") for c in SCHEMA.columns))
LINES = ["mean", "linear", "ridge", "lasso"]
TREES = ["tree", "random_forest", "gradient_boosting", "hist_gradient_boosting", "xgboost", "catboost"]
ASKED = [name for name in FAMILIES if name not in (*LINES, *TREES)]


def typical_of(train) -> dict:
    """What a bundle keeps of its training rows."""
    numbers, categories = {}, {}
    for column in train.specs:
        values = train.columns[column.name]
        if column.kind == "category":
            categories[column.name] = [float(np.mean(values == code)) for code in range(len(column.categories))]
        elif (seen := values[np.isfinite(values)]).size:
            quantiles = np.quantile(seen, np.linspace(0, 1, 21)).tolist()
            numbers[column.name] = {"mean": float(seen.mean()), "sd": float(seen.std()), "quantiles": quantiles}
    return {"numbers": numbers, "categories": categories}


@cache
def small(family: str, lenient: bool = False, feature_set: str = "full", bounds: tuple[float, float] = (0, 100)) -> Bundle:
    """A family fitted on some students, as a bundle that was written and read, without the rest of a training."""
    schema = (LENIENT if lenient else SCHEMA).edit(SCHEMA.target.name, low=bounds[0], high=bounds[1])
    table = simulate(300, seed=3, missing=0.1 if lenient else 0.0)
    train, y = validate(table, schema, feature_set=feature_set), table[schema.target.name].to_numpy(float)
    with threadpool_limits(1):
        fitted = make_pipeline(FAMILIES[family], schema, list(train.columns), seed=0).fit(train.frame(), y)
    facts = {"family": family, "label": FAMILIES[family].label, "feature_set": feature_set, "typical": typical_of(train)}
    additive = compile_pipeline(fitted, schema, feature_set)
    return Bundle(Path("."), facts, schema, "", f"{family}-{lenient}-{feature_set}-{bounds}", additive, dump_pipeline(fitted))


def anybody(n: int, seed: int = 7) -> pd.DataFrame:
    """Every combination is as likely as any other, so that many predictions leave the target's range."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({c.name: rng.choice(np.array(c.categories, object), n) if c.kind == "category" else rng.uniform(c.low, c.high, n).round()
                         for c in SCHEMA.features()})  # fmt: skip


def served(table: pd.DataFrame, bundle: Bundle) -> np.ndarray:
    """What the bundle predicts, without an explanation."""
    return bundle.predict(validate(table, bundle.schema, feature_set=bundle.feature_set))


def gap(explained: pd.DataFrame) -> float:
    """How far contributions and base are from the prediction, at most."""
    return float((explained.drop(columns="prediction").sum(axis=1) - explained["prediction"]).abs().max())


# The sum --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_and_base_are_the_served_prediction_on_every_row(family):
    few = size(8, 1000) if family in ASKED else 1000
    bundle = small(family)
    table = pd.concat([simulate(few // 2, seed=5), anybody(few - few // 2)], ignore_index=True).set_index(pd.Index(range(few, 0, -1)))
    explained = explain(table, model=bundle)
    tolerance = 1e-6 if family in LINES else 1e-3
    print(f"{family}: {few} rows, largest gap {gap(explained):.1e}, by {explained.attrs['way']}")
    assert gap(explained) <= tolerance and explained.index.equals(table.index) and len(explained) == few
    assert np.array_equal(explained["prediction"], served(table, bundle)) and explained["prediction"].between(0, 100).all()
    assert explained["base"].nunique() == 1 and 55 < explained["base"].iloc[0] < 75
    assert explained.attrs["way"] == ("closed form" if family in LINES else "trees" if family in TREES else "asking")


@pytest.mark.parametrize("family", ["linear", *TREES, "svr"])
def test_where_the_range_is_narrow_many_rows_are_held_and_all_add_up(family):
    """A target from 60 to 75 among scores from 0 to 100: most predictions stand at an end."""
    bundle, table = small(family, bounds=(60, 75)), simulate(400 if family != "svr" else 10, seed=5)
    explained = explain(table, model=bundle)
    assert explained["prediction"].isin([60, 75]).mean() > 0.4 and explained["prediction"].between(60, 75).all()
    assert gap(explained) <= (1e-6 if family == "linear" else 1e-3) and explained["base"].between(60, 75).all()


def test_held_rows_keep_signs_and_proportions():
    bundle, table = small("linear", bounds=(60, 75)), simulate(400, seed=5)
    free = additive_contributions(bundle.additive, bundle.manifest["typical"], validate(table, bundle.schema).columns)
    outside = (free.total < 60) | (free.total > 75)
    kept = explain(table, model=bundle)[list(free.columns)].to_numpy()
    factor = kept[outside].sum(1) / free.points[outside].sum(1)
    assert ((factor > 0) & (factor < 1)).all() and np.array_equal(kept[~outside], free.points[~outside])
    assert np.allclose(kept[outside], free.points[outside] * factor[:, None])


@pytest.mark.parametrize("family", ["linear", "ridge", *TREES, "knn", "adaboost", "mlp"])
def test_gaps_and_unknown_categories_are_explained(family):
    bundle = small(family, lenient=True)
    table = simulate(200 if family in (*LINES, *TREES) else 6, seed=5, missing=0.2).astype(object)
    table.loc[table.index[::3], "lunch"] = "vegan"
    table.iloc[1, :-1] = None
    explained = explain(table, model=bundle)
    assert gap(explained) <= (1e-6 if family in LINES else 1e-3) and np.isfinite(explained.to_numpy()).all()
    said = sentences(explained, table, row=1, model=bundle, least=0.0)
    assert len(said) == 7 and all("(missing)" in line for line in said)


@pytest.mark.parametrize("feature_set", ["early", "unprotected"])
@pytest.mark.parametrize("family", ["linear", "random_forest", "knn"])
def test_other_feature_sets_have_their_own_columns(family, feature_set):
    bundle, table = small(family, feature_set=feature_set), simulate(5, seed=5)
    explained = explain(table, model=bundle)
    assert list(explained) == [c.name for c in SCHEMA.features(feature_set)] + ["base", "prediction"] and gap(explained) < 1e-6


@pytest.mark.parametrize("family", ["linear", "random_forest", "xgboost", "svr"])
def test_an_explanation_depends_on_its_own_row(family):
    bundle, table = small(family), simulate(6, seed=5)
    whole = explain(table, model=bundle).to_numpy()
    alone = np.vstack([explain(row, model=bundle).to_numpy() for row in table.to_dict("records")])
    assert np.abs(whole - alone).max() < 1e-10
    assert np.abs(explain(table[::-1], model=bundle).to_numpy()[::-1] - whole).max() < 1e-10


def test_trained_bundles_explain_what_they_serve(bundles):
    for family in ("linear", "random_forest"):
        folder, table = bundles(family), simulate(4, seed=5)
        explained = explain(table, model=folder)
        assert gap(explained) < 1e-3 and explained["prediction"].equals(predict(table, model=folder)["prediction"])
        assert explained.attrs["model"] == load_model(folder).version


# The values -----------------------------------------------------------------------------------------------------------


def summed_back(points: np.ndarray, prepare, names: list[str]) -> np.ndarray:
    """Contributions of outputs, summed by the column that each belongs to."""
    owners = np.array(column_owners(prepare))
    return np.column_stack([points[:, owners == name].sum(axis=1) for name in names])


@pytest.mark.parametrize("family", ["linear", "ridge", "lasso"])
def test_the_closed_form_is_that_of_shap(family):
    import shap

    bundle, train, table = small(family), simulate(300, seed=3), simulate(500, seed=6)
    prepare, model = bundle.pipeline.regressor_["prepare"], bundle.pipeline.regressor_["model"]
    names = [c.name for c in SCHEMA.features()]
    oracle = shap.LinearExplainer(model, shap.maskers.Independent(prepare.transform(train[names]), max_samples=1000))
    expected = summed_back(oracle.shap_values(prepare.transform(table[names])), prepare, names)
    found = additive_contributions(bundle.additive, bundle.manifest["typical"], validate(table, SCHEMA).columns)
    apart = np.abs(found.points - expected).max()
    print(f"{family}: {apart:.1e} points from shap.LinearExplainer on 500 rows")
    assert apart < 1e-9 and abs(found.base - float(np.ravel(oracle.expected_value)[0])) < 1e-9


@pytest.mark.parametrize("family", TREES)
def test_a_column_that_changes_nothing_gets_nothing(family):
    rng = np.random.default_rng(2)
    schema = Schema((Column("a", low=0, high=1), Column("b", "category", categories=("x", "y")), Column("idle", low=0, high=1),
                     Column("score", "target", low=0, high=100)))  # fmt: skip
    table = pd.DataFrame({"a": rng.random(300), "b": rng.choice(["x", "y"], 300), "idle": 0.5})
    y = 50 + 20 * (table["a"] > 0.5) * (table["b"] == "x") + rng.normal(0, 1, 300)
    train = validate(table, schema)
    with threadpool_limits(1):
        fitted = make_pipeline(FAMILIES[family], schema, list(table), seed=0).fit(train.frame(), y)
    facts = {"family": family, "label": family, "feature_set": "full", "typical": typical_of(train)}
    bundle = Bundle(Path("."), facts, schema, "", f"idle-{family}", None, dump_pipeline(fitted))
    explained = explain(table.assign(idle=rng.random(300)), model=bundle)
    assert (explained["idle"] == 0).all() and explained["a"].abs().min() > 0 and explained["b"].abs().min() > 0
    assert abs(explained["base"].iloc[0] - y.mean()) < 0.5 and gap(explained) < 1e-3


def shapley(ask: Callable, background: np.ndarray, row: np.ndarray) -> np.ndarray:
    """By the definition: all subsets of the columns, each column's gain in each."""
    d = len(row)
    subsets = [set(some) for k in range(d + 1) for some in combinations(range(d), k)]
    rows = np.concatenate([np.where([j in some for j in range(d)], row, background) for some in subsets])
    known = dict(zip(map(frozenset, subsets), ask(rows).reshape(len(subsets), -1).mean(axis=1), strict=True))
    value = np.zeros(d)
    for some in subsets:
        for j in set(range(d)) - some:
            value[j] += (known[frozenset(some | {j})] - known[frozenset(some)]) / (d * comb(d - 1, len(some)))
    return value


@pytest.mark.parametrize(("family", "columns", "exact"), [("knn", 4, True), ("adaboost", 5, True), ("polynomial", 9, True), ("knn", 9, False)])
def test_asking_comes_to_the_shapley_values(family, columns, exact):
    """All subsets up to seven columns; above, random orders, which are exact where columns interact in pairs."""
    from studperf.explanation.any import _as_matrix, _asked, made_up_rows

    rng = np.random.default_rng(4)
    specs = tuple(Column(f"x{j}", low=0, high=1) for j in range(columns))
    schema = Schema((*specs, Column("score", "target", low=0, high=100)))
    table = pd.DataFrame(rng.random((300, columns)), columns=[c.name for c in specs])
    y = 50 + 20 * table["x0"] * table["x1"] - 10 * table["x2"] + 15 * table["x3"] ** 2 + rng.normal(0, 1, 300)
    train = validate(table, schema)
    fitted = make_pipeline(FAMILIES[family], schema, list(table), seed=0).fit(table, y)
    typical, rows = typical_of(train), validate(table[:3], schema)
    found = any_explainer(fitted, typical, specs)(rows.columns)
    background = _as_matrix(made_up_rows(typical, specs))
    expected = np.array([shapley(_asked(fitted, specs), background, row) for row in _as_matrix(rows.columns)])
    apart = np.abs(found.points - expected)
    print(f"{family}, {columns} columns: at most {apart.max():.1e} points from the definition, on average {apart.mean():.1e}")
    assert np.abs(found.total - fitted.predict(table[:3])).max() < 1e-9
    assert apart.max() < 1e-8 if exact else (0 < apart.mean() < 0.15 and apart.max() < 0.6)


def test_asking_leaves_the_global_generator_alone_and_can_be_done_in_threads():
    bundle, table = small("svr"), simulate(4, seed=5)
    np.random.seed(11)
    expected = np.random.random(5)
    np.random.seed(11)
    whole = explain(table, model=bundle).to_numpy()
    assert np.array_equal(expected, np.random.random(5))
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda row: explain(row, model=bundle).to_numpy()[0], table.to_dict("records")))
    assert np.array_equal(whole, np.array(alone))


# What if --------------------------------------------------------------------------------------------------------------


def test_the_difference_of_a_line_is_the_difference_of_its_points():
    bundle, table = small("linear"), simulate(100, seed=5)
    points = dict(zip(SCHEMA["test_preparation_course"].categories, bundle.additive.categories["test_preparation_course"], strict=False))
    for row in table.to_dict("records")[:20]:
        other = "none" if row["test_preparation_course"] == "completed" else "completed"
        answer = what_if(row, {"test_preparation_course": other}, model=bundle)
        assert abs(answer.after - answer.before - points[other] + points[row["test_preparation_course"]]) < 1e-9
        assert answer.difference is None and answer.before == served(pd.DataFrame([row]), bundle)[0]


def test_words_of_a_what_if_never_advise_and_always_caution():
    student = load("exams").iloc[0].to_dict()
    answer = what_if(student, {"test_preparation_course": "completed"})
    for text in (str(answer), answer._repr_html_(), json.dumps(answer.to_dict())):
        assert "does not say what would happen" in text
        assert not any(word in text.lower() for word in ("should", "recommend", "because", "leads to", "improve", "effect of", "would gain"))
    assert answer.difference.low < answer.difference.high and set(answer.scores) == {"before", "after"}


# What is loaded -------------------------------------------------------------------------------------------------------


def test_explaining_with_a_linear_model_loads_no_library_of_models_or_figures(tmp_path):
    heavy = ["shap", "sklearn", "scipy", "skops", "matplotlib", "xgboost", "catboost", "numba"]
    row = simulate(1, seed=0).iloc[0].drop("math_score").to_dict()
    code = f"""
import sys
from studperf.explanation import explain, nearest, sentences, what_if
before = [name for name in {heavy} if name in sys.modules]
row = {row!r}
explained = explain(row)
sentences(explained, row), nearest(row, [row], k=1), what_if(row, {{"test_preparation_course": "completed"}})
print(before, [name for name in {heavy} if name in sys.modules], explained.attrs["way"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean_environment(), cwd=tmp_path)
    assert done.stdout.strip() == "[] [] closed form"


def test_without_shap_a_linear_model_is_explained_and_others_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    table = simulate(3, seed=5)
    assert gap(explain(table, model=small("linear"))) < 1e-9
    for family in ("tree", "knn"):
        with pytest.raises(ValueError, match=r"studperf\[explain\]"):
            explain(table, model=replace(small(family), version=f"no-shap-{family}"))
    assert gap(explain(table, model=small("xgboost"))) < 1e-3


def test_figures_and_neighbours_take_gaps_and_other_models():
    import matplotlib

    matplotlib.use("agg")
    bundle = small("tree", lenient=True)
    table = simulate(40, seed=5, missing=0.2)
    explained = explain(table, model=bundle)
    plot_waterfall(explained, table, row=3, model=bundle, most=3)
    plot_beeswarm(explained, table, model=bundle)
    for column in SCHEMA.features():
        plot_dependence(explained, table, column.name, model=bundle).figure.canvas.draw()
    matplotlib.pyplot.close("all")
    alike = nearest(table[:1], table, model=bundle, k=3)
    assert alike["distance"].iloc[0] == 0 and alike.index[0] == 0 and alike["distance"].is_monotonic_increasing


def test_the_interval_of_a_difference_holds_the_true_one():
    """In the simulated world those who took the course have 3.5 points less than others with equal scores."""
    from studperf.comparison import tuned
    from studperf.datasets.simulation import SCORES
    from studperf.training.limits import learn_effects
    from studperf.training.task import prepare

    column, seeds, inside, reach = "test_preparation_course", range(40, 40 + size(5, 200)), 0, []
    truth, student = SCORES["math_score"][3][column]["completed"], load("exams").iloc[0].to_dict()
    for seed in seeds:
        task = prepare(simulate(400, seed=seed), seed=seed)
        fitted = tuned(FAMILIES["linear"], task.schema, *task.rows("train"), seed=seed)
        facts = {**small("linear").manifest, "effects": learn_effects(task, fitted)}
        bundle = replace(small("linear"), manifest=facts, version=f"effects-{seed}", additive=compile_pipeline(fitted, task.schema))
        answer = what_if(student, {column: "completed"}, model=bundle).difference
        inside += answer.low <= truth <= answer.high
        reach.append(answer.high - answer.low)
    print(f"what if: {inside} of {len(seeds)} intervals hold {truth}; mean length {np.mean(reach):.2f} points")
    assert inside / len(seeds) >= 0.95 - 2.6 * np.sqrt(0.95 * 0.05 / len(seeds)) and np.mean(reach) < 5

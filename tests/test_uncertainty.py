"""Uncertainty held to known truth: coverage, probabilities, arms and abstention over many simulated worlds, and MAPIE as an oracle."""

from __future__ import annotations

import json
import logging
from functools import cache

import numpy as np
import pandas as pd
import pytest
from conftest import size
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom
from sklearn.linear_model import LinearRegression, QuantileRegressor

from studperf.comparison import FAMILIES, cut, make_pipeline
from studperf.datasets import exam_schema, load, simulate
from studperf.preprocessing import make_preprocessor
from studperf.schema import infer, validate
from studperf.uncertainty.arms import arm_lengths, choose_arms, fit_arms, interval_score
from studperf.uncertainty.conformal import calibrate
from studperf.uncertainty.coverage import coverage_by, coverage_of, reliability
from studperf.uncertainty.domain import Domain, learn_domain
from studperf.uncertainty.methods import conformal_quantiles, cross_conformal, split_conformal

SCHEMA = exam_schema()
FEATURES = [column.name for column in SCHEMA.features()]
TARGET = SCHEMA.target.name
GROUPS = [column.name for column in SCHEMA.features() if column.kind == "category"]
SETTINGS = {"linear": {}, "random_forest": {"n_estimators": 30}, "gradient_boosting": {"n_estimators": 60}}


def pipeline(family: str, seed: int = 0):
    return make_pipeline(FAMILIES[family], SCHEMA, FEATURES, seed=seed, settings=SETTINGS[family])


def out_of_fold(table: pd.DataFrame, family: str = "linear", seed: int = 0):
    """True values, predictions by models that had not seen them, and the cut: what a training run has at hand."""
    y, predicted = table[TARGET].to_numpy(float), np.empty(len(table))
    pairs = cut(y, folds=5, seed=seed)
    for learn, score in pairs:
        predicted[score] = pipeline(family).fit(table[FEATURES].iloc[learn], y[learn]).predict(table[FEATURES].iloc[score])
    return y, predicted, pairs


# Coverage and probabilities, as a bundle makes them --------------------------------------------------------------------

LEARNT, NEW, MARKS = 400, 1000, (50, 60, 70)


@cache
def draws(family: str) -> dict[str, np.ndarray]:
    """Many classes of 400 to learn from and 1,000 new students each: intervals, probabilities and groups of the new ones."""
    many = size(30 if family == "linear" else 16, 200)
    kept = {"y": [], "lower": [], "upper": [], "draw": [], **{f"below {mark}": [] for mark in MARKS}, **{name: [] for name in GROUPS}}
    for seed in range(many):
        table, new = simulate(LEARNT, seed=10_000 + seed), simulate(NEW, seed=50_000 + seed)
        y, predicted, _ = out_of_fold(table, family, seed)
        calibration = calibrate(y, predicted, low=0, high=100)
        told = pipeline(family).fit(table[FEATURES], y).predict(new[FEATURES])
        lower, upper = calibration.interval(told, level=0.9)
        marks = {f"below {mark}": calibration.p_below(told, mark) for mark in MARKS}
        its = {"y": new[TARGET].to_numpy(float), "lower": lower, "upper": upper, "draw": np.full(NEW, seed)}
        for name, values in {**its, **marks, **{name: new[name].to_numpy(object) for name in GROUPS}}.items():
            kept[name].append(values)
    return {name: np.concatenate(values) for name, values in kept.items()}


@pytest.mark.parametrize("family", SETTINGS)
def test_nominal_90_percent_cover_89_to_91(family):
    its = draws(family)
    inside = pd.Series((its["lower"] <= its["y"]) & (its["y"] <= its["upper"])).groupby(its["draw"]).mean()
    width = np.mean(its["upper"] - its["lower"])
    error = inside.std() / np.sqrt(len(inside))
    print(f"{family}: coverage {inside.mean():.4f} +- {error:.4f} over {len(inside)} draws (spread {inside.std():.3f}), width {width:.2f}")
    allowed = size(0.01, 0) + 0.01  # with ten draws the mean itself has an error of half a point
    assert 0.9 - allowed <= inside.mean() <= 0.9 + allowed
    assert inside.std() < 0.03, "one calibration is within a few points, too"


@pytest.mark.parametrize("family", SETTINGS)
def test_groups_of_a_hundred_are_inside_their_band(family):
    """A group's count is binomial around the coverage of its calibration, which itself has a beta distribution: so, beta-binomial.

    95 of 100 groups are inside if errors are alike in all groups and the model is as right in each. What the model learnt of a group from few rows
    moves some of the others: most for a forest, which shrinks small groups towards the rest. Three points more are allowed for that.
    """
    its, rank = draws(family), int((LEARNT + 1) * 0.05)
    inside = pd.Series((its["lower"] <= its["y"]) & (its["y"] <= its["upper"]))
    cells = pd.concat([inside.groupby([its["draw"], its[name]]).agg(["sum", "size"]).rename_axis(["draw", "group"]) for name in GROUPS])
    pooled = cells["sum"].groupby("group").sum() / cells["size"].groupby("group").sum()
    cells = cells[cells["size"] >= 100]
    band = betabinom(cells["size"], LEARNT + 1 - 2 * rank, 2 * rank)
    out = (cells["sum"] < band.ppf(0.025)) | (cells["sum"] > band.ppf(0.975))
    plain = np.abs(cells["sum"] / cells["size"] - 0.9) > 1.96 * np.sqrt(0.09 / cells["size"])
    print(f"{family}: {out.mean():.1%} of {len(cells)} groups outside their band (of the plain binomial one {plain.mean():.1%}); "
          f"over all draws {pooled.min():.3f} ({pooled.idxmin()}) to {pooled.max():.3f} ({pooled.idxmax()})")  # fmt: skip
    assert out.mean() <= size(0.12, 0.08)
    assert pooled.between(0.85, 0.94).all()


@pytest.mark.parametrize("family", SETTINGS)
def test_probabilities_mean_what_they_say(family):
    its = draws(family)
    for mark in MARKS:
        measured = reliability(its[f"below {mark}"], its["y"] < mark)
        print(f"{family}: below {mark}: calibration error {measured.error:.4f}, by chance {measured.by_chance:.4f}")
        assert measured.error <= 0.02


def test_thirty_rows_work_and_warn(caplog):
    inside = []
    for seed in range(size(200, 2000)):
        errors = np.random.default_rng(seed).normal(0, 5, 1030)
        with caplog.at_level(logging.WARNING, logger="studperf"):
            caplog.clear()
            lower, upper = calibrate(60 + errors[:30], np.full(30, 60.0)).interval(np.full(1000, 60.0))
        assert "30 students only" in caplog.text and np.isfinite(lower + upper).all()
        inside.append(coverage_of(60 + errors[30:], lower, upper).value)
    print(f"calibrated on 30: coverage {np.mean(inside):.3f} on average; 5 % quantile {np.quantile(inside, 0.05):.2f}")
    assert abs(np.mean(inside) - (1 - 2 / 31)) < 0.01, "one error left out on each side: 29 of 31 places"


# Arms ------------------------------------------------------------------------------------------------------------------


@cache
def expected():
    big = simulate(10_000, seed=99)
    return pipeline("linear").fit(big[FEATURES], big[TARGET])


def noise(world: str, table: pd.DataFrame) -> np.ndarray:
    """The spread of each student's noise, in points."""
    if world == "by a number":
        return np.maximum(1, (table["reading_score"].to_numpy(float) - 30) / 6)
    return np.where(table["lunch"] == "free/reduced", 9.0, 4.0) if world == "by a category" else np.full(len(table), 5.4)


def noisy(world: str, n: int, seed: int) -> pd.DataFrame:
    table, rng = simulate(n, seed=seed), np.random.default_rng([seed, 1])
    y = expected().predict(table[FEATURES]) + noise(world, table) * rng.normal(size=n)
    return table.assign(**{TARGET: np.clip(np.rint(y), 0, 100)})


def arms_against_one_width(world: str, n: int, seed: int) -> dict[str, float]:
    table, new = noisy(world, n, seed), noisy(world, 2000, 70_000 + seed)
    y, predicted, pairs = out_of_fold(table)
    choice = choose_arms(SCHEMA.features(), table[FEATURES], y - predicted, pairs)
    told, truth = pipeline("linear").fit(table[FEATURES], y).predict(new[FEATURES]), new[TARGET].to_numpy(float)
    lengths = None if choice.arms is None else arm_lengths(choice.arms, new[FEATURES])
    ways = {"one": calibrate(y, predicted, low=0, high=100).interval(told),
            "arms": calibrate(y, predicted, low=0, high=100, arms=choice.lengths).interval(told, arms=lengths)}  # fmt: skip
    third = np.searchsorted(np.quantile(noise(world, new), [1 / 3, 2 / 3]), noise(world, new))
    found = {"chosen": choice.arms is not None}
    for name, (lower, upper) in ways.items():
        inside = (lower <= truth) & (truth <= upper)
        score = interval_score(truth, lower, upper, level=0.9).mean()
        found |= {f"{name} covers": inside.mean(), f"{name} width": np.mean(upper - lower), f"{name} score": score}
        found |= {f"{name} off": max(abs(inside[third == place].mean() - 0.9) for place in set(third.tolist()))}
    return found


@pytest.mark.parametrize("world", ["by a number", "by a category", "equal"])
@pytest.mark.parametrize("n", [200, 400, 800])
def test_arms_are_chosen_where_they_help(world, n):
    if n != 400 and size(1, 0):
        pytest.skip("the long form has three sizes")
    found = pd.DataFrame([arms_against_one_width(world, n, seed) for seed in range(size(6, 60))])
    mean = found.mean()
    print(f"\nnoise {world}, {n} students, {len(found)} classes: chosen in {mean['chosen']:.0%}; one width | what was chosen: "
          + ", ".join(f"{what} {mean[f'one {what}']:.3f} | {mean[f'arms {what}']:.3f}" for what in ("covers", "off", "width", "score")))  # fmt: skip
    assert abs(mean["arms covers"] - mean["one covers"]) < 0.015
    if world == "equal":
        assert mean["chosen"] <= 0.05
    elif n >= 400:
        assert mean["chosen"] >= 0.8 and mean["arms score"] < 0.96 * mean["one score"] and mean["arms off"] < mean["one off"]
        assert mean["arms width"] < mean["one width"]
    else:
        assert mean["arms score"] < mean["one score"]


def test_arms_fold_into_tables():
    from studperf.artifact import compile_pipeline

    table = noisy("by a number", 300, 3)
    y, predicted, _ = out_of_fold(table)
    arms = fit_arms(SCHEMA.features(), table[FEATURES], y - predicted)
    columns, lengths = validate(table, SCHEMA).columns, arm_lengths(arms, table[FEATURES])
    wide = SCHEMA.edit(TARGET, low=None, high=None)
    for side, arm in enumerate(arms):
        compiled = compile_pipeline(arm, wide)
        assert np.abs(np.maximum(compiled.predict(columns), arm.floor_) - lengths[:, side]).max() < 1e-6


# Abstention ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [100, 200, 400, 1000])
def test_few_of_the_same_population_are_marked(n):
    shares = []
    for seed in range(size(20, 200)):
        domain = learn_domain(validate(simulate(n, seed=seed), SCHEMA))
        shares.append(np.mean([bool(reason) for reason in domain.reasons(validate(simulate(500, seed=80_000 + seed), SCHEMA))]))
    print(f"{n} training rows: {np.mean(shares):.2%} of new students are marked (in the worst of {len(shares)} worlds {max(shares):.1%})")
    assert np.mean(shares) <= 0.02


def test_few_students_of_the_real_table_are_marked(real_data):
    table = load(real_data / "uci" / "student-mat.csv")
    schema, shares = infer(table, "G3"), []
    for seed in range(size(40, 400)):
        order = np.random.default_rng(seed).permutation(len(table))
        domain = learn_domain(validate(table.iloc[order[:316]], schema))
        shares.append(np.mean([bool(reason) for reason in domain.reasons(validate(table.iloc[order[316:]], schema))]))
    plain = json.dumps(domain.to_dict())
    print(f"UCI, {len(schema.features())} features: {np.mean(shares):.2%} of new students marked, {max(shares):.1%} at worst; {len(plain):,} bytes")
    assert np.mean(shares) <= 0.02 and len(plain) < 20_000


def test_the_reason_of_a_student_does_not_depend_on_the_others():
    domain = learn_domain(validate(simulate(150, seed=1), SCHEMA))
    new = simulate(300, seed=2)
    new["writing_score"] = new["writing_score"].to_numpy()[::-1]  # strange mixtures
    together = domain.reasons(validate(new, SCHEMA))
    assert together == [domain.reasons(validate(new.iloc[[row]], SCHEMA))[0] for row in range(300)] and 30 < sum(map(bool, together)) < 300


def test_nobody_can_be_read_from_a_domain():
    """The one student of a rare category: whatever the other answers are, within the ranges, the domain does not show them."""
    table, degree, rare = simulate(400, seed=4), "parental_level_of_education", "master's degree"
    table.loc[table[degree] == rare, degree] = "some college"
    table.loc[7, degree] = rare
    shown = []
    for gender, lunch, course in (("male", "standard", "none"), ("female", "free/reduced", "completed")):
        table.loc[7, ["gender", "lunch", "test_preparation_course"]] = [gender, lunch, course]
        plain = learn_domain(validate(table, SCHEMA)).to_dict()
        shown.append((plain["categories"], plain["empty"]))
        code = plain["categories"][degree]["names"].index(rare)
        assert not [pair for pair in plain["empty"] if [degree, code] in (pair[:2], pair[2:4])]
    assert shown[0] == shown[1]


def test_planted_strangers_are_found():
    """Two categories that never meet in training, and students with both; and columns whose values were shuffled."""
    for seed in range(size(5, 50)):
        table = simulate(400, seed=seed)
        met = (table["race_ethnicity"] == "group D") & (table["lunch"] == "free/reduced")
        domain = Domain.from_dict(json.loads(json.dumps(learn_domain(validate(table[~met], SCHEMA)).to_dict())))
        said = domain.reasons(validate(table[met], SCHEMA))
        assert all("Race or ethnicity 'group D' with lunch 'free/reduced'" in reason for reason in said)
        lower = table.assign(writing_score=(table["writing_score"] - 40).clip(0))
        assert np.mean([bool(reason) for reason in domain.reasons(validate(lower, SCHEMA))]) > 0.95


# Counting --------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_coverage_and_reliability_do_not_depend_on_the_order_of_rows(n, seed):
    rng = np.random.default_rng(seed)
    y, middle, p = rng.integers(-8, 9, n) / 4, rng.integers(-8, 9, n) / 4, rng.integers(0, 5, n) / 4
    happened, order = rng.random(n) < p, rng.permutation(n)
    one, other = coverage_of(y, middle - 1, middle + 1), coverage_of(y[order], middle[order] - 1, middle[order] + 1)
    assert one == other and one.value == np.mean([abs(a - b) <= 1 for a, b in zip(y, middle, strict=True)])
    first, second = reliability(p, happened), reliability(p[order], happened[order])
    assert first.error == pytest.approx(second.error, abs=1e-12) and sum(one["n"] for one in first.bins) == n
    by = coverage_by(happened, y, middle - 1, middle + 1)
    assert (by["coverage"] * by["n"]).sum() == pytest.approx(one.value * n)


# MAPIE -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matrix():
    prepare = make_preprocessor(SCHEMA.features())
    table, new = simulate(457, seed=11), simulate(300, seed=12)  # 0.9 x 458 is no whole number: libraries round such ranks differently
    return prepare.fit_transform(table), table[TARGET].to_numpy(float), prepare.fit_transform(new)


def equal(ours, theirs):
    assert np.abs(np.column_stack(ours) - theirs[1][:, :, 0]).max() < 1e-9


@pytest.mark.parametrize("level", [0.5, 0.83, 0.9, 0.97])
def test_split_conformal_equals_mapie(matrix, level):
    from mapie.regression import SplitConformalRegressor

    X, y, new = matrix
    line = LinearRegression().fit(X[:200], y[:200])
    mapie = SplitConformalRegressor(line, confidence_level=level, prefit=True).conformalize(X[200:], y[200:])
    equal(split_conformal(line, X[200:], y[200:]).interval(new, level=level), mapie.predict_interval(new))


@pytest.mark.parametrize("folds", [7, 457])
@pytest.mark.parametrize("level", [0.83, 0.9])
def test_cross_conformal_equals_mapie(matrix, folds, level):
    from mapie.regression import CrossConformalRegressor
    from sklearn.model_selection import PredefinedSplit

    X, y, new = matrix
    ours = cross_conformal(LinearRegression, X, y, folds=folds, seed=3)
    mapie = CrossConformalRegressor(LinearRegression(), confidence_level=level, method="plus", cv=PredefinedSplit(ours.fold))
    equal(ours.interval(new, level=level), mapie.fit_conformalize(X, y).predict_interval(new))


def test_conformal_quantiles_equal_mapie(matrix):
    from mapie.regression import ConformalizedQuantileRegressor

    X, y, new = matrix
    low, high, middle = (QuantileRegressor(quantile=q, alpha=0.01).fit(X[:200], y[:200]) for q in (0.05, 0.95, 0.5))
    mapie = ConformalizedQuantileRegressor([low, high, middle], confidence_level=0.9, prefit=True).conformalize(X[200:], y[200:])
    ours = conformal_quantiles(low, high, X[200:], y[200:])
    equal(ours.interval(new), mapie.predict_interval(new, symmetric_correction=True))


def test_groups_are_measured_by_their_own(matrix):
    X, y, new = matrix
    line, kind, asked = LinearRegression().fit(X[:200], y[:200]), np.arange(457) % 3, np.arange(300) % 4
    kind[200:][np.flatnonzero(kind[200:] == 2)[20:]] = 0  # twenty rows are too few for a group
    lower, upper = split_conformal(line, X[200:], y[200:], groups=kind[200:]).interval(new, groups=asked)
    for group in range(4):
        rows = kind[200:] == group if group < 2 else np.full(257, True)
        alone = split_conformal(line, X[200:][rows], y[200:][rows]).interval(new[asked == group])
        assert np.array_equal(lower[asked == group], alone[0]) and np.array_equal(upper[asked == group], alone[1])

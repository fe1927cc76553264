"""Fairness held to known truth: planted bias is found, a fair world is left in peace, and nobody is read back from a table."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from conftest import clean_environment, size
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import milp
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from studperf.datasets import exam_schema, load, simulate
from studperf.fairness import Audit, audit_groups, compare_protected, count_cells, measure_groups, protected_groups, suppress
from studperf.fairness.flags import minimum_effect_test
from studperf.schema import InputError, mean_interval, proportion

SCHEMA = exam_schema()
TARGET = SCHEMA.target.name
PROTECTED = [column.name for column in SCHEMA.columns if column.role == "protected"]


def linear(names: list[str]):
    """A plain linear model on some features of the exam table."""
    categories = [name for name in names if SCHEMA[name].kind == "category"]
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), categories), remainder="passthrough")
    return make_pipeline(encode, LinearRegression())


# Planted bias ---------------------------------------------------------------------------------------------------------


def world(seed: int, *, planted: tuple[tuple[str, str], ...] = (), points: float = 0.0, students: int = 1000) -> Audit:
    """A model trained on 800 students and audited on others, among whom one group's true scores were shifted after training."""
    names = [column.name for column in SCHEMA.features()]
    train, test = simulate(800, seed=2 * seed), simulate(students, seed=2 * seed + 1)
    model = linear(names).fit(train[names], train[TARGET])
    residual = np.abs(train[TARGET] - cross_val_predict(linear(names), train[names], train[TARGET], cv=5))
    reach, predicted = np.quantile(residual, 0.9 * 801 / 800), model.predict(test[names])
    groups, y = protected_groups(test, SCHEMA), test[TARGET].to_numpy(float)
    if planted:
        y = y + points * np.logical_and.reduce([groups[column] == group for column, group in planted])
    return audit_groups(y, predicted, groups, interval=(predicted - reach, predicted + reach), cutoffs=(40, 60, 80), unit="points")


def some_group(seed: int) -> tuple[tuple[str, str], ...]:
    every = [((name, group),) for name in PROTECTED for group in SCHEMA[name].categories]
    return every[np.random.default_rng([seed, 7]).integers(len(every))]


def names_it(audit: Audit, planted: tuple[tuple[str, str], ...], points: float) -> bool:
    """Is there a flag of the right sign for the group itself or for a part of it?"""
    column, group = planted[0]
    hits = [f for f in audit.flags if f.code == "bias" and group in f.group.split(" x ") and column in f.column.split(" x ")]
    return any(np.sign(flag.value) == -np.sign(points) for flag in hits)


def test_a_planted_bias_is_found():
    seeds, missed, codes = range(1000, 1000 + size(15, 100)), [], []
    for seed in seeds:
        planted, points = some_group(seed), 5.0 if seed % 2 else -5.0
        audit = world(seed, planted=planted, points=points)
        codes += [flag.code for flag in audit.flags]
        if not names_it(audit, planted, points):
            missed.append((seed, planted, [flag.message for flag in audit.flags]))
    print(f"planted bias of 5 points found in {len(seeds) - len(missed)} of {len(seeds)}; {len(codes) / len(seeds):.1f} flags each; missed {missed}")
    assert len(missed) <= max(1, 0.05 * len(seeds))


def test_a_fair_world_is_left_in_peace():
    seeds, raised = range(5000, 5000 + size(15, 100)), {}
    for seed in seeds:
        if flags := world(seed).flags:
            raised[seed] = [flag.message for flag in flags]
    print(f"a fair world is flagged in {len(raised)} of {len(seeds)}: {raised}")
    assert len(raised) <= max(1, 0.05 * len(seeds))


@pytest.mark.parametrize("students", [200, 5000])
def test_a_fair_world_is_left_in_peace_by_audits_of_any_size(students):
    seeds = range(9000, 9000 + size(5, 100))
    raised = {seed: [flag.message for flag in flags] for seed in seeds if (flags := world(seed, students=students).flags)}
    print(f"{students} students: a fair world is flagged in {len(raised)} of {len(seeds)}: {raised}")
    assert len(raised) <= max(1, 0.05 * len(seeds))


def test_an_intersection_that_is_wronged_is_named():
    planted, found, seeds = (("gender", "male"), ("race_ethnicity", "group C")), 0, range(7000, 7000 + size(4, 40))
    for seed in seeds:
        flags = [(f.code, f.group) for f in world(seed, planted=planted, points=8.0).flags]
        found += ("bias", "male x group C") in flags
        assert ("bias", "female x group D") not in flags
    print(f"8 points planted in an intersection: named in {found} of {len(seeds)}")
    assert found >= 0.95 * len(seeds)


def test_minimum_effect_test_keeps_its_level_at_the_edge():
    rng, p = np.random.default_rng(3), []
    for _ in range(size(2000, 20_000)):
        p.append(minimum_effect_test(rng.normal(-1, 6, 12), rng.normal(0, 5, 300), tolerance=1.0)[1])
    shares = {level: float(np.mean(np.array(p) < level)) for level in (0.05, 0.005)}
    print(f"share of p below the level at the edge of the tolerance: {shares}")
    assert shares[0.05] < 0.065 and shares[0.005] < 0.012


# What the table gives away --------------------------------------------------------------------------------------------


@st.composite
def tables(draw, largest: int = 120, columns: int = 3) -> pd.DataFrame:
    """Groups of students, lopsided as groups are."""
    n, names = draw(st.integers(1, largest)), "abc"[: draw(st.integers(1, columns))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = {name: draw(st.integers(1, 5)) for name in names}
    return pd.DataFrame({name: rng.choice([f"{name}{i}" for i in range(k)], n, p=rng.dirichlet(np.full(k, 0.7))) for name, k in sizes.items()})


def published(table: pd.DataFrame, minimum: int) -> tuple[dict, set]:
    """Every cell with its count, and the hidden ones."""
    counts = count_cells(table)
    return counts, set(suppress(counts, minimum=minimum))


def attack(table: pd.DataFrame, hidden: set) -> tuple[list, np.ndarray, np.ndarray]:
    """The equations that a reader has about the hidden cells, written down from the table anew: A x = b."""
    cells, rows, known = sorted(hidden), [], []

    def equation(total, parts):
        value, row = 0.0, np.zeros(len(cells))
        for sign, cell in [(-1, total), *((1, part) for part in parts)]:
            if cell in hidden:
                row[cells.index(cell)] += sign
            else:
                value -= sign * (np.logical_and.reduce([table[c] == g for c, g in cell]).sum() if cell else len(table))
        rows.append(row)
        known.append(value)

    for column in table:
        equation((), [((column, group),) for group in table[column].unique()])
    for first, second in combinations(table.columns, 2):
        pairs = set(zip(table[first], table[second], strict=True))
        for group in table[first].unique():
            equation(((first, group),), [((first, a), (second, b)) for a, b in pairs if a == group])
        for group in table[second].unique():
            equation(((second, group),), [((first, a), (second, b)) for a, b in pairs if b == group])
    return cells, np.array(rows), np.array(known)


def everything_hidden(counts: dict, hidden: set) -> bool:
    """With about as many groups as students there is nothing left to hide behind."""
    return all(cell in hidden for cell in counts if cell)


def determined(matrix: np.ndarray) -> np.ndarray:
    """Which unknowns have the same value in every solution: those with no part in the null space."""
    _, singular, rows = np.linalg.svd(matrix)
    null = rows[(singular > 1e-9).sum() :]
    return np.abs(null).max(axis=0, initial=0) < 1e-9


@given(tables(), st.integers(2, 15))
def test_no_hidden_statistic_follows_from_the_totals(table, minimum):
    counts, hidden = published(table, minimum)
    assert {cell for cell, n in counts.items() if cell and n < minimum} <= hidden
    cells, matrix, _ = attack(table, hidden)
    if cells and not everything_hidden(counts, hidden):
        alone = [cell for cell, known in zip(cells, determined(matrix), strict=True) if known]
        assert not alone, f"the mean of {alone} is a combination of shown ones"


@settings(max_examples=size(15, 300))
@given(tables(largest=60, columns=2), st.integers(2, 12))
def test_no_hidden_count_is_the_only_whole_number_that_fits(table, minimum):
    counts, hidden = published(table, minimum)
    for cell in hidden:
        (low, high), (lowest, highest) = whole_numbers(table, hidden, cell), whole_numbers(table, counts.keys() - {()}, cell)
        assert low <= counts[cell] <= high
        assert high - low >= min(max(1, minimum // 2), highest - lowest), "as wide as asked, or as a table that shows nothing"


def whole_numbers(table: pd.DataFrame, hidden: set, cell: tuple) -> tuple[int, int]:
    """The smallest and the largest count of a hidden cell that fits what is shown."""
    cells, matrix, known = attack(table, hidden)
    asked = np.eye(len(cells))[cells.index(cell)]
    ends = [milp(sign * asked, constraints=(matrix, known, known), bounds=(1, np.inf), integrality=1) for sign in (1, -1)]
    return tuple(round(end.x[cells.index(cell)]) for end in ends)


@given(tables(), st.integers(2, 15))
def test_the_hidden_part_of_a_shown_total_is_no_smaller_than_a_shown_group(table, minimum):
    counts, hidden = published(table, minimum)
    for column in table:
        held = sum(n for cell, n in counts.items() if cell in hidden and len(cell) == 1 and cell[0][0] == column)
        assert held == 0 or held >= minimum or len(table) < minimum


def test_only_hiding_the_small_ones_would_give_them_away():
    read, tables_seen = 0, 0
    for seed in range(40):
        table = protected_groups(simulate(200, seed=seed), SCHEMA)
        small = {cell for cell, n in count_cells(table).items() if n < 10}
        if small:
            cells, matrix, _ = attack(table, small)
            known = [cell for cell, alone in zip(cells, determined(matrix), strict=True) if alone]
            tables_seen, read = tables_seen + 1, read + bool(known)
            assert not determined(attack(table, published(table, 10)[1])[1]).any()
    print(f"without complementary suppression {read} of {tables_seen} tables of 200 students give a small group away; with it none")
    assert read > tables_seen / 2


def test_a_rate_cannot_be_computed_from_the_others():
    """The attacker knows every denominator, every shown rate and the overall rate, and looks for the numerators of the hidden rates."""
    for seed in range(size(10, 60)):
        table = simulate(300, seed=seed)
        groups, y = protected_groups(table, SCHEMA), table[TARGET].to_numpy(float)
        predicted = y + np.random.default_rng([seed, 1]).normal(0, 6, len(y))
        audit = audit_groups(y, predicted, groups, cutoffs=(40, 60, 85))
        for i, (cutoff, way) in enumerate(product(audit.cutoffs, ("false_alarm", "miss"))):
            of = (y >= cutoff) if way == "false_alarm" else (y < cutoff)
            overall = getattr(audit.overall.rates[i // 2], way)
            assert (overall is None) == (of.sum() < 10)
            lines = {tuple(zip(line.column.split(" x "), line.group.split(" x "), strict=True)): line.measures for line in audit.groups}
            shown = {cell for cell, m in lines.items() if m and getattr(m.rates[i // 2], way)}
            hidden = {cell for cell in count_cells(groups, of=of) if cell and cell not in shown}
            assert shown == set() if overall is None else not determined(attack(groups[of], hidden)[1]).any()


# The numbers ----------------------------------------------------------------------------------------------------------


def test_the_measures_are_those_of_a_plain_loop():
    table = simulate(400, seed=3)
    groups, y = protected_groups(table, SCHEMA), table[TARGET].to_numpy(float)
    predicted = y + np.random.default_rng(1).normal(1, 5, len(y))
    inside = np.abs(predicted - y) < 8
    for cell, found in measure_groups(y, predicted, groups, inside=inside, cutoffs=(60,)).items():
        rows = np.logical_and.reduce([np.ones(len(y), bool), *(groups[column] == group for column, group in cell)])
        error, low, called = (predicted - y)[rows], y[rows] < 60, predicted[rows] < 60
        assert (found.n, found.mae, found.bias) == (rows.sum(), mean_interval(np.abs(error)), mean_interval(error))
        assert found.coverage == proportion(int(inside[rows].sum()), int(rows.sum()))
        rates = found.rates[0]
        assert rates.false_alarm == (proportion(int((called & ~low).sum()), int((~low).sum())) if (~low).any() else None)
        assert rates.miss == (proportion(int((~called & low).sum()), int(low.sum())) if low.any() else None)


def test_an_audit_survives_any_labels_and_gaps():
    rng = np.random.default_rng(2)
    groups = pd.DataFrame({"a x b": rng.choice(["x", "<b>", "ü x y", ""], 300), "y_true": rng.choice([1.0, 2.0, np.nan], 300)})
    y = rng.normal(3, 0.5, 300)
    predicted = np.where(rng.random(300) < 0.1, np.nan, y + rng.normal(0, 0.2, 300))
    audit = audit_groups(y, predicted, groups, cutoffs=(3, 2.5))
    assert audit.left_out == np.isnan(predicted).sum() and Audit.from_dict(audit.to_dict()) == audit
    assert "<b>" not in audit._repr_html_() and "&lt;b&gt;" in audit._repr_html_() and "(missing)" in str(audit.table())


def test_a_small_class_is_audited_as_a_whole_only():
    table = simulate(8, seed=1)
    audit = audit_groups(table[TARGET], table[TARGET] + 1.0, protected_groups(table, SCHEMA), cutoffs=(60,))
    assert audit.overall.n == 8 and all(line.measures is None for line in audit.groups) and audit.flags == ()
    with pytest.raises(InputError, match="cannot be audited"):
        audit_groups(table[TARGET], np.full(8, np.nan), protected_groups(table, SCHEMA))


# The public exam table ------------------------------------------------------------------------------------------------


def test_what_gender_does_on_the_public_table(real_data):
    table = load(real_data / "exams" / "stud.csv")
    y, folds = table[TARGET].to_numpy(float), KFold(10, shuffle=True, random_state=0)
    names = [column.name for column in SCHEMA.features()]
    no_gender = [name for name in names if name != "gender"]
    full, blind = (cross_val_predict(linear(chosen), table[chosen], y, cv=folds) for chosen in (names, no_gender))
    found = compare_protected(y, full, blind, protected_groups(table, SCHEMA), seed=0, unit="points")
    print(found)
    moved = {group.group: group.moved for group in found.groups}
    assert abs(found.cost.value - 0.165) < 0.01 and found.cost.low > 0.14
    assert moved["female"].low > 5 and moved["male"].high < -5
    audit = audit_groups(y, blind, protected_groups(table, SCHEMA), unit="points")
    assert [(flag.code, flag.column) for flag in audit.flags][0] == ("bias", "gender")


# The cost -------------------------------------------------------------------------------------------------------------


def test_importing_the_wing_loads_nothing_heavy():
    heavy = "pandas sklearn scipy matplotlib fairlearn mapie shap".split()
    code = f"import sys, studperf.fairness; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean_environment())
    assert done.stdout.strip() == "[]"

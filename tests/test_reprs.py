"""What a result shows in a notebook: something, escaped, and in the colours that the notebook has."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from html.parser import HTMLParser
from importlib import import_module

import numpy as np
import pytest

import studperf
from studperf import Schema
from studperf.comparison import FAMILIES, QUICK, Ablation, Comparison, ablate, choose_families
from studperf.datasets import open_source
from studperf.eda import quality, tidy
from studperf.explanation.tables import contributions_of
from studperf.fairness import Flag
from studperf.schema import Column, InputError, Interval, validate
from studperf.training import Limits, Trained, learn_limits

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'
PARTS = {  # shown by what holds them, or never shown to a person
    "schema": {"Problem": "in the message of an InputError", "Section": "on a page"},
    "datasets": {"Dataset": "an entry of a list"},
    "eda": {"Cells": "of Quality", "Design": "between two functions"},
    "comparison": {"Effort": "an option", "Work": "an option", "Question": "what goes in", "Search": "of a fold", "Evidence": "for the checks"},
    "uncertainty": {"ArmsChoice": "of Limits", "Conformal": "for an oracle", "CrossConformal": "for an oracle"},
    "fairness": {"GroupScores": "of Audit", "Measures": "of Audit", "Rates": "of Audit", "GroupMove": "of SideBySide"},
    "artifact": {"AdditiveModel": "of Bundle", "TreeModel": "of Bundle", "Nodes": "of TreeModel", "Inputs": "of TreeModel", "Packed": "of files",
                 "Sides": "of Uncertainty"},
}  # fmt: skip
NOT_IN_NOTEBOOKS = ("service", "ui", "cli")


def dataclasses_of_the_package() -> Iterator[type]:
    for found in pkgutil.walk_packages(studperf.__path__, "studperf."):
        if found.name.split(".")[1] in NOT_IN_NOTEBOOKS or found.name.endswith("__main__"):
            continue
        for name, kind in vars(import_module(found.name)).items():
            if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == found.name and not name.startswith("_"):
                yield kind


def hostile_schema() -> Schema:
    """The schema of the exams where every word that a person may choose is an attack."""
    schema = studperf.load_model().schema
    bad = [replace(c, label=f"{c.name} {HOSTILE}", unit=HOSTILE if c.is_number else "", help=HOSTILE, aliases=(*c.aliases, f"{HOSTILE} {c.name}"),
                   categories=tuple(f"{name} {HOSTILE}" for name in c.categories)) for c in schema.columns]  # fmt: skip
    return Schema(tuple(replace(c, name=f"{c.name} {HOSTILE}") for c in bad), title=HOSTILE, description=HOSTILE)


def hostile_table(n: int, seed: int):
    table = studperf.simulate(n, seed=seed)
    words = table.select_dtypes(exclude="number").columns
    return table.assign(**{name: table[name] + f" {HOSTILE}" for name in words}).rename(columns=lambda name: f"{name} {HOSTILE}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return studperf.train(hostile_table(300, 1), schema=hostile_schema(), families=["linear"], out=tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def results(trained) -> dict[str, object]:
    """One of everything that a person may look at, made from a table and a schema full of markup."""
    table, bundle, task, comparison = hostile_table(60, 2), trained.bundle, trained.task, trained.comparison
    dirty = table.astype(object)
    dirty.iloc[0, 5] = HOSTILE
    checked = validate(table, bundle.schema)
    limits = learn_limits(task, comparison, bundle.pipeline)
    changeable = next(c for c in bundle.schema.features() if c.role == "changeable")
    quality_, profile = quality(dirty, bundle.schema), studperf.profile(table, bundle.schema, draws=50)
    marked = table.assign(**{bundle.schema.target.name: np.clip(table[bundle.schema.target.name] + 40 * (np.arange(60) % 2), 0, 100)})
    shown = [
        bundle.schema, changeable, validate(dirty, bundle.schema, on_error="report"), Interval(0.5, 0.4, 0.6),
        open_source(table, schema=bundle.schema), tidy(dirty, bundle.schema), quality_, quality_.findings[0], profile, FAMILIES["linear"],
        comparison, comparison.chosen, comparison.ceiling, comparison.curve, ablate(comparison), limits, limits.protected, limits.uncertainty,
        limits.uncertainty.everyone, limits.uncertainty.domain, trained.evaluation, trained.evaluation.baselines[-1], trained.evaluation.reliability,
        bundle, task, trained, contributions_of(bundle, checked)[0], studperf.audit(marked, model=bundle),
        studperf.what_if(table.iloc[0].to_dict(), {changeable.name: changeable.categories[0]}, model=bundle),
        Flag("bias", HOSTILE, HOSTILE, HOSTILE, 10, 1.0, 0.5, 1.5, 0.01),
    ]  # fmt: skip
    shown += [import_module("studperf.comparison.checks").Check("code", "warning", HOSTILE)]
    return {type(one).__name__: one for one in shown}


def test_every_result_is_shown_or_is_a_part_of_one_that_is(results):
    names = {kind.__name__ for kind in dataclasses_of_the_package()}
    parts = {name for wing in PARTS.values() for name in wing}
    assert names - parts == set(results), "give the result a _repr_html_ and an example here, or say in PARTS who shows it"
    assert parts <= names, f"no longer there: {parts - names}"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


ALLOWED = {"table", "thead", "tbody", "tr", "th", "td", "p", "ul", "li", "div", "style"}
SHOWN = sorted({kind.__name__ for kind in dataclasses_of_the_package()} - {name for wing in PARTS.values() for name in wing})


@pytest.mark.parametrize("name", SHOWN)
def test_a_result_is_escaped_and_takes_the_notebooks_colours(results, name):
    page = results[name]._repr_html_()
    tags = Tags()
    tags.feed(page)
    assert tags.found and {tag for tag, _ in tags.found} <= ALLOWED, page[:300]
    attributes = {(key, value) for _, attributes in tags.found for key, value in attributes.items()} - {("style", "text-align: right;")}
    assert {key for key, _ in attributes} <= {"scope", "class", "tabindex", "role", "aria-label", "border"}, attributes  # no handler, no colour
    assert not re.search(r"<style|#[0-9a-f]{6}\b|rgb\(", page), "a fixed colour is unreadable in one of the themes"
    assert len(page) < 30_000 and not re.search(r"0x[0-9a-f]{6}", page), len(page)


@pytest.mark.parametrize("name", SHOWN)
def test_a_result_says_itself_in_a_terminal_without_addresses(results, name):
    text = repr(results[name])
    assert text and not re.search(r" at 0x[0-9a-f]+", text)


def test_the_attack_of_this_file_reaches_the_results(results):
    holding = {name for name, one in results.items() if "&lt;script&gt;" in one._repr_html_()}
    attacked = "Schema Column Checked Bundle Trained WhatIf Audit Profile Quality Contributions Flag Task".split()
    assert set(attacked) <= holding, holding
    assert isinstance(results["Comparison"], Comparison) and isinstance(results["Ablation"], Ablation) and isinstance(results["Limits"], Limits)
    assert choose_families("linear") and QUICK.folds and isinstance(results["Column"], Column)


def test_a_refused_table_shows_its_rows_in_a_notebook():
    found = validate({"reading_score": HOSTILE}, Schema((Column("reading_score"), Column("y", kind="target"))), on_error="report")
    assert "row 1, reading_score" in found._repr_html_() and "<script" not in found._repr_html_()
    with pytest.raises(InputError):
        validate({"reading_score": HOSTILE}, Schema((Column("reading_score"), Column("y", kind="target"))))

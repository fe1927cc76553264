"""The page as a whole, without a browser: how often it loads its model, and what it does when the model changes or fails."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("anywidget")

from studperf.prediction import models
from studperf.ui import prediction_page
from studperf.ui.page import make_page


def parts(page):
    """Heading, tabs, troubles and panels of a page that `prediction_page` made."""
    return page.children[1].children[0].children


@pytest.fixture
def loads(monkeypatch) -> list:
    """The folders that bundles were loaded from."""
    found, load = [], models.load_bundle
    models._load_once.cache_clear()
    monkeypatch.setattr(models, "load_bundle", lambda folder: (found.append(folder), load(folder))[1])
    return found


def test_a_page_loads_its_model_once_whatever_is_done_with_it(loads, linear):
    page = prediction_page(linear)
    tabs = parts(page)[1]
    for at in (1, 2, 0):
        tabs.chosen = at
    for _ in range(5):
        tabs.opened()
    assert len(loads) == 1


def test_what_is_done_on_the_panels_loads_nothing(loads, linear):
    page = make_page(models.load_model(linear))
    page.student.example.press()
    changes = page.student.changes
    other = {name: option for field in changes.fields for name in [field["name"]] for option, _ in field["options"] if option != changes.values[name]}
    changes.values = {**changes.values, **other}
    assert other and "one-pair" in page.student.compared.html and len(loads) == 1


def test_a_new_model_that_is_damaged_does_not_take_the_page_away(linear, tmp_path):
    folder = tmp_path / "production"
    shutil.copytree(linear, folder)
    page = prediction_page(tmp_path)
    before = parts(page)
    (folder / "card.md").write_text("changed")
    before[1].opened()
    assert parts(page) == before


def test_a_fault_of_ours_is_said_and_not_shown(monkeypatch, linear):
    monkeypatch.setattr("studperf.ui.page.make_page", lambda *_, **__: 1 / 0)
    page = prediction_page(linear)
    told = page.children[1].children[0].html
    assert "not your fault" in told and "ZeroDivision" not in told and "division" not in told

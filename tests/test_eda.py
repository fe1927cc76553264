"""The exploratory chapter on the public tables, on tables from a bad day, and in a browser's terms: one file, nothing fetched, nothing run."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from conftest import PROVE

from studperf import InputError, infer, load, simulate
from studperf.datasets import exam_schema
from studperf.eda import Profile, correlations, interactions, outliers, plot_cells, profile, quality, redundancy, small_cells
from studperf.schema import Column, Schema

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The tags of a report with their attributes, and its words."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def assert_harmless(text: str) -> Page:
    """One page: no script, no handler, no address but its own anchors and images; every image has an alternative text."""
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "svg"}
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        assert all(attrs[name].startswith(("#", "data:image/")) for name in ("src", "href", "srcset", "action") if name in attrs)
    assert "url(" not in text and "@import" not in text
    assert all(image["alt"] for image in page.all("img"))
    for image in page.all("img"):
        kind, content = image["src"].split(";base64,")
        drawing = base64.b64decode(content).decode() if "svg" in kind else ""
        assert "<script" not in drawing and not re.search(r'(?:href|src)="(?!#|data:)', drawing)
    return page


@pytest.fixture(scope="module")
def stud(real_data) -> pd.DataFrame:
    return load(real_data / "exams" / "stud.csv")


@pytest.fixture(scope="module")
def uci(real_data) -> pd.DataFrame:
    return load(real_data / "uci" / "student-mat.csv")


def test_public_exam_table_is_what_it_is_known_to_be(stud):
    schema = exam_schema()
    sound = quality(stud, schema)
    assert not {"missing", "empty", "duplicate-rows", "impossible-number", "unlisted-category"} & {f.code for f in sound.findings}
    pairs = correlations(stud, schema)
    assert (pairs["first"][0], pairs["second"][0]) == ("reading_score", "writing_score")
    assert pairs["r"].round(3).tolist() == [0.955, 0.818, 0.803] and (pairs["low"] < pairs["r"]).all() and (pairs["high"] > pairs["r"]).all()
    twice = redundancy(stud, schema).set_index("column")
    assert np.isclose(twice.loc["reading_score", "shared"], pairs["r"][0] ** 2) and twice["vif"].nlargest(2).min() > 10
    assert small_cells(stud, schema).iloc[-1]["cells"] == 240
    assert (interactions(stud, schema)["p_holm"] > 0.05).all()


def test_public_spelling_gives_the_same_profile(real_data, stud):
    spaced = profile(load(real_data / "exams" / "StudentsPerformance.csv"))
    named = profile(stud)
    assert [f.message for f in spaced.findings] == [f.message for f in named.findings]
    assert all(spaced.tables[name].equals(named.tables[name]) for name in named.tables if name != "columns")


def test_report_of_thirty_three_columns_is_one_small_file(uci, tmp_path):
    found = profile(uci, target="G3")
    path = found.write(tmp_path / "uci.html")
    page = assert_harmless(path.read_text())
    assert len(found.tables["columns"]) == 33 and len(page.all("img")) >= 33 + 9 + 5
    assert path.stat().st_size < 900_000
    assert {"heap", "unexpected-rows"} <= {f.code for f in found.findings}


def test_report_is_made_of_the_same_bytes_again(stud, tmp_path):
    pages = [profile(stud.head(200)).write(tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


def test_profile_is_plain_data(uci):
    plain = json.loads(json.dumps(profile(uci, target="G3").to_dict(), allow_nan=False))
    assert plain["rows"] == 395 and plain["target"] == "G3" and len(plain["tables"]["correlations"]) == 120
    assert all(finding["severity"] in ("warning", "note") and finding["message"].endswith(".") for finding in plain["findings"])


def hostile(n: int) -> pd.DataFrame:
    """Everything that a table may bring on a bad day."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            f"{EVIL} header": rng.choice([EVIL, '"><img src=x onerror=alert(2)>', "$\\frac{", "日本語 ✓"], n),
            "always": "one",
            "nothing": None,
            "numbers": rng.normal(size=n),
            "huge": rng.normal(size=n) * 1e300,
            "few": rng.integers(0, 2, n),
            "name": [f"Zoë {i}" for i in range(n)],
            "note": [[1, 2]] * n,
            "when": pd.Timestamp("2020-01-01"),
            "score $^{": rng.integers(0, 101, n),
        }
    )


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning", "ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("n", [3, 40])
def test_hostile_table_makes_a_harmless_report(n, tmp_path):
    table = hostile(n)
    found = profile(table, target="score $^{")
    page = assert_harmless(found.write(tmp_path / "hostile.html").read_text())
    words = " ".join(page.words)
    assert EVIL in words and "Zoë 1" not in words  # a category is shown as text, a name that is different in every row is not shown
    assert_harmless(found._repr_html_())
    json.dumps(found.to_dict(), allow_nan=False)


def emptied(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    return table.assign(**dict.fromkeys(names))


EXAMS = load("exams")
SPOILED = {
    "one": EXAMS.head(1),
    "constant": EXAMS.assign(lunch="standard", reading_score=50),
    "nothing": emptied(EXAMS, *EXAMS.columns),
    "flat-target": EXAMS.assign(math_score=50),
    "dirty": simulate(200, seed=1, missing=0.5, dirt=0.5),
    "evil": EXAMS.assign(gender=EVIL, lunch="Ⅻ"),
    "copies": EXAMS.assign(writing_score=EXAMS["reading_score"], math_score=EXAMS["reading_score"]),
    "two": EXAMS.head(2),
    "few": EXAMS.head(25),
    "empty-columns": emptied(EXAMS, "lunch", "reading_score"),
    "no-target": emptied(EXAMS, "math_score"),
    "same-row": EXAMS.loc[[0] * 50],
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", SPOILED)
def test_any_exam_table_gets_a_report(name, tmp_path):
    table = SPOILED[name]
    found = profile(table)
    assert isinstance(found, Profile) and len(found.view) == len(table)
    json.dumps(found.to_dict(), allow_nan=False)
    if PROVE or list(SPOILED).index(name) < 6:
        assert_harmless(found.write(tmp_path / "report.html").read_text())


@pytest.mark.parametrize("table", [pd.DataFrame(), EXAMS.head(0), load("class"), EXAMS.rename(columns=lambda c: "x"), None, "exams", {"a": 1}])
def test_what_is_no_exam_table_is_refused(table):
    with pytest.raises(InputError):
        profile(table, exam_schema())
    with pytest.raises(InputError):
        profile(table)


def test_columns_without_numbers_or_without_categories(tmp_path):
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame(rng.normal(size=(80, 3)), columns=["a", "b", "y"])
    words = pd.DataFrame({"c": rng.choice(["u", "v"], 80), "y": rng.normal(size=80)})
    for table in (numbers, words):
        assert "No figure" in profile(table, target="y").write(tmp_path / "x.html").read_text()
    with pytest.raises(InputError, match="Nothing can be crossed"):
        plot_cells(numbers, infer(numbers, "y"))


def test_quiet_on_clean_tables_and_loud_on_each_fault():
    exams, schema = EXAMS, exam_schema()

    def codes(table, schema=schema):
        return {f.code for f in quality(table, schema).findings if f.severity == "warning"}

    assert codes(exams) == set()
    assert all(codes(simulate(400, seed=seed)) <= {"duplicate-rows"} for seed in range(10))  # two students may be alike by chance
    assert codes(pd.concat([exams, exams.head(3)])) == {"duplicate-rows"}
    assert codes(exams.assign(reading_score=exams["math_score"])) >= {"target-copy"}
    assert codes(exams.assign(lunch=exams["gender"].map({"male": "standard", "female": "free/reduced"}))) >= {"identical-columns"}
    assert codes(exams.assign(gender=exams["gender"].where(exams.index > 3, "Male"))) == {"unlisted-category", "spelling"}
    assert codes(exams.assign(reading_score=exams["reading_score"].where(exams.index != 5, 500))) == {"impossible-number"}
    assert codes(exams.head(100)) == {"few-rows"}
    named = Schema((Column("no"), Column("y", kind="target")))
    assert codes(pd.DataFrame({"no": range(100), "y": np.random.default_rng(0).normal(size=100)}), named) == {"id-like"}


def test_no_cell_of_a_student_is_in_the_data_but_what_must_be_corrected():
    table = load("exams").assign(name=[f"Person {i}" for i in range(1000)])
    table.loc[4, "reading_score"] = 5000
    found = profile(table)
    text = json.dumps(found.to_dict()) + found.page()
    assert "Person" not in text and "row 5" in text and "5000" in text
    groups = found.tables["groups"]
    assert groups.loc[groups["n"] < 10, ["mean", "sd", "low", "high"]].isna().all(axis=None)


def test_bootstrap_interval_of_a_correlation_covers():
    schema = Schema((Column("x"), Column("y", kind="target")))

    def covers(seed):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=150)
        row = correlations(pd.DataFrame({"x": x, "y": 0.5 * x + np.sqrt(0.75) * rng.normal(size=150)}), schema, draws=400, seed=seed).iloc[0]
        return row["low"] <= 0.5 <= row["high"]

    assert 0.90 <= np.mean([covers(seed) for seed in range(200)]) <= 0.985


def test_outliers_are_found_and_nobody_is_lost():
    low = int(EXAMS["math_score"].idxmin())
    spoiled = EXAMS.assign(math_score=EXAMS["math_score"].where(EXAMS.index != low, 100))
    before, listed = spoiled.copy(), outliers(spoiled, exam_schema())
    assert listed["row"][0] == low + 1 and listed["p_holm"][0] < 1e-6
    pd.testing.assert_frame_equal(spoiled, before)
    assert len(profile(spoiled).view) == 1000

"""The model card and the report: one text in two formats, valid for a hub and safe whatever a table says, for every kind of bundle."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from test_app import CHROMIUM, need_browser

import studperf
from studperf.artifact.bundle import read_verified
from studperf.artifact.card import HIDDEN, card_sections, make_card, make_card_html
from studperf.artifact.report import make_report, write_report
from studperf.schema import InputError, schema_from_dict

SHIPPED = Path(studperf.__file__).parent / "data" / "production"


def facts_and_schema(folder: Path = SHIPPED) -> tuple[dict, studperf.Schema]:
    facts = json.loads(read_verified(folder)["manifest.json"])
    return facts, schema_from_dict(facts["schema"])


def words(page: str) -> list[str]:
    """What a reader sees of an HTML page, without its list of contents."""
    body = re.sub(r"<nav.*?</nav>", " ", page[page.index("<h1>") :], flags=re.S)
    return unescape(re.sub(r"<[^>]*>", " ", body)).split()


def rendered(markdown: str) -> str:
    """Markdown as a hub renders it: CommonMark with tables, raw HTML passed through."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    front, body = markdown.removeprefix("---\n").split("\n---\n", 1)
    return parser.render(body)


def front_matter(markdown: str) -> dict:
    assert markdown.startswith("---\n")
    return yaml.safe_load(markdown[4:].split("\n---\n", 1)[0])


@pytest.mark.parametrize("name", ["card.md", "card.html"])
def test_a_bundle_holds_the_card_of_its_own_manifest(name, linear):
    make = {"card.md": make_card, "card.html": make_card_html}[name]
    assert (linear / name).read_text() == make(*facts_and_schema(linear))


def test_a_hub_can_read_the_front_matter():
    facts, _ = facts_and_schema()
    head = front_matter((SHIPPED / "card.md").read_text())
    assert head["pipeline_tag"] == "tabular-regression" and head["library_name"] == "studperf" and head["language"] == "en"
    assert all(isinstance(tag, str) for tag in head["tags"])
    (index,) = head["model-index"]
    (result,) = index["results"]
    assert isinstance(index["name"], str) and result["task"]["type"] == "tabular-regression"
    assert re.fullmatch(r"[\w.-]+", result["dataset"]["type"]) and result["dataset"]["name"]
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics == {name: round(facts["test"][name]["value"], 4) for name in ("r2", "rmse", "mae")}


def test_the_limits_come_before_the_scores_and_the_origin_of_the_data_is_told():
    facts, schema = facts_and_schema()
    card = make_card(facts, schema)
    assert card.index("What it is not for") < card.index("How good it is") and "fictional" in card
    assert "not for decisions about a single child" in card and "not cause" in card


def leaves(plain: object, path: str = "") -> dict[str, float]:
    if isinstance(plain, dict):
        return {k: v for key, value in plain.items() for k, v in leaves(value, f"{path}.{key}").items()}
    if isinstance(plain, list):
        return {k: v for i, value in enumerate(plain) for k, v in leaves(value, f"{path}.{i}").items()}
    return {path: plain} if isinstance(plain, float) else {}


def test_every_measured_number_changes_the_card():
    """Each number of these facts is told: when it moves, the card moves. So none is left out and none is written twice by hand."""
    facts, schema = facts_and_schema()
    card = make_card(facts, schema)
    told = (
        "test",
        "cv",
        "ceiling",
        "baselines",
        "audit.overall",
        "audit.groups",
        "protected",
        "coverage.coverage",
        "coverage.width",
        "coverage.level",
    )
    numbers = [path for path in leaves(facts) if path.strip(".").startswith(told) and not path.endswith(("cutoff", "minimum"))]
    numbers += [".coverage.reliability.error", ".coverage.reliability.by_chance"]
    assert len(numbers) > 200
    for path in numbers:
        changed = json.loads(json.dumps(facts))
        *parents, last = path.strip(".").split(".")
        place = changed
        for key in parents:
            place = place[int(key) if isinstance(place, list) else key]
        place[last] += 0.5
        assert make_card(changed, schema) != card, path


# what a table may hold: anything printable, and what Markdown, HTML and YAML act on more often than by chance
NASTY = st.text(
    st.sampled_from("ab1 _*`|<>&[](){}!#-+=~.:;,'\"\\/$%@^?\n\u00e9\u65e5") | st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=40
)
ACTS = "---,\n---\n,# a,- a,1. a,> a,```,<script>alert(1)</script>,<!--,&lt;,![a](b),a|b,~~a~~,    a,===,[x]: y,<http://a.b>"
ACTS += ",* * *,+ a,\\,|,a\\,__a__,1),0,yes,null,{a: b},!!a"
NASTY |= st.sampled_from(ACTS.split(","))


@example(title="~~a~~ __b", description="__0__ ~~b~~ `c` ![x](y)", label="*a*|b_", message="1. [x](y) &lt; <b>")
@example(title="- a", description="+ b", label="# c", message="===")
@given(title=NASTY, description=NASTY, label=NASTY, message=NASTY)
def test_both_formats_say_the_same_whatever_a_table_says(title, description, label, message):
    facts, schema = facts_and_schema()
    flag = {"code": "bias", "column": "gender", "group": label, "message": message}
    groups = [{"column": "gender", "group": label, "suppressed": True}, *facts["audit"]["groups"][:2]]
    facts = facts | {"audit": facts["audit"] | {"flags": [flag], "groups": groups}, "reason": message, "label": label}
    schema = replace(schema.edit("lunch", label=label), title=title, description=description)
    markdown, page = make_card(facts, schema), make_card_html(facts, schema)
    assert "<script" not in page.lower().replace("&lt;script", "")
    html = rendered(markdown)
    assert words("<h1>" + html.split("<h1>", 1)[1]) == words(page)
    assert front_matter(markdown)["model-index"][0]["results"][0]["dataset"]["name"] in (" ".join(title.split()), "a table of 1000 rows")
    assert html.count("<h2>") == page.count("<h2>") == len(card_sections(facts, schema))
    assert html.count("<tr>") == page.count("<tr>") and set(re.findall(r"<(\w+)", html)) <= set("h1 h2 p ul li table thead tbody tr th td".split())


def test_what_is_suppressed_is_named_and_tells_nothing():
    facts, schema = facts_and_schema()
    hidden = {"column": "gender", "group": "a rare one", "suppressed": True}
    page = make_card_html(facts | {"audit": facts["audit"] | {"groups": [hidden]}}, schema)
    row = re.search(r"<tr><td>Gender</td><td>a rare one</td>.*?</tr>", page)[0]
    assert re.findall(r"<td[^>]*>(.*?)</td>", row)[2:] == [HIDDEN, "", "", "", ""]
    assert page.count("a rare one") == 1, "it is not in the table of rates"


@pytest.fixture(scope="module")
def plain_table(tmp_path_factory) -> Path:
    """The folder of a bundle of a table that says little of itself: no title, no unit, no protected column, a missing value."""
    from studperf import train

    rng = np.random.default_rng(8)
    table = pd.DataFrame({"hours": rng.uniform(0, 9, 60).round(1), "club|s": rng.choice(["chess", "*choir*"], 60)})
    table["grade"] = (1 + 0.3 * table["hours"] + rng.normal(0, 0.4, 60)).round(2)
    table.loc[3, "hours"] = np.nan
    return train(table, target="grade", families=["linear"], seed=2, out=tmp_path_factory.mktemp("plain")).home / "production"


def check_report(folder: Path, path: Path) -> str:
    page = write_report(folder, path).read_text()
    assert path.stat().st_size < 2_000_000 and "<script" not in page and page.count("<img") == page.count('src="data:image/')
    assert not re.search(r"(src|href)=\"(?!data:image/|#)", page), "it needs no other file"
    assert page == make_report(read_verified(folder))
    facts, schema = facts_and_schema(folder)
    assert set(words(make_card_html(facts, schema))) <= set(words(page)) | {
        "Model",
        "card,",
        "made",
        "from",
        "what",
        "was",
        "measured",
        "when",
        "trained.",
    }
    return page


@pytest.mark.parametrize("family", ["linear", "tree"])
def test_report_of_a_small_bundle(family, bundles, tmp_path):
    page = check_report(bundles(family), tmp_path / "card.html")
    assert "suppressed" in page, "a test set of forty has groups of fewer than ten"
    assert ("is no sum of points" in page) == (family == "tree")


def test_report_of_a_table_that_says_little_of_itself(plain_table, tmp_path):
    page = check_report(plain_table, tmp_path / "card.html")
    assert "no column that is marked as protected" in page and "There is nothing to compare" in page and "*choir*" in page
    front = front_matter((plain_table / "card.md").read_text())
    assert front["model-index"][0]["results"][0]["dataset"]["type"]


@pytest.mark.parametrize("feature_set", ["early", "unprotected"])
def test_card_of_each_feature_set(feature_set):
    facts, schema = facts_and_schema()
    card = make_card(facts | {"feature_set": feature_set}, schema)
    named = {column.name for column in schema.features() if f"| {column.name} |" in card}
    assert named == {column.name for column in schema.features(feature_set)}


def test_report_refuses_what_it_cannot_do(tmp_path, linear):
    with pytest.raises(InputError, match="must end in .html"):
        write_report(linear, tmp_path / "card.txt")
    with pytest.raises(InputError, match="not a bundle"):
        write_report(tmp_path, tmp_path / "card.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OSError):
        write_report(linear, tmp_path / "folder.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.html"], "nothing half-made is left"


def test_report_in_a_browser(tmp_path):
    """Every figure is drawn, nothing is fetched or refused, and a telephone needs no sideways scrolling of the page."""
    need_browser()
    from playwright.sync_api import sync_playwright

    path, said = write_report(SHIPPED, tmp_path / "card.html"), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"])
        try:
            for width, scheme in ((375, "light"), (1000, "dark")):
                page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                page.on("console", lambda message: said.append(message.text))
                page.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
                page.goto(path.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                drawn = page.evaluate("[...document.images].map(image => image.naturalWidth)")
                assert len(drawn) >= 13 and min(drawn) > 100
        finally:
            browser.close()
    assert said == []

"""The panel "The model": the bundle's own facts in plain words, for every kind of bundle, and nothing in it is executed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pytest
from conftest import REPO
from hypothesis import given
from hypothesis import strategies as st
from test_app import CHROMIUM, need_browser

from studperf import train
from studperf.artifact import Bundle, load_bundle
from studperf.artifact.card import HIDDEN, LIMITS
from studperf.prediction import load_model
from studperf.schema import schema_from_dict
from studperf.ui.card import card_file, card_html, card_panel
from studperf.ui.widgets import styles

SHIPPED = load_model(REPO / "studperf" / "data" / "production")
VOID = {"meta", "line", "circle", "rect", "br", "hr", "img", "input"}


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return SHIPPED


@pytest.fixture(scope="module")
def tree(bundles) -> Bundle:
    return load_bundle(bundles("tree"))


@pytest.fixture(scope="module")
def public(real_data, tmp_path_factory) -> Bundle:
    return train(real_data / "uci" / "student-mat.csv", target="G3", families=["linear"], out=tmp_path_factory.mktemp("public")).bundle


@pytest.fixture(params=["shipped", "tree", "public"])
def bundle(request) -> Bundle:
    return request.getfixturevalue(request.param)


def words(html: str) -> str:
    """What a reader sees, without the card in its frame."""
    html = re.sub(r"<iframe.*?</iframe>", " ", html, flags=re.S).replace("\N{NO-BREAK SPACE}", " ")
    return re.sub(r"\s+", " ", unescape(re.sub("<[^>]+>", " ", html))).strip()


def changed(bundle: Bundle, **facts: object) -> Bundle:
    return replace(bundle, manifest={**bundle.manifest, **facts})


class Tags(HTMLParser):
    """Every tag with its attributes, and whether all of them are closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.seen, self.open = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


# what it says


def test_it_says_what_the_manifest_says(bundle):
    facts, target, text = bundle.manifest, bundle.schema.target, words(card_html(bundle))
    assert target.title in text and f"{facts['data']['n_train']:,} students" in text and f"{facts['data']['n_test']:,} students" in text
    assert all(limit in text for limit in LIMITS) and text.index(LIMITS[0]) < text.index("How good it is")
    for key in ("mae", "rmse"):
        value, low, high = (f"{facts['test'][key][end]:z.1f}" for end in ("value", "low", "high"))
        assert f"{value}{' ' * bool(target.unit)}{target.unit} ({low} to {high})" in text
    r2, inside = facts["test"]["r2"], facts["coverage"]["coverage"]
    for share in (r2, inside):
        assert f"{100 * share['value']:.0f} % ({100 * share['low']:z.0f} to {100 * share['high']:.0f})" in text
    for simple in facts["baselines"]:
        assert f"{simple['r2']['value']:z.2f} ({simple['r2']['low']:z.2f} to {simple['r2']['high']:z.2f})" in text
    assert f"{facts['ceiling']['value']:z.2f}" in text and bundle.version in text
    assert all(column.title in text for column in bundle.schema.features(bundle.feature_set))
    print(len(card_html(bundle)), text[:300])


def test_the_audit_is_told_in_full_and_what_is_suppressed_stays_so(shipped):
    audit = shipped.manifest["audit"]
    text, titles = words(card_html(shipped)), {column.name: column.title for column in shipped.schema.columns}
    for line in audit["groups"]:
        column = " and ".join(titles[name] for name in line["column"].split(" x "))
        group = line["group"].replace(" x ", " and ")
        if line.get("suppressed"):
            assert f"{column} {group} {HIDDEN}" in text and re.search(rf"{column}: [^.]*{group}", text)
        else:
            bias = " ".join((f"{line['bias']['value']:+z.1f}", f"({line['bias']['low']:+z.1f} to {line['bias']['high']:+z.1f})"))
            assert f"{column} {group} {line['n']} {bias}" in text
    assert "No group stands out" in text and not any(name in text for name in titles if "_" in name)


def test_every_flag_is_said_before_the_figures_with_titles_in_place_of_names(shipped):
    told = (("bias", "gender", "female", "gender female"), ("mae", "gender", "odd x group", "gender odd x group"),
            ("coverage", "gender x race_ethnicity", "male x group D", "gender male, race_ethnicity group D"))  # fmt: skip
    figures = {"n": 20, "value": 3.0, "low": 2.0, "high": 4.0, "p": 0.001}
    flags = [{"code": code, "column": column, "group": group, "message": f"{who}: predicted worse, {code}", **figures}
             for code, column, group, who in told]  # fmt: skip
    html = card_html(changed(shipped, audit=shipped.manifest["audit"] | {"flags": flags}))
    text = words(html)
    assert "Gender female: predicted worse, bias." in text and "Gender male, Race or ethnicity group D: predicted worse, coverage." in text
    assert "gender odd x group: predicted worse, mae." in text and "No group stands out" not in text
    assert text.index("predicted worse than the others") < text.index("The mean of prediction minus truth") and "stands out" in text


@pytest.mark.parametrize("gone", ["test", "coverage", "baselines", "ceiling", "audit", "data", "typical", "protected", "cutoffs", "checks", "cv"])
def test_a_bundle_that_does_not_know_everything_has_its_page(shipped, gone):
    page = card_html(replace(shipped, manifest={key: value for key, value in shipped.manifest.items() if key != gone}))
    assert LIMITS[0] in unescape(page) and Tags(page).open == [] and "None" not in words(page) and "nan" not in words(page).split()
    assert ("This bundle does not say" in page) == (gone == "audit")


def test_a_model_that_is_worse_than_nothing_is_called_so(shipped):
    poor = {"value": -0.4, "low": -0.9, "high": -0.1}
    page = card_html(changed(shipped, test=shipped.manifest["test"] | {"r2": poor}))
    assert "On these students a simpler prediction does as well or better: Reading score alone." in words(page)
    assert "-40 % (-90 to -10)" in words(page) and all(0 <= float(x) <= 100 for x in re.findall(r'[xc12]x?="(-?[\d.]+)%"', page))


# markup


def test_the_markup_is_sound_and_carries_no_handler_and_no_address(bundle):
    tags = Tags(card_html(bundle))
    assert tags.open == []
    for tag, attributes in tags.seen:
        assert tag not in ("script", "object", "embed", "form", "link", "base") and not any(name.startswith("on") for name in attributes)
        assert not {"href", "src", "action"} & set(attributes)
    frames = [attributes for tag, attributes in tags.seen if tag == "iframe"]
    assert [frame["sandbox"] for frame in frames] == [""] and frames[0]["title"]
    assert bundle.card_html in frames[0]["srcdoc"] and "default-src 'none'" in frames[0]["srcdoc"][:120]


nasty = st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</section><b>", "&lt;i&gt;", "a\x00b", "\u202ex", "é 李", "a x b", "%s {x}"]
)


@given(st.lists(nasty, min_size=5, max_size=5))
def test_no_text_of_a_bundle_becomes_markup(texts):
    plain = json.loads(json.dumps(SHIPPED.schema.to_dict()))
    for column, text in zip(plain["columns"], texts, strict=False):
        column["label"] = text
    schema = replace(schema_from_dict(plain), title=texts[0], description=texts[1])
    audit = json.loads(json.dumps(SHIPPED.manifest["audit"]))
    for line, text in zip(audit["groups"], texts, strict=False):
        line["group"] = text
    odd = replace(changed(SHIPPED, label=texts[2], audit=audit), schema=schema, card_html=texts[3])
    known, found = Tags(card_html(SHIPPED)), Tags(card_html(odd))
    assert found.open == [] and {tag for tag, _ in found.seen} <= {tag for tag, _ in known.seen}
    assert {name for _, attributes in found.seen for name in attributes} <= {name for _, attributes in known.seen for name in attributes}


# the panel and what is saved


def test_the_card_is_saved_with_figures_and_leaves_none_open(bundle):
    panel = card_panel(bundle)
    name, content = panel.save.make()
    assert name == "card.html" and content.count(b"<figure") >= 5 and b"<script" not in content
    assert panel.view.html == card_html(bundle) and panel.widget.children == (panel.view, panel.save)
    assert plt.get_fignums() == []


def test_a_bundle_that_is_gone_or_replaced_gives_the_card_that_was_read(shipped, tree, tmp_path):
    for path in (tmp_path / "nowhere", tree.path):
        assert card_file(replace(shipped, path=path)) == ("card.html", shipped.card_html.encode())
    assert card_file(replace(shipped, path=tmp_path, card_html="")) == ("card.md", shipped.card.encode())


def test_every_rule_of_the_style_stays_inside_the_page_and_has_no_colour_of_its_own():
    sheet = re.sub(r"/\*.*?\*/", "", (REPO / "studperf" / "data" / "app" / "model.css").read_text(), flags=re.S)
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", re.sub(r"@media[^{]+\{", "", sheet))
    assert len(rules) > 20
    for selectors, body in rules:
        assert all(one.strip().startswith(".studperf") for one in selectors.split(",")), selectors
        assert not re.search(r"#[0-9a-f]{3}|rgb|hsl", body), body


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_in_a_browser_it_fits_and_a_hostile_card_runs_nothing(width, shipped, tmp_path):
    need_browser()
    from playwright.sync_api import sync_playwright

    card = "<script>top.document.title='hit'</script><img src=x onerror=\"top.document.title='hit'\"><p id=seen>the card</p><form action='http://127.0.0.1:9/'>"
    styles.cache_clear()
    body = f'<div class="studperf"><div class="studperf-model">{card_html(replace(shipped, card_html=card))}</div></div>'
    page_file = tmp_path / "page.html"
    page_file.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><title>calm</title><style>{styles()}</style>{body}</html>')
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--no-proxy-server"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto(page_file.as_uri())
        for details in page.query_selector_all("details"):
            details.evaluate("it => { it.open = true; it.scrollIntoView(); }")
        page.frame_locator("iframe").locator("#seen").wait_for(timeout=20_000)
        page.wait_for_timeout(300)
        assert page.title() == "calm" and page.evaluate("document.documentElement.scrollWidth") <= width
        shapes = page.evaluate("[...document.querySelectorAll('.model-line svg > :is(circle, line)')].map(x => x.getBoundingClientRect().width)")
        assert len(shapes) > 20 and all(shape < width for shape in shapes)
        browser.close()

"""The laboratory: a real JupyterLab as `make lab` starts it, Debian's Chromium, the landing notebook, two tutorials and a progress bar."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import pytest
from conftest import REPO, clean_environment
from test_app import ARTIFACTS, CHROMIUM, free_port, need_browser, stop, until

import studperf

NBS = REPO / "nbs"
TUTORIALS = sorted((NBS / "tutorials").glob("*.ipynb"))
HOW_TO = ("predict_a_class", "read_an_explanation", "your_own_table", "find_unfairness", "compare_two_models")
TOKEN = "only-for-this-test"
WAIT = 60_000  # milliseconds; a kernel on a busy machine


# Without a browser


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def links(path: Path) -> list[str]:
    """Where the notebook's relative links lead."""
    text = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    return [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]


@pytest.mark.parametrize("name", HOW_TO)
def test_a_tutorial_is_short_and_asks_one_question(name):
    path = NBS / "tutorials" / f"{name}.ipynb"
    head = "".join(cells(path)[0]["source"])
    assert len(cells(path)) < 20 and head.count("?") == 1, head
    code = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code")
    assert "assert " in code and "http" not in code
    assert not [cell for cell in cells(path) for output in cell.get("outputs", []) if output["output_type"] == "error"]


@pytest.mark.parametrize("path", [NBS / "start.ipynb", *TUTORIALS], ids=lambda path: path.stem)
def test_every_link_leads_to_a_notebook(path):
    broken = [link for link in links(path) if not (path.parent / link).resolve().is_file()]
    assert broken == []


def test_the_landing_notebook_shows_the_way_to_every_tutorial_and_room():
    there = set(links(NBS / "start.ipynb"))
    assert {f"tutorials/{path.name}" for path in TUTORIALS} | {"pipelines/train.ipynb", "apps/predict.ipynb"} <= there
    wings = {path.name for path in NBS.iterdir() if re.match(r"\d\d_", path.name)}
    assert {link.split("/")[0] for link in there} >= wings


# With a browser


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that runs on a copy of the notebooks."""

    url: str  # without a slash at its end
    folder: Path  # its root

    def get(self, path: str) -> bytes:
        with build_opener(ProxyHandler({})).open(f"{self.url}{path}", timeout=10) as answer:
            return answer.read()


def start_lab(folder: Path, log: Path, port: int) -> subprocess.Popen:
    """`make lab`, in a copy of the notebooks, with nothing of the person whose machine it is."""
    shutil.copytree(NBS, folder / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints", "_proc"))
    shutil.copy(REPO / "Makefile", folder)
    places = {f"JUPYTER_{name}_DIR": str(folder / f".{name.lower()}") for name in ("CONFIG", "RUNTIME", "DATA")}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"), "IPYTHONDIR": str(folder / ".ipython")}
    kept = {name: value for name, value in clean_environment().items() if name != "TQDM_DISABLE"}
    flags = f"--no-browser --port={port} --ServerApp.port_retries=0 --IdentityProvider.token={TOKEN}"
    command = ["make", "-o", "install-dev", "lab", f"BIN={Path(sys.executable).parent}", f"VENV={folder / '.venv'}", f"LAB_FLAGS={flags}"]
    with log.open("w") as output:
        return subprocess.Popen(command, cwd=folder, env=kept | places, stdout=output, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    need_browser()
    if not shutil.which("make"):
        pytest.skip("there is no make")
    folder, port = tmp_path_factory.mktemp("lab"), free_port()
    log, lab = folder / "lab.log", Lab(f"http://127.0.0.1:{port}", folder)
    process = start_lab(folder, log, port)

    def up() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return bool(lab.get("/api"))
        except OSError:
            return False

    try:
        until(up)
        yield lab
    finally:
        stop(process)
        print(f"--- JupyterLab's log ---\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def page(lab) -> Iterator:
    """JupyterLab in Chromium; whatever is not on this machine is refused."""
    from playwright.sync_api import sync_playwright

    ARTIFACTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-background-networking", "--no-proxy-server", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.set_default_timeout(WAIT)
        page.route(re.compile(rf"^(?!{re.escape(lab.url)})http"), lambda route: route.abort())
        try:
            page.goto(f"{lab.url}/?token={TOKEN}")
            page.get_by_role("button", name="No", exact=True).click()  # to news from Jupyter
            yield page
        finally:
            page.screenshot(path=ARTIFACTS / "lab-end.png")
            browser.close()


def choose(page, *titles: str) -> None:
    """Choose from JupyterLab's menus."""
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{titles[0]}$")).click()
    for title in titles[1:]:
        page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{re.escape(title)}$")).last.click()


def panel(page, name: str):
    """The notebook in front, known by its title; its name is a path below nbs/ without the ending."""
    title = "".join(cells(NBS / f"{name}.ipynb")[0]["source"]).splitlines()[0].removeprefix("# ")
    shown = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)", has=page.locator("h1", has_text=title))
    shown.wait_for()
    return shown


def run_all(page, name: str):
    """Run > Run All Cells in the notebook in front; its panel, once the cells have begun to run."""
    from playwright.sync_api import TimeoutError

    shown = panel(page, name)
    begun = shown.locator(".jp-CodeCell .jp-InputPrompt", has_text=re.compile(r"\[[\d*]+\]"))
    for _ in range(10):  # JupyterLab forgets what it is asked to run before the kernel has answered for the first time
        idle(shown)
        shown.locator(".jp-MarkdownCell").first.click()
        choose(page, "Run", "Run All Cells")
        with suppress(TimeoutError):
            begun.first.wait_for(timeout=3000)
            return shown
    raise AssertionError(f"{name} does not run")


def idle(shown) -> None:
    """Wait until the kernel of a notebook has nothing to do."""
    shown.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()


def finished(page, shown) -> None:
    """Wait until every code cell has its number; no cell may show an error."""
    page.wait_for_function(
        """() => { const cells = [...document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt')];
                   return cells.length && cells.every(cell => /\\[\\d+\\]/.test(cell.textContent)) }"""
    )
    idle(shown)
    assert shown.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert "Traceback" not in shown.inner_text()


def pictures(page, name: str, part) -> None:
    """The part in front in both themes, for a person to look at; text and figures must stand out."""
    for theme in ("Dark", "Light"):
        choose(page, "Settings", "Theme", f"JupyterLab {theme}")
        page.wait_for_function("light => document.body.dataset.jpThemeLight == light", arg=str(theme == "Light").lower())
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        part.scroll_into_view_if_needed()
        page.screenshot(path=ARTIFACTS / f"lab-{name}-{theme.lower()}.png")
        assert contrast(part) > 4.5, f"{name} in the {theme} theme"


CONTRAST = """element => {
    const numbers = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    let behind = element, paper = [];
    do { paper = numbers(getComputedStyle(behind).backgroundColor); behind = behind.parentElement } while (paper[3] === 0 && behind);
    const [a, b] = [luminance(numbers(getComputedStyle(element).color)), luminance(paper)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) }"""


def contrast(part) -> float:
    return part.evaluate(CONTRAST)


def test_the_lab_wants_its_token(lab):
    with pytest.raises(HTTPError, match="403"):
        lab.get("/api/contents")


def test_the_lab_opens_at_the_landing_notebook_and_runs_it(lab, page):
    shown = run_all(page, "start")
    finished(page, shown)
    table = shown.locator(".jp-OutputArea table")
    expected = studperf.predict(studperf.load("class").head(3), threshold=60).round(2)
    assert [f"{value:.2f}" for value in expected["prediction"]] == table.locator("tr td:nth-child(2)").all_inner_texts()
    assert page.locator(".lm-TabBar-tabLabel", has_text=".ipynb").all_inner_texts() == ["start.ipynb"]  # and nothing from last time
    pictures(page, "start", table.locator("td").first)


def test_a_link_opens_a_tutorial_that_runs_with_its_figure(lab, page):
    panel(page, "start").get_by_role("link", name="Read an explanation").click()
    shown = run_all(page, "tutorials/read_an_explanation")
    finished(page, shown)
    student = studperf.predict(studperf.load("class"))["prediction"].min()
    assert f"prediction {student:.1f}" in shown.inner_text()
    figure = shown.locator(".jp-RenderedImage img")
    assert figure.evaluate(OPAQUE) == 255, "a transparent figure has dark words on a dark page"
    pictures(page, "explanation", shown.locator(".jp-OutputArea table td").first)
    pictures(page, "figure", shown.locator(".jp-OutputArea", has=page.locator("img")).locator(".jp-OutputPrompt").first)


OPAQUE = """image => { const canvas = document.createElement('canvas'); canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height).data.filter((_, i) => i % 4 == 3).reduce((a, b) => Math.min(a, b), 255) }"""


def test_a_progress_bar_is_seen_while_something_trains(lab, page):
    scratch = json.loads((NBS / "start.ipynb").read_text(encoding="utf-8"))
    code = "import tempfile\n\nimport studperf\n\nstudperf.train(families=['linear', 'tree', 'gradient_boosting'], out=tempfile.mkdtemp())"
    scratch["cells"] = [scratch["cells"][0], scratch["cells"][-3] | {"source": code, "outputs": []}]
    (lab.folder / "nbs" / "scratch.ipynb").write_text(json.dumps(scratch))
    page.goto(f"{lab.url}/lab/tree/nbs/scratch.ipynb?reset")
    shown = run_all(page, "start")
    bar = shown.locator(".jupyter-widgets", has_text=re.compile(r"fold\s\d+\sof\s\d+")).first
    bar.wait_for()
    page.screenshot(path=ARTIFACTS / "lab-progress.png")
    finished(page, shown)
    assert shown.locator(".jupyter-widgets:visible").count() == 0, "the bar goes away when the work is done"
    assert "Bundle(Linear regression for 'math_score'" in shown.inner_text()
    pictures(page, "trained", shown.locator(".jp-OutputArea table td").last)

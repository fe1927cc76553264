"""The page in a browser: the real Voila, Debian's Chromium, one student and one mistake."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

import studperf

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "nbs" / "apps" / "predict.ipynb"
ARTIFACTS = ROOT / "test-artifacts"
REAL_DATA = Path(os.environ.get("STUDPERF_REAL_DATA") or ROOT.parent / "shared" / "data")
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PATIENCE = 120  # seconds; a cold Voila on a busy machine takes more than 12


def need_browser() -> None:
    """Skip where there is none, on a person's machine; in CI none may be missing."""
    needed = {"Chromium (apt-get install chromium)": Path(CHROMIUM).exists()}
    needed |= {name: find_spec(name) is not None for name in ("playwright", "voila", "psutil")}
    if missing := [name for name, there in needed.items() if not there]:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"not installed: {', '.join(missing)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop(process: subprocess.Popen) -> None:
    """End the server and, should it not do so itself, the kernels it started."""
    import psutil

    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in psutil.wait_procs(family, timeout=5)[1]:
        child.kill()


@contextmanager
def voila(model: Path | None, log: Path) -> Iterator[str]:
    """The page's address, while the server runs; the log is printed, so that a failure shows it."""
    address = f"http://127.0.0.1:{(port := free_port())}/"
    environment = {**os.environ, "STUDPERF_MODEL": str(model or "")}
    command = [sys.executable, "-m", "voila", str(PAGE), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    command += ["--Voila.port_retries=0", "--strip_sources=True"]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_up(process, address, log)
        yield address
    finally:
        stop(process)
        print(f"--- voila's log ---\n{log.read_text()}")


def wait_until_up(process: subprocess.Popen, address: str, log: Path) -> None:
    # Voila answers this path itself; asking for the page would start a kernel.
    opener, deadline = build_opener(ProxyHandler({})), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"voila ended with exit code {process.returncode}\n{log.read_text()}")
        try:
            opener.open(f"{address}voila/static/voila.js", timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"voila did not answer in {PATIENCE} s\n{log.read_text()}")


@contextmanager
def browser_page(address: str, name: str) -> Iterator:
    """The page in Chromium, with nothing from outside the machine; a picture is taken at the end, however it ends."""
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-background-networking", "--no-proxy-server", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            page.set_default_timeout(PATIENCE * 1000)
            page.route(lambda url: not url.startswith(address), lambda route: route.abort())
            page.goto(address, wait_until="domcontentloaded")
            try:
                yield page
            finally:
                page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)
        finally:
            browser.close()


@pytest.fixture
def artifacts() -> Path:
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


def label(column) -> str:
    return f"{column.title} ({column.unit})" if column.unit else column.title


def fill(page, columns, student: dict) -> None:
    for column in columns:
        box = page.get_by_label(label(column), exact=True)
        value = str(student[column.name])
        box.select_option(value) if column.kind == "category" else box.fill(value)


def test_a_person_predicts_one_student_and_corrects_a_mistake(artifacts):
    need_browser()
    model = studperf.load_model(ROOT / "studperf" / "data" / "production")
    columns = model.schema.features(model.feature_set)
    student = studperf.load("exams").iloc[7].to_dict()
    expected = f"{studperf.predict(student, model=model)['prediction'].item():.1f} {model.schema.target.unit}"
    bad = next(column for column in columns if column.name == "reading_score")

    with voila(model.path, artifacts / "voila.log") as address, browser_page(address, "app-end") as page:
        button = page.get_by_role("button", name="Predict", exact=True)
        button.wait_for()
        for column in columns:
            box = page.get_by_label(label(column), exact=True)
            assert box.is_visible() and box.input_value() == ("Please choose" if column.categories else ""), column
        number, problems = page.locator(".studperf-number"), page.locator(".studperf-problems")
        assert number.count() == problems.count() == 0

        button.click()
        problems.wait_for()
        assert problems.locator("li").count() == len(columns)
        page.screenshot(path=artifacts / "app-empty.png", full_page=True)

        fill(page, columns, student)
        button.click()
        number.wait_for()
        assert number.inner_text() == expected
        assert problems.count() == 0
        page.screenshot(path=artifacts / "app-wide.png", full_page=True)

        page.get_by_label(label(bad), exact=True).fill("5000")
        number.wait_for(state="detached")
        button.click()
        problems.wait_for()
        said = problems.locator("li").all_inner_texts()
        assert said == [f"{bad.title}: '5000'; expected a number from 0 to 100"]
        assert "Traceback" not in page.content() and "InputError" not in page.content()
        page.screenshot(path=artifacts / "app-bad.png", full_page=True)

        page.set_viewport_size({"width": 375, "height": 1300})
        fill(page, columns, student)
        button.click()
        number.wait_for()
        assert number.inner_text() == expected
        inside = "[...document.querySelectorAll('.studperf *')].every(e => e.getBoundingClientRect().right <= window.innerWidth)"
        assert page.evaluate(inside)
        page.screenshot(path=artifacts / "app-narrow.png", full_page=True)


def test_a_damaged_model_is_refused_on_the_page(artifacts, tmp_path):
    need_browser()
    shutil.copytree(ROOT / "studperf" / "data" / "production", tmp_path / "model")
    card = tmp_path / "model" / "card.md"
    card.write_text(card.read_text() + " ")
    with voila(tmp_path / "model", artifacts / "voila-refused.log") as address, browser_page(address, "app-refused") as page:
        problems = page.locator(".studperf-problems")
        problems.wait_for()
        assert "card.md is not as it was written" in problems.inner_text()
        assert "Traceback" not in page.content() and page.get_by_role("button").count() == 0


def test_another_school_gets_another_form(tmp_path):
    data = REAL_DATA / "uci" / "student-mat.csv"
    if not data.exists():
        pytest.skip(f"the real data is not here: {data.name}; set STUDPERF_REAL_DATA")
    pytest.importorskip("ipywidgets")
    from studperf.ui import prediction_form

    trained = studperf.train(data, target="G3", families=["linear"], out=tmp_path)
    form = prediction_form(trained.bundle)
    assert list(form.fields) == [column.name for column in trained.bundle.schema.features()] and len(form.fields) == 32
    student = studperf.load(data).iloc[0].to_dict()
    for name, widget in form.fields.items():
        widget.value = str(student[name])
    form.button.click()
    expected = studperf.predict(student, model=trained.bundle)["prediction"].item()
    text = re.sub("<[^>]+>", " ", form.number.value)
    assert "G3" in text and f"{expected:.1f} " in text

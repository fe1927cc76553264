"""The service as a person and an operator meet it: a real process, a real browser, a real Prometheus."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import clean_environment
from serving import served
from test_app import ARTIFACTS, CHROMIUM, free_port, need_browser

import studperf
from studperf.service.keys import new_key

STUDENT = {"gender": "female", "race_ethnicity": "group C", "parental_level_of_education": "some college", "lunch": "standard",
           "test_preparation_course": "none", "reading_score": 72, "writing_score": 74}  # fmt: skip


@pytest.fixture(scope="module")
def service():
    with served() as running:
        yield running


def need(*programs: str) -> None:
    """Skip where a Debian program is not installed, on a person's machine; in CI none may be missing."""
    if missing := [name for name in programs if not shutil.which(name)]:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"not installed: {', '.join(missing)}")


def test_it_answers_like_the_library(service):
    expected = studperf.predict(STUDENT).iloc[0]
    answer = httpx.post(f"{service.url}/predict", json=STUDENT).json()
    assert [answer[name] for name in ("prediction", "lower", "upper")] == [expected[name] for name in ("prediction", "lower", "upper")]
    assert answer["model"] == studperf.load_model().version and answer["level"] == 0.9 and len(answer["id"]) == 32
    health = httpx.get(f"{service.url}/health").json()
    assert health["status"] == "healthy" and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", health["timestamp"])


def test_a_linear_bundle_is_served_without_pandas_and_scikit_learn(service):
    for address in ("/", "/predictdata", "/model", "/model/card", "/docs", "/openapi.json", "/metrics", "/readyz", "/livez"):
        assert httpx.get(service.url + address).status_code == 200, address
    httpx.post(f"{service.url}/predict?explain=true&threshold=60", json=[STUDENT, STUDENT | {"reading_score": 5}])
    httpx.post(f"{service.url}/explain", json=STUDENT)
    httpx.post(f"{service.url}/predict/batch", content=studperf.load("class").to_csv(index=False), headers={"content-type": "text/csv"})
    httpx.post(f"{service.url}/predictdata", data=STUDENT | {"reading_score": "abc"})
    mapped = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert "numpy" in mapped and not re.search(r"/(pandas|sklearn|scipy|pyarrow|shap|mlflow|xgboost|catboost|matplotlib)/", mapped)
    memory = int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{service.process.pid}/status").read_text())[1]) / 1024
    print(f"memory at its highest: {memory:.0f} MB")
    assert memory < 100


def test_an_outcome_finds_its_prediction(service):
    identity = httpx.post(f"{service.url}/predict", json=STUDENT).json()["id"]
    form = httpx.post(f"{service.url}/predict?level=0.8", json=[STUDENT]).json()["predictions"][0]["id"]
    assert httpx.post(f"{service.url}/outcomes", json=[{"id": identity, "value": 71}, {"id": form, "value": 0}]).json() == {"stored": 2}
    unknown = httpx.post(f"{service.url}/outcomes", json=[{"id": identity, "value": 71}, {"id": "0" * 32, "value": 3}])
    assert unknown.status_code == 404 and unknown.json()["errors"][0]["row"] == 2


def closed(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """`studperf serve` that is expected to refuse."""
    variables = {name: value for name, value in clean_environment().items() if name not in ("HOST", "PORT")} | environment
    command = [sys.executable, "-m", "studperf", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folder, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [["--host", "0.0.0.0"], ["--host", "::"], ["--host", "192.0.2.1"]])
def test_closed_by_default(arguments, tmp_path):
    refused = closed(tmp_path, *arguments, PORT="0")
    assert refused.returncode == 2 and "no keys" in refused.stderr and "--new-key" in refused.stderr and "--open" in refused.stderr


@pytest.mark.parametrize("variables, words", [
    ({"PORT": "80000"}, "PORT: '80000'"), ({"STUDPERF_API_KEYS": "my-secret-key"}, "not its SHA-256"),
    ({"STUDPERF_DATABASE": "nosql"}, "STUDPERF_DATABASE"),
    ({"STUDPERF_DATABASE": "sqlite:////proc/no/predictions.db"}, "predictions.db"), ({"STUDPERF_MODEL": "nowhere"}, "no such model"),
])  # fmt: skip
def test_a_mistake_in_the_environment_is_told_before_the_start(variables, words, tmp_path):
    refused = closed(tmp_path, **({"STUDPERF_DATABASE": "off", "PORT": "0"} | variables))
    assert refused.returncode == 2 and words in refused.stderr and "my-secret-key" not in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize("package, extra", [("uvicorn", "serve"), ("msgspec", "serve"), ("sqlalchemy", "serve"), ("prometheus_client", "serve")])
def test_a_package_that_is_missing_is_named_with_its_extra(package, extra, tmp_path):
    code = f"import sys; sys.modules[{package!r}] = None; from studperf.cli import main; sys.exit(main(['serve', '--port', '0']))"
    refused = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment(), cwd=tmp_path, timeout=60, check=False
    )
    assert refused.returncode == 2 and f"pip install 'studperf[{extra}]'" in refused.stderr, refused.stderr


def test_a_port_that_is_taken_is_told(service, tmp_path):
    with_port = [sys.executable, "-m", "studperf", "serve", "--port", str(service.port)]
    refused = subprocess.run(
        with_port, capture_output=True, text=True, env=clean_environment() | {"STUDPERF_DATABASE": "off"}, cwd=tmp_path, check=False
    )
    assert refused.returncode == 2 and f"port {service.port}" in refused.stderr and "Traceback" not in refused.stderr


def test_a_new_key_opens_the_service_and_nothing_else_does():
    with served("--host", "0.0.0.0", "--new-key", STUDPERF_DATABASE="off") as running:
        key = re.search(r"shown only here: (\S+)", running.log())[1]
        post = lambda **headers: httpx.post(f"{running.url}/predict", json=STUDENT, headers=headers)  # noqa: E731
        assert post().status_code == 401 and post(authorization="Bearer x").status_code == 401
        assert post(authorization=f"Bearer {key}").status_code == 200
        assert httpx.get(f"{running.url}/predictdata", auth=("teacher", key)).status_code == 200
        assert httpx.get(f"{running.url}/metrics").status_code == 401 and httpx.get(f"{running.url}/readyz").status_code == 200


def test_the_environment_is_honoured():
    key, digest = new_key()
    port = free_port()
    with served("--port", str(port), HOST="0.0.0.0", STUDPERF_API_KEYS=digest, STUDPERF_RATE="5", STUDPERF_DATABASE="off") as running:
        assert running.port == port
        codes = [httpx.post(f"{running.url}/predict", json=STUDENT, headers={"authorization": f"Bearer {key}"}).status_code for _ in range(30)]
        assert codes.count(200) >= 10 and 429 in codes and set(codes) == {200, 429}
        assert digest not in running.log() and key not in running.log()


def test_logs_are_json_with_request_ids(tmp_path):
    with served(folder=tmp_path, STUDPERF_ACCESS_LOG="on", STUDPERF_DATABASE="off") as running:
        httpx.post(f"{running.url}/predict", json=STUDENT, headers={"x-request-id": "request-7"})
        httpx.post(f"{running.url}/predict", json=STUDENT | {"lunch": "sentinel-ada"}, headers={"x-request-id": "request-8"})
        httpx.get(f"{running.url}/sentinel-path?sentinel-query=1", headers={"x-request-id": "no good id"})
        httpx.post(f"{running.url}/predict?level=sentinel-level", json=STUDENT | {"sentinel-field": 1})
        httpx.post(f"{running.url}/predictdata", data={"gender": "sentinel-form"})
        assert "sentinel" not in httpx.get(f"{running.url}/metrics").text
    text = (tmp_path / "serve.log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    requests = {line["request_id"]: line for line in lines if "route" in line}
    assert requests["request-7"]["status"] == 200 and requests["request-8"]["status"] == 422 and requests["request-7"]["route"] == "/predict"
    assert "sentinel" not in text and "no good id" not in text and "group C" not in text
    assert not [line for line in lines if line["level"] in ("warning", "error")], "neither a start, nor bad requests, nor a stop is an error"
    assert [line["message"].split()[0] for line in lines if line["logger"] == "studperf.service.server"] == ["ready", "stopped"]


def test_prometheus_scrapes_it(service, tmp_path):
    need("prometheus", "promtool")
    httpx.post(f"{service.url}/predict", json=STUDENT | {"lunch": "caviar"})
    exposed = httpx.get(f"{service.url}/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=exposed.text, capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and not checked.stdout and not checked.stderr, checked.stdout + checked.stderr
    port = free_port()
    job = {"job_name": "studperf", "static_configs": [{"targets": [f"127.0.0.1:{service.port}"]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    command = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asked = {"query": 'studperf_http_requests_total{route="/predict",status="422"}'}
        found = first_answer(f"http://127.0.0.1:{port}/api/v1/query", asked)
        assert float(found[0]["value"][1]) >= 1
        version = first_answer(f"http://127.0.0.1:{port}/api/v1/query", {"query": "studperf_model_info"})[0]["metric"]["version"]
        assert version == studperf.load_model().version
        reasons = first_answer(f"http://127.0.0.1:{port}/api/v1/query", {"query": "studperf_refused_values_total"})
        assert "category" in {one["metric"]["reason"] for one in reasons}
    finally:
        process.terminate()
        process.wait(20)


def first_answer(address: str, query: dict) -> list:
    """What Prometheus answers as soon as it has scraped."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if found := httpx.get(address, params=query, timeout=5).json()["data"]["result"]:
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"Prometheus has nothing for {query}")


@contextmanager
def browser(width: int, scheme: str):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"])
        try:
            yield chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        finally:
            chromium.close()


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (375, "dark")])
def test_a_teacher_fills_in_the_form(service, width, scheme):
    need_browser()
    expected = studperf.predict(STUDENT).iloc[0]
    ARTIFACTS.mkdir(exist_ok=True)
    with browser(width, scheme) as page:
        complaints = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(service.url)
        page.screenshot(path=ARTIFACTS / f"service-landing-{width}-{scheme}.png", full_page=True)
        page.click("text=Fill in the form")
        for column in studperf.load_model().schema.features("full"):
            field = page.get_by_label(column.title)
            value = str(STUDENT[column.name])
            _ = field.select_option(value) if column.kind == "category" else field.fill(value)
        page.click("button")
        page.wait_for_selector(".number")
        assert f"{expected['prediction']:.1f}" in page.inner_text(".number")
        assert f"{expected['lower']:.1f}" in page.inner_text("main") and f"{expected['upper']:.1f}" in page.inner_text("main")
        page.screenshot(path=ARTIFACTS / f"service-form-{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for address in ("/model/card", "/docs"):
            page.goto(service.url + address)
            page.screenshot(path=ARTIFACTS / f"service{address.replace('/', '-')}-{width}-{scheme}.png")
        assert not [text for text in complaints if "favicon" not in text], complaints


def test_a_form_of_another_site_is_refused_by_the_browsers_own_word(service, tmp_path):
    need_browser()
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in STUDENT.items())
    (tmp_path / "evil.html").write_text(f'<form method="post" action="{service.url}/predictdata">{inputs}<button>Win</button></form>')
    with browser(800, "light") as page:
        page.goto(f"file://{tmp_path}/evil.html")
        with page.expect_response("**/predictdata") as answer:
            page.click("button")
        assert answer.value.status == 403

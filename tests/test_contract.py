"""The contract: it is what is committed, every address is in it and behind its door, and the service keeps to it whatever is sent."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import requests
import schemathesis
from conftest import REPO, clean_environment, size
from fastapi.routing import APIRoute
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.checks import ignored_auth
from serving import Server, served

import studperf
from studperf.service.answers import Desk, Served
from studperf.service.keys import new_key
from studperf.service.routes import ACCESS, KEY, OPEN, Service, make_app
from studperf.service.settings import read_settings

SECRET, DIGEST = new_key()
SHOWN = {"authorization": f"Bearer {SECRET}"}
CASES = size(60, 10_000)  # for each operation
TESTS, CONTRACT = REPO / "tests", REPO / "artifacts" / "openapi.json"


@pytest.fixture(scope="module")
def app():
    return make_app(Service(Desk(Served(studperf.load_model())), read_settings({}), locked=True))


@pytest.fixture(scope="module")
def server() -> Server:
    """A service with a key and a log."""
    with served(STUDPERF_API_KEYS=DIGEST) as running:
        yield running


@pytest.fixture(scope="module")
def document(server) -> dict:
    return httpx.get(f"{server.url}/openapi.json", headers=SHOWN, trust_env=False).json()


# The document ---------------------------------------------------------------------------------------------------------


def test_the_committed_contract_is_what_the_service_says_of_itself(cli, app, document):
    printed = cli("serve", "--contract")
    assert printed.code == 0
    assert CONTRACT.read_text(encoding="utf-8") == printed.out, "make openapi"
    assert printed.json == app.openapi() == document


def test_the_contract_is_valid_openapi_and_its_examples_are_valid(document):
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        for example in schema.get("examples", []):
            Draft202012Validator(schema | {"components": document["components"]}).validate(example)
        assert schema.get("description") or schema.get("title") or schema["properties"], name


def test_the_contract_says_what_may_be_sent_and_nothing_that_is_refused(document):
    parameters = {p["name"]: p["schema"] for p in document["paths"]["/predict"]["post"]["parameters"]}
    assert set(parameters) == {"level", "threshold", "feature_set", "explain"} and parameters["feature_set"]["enum"] == ["full"]
    columns = studperf.load_model().schema.features("full")
    assert document["components"]["schemas"]["Student"]["required"] == [column.name for column in columns]
    for operations in document["paths"].values():
        for operation in operations.values():
            refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
            assert all("application/problem+json" in answer["content"] for answer in refusals.values())
            assert operation["summary"] and operation["tags"]


# The door -------------------------------------------------------------------------------------------------------------


def unclassified(app) -> set[str]:
    """Addresses of the app of which nobody has decided who may ask."""
    return {getattr(route, "path", str(route)) for route in app.routes} - set(ACCESS)


def test_every_route_is_classified_and_in_the_contract(app, document):
    assert unclassified(app) == set() and set(ACCESS.values()) == {OPEN, KEY}
    assert {route.path for route in app.routes} == set(ACCESS) == set(document["paths"])
    routes = {(route.path, method.lower()) for route in app.routes for method in route.methods}
    assert routes == {(path, method) for path, operations in document["paths"].items() for method in operations}


def test_a_route_that_nobody_has_classified_is_found():
    app = make_app(Service(Desk(Served(studperf.load_model())), read_settings({}), locked=True))
    app.get("/students")(lambda: "all of them")
    assert isinstance(app.routes[-1], APIRoute) and unclassified(app) == {"/students"}
    with pytest.raises(KeyError):
        app.openapi()


@pytest.mark.parametrize("path", sorted(ACCESS))
def test_a_route_asks_for_a_key_or_does_not(path, server, app):
    for method in sorted({method for route in app.routes if route.path == path for method in route.methods}):
        bare = httpx.request(method, server.url + path, trust_env=False)
        shown = httpx.request(method, server.url + path, headers=SHOWN, trust_env=False)
        if ACCESS[path] == OPEN:
            assert bare.status_code == shown.status_code == 200
        else:
            assert bare.status_code == 401 and bare.headers["www-authenticate"].startswith("Bearer ")
            assert bare.json()["type"] == "/docs#unauthorized"
            assert shown.status_code == (200 if method == "GET" else 415)


def test_what_is_not_listed_is_behind_the_door(server):
    for path in ("/students", "/predict/", "/livez/", "/LIVEZ", "/livez/x", "/health%2f", "//livez", "/.env", "/%6civez%00"):
        assert httpx.get(server.url + path, trust_env=False).status_code == 401, path
        assert httpx.get(server.url + path, headers=SHOWN, trust_env=False).status_code == 404, path


# Everything that can be sent ------------------------------------------------------------------------------------------


def counted(server: Server) -> dict[tuple[str, str, str], int]:
    """Answers so far, by route, method and status."""
    text = httpx.get(f"{server.url}/metrics", headers=SHOWN, trust_env=False).text
    found = re.findall(r'studperf_http_requests_total\{method="(\w+)",route="([^"]+)",status="(\d+)"\} ([0-9.e+]+)', text)
    return {(route, method, status): int(float(n)) for method, route, status, n in found}


def schemathesis_run(server: Server, folder: Path, *options: object) -> subprocess.CompletedProcess:
    """The command line of Schemathesis; the document comes from a file, because an address that a document comes from is not tested."""
    (folder / "openapi.json").write_bytes(httpx.get(f"{server.url}/openapi.json", headers=SHOWN, trust_env=False).content)
    environment = clean_environment() | {"SCHEMATHESIS_HOOKS": str(TESTS / "schemathesis_hooks.py"), "STUDPERF_TEST_KEY": SECRET, "NO_PROXY": "*"}
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", TESTS / "schemathesis.toml", "run", "openapi.json", "--url", server.url]
    command += ["--checks", "all", "--max-examples", CASES, "--generation-deterministic", "--continue-on-failure", "--no-color", *options]
    return subprocess.run(list(map(str, command)), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_service_keeps_to_its_contract_whatever_is_sent(server, document, tmp_path):
    before = counted(server)
    done = schemathesis_run(server, tmp_path)
    output = "\n".join(line[:400] for line in done.stdout.splitlines())
    assert done.returncode == 0, output[-20_000:]
    n = sum(len(operations) for operations in document["paths"].values())
    assert f"Tested: {n}" in output and "skipped: " not in output.lower(), output
    answers = {key: count - before.get(key, 0) for key, count in counted(server).items()}
    assert not any(status >= "500" for _, _, status in answers), answers
    for path, operations in document["paths"].items():
        for method in operations:
            each = {status: count for (route, used, status), count in answers.items() if (route, used) == (path, method.upper())}
            print(f"{method.upper():5} {path:18} {sum(each.values()):7,}  {dict(sorted(each.items()))}")
            assert each.get("200", 0) > (CASES / 10 if method == "post" else 0)
            assert method == "get" or sum(each.values()) > CASES
    print(re.findall(r"Test cases:\n\s+(.*)", output))


NAMES = ("accept accept-encoding accept-language content-type cookie if-none-match if-modified-since origin range referer sec-fetch-site user-agent "
         "x-forwarded-for x-forwarded-host x-forwarded-proto x-http-method-override x-request-id traceparent").split()  # fmt: skip
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["Cc", "Zs"]), max_size=30)
QUERIES = st.dictionaries(st.text(max_size=10), st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=3), max_size=4)


def timeless(text: str) -> str:
    return re.sub(r'"timestamp":"[^"]*"', "", text)


@pytest.mark.parametrize("path", [path for path in sorted(ACCESS) if path not in ("/predict", "/predict/batch", "/explain", "/outcomes")])
def test_an_address_that_takes_nothing_answers_the_same_whatever_is_sent_with_the_question(path, server, document):
    """Schemathesis has nothing to vary where there are no parameters; queries, headers and bodies that nobody asked for can be sent all the same."""
    operation = schemathesis.openapi.from_dict(document)[path]["GET"]
    session = requests.Session()
    session.trust_env = False
    usual = timeless(session.get(server.url + path, headers=SHOWN).text)

    @settings(max_examples=size(15, 10_000))
    @given(QUERIES, st.dictionaries(st.sampled_from(NAMES), WORDS, max_size=5), st.binary(max_size=50))
    def asked(query, headers, body):
        case = operation.Case(query=query, headers={name: value.encode("latin-1") for name, value in headers.items()} | SHOWN)
        answer = case.call(base_url=server.url, session=session, data=body or None)
        case.validate_response(answer, excluded_checks=[ignored_auth])  # the campaign above asks without a key, and with wrong ones
        assert answer.status_code == 200
        assert path == "/metrics" or timeless(answer.text) == usual

    asked()

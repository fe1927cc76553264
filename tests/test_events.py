"""What the service says of itself: whole lines of JSON with nothing private in them, and spans that a collector understands."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import clean_environment, size
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from studperf import InputError
from studperf.service.events import ENDPOINTS, LONGEST_MESSAGE, REQUEST_ID, AccessLog, JsonLines, configure_logs, traced

SECRET = "Ada Lovelace, 72 points"

# Lines ----------------------------------------------------------------------------------------------------------------

texts = st.text(max_size=30)
values = (
    texts
    | st.integers()
    | st.just(10**5000)
    | st.floats()
    | st.lists(texts)
    | st.none()
    | st.booleans()
    | st.builds(ValueError, texts)
    | st.builds(object)
)


def one_line(record: logging.LogRecord) -> dict:
    line = JsonLines().format(record)
    assert line.isascii() and line.isprintable()
    return json.loads(line, parse_constant=pytest.fail)


@example(message="%d %s %(x)s", args=["no number"], extra={"\n": "\x1b[31m\u2028"}, name="studperf")
@given(
    message=texts,
    args=st.lists(values, max_size=3),
    extra=st.dictionaries(texts, values, max_size=3),
    name=st.sampled_from(["studperf", "uvicorn.error", "x"]),
)
def test_any_record_is_one_line_of_json(message, args, extra, name):
    record = logging.LogRecord(name, logging.INFO, "/somewhere/file.py", 7, message, tuple(args), None)
    vars(record).update({key: value for key, value in extra.items() if key not in vars(record)})
    plain = one_line(record)
    assert {"time", "level", "logger", "message"} <= set(plain)
    assert plain["logger"] == name and plain["level"] == "info" and len(plain["message"]) <= LONGEST_MESSAGE


def raised(error: BaseException) -> tuple:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


ERRORS = [
    ValueError(SECRET), KeyError(SECRET), FileNotFoundError(2, "No such file or directory", f"/home/{SECRET}.csv"), InputError(SECRET),
    UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET), ExceptionGroup(SECRET, [ValueError(SECRET)]),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_words_of_an_error_are_not_told(error):
    for record in (
        logging.LogRecord("studperf", 40, "", 1, "it failed: %s", (error,), raised(error)),
        logging.LogRecord("studperf", 40, "", 1, "it failed: %(why)s", ({"why": error},), raised(error)),
        logging.LogRecord("uvicorn.error", 40, "", 1, error, (), raised(error)),
        logging.LogRecord("asyncio", 40, "", 1, f"Task exception was never retrieved {error!r}", (), raised(error)),
    ):
        record.detail = error
        plain = one_line(record)
        assert SECRET not in json.dumps(plain) and "file.csv" not in json.dumps(plain)
        assert plain["error"] == type(error).__name__
        assert json.loads(JsonLines(debug=True).format(record))["message"].count("Traceback") >= 1


def test_the_request_is_named():
    plain = logging.LogRecord("studperf", 20, "", 1, "x", (), None)
    assert "request_id" not in one_line(plain)
    token = REQUEST_ID.set("7f3a")
    try:
        assert one_line(plain)["request_id"] == "7f3a"
        plain.request_id = "given"
        assert one_line(plain)["request_id"] == "given"
    finally:
        REQUEST_ID.reset(token)


# A process that logs --------------------------------------------------------------------------------------------------

NOISY = """
import asyncio, gc, logging, sys, threading, urllib.request, warnings
import uvicorn
from studperf.service.events import configure_logs
SECRET = "Ada Lovelace, 72 points"
configure_logs("info", sys.stdout)
async def fail():
    raise ValueError(SECRET)
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    asyncio.ensure_future(fail())
    await asyncio.sleep(0.01)
    gc.collect()
    raise ValueError(SECRET)
class Falls:
    def __del__(self):
        raise ValueError(SECRET)
server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
def ask():
    while not server.started: pass
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/predict?name=Ada+Lovelace")
    except urllib.error.HTTPError as error:
        assert error.code == 500
    server.should_exit = True
threading.Thread(target=ask).start()
server.run()
thread = threading.Thread(target=lambda: int(SECRET)); thread.start(); thread.join()
Falls()
warnings.warn(SECRET)
logging.getLogger("studperf.x").warning("broken %d", SECRET)
logging.getLogger("studperf.x").info("done", extra={"url": "http://127.0.0.1", "n": 3})
sys.stdout.flush()
sys.stdout.close()
logging.getLogger("studperf.x").warning("nobody listens to %s", SECRET)
"""


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_process_says_nothing_private(debug):
    environment = clean_environment() | {"STUDPERF_DEBUG": debug}
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, env=environment, timeout=60)
    out, err = done.stdout.decode(), done.stderr.decode()
    lines = [json.loads(line) for line in out.splitlines()]
    assert done.returncode == 0, err
    told = [(line["logger"], line.get("error")) for line in lines if line["level"] in ("error", "warning")]
    assert {("uvicorn.error", "ValueError"), ("asyncio", "ValueError"), ("studperf.service.events", "ValueError"), ("py.warnings", None)} <= set(told)
    assert lines[-1]["message"] == "done" and (lines[-1]["url"], lines[-1]["n"]) == ("http://127.0.0.1", 3)
    assert err == ""
    assert ("Traceback" in out) == ("Ada" in out) == ("/studperf/" in out or '", line' in out) == bool(debug)
    assert "name=Ada" not in out


# The access log -------------------------------------------------------------------------------------------------------


def test_every_request_has_its_line_once():
    out, n = io.StringIO(), size(5_000, 100_000)
    access = AccessLog(out, seconds=0.001, limit=10**7)

    def ask(thread: int) -> None:
        for i in range(n):
            access.add("POST", "/predict", 200, 0.001, f"{thread}-{i}", i)

    threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    access.close()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert sorted(line["request_id"] for line in lines) == sorted(f"{thread}-{i}" for thread in range(3) for i in range(n))
    assert set(lines[0]) == {"time", "level", "logger", "message", "method", "route", "status", "ms", "request_id", "bytes"}
    assert access.dropped == 0


def test_lines_are_written_soon():
    out = io.StringIO()
    access = AccessLog(out)
    access.add("GET", "/livez", 200, 0.0001, "7f3a", 20)
    begin = time.monotonic()
    while not out.getvalue():
        assert time.monotonic() < begin + 5
        time.sleep(0.01)
    print(f"written after {time.monotonic() - begin:.2f} s")
    access.close()
    assert not any(thread.name == "access-log" for thread in threading.enumerate())


@given(texts, texts, texts)
def test_nothing_breaks_a_line(method, route, request_id):
    out = io.StringIO()
    access = AccessLog(out, seconds=0)
    access.add(method, route, 200, 0.5, request_id, 1)
    access.flush()
    (line,) = out.getvalue().splitlines()
    plain = json.loads(line)
    assert line.isascii() and (plain["method"], plain["route"], plain["request_id"], plain["ms"]) == (method, route, request_id, 500)


def test_a_slow_or_broken_stream_costs_lines_and_nothing_else():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed):
        access = AccessLog(stream, seconds=0, limit=100)
        for _ in range(150):
            access.add("GET", "/", 200, 0.1, "x", 1)
        access.flush()
        access.close()
        assert access.dropped == 50
    out = io.StringIO()
    access = AccessLog(out, seconds=0, limit=1)
    for _ in range(2):
        access.add("GET", "/", 200, 0.1, "x", 1)
        access.add("GET", "/", 200, 0.1, "x", 1)
        access.flush()
    access.flush()
    assert [json.loads(line).get("count") for line in out.getvalue().splitlines()] == [None, 1, None, 2]


def test_what_a_line_costs():
    access, n = AccessLog(io.StringIO(), seconds=0, limit=10**6), 100_000
    begin = time.thread_time()
    for _ in range(n):
        access.add("POST", "/predict", 200, 0.00023, "68712a3b9f0c4d5e6f708192", 311)
    added = time.thread_time()
    access.flush()
    flushed = time.thread_time()
    print(f"add {(added - begin) / n * 1e6:.2f} us, write {(flushed - added) / n * 1e6:.2f} us of CPU a line")
    assert (added - begin) / n < 10e-6


# Traces ---------------------------------------------------------------------------------------------------------------


@contextmanager
def collector():
    """A collector of OTLP over HTTP on a free port: its address, and the requests that arrived."""
    arrived = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            arrived.append((self.path, dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", arrived
    finally:
        server.shutdown()
        server.server_close()


def make_app():
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def pupil(request):
        return PlainTextResponse(request.path_params["name"], headers={"x-request-id": "7f3a"})

    async def fail(request):
        raise ValueError(SECRET)

    return Starlette(routes=[Route("/pupils/{name}", pupil), Route("/fail", fail)])


def ask(app, path: str, *, method: str = "GET", headers: tuple = (), query: bytes = b"") -> int:
    """The status that an ASGI application answers with."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": SECRET.encode(), "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query, "headers": list(headers),
             "http_version": "1.1", "scheme": "http", "root_path": "", "client": ("10.0.0.7", 1), "server": ("127.0.0.1", 80)}  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


def spans(arrived: list) -> list[dict]:
    found = []
    for path, _, body in arrived:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    facts = {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
                    found.append({"span": span, "name": span.name, "facts": facts, "service": about["service.name"]})
    return found


@pytest.fixture
def endpoint(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with collector() as (address, arrived):
        monkeypatch.setenv(ENDPOINTS[1], address)
        yield arrived


PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_spans_arrive_and_hold_nothing_private(endpoint):
    app = traced(make_app(), routes={"/known"})
    assert (
        ask(app, "/pupils/Ada", query=b"name=Ada", headers=((b"traceparent", PARENT), (b"cookie", b"Ada"), (b"authorization", b"Bearer Ada"))) == 200
    )
    assert ask(app, "/nowhere/Ada") == 404
    assert ask(app, "/known", method="BREW") == 404
    with pytest.raises(ValueError, match="Ada"):
        ask(app, "/fail")
    app.close()
    first, second, third, fourth = found = spans(endpoint)
    assert [span["name"] for span in found] == ["GET /pupils/{name}", "GET", "_OTHER /known", "GET /fail"]
    assert first["facts"] == {
        "http.request.method": "GET", "http.route": "/pupils/{name}", "http.response.status_code": 200, "studperf.request_id": "7f3a",
    }  # fmt: skip
    assert (first["span"].trace_id.hex(), first["span"].parent_span_id.hex()) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert second["facts"] == {"http.request.method": "GET", "http.response.status_code": 404}
    assert third["facts"]["http.request.method"] == "_OTHER"
    assert fourth["facts"]["error.type"] == "ValueError" and fourth["facts"]["http.response.status_code"] == 500
    assert [span["span"].status.code for span in found] == [0, 0, 0, 2]
    assert [span["span"].kind for span in found] == [2, 2, 2, 2]
    assert {span["service"] for span in found} == {"studperf"}
    assert not any(b"Ada" in body or b"10.0.0.7" in body for _, _, body in endpoint)


@pytest.mark.parametrize(
    "parent",
    [b"", b"x", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"\xff" * 55, PARENT * 100],
    ids=["empty", "short", "zeros", "no text", "long"],
)
def test_a_trace_that_is_none_begins_a_new_one(parent, endpoint):
    app = traced(make_app())
    assert ask(app, "/pupils/x", headers=((b"traceparent", parent), (b"tracestate", b"\xff,,=;"))) == 200
    app.close()
    (span,) = spans(endpoint)
    assert span["span"].parent_span_id == b"" and any(span["span"].trace_id)


def test_a_caller_may_ask_not_to_be_traced(endpoint):
    app = traced(make_app())
    assert ask(app, "/pupils/x", headers=((b"traceparent", PARENT[:-1] + b"0"),)) == 200
    app.close()
    assert spans(endpoint) == []


def test_the_usual_environment_is_honoured(endpoint, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "school")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=pupils")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv(ENDPOINTS[0], os.environ[ENDPOINTS[1]] + "/v1/traces")
    monkeypatch.delenv(ENDPOINTS[1])
    app = traced(make_app())
    assert ask(app, "/pupils/x") == 200
    app.close()
    assert [span["service"] for span in spans(endpoint)] == ["school"]
    assert endpoint[0][1]["x-team"] == "pupils"
    for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        monkeypatch.setenv(name, value)
        plain = make_app()
        assert traced(plain) is plain
        monkeypatch.delenv(name)


def test_other_kinds_of_scope_pass(endpoint):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    watched = traced(app)
    asyncio.run(watched({"type": "lifespan"}, None, None))
    watched.close()
    assert seen == ["lifespan"] and spans(endpoint) == []


def test_a_dead_collector_costs_no_answer(monkeypatch, capfd):
    monkeypatch.setenv(ENDPOINTS[1], "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    app = traced(make_app())
    assert [ask(app, "/pupils/x") for _ in range(20)] == 20 * [200]
    begin = time.monotonic()
    app.close()
    print(f"stopped after {time.monotonic() - begin:.1f} s")
    assert time.monotonic() - begin < 10


WITHOUT = """
import sys
from studperf.service.events import traced
app = object()
assert traced(app) is app
print([name for name in ("opentelemetry", "requests", "pandas", "sklearn", "uvicorn", "fastapi") if name in sys.modules])
"""
ABSENT = """
import os, sys
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
sys.modules["opentelemetry.sdk.trace"] = None
from studperf import InputError
from studperf.service.events import traced
try:
    traced(object())
except InputError as error:
    print(error)
"""


def test_without_an_endpoint_nothing_is_imported_and_without_the_package_it_is_said():
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("OTEL_")}
    for code, says in ((WITHOUT, "[]"), (ABSENT, "pip install 'studperf[trace]'")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=60)
        assert done.returncode == 0 and says in done.stdout.decode(), done.stderr.decode()


def test_what_a_span_costs(endpoint):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def many(app, n):
        async def send(message):
            """Send it nowhere."""

        begin = time.thread_time()
        for _ in range(n):
            await app({"type": "http", "method": "POST", "path": "/predict", "headers": []}, None, send)
        return (time.thread_time() - begin) / n * 1e6

    watched = traced(app, routes={"/predict"})
    with_span, without = asyncio.run(many(watched, 1500)), asyncio.run(many(app, 1500))
    watched.close()
    print(f"a span costs {with_span - without:.0f} us of CPU")
    assert with_span < 2000


# Setting up -----------------------------------------------------------------------------------------------------------


def test_configuring_twice_says_everything_once():
    root, before = logging.getLogger(), (logging.getLogger().handlers[:], logging.getLogger().level)
    hooks = threading.excepthook, sys.unraisablehook
    try:
        root.handlers = []
        out = io.StringIO()
        configure_logs("warning", io.StringIO())
        configure_logs("info", out)
        logging.getLogger("studperf.x").info("one")
        logging.getLogger("studperf.x").debug("none")
        logging.getLogger("elsewhere").info("none")
        configure_logs(logging.ERROR, out)
        logging.getLogger("studperf.x").warning("none")
        assert [json.loads(line)["message"] for line in out.getvalue().splitlines()] == ["one"]
        with pytest.raises(InputError, match="'loud'"):
            configure_logs("loud")
    finally:
        root.handlers, root.level = before
        threading.excepthook, sys.unraisablehook = hooks
        logging.captureWarnings(False)
        for name in ("studperf", "uvicorn"):
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger("uvicorn.access").disabled = False

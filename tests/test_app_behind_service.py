"""The page under /app of the service: a real service, the real page behind it, Debian's Chromium, and people who should not come in."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import clean_environment
from serving import Server, served
from test_app import (
    as_csv,
    browser,  # noqa: F401
    eventually,
    fill,
    need_browser,
    predicted,
    saved,
    scored,
    send,
    student_of,
    take_picture,
    to_panel,
    until,
)

import studperf
from studperf.service.keys import new_key
from studperf.service.routes import ACCESS

pytest.importorskip("voila")
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

(TEACHER, ONE), (PROGRAM, TWO) = new_key(), new_key()
STUDENT = {"gender": "female", "race_ethnicity": "group C", "parental_level_of_education": "some college", "lunch": "standard",
           "test_preparation_course": "none", "reading_score": 72, "writing_score": 74}  # fmt: skip
HTML = {"accept": "text/html"}
FORM, NUMBER = ".studperf-one-form", ".studperf-one-side .one-number b"
WISH = b"host: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
WISH += b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
FILE, NO_KERNEL = "/app/voila/static/voila.js", "/app/api/kernels/00000000-0000-0000-0000-000000000000"


def ask(server: Server, path: str, key: str | None = None, method: str = "GET", **headers: str) -> httpx.Response:
    """One request, as no browser."""
    shown = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.request(method, server.url + path, headers=shown | {name.replace("_", "-"): value for name, value in headers.items()}, timeout=60)


def up(server: Server, key: str | None = None) -> None:
    """Wait until the page's server answers; its files cost no kernel."""
    until(lambda: ask(server, FILE, key).status_code == 200)


def kernel_of(html: str) -> str:
    """The kernel of a page, from its source."""
    return re.search(r'"kernelId": *"([0-9a-f-]{36})"', html)[1]


def handshake(server: Server, path: str, host: str = "localhost", **headers: str) -> int:
    """The status with which a WebSocket is answered."""
    plain = socket.create_connection(("127.0.0.1", server.port))
    try:
        with connect(f"ws://{host}:{server.port}{path}", sock=plain, additional_headers=headers, proxy=None, open_timeout=20):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def descendants(server: Server) -> list:
    """The page's server and its kernels."""
    import psutil

    return psutil.Process(server.process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def closed() -> Iterator[Server]:
    """With keys, and with a rate that a page of a hundred files would break by far."""
    need_browser()
    with served("--ui", STUDPERF_API_KEYS=f"{ONE},{TWO}", STUDPERF_RATE=8, STUDPERF_ACCESS_LOG="on", STUDPERF_DATABASE="off") as server:
        up(server, PROGRAM)
        yield server


@pytest.fixture(scope="module")
def local() -> Iterator[Server]:
    """On this machine, without keys."""
    need_browser()
    with served("--ui", STUDPERF_DATABASE="off") as server:
        up(server)
        yield server


def number_of(page) -> str:
    """What the page predicts."""
    return page.locator(NUMBER).first.inner_text()


@contextmanager
def visit(browser, server: Server, **options) -> Iterator:  # noqa: F811
    context = browser.new_context(**options)
    context.set_default_timeout(40_000)
    page, seen = context.new_page(), {"asked": [], "sockets": [], "errors": []}
    page.on("request", lambda request: seen["asked"].append(request.url))
    page.on("websocket", lambda socket: seen["sockets"].append(socket.url))
    page.on("console", lambda message: message.type == "error" and seen["errors"].append(message.text))
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    try:
        yield page, seen
        page.close(run_before_unload=True)
    finally:
        context.close()


def test_a_teacher_uses_the_page_with_a_key(browser, closed):  # noqa: F811
    model, student = studperf.load_model(), student_of()
    columns = model.schema.features(model.feature_set)
    with visit(browser, closed, http_credentials={"username": "teacher", "password": TEACHER}, accept_downloads=True) as (page, seen):
        page.goto(f"{closed.url}/", wait_until="commit")
        page.get_by_role("link", name="/app/", exact=True).click()
        page.locator(FORM).wait_for()
        fill(page.locator(FORM), columns, student)
        eventually(lambda: number_of(page), f"{predicted(student, model)['prediction']:.1f}")
        number = next(column for column in columns if column.is_number)
        fill(page.locator(FORM), [number], {number.name: 51})
        eventually(lambda: number_of(page), f"{predicted(student | {number.name: 51}, model)['prediction']:.1f}")
        take_picture(page, "behind-the-service")
        assert ask(closed, "/predict", PROGRAM).status_code == 405
        answer = httpx.post(f"{closed.url}/predict", json=STUDENT, headers={"authorization": f"Bearer {PROGRAM}"})
        assert answer.json()["prediction"] == predicted(STUDENT, model)["prediction"]
        part = to_panel(page, "A class")
        table = studperf.simulate(15_000, seed=3).drop(columns=model.schema.target.name)
        assert len(as_csv(table)) > 2**19, "more than one piece"
        send(part, "school.csv", as_csv(table))
        scored(part)
        name, content = saved(page, part, "Download as CSV")
        assert name == "school-scored.csv" and content.count(b"\n") == 15_001
        print(f"{len(seen['asked'])} requests for a page; up {len(as_csv(table)):,} bytes, down {len(content):,}")
        assert len(seen["sockets"]) == 1 and all(url.startswith((closed.url, "data:", "blob:")) for url in seen["asked"]) and seen["errors"] == []
        (pass_,) = page.context.cookies()
        assert (pass_["name"], pass_["path"], pass_["httpOnly"], pass_["sameSite"], pass_["expires"]) == ("studperf_page", "/app", True, "Strict", -1)
        assert TEACHER not in pass_["value"] and ONE not in pass_["value"]


def test_nobody_comes_in_without_a_key_or_a_pass(closed):
    for path in ("/app/", FILE, NO_KERNEL, "/app/login", "/app/nowhere"):
        refused = ask(closed, path)
        assert refused.status_code == 401 and "basic" in refused.headers["www-authenticate"].lower() and "set-cookie" not in refused.headers, path
    assert handshake(closed, f"{NO_KERNEL}/channels") == 401 == handshake(closed, f"{NO_KERNEL}/channels", Cookie="studperf_page=0.0")
    assert handshake(closed, f"{NO_KERNEL}/channels", Authorization=f"Bearer {PROGRAM}") == 404, "there is no such kernel"

    browserless = httpx.Client(base_url=closed.url, timeout=60)
    shown = browserless.get("/app/", auth=("anybody", PROGRAM), headers=HTML)
    assert shown.status_code == 200 and "default-src 'self'" in shown.headers["content-security-policy"]
    assert {"x-frame-options", "x-content-type-options", "x-request-id", "referrer-policy"} <= set(shown.headers)
    assert browserless.get(FILE).status_code == 200 == browserless.head(FILE).status_code
    assert browserless.get("/").status_code == 401 == browserless.post("/predict", json=STUDENT).status_code, "a pass is for the page only"
    kernel, cookie = f"/app/api/kernels/{kernel_of(shown.text)}", "; ".join(f"{k}={v}" for k, v in browserless.cookies.items())
    assert browserless.get(kernel).json()["id"] in kernel
    assert handshake(closed, f"{kernel}/channels") == 401
    assert handshake(closed, f"{kernel}/channels", Cookie=cookie, Origin="https://evil.example") == 403
    assert handshake(closed, f"{kernel}/channels", Cookie=cookie, Origin=f"http://localhost:{closed.port}") == 101
    with served(STUDPERF_API_KEYS=ONE, STUDPERF_DATABASE="off") as other:
        assert ask(other, "/predict", cookie=cookie).status_code == 401


def test_the_servers_other_doors_stay_closed(closed, local):
    for path in ("/app/login", "/app/logout", "/app/api/kernels", "/app/api/contents", "/app/api/status", "/app/voila/files/predict.ipynb",
                 "/app/voila/static/../../../../etc/passwd", "/app/voila/static/%2e%2e/x", "/app/predict.ipynb", "/app/api/terminals"):  # fmt: skip
        assert ask(local, path).status_code == 404, path
    assert ask(local, f"{NO_KERNEL}", method="DELETE").status_code == 405
    assert ask(local, f"{NO_KERNEL}/restart", method="POST").status_code == 404
    command = next(child.cmdline() for child in descendants(local) if "app" in child.cmdline())
    port = command[command.index("--port") + 1]
    beside = httpx.get(f"http://127.0.0.1:{port}/app/")
    assert beside.status_code in (302, 401, 403) and "studperf" not in beside.text, "past the service nobody comes in"
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{port}{NO_KERNEL}/channels", proxy=None)


def test_other_sites_cannot_use_a_visitors_browser(local):
    html = ask(local, "/app/", **HTML).text
    path = f"/app/api/kernels/{kernel_of(html)}"
    for origin in ("https://evil.example", "http://localhost.evil.example", "null", f"http://127.0.0.1:{local.port + 1}"):
        assert handshake(local, f"{path}/channels", Origin=origin) == 403, origin
    assert handshake(local, f"{path}/channels", Origin=f"http://localhost:{local.port}") == 101
    assert handshake(local, f"{path}/channels", "evil.example") == 421 and handshake(local, f"{path}/channels", "127.0.0.1") == 101
    assert ask(local, "/app/", host="evil.example").status_code == 421
    for path in ("/app/", FILE):
        assert ask(local, path, sec_fetch_site="cross-site", sec_fetch_mode="no-cors").status_code == 403
    goodbye = f"/app/voila/api/shutdown/{kernel_of(html)}"
    assert ask(local, goodbye, method="POST", origin="https://evil.example").status_code == 403
    assert ask(local, goodbye, method="POST", origin=local.url).status_code == 204
    assert ask(local, "/app", **HTML).status_code == 308


def test_a_page_that_dies_says_so_and_comes_back(browser, local):  # noqa: F811
    with visit(browser, local) as (page, _):
        page.goto(f"{local.url}/app/", wait_until="commit")
        page.locator(FORM).wait_for()
        before = descendants(local)
        next(child for child in before if "app" in child.cmdline()).send_signal(signal.SIGKILL)
        waiting = until(lambda: (answer := ask(local, "/app/", **HTML)).status_code == 503 and answer)
        assert "tries again by itself" in waiting.text and waiting.headers["refresh"] == waiting.headers["retry-after"] == "2"
        assert ask(local, FILE).json()["type"] == "/docs#busy" and handshake(local, f"{NO_KERNEL}/channels") == 503
        assert httpx.post(f"{local.url}/predict", json=STUDENT).status_code == 200
        began = time.monotonic()
        page.goto(f"{local.url}/app/", wait_until="commit")
        page.get_by_role("heading", name="One moment").wait_for()
        page.locator(FORM).wait_for()  # without a hand
        print(f"the page is back after {time.monotonic() - began:.1f} s")
        until(lambda: not any(child.is_running() for child in before), seconds=10)


def test_to_stop_is_to_stop_all_of_it(browser):  # noqa: F811
    import psutil

    with served("--ui", STUDPERF_DATABASE="off") as server, visit(browser, server) as (page, seen):
        up(server)
        page.goto(f"{server.url}/app/", wait_until="commit")
        page.locator(FORM).wait_for()
        family, began = descendants(server), time.monotonic()
        assert len(family) >= 2
        assert server.stop() == 0
        print(f"{len(family)} processes ended within {time.monotonic() - began:.1f} s")
        assert time.monotonic() - began < 8 and psutil.wait_procs(family, timeout=1)[1] == []
        ours = [line for line in server.log().splitlines() if line.startswith("{")]
        assert ours and not [line for line in ours if json.loads(line)["level"] in ("warning", "error")]


def test_counts_and_logs_name_no_kernel_and_no_key(closed):
    counts, log = ask(closed, "/metrics", PROGRAM).text, closed.log()
    assert {'route="/app"'} <= set(re.findall(r'route="/app[^"]*"', counts))
    assert set(re.findall(r'route="([^"]*)"', counts)) <= {*ACCESS, "other", "/app"}
    assert re.search(r'route="/app",status="101"|status="101".*route="/app"', counts)
    lines = [json.loads(line) for line in log.splitlines() if '"route"' in line]
    assert {line["route"] for line in lines} <= {*ACCESS, "other", "/app"} and any(line["status"] == 101 for line in lines)
    for secret in (TEACHER, PROGRAM, ONE, TWO, "token=", "api/kernels", "127.0.0.1:5"):
        assert secret not in log, secret


def test_without_it_there_is_no_page_and_nothing_of_it_is_loaded(tmp_path):
    code = """if True:
        import sys
        from studperf.prediction import load_model
        from studperf.service.server import _config, make_front, make_service
        from studperf.service.settings import read_settings
        settings = read_settings({}, database="off")
        front = make_front(make_service(load_model(), settings))
        _config(front, front, settings).load()
        print([name for name in ("httpx", "httpcore", "websockets", "voila", "tornado", "jupyter_server") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment(), cwd=tmp_path, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    with served(STUDPERF_DATABASE="off") as server:
        assert ask(server, "/app/").status_code == 404 == ask(server, "/app").status_code and '/app"' not in ask(server, "/").text
        assert handshake(server, f"{NO_KERNEL}/channels") == 404


# The connection itself, with a server behind it that is not a page ------------------------------------------------------


@contextmanager
def echoing(**options: object) -> Iterator[tuple[str, object]]:
    """The service's own server in a thread, with one that echoes behind it; its address, and its front."""
    import uvicorn
    from websockets.asyncio.server import serve

    from studperf.service.server import _config, make_front, make_service
    from studperf.service.settings import read_settings
    from studperf.service.upstream import Upstream

    upstream, began, silent = Upstream(), threading.Event(), logging.getLogger("silent")
    silent.setLevel(logging.CRITICAL)
    settings = read_settings({}, database="off", port=0, **options)
    front = make_front(make_service(studperf.load_model(), settings), ui=upstream)
    server = uvicorn.Server(_config(front, front, settings))

    async def echo(inner) -> None:
        async for data in inner:
            await inner.send(b"x" * int(data.removeprefix("send ")) if isinstance(data, str) and data.startswith("send ") else data)

    async def both() -> None:
        async with serve(echo, "127.0.0.1", 0, max_size=2**27, compression=None, logger=silent) as inner:
            upstream.place = (f"http://127.0.0.1:{inner.sockets[0].getsockname()[1]}/app/", "token")
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            began.set()
            await serving

    thread = threading.Thread(target=asyncio.run, args=(both(),))
    thread.start()
    began.wait(20)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def test_large_messages_go_both_ways_while_others_are_answered():
    with echoing() as (url, _):
        address = url.replace("http", "ws", 1) + f"{NO_KERNEL}/channels"
        with connect(address, proxy=None, max_size=2**27) as page, httpx.Client(base_url=url) as client:
            took, stop = [], threading.Event()

            def predict() -> None:
                while not stop.is_set():
                    began = time.perf_counter()
                    assert client.post("/predict", json=STUDENT).status_code == 200
                    took.append(time.perf_counter() - began)
                    time.sleep(0.005)

            other = threading.Thread(target=predict)
            other.start()
            began = time.perf_counter()
            for place in range(40):
                piece = bytes([place]) * 2**19
                page.send(piece)
                assert page.recv() == piece
            up_and_down = time.perf_counter() - began
            page.send(f"send {20 * 2**20}")
            assert len(page.recv()) == 20 * 2**20
            stop.set()
            other.join()
        took.sort()
        print(f"40 pieces of 512 kB and back in {up_and_down:.2f} s; meanwhile {len(took)} predictions, median {took[len(took) // 2] * 1000:.1f} ms, "
              f"slowest {took[-1] * 1000:.0f} ms")  # fmt: skip
        assert took[-1] < 2


def test_what_is_too_large_or_too_slow_ends():
    with echoing(seconds=0.5, body_bytes=2**20, connections=20) as (url, server):
        address = url.replace("http", "ws", 1) + f"{NO_KERNEL}/channels"
        with connect(address, proxy=None) as page:
            page.send(b"x" * (2**20 + 1))
            with pytest.raises(ConnectionClosed):
                page.recv()
        with connect(address, proxy=None, max_size=2**27, ping_interval=None) as page:
            time.sleep(1.5)  # three times as long as a request may take
            page.send("here")
            assert page.recv() == "here"
        with socket.create_connection((url.split(":")[1][2:], int(url.split(":")[2]))) as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.sendall(f"GET {NO_KERNEL}/channels HTTP/1.1\r\n".encode() + WISH)
            assert lazy.recv(12) == b"HTTP/1.1 101"
            lazy.sendall(b"\x81\x8d\0\0\0\0" + b"send 60000000")  # asks for sixty megabytes, and reads none
            until(lambda: not server.server_state.connections, seconds=10)


def test_open_pages_count_as_connections():
    with echoing(connections=3) as (url, _):
        address = url.replace("http", "ws", 1) + f"{NO_KERNEL}/channels"
        with connect(address, proxy=None), connect(address, proxy=None), connect(address, proxy=None):
            assert httpx.get(f"{url}/livez").status_code == 503
        until(lambda: httpx.get(f"{url}/livez").status_code == 200, seconds=5)


HOSTILE = [
    b"GET /app/api/kernels/x/channels HTTP/1.1",
    b"POST {path} HTTP/1.1",
    b"GET {path}?\xff=\x80 HTTP/1.1",
    b"GET {path} HTTP/1.0",
    b"GET {path}/%2e%2e HTTP/1.1",
    b"GET {path} HTTP/1.1\r\ncookie: " + b"x" * 15_000,
    b"GET {path} HTTP/1.1\r\nsec-websocket-protocol: a b;c\x80",
    b"GET {path} HTTP/1.1\r\nsec-websocket-extensions: ;;;=",
    b"GET {path} HTTP/1.1\r\nsec-websocket-key: short",
    b"GET {path} HTTP/1.1\r\nx-\xe9: y",
    b"GET {path} HTTP/1.1\r\nx: \x80\xff",
    b"GET {path} HTTP/1.1\r\ncontent-length: 5",
    b"GET {path} HTTP/1.1\r\ntransfer-encoding: chunked",
    b"GET {path} HTTP/1.1\r\norigin: \xff",
    b"GET {path} HTTP/1.1\r\n" + b"a: b\r\n" * 120 + b"c: d",
]
FRAMES = {
    "not masked": b"\x81\x05hello",
    "not known": b"\xff" * 100,
    "not begun": b"\x80\x80\0\0\0\0",
    "not UTF-8": b"\x81\x82\0\0\0\0\xff\xfe",
    "too long a ping": b"\x89\xff" + b"\x7f" * 8 + b"\0" * 4,
    "never ending": b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 5_000,
}


def test_hostile_handshakes_are_answered_and_leave_nothing(caplog):
    with echoing(seconds=0.5) as (url, server):
        where = (url.split(":")[1][2:], int(url.split(":")[2]))
        for head in HOSTILE:
            with socket.create_connection(where, timeout=5) as client:
                client.sendall(head.replace(b"{path}", f"{NO_KERNEL}/channels".encode()) + b"\r\n" + WISH + b"\x00" * 20_000)
                try:
                    status = client.recv(12)
                except TimeoutError:
                    status = b"silence"
            assert re.fullmatch(rb"HTTP/1\.1 (101|[24][0-9]{2})", status), (head[:80], status)
        for frame in FRAMES.values():
            with socket.create_connection(where, timeout=5) as client:
                client.sendall(f"GET {NO_KERNEL}/channels HTTP/1.1\r\n".encode() + WISH)
                assert client.recv(12) == b"HTTP/1.1 101"
                client.sendall(frame)
        until(lambda: not server.server_state.connections and not server.server_state.tasks, seconds=10)
        assert httpx.get(f"{url}/livez").status_code == 200
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")], caplog.text


def test_a_page_loads_within_its_rate_and_no_more():
    with echoing(rate=5.0) as (url, _), httpx.Client(base_url=url, timeout=20) as client:
        codes = [client.get(FILE).status_code for _ in range(150)]
        assert 429 not in codes
        pages = [client.get("/app/", headers=HTML) for _ in range(30)]
        assert {page.status_code for page in pages} <= {200, 426, 400, 503, 429} and 429 in {page.status_code for page in pages}
        assert "tries again by itself" in pages[-1].text and int(pages[-1].headers["refresh"]) >= 1
        assert 429 in [client.get(FILE).status_code for _ in range(500)]


def test_a_service_that_cannot_show_a_page_says_what_is_missing(tmp_path):
    for package in ("voila", "websockets", "httpx"):
        code = f"""if True:
            import sys, importlib.util
            find = importlib.util.find_spec
            importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)
            from studperf.cli import main
            sys.exit(main(["serve", "--ui", "--port", "0"]))"""
        command = [sys.executable, "-c", code]
        refused = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), cwd=tmp_path, timeout=60, check=False)
        assert refused.returncode == 2 and "pip install 'studperf[ui]'" in refused.stderr, refused.stderr
        assert not list(Path(tmp_path).glob("artifacts"))

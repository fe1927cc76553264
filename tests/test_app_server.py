"""The server of the page without a browser: what it answers, to whom, and which processes it leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from html import unescape
from http.client import HTTPConnection
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from conftest import clean_environment
from test_app import App, free_port, idle, running_app, until

pytest.importorskip("voila")
pytest.importorskip("anywidget")
import psutil  # noqa: E402

DATA = Path(str(files("studperf") / "data"))
SHIPPED = DATA / "production"


@dataclass(frozen=True)
class Reply:
    """What a request brought."""

    status: int
    headers: dict[str, str]  # names in lower case
    cookies: dict[str, str]
    text: str


def ask(app: App, path: str = "/", *, method: str = "GET", host: str = "", headers: dict[str, str] | None = None, body: str | None = None) -> Reply:
    """One request; the path goes out as it is, dots and all."""
    connection = HTTPConnection("127.0.0.1", app.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        sent = {"Host": host or f"127.0.0.1:{app.port}"} | (headers or {}) | ({"Content-Length": str(len(body))} if body is not None else {})
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body.encode() if body is not None else None)
        answer = connection.getresponse()
        cookies = dict(value.split(";")[0].split("=", 1) for name, value in answer.getheaders() if name.lower() == "set-cookie")
        got = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, got, cookies, answer.read().decode(errors="replace"))
    finally:
        connection.close()


def kernel_of(page: Reply) -> str:
    """The kernel that a page talks to."""
    assert page.status == 200, page
    return re.search(r'"kernelId": "([0-9a-f-]{36})"', page.text)[1]


def end(app: App, page: Reply) -> None:
    """What the browser does when the page is closed."""
    kernel, cookie = kernel_of(page), page.cookies.get("_xsrf", "")
    headers = {"Cookie": f"_xsrf={cookie}", "Content-Type": "application/x-www-form-urlencoded", "Origin": app.url.rstrip("/")}
    closed = ask(app, f"/voila/api/shutdown/{kernel}", method="POST", body=urlencode({"_xsrf": cookie}), headers=headers)
    assert closed.status == 204, closed


@contextmanager
def visit(app: App, path: str = "/", **options) -> Iterator[Reply]:
    """A page that is open for as long as the block runs."""
    page = ask(app, path, **options)
    assert page.status == 200, page
    try:
        yield page
    finally:
        end(app, page)


def alive(pid: int) -> bool:
    """Does it run, and is it not merely waiting to be reaped?"""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[App]:
    """The server that most tests look at: with secrets in its environment, and in a folder with traps."""
    folder = tmp_path_factory.mktemp("app")
    set_traps(folder)
    secrets = {"STUDPERF_API_KEYS": "secret-key-1", "STUDPERF_LOG_SALT": "salty", "JUPYTER_CONFIG_DIR": str(folder)}
    secrets |= {"HOME": str(folder / "home"), "PYTHONSTARTUP": str(folder / "anywidget.py")}
    with running_app("--model", SHIPPED, "--sessions", 4, folder=folder, **secrets) as running:
        yield running


def set_traps(folder: Path) -> None:
    """Settings and files that other Voila and Jupyter servers would read from the folder that they run in."""
    opened = {"VoilaConfiguration": {"file_allowlist": [".*"], "strip_sources": False, "template": "lab"}, "Voila": {"token": "trap"}}
    for name in ("voila.json", "jupyter_config.json", "jupyter_server_config.json"):
        (folder / name).write_text(json.dumps(opened))
    for name in ("voila.py", "jupyter_config.py", "voila_config.py", "ipykernel_launcher.py", "anywidget.py", "sitecustomize.py"):
        (folder / name).write_text(f"open({str(folder / f'sprung-{name}')!r}, 'w').close()\n")
    profile = folder / "home" / ".ipython" / "profile_default" / "startup"
    profile.mkdir(parents=True)
    (profile / "00.py").write_text(f"open({str(folder / 'sprung-profile')!r}, 'w').close()\n")


# What is served


CLOSED = (
    "/predict.ipynb", "/app/", "/../", "/../../etc/passwd", "/%2e%2e/", "/..%2fproduction%2fmanifest.json", "/base.css", "/view.js",
    "/voila/files/predict.ipynb", "/voila/files/base.css", "/voila/files/../production/manifest.json", "/voila/files/%2e%2e/production/manifest.json",
    "/voila/tree", "/voila/tree/", "/voila/render/predict.ipynb", "/voila/render/x", "/voila/api/contents", "/voila/api/contents/predict.ipynb",
    "/api", "/api/contents", "/api/contents/predict.ipynb", "/api/kernels", "/api/kernels/", "/api/sessions", "/api/terminals", "/api/kernelspecs",
    "/api/status", "/api/me", "/terminals/1", "/files/predict.ipynb", "/view/predict.ipynb", "/lab", "/tree", "/notebooks/predict.ipynb",
    "/nbconvert/html/predict.ipynb",
    "/voila/static/../../../../../../etc/passwd", "/voila/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/voila/templates/studperf/static/../../../../../production/manifest.json", "/voila/templates/studperf/static/..%2findex.html.j2",
    "/voila/templates/../static/index.html.j2", "/voila/templates/studperf/conf.json", "/voila/templates/studperf", "/static/..",
    "/voila/labextensions/../../../etc/passwd",
    "/voila/labextensions/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/voila/api/themes/../../../etc/passwd", "/api/kernels/00000000-0000-0000-0000-000000000000", "/metrics",
)  # fmt: skip
OPEN = ("/voila/static/voila.js", "/voila/templates/studperf/static/voila-style.js", "/voila/labextensions/anywidget/package.json")


def test_only_the_page_and_its_scripts_are_served(app):
    for path in OPEN:
        assert ask(app, path).status == 200, path
    answered = {path: ask(app, path) for path in CLOSED}
    print({path: reply.status for path, reply in answered.items()})
    assert "Uncaught" not in app.log()
    for path, reply in answered.items():
        assert 400 <= reply.status < 500, (path, reply.status)
        told = [secret for secret in ("root:", "prediction_page", "Traceback", str(DATA), "sha256", "{%") if secret in reply.text]
        assert not told, (path, told)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
        assert ask(app, "/", method=method, body="x=1" if method == "POST" else None).status in (403, 405), method


def test_the_page_holds_no_code_and_no_other_host(app):
    with visit(app) as page:
        assert "jupyter.widget-view" in page.text
    cells = json.loads((DATA / "app" / "predict.ipynb").read_text())["cells"]
    code = [line.strip() for cell in cells for line in "".join(cell["source"]).splitlines()]
    assert code and not [line for line in code if len(line) > 8 and line in unescape(page.text)]
    assert not re.findall(r"(?:https?:)?//(?!127\.0\.0\.1)[\w.-]+\.[a-z]{2,}", page.text)
    assert str(DATA) not in page.text and "Traceback" not in page.text


def test_the_page_says_what_a_browser_may_load(app):
    with visit(app) as page:
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert page.headers["x-content-type-options"] == "nosniff" and page.headers["referrer-policy"] == "same-origin"
        assert "no-store" in page.headers["cache-control"]
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'self'"
    assert policy["object-src"] == "'none'"
    sources = {source for listed in policy.values() for source in listed.split()}
    assert sources <= {"'self'", "'none'", "'unsafe-inline'", "'unsafe-eval'", "blob:", "data:"}, "no other host"
    assert {ask(app, path).headers["x-content-type-options"] for path in ("/nowhere", "/api/kernels/x")} == {"nosniff"}


def test_a_visitor_cannot_choose_template_theme_or_folder(app):
    for query in ("template=lab", "theme=%3Cscript%3E", "template=../../..&path=x"):
        with visit(app, f"/?{query}") as page:
            assert "<title>studperf" in page.text and '"jupyterLabTheme": "light"' in page.text, query
            assert "3Cscript" not in page.text and "/voila/templates/studperf/static" in page.text, query


def test_settings_in_the_folder_are_not_read(app):
    folder = app.output.parent
    assert ask(app, "/voila/files/app.log").status in (403, 404)
    with visit(app) as page:
        assert "prediction_page" not in page.text  # neither the token nor the sources of the traps
    assert not [path.name for path in folder.glob("sprung-*")], "code from the folder was run"


def test_another_name_for_this_machine_is_refused(app):
    """A web site that lets its own name point here (DNS rebinding) would otherwise read the page in the visitor's browser."""
    with visit(app, host=f"localhost:{app.port}"):
        pass
    for host in ("evil.example", f"evil.example:{app.port}", "127.0.0.1.evil.example"):
        assert ask(app, host=host).status == 403, host


# Who may talk to a kernel, and about what


def channels(app: App, kernel: str, *, protocol: str = "", **headers: str):
    from websockets.sync.client import connect

    subprotocols = [protocol] if protocol else None
    address = f"ws://127.0.0.1:{app.port}/api/kernels/{kernel}/channels?session_id={uuid4()}"
    origin = headers.pop("origin", f"http://127.0.0.1:{app.port}")
    return connect(address, origin=origin, subprotocols=subprotocols, additional_headers=headers, proxy=None, open_timeout=20)


def message(kind: str, content: dict, *, channel: str = "shell") -> dict:
    header = {"msg_id": uuid4().hex, "msg_type": kind, "username": "", "session": uuid4().hex, "date": "2026-01-01T00:00:00Z", "version": "5.3"}
    return {"channel": channel, "header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}


def v1(message: dict) -> bytes:
    """A message in the binary form that browsers use (v1.kernel.websocket.jupyter.org)."""
    parts = [message["channel"].encode(), *(json.dumps(message[name]).encode() for name in ("header", "parent_header", "metadata", "content"))]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return b"".join(number.to_bytes(8, "little") for number in (len(offsets), *offsets)) + b"".join(parts)


def header_of(received: str | bytes) -> dict:
    """The header of the request that a message answers."""
    if isinstance(received, str):
        return json.loads(received)["parent_header"] | {"kind": json.loads(received)["header"]["msg_type"]}
    count = int.from_bytes(received[:8], "little")
    offsets = [int.from_bytes(received[8 * (at + 1) : 8 * (at + 2)], "little") for at in range(count)]
    own, parent = (json.loads(received[offsets[at] : offsets[at + 1]]) for at in (1, 2))
    return parent | {"kind": own["msg_type"]}


def until_answered(socket, msg_id: str) -> list[str]:
    """The kinds of all messages up to the reply to one."""
    kinds = []
    while True:
        header = header_of(socket.recv(timeout=20))
        kinds.append(header["kind"])
        if header.get("msg_id") == msg_id and header["kind"].endswith("_reply"):
            return kinds


@pytest.mark.parametrize("protocol", ["", "v1.kernel.websocket.jupyter.org"])
def test_a_kernel_runs_nothing_that_a_visitor_sends(app, tmp_path, protocol):
    pack = v1 if protocol else json.dumps
    with visit(app) as page, channels(app, kernel_of(page), protocol=protocol) as socket:
        for channel in ("shell", "control", "stdin"):
            mark = tmp_path / channel
            code = f"open({str(mark)!r}, 'w').close()"
            wanted = {"code": code, "silent": False, "store_history": False, "user_expressions": {"x": code}, "allow_stdin": False}
            socket.send(pack(message("execute_request", wanted, channel=channel)))
            debug = {"type": "request", "seq": 1, "command": "initialize", "arguments": {}}
            socket.send(pack(message("debug_request", debug, channel=channel)))
            for kind in ("inspect_request", "complete_request", "is_complete_request", "history_request", "input_reply"):
                socket.send(pack(message(kind, {"code": "open", "cursor_pos": 4, "value": "x"}, channel=channel)))
        socket.send(pack(asked := message("kernel_info_request", {})))
        kinds = until_answered(socket, asked["header"]["msg_id"])
        socket.send(pack(asked := message("comm_info_request", {"target_name": "jupyter.widget"})))
        kinds += until_answered(socket, asked["header"]["msg_id"])
    assert set(kinds) <= {"status", "kernel_info_reply", "comm_info_reply", "iopub_welcome"}, kinds
    assert not list(tmp_path.iterdir()), "the kernel ran what was sent"


def test_a_kernel_is_open_to_its_own_page_only(app):
    from websockets.exceptions import InvalidStatus

    with visit(app) as page:
        with pytest.raises(InvalidStatus) as refused, channels(app, kernel_of(page), origin="http://evil.example"):
            pass
        assert refused.value.response.status_code == 403
        with pytest.raises(InvalidStatus) as refused, channels(app, "00000000-0000-0000-0000-000000000000"):
            pass
        assert refused.value.response.status_code == 404
        for headers in ({"Origin": "http://evil.example", "Content-Type": "text/plain"}, {"Cookie": "_xsrf=guessed"}):
            assert ask(app, f"/voila/api/shutdown/{kernel_of(page)}", method="POST", body="", headers=headers).status in (403, 404)
        assert ask(app, f"/api/kernels/{kernel_of(page)}", method="DELETE", headers={"Origin": "http://evil.example"}).status in (403, 404)
        assert ask(app, f"/api/kernels/{kernel_of(page)}").status == 200


def test_the_kernels_get_no_secrets_and_the_shipped_folders_stay_as_they_are(app):
    before = prints_of(SHIPPED) | prints_of(DATA / "app")
    with visit(app):
        kernels = until(lambda: found if len(found := app.kernels()) >= 2 else None)
        for pid in kernels:
            text = until(lambda pid=pid: Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace"))
            assert "secret-key-1" not in text and "salty" not in text
            assert {line.split("=")[0] for line in text.split("\0") if line.startswith("STUDPERF_")} == {"STUDPERF_MODEL"}
            assert Path(f"/proc/{pid}/cwd").resolve() != app.output.parent, "a folder from which a kernel would import"
    assert prints_of(SHIPPED) | prints_of(DATA / "app") == before


def prints_of(folder: Path) -> dict[str, str]:
    """Every file below a folder, the caches of Python aside, with its fingerprint."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in found}


# Kernels come and go


def test_a_closed_page_takes_its_kernel_with_it_and_the_next_is_ready(app):
    until(lambda: len(app.kernels()) == 1)
    with visit(app) as first:
        until(lambda: len(app.kernels()) == 2)
    assert ask(app, f"/api/kernels/{kernel_of(first)}").status == 404
    until(lambda: len(app.kernels()) == 1)
    with visit(app) as second:
        assert kernel_of(second) != kernel_of(first)


def test_a_visitor_who_only_left_is_forgotten_and_the_waiting_kernel_is_not(tmp_path):
    with running_app("--idle", 3, folder=tmp_path) as app:
        page = ask(app)
        with channels(app, kernel_of(page)) as socket:  # the page was open, and its machine went to sleep
            socket.send(json.dumps(asked := message("kernel_info_request", {})))
            until_answered(socket, asked["header"]["msg_id"])
        until(lambda: ask(app, f"/api/kernels/{kernel_of(page)}").status == 404, seconds=20, pause=0.5)
        left = until(lambda: found if len(found := app.kernels()) == 1 else None)
        with pytest.raises(AssertionError, match="not within"):  # a kernel that waits for a visitor is not ended
            until(lambda: app.kernels() != left, seconds=4)
        assert ask(app).status == 200


@pytest.mark.parametrize("ready", [0, 1])
def test_no_more_visitors_than_places(tmp_path, ready):
    with running_app("--sessions", 2, "--ready", ready, folder=tmp_path) as app:
        with ThreadPoolExecutor(6) as pool:
            pages = list(pool.map(lambda _: ask(app), range(6)))
        answered = sorted(page.status for page in pages)
        print(f"ready {ready}: {answered}, {len(app.kernels())} kernels")
        assert answered == [200, 200, 503, 503, 503, 503]
        busy = next(page for page in pages if page.status == 503)
        assert busy.headers["retry-after"] == "20" and "All places are taken" in busy.text and "text/html" in busy.headers["content-type"]
        end(app, next(page for page in pages if page.status == 200))
        again = until(lambda: found if (found := ask(app)).status == 200 else None, seconds=10)
        assert kernel_of(again) not in [kernel_of(page) for page in pages if page.status == 200]
        until(lambda: len(app.kernels()) == 2 + ready)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_the_end_of_the_server_leaves_no_kernel_and_no_file(tmp_path, kind):
    with TemporaryDirectory() as place, running_app(folder=tmp_path, TMPDIR=place) as app:
        assert ask(app).status == 200
        kernels = until(lambda: found if len(found := app.kernels()) >= 2 else None)
        until(lambda: idle(kernels))
        app.process.send_signal(kind)
        code = app.process.wait(20)
        assert code == (-signal.SIGKILL if kind == signal.SIGKILL else 0), (code, app.log())
        until(lambda: not [pid for pid in kernels if alive(pid)], seconds=15)
        assert "Traceback" not in app.log()
        left = os.listdir(place)
        assert left == [] if kind != signal.SIGKILL else len(left) == 1


# Who may come from another machine


def test_off_loopback_nobody_enters_without_the_token(tmp_path):
    with running_app("--host", "0.0.0.0", folder=tmp_path, STUDPERF_APP_TOKEN="") as app:
        token = re.search(r"token=([\w-]+)", app.log())[1]
        assert len(token) >= 32
        for path in ("/", "/?token=", "/?token=wrong", "/?token=trap"):
            page = ask(app, path)
            assert page.status in (302, 403) and "kernelId" not in page.text, (path, page.status)
        login = ask(app, ask(app).headers["location"])
        ask(app, f"/nope?token={token}")
        assert login.status == 200 and "password" in login.text and "kernelId" not in login.text
        entered = ask(app, f"/?token={token}")
        assert entered.status == 302 and "token" not in entered.headers["location"], "it does not stay in the address"
        cookie = "; ".join(f"{name}={value}" for name, value in entered.cookies.items())
        kernel = kernel_of(ask(app, headers={"Cookie": cookie}))
        assert ask(app, f"/api/kernels/{kernel}").status == 403
        assert ask(app, f"/voila/api/shutdown/{kernel}", method="POST", body="").status == 403
        from websockets.exceptions import InvalidStatus

        with pytest.raises(InvalidStatus), channels(app, kernel):
            pass
        with channels(app, kernel, Authorization=f"token {token}") as socket:
            socket.send(json.dumps(asked := message("kernel_info_request", {})))
            until_answered(socket, asked["header"]["msg_id"])
        until(app.kernels)
        assert all(token.encode() not in Path(f"/proc/{pid}/{part}").read_bytes() for pid in app.kernels() for part in ("environ", "cmdline"))
        assert app.log().count(token) == 1, "the token stands in the log once, where the person reads it"


# What can be wrong at the start


def refused(*arguments: object, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "studperf", "app", "--no-browser", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=60)


def test_what_cannot_be_served_is_said_at_once(app, tmp_path):
    taken = refused("--port", app.port, folder=tmp_path)
    assert taken.returncode == 2 and f"cannot listen on 127.0.0.1, port {app.port}" in taken.stderr and "Traceback" not in taken.stderr
    for words, arguments in {
        "no such model": ("--model", "nowhere"),
        "from 1 to 1000": ("--sessions", "0"),
        "begins and ends with /": ("--base-url", "/../"),
        "with its manifest.json": ("--model", tmp_path),
    }.items():
        said = refused("--port", free_port(), *arguments, folder=tmp_path)
        assert said.returncode == 2 and words in said.stderr and "Traceback" not in said.stderr, said


@pytest.mark.parametrize("absent", [("voila", "tornado", "jupyter_client", "jupyter_server", "traitlets"), ("anywidget",), ("ipywidgets",)])
def test_without_the_extra_it_says_what_to_install(tmp_path, absent):
    code = f"""if True:
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {absent!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Absent())
        from studperf.cli import main
        sys.exit(main(["app", "--no-browser", "--port", "{free_port()}"]))"""
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert said.returncode == 2 and f"this needs {absent[0]}: pip install 'studperf[ui]'" in said.stderr, said.stderr


def test_a_port_that_is_chosen_by_the_machine_is_told(tmp_path):
    """Port 0 is either refused, or the address that is told is the one that answers."""
    said = subprocess.Popen([sys.executable, "-m", "studperf", "app", "--no-browser", "--port", "0"], cwd=tmp_path, env=clean_environment(),
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    try:
        line = said.stdout.readline()
        assert "http://127.0.0.1:0/" not in line, line
    finally:
        said.terminate()
        said.communicate(timeout=20)


def test_it_works_with_a_home_that_cannot_be_written(tmp_path):
    with running_app(folder=tmp_path, HOME="/proc/nowhere") as app:
        assert ask(app).status == 200 and "Traceback" not in app.log()


def test_a_damaged_model_has_a_page_and_paths_may_be_long(tmp_path):
    """What the page says, `test_app.py` reads in a browser. Addresses of sockets have about 100 characters; a Mac's temporary folder takes half."""
    shutil.copytree(SHIPPED, tmp_path / "model")
    card = tmp_path / "model" / "card.md"
    card.write_text(card.read_text() + " ")
    place = tmp_path / ("x" * 60)
    place.mkdir()
    with running_app("--model", tmp_path / "model", folder=tmp_path, TMPDIR=place) as app, visit(app) as page:
        assert "jupyter.widget-view" in page.text and "Traceback" not in page.text


def test_below_another_path_and_with_a_token_of_ones_own(tmp_path):
    with running_app("--base-url", "/app/", folder=tmp_path, STUDPERF_APP_TOKEN="of-ones-own-0123456789") as app:
        assert ask(app, "/app/").status == 302 and "of-ones-own" not in app.log().replace(f"{app.url}app/?token=of-ones-own", "")
        page = ask(app, "/app/", headers={"Authorization": "token of-ones-own-0123456789"})
        assert page.status == 200 and '"baseUrl": "/app/"' in page.text and 'src="/app/voila/static/voila.js"' in page.text
        assert ask(app, "/app/voila/static/voila.js").status == 200
        assert {ask(app, path).status for path in ("/", "/voila/static/voila.js", "/app/predict.ipynb")} <= {302, 404}

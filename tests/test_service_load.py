"""The service under more than it can do, with clients that behave badly, killed, told to stop, and given a new model: no wrong answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from importlib.resources import files
from pathlib import Path

import psutil
import publishers
from conftest import clean_environment, size
from load_client import quantiles, read_answer
from serving import Server, served

from studperf import load_model, predict, simulate
from studperf.artifact import Bundle, load_bundle, publish

CLIENT = Path(__file__).with_name("load_client.py")


def students(n: int, seed: int = 11) -> list[dict]:
    """Students without their scores."""
    return simulate(n, seed=seed).drop(columns="math_score").to_dict("records")


def right_answer(body: str, bundle: Bundle) -> dict:
    """What the service must answer with this model: the numbers of `predict`."""
    return {"model": bundle.version, "rows": predict(json.loads(body), model=bundle)[["prediction", "lower", "upper"]].to_numpy().tolist()}


@contextmanager
def loaded(
    server: Server,
    bodies: Sequence[str],
    *bundles: Bundle,  # each may answer
    seconds: float,
    rate: float = 0,  # requests per second, answered or not; 0: each connection asks again when it is answered
    connections: int = 8,
    fresh: bool = False,  # a connection for each request
    keep: bool = False,  # the answers
) -> Iterator[dict]:
    """A client that works beside the body of the `with`, and stops at its end or after so many seconds; then the dict holds what it saw."""
    expected = [[right_answer(body, bundle) for bundle in bundles or (load_model(),)] for body in bodies]
    config = {"port": server.port, "path": "/predict", "bodies": list(bodies), "expected": expected, "seconds": seconds, "rate": rate,
              "connections": connections, "fresh": fresh, "keep": keep}  # fmt: skip
    file, result = server.folder / "load.json", {}
    file.write_text(json.dumps(config))
    child = subprocess.Popen(
        [sys.executable, str(CLIENT), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment(), text=True
    )
    try:
        assert child.stdout.readline() == "started\n"
        yield result
        out, _ = child.communicate(timeout=seconds + 60)  # closes its standard input
        result |= json.loads(out)
    finally:
        child.kill()
        child.wait()


def drive(server: Server, bodies: Sequence[str], *, seconds: float, **options: float) -> dict:
    """A client that works for so many seconds."""
    with loaded(server, bodies, seconds=seconds, **options) as result:
        time.sleep(seconds + 0.2)
    return result


def rss_mb(server: Server) -> float:
    """Resident memory of the service."""
    return psutil.Process(server.process.pid).memory_info().rss / 2**20


def metric(server: Server, name: str) -> float:
    """One of the service's own figures, with its labels as written."""
    lines = ask(server, "GET", "/metrics")[1].decode().splitlines()
    return float(next((line for line in lines if line.startswith(name + " ")), f"{name} 0").rpartition(" ")[2])


def ask(server: Server, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body, {"content-type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def shown(result: dict) -> str:
    """The counts of a client, in one line."""
    counts = {name: result[name] for name in ("sent", "right", "refused", "wrong_number", "lost", "cut", "unanswered", "starved") if result[name]}
    times = {f"{kind} {share}": f"{result[kind + '_ms'][share]:.1f} ms" for kind in ("right", "refused") for share in ("p50", "p99") if result[kind]}
    return f"{result['seconds']:.1f} s: {counts}, {times}"


class Pulse:
    """Asks /livez twenty times a second, each time on a new connection."""

    def __init__(self, server: Server):
        self.server, self.seconds, self.failed, self.stop = server, [], 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        while not self.stop.wait(0.05):
            started = time.perf_counter()
            self.failed += ask(self.server, "GET", "/livez")[0] != 200
            self.seconds.append(time.perf_counter() - started)

    def __enter__(self) -> Pulse:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(60)


def test_at_twice_what_it_can_do_answers_are_right_and_the_rest_is_told_at_once():
    body, seconds = json.dumps(students(100)), size(8, 60)
    with served() as server:
        closed = drive(server, [body], seconds=size(3, 10))
        saturation, before = closed["right"] / closed["seconds"], rss_mb(server)
        print(f"\nsaturated: {saturation:.0f} lists of 100 a second; {shown(closed)}; {before:.0f} MB")
        with Pulse(server) as pulse:
            result = drive(server, [body], seconds=seconds, rate=2 * saturation, connections=256)
        began = time.monotonic()
        while ask(server, "POST", "/predict", body)[0] != 200:
            assert time.monotonic() - began < 2
        recovered = time.monotonic() - began
        again = drive(server, [body], seconds=1, rate=saturation / 5)
        grown, livez = rss_mb(server) - before, quantiles(pulse.seconds)
        unlogged = metric(server, "studperf_prediction_log_dropped_total")
        print(f"twice that: {shown(result)}; {grown:+.1f} MB; {len(pulse.seconds)} times /livez: "
              f"p50 {livez['p50']:.1f} p99 {livez['p99']:.1f} max {livez['p100']:.1f} ms; "
              f"{recovered:.2f} s to the next answer; then {shown(again)}; "
              f"{unlogged:.0f} predictions not logged")  # fmt: skip
    assert (closed["wrong"], result["wrong"], again["wrong"]) == ([], [], [])
    assert result["lost"] == result["cut"] == result["unanswered"] == pulse.failed == 0
    assert result["sent"] / result["seconds"] > 1.3 * saturation, "the client could not ask often enough"
    assert result["refused"] > 0 and result["right"] > 0
    assert result["refused_ms"]["p50"] < size(150, 50)
    assert livez["p99"] < size(500, 50)
    assert grown < 20
    assert unlogged == 0, "answers were given that are not in the log"
    assert again["refused"] <= size(again["sent"] // 10, 0)


def test_many_new_connections_do_not_keep_the_probes_waiting():
    body = json.dumps(students(100))
    with served() as server:
        closed = drive(server, [body], seconds=2)
        with Pulse(server) as pulse:
            result = drive(server, [body], seconds=size(4, 20), rate=closed["right"] / closed["seconds"], fresh=True)
        livez = quantiles(pulse.seconds)
    print(f"\na connection for each request: {shown(result)}; {len(pulse.seconds)} times /livez: p50 {livez['p50']:.1f} p99 {livez['p99']:.1f} ms")
    assert result["wrong"] == [] and result["lost"] == result["cut"] == result["unanswered"] == pulse.failed == 0
    assert result["right"] > 0
    assert livez["p99"] < size(250, 100)


# Clients that behave badly. Each gives the status it was answered with, "closed" when there was none, or "open" when it had to give up.
FORM = "application/x-www-form-urlencoded"
TIMEOUT, PATIENCE = 2, 8.0  # seconds: of the service for a head or a body; of the clients


def head(path: str, *lines: str, kind: str = "application/json") -> bytes:
    """The head of a request."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", *lines, "", ""]).encode()


async def converse(port: int, *pieces: bytes, pause: float = 0, half_close: bool = False) -> str:
    """Send the pieces, and wait for an answer or the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        with suppress(OSError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
            if half_close:
                writer.write_eof()

    sending = asyncio.create_task(send())
    try:
        found = re.match(rb"HTTP/1.1 (\d+)", await asyncio.wait_for(reader.readline(), PATIENCE))
        return found[1].decode() if found else "closed"
    except TimeoutError:
        return "open"
    except OSError:
        return "closed"
    finally:
        sending.cancel()
        writer.close()


async def never_read(port: int, request: bytes, times: int) -> str:
    """Ask several times without reading one answer, and wait to be thrown out."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await asyncio.wait_for(loop.sock_sendall(sock, request * times), PATIENCE)
        for _ in range(int(10 * PATIENCE)):
            await asyncio.sleep(0.1)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return "closed"
        return "open"
    except TimeoutError:
        return "open"
    except OSError:
        return "closed"
    finally:
        sock.close()


async def reset(port: int, *pieces: bytes) -> str:
    """Send, and break the connection off so that the service gets an error."""
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    for piece in pieces:
        await loop.sock_sendall(sock, piece)
        await asyncio.sleep(0.02)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    return "closed"


async def idle(port: int) -> str:
    """Connect, and say nothing."""
    return await converse(port)


def bad_clients(port: int) -> dict[str, tuple[Callable, set[str]]]:
    """What they do, and how it may end."""
    one, many = json.dumps(students(1)[0]).encode(), json.dumps(students(10_000)).encode()
    whole = head("/predict", f"Content-Length: {len(one)}") + one
    listed = head("/predict", f"Content-Length: {len(many)}") + many
    bomb, chunk = gzip.compress(bytes(10_000_000)), b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    zipped = (f"Content-Length: {len(bomb)}", "Content-Encoding: gzip")
    late, large = {"408", "closed"}, {"413", "closed"}  # closed: what was still on its way broke the connection before the answer was read
    return {
        "a head byte by byte": (lambda: converse(port, *[b"%c" % byte for byte in head("/predict") * 3], pause=0.15), late),
        "a body byte by byte": (lambda: converse(port, head("/predict", "Content-Length: 300"), *[b" "] * 300, pause=0.15), late),
        "a body that never comes": (lambda: converse(port, head("/predict", f"Content-Length: {len(one)}")), late),
        "a body that stops": (lambda: converse(port, head("/predict", "Transfer-Encoding: chunked") + b"1\r\n{\r\n"), late),
        "a form that never comes": (
            lambda: converse(port, head("/predictdata", "Content-Length: 9", kind=FORM)),
            late,
        ),
        "a file that stops": (lambda: converse(port, head("/predict/batch", "Content-Length: 999", kind="text/csv") + b"gender"), late),
        "half a head, then the end": (lambda: converse(port, whole[:40], half_close=True), {"closed", "400", "408"}),
        "a request, then the end": (lambda: converse(port, whole, half_close=True), {"closed", "200"}),
        "long answers, not read": (lambda: never_read(port, listed, 8), {"closed"}),
        "reset before a word": (lambda: reset(port), {"closed"}),
        "reset in the head": (lambda: reset(port, whole[:30]), {"closed"}),
        "reset in the body": (lambda: reset(port, whole[:-20]), {"closed"}),
        "reset before the answer": (lambda: reset(port, listed), {"closed"}),
        "too large, and says so": (lambda: converse(port, head("/predict", "Content-Length: 99999999")), {"413"}),
        "too large a number": (lambda: converse(port, head("/predict", f"Content-Length: {10**30}")), {"400", "413"}),
        "too large, in chunks": (lambda: converse(port, head("/predict", "Transfer-Encoding: chunked"), *[chunk] * 12), large),
        "too large a file": (lambda: converse(port, head("/predict/batch", "Transfer-Encoding: chunked", kind="text/csv"), *[chunk] * 12), large),
        "compressed": (lambda: converse(port, head("/predict", *zipped), bomb), {"415"}),
        "a compressed file": (lambda: converse(port, head("/predict/batch", *zipped, kind="text/csv"), bomb), {"415"}),
        "a compressed form": (lambda: converse(port, head("/predictdata", *zipped, kind=FORM), bomb), {"415"}),
        "not HTTP": (lambda: converse(port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), {"400"}),
        "too long a head": (lambda: converse(port, head("/predict", "X: " + "a" * 100_000)), {"431"}),
    }


async def all_at_once(port: int, times: int, idle_ones: int) -> tuple[Counter, list[str]]:
    """Every bad client several times, and many that say nothing; how they ended, and which ended otherwise than they may."""
    clients = [(name, act, may) for name, (act, may) in bad_clients(port).items() for _ in range(times)]
    clients += [("nothing", lambda: idle(port), {"closed", "408"})] * idle_ones
    ends = await asyncio.gather(*(act() for _, act, _ in clients))
    seen = Counter((name, end) for (name, _, _), end in zip(clients, ends, strict=True))
    may_be_busy = Counter(ends)["503"] < len(clients) / 20  # so many at once are a crowd, and some are told so
    odd = {f"{name}: {end}" for (name, _, may), end in zip(clients, ends, strict=True) if end not in may and not (may_be_busy and end == "503")}
    return seen, sorted(odd)


def test_clients_that_behave_badly_all_at_once_do_not_disturb_the_others():
    bodies = [json.dumps(student) for student in students(20)]
    limits = {"STUDPERF_TIMEOUT": TIMEOUT, "STUDPERF_MAX_CONNECTIONS": 3000, "STUDPERF_MAX_UPLOAD_BYTES": 2**20}
    with served(**limits) as server:
        process, descriptors = psutil.Process(server.process.pid), psutil.Process(server.process.pid).num_fds()
        asyncio.run(all_at_once(server.port, 2, 100))  # what is allocated once
        before = rss_mb(server)
        with loaded(server, bodies, seconds=600, rate=100) as result:
            rounds = [asyncio.run(all_at_once(server.port, 2, 1500)) for _ in range(size(1, 10))]
        seen, wrong = sum((seen for seen, _ in rounds), Counter()), [odd for _, odds in rounds for odd in odds]
        for _ in range(100):
            if process.num_fds() <= descriptors + 10:
                break
            time.sleep(0.1)
        print("\n" + "\n".join(f"{name}: {end} {count}" for (name, end), count in sorted(seen.items())))
        grown, in_flight = rss_mb(server) - before, metric(server, "studperf_http_requests_in_flight")
        print(f"the others: {shown(result)}; {grown:+.1f} MB")
        assert wrong == []
        assert result["wrong"] == [] and result["lost"] == result["cut"] == result["unanswered"] == 0
        assert result["right"] > 0.9 * result["sent"] > 0
        assert process.num_fds() <= descriptors + 10, "connections are still open"
        assert in_flight == 1, "requests that nobody waits for are still in flight"  # the one that asks
        assert grown < 40
        assert "Traceback" not in server.log()


def test_more_connections_than_are_allowed_are_refused_and_the_others_served():
    body = json.dumps(students(1)[0])
    with served(STUDPERF_TIMEOUT=TIMEOUT, STUDPERF_MAX_CONNECTIONS=100) as server:
        with loaded(server, [body], seconds=60, rate=50, connections=4) as result:
            ends = Counter(asyncio.run(too_many(server.port, 300)))
        assert ask(server, "POST", "/predict", body)[0] == 200
    print(f"\n{ends}; the others: {shown(result)}")
    assert ends["503"] >= 300 - 100 and set(ends) <= {"503", "closed", "408"}
    assert result["wrong"] == [] and result["lost"] == result["cut"] == 0 and result["right"] > 0.9 * result["sent"]


async def too_many(port: int, n: int) -> list[str]:
    """Idle connections, and how each ends."""
    return await asyncio.gather(*(idle(port) for _ in range(n)))


def entries(folder: Path) -> list[dict]:
    """The prediction log, read without studperf, after SQLite has looked for damage."""
    with sqlite3.connect(folder / "artifacts" / "predictions.db") as connection:
        connection.row_factory = sqlite3.Row
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return [dict(row) for row in connection.execute("SELECT * FROM predictions")]


def by_student(bodies: Sequence[str]) -> dict[str, list[float]]:
    """For each student what must be predicted."""
    rows = [json.loads(body) for body in bodies]
    expected = predict(rows)[["prediction", "lower", "upper"]].to_numpy().tolist()
    return {json.dumps(row, sort_keys=True): numbers for row, numbers in zip(map(with_floats, rows), expected, strict=True)}


def with_floats(student: dict) -> dict:
    """Scores as floats, as the log writes them."""
    return {name: float(value) if isinstance(value, int) else value for name, value in student.items()}


def check_entries(found: Sequence[dict], expected: dict[str, list[float]]) -> None:
    """Each entry is whole, and says what is right for its student."""
    for entry in found:
        student = json.dumps(with_floats(json.loads(entry["features"])), sort_keys=True)
        assert re.fullmatch("[0-9a-f]{32}", entry["id"])
        assert [entry[name] for name in ("prediction", "lower", "upper")] == expected[student]
        assert abs(int(entry["id"][:8], 16) - entry["time"]) < 2 and entry["model"] == load_model().version and not entry["abstain"]


def test_killed_at_any_moment_it_starts_again_and_the_log_is_whole(tmp_path):
    bodies, draw = [json.dumps(student) for student in students(50)], random.Random(3)
    expected, kills, answered, missing, in_log = by_student(bodies), size(5, 50), 0, 0, 0
    numbers = list(expected.values())
    for turn in range(kills):
        with served(folder=tmp_path) as server:
            again = read_answer(ask(server, "POST", "/predict", bodies[0])[1])
            assert again == right_answer(bodies[0], load_model())
            with loaded(server, bodies, seconds=60, rate=1000, connections=32, keep=True) as result:
                time.sleep(draw.uniform(0.3, 1.8))
                killed = time.monotonic()
                server.process.kill()
                server.process.wait()
        found = {entry["id"]: entry for entry in entries(tmp_path)}
        check_entries(list(found.values()) if turn in (0, kills - 1) else list(found.values())[-5000:], expected)
        assert result["wrong"] == []
        given = {identity: (received, number) for received, number, _, (identity,) in result["answers"]}
        lost = [received - killed for identity, (received, _) in given.items() if identity not in found]
        assert all(age > -0.5 for age in lost), f"{min(lost):.2f} s before the kill"
        for identity, (_, number) in given.items():
            if identity in found:
                assert [found[identity][name] for name in ("prediction", "lower", "upper")] == numbers[number]
        answered, missing, in_log = answered + len(given), missing + len(lost), len(found)
    print(f"\n{kills} kills, {answered:,} answers, {missing:,} of them not in the log, all of the last 0.5 s; {in_log:,} entries")
    assert answered > 100 * kills and in_log >= answered - missing


def receive_all(sock: socket.socket) -> bytes:
    """Everything until the service closes the connection."""
    pieces = []
    while piece := sock.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def test_told_to_stop_it_answers_what_it_has_begun_and_the_log_is_complete(tmp_path):
    one, many = json.dumps(students(1)[0]), json.dumps(students(5000))
    with served(folder=tmp_path, STUDPERF_STOP_SECONDS=20) as server:
        waiting = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        waiting.sendall(head("/predict", f"Content-Length: {len(one)}", "Expect: 100-continue"))
        assert waiting.recv(1000).startswith(b"HTTP/1.1 100")  # the request is accepted, and its body is waited for
        with loaded(server, [one], seconds=60, rate=500, connections=32, keep=True) as result:
            time.sleep(0.5)
            lists = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(6)]
            for sock in lists:
                sock.sendall(head("/predict", f"Content-Length: {len(many)}") + many.encode())
            while metric(server, "studperf_http_requests_in_flight") < 3:
                pass
            told = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert server.process.poll() is None, "a request was in flight"
            waiting.sendall(one.encode())
            answers = [receive_all(sock) for sock in (waiting, *lists)]
            code, took = server.process.wait(30), time.monotonic() - told
    assert code == 0 and took < 10, server.log()
    right = [right_answer(body, load_model()) for body in [one] + [many] * 6]
    assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * 7
    assert [read_answer(answer.partition(b"\r\n\r\n")[2]) for answer in answers] == right
    assert result["wrong"] == [] and result["cut"] == result["unanswered"] == 0
    ids = {identity for *_, found in result["answers"] for identity in found}
    ids |= {identity.decode() for answer in answers for identity in re.findall(rb'"id":"([0-9a-f]{32})"', answer)}
    logged = {entry["id"] for entry in entries(tmp_path)}
    print(f"\nended {took:.2f} s after it was told to; {shown(result)}; {len(ids):,} answered, {len(logged):,} in the log")
    assert logged == ids, f"{len(ids - logged)} answers are not in the log, {len(logged - ids)} entries were not answered"


def test_told_to_stop_it_does_not_wait_for_ever(tmp_path):
    with served(STUDPERF_STOP_SECONDS=1, STUDPERF_TIMEOUT=600) as server, socket.create_connection(("127.0.0.1", server.port), timeout=30) as waiting:
        waiting.sendall(head("/predict", "Content-Length: 100", "Expect: 100-continue"))
        assert waiting.recv(1000).startswith(b"HTTP/1.1 100")
        told = time.monotonic()
        assert server.stop() == 0
        took = time.monotonic() - told
    print(f"\nended after {took:.2f} s")
    assert took < 4


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def reloads(server: Server, outcome: str) -> float:
    """How many new models were taken, or refused."""
    return metric(server, f'studperf_model_reloads_total{{outcome="{outcome}"}}')


SHIPPED = Path(str(files("studperf") / "data" / "production"))


def swap(home: Path, folder: Path) -> None:
    """Point `production` to a folder, in one step, without any check."""
    (home / ".swap").symlink_to(folder)
    os.replace(home / ".swap", home / "production")


def spoil(folder: Path, name: str, into: Path) -> Path:
    """A copy of a bundle in which one file is not what was written."""
    shutil.copytree(folder, into)
    content = bytearray((into / name).read_bytes())
    content[10] ^= 1
    (into / name).write_bytes(content)
    return into


def test_a_new_champion_takes_over_under_load_and_a_damaged_one_does_not(tmp_path, linear):
    home, old, new, bodies = tmp_path / "home", load_bundle(SHIPPED), load_bundle(linear), [json.dumps(student) for student in students(20)]
    publish(publishers.packed(SHIPPED), home)
    damaged = spoil(SHIPPED, "manifest.sha256", tmp_path / "damaged")
    with served("--model", home, STUDPERF_POLL=0.2) as server, loaded(server, bodies, old, new, seconds=60, rate=300) as result:
        time.sleep(0.5)
        publish(publishers.packed(linear), home)
        wait_for(lambda: reloads(server, "taken") == 1)
        time.sleep(0.5)
        assert read_answer(ask(server, "POST", "/predict", bodies[0])[1]) == right_answer(bodies[0], new)
        swap(home, damaged)
        wait_for(lambda: reloads(server, "refused") == 1)
        time.sleep(0.5)
        assert read_answer(ask(server, "POST", "/predict", bodies[0])[1]) == right_answer(bodies[0], new)
        assert reloads(server, "taken") == 1 and ask(server, "GET", "/readyz")[0] == 200
        turns = size(11, 101)
        for turn in range(turns):
            swap(home, (SHIPPED, linear)[turn % 2])
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda turn=turn: reloads(server, "taken") == turn + 2)
        assert read_answer(ask(server, "POST", "/predict", bodies[0])[1]) == right_answer(bodies[0], old)
    print(f"\n{turns + 1} takeovers; {shown(result)}; {result['models']}")
    assert result["wrong"] == [] and result["right"] == result["sent"] and set(result["models"]) == {old.version, new.version}


def test_a_champion_that_was_damaged_is_taken_when_it_is_mended(tmp_path, linear):
    home = tmp_path / "home"
    publish(publishers.packed(SHIPPED), home)
    half_copied = spoil(linear, "predictor.json", tmp_path / "half-copied")
    with served("--model", home, STUDPERF_POLL=0.2) as server:
        swap(home, half_copied)
        wait_for(lambda: reloads(server, "refused") >= 1)
        shutil.copy(linear / "predictor.json", half_copied)
        wait_for(lambda: reloads(server, "taken") == 1)
        assert json.loads(ask(server, "GET", "/readyz")[1])["model"] == load_bundle(linear).version


def test_a_hangup_signal_takes_the_new_champion_at_once(tmp_path, linear):
    home = tmp_path / "home"
    publish(publishers.packed(SHIPPED), home)
    with served("--model", home, STUDPERF_POLL=3600) as server:
        publish(publishers.packed(linear), home)
        time.sleep(0.5)
        assert reloads(server, "taken") == 0
        told = time.monotonic()
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: reloads(server, "taken") == 1, 5)
        print(f"\ntaken {time.monotonic() - told:.2f} s after the signal")
        version = json.loads(ask(server, "GET", "/readyz")[1])["model"]
    assert version == load_bundle(linear).version

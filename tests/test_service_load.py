"""The service under more than it can do, with clients that behave badly, killed, told to stop, and given a new model: no wrong answer."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
from conftest import PROVE, clean_environment, size
from load_client import quantiles
from serving import Server, served

from studperf import load_model, predict, simulate
from studperf.artifact import Bundle, load_bundle

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
    keep: bool = False,  # the answers
) -> Iterator[dict]:
    """A client that works beside the body of the `with`, and stops at its end or after so many seconds; then the dict holds what it saw."""
    expected = [[right_answer(body, bundle) for bundle in bundles or (load_model(),)] for body in bodies]
    config = {"port": server.port, "path": "/predict", "bodies": list(bodies), "expected": expected, "seconds": seconds, "rate": rate,
              "connections": connections, "keep": keep}  # fmt: skip
    file, result = server.folder / "load.json", {}
    file.write_text(json.dumps(config))
    child = subprocess.Popen([sys.executable, str(CLIENT), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment(), text=True)
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


def test_twice_as_much_as_it_can_do():
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
        assert [ask(server, "POST", "/predict", body)[0] for _ in range(50)] == [200] * 50
        after, livez = rss_mb(server), quantiles(pulse.seconds)
        print(f"twice that: {shown(result)}; /livez p50 {livez['p50']:.1f} p99 {livez['p99']:.1f} max {livez['p100']:.1f} ms of {len(pulse.seconds)}; "
              f"{after - before:+.1f} MB; recovered after {recovered:.2f} s; shed {metric(server, 'studperf_shed_requests_total'):.0f}; "
              f"log dropped {metric(server, 'studperf_prediction_log_dropped_total'):.0f}")
    assert PROVE

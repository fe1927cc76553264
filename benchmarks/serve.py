"""The price of a request: the service beside FastAPI with a DataFrame and a pipeline, and beside a constant in the same server.

Servers, one after another, each alone and with one worker of uvicorn, uvloop and httptools, get the same requests from wrk. CPU time
is user plus system time of the server with all its threads, and lasts until the prediction log is written. Before a server is driven,
its answers are compared with `studperf.predict`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

from measure import as_table, environment, say

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
JSON, FORM, CSV = "application/json", "application/x-www-form-urlencoded", "text/csv"
PIPELINE, COROUTINE = "FastAPI + DataFrame + pipeline", "the same, in a coroutine"
OURS, CONSTANT = "studperf serve", "constant in uvicorn"
PATHS = {PIPELINE: "/predict", COROUTINE: "/predict/coroutine", OURS: "/predict", CONSTANT: "/predict"}
AIMS = {"predict_ms": 0.05, "times_less": 100.0, "times_constant": 2.5, "per_second": 20_000.0, "ready_s": 1.0, "rss_mb": 100.0,
        "form_ms": 0.2, "list_us": 5.0}  # fmt: skip
AT_LEAST = ("times_less", "per_second")  # the others: at most

# What wrk is told to send, and what it prints at its end: one line of JSON.
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = os.getenv("BENCH_TYPE")
wrk.headers["Accept"] = os.getenv("BENCH_ACCEPT")
wrk.body = io.open(os.getenv("BENCH_BODY"), "rb"):read("*a")
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p95_ms": %.4f, "p99_ms": %.4f, "refused": %d, "broken": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Driven:
    """What a server did for wrk."""

    connections: int
    requests: int
    cpu_ms: float  # user and system time of the server per request, all threads
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: int  # answers that were not 2xx, and connections that broke


@dataclass(frozen=True)
class Side:
    """One server."""

    name: str
    ready_s: float  # from exec to the first 200, wall; median of several starts
    ready_cpu_s: float
    rss_mb: float  # after the load
    predict: list[Driven]  # by connections


class Server:
    """A running server process, and its account."""

    def __init__(self, command: Sequence[str], folder: Path, port: int):
        self.port, self.started, self.words = port, time.perf_counter(), folder / "words.txt"
        with self.words.open("wb") as words:
            told = environment() | {"PYTHONPATH": str(HERE)}
            self.child = subprocess.Popen(command, cwd=folder, env=told, stdout=words, stderr=subprocess.STDOUT)

    def wait(self) -> tuple[float, float]:
        """Wall and CPU seconds until the first 200."""
        while time.perf_counter() - self.started < 60 and self.child.poll() is None:
            with suppress(OSError):
                if self.ask("GET", "/livez")[0] == 200:
                    return time.perf_counter() - self.started, self.cpu()
            time.sleep(0.005)
        raise RuntimeError(f"{self.child.args} does not answer:\n{self.words.read_text()}")

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    def cpu(self) -> float:
        """User and system seconds so far, all threads."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def counts(self) -> dict[str, float]:
        """The metrics without labels; none for a server that has no metrics."""
        status, text = self.ask("GET", "/metrics")
        lines = text.decode().splitlines() if status == 200 and b"# HELP" in text else []
        return {name: float(value) for name, value in (line.split(" ") for line in lines if line[:1] != "#" and "{" not in line)}

    def settled_cpu(self) -> float:
        """User and system seconds when nothing waits to be written any more."""
        for _ in range(600):
            if not self.counts().get("studperf_prediction_log_waiting"):
                return self.cpu()
            time.sleep(0.1)
        raise RuntimeError("the prediction log is not written within a minute")


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command_of(name: str, port: int) -> list[str]:
    """How a side is started."""
    if name == OURS:
        return [sys.executable, "-m", "studperf", "serve", "--port", str(port)]
    app = "serve_constant:app" if name == CONSTANT else "serve_pipeline:app"
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error", "--lifespan", "off"]
    return [sys.executable, "-m", "uvicorn", app, "--port", str(port), *options]


@contextmanager
def running(name: str, folder: Path) -> Iterator[tuple[Server, tuple[float, float]]]:
    """A server that answers, and what its start cost; it is stopped at the end."""
    port = free_port()
    server = Server(command_of(name, port), folder, port)
    try:
        yield server, server.wait()
    finally:
        server.child.terminate()
        server.child.wait(60)


def drive(server: Server, folder: Path, path: str, body: bytes, kind: str, *, connections: int, seconds: float, accept: str = JSON) -> Driven:
    """Let wrk send one request over and over, and charge the server for it."""
    (folder / "post.lua").write_text(SCRIPT)
    (folder / "body").write_bytes(body)
    told = environment() | {"BENCH_TYPE": kind, "BENCH_ACCEPT": accept, "BENCH_BODY": str(folder / "body")}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(folder / "post.lua"), "--latency", "--timeout", "30s",
               f"http://127.0.0.1:{server.port}{path}"]  # fmt: skip
    before = server.settled_cpu()
    out = subprocess.run(command, env=told, capture_output=True, text=True, check=True).stdout
    result = json.loads(next(line for line in out.splitlines() if line.startswith("RESULT "))[7:])
    spent, n = server.settled_cpu() - before, result["requests"]
    times = {name: result[name] for name in ("p50_ms", "p95_ms", "p99_ms")}
    return Driven(connections, n, 1000 * spent / max(n, 1), n / result["seconds"], **times, failed=result["refused"] + result["broken"])


def students(n: int) -> list[dict]:
    """The first students of a class, without their scores."""
    import studperf

    return studperf.simulate(n, seed=5).drop(columns="math_score").to_dict("records")


def expected(rows: Sequence[Mapping]) -> list[tuple[float, float, float]]:
    """What `studperf.predict` says of them."""
    import studperf

    return list(studperf.predict(list(rows))[["prediction", "lower", "upper"]].itertuples(index=False, name=None))


def check(name: str, server: Server, student: Mapping) -> None:
    """One answer must be right: to the bit ours, to rounding the pipeline's, which knows no interval."""
    status, body = server.ask("POST", PATHS[name], json.dumps(student).encode(), content_type=JSON)
    prediction, lower, upper = expected([student])[0]
    answer = json.loads(body)
    if name == OURS:
        right = (answer["prediction"], answer["lower"], answer["upper"]) == (prediction, lower, upper)
    else:
        right = abs(answer["prediction"] - prediction) < 1e-9
    if status != 200 or (name != CONSTANT and not right):
        raise RuntimeError(f"{name}: {status} {body[:500]!r}, expected {prediction}")


def side(name: str, folder: Path, *, connections: Sequence[int], seconds: float, starts: int) -> Side:
    """Start it several times, drive the last."""
    folder.mkdir()
    student = students(1)[0]
    body, ready = json.dumps(student).encode(), []
    for turn in range(starts + 1):  # the first one warms the disk's cache and does not count
        with running(name, folder) as (server, started):
            ready.append(started)
            if turn == starts:
                check(name, server, student)
                warm = drive(server, folder, PATHS[name], body, JSON, connections=connections[0], seconds=1)
                say(f"  warm after {warm.requests:,} requests")
                driven = [drive(server, folder, PATHS[name], body, JSON, connections=c, seconds=seconds) for c in connections]
                rss = server.rss_mb()
    wall, cpu = (median(pair[i] for pair in ready[1:]) for i in (0, 1))
    return Side(name, wall, cpu, rss, driven)


def form_fields(student: Mapping) -> bytes:
    """A student as the form of the page sends it."""
    from studperf.datasets import exam_schema

    return urlencode({column.form_name or column.name: student[column.name] for column in exam_schema().features("full")}).encode()


def others(folder: Path, *, seconds: float) -> dict[str, float]:
    """Our other ways to ask: the form, a list, a file; CPU per request or per row."""
    folder.mkdir()
    rows = students(100_000)
    with running(OURS, folder) as (server, _):
        form, listed = form_fields(rows[0]), json.dumps(rows[:1000]).encode()
        check_others(server, rows, form, listed)
        found = {"form_ms": drive(server, folder, "/predictdata", form, FORM, connections=16, seconds=seconds),
                 "form_page_ms": drive(server, folder, "/predictdata", form, FORM, connections=16, seconds=seconds, accept="text/html")}  # fmt: skip
        plain, failed = {name: driven.cpu_ms for name, driven in found.items()}, {name: driven.failed for name, driven in found.items()}
        list_cpu, _, failed["list_us"] = paced(server, "/predict", listed, JSON, times=max(20, round(20 * seconds)))
        file_cpu, wall, failed["csv_us"] = paced(server, "/predict/batch", csv_of(rows), CSV, times=3)
        plain |= {"list_us": 1e6 * list_cpu / 1000, "csv_us": 1e6 * file_cpu / len(rows), "csv_s": wall, "rss_mb": server.rss_mb()}
        return plain | {"failed": failed, "log_dropped": dropped(server)}


def paced(server: Server, path: str, body: bytes, kind: str, *, times: int) -> tuple[float, float, int]:
    """CPU and wall seconds of one of several requests, one after another with pauses in which the log is written; how many failed."""
    before, walls, failed = server.settled_cpu(), [], 0
    for _ in range(times):
        began = time.perf_counter()
        failed += server.ask("POST", path, body, content_type=kind)[0] != 200
        walls.append(time.perf_counter() - began)
        time.sleep(0.03)
    return (server.settled_cpu() - before) / times, median(walls), failed


def dropped(server: Server) -> float:
    """Predictions that the log could not take."""
    return server.counts().get("studperf_prediction_log_dropped_total", 0.0)


def csv_of(rows: Sequence[Mapping]) -> bytes:
    """Students as a file."""
    lines = [",".join(map(str, row.values())) for row in rows]
    return "\n".join([",".join(rows[0]), *lines, ""]).encode()


def check_others(server: Server, rows: Sequence[Mapping], form: bytes, listed: bytes) -> None:
    """Each of them must answer what `studperf.predict` says."""
    wanted = expected(rows[:1000])
    one = json.loads(server.ask("POST", "/predictdata", form, content_type=FORM, accept=JSON)[1])
    page = server.ask("POST", "/predictdata", form, content_type=FORM, accept="text/html")
    many = json.loads(server.ask("POST", "/predict", listed, content_type=JSON)[1])["predictions"]
    file = server.ask("POST", "/predict/batch", csv_of(rows[:1000]), content_type=CSV)[1].decode().splitlines()
    places = [file[0].split(",").index(name) for name in ("prediction", "lower", "upper")]
    right = [(one["prediction"], one["lower"], one["upper"]) == wanted[0], page[0] == 200, page[1].startswith(b"<!"),
             [(row["prediction"], row["lower"], row["upper"]) for row in many] == wanted,
             [tuple(float(line.split(",")[place]) for place in places) for line in file[1:]] == wanted]  # fmt: skip
    if not all(right):
        raise RuntimeError(f"form, page (2), list, file: {right}")


def measure(*, connections: Sequence[int], seconds: float, starts: int) -> dict:
    """Everything, as plain results."""
    sides = {}
    with tempfile.TemporaryDirectory(prefix="studperf-bench-") as name:
        for place, which in enumerate(PATHS):
            say(f"{which} ...")
            sides[which] = side(which, Path(name) / str(place), connections=connections, seconds=seconds, starts=starts)
        say("form, list, file ...")
        rest = others(Path(name) / "others", seconds=seconds)
    driven = zip(*(sides[which].predict for which in PATHS), strict=True)
    ratios = [{"connections": ours.connections, "times_less_than_function": function.cpu_ms / ours.cpu_ms,
               "times_less": coroutine.cpu_ms / ours.cpu_ms, "times_constant": ours.cpu_ms / constant.cpu_ms}
              for function, coroutine, ours, constant in driven]  # fmt: skip
    facts = {"seconds": seconds, "starts": starts, "cpus": os.cpu_count(), "sides": [asdict(one) for one in sides.values()]}
    return facts | {"ratios": ratios, "others": rest, "verdict": verdict(sides[OURS], ratios, rest)}


def verdict(ours: Side, ratios: Sequence[Mapping], rest: Mapping) -> dict:
    """Each figure that has an aim, and whether the aim is met; where there are two loads, the busier one counts."""
    busy, last = ours.predict[-1], ratios[-1]
    figures = {"predict_ms": busy.cpu_ms, "times_less": last["times_less"], "times_constant": last["times_constant"], "per_second": busy.per_second,
               "ready_s": ours.ready_s, "rss_mb": ours.rss_mb, "form_ms": rest["form_ms"], "list_us": rest["list_us"]}  # fmt: skip
    met = {name: value >= AIMS[name] if name in AT_LEAST else value <= AIMS[name] for name, value in figures.items()}
    refused = {"predict_ms": busy.failed, "times_less": busy.failed, "times_constant": busy.failed, "per_second": busy.failed} | rest["failed"]
    met |= {name: False for name, failed in refused.items() if failed and name in met}  # a refusal is cheap, and no answer
    return {name: {"value": value, "aim": AIMS[name], "met": met[name]} for name, value in figures.items()}


WORDS = {"predict_ms": "POST /predict, CPU ms", "times_less": "times less than the pipeline in a coroutine", "times_constant": "times the constant",
         "per_second": "requests per second, one worker", "ready_s": "start to ready, s", "rss_mb": "memory after the load, MB",
         "form_ms": "POST /predictdata, JSON, CPU ms", "list_us": "list of 1,000, CPU microseconds a row"}  # fmt: skip


def report(result: Mapping) -> str:
    """The results as tables, the last line the verdict."""
    header = ["POST /predict, one student", "conn.", "CPU ms", "req/s", "p50 ms", "p95 ms", "p99 ms", "failed", "ready s", "ready CPU s", "RSS MB"]
    rows = [[one["name"], str(d["connections"]), f"{d['cpu_ms']:.4f}", f"{d['per_second']:,.0f}", f"{d['p50_ms']:.2f}", f"{d['p95_ms']:.2f}",
             f"{d['p99_ms']:.2f}", str(d["failed"]), f"{one['ready_s']:.2f}", f"{one['ready_cpu_s']:.2f}", f"{one['rss_mb']:.0f}"]
            for one in result["sides"] for d in one["predict"]]  # fmt: skip
    ratios = [f"{one['connections']} connections: {one['times_less_than_function']:.0f} times less CPU than the pipeline in a function, "
              f"{one['times_less']:.0f} than in a coroutine; {one['times_constant']:.2f} times the constant" for one in result["ratios"]]  # fmt: skip
    return "\n".join([as_table(header, rows), "", *ratios, *report_others(result["others"]), "", report_aims(result)])


def report_others(rest: Mapping) -> list[str]:
    """What has no table."""
    return [
        f"the form's page: {rest['form_page_ms']:.3f} ms of CPU",
        f"a CSV of 100,000 students: {rest['csv_us']:.1f} microseconds of CPU a row, {rest['csv_s']:.2f} s until the last byte is back",
        f"memory after form, lists and files: {rest['rss_mb']:.0f} MB; predictions that the log did not take: {rest['log_dropped']:.0f}",
    ]


def report_aims(result: Mapping) -> str:
    """A table of the aims, and the verdict."""
    rows = []
    for name, v in result["verdict"].items():
        shown = f"{v['value']:,.4g}" if v["value"] < 1000 else f"{v['value']:,.0f}"
        rows.append([WORDS[name], shown, f"{'>=' if name in AT_LEAST else '<='} {v['aim']:,g}", "yes" if v["met"] else "NO"])
    missed = [WORDS[name] for name, v in result["verdict"].items() if not v["met"]]
    driven = [(one["name"], d) for one in result["sides"] for d in one["predict"]]
    failed = [f"{d['failed']} of {name} at {d['connections']} connections" for name, d in driven if d["failed"]]
    failed += [f"{number} of {name}" for name, number in result["others"]["failed"].items() if number]
    lines = [as_table(["aims", "measured", "aim", "met"], rows), "", "aim missed: " + "; ".join(missed) if missed else "aims met"]
    return "\n".join(lines + (["FAILED, not answered with 2xx: " + "; ".join(failed)] if failed else []))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="for which wrk drives each (default: 10)")
    parser.add_argument("--connections", default="1,16", help="comma-separated, ascending; the aims are about the last (default: 1,16)")
    parser.add_argument("--starts", type=int, default=5, help="of each server; the median counts (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not here, which sends the requests. On Debian: apt-get install wrk")  # ends with code 2
    if args.seconds < 1 or args.starts < 1:
        parser.error("--seconds and --starts must be at least 1")
    result = measure(connections=[int(one) for one in args.connections.split(",")], seconds=args.seconds, starts=args.starts)
    print(json.dumps(result, indent=1) if args.json else report(result))


if __name__ == "__main__":
    main()

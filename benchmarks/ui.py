"""What a visitor of the page waits for, beside a bare Voila hello-world, and what a visit leaves behind in memory.

Four servers stand ready and are opened in turns by Debian's Chromium, each time with an empty cache: Voila as it comes with a notebook of
one cell (`ipywidgets.HTML("Hello")`), and `studperf app`; each once without a kernel that waits (cold) and once with one (warm). All times
are taken by the page itself, from the start of its navigation. Then visitors come and go, one after another.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from measure import as_table, environment, say

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--no-proxy-server", "--disable-background-networking", "--disable-dev-shm-usage"]
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 120  # seconds
HELLO, OURS = "Voila, hello-world", "studperf app"
SIDES = [(name, kind) for kind in ("cold", "warm") for name in (HELLO, OURS)]
AIMS = {"over_hello_ms": 1000.0, "update_p95_ms": 150.0, "grown_mb": 10.0}

# Runs in the page before anything else: notes when things are there, presses the button as soon as it is, and types.
SCRIPT = """
(() => {
  const times = (window.times = {});
  const number = () => document.querySelector(".one-answer .one-number b");
  const said = () => { const b = number(); return b && /\\d/.test(b.textContent) ? b.textContent : ""; };
  const look = () => {
    const now = performance.now();
    if (!times.shown && (document.querySelector("#hello") || document.querySelector(".studperf h1"))?.getClientRects().length) times.shown = now;
    const button = [...document.querySelectorAll(".studperf button")].find((one) => one.textContent === "Fill in an example" && !one.disabled);
    if (button && !times.pressed) { times.pressed = now; button.click(); }
    if (said() && !times.predicted) times.predicted = performance.now();
    if (!times.predicted) requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
  window.painted = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
  window.update = (turn) => new Promise((done) => {
    const input = document.querySelector('.studperf-one-form input[inputmode="decimal"]');
    const range = document.querySelector('.studperf-one-form input[type="range"]');
    const before = said(), start = performance.now();
    const found = { number: 0, whole: 0 };
    let quiet;
    const changed = () => requestAnimationFrame(() => {  // the frame in which it is painted
      found.whole = performance.now() - start;
      if (!found.number && said() && said() !== before) found.number = found.whole;
      clearTimeout(quiet);
      if (found.number) quiet = setTimeout(() => { observer.disconnect(); done(found); }, 150);
    });
    const observer = new MutationObserver(changed);
    observer.observe(document.querySelector(".studperf"), { childList: true, subtree: true, characterData: true });
    const share = turn % 2 ? 0.35 : 0.65;
    input.value = String(Math.round(Number(range.min) + share * (range.max - range.min)));
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
})();
"""


@dataclass(frozen=True)
class Server:
    """A page that is served."""

    url: str
    process: subprocess.Popen

    def family(self) -> list[int]:
        """The server and its kernels."""
        found = subprocess.run(["ps", "--ppid", str(self.process.pid), "-o", "pid=,stat="], capture_output=True, text=True).stdout.split("\n")
        return [self.process.pid, *(int(line.split()[0]) for line in found if line.strip() and "Z" not in line)]

    def memory(self) -> dict[str, float]:
        """MB of the server, and of its kernels, that are theirs alone: what they share with other programs depends on who else runs."""
        found = []
        for pid in self.family():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            found.append(next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1024)
        return {"server_mb": found[0], "kernels_mb": sum(found[1:])}

    def cpu(self) -> float:
        """CPU seconds of all of them so far."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.family()]
        return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS

    def settle(self, *, kernels: int | None) -> None:
        """Wait until it has so many kernels (None: any number), and nothing is done any more."""
        deadline, before, quiet = time.monotonic() + PATIENCE, (-1.0, []), 0
        while quiet < 4:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.url}: {len(self.family()) - 1} kernels, {kernels} expected; still busy")
            try:
                now = (self.cpu(), self.family())
            except FileNotFoundError:  # one has just ended
                now = (-1.0, [])
            same = now[1] == before[1] and now[0] - before[0] <= 0.02 and kernels in (None, len(now[1]) - 1)
            quiet, before = quiet + 1 if same else 0, now
            time.sleep(0.15)


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(name: str, kind: str, folder: Path, port: int) -> list[str]:
    """How a side is started."""
    if name == OURS:
        return [sys.executable, "-m", "studperf", "app", "--no-browser", "--port", str(port), "--ready", str(int(kind == "warm"))]
    source = """import ipywidgets\nipywidgets.HTML('<p id="hello">Hello</p>')"""
    cell = {"cell_type": "code", "id": "hello", "metadata": {}, "outputs": [], "execution_count": None, "source": source}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "hello.ipynb").write_text(json.dumps(notebook))
    options = ["--VoilaConfiguration.preheat_kernel=True", "--VoilaConfiguration.default_pool_size=1"] if kind == "warm" else []
    return [sys.executable, "-m", "voila", "hello.ipynb", "--no-browser", f"--port={port}", *options]


@contextmanager
def running(name: str, kind: str, folder: Path) -> Iterator[Server]:
    """A side, until the end of the block."""
    folder.mkdir()
    port = free_port()
    with (folder / "log").open("wb") as sink:
        process = subprocess.Popen(command(name, kind, folder, port), cwd=folder, env=environment(), stdout=sink, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}/", process)
    try:
        wait(server, folder / "log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(server: Server, log: Path) -> None:
    """Until it answers."""
    opener, deadline = build_opener(ProxyHandler({})), time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            return opener.open(f"{server.url}voila/static/voila.js", timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{server.url} does not answer\n{log.read_text()}")


@contextmanager
def visit(browser, server: Server) -> Iterator:
    """A page in a browser that has never seen it; closing it is what a person's closing is."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    try:
        context.add_init_script(SCRIPT)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(server.url, wait_until="commit")
        yield page
        with page.expect_event("close"):
            page.close(run_before_unload=True)
    finally:
        context.close()


def opened(browser, server: Server, name: str) -> dict[str, float]:
    """The times of one visit, in milliseconds since its navigation began."""
    with visit(browser, server) as page:
        page.wait_for_function("window.times.predicted" if name == OURS else "window.times.shown")
        return {"paint": page.evaluate("window.painted()"), **page.evaluate("window.times")}


def updates(browser, server: Server, *, times: int) -> list[dict[str, float]]:
    """Milliseconds from a key to the new number, and to the last of what changes with it; 40 of them the page waits for another key."""
    with visit(browser, server) as page:
        page.wait_for_function("window.times.predicted")
        page.wait_for_timeout(500)
        return [page.evaluate("turn => window.update(turn)", turn) for turn in range(times + 3)][3:]


def come_and_go(browser, server: Server, *, sessions: int, kernels: int) -> dict[str, float]:
    """Memory of the server and its kernels before and after visitors, one after another, each of whom sees a prediction."""
    for _ in range(2):  # what is loaded once, on the first visit
        opened(browser, server, OURS)
        server.settle(kernels=kernels)
    before, began = server.memory(), time.monotonic()
    for at in range(sessions):
        opened(browser, server, OURS)
        if at % 10 == 9:
            say(f"  {at + 1} visitors")
    seconds = time.monotonic() - began
    server.settle(kernels=kernels)
    after = server.memory()
    grown = sum(after.values()) - sum(before.values())
    facts = {"sessions": sessions, "seconds_each": seconds / sessions, "processes": len(server.family())}
    return facts | {"before": before, "after": after, "grown_mb": grown}


def measure(*, turns: int, changes: int, sessions: int) -> dict:
    """Everything, as plain results."""
    from playwright.sync_api import sync_playwright

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="studperf-bench-")))
        say("starting four servers ...")
        servers = {side: stack.enter_context(running(*side, folder / str(at))) for at, side in enumerate(SIDES)}
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        stack.callback(browser.close)
        taken: dict[tuple[str, str], list[dict]] = {side: [] for side in SIDES}
        for turn in range(turns + 1):  # the first one warms the disk's cache and does not count
            for side in SIDES:
                servers[side].settle(kernels=int(side[1] == "warm") if side[0] == OURS else None)  # the hello-world's kernels stay
                found = opened(browser, servers[side], side[0])
                taken[side] += [found] if turn else []
            say(f"turn {turn} of {turns}")
        say("changing a field ...")
        servers[OURS, "warm"].settle(kernels=1)
        updated = updates(browser, servers[OURS, "warm"], times=changes)
        say("visitors come and go ...")
        memory = come_and_go(browser, servers[OURS, "warm"], sessions=sessions, kernels=1)
    medians = {side: {key: median(one[key] for one in visits) for key in visits[0]} for side, visits in taken.items()}
    sides = [{"name": name, "kind": kind} | found for (name, kind), found in medians.items()]
    update = {"changes": changes}
    for key in ("number", "whole"):
        taken_ms = [one[key] for one in updated]
        update[key] = {"median_ms": median(taken_ms), "p95_ms": quantiles(taken_ms, n=20)[-1]}
    return {"turns": turns, "cpus": os.cpu_count(), "sides": sides, "update": update, "memory": memory, "verdict": verdict(sides, update, memory)}


def verdict(sides: Sequence[Mapping], update: Mapping, memory: Mapping) -> dict:
    """Each figure that has an aim, and whether the aim is met."""
    hello, ours = (next(one for one in sides if (one["name"], one["kind"]) == (name, "warm")) for name in (HELLO, OURS))
    figures = {"over_hello_ms": ours["predicted"] - hello["shown"], "update_p95_ms": update["whole"]["p95_ms"], "grown_mb": memory["grown_mb"]}
    return {name: {"value": value, "aim": AIMS[name], "met": value <= AIMS[name]} for name, value in figures.items()}


WORDS = {"over_hello_ms": "warm: our first prediction, ms after the hello is shown", "update_p95_ms": "95 of 100 changes wholly shown within, ms",
         "grown_mb": "memory after all visitors, MB more than before"}  # fmt: skip


def words_mb(memory: Mapping[str, float]) -> str:
    """Memory of server and kernels."""
    return f"{memory['server_mb']:.0f} + {memory['kernels_mb']:.0f} MB"


def report(result: Mapping) -> str:
    """The results as tables, the last line the verdict."""
    keys = ("paint", "shown", "predicted")
    rows = [[f"{one['name']}, {one['kind']}", *(f"{one[key]:,.0f}" if key in one else "" for key in keys)] for one in result["sides"]]
    table = as_table(["ms since the navigation began", "first paint", "page shown", "first prediction"], rows)
    update, memory = result["update"], result["memory"]
    words = "; ".join(f"{name} after {update[key]['median_ms']:.0f} ms (median), {update[key]['p95_ms']:.0f} ms (95 %)"
                      for key, name in (("number", "the number"), ("whole", "all that changes with it")))  # fmt: skip
    lines = [f"a field changes, {update['changes']} times: {words}",
             f"{memory['sessions']} visitors, {memory['seconds_each']:.1f} s each: server and kernels had {words_mb(memory['before'])} before "
             f"and {words_mb(memory['after'])} after, in {memory['processes']} processes"]  # fmt: skip
    aims = [[WORDS[name], f"{v['value']:,.0f}", f"<= {v['aim']:,g}", "yes" if v["met"] else "NO"] for name, v in result["verdict"].items()]
    missed = [WORDS[name] for name, v in result["verdict"].items() if not v["met"]]
    return "\n".join([table, "", *lines, "", as_table(["aims", "measured", "aim", "met"], aims), "",
                      "aim missed: " + "; ".join(missed) if missed else "aims met"])  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="visits of each side; the median counts (default: 5)")
    parser.add_argument("--changes", type=int, default=30, help="of a field (default: 30)")
    parser.add_argument("--sessions", type=int, default=20, help="visitors who come and go; the aim is about 100 (default: 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    args = parser.parse_args()
    missing = [name for name in ("playwright", "voila", "anywidget") if find_spec(name) is None]
    missing += [] if Path(CHROMIUM).exists() else ["Debian's chromium"]
    if missing:
        parser.error(f"not installed: {', '.join(missing)}")  # ends with code 2
    if min(args.turns, args.sessions) < 1 or args.changes < 2:
        parser.error("--turns and --sessions must be at least 1, --changes at least 2")
    result = measure(turns=args.turns, changes=args.changes, sessions=args.sessions)
    print(json.dumps(result, indent=1) if args.json else report(result))


if __name__ == "__main__":
    main()

"""A client that test_service_load.py runs beside the service, in a process of its own: many connections, one request at a time on each.

Closed loop: each connection asks again as soon as it is answered. Open loop: requests leave at their times, whether or not others are
answered; with "fresh", each on a connection of its own. Every answer is compared with what it must be: its model is one of those that may
answer, and its numbers are that model's. Configuration: one JSON file. The client says "started" on standard output, works until its time
is over or its standard input ends, and then writes one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from contextlib import suppress
from itertools import count

import uvloop

ID = re.compile(rb'"id":"([0-9a-f]{32})"')
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


class Tally:
    """What became of the requests."""

    def __init__(self, expected: list[list[dict]], keep: bool):
        self.expected, self.keep, self.known = expected, keep, {}  # known: right answers without their identifiers, decoded before
        self.sent, self.starved = 0, 0  # starved: due, but every connection was busy
        self.right, self.refused = [], []  # seconds from request to answer
        self.wrong, self.lost, self.cut = [], 0, 0  # lost: closed without a byte of an answer; cut: with a part of it
        self.wrong_number, self.models, self.answers = 0, {}, []  # models: right answers by version

    def judge(self, number: int, started: float, head: bytes, body: bytes) -> None:
        """Sort one whole answer in."""
        now = time.monotonic()
        model = self.model_of(number, body) if head.startswith(b"HTTP/1.1 200") else None
        if model is not None:
            self.right.append(now - started)
            self.models[model] = self.models.get(model, 0) + 1
            if self.keep:
                self.answers.append((now, number, model, [one.decode() for one in ID.findall(body)]))
        elif is_refusal(head, body):
            self.refused.append(now - started)
        else:
            self.wrong_number += 1
            self.wrong = self.wrong or [head.decode(), body[:2000].decode()]

    def model_of(self, number: int, body: bytes) -> str | None:
        """The version that gave this answer, if the answer is right."""
        plain = (number, ID.sub(b"", body))
        if plain not in self.known:
            self.known[plain] = read_answer(body) if read_answer(body) in self.expected[number] else None
        answer = self.known[plain]
        return answer["model"] if answer else None

    def unanswered(self) -> int:
        """Requests of which nothing is known yet."""
        return self.sent - len(self.right) - len(self.refused) - self.wrong_number - self.lost - self.cut

    def result(self, seconds: float) -> dict:
        """Everything, as JSON."""
        counts = {name: getattr(self, name) for name in ("sent", "starved", "lost", "cut", "wrong_number", "wrong", "models", "answers")}
        counts |= {"unanswered": self.unanswered(), "seconds": seconds}
        return counts | {
            "right": len(self.right),
            "refused": len(self.refused),
            "right_ms": quantiles(self.right),
            "refused_ms": quantiles(self.refused),
        }


def read_answer(body: bytes) -> dict:
    """The model of an answer, and its numbers."""
    answer = json.loads(body)
    rows = answer.get("predictions", [answer])
    return {"model": answer["model"], "rows": [[row["prediction"], row["lower"], row["upper"]] for row in rows]}


def is_refusal(head: bytes, body: bytes) -> bool:
    """503, said in full."""
    lower = head.lower()
    said = b"\r\nretry-after: " in lower and b"\r\ncontent-type: application/problem+json" in lower
    return lower.startswith(b"http/1.1 503") and said and json.loads(body)["status"] == 503


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(seconds) or [0.0]
    return {f"p{share}": 1000 * ordered[min(len(ordered) * share // 100, len(ordered) - 1)] for share in (50, 95, 99, 100)}


class Connection(asyncio.Protocol):
    """One connection of the client."""

    def __init__(self, load: Load):
        self.load, self.waiting, self.buffer, self.unused = load, None, b"", True

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.load.free(self)

    def ask(self) -> None:
        """Send the next request."""
        load, self.unused = self.load, False
        self.waiting = (next(load.numbers) % len(load.requests), time.monotonic())
        load.tally.sent += 1
        self.transport.write(load.requests[self.waiting[0]])

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, gap, body = self.buffer.partition(b"\r\n\r\n")
        if not gap:
            return
        length = int(LENGTH.search(head + b"\r\n")[1])
        if len(body) < length:
            return
        number, started = self.waiting
        self.waiting, self.buffer = None, b""
        self.load.tally.judge(number, started, head + b"\r\n", body)
        if b"\r\nconnection: close" not in head.lower():
            self.load.free(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self.waiting is not None:
            if self.buffer:
                self.load.tally.cut += 1
            else:
                self.load.tally.lost += 1
        self.load.gone(self)


class Load:
    """All connections, and when they ask."""

    def __init__(self, config: dict):
        self.config, self.tally = config, Tally(config["expected"], config["keep"])
        head = "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        self.requests = [head.format(path=config["path"], length=len(body.encode())).encode() + body.encode() for body in config["bodies"]]
        self.numbers, self.idle, self.over, self.broken_off = count(), [], False, asyncio.Event()

    async def open(self) -> None:
        """One more connection."""
        try:
            await asyncio.get_running_loop().create_connection(lambda: Connection(self), "127.0.0.1", self.config["port"])
        except OSError:
            self.broken_off.set()  # nobody listens any more

    def free(self, connection: Connection) -> None:
        """A connection has nothing to do."""
        if self.config["fresh"]:
            connection.ask() if connection.unused else connection.transport.close()
        elif self.config["rate"] or self.over:
            self.idle.append(connection)
        else:
            connection.ask()

    def gone(self, connection: Connection) -> None:
        """A connection is closed: another one takes its place."""
        if connection in self.idle:
            self.idle.remove(connection)
        if not (self.over or self.config["fresh"]):
            asyncio.get_running_loop().create_task(self.open())

    async def pace(self, stop: asyncio.Event) -> None:
        """Send what is due, every millisecond."""
        began, due, tasks = time.monotonic(), 0, set()
        while not stop.is_set():
            await asyncio.sleep(0.001)
            now_due = int((time.monotonic() - began) * self.config["rate"])
            for _ in range(now_due - due):
                if self.config["fresh"]:
                    tasks.add(task := asyncio.create_task(self.open()))
                    task.add_done_callback(tasks.discard)
                elif self.idle:
                    self.idle.pop().ask()
                else:
                    self.tally.starved += 1
            due = now_due

    async def run(self) -> dict:
        """Ask until it is time to stop; answers that are due may take five seconds more."""
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        threading.Thread(target=wait_for_end, args=(loop, stop), daemon=True).start()
        loop.call_later(self.config["seconds"], stop.set)
        for _ in range(0 if self.config["fresh"] else self.config["connections"]):
            await self.open()
        print("started", flush=True)
        began = time.monotonic()
        tasks = [loop.create_task(work) for work in (stop.wait(), self.broken_off.wait(), *([self.pace(stop)] if self.config["rate"] else []))]
        await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        seconds, self.over = time.monotonic() - began, True
        for _ in range(500):
            if not self.tally.unanswered():
                break
            await asyncio.sleep(0.01)
        return self.tally.result(seconds)


def wait_for_end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when standard input ends."""
    sys.stdin.read()
    with suppress(RuntimeError):  # the loop has ended by itself
        loop.call_soon_threadsafe(stop.set)


async def main() -> dict:
    """Read the configuration and work."""
    with open(sys.argv[1], encoding="utf-8") as file:
        return await Load(json.load(file)).run()


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main())), flush=True)

"""A running service for the tests: `studperf serve` in a process of its own, on a port that was free, until the end of a `with`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from conftest import clean_environment

PATIENCE = 60  # seconds to be ready, and to end
DIRECT = build_opener(ProxyHandler({}))  # whatever proxy the machine has


@dataclass(frozen=True)
class Server:
    """A service that runs."""

    url: str  # without a slash at its end
    process: subprocess.Popen
    folder: Path  # in which it runs
    output: Path  # all that it writes

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self.url.rpartition(":")[2])

    def log(self) -> str:
        """All that it has written so far, to standard output and error."""
        return self.output.read_text(errors="replace")

    def stop(self) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def served(
    *arguments: object,  # of `studperf serve`
    folder: Path | None = None,  # in which it runs; None: a new one, gone afterwards
    **environment: object,  # STUDPERF_RATE=5
) -> Iterator[Server]:
    """`studperf serve`, ready; ends it with SIGTERM, and fails when it does not end well."""
    with tempfile.TemporaryDirectory() as own:
        server = _start(Path(folder or own), arguments, environment)
        try:
            yield server
            if server.process.poll() is None:
                code = server.stop()
                assert code == 0, f"the service ended with {code}\n{server.log()}"
        finally:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()


def _start(folder: Path, arguments: tuple, environment: dict[str, object]) -> Server:
    variables = {name: value for name, value in clean_environment().items() if name not in ("HOST", "PORT", "LOG_LEVEL")}
    variables |= {name: str(value) for name, value in environment.items()}
    command = [sys.executable, "-m", "studperf", "serve", *([] if "--port" in arguments else ["--port", "0"]), *map(str, arguments)]
    output = folder / "serve.log"
    with output.open("wb") as sink:
        process = subprocess.Popen(command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT)
    try:
        return _wait(process, folder, output)
    except BaseException:
        process.kill()
        process.wait()
        raise


def _wait(process: subprocess.Popen, folder: Path, output: Path) -> Server:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://[^\s\"/]+:([0-9]+)(?=[\s\"/])", output.read_text(errors="replace"))
        if found and _is_ready(url := f"http://127.0.0.1:{found[1]}"):
            return Server(url, process, folder, output)
        time.sleep(0.02)
    raise AssertionError(f"the service is not ready (exit code {process.poll()})\n{output.read_text(errors='replace')}")


def _is_ready(url: str) -> bool:
    try:
        with DIRECT.open(f"{url}/readyz", timeout=5) as answer:
            return json.load(answer)["status"] == "ready"
    except HTTPError as error:
        return error.code == 421  # it listens, under another name
    except OSError:
        return False

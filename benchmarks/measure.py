"""What a command costs: one child process, its CPU and wall seconds, all threads counted; and how it is said."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What one child process spent, and what it said."""

    cpu_seconds: float  # user and system time of all its threads, from the start of its interpreter to its end
    wall_seconds: float
    output: str  # its standard output


def environment() -> dict[str, str]:
    """The environment variables without those that point studperf to another model."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STUDPERF_")}


def run(
    command: Sequence[str],
    *,
    folder: str | Path,  # where it runs: an empty one, so that no ./artifacts is picked up
) -> Cost:
    """Run a command to its end; its standard error passes through; `CalledProcessError` when it fails."""
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True) as child:
        output = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - start, output)


def say(words: str) -> None:
    """Progress, on standard error."""
    print(words, file=sys.stderr, flush=True)


def as_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> str:
    """Rows as text in columns: the first to the left, the others to the right."""
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
             for row in (header, ["-" * width for width in widths], *rows)]  # fmt: skip
    return "\n".join("  ".join(line).rstrip() for line in lines)


def side_parser(description: str) -> argparse.ArgumentParser:
    """What each of the two sides of train.py is given."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("table", type=Path, help="CSV to learn from")
    parser.add_argument("fresh", type=Path, help="CSV to predict: the same columns without the target")
    parser.add_argument("predictions", type=Path, help="where the predictions go (.npy)")
    parser.add_argument("--target", required=True, help="the column to be predicted")
    return parser


def main(
    description: str,  # of the program; its first line is shown
    measure: Callable[..., dict],  # from a table's name, and whether the grid runs as published, to plain results
    report: Callable[[dict], str],  # results as text
) -> None:
    """The command line of a program that stands beside the public grid: measure and print."""
    import studperf

    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", default="exams", help="a table of exams: name, path or address (default: the sample)")
    parser.add_argument("--as-published", action="store_true", help="let the grid's libraries choose their threads")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    args = parser.parse_args()
    try:
        result = measure(args.data, as_published=args.as_published)
    except studperf.InputError as error:
        parser.error(str(error))
    print(json.dumps(result, indent=1) if args.json else report(result))

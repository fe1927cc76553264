"""The price of starting: CPU time of `import studperf`, of `studperf --help` and of a first predict in a new process.

The commands take turns, and each figure is the median over the turns, so that a busy machine is equally busy for all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from measure import as_table, environment, run, say

BARE = "bare interpreter"
HEAVY = ("numpy", "pandas", "pyarrow", "scipy", "sklearn", "skops", "xgboost", "catboost", "matplotlib")


@dataclass(frozen=True)
class Start:
    """One way to start Python, and how much CPU time it may take."""

    name: str
    arguments: tuple[str, ...]  # of the interpreter
    most_ms: float | None = None  # the aim in milliseconds
    above_bare: bool = False  # is the aim for what comes on top of the bare interpreter?


@dataclass(frozen=True)
class Measured:
    """What a start took: medians over the turns."""

    name: str
    cpu_ms: float
    above_bare_ms: float  # of the paired differences
    ratio_to_bare: float
    loads: list[str]  # which of the heavy packages it imported
    aim: str
    aim_met: bool | None  # None: no aim


def first_student() -> dict:
    """One student to predict: the first of the shipped sample."""
    code = "import json, studperf; print(studperf.load('exams').head(1).to_json(orient='records'))"
    return json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))[0]


def starts(student: dict) -> list[Start]:
    """What is measured, the baseline first."""
    return [
        Start(BARE, ("-c", "pass")),
        Start("import studperf", ("-c", "import studperf"), 50, above_bare=True),
        Start("studperf --help", ("-m", "studperf", "--help"), 300),
        Start("first predict, one dict", ("-c", f"import studperf; studperf.predict({student!r})")),
        Start("import numpy", ("-c", "import numpy")),
        Start("import pandas", ("-c", "import pandas")),
        Start("import pandas, sklearn", ("-c", "import pandas, sklearn")),
    ]


def cpu_ms(start: Start, folder: Path) -> float:
    """CPU milliseconds of one start in a new process."""
    return 1000 * run([sys.executable, *start.arguments], folder=folder).cpu_seconds


def loaded(start: Start, folder: Path) -> list[str]:
    """The heavy packages that a start imports, as the interpreter itself reports them."""
    command = [sys.executable, "-X", "importtime", *start.arguments]
    said = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True).stderr
    names = {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}
    return [name for name in HEAVY if name in names]


def take_turns(commands: Sequence[Start], repeat: int, folder: Path) -> list[list[float]]:
    """CPU milliseconds: per command, one figure for each turn; a first turn that fills caches is not counted."""
    turns = []
    for turn in range(repeat + 1):
        say(f"turn {turn} of {repeat}" if turn else "warming up")
        turns.append([cpu_ms(start, folder) for start in commands])
    return [list(column) for column in zip(*turns[1:], strict=True)]


def judge(start: Start, spent: list[float], bare: list[float], loads: list[str]) -> Measured:
    """Medians, and whether the aim is met."""
    above = median(one - base for one, base in zip(spent, bare, strict=True))
    figure = above if start.above_bare else median(spent)
    aim = "" if start.most_ms is None else f"<= {'bare + ' if start.above_bare else ''}{start.most_ms:.0f} ms"
    met = None if start.most_ms is None else figure <= start.most_ms
    return Measured(start.name, median(spent), above, median(spent) / median(bare), loads, aim, met)


def measure(repeat: int) -> list[Measured]:
    """Every start, in an empty folder, so that the shipped model is the one that predicts."""
    commands = starts(first_student())
    with tempfile.TemporaryDirectory(prefix="studperf-bench-") as name:
        folder = Path(name)
        spent = take_turns(commands, repeat, folder)
        return [judge(start, ms, spent[0], loaded(start, folder)) for start, ms in zip(commands, spent, strict=True)]


def report(results: Sequence[Measured]) -> str:
    """The results as a table, the last line the verdict."""
    header = ["", "CPU ms", "above bare", "ratio to bare", "aim", "met", "heavy packages it loads"]
    words = {None: "", True: "yes", False: "NO"}
    rows = [[m.name, f"{m.cpu_ms:.0f}", f"{m.above_bare_ms:+.0f}", f"{m.ratio_to_bare:.1f}", m.aim, words[m.aim_met],
             " ".join(m.loads) or "-"] for m in results]  # fmt: skip
    missed = [m.name for m in results if m.aim_met is False]
    return f"{as_table(header, rows)}\n\n{'aim missed: ' + ', '.join(missed) if missed else 'aims met'}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9, help="turns; the median counts (default: 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    args = parser.parse_args()
    if args.repeat < 1:
        parser.error("--repeat must be at least 1")
    results = measure(args.repeat)
    plain = {"repeat": args.repeat, "cpus": os.cpu_count(), "starts": [asdict(result) for result in results]}
    print(json.dumps(plain, indent=1) if args.json else report(results))


if __name__ == "__main__":
    main()

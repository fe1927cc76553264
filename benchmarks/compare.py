"""The price of honesty: the public grid beside the whole honest comparison, on the same 1,000 students.

The grid tunes seven families once and chooses on the test rows. The comparison tunes every family of the registry
inside each of ten outer folds, and adds the learning curve, the ceiling and the self-checks. Each side is a process
of its own; all its workers are counted.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from measure import as_table, main, run, say
from train import HERE, seconds, write_tables

from studperf.datasets import exam_schema

CPU_RATIO, WALL_SECONDS, QUICK_SECONDS = 4.0, 120.0, 15.0  # the aims


def run_side(name: str, command: list[str], folder: Path) -> dict:
    """One side in a fresh interpreter: what it cost and what it said."""
    say(f"\n{name}")
    cost = run([sys.executable, *command], folder=folder)
    return {**json.loads(cost.output), **seconds(cost)}


def measure(data: str, *, as_published: bool) -> dict:
    """The grid, the full comparison and the quick one."""
    target = ["--target", exam_schema().target.name]
    with tempfile.TemporaryDirectory(prefix="studperf-bench-") as name:
        folder = Path(name)
        write_tables(data, folder)
        grid = [str(HERE / "public_grid.py"), "table.csv", "fresh.csv", "grid.npy", *target, *["--as-published"] * as_published]
        ours = [str(HERE / "our_compare.py"), "table.csv", *target]
        sides = {"grid": run_side("public grid", grid, folder), "full": run_side("studperf compare", ours, folder),
                 "quick": run_side("studperf compare --quick", [*ours, "--quick"], folder)}  # fmt: skip
    ratio = sides["full"]["cpu_seconds"] / sides["grid"]["cpu_seconds"]
    met = ratio <= CPU_RATIO and sides["full"]["wall_seconds"] < WALL_SECONDS and sides["quick"]["wall_seconds"] < QUICK_SECONDS
    return {"data": data, "grid_threads": "as published" if as_published else "one", **sides, "cpu_ratio": ratio, "aim_met": met}


def report(result: dict) -> str:
    """The result as a table, the last line the verdict."""
    names = {"grid": f"public grid, {result['grid']['fits']} fits", "full": "studperf compare", "quick": "studperf compare --quick"}
    header = ["", "CPU s", "wall s", "CPU, ratio to the grid", "chosen"]
    grid = result["grid"]["cpu_seconds"]
    rows = [[label, f"{s['cpu_seconds']:.1f}", f"{s['wall_seconds']:.1f}", f"{s['cpu_seconds'] / grid:.2f}", s["chosen"]]
            for label, s in ((label, result[name]) for name, label in names.items())]  # fmt: skip
    full, r2 = result["full"], result["full"]["r2"]
    what = f"{full['families']} families, {full['outer_fits']} outer fits, R2 {r2['value']:.3f} ({r2['low']:.3f} to {r2['high']:.3f})"
    aims = f"full {full['wall_seconds']:.0f} s (aim < {WALL_SECONDS:g}), quick {result['quick']['wall_seconds']:.1f} s (aim < {QUICK_SECONDS:g})"
    return (
        f"data: {result['data']}; threads of the grid: {result['grid_threads']}\n\n{as_table(header, rows)}\n\nfull: {what}\n"
        f"aim {'met' if result['aim_met'] else 'missed'}: CPU ratio {result['cpu_ratio']:.2f} (aim <= {CPU_RATIO:g}), {aims}"
    )


if __name__ == "__main__":
    main(__doc__, measure, report)

"""`studperf compare` on one table, called as a user would call it: all families, nested and tuned, or --quick."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from studperf.comparison import Work, compare


def main() -> None:
    """Compare on one CSV file and print what it came to as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    found = compare(args.table, target=args.target, quick=args.quick, work=Work(n_jobs=-1, progress=False))
    print(
        json.dumps(
            {"chosen": found.chosen.family.label, "r2": found.chosen.r2.to_dict(), "families": len(found.entries), "outer_fits": len(found.folds)}
        )
    )


if __name__ == "__main__":
    main()

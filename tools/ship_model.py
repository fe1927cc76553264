"""Train the model that ships with the package, on the bundled sample: `make model`."""

import shutil
import sys
import tempfile
from pathlib import Path

from studperf.artifact import read_verified
from studperf.datasets import load, simulate
from studperf.schema import write_table
from studperf.training import train

DATA = Path(__file__).parent.parent / "studperf" / "data"


def main() -> int:
    write_table(simulate(1000, seed=0), DATA / "exams.csv")
    with tempfile.TemporaryDirectory() as home:
        trained = train(load("exams"), out=home)
        files = read_verified(trained.bundle.path)
    shutil.rmtree(DATA / "production", ignore_errors=True)
    (DATA / "production").mkdir()
    for name, content in files.items():
        (DATA / "production" / name).write_bytes(content)
    print(f"{trained.comparison.reason}\nversion {trained.bundle.version}, {sum(map(len, files.values())):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make what ships with the package: the sample, the class list, and the model trained on the sample (`make model`)."""

import shutil
import sys
import tempfile
from pathlib import Path

from studperf.artifact import read_verified
from studperf.datasets import exam_schema, load, simulate
from studperf.schema import write_table
from studperf.training import train

DATA = Path(__file__).parent.parent / "studperf" / "data"


def main() -> int:
    write_table(simulate(1000, seed=0), DATA / "exams.csv")
    write_table(simulate(24, seed=1).drop(columns=exam_schema().target.name), DATA / "class.csv")
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

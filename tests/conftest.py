"""What the tests share: two sizes, the command line, small trained bundles, the real data, and a place far from the developer's models.

`STUDPERF_PROVE=1` gives the long form of every campaign (`make prove`); without it each has a form that a commit can wait for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPO = Path(__file__).resolve().parent.parent
PROVE = os.environ.get("STUDPERF_PROVE") == "1"


def size(
    ci: int,  # on every commit
    prove: int,  # with STUDPERF_PROVE=1
) -> int:
    """How large a campaign is."""
    return prove if PROVE else ci


settings.register_profile(
    "studperf",
    max_examples=size(50, 1000),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
settings.load_profile("studperf")


def clean_environment() -> dict[str, str]:
    """The environment without what would point to another model; studperf is found from any folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STUDPERF_")}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> Path:
    """Every test runs in an empty folder: no ./artifacts and no $STUDPERF_MODEL of the developer is picked up."""
    for name in [name for name in os.environ if name.startswith("STUDPERF_") and name not in ("STUDPERF_PROVE", "STUDPERF_REAL_DATA")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """Standard output as the one JSON object that it must be."""
        plain = json.loads(self.out)
        assert isinstance(plain, dict), self.out[:200]
        return plain


@pytest.fixture
def cli(tmp_path) -> Callable[..., Answer]:
    """The command line in a process of its own: cli("predict", path, stdin=b"...", cwd=folder)."""

    def run(*args: object, stdin: bytes | None = None, cwd: Path | None = None) -> Answer:
        command = [sys.executable, "-m", "studperf", *map(str, args)]
        done = subprocess.run(command, input=stdin or b"", capture_output=True, cwd=cwd or tmp_path, env=clean_environment(), timeout=300)
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def command(capsys) -> Callable[..., Answer]:
    """The command line inside this process, for the many cases that need no process of their own."""
    from studperf.cli import main

    def run(*args: object) -> Answer:
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:  # argparse leaves so
            code = stop.code
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a small bundle of a family, trained once: bundles("linear")."""
    from studperf import simulate, train

    @cache
    def trained(family: str) -> Path:
        out = tmp_path_factory.mktemp(f"bundle-{family}")
        result = train(simulate(200, seed=1), families=[family], seed=1, out=out)
        assert result.bundle.manifest["family"] == family
        return out / "production"

    return trained


@pytest.fixture(scope="session")
def linear(bundles) -> Path:
    """The folder of a small linear bundle."""
    return bundles("linear")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the public files that are not copied into the project; CI must have it, elsewhere tests skip."""
    folder = Path(os.environ.get("STUDPERF_REAL_DATA") or REPO.parent / "shared" / "data")
    if not (folder / "exams" / "stud.csv").exists():
        message = "the public files are not here: set STUDPERF_REAL_DATA to the folder that holds exams/ and uci/"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return folder.resolve()

"""What test_kill.py starts and kills. It runs in forks of a process that has imported this module, so that a kill costs milliseconds."""

from __future__ import annotations

from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import sklearn.compose  # noqa: F401
import sklearn.ensemble  # noqa: F401
import sklearn.model_selection  # noqa: F401
import skops.io  # noqa: F401  training needs it and the libraries below; here they are imported once, before the forks

from studperf import predict, simulate, train
from studperf.artifact import Packed, load_bundle, publish

STUDENT = simulate(1, seed=9).drop(columns="math_score").to_dict("records")


def packed(folder: Path) -> Packed:
    """A bundle that stands on disk, as `pack` made it."""
    return Packed({path.name: path.read_bytes() for path in folder.iterdir()}, "additive")


def train_once(seed: int, home: Path) -> str:
    """A small training; its version depends on the seed alone."""
    return train(simulate(200, seed=seed), families=["linear"], seed=seed, out=home).bundle.version


def keep_publishing(folders: list[Path], home: Path, started: Connection) -> None:
    """Publish bundles in turn until killed."""
    bundles = [packed(folder) for folder in folders]
    started.send("started")
    for bundle in cycle(bundles):
        publish(bundle, home)


def keep_training(seeds: list[int], home: Path, started: Connection) -> None:
    """Train on simulated classes in turn until killed."""
    started.send("started")
    for seed in cycle(seeds):
        train_once(seed, home)


def keep_reading(home: Path, stop: Event, report: Connection) -> None:
    """Load and use the production bundle until told to stop; what was seen and what went wrong goes to `report`."""
    loads, seen, errors = 0, set(), []
    report.send("started")
    while not stop.is_set():
        try:
            bundle = load_bundle(home / "production")
            answer = predict(STUDENT, model=home)
            seen |= {(bundle.version, float(predict(STUDENT, model=bundle)["prediction"].iloc[0]))}
            seen |= {(answer.attrs["model"], float(answer["prediction"].iloc[0]))}
            loads += 1
        except Exception as error:  # of any kind: the test prints it
            errors.append(f"{type(error).__name__}: {error}")
    report.send((loads, seen, errors))

"""Killed at any moment, training and publishing leave the old bundle or the new one; a reader never meets anything else."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import publishers
import pytest
from conftest import REPO, clean_environment, size

from studperf import load_model, predict
from studperf.artifact import load_bundle, publish


@pytest.fixture(scope="module")
def nursery():
    """Where processes are forked from: it has imported what they need."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPO), str(Path(__file__).parent)])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "publishers"])
    yield context
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> dict[str, Path]:
    """Three bundles by version; the seeds are 1, 2 and 3."""
    homes = {seed: tmp_path_factory.mktemp(f"seed-{seed}") for seed in (1, 2, 3)}
    return {publishers.train_once(seed, home): home / "production" for seed, home in homes.items()}


def start(nursery, target, *arguments) -> tuple:
    """A running process that has said so, and our end of its pipe."""
    ours, theirs = nursery.Pipe()
    process = nursery.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    assert ours.poll(120), "the process did not start"
    assert ours.recv() == "started"
    return process, ours


def litter(home: Path) -> list[str]:
    """What nobody reads: half-written versions and links."""
    kept = {link.resolve().name for link in (home / "production", home / "previous") if link.is_symlink()}
    folders = [path.name for path in (home / "versions").iterdir() if path.name not in kept] if (home / "versions").exists() else []
    return folders + [path.name for path in home.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def check(home: Path, known: dict[str, Path], *, may_be_absent: bool) -> str:
    """What a kill left: each link is one of the known bundles, whole. What production is."""
    for name in ("previous", "production"):
        if (home / name).is_symlink():
            assert load_bundle(home / name).version in known
        else:
            assert not (home / name).exists()
            assert may_be_absent or name == "previous", "production was there before"
    return load_bundle(home / "production").version if (home / "production").exists() else "none"


def kill_often(nursery, target, arguments, rounds: int, longest: float, versions: dict[str, Path], tmp_path: Path) -> None:
    """Start, kill after a random time, check; then publish, check that nothing is left over."""
    draw, seen = random.Random(0), Counter()
    old, new = list(versions)[:2]
    home = tmp_path / "home-0"
    publish(publishers.packed(versions[old]), home)
    for turn in range(rounds):
        fresh = turn % 5 == 4
        home = tmp_path / f"home-{turn}" if fresh else home
        process, pipe = start(nursery, target, arguments, home)
        time.sleep(draw.uniform(0, longest))
        process.kill()
        process.join()
        pipe.close()
        assert process.exitcode == -signal.SIGKILL, "it was still at work"
        seen["with litter" if home.exists() and litter(home) else "clean"] += 1
        seen[check(home, {old: versions[old], new: versions[new]}, may_be_absent=fresh)] += 1
        following = (old, new)[turn % 2]
        publish(publishers.packed(versions[following]), home)
        assert load_bundle(home / "production").version == following
        check(home, versions, may_be_absent=False)
        assert litter(home) == []
    print(f"{rounds} kills of {target.__name__}: {dict(seen)}")
    assert rounds < 20 or target is not publishers.keep_publishing or (seen["with litter"] and seen[old] and seen[new]), "the kills missed the work"


def test_killing_a_publisher(nursery, versions, tmp_path):
    folders = list(versions.values())[:2]
    kill_often(nursery, publishers.keep_publishing, folders, size(25, 400), 0.1, versions, tmp_path)


def test_killing_a_training(nursery, versions, tmp_path):
    kill_often(nursery, publishers.keep_training, [2, 1], size(8, 200), 2.0, versions, tmp_path)


def test_killing_the_command_line(versions, tmp_path, cli):
    old, home, draw, seen = next(iter(versions)), tmp_path / "artifacts", random.Random(1), Counter()
    publish(publishers.packed(versions[old]), home)
    command = [sys.executable, "-m", "studperf", "train", "--families", "linear"]
    clock = time.monotonic()
    assert cli("train", "--families", "linear", "--out", "new").code == 0
    new, whole = load_model("new").version, time.monotonic() - clock
    for _ in range(size(3, 30)):
        process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.3, 1.0) * whole)
        process.kill()
        process.wait()
        seen[check(home, {old: Path(), new: Path()}, may_be_absent=False)] += 1
    assert cli("train", "--families", "linear").code == 0
    assert load_bundle(home / "production").version == new
    assert litter(home) == []
    print(f"{seen.total()} kills of `studperf train`: {dict(seen)}")


@pytest.mark.parametrize("left", [".production.new", ".previous.new"])
def test_a_link_that_a_kill_left_half_made_is_swept(left, versions, tmp_path):
    home, folder = tmp_path / "home", next(iter(versions.values()))
    publish(publishers.packed(folder), home)
    (home / left).symlink_to("versions/gone")
    publish(publishers.packed(folder), home)
    assert litter(home) == []


@pytest.mark.parametrize("turning", [2, 3], ids=["two versions", "three versions"])
def test_a_reader_never_notices_a_swap(turning, nursery, versions, tmp_path):
    home, chosen = tmp_path / "home", dict(list(versions.items())[:turning])
    expected = {(version, float(predict(publishers.STUDENT, model=folder)["prediction"].iloc[0])) for version, folder in chosen.items()}
    bundles = [publishers.packed(folder) for folder in chosen.values()]
    publish(bundles[0], home)
    stop = nursery.Event()
    process, pipe = start(nursery, publishers.keep_reading, home, stop)
    swaps = size(120, 2000)
    for swap in range(swaps):
        publish(bundles[swap % turning], home)
    stop.set()
    assert pipe.poll(60)
    loads, seen, errors = pipe.recv()
    process.join()
    print(f"{turning} versions: {loads:,} loads during {swaps:,} swaps, {len(errors)} errors: {errors[:3]}")
    assert errors == []
    assert loads > 0 and seen <= expected

"""A bundle that is not as it was written is refused before anything in it runs."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import skops.io
from conftest import size
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVR

from studperf import InputError, predict, simulate
from studperf.artifact import BundleError, bundle, load_bundle, load_pipeline
from studperf.artifact.bundle import canonical_json, seal, sha256
from studperf.artifact.compiled import AdditiveModel

KINDS = {"linear": "additive", "random_forest": "trees", "knn": "pipeline"}  # by family: how it is served
EVERY = ["card.html", "card.md", "leaderboard.json", "manifest.json", "manifest.sha256", "pipeline.skops", "reference.parquet", "uncertainty.json"]
FILES = {"linear": sorted([*EVERY, "predictor.json"]), "random_forest": sorted([*EVERY, "trees.npz"]), "knn": EVERY}
ROSTER = simulate(5, seed=8).drop(columns="math_score")


@pytest.fixture
def copy(bundles, tmp_path):
    """A bundle of one's own to damage: copy("linear")."""

    def fresh(family: str) -> Path:
        return Path(shutil.copytree(bundles(family), tmp_path / "bundle"))

    return fresh


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """What of a bundle was run: loaders of pipelines and predictors write their names here."""
    seen: list[str] = []

    def spy(owner, name, function):
        @functools.wraps(function)
        def watched(*args, **kwargs):
            seen.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    spy(bundle, "load_pipeline", load_pipeline)
    spy(skops.io, "loads", skops.io.loads)
    spy(AdditiveModel, "predict", AdditiveModel.predict)
    spy(bundle, "_check_probes", bundle._check_probes)
    return seen


def reseal(folder: Path) -> None:
    """Make the hashes fit again, as someone who means harm would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    others = [path for path in folder.iterdir() if path.name not in ("manifest.json", "manifest.sha256")]
    manifest["files"] = {path.name: sha256(path.read_bytes()) for path in others}
    content = canonical_json(manifest)
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_bytes(seal(content))


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("family", KINDS)
def test_an_undamaged_bundle_loads_and_runs(family, copy, ran):
    folder = copy(family)
    assert sorted(path.name for path in folder.iterdir()) == FILES[family]
    assert load_bundle(folder).manifest["predictor"]["kind"] == KINDS[family]
    assert ran, "the spies see a load"
    ran.clear()
    reseal(folder)
    load_bundle(folder)


# One bit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in FILES.items() for name in names])
def test_one_bit_flipped_in_any_file_is_refused(family, name, copy, ran):
    folder, draw = copy(family), random.Random(f"{family} {name}")
    whole = (folder / name).read_bytes()
    last = 8 * len(whole) - 1
    for bit in [0, last, *(draw.randint(0, last) for _ in range(size(8, 200)))]:
        (folder / name).write_bytes(flipped(whole, bit))
        with pytest.raises(BundleError, match="not as it was written"):
            load_bundle(folder)
    assert ran == []
    (folder / name).write_bytes(whole)
    load_bundle(folder)


@pytest.mark.parametrize("family", KINDS)
def test_a_bit_flipped_after_the_first_prediction_is_refused(family, copy):
    folder = copy(family)
    expected = predict(ROSTER, model=folder)
    for name in FILES[family]:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(flipped(whole, 4 * len(whole)))
        with pytest.raises(BundleError):
            predict(ROSTER, model=folder)
        (folder / name).write_bytes(whole)
        assert predict(ROSTER, model=folder).equals(expected)


def test_a_bit_flipped_behind_an_unchanged_date_is_refused(copy):
    folder = copy("linear")
    predict(ROSTER, model=folder)
    path = folder / "predictor.json"
    before, whole = path.stat(), path.read_bytes()
    path.write_bytes(flipped(whole, 4 * len(whole)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BundleError):
        predict(ROSTER, model=folder)


def test_a_damaged_bundle_is_refused_by_the_command_line(copy, cli, tmp_path):
    folder = copy("linear")
    ROSTER.to_csv(tmp_path / "class.csv", index=False)
    whole = (folder / "card.md").read_bytes()
    (folder / "card.md").write_bytes(flipped(whole, 4 * len(whole)))
    for arguments in (("predict", "class.csv", "--model", folder), ("info", folder)):
        answer = cli(*arguments)
        assert (answer.code, answer.out) == (2, "")
        assert "card.md is not as it was written" in answer.err and "Traceback" not in answer.err
        assert "card.md" in cli(*arguments, "--json").json["error"]


# The folder -----------------------------------------------------------------------------------------------------------


def add(folder: Path, name: str) -> None:
    (folder / f"{name}.txt").write_text("more")


def add_hidden(folder: Path, name: str) -> None:
    (folder / f".{name}").write_text("")


def add_folder(folder: Path, name: str) -> None:
    (folder / f"{name}.d").mkdir()


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def rename(folder: Path, name: str) -> None:
    (folder / name).rename(folder / name.upper())


def link(folder: Path, name: str) -> None:
    target = (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(target)


def pipe(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


def truncate(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def empty(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")


def swap(folder: Path, name: str) -> None:
    other = next(path for path in sorted(folder.iterdir()) if path.name != name)
    here, there = (folder / name).read_bytes(), other.read_bytes()
    (folder / name).write_bytes(there)
    other.write_bytes(here)


@pytest.mark.parametrize("change", [add, add_hidden, add_folder, remove, rename, link, pipe, truncate, empty, swap], ids=lambda f: f.__name__)
@pytest.mark.parametrize("family", KINDS)
def test_a_changed_folder_is_refused(change, family, bundles, ran, tmp_path):
    load_bundle(bundles(family))
    ran.clear()
    for name in FILES[family]:
        folder = Path(shutil.copytree(bundles(family), tmp_path / name / "bundle"))
        change(folder, name)
        with pytest.raises(BundleError):
            load_bundle(folder)
        with pytest.raises(BundleError):
            predict(ROSTER, model=folder)
    assert ran == []


def test_no_folder_and_an_empty_folder_are_refused(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BundleError):
            load_bundle(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError):
        load_bundle(tmp_path / "file")


# Someone who means harm, and makes the hashes fit ------------------------------------------------------------------------


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def skops_with(types: str) -> bytes:
    """A skops file of one type that studperf never writes."""
    foreign = {
        "an estimator": SVR(),
        "a function": FunctionTransformer(os.system),
        "a numpy function": FunctionTransformer(np.fromfile),
        "a partial": FunctionTransformer(functools.partial(os.system, "true")),
        "a hidden one": Pipeline([("a", FunctionTransformer(kw_args={"f": os.system})), ("model", SVR())]),
    }
    return skops.io.dumps(foreign[types])


def schema_zip(schema: object, **members: bytes) -> bytes:
    """A zip with a schema.json, given as text or as plain data, and further members."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", schema if isinstance(schema, str) else json.dumps(schema))
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def object_array(bomb: Bomb) -> bytes:
    """An array file whose one element is pickled."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([bomb], dtype=object), allow_pickle=True)
    return buffer.getvalue()


HEAD = {"protocol": 2, "_skops_version": skops.__version__, "__id__": 0}
ARRAY = HEAD | {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "numpy", "file": "0.npy"}
COMMAND = HEAD | {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}
OLD = HEAD | {"__class__": "function", "__module__": "builtins", "__loader__": "FunctionNode", "protocol": 0,
              "content": {"module_path": "os", "function": "system"}}  # fmt: skip
FOREIGN = ("an estimator", "a function", "a numpy function", "a partial", "a hidden one")
EVIL: dict[str, Callable[[Bomb], bytes]] = {  # what could stand in place of pipeline.skops
    "a pickle": pickle.dumps,
    "a zipped pickle": lambda bomb: schema_zip({}, **{"data.pkl": pickle.dumps(bomb)}),
    "a pickle named as an array": lambda bomb: schema_zip(ARRAY, **{"0.npy": pickle.dumps(bomb)}),
    "an array of objects": lambda bomb: schema_zip(ARRAY, **{"0.npy": object_array(bomb)}),
    "an unknown loader": lambda bomb: schema_zip(COMMAND | {"__loader__": "MethodNode"}),
    "a bare command": lambda bomb: schema_zip(COMMAND),
    "an old protocol": lambda bomb: schema_zip(OLD),
    "a path that climbs": lambda bomb: schema_zip(ARRAY, **{"../../0.npy": b""}),
    "no schema": lambda bomb: schema_zip("", **{"0.npy": b""}),
    "a schema of nothing": lambda bomb: schema_zip("null"),
    "a list": lambda bomb: schema_zip([[]]),
    "a deep schema": lambda bomb: schema_zip("[" * 100_000),
    "words": lambda bomb: b"not a zip at all",
    "nothing": lambda bomb: b"",
    "a cut zip": lambda bomb: skops_with("an estimator")[:-30],
    "a bomb of zeros": lambda bomb: schema_zip(" " * 200_000_000),
    **{f"a skops file with {name}": lambda bomb, name=name: skops_with(name) for name in FOREIGN},
}


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("what", EVIL)
def test_a_foreign_pipeline_is_refused_before_it_runs(what, family, copy, ran, tmp_path):
    folder, mark = copy(family), tmp_path / "the bomb went off"
    (folder / "pipeline.skops").write_bytes(EVIL[what](Bomb(mark)))
    reseal(folder)
    with pytest.raises(BundleError):
        load_bundle(folder)
    assert not mark.exists() and "predict" not in ran and "_check_probes" not in ran
    assert "loads" not in ran


@pytest.mark.parametrize("what", EVIL)
def test_the_loader_of_pipelines_refuses_with_one_kind_of_error(what, ran, tmp_path):
    mark = tmp_path / "the bomb went off"
    with pytest.raises(InputError):
        load_pipeline(EVIL[what](Bomb(mark)))
    assert not mark.exists()
    assert "loads" not in ran


@pytest.mark.parametrize("name", ["extra.pkl", "pipeline.pickle", "run.py"])
def test_a_further_file_is_refused_even_when_the_manifest_lists_it(name, copy, tmp_path):
    folder, mark = copy("linear"), tmp_path / "the bomb went off"
    (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    reseal(folder)
    with pytest.raises(BundleError):
        load_bundle(folder)
    assert not mark.exists()


PREDICTORS = {
    "words": b"base", "nothing": b"", "a list": b"[]", "null": b"null", "no fields": b"{}", "a deep list": b"[" * 100_000,
    "latin-1": b'{"base": "\xe9"}',
    "a field more": {"extra": 1}, "text for a number": {"base": "abc"}, "null for a number": {"base": None}, "not a number": {"base": float("nan")},
    "another base": {"base": 51.5}, "no categories": {"categories": {}}, "short tables": {"categories": {"gender": [1.0]}},
    "an unknown column": {"numbers": {"shoe_size": [1.0, 0.0]}}, "one number": {"numbers": {"reading_score": [1.0]}},
    "numbers that are no pairs": {"numbers": {"reading_score": 5}}, "numbers that are a list": {"numbers": [1]},
    "turned bounds": {"low": 100, "high": 0},
    "a huge number": {"base": 1e308, "numbers": {"reading_score": [1e308, 0]}},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("what", PREDICTORS)
def test_a_predictor_that_is_not_one_is_refused(what, copy):
    folder, change = copy("linear"), PREDICTORS[what]
    path = folder / "predictor.json"
    path.write_bytes(change if isinstance(change, bytes) else json.dumps(json.loads(path.read_bytes()) | change).encode())
    reseal(folder)
    with pytest.raises(BundleError):
        load_bundle(folder)


DOUBTS = {
    "words": b"everyone", "nothing": b"", "a list": b"[]", "null": b"null", "no fields": b"{}", "a deep list": b"[" * 100_000,
    "no errors": {"everyone": {"errors": [], "step": 0}}, "errors in disorder": {"everyone": {"errors": [3.0, 1.0] * 40, "step": 0}},
    "words for errors": {"everyone": {"errors": ["a"] * 40, "step": 0}}, "one wide error for all": {"everyone": {"errors": [0.0] * 40, "step": 0}},
    "infinite errors": {"everyone": {"errors": [float("-inf")] * 40, "step": 0}}, "arms of words": {"arms": ["a", "b"]}, "one arm": {"arms": [{}]},
    "groups of nothing": {"by": "shoe_size", "groups": {}}, "an unknown group": {"by": "gender", "groups": {"dwarf": {}}},
    "no domain of its kind": {"domain": {"rows": 3}}, "a domain of words": {"domain": "wide"},
}  # fmt: skip


@pytest.mark.parametrize("what", DOUBTS)
def test_an_uncertainty_that_makes_no_sense_is_refused(what, copy):
    folder, change = copy("linear"), DOUBTS[what]
    path = folder / "uncertainty.json"
    path.write_bytes(change if isinstance(change, bytes) else json.dumps(json.loads(path.read_bytes()) | change).encode())
    reseal(folder)
    with pytest.raises(BundleError):
        load_bundle(folder)


MANIFESTS = {
    "another kind": {"predictor": {"kind": "pickle"}}, "no kind": {"predictor": {}}, "a later format": {"format": 4}, "no format": {"format": None},
    "no schema": {"schema": {}}, "a list of files": {"files": []}, "no probes": {"probes": {}}, "probes without rows": {"probes": {"rows": []}},
    "other expectations": {"probes": "shifted"}, "bad probes": {"probes": "junk"}, "fewer expectations": {"probes": "fewer"},
    "an endless tolerance": {"probes": "loose"}, "a feature set unknown": {"feature_set": "all"}, "no feature set": {"feature_set": None},
    "the schema of another table": {"schema": {"columns": [{"name": "a"}, {"name": "b", "kind": "target"}]}},
}  # fmt: skip


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_manifest_that_makes_no_sense_is_refused(what, copy):
    folder = copy("linear")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    probes = manifest["probes"]
    named = {
        "shifted": probes | {"expected": [value + 1e-3 for value in probes["expected"]]},
        "junk": probes | {"rows": [row | {"gender": "unheard of"} for row in probes["rows"]]},
        "fewer": probes | {"expected": probes["expected"][:-1]},
        "loose": probes | {"tolerance": 1e9, "expected": [0.0] * len(probes["rows"])},
    }
    change = {key: named.get(value, value) if isinstance(value, str) and key == "probes" else value for key, value in MANIFESTS[what].items()}
    content = canonical_json(manifest | change)
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_bytes(seal(content))
    with pytest.raises(BundleError):
        load_bundle(folder)


@settings(max_examples=size(150, 5000))
@given(place=st.floats(0, 1, exclude_max=True), junk=st.binary(min_size=1, max_size=8), cut=st.integers(0, 8))
@pytest.mark.parametrize(
    ("family", "name"),
    [("linear", "predictor.json"), ("linear", "uncertainty.json"), ("linear", "manifest.json"), ("tree", "pipeline.skops"), ("tree", "trees.npz")],
)
def test_damage_behind_fitting_hashes_never_escapes_as_another_error(family, name, place, junk, cut, bundles, tmp_path_factory):
    folder = Path(shutil.copytree(bundles(family), tmp_path_factory.mktemp("resealed") / "bundle"))
    whole = (folder / name).read_bytes()
    start = int(place * len(whole))
    content = whole[:start] + junk + whole[start + cut :]
    (folder / name).write_bytes(content)
    if name == "manifest.json":
        (folder / "manifest.sha256").write_bytes(seal(content))
    else:
        reseal(folder)
    try:
        loaded = load_bundle(folder)
    except BundleError:
        return
    finally:
        shutil.rmtree(folder)
    assert isinstance(loaded.manifest, dict)

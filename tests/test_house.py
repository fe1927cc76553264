"""Repository checks: the order of imports, one place for each fact, and what no file may hold."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from conftest import REPO, clean_environment

import studperf

MODULES = sorted(p for p in (REPO / "studperf").rglob("*.py") if p.stem not in ("__init__", "__main__", "_modidx"))
ROOMS = ("schema", "datasets", "eda", "preprocessing", "comparison", "uncertainty", "fairness", "artifact", "prediction", "explanation",
         "training", "tracking", "monitoring", "lifecycle", "batch", "service", "ui", "cli")  # fmt: skip
SERVING = ("artifact", "prediction", "explanation", "service")
TRAINING = ("comparison", "training", "lifecycle", "tracking", "preprocessing")


def room(module: str) -> str:
    """The room of a dotted module name: studperf.schema.columns -> schema."""
    return module.split(".")[1]


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a module imports from, type checking included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = "studperf." if node.level else ""
            names.add(base + (node.module or ""))
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    own = "studperf." + ".".join(path.relative_to(REPO / "studperf").with_suffix("").parts)
    return {room(name) for name in names if name.startswith("studperf.")} & set(ROOMS) | ({room(own)} if len(own.split(".")) > 2 else set())


def own_room(path: Path) -> str:
    return path.relative_to(REPO / "studperf").with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_go_only_to_lower_rooms(path):
    higher = {name for name in imported_rooms(path) if ROOMS.index(name) > ROOMS.index(own_room(path))}
    assert not higher, f"{path.name} imports from higher rooms: {higher}"


@pytest.mark.parametrize("path", [p for p in MODULES if own_room(p) in SERVING], ids=lambda p: p.stem)
def test_serving_never_imports_training(path):
    assert not imported_rooms(path) & set(TRAINING)


@pytest.mark.parametrize("path", [p for p in MODULES if own_room(p) not in ("schema", "datasets")], ids=lambda p: p.stem)
def test_no_column_of_the_exams_is_named_outside_schema_and_datasets(path):
    named = [c.name for c in studperf.load_model().schema.columns if c.name != "lunch" and c.name in path.read_text()]
    assert not named and not re.search(r"\blunch\b", path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_no_module_can_load_a_pickle(path):
    nodes, picklers = list(ast.walk(ast.parse(path.read_text()))), {"pickle", "joblib", "cloudpickle", "dill", "marshal", "shelve"}
    used = {f"{node.value.id}.{node.attr}" for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    used |= {f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) and node.module for alias in node.names}
    harmless = {"pickle.dumps", "joblib.Parallel", "joblib.delayed", "joblib.parallel_config"}  # measuring a size; sharing work out
    assert not {name for name in used if name.split(".")[0] in picklers} - harmless


def test_every_module_has_a_notebook_and_every_library_notebook_a_place_in_the_sidebar():
    notebooks = [p for p in (REPO / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    exports = {m.group(1) for p in notebooks if (m := re.search(r"#\| default_exp (\S+?)[\"\\]", p.read_text()))}
    assert exports == {".".join(p.relative_to(REPO / "studperf").with_suffix("").parts) for p in MODULES}
    sidebar = (REPO / "_quarto.yml").read_text()
    assert [str(p.relative_to(REPO / "nbs")) for p in notebooks if str(p.relative_to(REPO / "nbs")) not in sidebar] == []


def test_version_is_written_once():
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(REPO / "settings.ini")
    assert studperf.__version__ == settings["DEFAULT"]["version"]


@pytest.mark.parametrize("name", ["core", "run", "dev"])
def test_lock_files_pin_everything_and_name_no_host(name):
    text = (REPO / "requirements" / f"{name}.lock").read_text()
    pinned = re.findall(r"^([a-z0-9_.-]+)==\S+", text, re.M | re.I)
    assert len(pinned) >= 20 and text.count("--hash=sha256:") >= len(pinned) and "://" not in text
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(REPO / "settings.ini")
    wanted = [re.split(r"[<>=;]", need)[0] for need in settings["DEFAULT"]["requirements"].split()]
    assert set(wanted) <= set(pinned)


def test_notebooks_carry_no_machine():
    for path in (REPO / "nbs").rglob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        outputs = json.dumps([cell.get("outputs") for cell in cells])
        assert not re.search(r"/(home|root|tmp|Users|work)/|0x[0-9a-f]{8}|execution_count\": \d", outputs), path.name
        assert path.stat().st_size < 200_000, path.name


def test_import_studperf_loads_nothing_heavy():
    heavy = "numpy pandas sklearn scipy xgboost catboost shap matplotlib seaborn pyarrow skops yaml pooch".split()
    code = f"import sys, studperf; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean_environment())
    assert done.stdout.strip() == "[]"


def test_predicting_with_a_linear_model_needs_no_scikit_learn(tmp_path):
    row = studperf.load("class").head(1).to_dict("records")[0]
    code = f"import sys, studperf; p = studperf.predict({row!r}); print([m for m in ('sklearn', 'skops', 'scipy', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean_environment(), cwd=tmp_path)
    assert done.stdout.strip() == "[]"

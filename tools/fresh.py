"""Say whether what is generated is fresh: exported modules, clean notebooks, README, the page's notebook.

Everything is generated again in a copy of the tree, so the check neither needs git nor touches a file.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from filecmp import cmp
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = (".*", "_proc", "_docs", "artifacts", "__pycache__", "*.egg-info", "build", "dist", "test-artifacts")


def files(folder: Path) -> set[Path]:
    """Every file that matters, relative to the folder."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {p for p in found if p.parts[0] in ("nbs", "studperf", "README.md") and not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts)}


def regenerate(folder: Path) -> None:
    """Export, clean and write the README and the notebook of the page, as a developer would."""
    commands = Path(sys.executable).parent
    modules = [path for path in (folder / "studperf").rglob("*.py") if path.stem not in ("__init__", "__main__")]
    for module in modules:
        module.unlink()
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    for command in (["nbdev_export"], ["nbdev_clean"]):
        subprocess.run([str(commands / command[0])], cwd=folder, check=True, env=environment)
    for tool in ("tools/readme.py", "tools/page.py"):
        subprocess.run([sys.executable, tool], cwd=folder, check=True, env=environment)


def main() -> int:
    """Compare the tree with its regenerated copy; 1 when a file differs, is missing or is left over."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        before = files(copy)
        regenerate(copy)
        stale = sorted(str(p) for p in before ^ files(copy)) + sorted(
            str(p) for p in before & files(copy) if not cmp(ROOT / p, copy / p, shallow=False)
        )
    for path in stale:
        print(f"stale: {path}")
    print("run nbdev_export, nbdev_clean and `make readme`" if stale else "export, clean and README leave the tree unchanged")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())

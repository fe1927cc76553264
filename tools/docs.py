"""Build and check the docs site from _quarto.yml, without Quarto: `make docs`.

nbdev shows signatures by evaluating their annotations, in modules and in cells that it runs again, so the names that
are imported for type checkers only (`if TYPE_CHECKING:`) have to be there while the pages are made.
"""

import ast
import builtins
import pkgutil
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import studperf

ROOT = Path(__file__).parent.parent


def import_names_for_type_checkers(module: ModuleType) -> None:
    """Run what stands below `if TYPE_CHECKING:` in a module, its names put where every evaluation finds them."""
    for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), module.__file__, "exec"), vars(builtins))


def process_notebooks() -> None:
    """Notebooks to pages, signatures included, in _proc."""
    from nbdev.serve import proc_nbs

    for found in pkgutil.walk_packages(studperf.__path__, "studperf."):
        if not found.name.endswith("__main__"):
            import_names_for_type_checkers(import_module(found.name))
    proc_nbs(file_glob="*.ipynb", n_workers=0, force=True)
    for page in (ROOT / "_proc").rglob("*.ipynb"):  # a key for Quarto that the checker does not know
        lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
        page.write_text("".join(line for line in lines if not line.strip().startswith('"output-file:')), encoding="utf-8")


def main() -> int:
    """Build _docs; 1 when a page or a link is broken."""
    for folder in ("_proc", "_docs"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    process_notebooks()
    smalldocs = str(Path(sys.executable).parent / "smalldocs")
    for command in ("render", "check"):
        if code := subprocess.run([smalldocs, command, "_proc"], cwd=ROOT).returncode:
            return code
    shutil.move(ROOT / "_proc" / "_docs", ROOT / "_docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())

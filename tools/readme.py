"""Make README.md from nbs/index.ipynb, without Quarto: `make readme`; with --check, say whether it is stale."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`; edit the notebook. -->\n"


def output_text(output: dict) -> str:
    """An output as plain text; a README needs no HTML tables."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "")).rstrip()


def cell_markdown(cell: dict) -> str:
    """A cell as Markdown: prose as it is, code fenced, each output fenced below it."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source.replace("](images/", "](nbs/images/")
    if source.startswith("#| hide") or cell["cell_type"] != "code":
        return ""
    code = "\n".join(line for line in source.splitlines() if not line.startswith("#|"))
    texts = [text for output in cell["outputs"] if (text := output_text(output))]
    return "\n\n".join([f"```python\n{code.strip()}\n```", *(f"```text\n{text}\n```" for text in texts)])


def make_readme() -> str:
    """The whole README."""
    cells = json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    return NOTE + "\n" + "\n\n".join(text for cell in cells if (text := cell_markdown(cell).strip())) + "\n"


def main() -> int:
    """Write README.md, or with --check compare it and return 1 when it is stale."""
    path, content = ROOT / "README.md", make_readme()
    if "--check" in sys.argv:
        stale = not path.exists() or path.read_text(encoding="utf-8") != content
        print("README.md is stale; run `make readme`" if stale else "README.md is fresh")
        return int(stale)
    path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

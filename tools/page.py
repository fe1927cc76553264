"""Make studperf/data/app/predict.ipynb, which Voila serves, from nbs/apps/predict.ipynb: its code, without the words for a reader in JupyterLab."""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Write the notebook that ships with the package."""
    notebook = json.loads((ROOT / "nbs" / "apps" / "predict.ipynb").read_text(encoding="utf-8"))
    notebook["cells"] = [{**cell, "outputs": []} for cell in notebook["cells"] if cell["cell_type"] == "code"]
    path = ROOT / "studperf" / "data" / "app" / "predict.ipynb"
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Renew the lock files from settings.ini: `make lock`. Needs uv; keeps every version that still fits."""

import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ["setuptools", "wheel"]
EXTRAS = {"run": ("boost", "notebooks"), "core": ("serve", "postgres", "trace", "ui")}


def wanted() -> dict[str, list[str]]:
    """Requirements of the three environments: everything, what the main job needs, what predicting needs."""
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    settings = parser["DEFAULT"]
    core = settings["requirements"].split() + BUILD
    extras = {key.removesuffix("_requirements"): settings[key].split() for key in settings if key.endswith("_requirements")}
    smaller = {name: core + [need for extra in chosen for need in extras[extra]] for name, chosen in EXTRAS.items()}
    return {"dev": core + [need for needs in extras.values() for need in needs], **smaller}


def main() -> int:
    """Compile dev.lock, then the smaller ones with the same versions."""
    for name, requirements in wanted().items():
        with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
            source.write("\n".join(requirements))
            source.flush()
            constraint = [] if name == "dev" else ["-c", str(ROOT / "requirements" / "dev.lock")]
            options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
            output = ["-o", str(ROOT / "requirements" / f"{name}.lock")]
            subprocess.run(["uv", "pip", "compile", *options, source.name, *constraint, *output], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Write artifacts/openapi.json: the contract of the service with the model that ships (`make openapi`). `--check` only compares."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = ROOT / "artifacts" / "openapi.json"


def contract() -> str:
    """The OpenAPI document as the command line prints it, whatever this machine is set to."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STUDPERF_")} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "studperf", "serve", "--contract", "--model", str(ROOT / "studperf" / "data" / "production")]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout


def main() -> int:
    fresh = contract()
    if "--check" in sys.argv[1:]:
        same = CONTRACT.exists() and CONTRACT.read_text(encoding="utf-8") == fresh
        print("The contract is up to date." if same else f"{CONTRACT.relative_to(ROOT)} is not what the service says of itself: make openapi")
        return 0 if same else 1
    CONTRACT.write_text(fresh, encoding="utf-8")
    print(f"Wrote {CONTRACT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

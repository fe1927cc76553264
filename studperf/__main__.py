"""`python -m studperf`: the command line."""

import sys

from studperf.cli import main

if __name__ == "__main__":
    sys.exit(main())

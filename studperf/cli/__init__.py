"""`studperf ...` in a shell: commands that learn, commands that ask a model, and the door to both."""

from studperf.cli.door import main

__all__ = ["main"]

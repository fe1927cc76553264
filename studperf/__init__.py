"""Predict student performance from a table of students, and say what the prediction does not know."""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studperf.comparison import compare as compare
    from studperf.datasets import load as load
    from studperf.datasets import simulate as simulate
    from studperf.eda import profile as profile
    from studperf.explanation import explain as explain
    from studperf.explanation import what_if as what_if
    from studperf.prediction import audit as audit
    from studperf.prediction import load_model as load_model
    from studperf.prediction import predict as predict
    from studperf.schema import InputError as InputError
    from studperf.schema import Schema as Schema
    from studperf.schema import infer as infer
    from studperf.training import train as train

_HOME = {
    "InputError": "studperf.schema",
    "Schema": "studperf.schema",
    "audit": "studperf.prediction",
    "compare": "studperf.comparison",
    "explain": "studperf.explanation",
    "infer": "studperf.schema",
    "load": "studperf.datasets",
    "load_model": "studperf.prediction",
    "predict": "studperf.prediction",
    "profile": "studperf.eda",
    "simulate": "studperf.datasets",
    "train": "studperf.training",
    "what_if": "studperf.explanation",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    """Import what is asked for, when it is asked for: `import studperf` itself loads nothing heavy."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

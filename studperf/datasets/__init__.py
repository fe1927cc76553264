"""Tables to learn from: a simulated one, and any other by name, path or address."""

from studperf.datasets.loading import DATASETS, Dataset, load, schema_for
from studperf.datasets.simulation import exam_schema, simulate

__all__ = ["DATASETS", "Dataset", "exam_schema", "load", "schema_for", "simulate"]

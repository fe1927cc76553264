"""Tables to learn from: a simulated one, and any other by name, path or address."""

from studperf.datasets.loading import DATASETS, Dataset, Source, groups_of, load, open_source, schema_for
from studperf.datasets.simulation import INTERACTIONS, exam_schema, planted_interaction, simulate

__all__ = [
    "DATASETS", "INTERACTIONS", "Dataset", "Source", "exam_schema", "groups_of", "load", "open_source", "planted_interaction", "schema_for", "simulate",
]

"""What a table holds, how it is read, and what is wrong with it."""

from studperf.schema.columns import Column, Schema, header_key, load_schema, schema_from_dict
from studperf.schema.files import read_table, table_bytes, write_table
from studperf.schema.inference import infer
from studperf.schema.intervals import Interval, mean_interval, proportion
from studperf.schema.problems import InputError, Problem, show_value
from studperf.schema.tables import is_there, write_atomically
from studperf.schema.validation import Checked, validate

__all__ = [
    "Checked", "Column", "InputError", "Interval", "Problem", "Schema", "header_key", "infer", "is_there", "load_schema", "mean_interval",
    "proportion", "read_table", "schema_from_dict", "show_value", "table_bytes", "validate", "write_atomically", "write_table",
]

"""One call from a table to predictions with intervals, and one that audits them once the true scores are known."""

from studperf.prediction.audits import audit
from studperf.prediction.models import find_model, load_model
from studperf.prediction.tables import open_table, predict

__all__ = ["audit", "find_model", "load_model", "open_table", "predict"]

"""One call from a table to predictions with intervals, and one that audits them once the true scores are known."""

from studperf.prediction.audits import audit
from studperf.prediction.models import find_model, load_model
from studperf.prediction.tables import check_free, open_table, predict, scored_table

__all__ = ["audit", "check_free", "find_model", "load_model", "open_table", "predict", "scored_table"]

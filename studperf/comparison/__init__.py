"""Which family of models predicts best, judged on rows that none of them has seen."""

from studperf.comparison.families import FAMILIES, Family, choose_families, make_pipeline, tuned
from studperf.comparison.scores import Interval, bootstrap_scores, corrected_interval, scores
from studperf.comparison.selection import Comparison, compare

__all__ = [
    "FAMILIES", "Comparison", "Family", "Interval", "bootstrap_scores", "choose_families", "compare", "corrected_interval", "make_pipeline",
    "scores", "tuned",
]

"""Which family of models predicts best, judged on rows that none of them has seen, and what that judgement is worth."""

from studperf.comparison.ceiling import Ceiling, noise_ceiling
from studperf.comparison.checks import Check
from studperf.comparison.families import FAMILIES, Family, choose_families, make_pipeline
from studperf.comparison.folds import cut
from studperf.comparison.importance import Ablation, ablate
from studperf.comparison.learning import LearningCurve, learning_curve
from studperf.comparison.report import save_report
from studperf.comparison.running import Work
from studperf.comparison.scores import Interval, bootstrap_scores, corrected_interval, scores
from studperf.comparison.selection import Comparison, compare_families
from studperf.comparison.tables import compare
from studperf.comparison.tuning import FULL, QUICK, Effort, search, tuned

__all__ = [
    "FAMILIES", "FULL", "QUICK", "Ablation", "Ceiling", "Check", "Comparison", "Effort", "Family", "Interval", "LearningCurve", "Work", "ablate",
    "bootstrap_scores", "choose_families", "compare", "compare_families", "corrected_interval", "cut", "learning_curve", "make_pipeline",
    "noise_ceiling", "save_report", "scores", "search", "tuned",
]

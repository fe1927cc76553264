"""Who is predicted how well: each protected group and intersection, without giving anybody away."""

from studperf.fairness.audit import Audit, GroupScores, audit_groups, plot_audit
from studperf.fairness.baselines import Baseline, baseline_scores, bootstrap
from studperf.fairness.flags import Flag, find_flags
from studperf.fairness.groups import Measures, Rates, measure_groups, protected_groups
from studperf.fairness.protected import GroupMove, SideBySide, compare_protected, plot_protected
from studperf.fairness.suppression import MINIMUM, count_cells, read_back, suppress

__all__ = [
    "MINIMUM", "Audit", "Baseline", "Flag", "GroupMove", "GroupScores", "Measures", "Rates", "SideBySide", "audit_groups", "baseline_scores",
    "bootstrap", "compare_protected", "count_cells", "find_flags", "measure_groups", "plot_audit", "plot_protected", "protected_groups",
    "read_back", "suppress",
]

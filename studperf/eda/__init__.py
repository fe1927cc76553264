"""What a table of students holds, before any model: its quality, its columns, its groups, and what goes with what."""

from studperf.eda.correlations import correlations, plot_correlations, plot_redundancy, plot_stability, redundancy
from studperf.eda.distributions import describe_categories, describe_numbers, plot_distribution, plot_distributions
from studperf.eda.groups import group_effects, group_means, holm, plot_cells, plot_effects, plot_groups, small_cells
from studperf.eda.interactions import interactions, plot_interaction
from studperf.eda.outliers import outliers, plot_outliers
from studperf.eda.profile import Profile, profile
from studperf.eda.quality import Finding, Quality, quality
from studperf.eda.reading import Tidy, tidy

__all__ = [
    "Finding", "Profile", "Quality", "Tidy", "correlations", "describe_categories", "describe_numbers", "group_effects", "group_means", "holm",
    "interactions", "outliers", "plot_cells", "plot_correlations", "plot_distribution", "plot_distributions", "plot_effects", "plot_groups",
    "plot_interaction", "plot_outliers", "plot_redundancy", "plot_stability", "profile", "quality", "redundancy", "small_cells", "tidy",
]

"""Why a prediction is what it is: contributions per student and column, in words, in figures, and beside other students."""

from studperf.explanation.contributions import Contributions, additive_contributions
from studperf.explanation.figures import plot_bars, plot_beeswarm, plot_dependence, plot_waterfall
from studperf.explanation.neighbours import nearest
from studperf.explanation.tables import explain
from studperf.explanation.whatif import WhatIf, what_if
from studperf.explanation.words import sentences

__all__ = [
    "Contributions", "WhatIf", "additive_contributions", "explain", "nearest", "plot_bars", "plot_beeswarm", "plot_dependence", "plot_waterfall",
    "sentences", "what_if",
]

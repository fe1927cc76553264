"""What a prediction does not know: intervals that keep their promise, and students unlike any that the model has learnt from."""

from studperf.uncertainty.answers import Uncertainty
from studperf.uncertainty.arms import choose_arms
from studperf.uncertainty.conformal import Calibration, calibrate
from studperf.uncertainty.coverage import coverage_of, reliability
from studperf.uncertainty.domain import Domain, learn_domain

__all__ = ["Calibration", "Domain", "Uncertainty", "calibrate", "choose_arms", "coverage_of", "learn_domain", "reliability"]

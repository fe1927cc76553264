"""`studperf.train` with the families of the public grid, called as a user would call it."""

from __future__ import annotations

import json
import logging

import numpy as np
from measure import side_parser

import studperf

FAMILIES = ["linear", "tree", "random_forest", "adaboost", "gradient_boosting", "xgboost", "catboost"]


def main() -> None:
    """Learn from one CSV file, predict another, print what was chosen as JSON."""
    args = side_parser(__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out = args.predictions.parent / "artifacts"
    trained = studperf.train(args.table, target=args.target, families=FAMILIES, out=out)
    np.save(args.predictions, studperf.predict(args.fresh, model=trained.bundle)["prediction"])
    print(json.dumps({"chosen": trained.comparison.chosen.family.label, "test_r2": trained.test["r2"].value}))


if __name__ == "__main__":
    main()

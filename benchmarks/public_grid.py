"""The grid of the public "student performance" projects: seven families, 230 settings, three folds, 690 fits.

The settings are those of krishnaik06/mlproject (src/components/model_trainer.py), which many repeat, and so is the
procedure: `train_test_split(test_size=0.2, random_state=42)`; columns one-hot encoded and standardised as the training
rows say; each family through `GridSearchCV(cv=3)`; the family with the best R2 on the TEST rows wins, so that its score
there is the best of seven. The published code fits each winner once more; that is left out, in the grid's favour.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
from catboost import CatBoostRegressor
from measure import say, side_parser
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import AdaBoostRegressor, GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, ParameterGrid, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils._param_validation import InvalidParameterError
from threadpoolctl import threadpool_limits
from xgboost import XGBRegressor

FOLDS = 3
SIZES = [8, 16, 32, 64, 128, 256]
RATES = [0.1, 0.01, 0.05, 0.001]
CRITERIA = ["squared_error", "friedman_mse", "absolute_error", "poisson"]


def accepted(criteria: list[str]) -> list[str]:
    """The tree criteria that this scikit-learn takes from a grid; what it refuses is said."""
    taken = []
    for criterion in criteria:
        try:
            DecisionTreeRegressor().set_params(criterion=criterion).fit([[0.0], [1.0]], [1.0, 2.0])
            taken.append(criterion)
        except InvalidParameterError:
            say(f"this scikit-learn refuses criterion={criterion!r}: {FOLDS} fits fewer")
    return taken


def families(
    *,
    as_published: bool,  # XGBoost and CatBoost take as many threads as they like; else one, which costs less CPU
) -> dict[str, tuple]:  # by name: the estimator, and the settings to be tried
    """The seven families and their grids."""
    xgb, cat = ({}, {}) if as_published else ({"n_jobs": 1}, {"thread_count": 1})
    return {
        "Random Forest": (RandomForestRegressor(), {"n_estimators": SIZES}),
        "Decision Tree": (DecisionTreeRegressor(), {"criterion": accepted(CRITERIA)}),
        "Gradient Boosting": (
            GradientBoostingRegressor(),
            {"learning_rate": RATES, "subsample": [0.6, 0.7, 0.75, 0.8, 0.85, 0.9], "n_estimators": SIZES},
        ),
        "Linear Regression": (LinearRegression(), {}),
        "XGBRegressor": (XGBRegressor(**xgb), {"learning_rate": RATES, "n_estimators": SIZES}),
        "CatBoost": (
            CatBoostRegressor(verbose=False, allow_writing_files=False, **cat),
            {"depth": [6, 8, 10], "learning_rate": [0.01, 0.05, 0.1], "iterations": [30, 50, 100]},
        ),
        "AdaBoost": (AdaBoostRegressor(), {"learning_rate": [0.1, 0.01, 0.5, 0.001], "n_estimators": SIZES}),
    }


def preprocessor(features: pd.DataFrame) -> ColumnTransformer:
    """One-hot and scaled categories, scaled numbers."""
    numbers = list(features.select_dtypes("number").columns)
    categories = [name for name in features.columns if name not in numbers]
    encode = Pipeline([("one_hot", OneHotEncoder()), ("scale", StandardScaler(with_mean=False))])
    return ColumnTransformer([("numbers", StandardScaler(), numbers), ("categories", encode, categories)])


def search(X: tuple, y: tuple, *, as_published: bool) -> tuple[dict[str, tuple], int]:
    """Every family's best estimator and its R2 on the test rows, and the number of fits that the grids took."""
    found, fits = {}, 0
    for name, (estimator, grid) in families(as_published=as_published).items():
        start = time.process_time()
        searched = GridSearchCV(estimator, grid, cv=FOLDS).fit(X[0], y[0])
        found[name] = searched, searched.score(X[1], y[1])
        count = FOLDS * len(ParameterGrid(grid))
        fits += count
        say(f"{name:<28} test R2 {found[name][1]:.3f}   {time.process_time() - start:.1f} CPU s, {count} fits")
    return found, fits


def learn(table: pd.DataFrame, fresh: pd.DataFrame, target: str, *, as_published: bool) -> tuple[np.ndarray, dict]:
    """Predictions for the fresh rows, and what was chosen."""
    train, test = train_test_split(table, test_size=0.2, random_state=42)
    prepare = preprocessor(table.drop(columns=target))
    X = prepare.fit_transform(train.drop(columns=target)), prepare.transform(test.drop(columns=target))
    found, fits = search(X, (train[target], test[target]), as_published=as_published)
    best = max(found, key=lambda name: found[name][1])
    return found[best][0].predict(prepare.transform(fresh)), {"chosen": best, "test_r2": found[best][1], "fits": fits}


def main() -> None:
    """Learn from one CSV file, predict another, print what was chosen as JSON."""
    parser = side_parser(__doc__.splitlines()[0])
    parser.add_argument("--as-published", action="store_true", help="leave the number of threads to the libraries")
    args = parser.parse_args()
    np.random.seed(0)  # the published settings have no random_state: the global one makes the run repeatable
    table, fresh = (pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in (args.table, args.fresh))
    with threadpool_limits(None if args.as_published else 1):
        predicted, facts = learn(table, fresh, args.target, as_published=args.as_published)
    np.save(args.predictions, predicted)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()

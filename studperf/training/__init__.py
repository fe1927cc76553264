"""From a table to a verified bundle, in one call or in the steps of a notebook."""

from studperf.training.evaluation import Evaluation, evaluate
from studperf.training.headless import NotebookError, run_notebook
from studperf.training.limits import Limits, learn_limits
from studperf.training.runs import logged, new_run, write_json
from studperf.training.steps import Trained, finish, fit, select, train
from studperf.training.task import Task, prepare

__all__ = [
    "Evaluation", "Limits", "NotebookError", "Task", "Trained", "evaluate", "finish", "fit", "learn_limits", "logged", "new_run", "prepare",
    "run_notebook", "select", "train", "write_json",
]

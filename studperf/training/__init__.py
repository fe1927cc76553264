"""From a table to a verified bundle, in one call or in the steps of a notebook."""

from studperf.training.headless import NotebookError, run_notebook
from studperf.training.runs import logged, new_run, write_json
from studperf.training.steps import Task, Trained, evaluate, finish, fit, prepare, select, train

__all__ = [
    "NotebookError", "Task", "Trained", "evaluate", "finish", "fit", "logged", "new_run", "prepare", "run_notebook", "select", "train", "write_json",
]

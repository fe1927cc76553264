"""The page a teacher opens: one student, a class, the model, as widgets of Jupyter."""

__all__ = ["prediction_page"]


def __getattr__(name: str):
    """Import the page when it is asked for: the server that runs it needs none of its widgets."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from studperf.ui.page import prediction_page

    return prediction_page

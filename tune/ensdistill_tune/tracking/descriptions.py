"""Descriptions of experiments and studies in MLflow, in Markdown."""

from ensdistill_tune.tracking.confirmed_figure import NAME as FIGURE
from ensdistill_tune.tracking.views import MlflowPages, studies_page

NOTE = "mlflow.note.content"  # tag that MLflow shows as the description of a run or an experiment
LONGEST = 4500  # maximum length in characters, not counting the links; MLflow accepts 5000 in a tag
EXPERIMENT_NOTE = (
    "Each study is one run. Its description contains the results, and its child runs are the trials.\n\n"
    "(These are studies of ensemble distillation. Replicates of the best trials with fresh seeds are also child runs.)"
)  # MLflow shows the first line


def with_links(note: str, pages: MlflowPages) -> str:
    """Returns a description, preceded by links to other pages of the server.

    The links come first, because MLflow collapses a description after its second line.

    Args:
        note: The description in Markdown; it is truncated if it is too long.
        pages: The pages of the study.
    """
    links = {
        "Compare the trials": pages.comparison(""),
        "Seeds, grouped": pages.seeds(""),
        "Figure: confirmed means": pages.figure("", FIGURE),
        "All studies": studies_page("", pages.experiment),
    }
    line = " | ".join(f"[{words}]({link[1:]})" for words, link in links.items())
    return f"{line}\n\n{note[:LONGEST]}"

"""What a study says of itself in MLflow, in Markdown."""

from ensdistill_tune.tracking.views import MlflowPages, studies_page

NOTE = "mlflow.note.content"  # the tag that MLflow shows as the description of a run or an experiment
LONGEST = 4500  # characters; of a tag MLflow takes 5000
EXPERIMENT_NOTE = (
    "Each study is one run, whose description says what came out; its trials are child runs.\n\n"
    "(Studies of ensemble distillation. Among the child runs are the repeats of the best trials with fresh seeds.)"
)  # of which one line is seen at once


def with_links(note: str, pages: MlflowPages) -> str:
    """The note, cut if it is too long, below links to other pages of the server.

    They come first: what is lower than the second line of a note cannot be clicked until the note is unfolded.
    """
    trials, studies = pages.comparison(""), studies_page("", pages.experiment)
    return f"[Compare the trials]({trials[1:]}) | [All studies]({studies[1:]})\n\n{note[:LONGEST]}"

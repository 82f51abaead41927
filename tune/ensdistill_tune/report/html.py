"""report.html: one file that needs no network; report.md: the same words without the figures."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from ensdistill.runtime.files import write_text
from ensdistill_tune.analysis.rank_correlation import foresight
from ensdistill_tune.analysis.results import StudyResults, read_facts
from ensdistill_tune.report.document import ReportSection, as_markdown, first_lines, sections, summary_line
from ensdistill_tune.report.figures import ReportFigure, figures

FILES = ("report.html", "report.md")


def write_report(home: Path) -> tuple[list[Path], str]:
    """Writes report.html, report.md and figures/<key>.html of a study; these files, and the first lines as Markdown.

    Raises DataError if there is no study, or one that has not begun.
    """
    facts = read_facts(home)
    lead = first_lines(facts, facts.importance, foresight(facts.trials, facts.study))
    parts, shown = sections(facts), figures(facts)
    write_text(home / "report.html", as_page(facts, lead, parts, shown))
    write_text(home / "report.md", as_markdown(facts, lead, parts, home))
    shutil.rmtree(home / "figures", ignore_errors=True)  # of an earlier report there may be more
    (home / "figures").mkdir()
    for one in shown:
        write_text(home / "figures" / f"{one.key}.html", _alone(one))
    return [home / name for name in FILES] + [home / "figures" / f"{one.key}.html" for one in shown], lead


def as_page(facts: StudyResults, lead: str, parts: Sequence[ReportSection], shown: Sequence[ReportFigure]) -> str:
    """The whole page. What comes from outside, such as the error of a trial, is escaped."""
    template = Environment(autoescape=True).from_string((Path(__file__).parent / "page.html").read_text())
    drawn = {one.key: json.loads(one.figure.to_json()) for one in shown}
    return template.render(
        facts=facts,
        summary=summary_line(facts),
        lead=_html(lead),
        parts=[{"title": part.title, "text": _html(part.text)} for part in parts],
        figures=shown,
        drawn=Markup(json.dumps(drawn).replace("<", "\\u003c")),  # noqa: S704 - nothing closes the script
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - Plotly itself
    )


def _html(markdown: str) -> Markup:
    """HTML of Markdown, in which tags are plain text; wide tables scroll by themselves."""
    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown.replace(" +- ", " ± "))
    wide = rendered.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    return Markup(wide)  # noqa: S704 - escaped by the renderer


def _alone(one: ReportFigure) -> str:
    """One figure for MLflow's pages, small because Plotly comes over the network; without one it says so."""
    page: str = to_html(one.figure, include_plotlyjs="cdn", full_html=True)
    note = f"<p>{one.title}. Drawn by Plotly from the network; report.html beside it needs none.</p>"
    return page.replace("<body>", f"<body>{note}", 1)

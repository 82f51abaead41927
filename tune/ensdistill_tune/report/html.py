"""Writes report.html, a single file that works offline, and report.md, which contains the same text without figures."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment
from markdown_it import MarkdownIt
from markupsafe import Markup
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from ensdistill.runtime.files import write_text
from ensdistill_tune.analysis.results import StudyResults, read_facts
from ensdistill_tune.report.document import ReportSection, as_markdown, first_lines, sections, summary_line
from ensdistill_tune.report.figures import ReportFigure, figures
from ensdistill_tune.report.gallery import galleries

FILES = ("report.html", "report.md")


def write_report(home: Path) -> tuple[list[Path], str]:
    """Writes report.html, report.md and figures/<key>.html of a study.

    Returns:
        The files, and the summary as Markdown.

    Raises:
        DataError: The study does not exist, or none of its trials has started.
    """
    facts = read_facts(home)
    lead = first_lines(facts, facts.importance, facts.rank_correlations)
    parts, shown = sections(facts), figures(facts)
    write_text(home / "report.html", as_page(facts, lead, parts, shown))
    write_text(home / "report.md", as_markdown(facts, lead, parts, home))
    shutil.rmtree(home / "figures", ignore_errors=True)  # an earlier report may have had more figures
    (home / "figures").mkdir()
    for one in shown:
        write_text(home / "figures" / f"{one.key}.html", _alone(one))
    return [home / name for name in FILES] + [home / "figures" / f"{one.key}.html" for one in shown], lead


def as_page(facts: StudyResults, lead: str, parts: Sequence[ReportSection], shown: Sequence[ReportFigure]) -> str:
    """Returns the HTML page. Untrusted text, such as an error message, is escaped."""
    template = Environment(autoescape=True).from_string((Path(__file__).parent / "page.html").read_text())
    drawn = {one.key: json.loads(one.figure.to_json()) for one in shown}
    return template.render(
        facts=facts,
        summary=summary_line(facts),
        lead=_html(lead),
        parts=[{"title": part.title, "text": _html(part.text)} for part in parts],
        figures=shown,
        galleries=galleries(facts),
        drawn=Markup(json.dumps(drawn).replace("<", "\\u003c")),  # noqa: S704 - cannot close the script
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - source of Plotly
    )


def _html(markdown: str) -> Markup:
    """Converts Markdown to HTML; HTML tags in the Markdown are shown as plain text.

    A wide table scrolls within its own box. Standard deviations and intervals start a new line in their cell, so that
    eight columns fit.
    """
    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown.replace(" +- ", " ± "))
    narrow = re.sub(r"(<td[^>]*>[^<]*?) ((?:± |\([-+])[^<]*)</td>", r"\1 <span>\2</span></td>", rendered)
    open_box = '<div class="wide" role="region" tabindex="0" aria-label="Table"><table>'
    wide = narrow.replace("<table>", open_box).replace("</table>", "</table></div>")
    return Markup(wide)  # noqa: S704 - escaped by the renderer


def _alone(one: ReportFigure) -> str:
    """Returns one figure as an HTML page for MLflow; the page is small, because it loads Plotly from the network."""
    page: str = to_html(one.figure, include_plotlyjs="cdn", full_html=True)
    note = f"<p>{one.title}. Plotly is loaded from the network; report.html works offline.</p>"
    return page.replace("<body>", f"<body>{note}", 1)

"""The Sphinx extension of the site inserts facts generated from the code."""

import json
import re

import pytest
from generated import commands, docstrings, formulas, links, markdown, notebook, pieces, records, settings

from ensdistill.config import Config
from ensdistill.settings.validation import settings_table
from ensdistill_tune.study.study_config import StudyConfig


@pytest.mark.parametrize(("which", "model"), [("student", Config), ("study", StudyConfig)])
def test_every_setting_has_one_table_row_with_an_anchor(which: str, model: type) -> None:
    text = settings.markdown(which)
    for name in {row.name for row in settings_table(model)}:
        assert text.count(f"[`{name}`]{{#{settings.anchor(name)}}}") == 1


def test_the_row_of_a_setting_shows_the_default_for_its_section() -> None:
    text = settings.markdown("student")
    rates = dict(
        re.findall(r"^\| \[`((?:teachers\.)?training\.optimizer\.lr)`\]\S+ \| `([\d.]+)` \|", text, re.MULTILINE)
    )
    assert rates == {"training.optimizer.lr": "0.05", "teachers.training.optimizer.lr": "0.1"}


def test_every_command_has_a_section_with_its_options() -> None:
    text = commands.markdown("ensdistill-tune")
    assert "### `ensdistill-tune resume`" in text
    assert "| `--set NAME=VALUE` |" in text
    assert set(commands.pages()) >= {"ensdistill predict", "ensdistill-tune sync"}


def test_every_metric_in_the_reference_has_a_definition() -> None:
    text = records.metrics()
    assert {"accuracy", "nll", "cnll", "dee", "flops", "ood_auroc"} <= set(records.measured())
    assert re.findall(r"\| *\|$", text, re.MULTILINE) == []


def test_every_event_has_a_section() -> None:
    assert {"## `trial_started`", "## `epoch_reported`", "## `session_ended`"} <= set(records.events().splitlines())


def test_presets_are_shown_without_comments() -> None:
    text = pieces.preset("kd")
    assert "kind: averaged" in text
    assert "#" not in text


def test_equations_keep_their_line_breaks_and_markup_in_prose_is_escaped() -> None:
    doc = "Returns *p* and |q|, see `a_b`.\n\n    L = a + b\n      + c\n\nArgs:\n    x_: Values.\n"
    made = docstrings.as_restructured(doc.splitlines())
    assert made[0] == r"Returns \*p\* and \|q\|, see ``a_b``."
    assert made[2:6] == ["::", "", "        L = a + b", "          + c"]
    assert made[7:9] == ["Args:", r"    x\_: Values."]


def test_vertical_bars_are_escaped_in_tables_and_markup_is_escaped_in_prose() -> None:
    assert markdown.table(["a"], [["x|y"]]).splitlines()[-1] == r"| x\|y |"
    assert markdown.escaped("a_b `a_b` *c*") == r"a\_b `a_b` \*c\*"


def test_a_formula_is_rendered_as_one_drawing_with_its_source_as_alternative_text() -> None:
    drawing = formulas.svg(r"x^2 < \frac{1}{2}")
    assert drawing.count("<svg") == 1
    assert 'aria-label="x^2 &lt; \\frac{1}{2}"' in drawing
    assert re.search(r'd="M[-\d. MLQCZ]+"', drawing)
    with pytest.raises(ValueError, match="nosuch"):
        formulas.svg(r"\nosuch")


def test_a_rendered_notebook_contains_its_text_and_its_code_and_its_outputs() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text"]},
        {
            "cell_type": "code",
            "source": "1 + 1",
            "outputs": [{"output_type": "execute_result", "data": {"text/plain": "2"}}],
        },
        {"cell_type": "raw", "source": "left out"},
    ]
    text = notebook.to_markdown(json.dumps({"cells": cells}))
    assert text == "# Title\nText\n\n````python\n1 + 1\n````\n\n````text\n2\n````"


def test_names_of_settings_and_commands_and_presets_are_converted_to_links() -> None:
    known = links.targets()
    assert known["loss.temperature"] == ("reference/settings", "setting-loss-temperature")
    assert known["budget.trials"] == ("reference/study-settings", "setting-budget-trials")
    assert known["ensdistill-tune resume"] == ("reference/commands", "ensdistill-tune-resume")
    assert known["kd"] == ("methods/kd", "")

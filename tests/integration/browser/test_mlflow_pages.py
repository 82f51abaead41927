"""Views of a study in MLflow, in a real browser with a real server; the documentation claims no more than this."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.commands import call
from tests.servers import free_port, listens, wait_until
from tests.tiny import TinyStudy

NO_TOUR = """
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
"""  # hides the assistant that MLflow shows over a quarter of the page in a new profile
expect.set_options(timeout=30_000)  # milliseconds; a page takes two seconds


@pytest.fixture(scope="module")
def links(tiny: TinyStudy) -> Iterator[dict[str, str]]:
    """The links that `ui` prints, served during the tests."""
    port = free_port()
    words = ["ui", "tiny", "--port", str(port), "--studies-dir", str(tiny.studies)]
    serving = subprocess.Popen([sys.executable, "-m", "ensdistill_tune", *words], stdout=subprocess.PIPE, text=True)
    assert serving.stdout is not None
    try:
        printed = dict(serving.stdout.readline().strip().split(": ", 1) for _ in range(4))
        wait_until(lambda: listens(port), "the server answers", 90)
        yield {"comparison": printed["compare tiny"], "study": printed["study tiny"]}
    finally:
        serving.terminate()
        serving.communicate(timeout=30)


@pytest.fixture(scope="module")
def ranked(tiny: TinyStudy) -> list[dict[str, str]]:
    """The rows of leaderboard.csv that have a rank, best first."""
    return [row for row in csv.DictReader((tiny.home / "leaderboard.csv").open()) if row["rank"]]


@pytest.fixture(scope="module")
def registered(tiny: TinyStudy, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Registers the winner of the study in the model registry."""
    words = ["--studies-dir", tiny.studies, "--out", tmp_path_factory.mktemp("out"), "--formats", "onnx"]
    done = call("ensdistill-tune", "export", "tiny", *words, "--register", "tiny-on-pages")
    assert done.code == 0, done.err


def look(page: Page, link: str) -> None:
    """Opens a page as for a returning user."""
    page.add_init_script(NO_TOUR)
    page.goto(link)


def column(page: Page, name: str) -> Locator:
    return page.locator(f".ag-row [col-id='{name}']")


def test_the_comparison_view_shows_settings_and_learning_curves_and_replicates(
    desk: Page, links: dict[str, str]
) -> None:
    look(desk, links["comparison"])
    expect(desk.get_by_text("10 matching runs")).to_be_visible()
    for title in ("Parallel Coordinates", "val/nll", "replicates/nll"):
        expect(desk.get_by_text(title, exact=True).first).to_be_attached()
    for axis in ("student.subnetworks", "averaging.kind", "training.optimizer.lr", "final/nll"):
        expect(desk.locator("svg text", has_text=re.compile(f"^{re.escape(axis)}$")).first).to_be_visible()
    # MLflow shortens a name that does not fit, and shows the full name in a tooltip.
    expect(desk.locator("svg text", has_text=re.compile(r"^loss.*log10$")).first).to_be_visible()
    expect(desk.locator("svg text", has_text=re.compile(r"^loss\.temperature\.log10$")).first).to_be_attached()


def test_the_table_of_runs_agrees_with_the_leaderboard(
    desk: Page, links: dict[str, str], ranked: list[dict[str, str]], tiny: TinyStudy
) -> None:
    look(desk, links["comparison"].replace("&compareRunsMode=CHART", ""))
    means, names = column(desk, "metrics.`confirmed/mean_nll`"), column(desk, "attributes.`Run Name`")
    expect(means.first).to_have_text(re.compile(r"^\d"))
    shown_means, shown_names = means.all_inner_texts(), names.all_inner_texts()  # names after the color of the run
    numbers = [int(number[0]) for text in shown_names if (number := re.search(r"(?<![#\w])\d{3}(?= )", text))]
    confirmed = json.loads((tiny.home / "confirmation.json").read_text())["candidates"]
    assert numbers[: len(confirmed)] == [candidate["trial"] for candidate in confirmed]  # best first
    assert [text != "-" for text in shown_means] == [n < len(confirmed) for n in range(len(numbers))]
    assert [" WINNER " in text for text in shown_names] == [n == 0 for n in range(len(numbers))]
    shown = dict(zip(numbers, column(desk, "metrics.`final/nll`").all_inner_texts(), strict=True))
    values = {int(row["trial"]): float(row["val/nll"]) for row in ranked}
    assert {number: float(text) for number, text in shown.items() if text != "-"} == values  # others were stopped


def test_the_parent_run_states_the_result_of_the_study(desk: Page, links: dict[str, str], tiny: TinyStudy) -> None:
    look(desk, links["study"])
    expect(desk.get_by_role("heading", name="tiny")).to_be_visible()
    first = re.findall(r"^- (.*)$", (tiny.home / "report.md").read_text(), re.MULTILINE)[0]
    expect(desk.get_by_role("listitem").filter(has_text=re.sub(r"[*`]", "", first))).to_be_visible()
    for name, value in (("preset", "latentbe"), ("ensemble_hash", tiny.summary["ensemble_hash"])):
        expect(desk.get_by_text(f"{name}: {value}")).to_be_attached()
    with desk.expect_popup() as opened:
        desk.get_by_role("link", name="Compare the trials").click()
    expect(opened.value.get_by_text("10 matching runs")).to_be_visible()


def test_the_study_artifacts_can_be_opened(desk: Page, links: dict[str, str], tiny: TinyStudy) -> None:
    look(desk, links["study"].replace("?", "/artifacts?"))
    for file in (
        "best",
        "confirmation.json",
        "leaderboard.csv",
        "report.html",
        "study.json",
    ):
        expect(desk.get_by_text(file, exact=True).first).to_be_visible()
    desk.get_by_text("best", exact=True).first.click()
    expect(desk.get_by_text("student.safetensors", exact=True).first).to_be_visible()
    desk.get_by_text("config.yaml", exact=True).first.click()
    first = (tiny.home / "best" / "config.yaml").read_text().splitlines()[0]
    expect(desk.get_by_text(first)).to_be_visible()


def test_the_run_of_a_trial_has_a_description_and_states_the_result_of_the_trial(
    desk: Page, links: dict[str, str], ranked: list[dict[str, str]]
) -> None:
    best = next(row for row in ranked if not row["baseline"])
    number = f"{int(best['trial']):03d}"
    look(desk, links["comparison"].replace("&compareRunsMode=CHART", ""))
    desk.get_by_role("link", name=re.compile(f"^{number} ")).first.click()
    expect(desk.get_by_role("heading", name=re.compile(f"^{number} "))).to_be_visible()
    expect(desk.get_by_text(best["val/nll"], exact=True).first).to_be_attached()
    for tag in ("outcome: finished", f"seed_group: tiny {number}", f"config_hash: {best['config_hash']}"):
        expect(desk.get_by_text(tag)).to_be_attached()
    expect(desk.get_by_role("link", name="tiny", exact=True)).to_be_visible()


def test_replicates_are_grouped_by_candidate_and_have_a_description(
    desk: Page, links: dict[str, str], tiny: TinyStudy
) -> None:
    key = re.findall(r"viewStateShareKey=([^&]+)", links["comparison"])[0]
    look(desk, links["comparison"].replace("&compareRunsMode=CHART", "").replace(key, f"{key}-seeds"))
    expect(desk.get_by_text("Group by: candidate")).to_be_visible()
    confirmed = json.loads((tiny.home / "confirmation.json").read_text())["candidates"]
    expect(desk.get_by_text("Group: ")).to_have_count(len(confirmed))
    expect(desk.get_by_text(re.compile("^Replicate of ")).first).to_be_visible()


def test_the_run_of_the_winner_states_its_result_and_its_data_set_and_its_source_code(
    desk: Page, links: dict[str, str]
) -> None:
    look(desk, links["comparison"].replace("&compareRunsMode=CHART", ""))
    desk.get_by_role("link", name=re.compile(" WINNER ")).first.click()
    expect(desk.get_by_role("heading", name=re.compile(" WINNER "))).to_be_visible()
    expect(desk.get_by_text("Winner of the study.")).to_be_visible()
    expect(desk.get_by_text("over 2 fresh seeds")).to_be_visible()
    expect(desk.get_by_text(re.compile(r"^digits \(")).first).to_be_visible()
    expect(desk.get_by_text("ensdistill-tune").first).to_be_visible()


@pytest.mark.usefixtures("registered")
def test_the_registered_winner_refers_to_its_experiment_and_its_run_and_its_study(
    desk: Page, links: dict[str, str], tiny: TinyStudy
) -> None:
    kept = json.loads((tiny.home / "confirmation.json").read_text())
    look(desk, re.sub(r"/runs\?.*", "/models?workflowType=machine_learning", links["comparison"]))
    expect(desk.get_by_role("link", name="tiny-winner", exact=True)).to_have_count(1)
    desk.get_by_role("link", name="tiny-winner", exact=True).click()
    expect(desk.get_by_role("heading", name="tiny-winner")).to_be_visible()
    expect(desk.get_by_text("Best student of the study")).to_be_visible()
    expect(desk.get_by_text("tiny-on-pages", exact=True).first).to_be_visible()
    table = desk.get_by_role("table").first.or_(desk.get_by_role("grid").first).first
    expect(table.get_by_text("test/nll", exact=True)).to_be_attached()
    shown = desk.get_by_text(re.compile(r"^0?\.?\d+\.\d{3,}")).all_inner_texts()
    assert {f"{row['nll']:.4f}" for row in kept["test"][0]["metrics"]} & {f"{float(text):.4f}" for text in shown}
    desk.get_by_role("link", name=re.compile(" replicate of ")).first.click()
    expect(desk.get_by_role("heading", name=re.compile(" replicate of "))).to_be_visible()
    expect(desk.get_by_text("tiny-winner").first).to_be_visible()
    desk.get_by_role("link", name="tiny", exact=True).click()
    expect(desk.get_by_role("heading", name="tiny", exact=True)).to_be_visible()
    expect(desk.get_by_text("tiny-winner").first).to_be_visible()


def test_trials_open_on_model_training_pages_once_this_page_type_has_been_selected(
    desk: Page, links: dict[str, str]
) -> None:
    look(desk, links["comparison"].replace("&compareRunsMode=CHART", ""))
    best = desk.get_by_role("link", name=re.compile(" WINNER ")).first
    best.click()
    expect(desk.get_by_text("Judges", exact=True)).to_be_visible()  # language model pages: MLflow drops the kind
    desk.get_by_text("Model training", exact=True).click()
    desk.goto(links["comparison"].replace("&compareRunsMode=CHART", ""))
    best.click()
    expect(desk.get_by_role("heading", name=re.compile(" WINNER "))).to_be_visible()
    expect(desk.get_by_text("Judges", exact=True)).to_have_count(0)


def test_the_figure_with_the_means_over_the_confirmation_seeds_is_an_artifact(
    desk: Page, links: dict[str, str]
) -> None:
    look(desk, links["study"].replace("?", "/artifacts/figures/confirmed_means.svg?"))
    expect(desk.get_by_text("confirmed_means.svg", exact=True)).to_be_visible()
    expect(desk.locator("img[src^='blob:'], img[src*='confirmed_means']").first).to_be_visible()


def test_the_study_can_be_opened_on_a_phone_screen(phone: Page, links: dict[str, str]) -> None:
    look(phone, links["study"])
    expect(phone.get_by_role("heading", name="tiny")).to_be_visible()

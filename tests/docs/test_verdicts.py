"""The guide to the report explains every possible verdict sentence."""

import re

import pytest

from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.analysis.verdict import verdict
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig
from tests.docs.documents import page


def candidate(number: int, baseline: str | None, values: list[float]) -> Candidate:
    def trial(own: int, value: float, seed: int | None) -> TrialRecord:
        report = {"val/nll": value, "epoch": 1.0, "epochs": 1.0}
        return TrialRecord(own, baseline, {}, "", "finished", [report], seed=seed)

    return Candidate(trial(number, 1.0, None), [trial(90 + n, value, n) for n, value in enumerate(values)])


ENDS = [1.0, 1.1, 1.2, 1.1, 1.0]
KD = candidate(1, "kd", ENDS)
CASES = {
    "better": [candidate(12, None, [0.5, 0.62, 0.69, 0.6, 0.51]), candidate(1, "latentbe", ENDS)],
    "open": [candidate(12, None, [0.9, 1.1, 1.1, 1.2, 0.9]), KD],
    "baseline": [KD, candidate(12, None, [1.5, 1.6, 1.7])],
    "alone": [candidate(12, None, [1.0, 1.1]), candidate(13, None, [1.2, 1.3]), candidate(14, None, [1.4, 1.5])],
}


@pytest.mark.parametrize("case", CASES)
def test_the_guide_contains_the_wording_of_every_verdict(case: str) -> None:
    study = StudyConfig(search={"loss.temperature": {"log_uniform": [1, 10]}})
    words = verdict(CASES[case], study).sentence.split(":")[0]  # the following words are numbers
    shown = [code.split(":")[0] for code in page("guides/read-a-report").inline_code]
    assert without_numbers(words) in map(without_numbers, shown)


def without_numbers(text: str) -> str:
    return re.sub(r"\d+", "N", text)

"""Results of a session, passed from phase to phase."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensdistill_tune.analysis.confirmation import Stage
from ensdistill_tune.analysis.replication import Candidate
from ensdistill_tune.records.result_rows import Diagnostics, TestMetrics


@dataclass(frozen=True)
class SessionOutcome:
    """Results of the completed phases of a session.

    Attributes:
        ended: State at the end of the session: `finished`, `timed_out`, `interrupted` or `failed`.
        confirmed: The confirmed candidates, best first; empty without a confirmation.
        stages: The stages of the confirmation.
        tested: Metrics on the test set; empty without a test evaluation.
        diagnostics: Diagnostics of the test evaluation; None without a test evaluation.
        files: Files to log to MLflow.
    """

    ended: str = "failed"
    confirmed: Sequence[Candidate] = ()
    stages: Sequence[Stage] = ()
    tested: Sequence[TestMetrics] = ()
    diagnostics: Diagnostics | None = None
    files: Sequence[Path] = ()

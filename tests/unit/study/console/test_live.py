"""Console output of a study: the status panel, following the event log from another terminal, and plain lines."""

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ensdistill.errors import DataError
from ensdistill_tune.analysis.trial_warnings import trial_warnings
from ensdistill_tune.console.follower import StudyFollower, follow
from ensdistill_tune.console.live import ConsoleObserver, describe, live
from ensdistill_tune.console.remaining import estimate_remaining
from ensdistill_tune.console.rendering import StudyPanel
from ensdistill_tune.console.snapshot import StudySnapshot
from ensdistill_tune.console.throughput import Throughput
from ensdistill_tune.records.event_log import EventLog
from ensdistill_tune.records.events import (
    EpochReported,
    Event,
    SessionEnded,
    SessionStarted,
    State,
    TrialEnded,
    TrialResumed,
    TrialStarted,
)
from ensdistill_tune.records.log_records import scan
from ensdistill_tune.records.study_directory import StudyDirectory
from ensdistill_tune.records.trial_progress import TrialProgress
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.study_state import StudyState
from tests.commands import call
from tests.tiny import TINY, TinyStudy

SPACE: dict[str, Any] = {
    "preset": "latentbe",
    "config": {"training": {"epochs": 10}},
    "search": {"loss.temperature": {"log_uniform": [1, 10]}},
    "baselines": ["kd"],
    "budget": {"trials": 4},
    "confirmation": {"top_k": 1, "seeds": 2},
}


def study(**more: Any) -> StudyConfig:
    return StudyConfig.model_validate(SPACE | more)


def trial(number: int, epoch: int, state: State = "finished", nll: float = 0.5, **more: Any) -> TrialRecord:
    own = {"baseline": None, "sampled": {"loss.temperature": 2.0 + number}, "config_hash": f"h{number}"} | more
    epochs = [{"epoch": float(epoch), "epochs": 10.0, "val/nll": nll}] if epoch else []
    return TrialRecord(number, state=state, epochs=epochs, **own)


TRIALS = [
    trial(1, 10, nll=0.3, baseline="kd", sampled={}),
    trial(2, 10, nll=0.25),
    trial(3, 5, "pruned", nll=0.75),
    trial(4, 4, "running", nll=0.6),
]


def picture(**more: Any) -> StudySnapshot:
    given = {"name": "s", "study": study(), "epochs": 10, "state": "running", "seconds": 50.0, "trials": TRIALS}
    return StudySnapshot(**(given | {"planned": 0, "paces": (0.5, 2.0)} | more))


def format_value(what: StudySnapshot, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(StudyPanel(what))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


# --- pace and remaining time -----------------------------------------------------------------------------------------


def test_the_pace_covers_the_last_five_minutes_or_the_last_ten_events_whichever_is_longer() -> None:
    often, seldom = Throughput(), Throughput()
    for second in range(10_000):
        often.happens(second if second < 5000 else 5000 + (second - 5000) / 4)
    for hour in range(48):
        seldom.happens(hour * 3600)
    assert often.per_second(5000 + 5000 / 4, 10) == pytest.approx(4, rel=0.01)
    assert seldom.per_second(47 * 3600, 10) == pytest.approx(1 / 3600)


def test_the_pace_decreases_while_nothing_happens_and_is_unknown_without_data() -> None:
    pace = Throughput()
    assert pace.per_second(0.0, 3) is None
    for second in range(4):
        pace.happens(second)
    assert [pace.per_second(now, 3) for now in (3, 6, 30)] == [1.0, 0.5, 0.1]
    assert pace.per_second(3, 4) is None


def test_the_remaining_time_is_computed_from_the_epochs_expected_after_pruning() -> None:
    # search trials so far trained 10 and 5 of 10 epochs, so 75 %: 4.5 remain for the running trial, 7.5 for the next;
    # then the best trial and the baseline with two seeds each: 40 epochs. The pace is two epochs per second.
    assert estimate_remaining(picture()) == pytest.approx((4.5 + 7.5 + 40) / 2)


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({"study": study(budget={"trials": 4, "minutes": 1})}, 10),
        ({"study": study(budget={"trials": 4, "epochs": 20})}, (4.5 + 1 + 40) / 2),
        ({"study": study(confirmation={"top_k": 0})}, 12 / 2),
        ({"trials": []}, (10 + 4 * 10 + 40) / 2),
        ({"paces": (0.5, None)}, None),
        ({"state": "finished"}, None),
        ({"state": "training_teachers"}, None),
    ],
)
def test_the_remaining_time_respects_every_budget_and_is_unknown_without_data(
    more: dict[str, Any], seconds: float | None
) -> None:
    paces = {"paces": (None, None)} if more.get("state") == "training_teachers" else {}
    left = estimate_remaining(picture(**paces | more))
    assert left == (seconds if seconds is None else pytest.approx(seconds))


def test_each_member_of_a_population_is_counted_once_in_the_remaining_epochs() -> None:
    pbt = study(scheduler={"kind": "pbt", "population": 2}, confirmation={"top_k": 0})
    branch = {"schedule": [{"after_epoch": 5, "set": {}}], "parent": 2, "replaces": 3}
    trials = [*TRIALS[:2], trial(3, 5, "pruned"), trial(4, 0, "running", **branch)]
    assert estimate_remaining(picture(study=pbt, trials=trials)) == pytest.approx(5 / 2)
    assert "5/10" in format_value(picture(study=pbt, trials=trials))[-1]  # where it begins
    trials[-1] = trial(4, 8, "running", **branch)
    assert estimate_remaining(picture(study=pbt, trials=trials)) == pytest.approx(2 / 2)


def test_during_the_confirmation_only_replicates_are_left_to_train() -> None:
    replicates = [
        trial(5, 10, replicate_of=2, seed=1),
        trial(6, 3, "running", replicate_of=1, seed=1, baseline="kd", sampled={}),
    ]
    now = picture(trials=[*TRIALS[:3], *replicates], state="confirming", planned=4)
    assert estimate_remaining(now) == pytest.approx((7 + 2 * 10) / 2)


# --- the status panel ------------------------------------------------------------------------------------------------


def test_the_panel_of_a_running_study_has_the_expected_text() -> None:
    last = trial(3, 1, "failed", error="the loss became nan in epoch 1, step 5: lower training.optimizer.lr")
    assert format_value(picture(ended=[last, TRIALS[1]])) == [
        "s: running, 0:00:50 so far, about 26 s left",
        "search    ━━━━━━━───── 3/5  2 finished, 1 pruned, 1 running",
        "rate      30.0 trials a minute, 2.0 epochs a second",
        "best      val/nll 0.2500  002 temperature=4",
        "baseline  val/nll 0.3000  001 kd",
        "",
        "         trial                                                   epoch     nll",
        "running  004 temperature=6                                ━━────  4/10  0.6000",
        "failed   003 the loss became nan in epoch 1, step 5: ...  ──────  1/10  0.5000",
        "finished 002 temperature=4                                ━━━━━━ 10/10  0.2500",
    ]


@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("running", [1, 16])
def test_no_line_is_wider_than_the_terminal_and_no_panel_is_taller_than_24_lines(width: int, running: int) -> None:
    many = {f"student.setting_{n}": 0.123456 * n for n in range(12)}
    trials = [trial(n, n % 10, "running", sampled=many) for n in range(10, 10 + running)]
    lines = format_value(picture(trials=[*TRIALS[:3], *trials], ended=TRIALS[:3] * 2), width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24
    assert sum(line.startswith("running") for line in lines) == min(running, 8)
    assert ("... and 8 more" in lines) == (running == 16)


def test_settings_are_truncated_between_words_so_that_no_number_is_cut_off() -> None:
    (row,) = [
        line
        for line in format_value(picture(trials=[trial(4, 4, "running", sampled={"a.b": 1.25, "a.c": 3.75})]), 44)
        if line.startswith("running")
    ]
    assert "004 b=1.25 ..." in row
    assert "c=" not in row


def test_in_a_terminal_without_unicode_the_panel_uses_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=file, width=80, force_terminal=True).print(StudyPanel(picture(ended=TRIALS[:3])))
    file.flush()
    assert b"####" in file.buffer.getvalue()  # type: ignore[attr-defined]


def test_no_text_is_colored_black_or_white() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="truecolor")
    console.print(StudyPanel(picture(ended=[trial(3, 1, "failed", error="x")])))
    codes = set(re.findall(r"\x1b\[([0-9;]*)m", console.file.getvalue()))  # type: ignore[attr-defined]
    assert {word for code in codes for word in code.split(";")} <= {"0", "1", "2", "31", "36"}


def test_after_the_end_of_a_study_the_panel_shows_the_winner_below_the_best_trial() -> None:
    done = [(5, 2, 1, 0.5), (6, 1, 1, 0.3), (7, 1, 2, 0.4)]
    replicates = [trial(n, 10, nll=value, replicate_of=of, seed=seed) for n, of, seed, value in done]
    of = study(confirmation={"top_k": 1, "seeds": 2})
    lines = format_value(picture(trials=[*TRIALS[:3], *replicates], state="finished", study=of, winner=1))
    assert lines[0] == "s: finished after 0:00:50"
    assert lines[-1] == "winner    val/nll 0.3500 +- 0.0707 (2 seeds)  001 kd"


@pytest.mark.parametrize(
    ("state", "shown_state", "command"),
    [
        ("crashed", "crashed (no process is running it)", "ensdistill-tune resume s"),
        ("interrupted", "interrupted", "ensdistill-tune resume s"),
        ("timed_out", "out of time (budget.minutes)", "ensdistill-tune resume s --set budget.minutes=3"),
    ],
)
def test_the_panel_of_a_resumable_study_shows_the_resume_command(state: str, shown_state: str, command: str) -> None:
    timed = study(budget={"trials": 4, "minutes": 1.5})
    lines = format_value(picture(study=timed, state=state, resume="ensdistill-tune resume s"))
    assert lines[0] == f"s: {shown_state} after 0:00:50"
    assert lines[-1] == f"to resume: {command}"


# --- following from another terminal ---------------------------------------------------------------------------------


def started(number: int, **more: Any) -> Event:
    return TrialStarted(trial=number, **({"sampled": {"loss.temperature": 2.0}} | more))


def reported(number: int, epoch: int, nll: float = 0.5) -> Event:
    metrics = {"epoch": float(epoch), "epochs": 10.0, "val/nll": nll}
    return EpochReported(trial=number, metrics=metrics)


def ended(number: int, state: State = "finished") -> Event:
    return TrialEnded(trial=number, state=state)


class Written:
    """The files of a study, as its process would write them."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True)
        self.folder, self.now = StudyDirectory(home), time.time() - 1000
        self.journal = EventLog(self.folder.journal)

    def write(self, *events: Event, after: float = 1.0) -> None:
        """Appends events, each the given number of seconds after the previous one."""
        for event in events:
            self.now += after
            self.journal.append(event.model_copy(update={"at": self.now}))

    def state(self, state: str, **more: Any) -> None:
        given = {"name": "s", "study": study().model_dump(mode="json"), "counts": {}, "total": 5, "best": None}
        self.folder.write_summary(given | {"state": state} | more)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    made = Written(tmp_path / "studies" / "s")
    made.state("running")
    made.write(SessionStarted(), started(1, baseline="kd", sampled={}))
    return made


def test_a_growing_event_log_is_followed_and_no_bytes_are_read_twice(written: Written) -> None:
    outside = StudyFollower(written.folder, "")
    with written.folder.held():
        written.write(*(reported(1, epoch) for epoch in range(1, 5)))
        (first,) = outside.snapshot().trials
        assert (first.state, first.last["epoch"]) == ("running", 4)
        seen = written.folder.journal.stat().st_size
        with written.folder.journal.open("r+b") as file:
            file.write(b"#" * (seen - 1))  # reading this line again raises an error
        written.write(*(reported(1, epoch) for epoch in range(5, 11)), ended(1), started(2))
        now = outside.snapshot()
        assert [(t.state, t.last.get("epoch")) for t in now.trials] == [("finished", 10), ("running", None)]
        assert [t.number for t in now.ended] == [1]


def test_an_incomplete_last_line_is_read_only_after_it_has_been_completed(written: Written) -> None:
    outside = StudyFollower(written.folder, "")
    line = scan(written.folder.journal.read_bytes()).end.encode(reported(1, 1).model_dump())
    with written.folder.held():
        for part, epochs in ((line[:25], None), (line[25:], 1), (line[:1], 1)):
            with written.folder.journal.open("ab") as file:
                file.write(part)
            (one,) = outside.snapshot().trials
            assert one.last.get("epoch") == epochs


def test_a_damaged_line_is_reported_with_its_position_and_a_fix(written: Written) -> None:
    with written.folder.journal.open("ab") as file:
        file.write(b"{gone\n")
    with pytest.raises(
        DataError, match=r"events\.jsonl, line 4 \(from byte \d+\): damaged; `ensdistill-tune fsck s .*`"
    ):
        StudyFollower(written.folder, "").snapshot()


def test_a_study_whose_process_died_is_shown_as_crashed_and_its_trials_as_interrupted(written: Written) -> None:
    written.write(reported(1, 1))
    now = StudyFollower(written.folder, "").snapshot()
    assert (now.state, now.trials[0].state) == ("crashed", "interrupted")
    assert now.seconds == pytest.approx(2)  # from the start of the session to its last event


def test_the_time_between_sessions_is_excluded_from_working_time_and_pace(written: Written) -> None:
    written.write(*(reported(1, epoch) for epoch in range(1, 4)))
    written.write(SessionStarted(), after=500)
    written.write(TrialResumed(trial=1), *(reported(1, epoch) for epoch in range(4, 11)), ended(1))
    written.write(started(2), *(reported(2, epoch) for epoch in range(1, 11)), ended(2))
    written.write(SessionEnded())
    written.state("interrupted")
    now = StudyFollower(written.folder, "").snapshot()
    assert now.seconds == pytest.approx(4 + 8 + 1 + 12 + 1)
    assert {t.state for t in now.trials} == {"finished"}


def test_while_teachers_are_trained_again_no_trial_is_shown_as_running(written: Written) -> None:
    written.state("training_teachers")
    with written.folder.held():
        now = StudyFollower(written.folder, "").snapshot()
    assert format_value(now)[0] == "s: training teachers, 0:00:01 so far"
    assert now.trials[0].state == "interrupted"


def test_the_pace_of_parallel_trials_is_unknown_until_each_has_reported_a_few_epochs(written: Written) -> None:
    outside = StudyFollower(written.folder, "")
    with written.folder.held():
        written.write(*(started(n) for n in range(2, 17)), after=0)
        written.now = time.time() - 100
        written.write(*(reported(n, 1) for n in range(1, 17)), after=0.01)
        assert outside.snapshot().paces == (None, None)
        written.write(*(reported(n, epoch) for epoch in (2, 3, 4) for n in range(1, 17)), after=0.01)
        assert outside.snapshot().paces[1] == pytest.approx(63 / 100, rel=0.1)


def test_the_live_view_ends_with_the_study_and_keeps_the_last_panel(written: Written) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with written.folder.held():
        watcher = threading.Thread(target=follow, args=(console, StudyFollower(written.folder, "")))
        watcher.start()
        written.write(*(reported(1, epoch) for epoch in range(1, 11)), ended(1), SessionEnded())
        written.state("finished")
        watcher.join(30)
    assert not watcher.is_alive()
    last = console.file.getvalue().split("s: ")[-1]  # type: ignore[attr-defined]
    assert last.startswith("finished after")
    assert "val/nll 0.5000  001 kd" in last


def test_ctrl_c_stops_the_view_and_not_the_study(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ensdistill_tune.console.follower.time.sleep", interrupt)
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with written.folder.held():
        follow(console, StudyFollower(written.folder, ""))
    assert console.file.getvalue().endswith("\x1b[?25h")  # type: ignore[attr-defined]


def test_without_a_terminal_the_status_command_prints_one_plain_snapshot(written: Written) -> None:
    where = ("--studies-dir", written.folder.path.parent)
    with written.folder.held():
        written.write(reported(1, 3, nll=0.4))
        for words in (("status", "s"), ("status", "s", "--no-follow")):
            done = call("ensdistill-tune", *words, *where)
            assert done.code == 0, done.err
            assert done.out.startswith("s: running, ")
            assert "\x1b" not in done.out
            assert re.search(r"running 001 kd +━─+ +3/10 +0.4000", done.out)
        result = json.loads(call("ensdistill-tune", "status", "s", "--json", *where).out)
    assert (result["state"], result["seconds_left"]) == ("running", None)
    assert result["rate"] == dict.fromkeys(("trials_per_minute", "epochs_per_second", "images_per_second"))
    assert result["running"] == [
        {"trial": 1, "name": "001 kd", "epoch": 3, "epochs": 10, "value": 0.4, "progress": None}
    ]
    died = call("ensdistill-tune", "status", "s", *where)
    assert f"to resume: ensdistill-tune resume s --studies-dir {written.folder.path.parent}" in died.out


def test_the_status_of_a_missing_study_causes_an_error(tmp_path: Path) -> None:
    done = call("ensdistill-tune", "status", "nobody", "--studies-dir", tmp_path)
    assert (done.code, "no study in this folder" in done.err) == (2, True)


# --- the terminal that runs the study --------------------------------------------------------------------------------


def test_without_a_terminal_a_line_is_printed_for_each_trial_and_each_state_change(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    observer = ConsoleObserver(console, study())
    progress = StudyState(study(), StudyDirectory(tmp_path), {}, trial_warnings, observers=[observer])
    with live(observer, progress):
        progress.start(1, baseline="kd", sampled={}, config_hash="")
        progress.report(1, {"epoch": 10.0, "epochs": 10.0, "val/nll": 0.3})
        progress.end(1, "finished")
        progress.start(2, baseline="kd", sampled={}, config_hash="", replicate_of=1, seed=1)
        progress.end(2, "failed", "no memory")
        progress.state, progress.replicates_planned = "confirming", 2
        progress.start(3, baseline="kd", sampled={}, config_hash="", replicate_of=1, seed=2)
        progress.end(3, "interrupted")
    again = StudyState(study(), StudyDirectory(tmp_path), {}, trial_warnings)
    with live(ConsoleObserver(console, study()), again):
        pass
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "[  1/5] finished  001 kd  val/nll 0.3000",
        "[  1/4] failed    002 replicate of kd, seed 1: no memory",
        "confirming: at most 2 replicates",
        "[  1/2] interrupted 003 replicate of kd, seed 2  no epoch completed",
        "resuming after 1 finished of 5 trials and 2 replicates",
    ]


def test_the_line_of_a_trial_with_many_settings_fits_in_100_columns_and_shows_every_setting(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    progress = StudyState(
        study(), StudyDirectory(tmp_path), {}, trial_warnings, observers=[ConsoleObserver(console, study())]
    )
    sampled = {f"loss.setting_{number}": 0.1234 for number in range(12)}
    progress.start(1, baseline=None, sampled=sampled, config_hash="")
    progress.report(1, {"epoch": 5.0, "epochs": 10.0, "val/nll": 0.3})
    progress.end(1, "pruned")
    progress.start(2, baseline=None, sampled=sampled, config_hash="")
    progress.end(2, "failed", "out of memory " * 12)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("[  1/5] pruned    001  val/nll 0.3000 after 5 of 10 epochs  setting_0=0.123 ")
    assert all(line.startswith((" " * 18, "[")) for line in lines)
    words = " ".join(lines).split()
    assert words.count("memory") == 12
    assert all(words.count(f"setting_{number}=0.123") >= 1 for number in range(12))


def test_a_real_study_prints_a_line_when_the_confirmation_starts(tiny: TinyStudy) -> None:
    lines = tiny.done.out.splitlines()
    planned = tiny.summary["replicates_planned"]
    search_ends = next(n for n, line in enumerate(lines) if line.startswith("[ 10/10]"))
    assert search_ends < lines.index(f"confirming: at most {planned} replicates")
    assert "\x1b" not in tiny.done.out


# --- in real terminals -----------------------------------------------------------------------------------------------


class Terminal:
    """A command in a new pseudo-terminal; its complete output is stored."""

    def __init__(self, *words: str | Path) -> None:
        self._screen, inside = pty.openpty()
        command = [sys.executable, "-m", "ensdistill_tune", *map(str, words)]
        environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        self._process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=environment)
        os.close(inside)
        self.text, self._reader = "", threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(self._screen, 65536):
                self.text += data.decode(errors="replace")

    def wait(self) -> int:
        code = self._process.wait(120)
        self._reader.join(30)
        os.close(self._screen)
        return code


@pytest.fixture
def smallest(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "smallest.yaml"
    file.write_text(TINY.replace("trials: 8", "trials: 2").replace("best: 2", "best: 0"))
    return file


@pytest.mark.e2e
def test_a_study_in_one_terminal_can_be_followed_from_another(smallest: Path) -> None:
    studies = smallest.parent / "studies"
    words = ("--studies-dir", studies, "--name", "seen", "--device", "cpu", "--executor", "inline")
    at_work = Terminal("launch", smallest, *words)
    until = time.monotonic() + 120
    while not (studies / "seen" / "study.json").exists() and time.monotonic() < until:
        time.sleep(0.1)
    outside = Terminal("status", "seen", "--studies-dir", studies)
    assert (at_work.wait(), outside.wait()) == (0, 0), at_work.text + outside.text
    assert "seen: running, 0:00:0" in at_work.text
    assert "[  1/4] finished  001 kd" in at_work.text
    assert "4 of 4 trials" in at_work.text
    assert "seen: finished after" in outside.text
    for terminal in (at_work, outside):
        assert terminal.text.count("\x1b[?25h") == terminal.text.count("\x1b[?25l") > 0, "the cursor is back"


def test_the_panel_shows_the_progress_and_the_loss_and_the_rate_within_a_long_epoch() -> None:
    progress = {4: TrialProgress(epoch=5, share=0.37, loss=1.2345, images_per_second=512.4)}
    lines = format_value(picture(progress=progress, paces=(None, None)), width=100)
    (row,) = [line for line in lines if line.startswith("running")]
    assert row.endswith("0.6000  37 % of epoch 5, loss 1.234, 512 images/s")
    assert "rate      512 images/s" in lines
    assert not any("images/s" in line for line in format_value(picture()))


def test_the_line_of_an_infeasible_trial_states_the_violated_constraint_and_is_never_bold() -> None:
    own = study(constraints={"val/nll": {"at_least": 0.4}})
    assert describe(TRIALS[1], own) == (
        "finished  002  val/nll 0.2500  breaks val/nll 0.25, at least 0.4  temperature=4"
    )
    lines = format_value(picture(study=own))
    assert [line for line in lines if line.startswith("best")] == [
        "best      val/nll 0.2500  breaks a constraint  002 temperature=4"
    ]

"""Malicious files and server responses are refused with the cause, before they can use much memory."""

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from ensdistill.data import image_files, npz
from ensdistill.data.image_files import ImageError, ImageFile
from ensdistill.data.npz import Npz
from ensdistill.errors import DataError
from ensdistill.runtime.weights import read_metadata
from ensdistill_tune.console.live import describe
from ensdistill_tune.records.event_log import EventLog, read_journal
from ensdistill_tune.records.events import SessionStarted, TrialStarted
from ensdistill_tune.records.log_records import LogEnd
from ensdistill_tune.records.trial_record import TrialRecord
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.tracking import server
from ensdistill_tune.tracking.target import MlflowTarget
from ensdistill_tune.tracking.tracker import MlflowTracker
from tests.fake_mlflow import FakeRun, FakeStore

CLEAR = "\x1b[2J\x1b]0;owned\x07"  # escape sequences that clear a terminal and rename its window


# --- images ---


def test_an_npz_file_whose_unpacked_size_exceeds_the_available_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x_train=np.zeros((4000, 32, 32), np.uint8), y_train=np.zeros(4000, int))
    assert (tmp_path / "bomb.npz").stat().st_size < 40_000
    monkeypatch.setattr(npz.os, "sysconf", lambda name: 1000)  # a machine with a memory of one million bytes
    with pytest.raises(DataError, match="does not fit into memory"):
        Npz(path=str(tmp_path / "bomb.npz"))()


def test_an_array_smaller_than_stated_in_its_header_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**9)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue() + b"few")
    with pytest.raises(DataError, match=r"does not fit into memory|is not a readable \.npz file"):
        Npz(path=str(tmp_path / "bomb.npz"))()


def test_a_zip_entry_whose_unpacked_size_exceeds_the_limit_of_an_image_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "PNG")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("owl/1.png", picture.getvalue() + bytes(3 << 20))
    monkeypatch.setattr(image_files, "LARGEST_FILE", 2 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip") as archive:
        image = ImageFile(tmp_path / "bomb.zip", "owl/1.png", archive, archive.getinfo("owl/1.png"))
        with pytest.raises(ImageError, match="it is larger than 2 MiB"):
            image.read((1, 8, 8))


# --- weights ---


@pytest.mark.parametrize("size", [2**63, 2**40, 10**7])
def test_a_safetensors_file_smaller_than_stated_in_its_header_is_refused(size: int, tmp_path: Path) -> None:
    (tmp_path / "student.safetensors").write_bytes(size.to_bytes(8, "little") + b'{"w": {}}')
    with pytest.raises(DataError, match="damaged, or not a safetensors file"):
        read_metadata(tmp_path / "student.safetensors")


def test_a_tensor_beyond_the_end_of_its_safetensors_file_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "student.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(DataError, match="damaged, or not a safetensors file"):
        read_metadata(tmp_path / "student.safetensors")


# --- event logs ---

BODIES = {
    "nested too deeply": b'"event": "trial_started", "trial": 1, "sampled": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a trial that is not a number": b'"event": "trial_started", "trial": "../../1"',
    "a huge number": b'"event": "epoch_reported", "trial": 1, "metrics": {"val/nll": 1' + b"0" * 5000 + b"}",
    "a metric that is NaN": b'"event": "epoch_reported", "trial": 1, "metrics": {"val/nll": NaN}',
    "an unknown event": b'"event": "__import__"',
    "an unknown field": b'"event": "trial_started", "trial": 1, "__class__": "os.system"',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_record_with_a_valid_checksum_and_malicious_content_is_refused(body: bytes, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append(SessionStarted())
    end = LogEnd()
    for line in (tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True):
        end = end.after(line) or end
    line = end.encode({"x": 0}).replace(b'"x": 0', body)
    content = line[line.index(b'"seq"') : -1]
    line = b'{"crc": "%08x", %s\n' % (zlib.crc32(content, end.crc), content)
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(DataError, match="line 3: unknown event"):
        read_journal(tmp_path / "events.jsonl")


def test_the_error_message_of_a_trial_cannot_control_a_terminal() -> None:
    study = StudyConfig.model_validate({"search": {"loss.temperature": {"uniform": [1, 2]}}})
    line = describe(TrialRecord(1, None, {}, "", "failed", error=f"first {CLEAR}\nsecond"), study)
    assert line == "failed    001 : first \\x1b[2J\\x1b]0;owned\\x07\nsecond"


# --- MLflow ---


def tracker(home: Path, store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> MlflowTracker:
    monkeypatch.setattr("mlflow.MlflowClient", store.client)
    study = StudyConfig.model_validate({"search": {"loss.temperature": {"uniform": [1, 2]}}})
    target = MlflowTarget("http://fake", "ensdistill", "study", "id", home, home)
    made = MlflowTracker(target, study, [SessionStarted(at=1), TrialStarted(at=2, trial=1, sampled={})])
    made._closing.set()  # one attempt, in this thread
    return made


def test_an_error_message_of_mlflow_cannot_control_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(when: str) -> None:
        raise MlflowException(f"away {CLEAR}", error_code=1)

    made = tracker(tmp_path, FakeStore(fault), monkeypatch)
    made._work()
    assert made.trouble == "away \\x1b[2J\\x1b]0;owned\\x07"


@pytest.mark.parametrize("number", ["../1", "", "1e9", "9" * 5000])
def test_mlflow_runs_with_malicious_tags_do_not_stop_a_study(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FakeStore()
    store.runs["theirs"] = FakeRun(CLEAR, None, {"study_id": "id", "trial": number})
    made = tracker(tmp_path, store, monkeypatch)
    made._work()
    assert made.close() == 2, "both events are pending"
    assert "invalid literal" in str(made.trouble) or "Exceeds the limit" in str(made.trouble)


# --- servers ---


def test_the_mlflow_server_listens_only_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = list[Any]()

    def popen(command: list[str], **_: Any) -> Any:
        begun.append(command)
        raise InterruptedError

    monkeypatch.setattr(server.subprocess, "Popen", popen)
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    with pytest.raises(InterruptedError):
        server._serve("sqlite:///mlflow.db", 5000, None)
    (command,) = begun
    assert command[command.index("--host") + 1] == "127.0.0.1"

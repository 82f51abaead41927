"""Weights files: errors name the file that cannot be read, and the cause."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ensdistill.errors import DataError
from ensdistill.runtime import weights


def test_weights_are_read_back_unchanged(tmp_path: Path) -> None:
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    weights.save_weights(tmp_path / "a.safetensors", first, {"kind": "linear"})
    assert weights.load_weights(tmp_path / "a.safetensors", second) == {"kind": "linear"}
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_missing_and_damaged_and_foreign_weights_files_cause_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(DataError, match="no such weights file"):
        weights.load_weights(file, nn.Linear(2, 3))
    file.write_bytes(b"no weights")
    with pytest.raises(DataError, match="damaged, or not a safetensors file"):
        weights.load_weights(file, nn.Linear(2, 3))
    weights.save_weights(file, nn.Linear(2, 4), {})
    with pytest.raises(DataError, match="contains the weights of another network"):
        weights.load_weights(file, nn.Linear(2, 3))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged, or not a safetensors file"):
        weights.load_weights(file, nn.Linear(2, 4))


def test_the_fingerprint_depends_on_the_content(tmp_path: Path) -> None:
    assert weights.cached_fingerprint(tmp_path / "a") == "missing"
    (tmp_path / "a").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert weights.cached_fingerprint(tmp_path / "a") == weights.fingerprint(tmp_path / "a") == digest

"""`make gpu-check` without a GPU runs every part, and skips what requires a GPU with the reason."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import gpu_check


def test_a_dry_run_performs_every_measurement_and_writes_a_table_and_a_json_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "MODULES", ("no_such_module",))
    assert gpu_check.main(["--dry-run", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*.json")
    written = json.loads(file.read_text())
    rows = {f"{row['part']}: {row['what']}": row for row in written["rows"]}
    assert rows["correctness: same numbers in two runs"]["value"] == "bit for bit"
    assert rows["correctness: resumed equals undisturbed"]["passed"]
    assert rows["correctness: memory limit of a share"]["value"] == "skipped: requires a GPU"
    assert rows["steps: latentbe, ResNet-8, batch 8"]["figures"]["ours_s"] > 0
    assert rows["input: 40 px: read ahead / in memory"]["figures"]["ratio"] > 0
    assert rows["sharing: 1 at once, without MPS, own cores: trials/h"]["figures"]["trials_per_h"] > 0
    assert rows["sharing: with MPS"]["value"] == "skipped: requires a GPU"
    assert rows["study: a study until the time is over"]["value"] == "skipped: no_such_module not installed"
    assert file.with_suffix(".md").read_text().count("\n| ") == len(written["rows"]) + 2
    assert "written to" in capsys.readouterr().out


def test_a_machine_without_a_gpu_is_refused_except_in_a_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_check.main(["--out", str(tmp_path)]) == 2
    assert "torch finds no GPU" in capsys.readouterr().err

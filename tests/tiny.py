"""A small real study, launched by the real command in this process, for many tests."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from filelock import FileLock

from tests.commands import Done, call

TINY = """
preset: latentbe
config:
  data: {kind: digits, train_size: 60, val_size: 100}
  model: {width: 4}
  teachers: {count: 2, model: {width: 4}, training: {epochs: 4}}
  training: {epochs: 6, batch_size: 10}
search:
  loss.temperature: {log_uniform: [1, 10]}
  student.subnetworks: {integer: [1, 3]}
  averaging.kind: {choice: [none, ema]}
  averaging.decay: {uniform: [0.5, 0.9], when: {averaging.kind: ema}}
  training.optimizer.lr: {choice: [0.05, 100.0]}
baselines: [kd, latentbe]
searcher: {kind: random, seed: 3}
scheduler: {kind: asha, grace_epochs: 2, reduction_factor: 2}
budget: {trials: 8}
confirmation: {top_k: 2, seeds: 2}
resources: {max_retries: 2, max_concurrent: 1}
"""
SHORT = """
preset: kd
config:
  data: {kind: digits, train_size: 40, val_size: 40}
  model: {width: 2}
  teachers: {count: 1, model: {width: 2}, training: {epochs: 1}}
  training: {epochs: 2, batch_size: 20}
search: {loss.temperature: {log_uniform: [1, 10]}}
searcher: {kind: random}
scheduler: {kind: none}
budget: {trials: 3}
confirmation: {top_k: 0}
resources: {checkpoint_interval_s: 0}
"""


@dataclass
class TinyStudy:
    """The launched study."""

    done: Done
    studies: Path
    file: Path

    @property
    def home(self) -> Path:
        return self.studies / "tiny"

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "study.json").read_text()))


def launched(folder: Path) -> TinyStudy:
    """Launches eight trials after two baselines; some always diverge (learning rate 100), some are pruned.

    The first process that needs the study in this folder launches it; the others read its files.
    """
    file, studies, printed = folder / "tiny.yaml", folder / "studies", folder / "done.json"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not printed.exists():
            shutil.rmtree(studies, ignore_errors=True)  # of a process that did not end
            file.write_text(TINY)
            with patch.dict("os.environ", COLUMNS="150"):
                done = call("ensdistill-tune", "launch", file, "--studies-dir", studies, "--executor", "inline")
            if done.code != 0:  # a time limit of pytest interrupts it like Ctrl-C
                raise RuntimeError(f"the tiny study ended with code {done.code}: {done.err}")
            printed.write_text(json.dumps(asdict(done)))
    return TinyStudy(Done(**json.loads(printed.read_text())), studies, file)

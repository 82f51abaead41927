"""Random edits of study files, settings, checkpoints and environments: each is accepted or refused with a clear error.

`python -m tests.fuzz --count 500 --distill 20` loads and checks 500 cases of each kind, and distills 20 of each kind
for one epoch with 60 images. `tests.fuzz_data` does the same with npz and zip files. A case is a function of (kind,
seed, number), so the line that reports a failure contains everything needed to reproduce it.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from ensdistill.config import build_config, load_config
from ensdistill.data import load_data
from ensdistill.models import build
from ensdistill.runtime.boundary import run_command
from ensdistill.training.new_student import check_student
from ensdistill_tune.execution.ray_cluster import start_ray
from tests.commands import Done, call

CHANCE = 0.15  # highest accuracy on 40 images of ten classes that counts as chance
PATHS = ["/nowhere/x", "", "~", "~nobody/x", "a[/b] :x:", "/dev/null", "/proc/self/mem", "x" * 300, "\u00fc?#%20", "/"]
VALUES = [
    "0",
    "-1",
    "1e309",
    ".nan",
    ".inf",
    "null",
    "true",
    "[]",
    "{}",
    "[1, [2, {a: b}]]",
    "{kind: x}",
    "010",
    "1:30",
]
VALUES += ["'text'", "\u00fc", "*", "&a", "!!python/object:os.system x", "!!binary aGk=", "2026-11-29", "1_000", "0x1F"]
VALUES += [
    "1" * 400,
    "0.5",
    "3",
    "10000000000",
    "http://me:planted@h",
    "{choice: [1, 1]}",
    "{uniform: [1, 1]}",
    "~",
    "|",
]
TINY: dict[str, Any] = {
    "preset": "kd",
    "data": {"kind": "digits", "train_size": 60, "val_size": 40, "test_size": 40},
    "model": {"kind": "convnet", "width": 4, "blocks": 1},
    "training": {"epochs": 1, "batch_size": 10},
    "teachers": {"count": 1, "model": {"width": 4, "blocks": 1}, "training": {"epochs": 1, "batch_size": 10}},
}
STUDY = """preset: kd
config:
  data: {kind: digits, train_size: 60, val_size: 40, test_size: 40}
  model: {width: 4, blocks: 1}
  training: {epochs: 2, batch_size: 10}
  teachers: {count: 1, model: {width: 4, blocks: 1}, training: {epochs: 1, batch_size: 10}}
search:
  loss.temperature: {log_uniform: [1, 10]}
  loss.alpha: {uniform: [0.1, 1]}
  averaging.kind: {choice: [none, ema]}
  averaging.decay: {uniform: [0.8, 0.99], when: {averaging.kind: ema}}
  model: {choice: [{kind: convnet}, {kind: resnet, depth: 8}]}
baselines: [kd, labels]
objective: val/nll
secondary_objectives: [cost/flops]
searcher: {kind: tpe, seed: 0}
scheduler: {kind: asha, grace_epochs: 1, reduction_factor: 2}
points_to_evaluate: [{loss.temperature: 3.0}]
budget: {trials: 4}
confirmation: {top_k: 1, seeds: 2}
tracking: {uri: 'sqlite:///mlflow.db'}
resources: {cpus: 1, gpus: 0}
"""
SETTINGS = json.dumps(TINY, indent=1).replace("{\n", "{ \n")


@dataclass
class Case:
    """One edited input.

    Attributes:
        kind: One of `KINDS`.
        number: Index within its kind and seed.
        seed: Seed of all cases of a run.
        edits: Names of the applied edits.
        settings: Settings file passed to `ensdistill distill`.
        study: Study file passed to `ensdistill-tune check`; None if the kind has none.
        environment: Environment variables of the command.
        overrides: Values of --set.
    """

    kind: str
    number: int
    seed: int
    edits: list[str] = field(default_factory=list)
    settings: Path = Path()
    study: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> "Case":
        """Writes the input below a folder and returns the case."""
        rng = random.Random(f"{self.kind} {self.seed} {self.number}")
        self.settings = folder / "config.yaml"
        self.settings.write_text(SETTINGS)
        KINDS[self.kind](self, folder, rng)
        return self

    def __str__(self) -> str:
        return f"{self.kind} {self.number} of seed {self.seed} ({', '.join(self.edits)})"


def cases(seed: int, count: int, kinds: Iterator[str] | None = None) -> Iterator[Case]:
    """Yields `count` cases of each kind."""
    for kind in kinds or KINDS:
        yield from (Case(kind, number, seed) for number in range(count))


def check(case: Case) -> str:
    """Loads and checks a written case, as the commands do.

    Returns:
        "accepted" or "refused".

    Raises:
        AssertionError: A command violated a rule of `_kept`.
    """
    with patch.dict(os.environ, case.environment):
        if case.kind == "environment":
            _kept(case, _captured(_start_ray))
        if case.study:
            return _kept(case, call("ensdistill-tune", "check", case.study, "--no-estimate"))
        return _kept(case, _captured(lambda: _load(case)))


def _load(case: Case) -> int:
    """Runs the checks that `distill` runs before training."""
    config = load_config(case.settings, case.overrides)
    data = load_data(config.data)
    check_student(config, data)
    for file in config.teachers.checkpoints:
        file(data)
    return 0


def _start_ray() -> int:
    with patch("ray.init"):
        start_ray()
    return 0


def _captured(work: Callable[[], int]) -> Done:
    """Runs a function in the error handling of the commands and captures its output."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command(work)
    return Done(code, out.getvalue(), err.getvalue())


def distil(case: Case) -> str:
    """Distills a written case for one epoch with the command; a student at chance level must cause a warning."""
    changes = [word for change in case.overrides for word in ("--set", change)]
    words = [
        "distill",
        case.settings,
        *changes,
        "--json",
        "--device",
        "cpu",
        "--studies-dir",
        case.settings.parent / "r",
    ]
    with patch.dict(os.environ, case.environment):
        done = call("ensdistill", *words)
    told = _kept(case, done)
    if told == "accepted":
        result = json.loads(done.out)
        assert result["val"]["accuracy"] > CHANCE or result["warnings"], "a student at chance without a warning"
    return told


def _kept(case: Case, done: Done) -> str:
    """Checks that a command has a documented exit code, states the cause and prints no secret; returns its outcome."""
    output = done.out + done.err
    assert done.code in (0, 1, 2), (done.code, output)
    assert "Traceback" not in output, output
    assert "unexpected " not in done.err, output  # an exception of another library, whose cause is hidden
    assert "planted" not in output, output
    assert done.code == 0 or re.search(r"^(?:error|usage|skipped|interrupted)", done.err, re.MULTILINE), output
    return "refused" if done.code else "accepted"


# --- text: study files and settings ---


def _edit_text(text: str, rng: random.Random) -> tuple[str, str]:
    """Returns a YAML text with one edit, and the name of the edit."""
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    way = rng.choice(["value", "value", "value", "name", "drop", "twice", "indent", "cut", "character", "swap", "path"])
    if way == "value":
        places = [match.span(1) for match in re.finditer(r": *([^\s,\[\]{}][^,\]}\n]*)", text)]
        begin, end = rng.choice(places or [(0, 0)])
        text = text[:begin] + rng.choice(VALUES) + text[end:]
    elif way == "path":
        text = text.replace("kind: digits", f"kind: npz, path: {json.dumps(rng.choice(PATHS))}")
        text = text.replace('"kind": "digits"', f'"kind": "image_folder", "path": {json.dumps(rng.choice(PATHS))}')
    elif way == "name":
        names = [match.span(0) for match in re.finditer(r"[a-z_]+(?=\"?:)", text)]
        begin, end = rng.choice(names or [(0, 0)])
        text = text[:begin] + rng.choice(["x", "kind", "", "\u00fc", "a.b", "search", "0", "null"]) + text[end:]
    elif way == "drop":
        text = "".join(lines[:at] + lines[at + 1 :])
    elif way == "twice":
        text = "".join(lines[: at + 1] + lines[at:])
    elif way == "indent":
        text = "".join([*lines[:at], rng.choice([" ", "   ", "\t"]) + lines[at], *lines[at + 1 :]])
    elif way == "cut":
        text = text[: rng.randrange(len(text))]
    elif way == "swap":
        rng.shuffle(lines)
        text = "".join(lines)
    else:
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice(":{}[],&*#?|-<>=!%@`'\"\\\0\x07\u2028\ufeff") + text[place:]
    return text, way


def _write_study(case: Case, folder: Path, rng: random.Random) -> None:
    text = STUDY
    for _ in range(rng.choice([1, 1, 2, 3])):
        if text:
            text, way = _edit_text(text + "\n", rng)
            case.edits.append(way)
    case.study = folder / "study.yaml"
    case.study.write_bytes(_maybe_damaged(text.encode(), case, rng))
    found = re.search(r"config:\n((?:  .*\n)+)", text)  # the settings with which a student would be distilled
    case.settings.write_text(f"preset: kd\n{re.sub('^  ', '', found[1], flags=re.MULTILINE) if found else ''}")


def _write_settings(case: Case, folder: Path, rng: random.Random) -> None:
    text = SETTINGS
    for _ in range(rng.choice([0, 1, 1, 2])):
        if text:
            text, way = _edit_text(text + "\n", rng)
            case.edits.append(way)
    case.settings.write_bytes(_maybe_damaged(text.encode(), case, rng))
    names = [
        "training.optimizer.lr",
        "data.path",
        "data.train_size",
        "teachers.checkpoints",
        "model",
        "loss.alpha",
        "x",
        "",
        "a..b",
        "model.kind",
    ]
    for _ in range(rng.choice([0, 0, 1, 2])):
        name = rng.choice(names)
        value = json.dumps(rng.choice(PATHS)) if name.endswith("path") else rng.choice(VALUES)
        case.overrides.append(f"{name}{rng.choice(['=', '=', '=', ':', ''])}{value}")
        case.edits.append(f"--set {case.overrides[-1]}"[:80])


def _maybe_damaged(raw: bytes, case: Case, rng: random.Random) -> bytes:
    if rng.random() < 0.9:
        return raw
    case.edits.append("damage")
    at = rng.randrange(len(raw) + 1)
    return rng.choice(
        [b"", raw[:at] + bytes([rng.randrange(256)]) + raw[at:], b"\xff\xfe" + raw, rng.randbytes(60), b"\0"]
    )


# --- checkpoints ---


@cache
def _sound() -> dict[str, torch.Tensor]:
    """Returns the weights of a small network of this project."""
    config = build_config(TINY)
    return dict(build(config.model, load_data(config.data), 0).state_dict())


def _edit_state(state: dict[str, Any], rng: random.Random) -> tuple[Any, str]:
    """Returns weights, or a container of them, with one edit, and the name of the edit."""
    name = rng.choice(sorted(state)) if state else ""
    tensor = state.get(name)
    way = rng.choice(["prefix", "wrap", "drop", "add", "shape", "type", "values", "rename", "object", "nest"])
    if way == "prefix":
        before = rng.choice(["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "x."])
        return {f"{before}{key}": value for key, value in state.items()}, way
    if way == "wrap":
        return {rng.choice(["state_dict", "model", "ema", "net", "x"]): state, "epoch": 3, "args": [1, "a"]}, way
    if way == "nest":
        return [state, state], way
    if way == "drop" and name:
        return {key: value for key, value in state.items() if key != name}, way
    if way == "add":
        return state | {rng.choice(["extra", "", "0.0", name + ".x"]): torch.zeros(rng.randrange(3))}, way
    if way == "object":
        return state | {name or "x": rng.choice([None, 3, "text", [1], {"a": 1}, object, 1.5])}, way
    if way == "rename" and name:
        return {(f"{key}_" if key == name else key): value for key, value in state.items()}, way
    if isinstance(tensor, torch.Tensor):
        new: list[Any] = [tensor.flatten(), tensor[None], tensor.double(), tensor.half(), tensor.long(), tensor > 0]
        if way == "values":
            new = [tensor * value for value in (float("nan"), float("inf"), 0, 1e30, -1)]
        return state | {name: rng.choice(new)}, way
    return state, "nothing"


def _write_checkpoint(case: Case, folder: Path, rng: random.Random) -> None:
    state: Any = _sound()
    for _ in range(rng.choice([1, 1, 2])):
        if isinstance(state, dict):
            state, way = _edit_state(state, rng)
            case.edits.append(way)
    file = folder / rng.choice(["t.pt", "t.pth", "t.safetensors", "t", "t [x].ckpt"])
    tensors = (
        {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
        if isinstance(state, dict)
        else {}
    )
    if file.suffix == ".safetensors" and tensors:
        save_file({key: value.contiguous().clone() for key, value in tensors.items()}, file)
    else:
        torch.save(state, file)
    raw = file.read_bytes()
    if rng.random() < 0.3:
        case.edits.append("damage")
        at = rng.randrange(len(raw))
        changed = raw[:at] + rng.randbytes(8) + raw[at + 8 :]
        raw = rng.choice([raw[:at], b"", changed, rng.randbytes(99), raw + b"x" * 9])
        file.write_bytes(raw)
    tree = TINY | {"teachers": TINY["teachers"] | {"checkpoints": [{"path": file.name, "model": TINY["model"]}]}}
    case.settings.write_text(json.dumps(tree))


# --- environments ---

WORDS = ["", " ", "1", "0", "-1", "abc", "\u00fc", "x" * 200, "true", "a b", "[x]", "/nowhere", "\udcff", "1e9", "None"]
VARIABLES: dict[str, list[str]] = {
    "RAY_ADDRESS": ["ray://h:1", "h", ":1", "h:", "auto", " local", "h:99999999", "http://h", "[::1]:9", "127.0.0.1:9"],
    "RAY_TMPDIR": ["/nowhere/x", "relative", "/dev/null", "/" + "x" * 90, "/proc/x"],
    "TMPDIR": ["/nowhere/x", "relative", "/dev/null", "/" + "x" * 90],
    "MLFLOW_TRACKING_URI": ["http://me:planted@h:1", "nonsense://", "sqlite:///x.db", "postgresql://a:planted@h/b"],
    "MLFLOW_TRACKING_TOKEN": ["planted-token", "planted\n"],
    "MLFLOW_TRACKING_PASSWORD": ["planted-password"],
    "HTTPS_PROXY": ["http://me:planted@proxy:1"],
    "AWS_SECRET_ACCESS_KEY": ["planted/aws+key="],
    "HOME": ["/nowhere", "/dev/null", "relative"],
    "TORCH_HOME": ["/nowhere", "/dev/null"],
    "XDG_CACHE_HOME": ["/nowhere", "/dev/null"],
    "COLUMNS": ["1", "99999", "-5", "\u00b2"],
    "LINES": ["1", "0"],
    "TERM": ["dumb", "unknown", "xterm-256color"],
    "NO_COLOR": ["1"],
    "FORCE_COLOR": ["1"],
    "LANG": ["C", "de_DE.UTF-8", "xx"],
    "LC_ALL": ["C", "POSIX"],
    "PYTHONIOENCODING": ["ascii", "latin-1"],
    "OMP_NUM_THREADS": ["1"],
    "CUDA_VISIBLE_DEVICES": ["-1"],
    "PGPASSWORD": ["planted-pg"],
    "ENSDISTILL_TRACEBACK": [],
}


def _write_environment(case: Case, folder: Path, rng: random.Random) -> None:
    for name in rng.sample(sorted(VARIABLES), rng.randrange(1, 4)):
        value = rng.choice([*VARIABLES[name], *VARIABLES[name], *WORDS])
        if name != "ENSDISTILL_TRACEBACK":
            case.environment[name] = value
            case.edits.append(f"{name}={value!r}"[:60])
    case.study = folder / "study.yaml"
    case.study.write_text(STUDY)


KINDS: dict[str, Callable[[Case, Path, random.Random], None]] = {
    "study": _write_study,
    "settings": _write_settings,
    "checkpoint": _write_checkpoint,
    "environment": _write_environment,
}


# --- the command ---


def failure(case: Case, do: Callable[[Case], object]) -> str | None:
    """Writes a case into a temporary folder and applies a function to it; returns the failure, or None."""
    with tempfile.TemporaryDirectory(prefix="fuzz [x] ") as folder:
        try:
            do(case.write(Path(folder)))
        except Exception:  # the failures to be found
            return f"{case}\n{traceback.format_exc()}"
    return None


def main() -> int:
    """Returns 0 if no case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500, help="how many of each kind are loaded and checked (500)")
    parser.add_argument("--distill", type=int, default=20, help="how many of each kind are distilled (20)")
    parser.add_argument("--kind", choices=list(KINDS), nargs="+", default=list(KINDS))
    options = parser.parse_args()
    outcomes, failures = Counter[str](), 0

    def told(name: str, do: Callable[[Case], str], case: Case) -> None:
        nonlocal failures
        wrong = failure(case, lambda case: outcomes.update([f"{case.kind} {name} {do(case)}"]))
        if wrong:
            failures += 1
            print(wrong, flush=True)

    for case in cases(options.seed, options.count, options.kind):
        told("checked:", check, case)
    for case in cases(options.seed + 1, options.distill, options.kind):
        told("distilled:", distil, case)
    print("\n".join(f"{name}: {count}" for name, count in sorted(outcomes.items())))
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

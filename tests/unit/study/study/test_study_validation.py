"""All errors in a search space file are reported together with their lines, before any work."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import ray

from ensdistill.methods.perturbations import PERTURBATIONS
from ensdistill.settings.validation import kind_of
from ensdistill_tune.search.hyperparameter import KINDS
from ensdistill_tune.search.schedulers import Scheduler
from ensdistill_tune.search.searchers import Searcher
from ensdistill_tune.study.loading import load_study
from ensdistill_tune.study.study_config import StudyConfig
from ensdistill_tune.study.validation import class_issues, study_warnings
from tests.commands import call

FOLDER = "a folder"
MISSING = "no file"
SEARCH = "search: {seed: {choice: [1, 2]}}\n"  # a valid file


def kinds(union: Any, having: str = "kind") -> str:
    """Returns the kinds of the pieces that have a certain setting."""
    return ", ".join(kind_of(piece) for piece in get_args(get_args(union)[0]) if having in piece.model_fields)


NAMES = {  # lists that grow with the project
    "<ways>": ", ".join(KINDS),
    "<searchers>": kinds(Searcher),
    "<schedulers>": kinds(Scheduler),
    "<perturbations>": ", ".join(PERTURBATIONS.built_in),
    "<reducing schedulers>": kinds(Scheduler, "reduction_factor"),
}


def axis(text: str) -> str:
    """Returns a file with this search from line 3 on."""
    return f"preset: latentbe\nsearch:\n  {text}\n"


# name of the case, content of the file, text after `error: FILE`
BROKEN: list[tuple[str, str | bytes, str]] = [
    # not a settings file
    ("missing file", MISSING, ": No such file or directory"),
    ("folder", FOLDER, ": Is a directory"),
    ("binary file", b"\x93NUMPY\x01\x00\xff\xfe\x00\x81", " is not a text file"),
    ("Latin-1", b"preset: kd\n# caf\xe9\n", ", line 2: byte 0xe9 is not UTF-8. Save the file as UTF-8."),
    ("UTF-16", "preset: kd\n".encode("utf-16"), " is UTF-16. Save it as UTF-8."),
    ("zero byte", "preset: kd\nsea\x00rch: {}\n", ", line 2: a control character; remove it"),
    ("empty file", "", ": expected a mapping of names to values, found nothing"),
    ("comments alone", "# to do\n", ": expected a mapping of names to values, found nothing"),
    ("list", "- preset: kd\n", ": expected a mapping of names to values, found a list"),
    ("one word", "latentbe\n", ": expected a mapping of names to values, found a text"),
    # objectives and points to evaluate
    (
        "objective twice",
        SEARCH + "secondary_objectives: [val/nll]\n",
        ", line 2: secondary_objectives.0: val/nll is already an objective; remove it",
    ),
    (
        "two objectives for median",
        SEARCH + "secondary_objectives: [cost/flops]\nscheduler: {kind: median}\n",
        ", line 3: scheduler.kind: median supports a single objective; with secondary_objectives use asha or none",
    ),
    (
        "grouped by a setting that is not searched",
        SEARCH + "scheduler: {group_by: [loss.temprature], kind: asha}\n",
        ", line 2: scheduler.group_by.0: loss.temprature is not searched",
    ),
    (
        "grouped by a range",
        "search: {loss.temperature: {uniform: [1, 2]}}\nscheduler: {group_by: [loss.temperature], kind: asha}\n",
        ", line 2: scheduler.group_by.0: loss.temperature differs in every trial; use axes with finitely many values",
    ),
    (
        "tolerance of one",
        SEARCH + "secondary_objectives: [cost/flops]\nscheduler: {tolerance: [0.1], kind: asha}\n",
        ", line 3: scheduler.tolerance: must have one number for each of 2 objectives, got 1",
    ),
    (
        "grid of a range",
        axis("training.optimizer.lr: {log_uniform: [0.01, 0.1]}\nsearcher: {kind: grid}"),
        ", line 3: search.training.optimizer.lr: the grid searcher requires finitely many values, "
        "got log_uniform; list them",
    ),
    (
        "first of no axis",
        SEARCH + "points_to_evaluate: [{sed: 1}]\n",
        ", line 2: points_to_evaluate.0.sed: not a searched setting (did you mean seed?)",
    ),
    (
        "first out of range",
        SEARCH + "points_to_evaluate: [{seed: 3}]\n",
        ", line 2: points_to_evaluate.0.seed: 3 is outside its domain: choice [1, 2]",
    ),
    (
        "epochs of none",
        SEARCH + "budget: {epochs: 0}\n",
        ", line 2: budget.epochs: must be greater than or equal to 1, not 0",
    ),
    (
        "no slots",
        SEARCH + "resources: {max_concurrent: 0}\n",
        ", line 2: resources.max_concurrent: must be greater than or equal to 1, not 0",
    ),
    ("warm start of nothing", SEARCH + "warm_start: {}\n", ", line 2: warm_start.study: must be given"),
    # --- YAML
    ("tab", "search:\n\tseed: {choice: [1]}\n", ", line 2: a tab; indent with spaces"),
    (
        "open bracket",
        SEARCH + "budget: {trials: 3\nbaselines: [kd]\n",
        ", line 3: the bracket on line 2 is not closed by }",
    ),
    ("wrong bracket", "search:\n  seed: {choice: [1, 2}}\n", ", line 2: the bracket on line 2 is not closed by ]"),
    ("open quote", SEARCH + "preset: 'kd\n", ", line 3: the quote on line 2 is not closed"),
    ("no colon", "preset: kd\nsearch\n  seed: {choice: [1]}\n", ", line 3: the name on line 2 has no ': value'"),
    (
        "indented too far",
        "preset: kd\n  search: {seed: {choice: [1]}}\n",
        ", line 2: `name: value` is not allowed; check the indentation, or put text that contains ': ' in quotes",
    ),
    (
        "indented too little",
        "search:\n   seed: {choice: [1]}\n  budget: {}\n",
        ", line 3: the indentation differs from that of the lines above",
    ),
    ("at sign", SEARCH + "preset: @kd\n", ", line 2: text cannot begin with '@'; put it in quotes"),
    (
        "unknown alias",
        SEARCH + "config: *mine\n",
        ", line 2: the alias *mine is not defined; put text that begins with * in quotes",
    ),
    (
        "backslash",
        SEARCH + 'config: {data: {kind: npz, path: "D:\\my.npz"}}\n',
        ", line 2: unknown escape \\m in double quotes; use single quotes",
    ),
    (
        "two documents",
        SEARCH + "---\n" + SEARCH,
        ", line 2: a second document starts here; a file must contain only one",
    ),
    (
        "axis written twice",
        axis("seed: {choice: [1]}\n  training.optimizer.lr: {choice: [0.1]}\n  seed: {choice: [2]}"),
        ", line 5: seed is given twice (first on line 3)",
    ),
    (
        "name that is a truth value",
        SEARCH + "config:\n  true: 3\n",
        ", line 3: true: names in a mapping must be strings; put this name in quotes",
    ),
    (
        "tag that builds an object",
        "preset: kd\nsearch: !!python/object/apply:os.system ['true']\n",
        ", line 2: !!python/object/apply:os.system: only plain values are allowed; remove the tag",
    ),
    # --- names at every level
    ("unknown name", SEARCH + "baseline: [kd]\n", ", line 2: baseline: no such setting (did you mean baselines?)"),
    (
        "setting of trials beside config",
        SEARCH + "training: {epochs: 3}\n",
        ", line 2: training: no such setting of a study (did you mean config.training?)",
    ),
    (
        "setting of trials without its section",
        SEARCH + "batch_size: 3\n",
        ", line 2: batch_size: no such setting of a study (did you mean config.training.batch_size?)",
    ),
    (
        "setting of a study without its section",
        SEARCH + "trials: 9\n",
        ", line 2: trials: no such setting (did you mean budget.trials?)",
    ),
    (
        "unknown name in a section",
        SEARCH + "budget: {trails: 9}\n",
        ", line 2: budget.trails: no such setting (did you mean trials?)",
    ),
    (
        "unknown name in config",
        SEARCH + "config:\n  training:\n    epoch: 3\n",
        ", line 4: config.training.epoch: no such setting (did you mean epochs?)",
    ),
    (
        "setting in the wrong section",
        SEARCH + "config:\n  loss: {step_size: 0.1}\n",
        ", line 3: config.loss.step_size: no such setting of one_to_one (did you mean perturbation.step_size?)",
    ),
    (
        "unknown axis",
        axis("loss.temprature: {uniform: [1, 2]}"),
        ", line 3: search.loss.temprature: no such setting (did you mean loss.temperature?)",
    ),
    (
        "axis without its section",
        axis("temperature: {uniform: [1, 2]}"),
        ", line 3: search.temperature: no such setting (did you mean loss.temperature?)",
    ),
    (
        "axis below a number",
        axis("seed.x: {choice: [1]}"),
        ", line 3: search.seed.x = 1: seed: must be a whole number, not {'x': 1}",
    ),
    (
        "unknown way",
        axis("loss.temperature: {unifrom: [1, 2]}"),
        ", line 3: search.loss.temperature.unifrom: no such setting (did you mean uniform?)",
    ),
    # missing values and wrong types
    ("no search", "preset: kd\n", ": search: must be given"),
    ("search without axes", "preset: kd\nsearch: {}\n", ", line 2: search: must have at least 1 value, not {}"),
    (
        "search without anything",
        "preset: kd\nsearch:\n",
        ", line 2: search: must be a mapping of names to values, not null",
    ),
    ("search as a list", "search:\n  - seed\n", ", line 1: search: must be a mapping of names to values, not ['seed']"),
    ("axis as a list", axis("seed: [1, 2]"), ", line 3: search.seed: must be a mapping of names to values, not [1, 2]"),
    ("no way to draw", axis("seed: {}"), ", line 3: search.seed: give exactly one of <ways>, got 0"),
    (
        "two ways to draw",
        axis("seed:\n    choice: [1]\n    integer: [1, 2]"),
        ", line 3: search.seed: give exactly one of <ways>, got 2",
    ),
    (
        "choice of nothing",
        axis("seed: {choice: []}"),
        ", line 3: search.seed.choice: must have at least 1 value, not []",
    ),
    ("choice that is no list", axis("seed: {choice: 3}"), ", line 3: search.seed.choice: must be a list, not 3"),
    (
        "range of one number",
        axis("training.optimizer.lr:\n    uniform: [0.1]"),
        ", line 4: search.training.optimizer.lr.uniform: must have at least 2 values, not [0.1]",
    ),
    (
        "range of three numbers",
        axis("seed: {integer: [1, 2, 3]}"),
        ", line 3: search.seed.integer: must have at most 2 values, not [1, 2, 3]",
    ),
    (
        "range with a word",
        axis("training.optimizer.lr: {uniform: [0.1, high]}"),
        ", line 3: search.training.optimizer.lr.uniform.1: must be a number, not 'high'",
    ),
    (
        "range without end",
        axis("training.optimizer.lr: {uniform: [0.1, .inf]}"),
        ", line 3: search.training.optimizer.lr.uniform.1: must be a finite number, not inf",
    ),
    (
        "whole numbers with a fraction",
        axis("student.subnetworks: {integer: [1, 2.5]}"),
        ", line 3: search.student.subnetworks.integer.1: must be a whole number, not 2.5",
    ),
    (
        "config as a list",
        SEARCH + "config: [kd]\n",
        ", line 2: config: must be a mapping of names to values, not ['kd']",
    ),
    (
        "section as a word",
        SEARCH + "config: {student: branches}\n",
        ", line 2: config.student: must be a mapping of names to values, not 'branches' (did you mean {kind: "
        "branches}?)",
    ),
    ("preset as a list", SEARCH + "preset: [kd]\n", ", line 2: preset: must be text, not ['kd']"),
    ("baselines as a word", SEARCH + "baselines: kd\n", ", line 2: baselines: must be a list, not 'kd'"),
    (
        "number with a unit",
        SEARCH + "budget: {minutes: 30 min}\n",
        ", line 2: budget.minutes: must be a number, not '30 min'",
    ),
    # values of hyperparameters
    (
        "range upside down",
        axis("loss.temperature: {uniform: [4, 1]}"),
        ", line 3: search.loss.temperature: uniform: the first number must be smaller than the second, got [4.0, 1.0]",
    ),
    (
        "range of nothing",
        axis("seed: {integer: [2, 2]}"),
        ", line 3: search.seed: integer: the first number must be smaller than the second, got [2, 2]",
    ),
    (
        "logarithm of zero",
        axis("loss.temperature: {log_uniform: [0, 1]}"),
        ", line 3: search.loss.temperature: log_uniform: both numbers must be above 0, got [0.0, 1.0]",
    ),
    (
        "low end out of range",
        axis("loss.temperature: {uniform: [0.01, 4]}"),
        ", line 3: search.loss.temperature: must be greater than or equal to 0.05, not 0.01",
    ),
    (
        "high end out of range",
        axis("training.optimizer.momentum: {uniform: [0.5, 1]}"),
        ", line 3: search.training.optimizer.momentum: must be less than 1, not 1.0",
    ),
    (
        "choice of the wrong type",
        axis("student.subnetworks: {choice: [2, 2.5]}"),
        ", line 3: search.student.subnetworks: must be a whole number, not 2.5",
    ),
    (
        "choice beside a truth value",
        axis("training.optimizer.nesterov: {choice: [true, nope]}"),
        ", line 3: search.training.optimizer.nesterov: must be true or false, not 'nope'",
    ),
    (
        "choice of an unknown kind",
        axis("student.kind: {choice: [single, batchensemble]}"),
        ", line 3: search.student.kind: 'batchensemble' is not one of batch_ensemble, branches, single (did you mean "
        "batch_ensemble?)",
    ),
    (
        "axis of another kind",
        axis("averaging.decay: {uniform: [0.5, 0.9]}"),
        ", line 3: search.averaging.decay: no such setting of none (it belongs to ema)",
    ),
    (
        "pair of values that cannot be together",
        axis(
            "student.merge: {choice: [product_of_means, mean_of_probabilities]}\n"
            "  student.merge_after: {choice: [1.0, 0.5]}"
        ),
        ", line 3: search.student.merge = 'mean_of_probabilities' with search.student.merge_after = 0.5: student: "
        "merge_after: mean_of_probabilities does not merge weights; set merge_after to 1, or change merge",
    ),
    (
        "searched data",
        axis("data.train_size: {integer: [100, 200]}"),
        ", line 3: search.data.train_size: all trials share the data, the teachers and the number of epochs; move this "
        "setting to config",
    ),
    (
        "searched teachers",
        axis("teachers.count: {integer: [2, 4]}"),
        ", line 3: search.teachers.count: all trials share the data, the teachers and the number of epochs; move this "
        "setting to config",
    ),
    (
        "searched length",
        axis("training.epochs: {integer: [2, 4]}"),
        ", line 3: search.training.epochs: all trials share the data, the teachers and the number of epochs; move this "
        "setting to config",
    ),
    # --- conditions
    (
        "condition that is no mapping",
        axis("seed: {choice: [1], when: ema}"),
        ", line 3: search.seed.when: must be a mapping of names to values, not 'ema'",
    ),
    (
        "condition on a misspelt axis",
        axis(
            "averaging.kind: {choice: [none, ema]}\n"
            "  averaging.decay: {uniform: [0.5, 0.9], when: {averaging.knd: ema}}"
        ),
        ", line 4: search.averaging.decay.when.averaging.knd: not a searched setting (did you mean averaging.kind?)",
    ),
    (
        "condition on what is not searched",
        axis("seed:\n    choice: [1]\n    when:\n      training.optimizer.lr: 0.1"),
        ", line 6: search.seed.when.training.optimizer.lr: not a searched setting; remove the condition",
    ),
    (
        "condition on a range",
        axis("training.optimizer.lr: {uniform: [0.1, 0.2]}\n  seed: {choice: [1], when: {training.optimizer.lr: 0.1}}"),
        ", line 4: search.seed.when.training.optimizer.lr: a condition requires an axis with finitely many values; "
        "training.optimizer.lr is "
        "uniform [0.1, 0.2]",
    ),
    (
        "condition on a value that never occurs",
        axis(
            "averaging.kind: {choice: [none, ema]}\n"
            "  averaging.decay: {uniform: [0.5, 0.9], when: {averaging.kind: [ema, swa]}}"
        ),
        ", line 4: search.averaging.decay.when.averaging.kind: 'swa' is outside the domain; averaging.kind is choice "
        "['none', 'ema']",
    ),
    (
        "condition on a number out of the range",
        axis("student.subnetworks: {integer: [2, 4]}\n  seed: {choice: [1], when: {student.subnetworks: 8}}"),
        ", line 4: search.seed.when.student.subnetworks: 8 is outside the domain; student.subnetworks is integer "
        "[2, 4]",
    ),
    (
        "condition on no value",
        axis("averaging.kind: {choice: [none, ema]}\n  seed: {choice: [1], when: {averaging.kind: []}}"),
        ", line 4: search.seed.when.averaging.kind: must not be an empty list; averaging.kind is choice "
        "['none', 'ema']",
    ),
    (
        "conditions in a circle",
        axis(
            "training.optimizer.lr: {choice: [0.1], when: {training.optimizer.momentum: 0.5}}\n"
            "  training.optimizer.momentum: {choice: [0.5], when: {training.optimizer.lr: 0.1}}"
        ),
        ", line 3: search.training.optimizer.lr.when: training.optimizer.lr, training.optimizer.momentum depend "
        "on each other; remove one of the conditions",
    ),
    (
        "nested conditions that contradict each other",
        axis(
            "averaging.kind: {choice: [none, ema]}\n"
            "  seed: {choice: [1, 2], when: {averaging.kind: none}}\n"
            "  averaging.decay:\n"
            "    uniform: [0.5, 0.9]\n"
            "    when: {averaging.kind: ema, seed: 2}"
        ),
        ", line 7: search.averaging.decay.when: its conditions exclude each other",
    ),
    # --- presets, baselines, fixed settings
    (
        "unknown preset",
        "preset: latentb\n" + SEARCH,
        ", line 1: preset: 'latentb' is not a preset (did you mean latentbe?)",
    ),
    (
        "unknown baseline",
        SEARCH + "baselines:\n- kd\n- aked\n",
        ", line 4: baselines.1: 'aked' is not a preset (did you mean aekd?)",
    ),
    (
        "baseline that is not possible with the config",
        "preset: kd\nconfig: {teachers: {count: 1}}\n" + SEARCH + "baselines: [kd, latentbe]\n",
        ", line 4: baselines.1: latentbe is not possible with this config: perturbation: tdiv_sdiv requires at least "
        "two teachers; set teachers.count to 2 or more",
    ),
    (
        "preset in config",
        SEARCH + "config: {preset: kd}\n",
        ", line 2: config.preset: config has no such setting; move it out of config",
    ),
    (
        "axis given twice, nested and dotted",
        "search:\n  loss:\n    alpha: {uniform: [0, 1]}\n  loss.alpha: {uniform: [0, 0.5]}\n",
        ", line 4: search.loss.alpha: set twice",
    ),
    (
        "nested axis that is no setting",
        "search:\n  loss:\n    alhpa: {uniform: [0, 1]}\n",
        ", line 3: search.loss.alhpa: no such setting (did you mean loss.alpha?)",
    ),
    (
        "setting given twice",
        SEARCH + "config:\n  training.optimizer.lr: 0.1\n  training: {optimizer: {lr: 0.2}}\n",
        ", line 3: config.training.optimizer.lr: set twice",
    ),
    (
        "fixed value out of range",
        SEARCH + "config: {training.optimizer.lr: 0}\n",
        ", line 2: config.training.optimizer.lr: must be greater than 0, not 0",
    ),
    (
        "more images a step than there are",
        SEARCH + "config:\n  training:\n    batch_size: 151\n",
        ", line 4: config.training.batch_size: 151 is more than the 150 training images",
    ),
    (
        "data without a path",
        SEARCH + "config:\n  data: {kind: image_folder}\n",
        ", line 3: config.data.path: must be given",
    ),
    (
        "fixed setting of a searched kind",
        "preset: kd\nsearch: {averaging.kind: {choice: [ema, swa]}}\nconfig: {averaging: {start: 0.5}}\n",
        ", line 3: config.averaging.start: no such setting of none (it belongs to ema, swa); averaging.kind is "
        "searched, so make this setting an axis with a condition",
    ),
    # --- the study itself
    (
        "unknown objective",
        SEARCH + "objective: nll\n",
        ", line 2: objective: no trial reports nll (did you mean val/nll?)",
    ),
    (
        "latency as objective",
        SEARCH + "secondary_objectives: [cost/latency_ms]\n",
        ", line 2: secondary_objectives.0: cost/latency_ms cannot be an objective, because it depends on the "
        "machine and its load. Bound it (constraints: {cost/latency_ms: {at_most: 2}}).",
    ),
    (
        "cost alone as objective",
        SEARCH + "objective: cost/flops\n",
        ", line 2: objective: cost/flops cannot be the primary objective. Make it one of secondary_objectives.",
    ),
    (
        "constraint on what no trial reports",
        SEARCH + "constraints:\n  val/macro_f2: {at_least: 0.5}\n",
        ", line 3: constraints.val/macro_f2: no trial reports val/macro_f2 (did you mean val/macro_f1?)",
    ),
    (
        "hours of a GPU that no trial has",
        SEARCH + "budget: {gpu_hours: 3}\n",
        ", line 2: budget.gpu_hours: has no effect, because trials have no GPU (resources.gpus is 0). Remove it, "
        "or set budget.cpu_hours.",
    ),
    (
        "unknown searcher",
        SEARCH + "searcher: {kind: tep}\n",
        ", line 2: searcher.kind: 'tep' is not one of <searchers> (did you mean tpe?)",
    ),
    (
        "searcher without a kind",
        SEARCH + "searcher: {seed: 3}\n",
        ", line 2: searcher.kind: must be given (<searchers>)",
    ),
    (
        "unknown scheduler",
        SEARCH + "scheduler:\n  kind: ahsa\n",
        ", line 3: scheduler.kind: 'ahsa' is not one of <schedulers> (did you mean asha?)",
    ),
    (
        "scheduler as a word",
        SEARCH + "scheduler: asha\n",
        ", line 2: scheduler: must be a mapping of names to values, not 'asha' (did you mean {kind: asha}?)",
    ),
    (
        "setting of another scheduler",
        SEARCH + "scheduler:\n  kind: median\n  reduction_factor: 3\n",
        ", line 4: scheduler.reduction_factor: no such setting of median (it belongs to <reducing schedulers>)",
    ),
    (
        "no trials",
        SEARCH + "budget: {trials: 0}\n",
        ", line 2: budget.trials: must be greater than or equal to 1, not 0",
    ),
    (
        "negative minutes",
        SEARCH + "budget: {minutes: -5}\n",
        ", line 2: budget.minutes: must be greater than 0, not -5",
    ),
    (
        "negative cores",
        SEARCH + "resources: {cpus: -1}\n",
        ", line 2: resources.cpus: must be greater than or equal to 0.01, not -1",
    ),
    (
        "negative GPUs",
        SEARCH + "resources:\n  gpus: -0.5\n",
        ", line 3: resources.gpus: must be greater than or equal to 0, not -0.5",
    ),
    (
        "one seed",
        SEARCH + "confirmation: {seeds: 1}\n",
        ", line 2: confirmation.seeds: must be greater than or equal to 2, not 1",
    ),
]


def refused(file: Path, *words: str) -> list[str]:
    """Returns the errors of `launch` without `error: `, with FILE for the path; asserts that no work was done."""
    studies = file.parent / "studies"
    done = call("ensdistill-tune", "launch", file, "--studies-dir", studies, *words)
    assert done.code == 2, done.out
    assert done.out == ""
    assert not studies.exists()
    assert not ray.is_initialized()
    return [line.removeprefix("error: ").replace(str(file), "FILE") for line in done.err.splitlines()]


@pytest.mark.parametrize(("content", "told"), [pytest.param(*case, id=name) for name, *case in BROKEN])
def test_an_invalid_study_file_is_refused_and_the_error_states_line_and_key_and_rule_and_fix(
    content: str | bytes, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "space.yaml"
    if content == FOLDER:
        file.mkdir()
    elif content != MISSING:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    for name, known in NAMES.items():
        told = told.replace(name, known)
    assert refused(file) == [f"FILE{told}"]


MANY = """\
presett: kd
preset: kd
config:
  training: {epoch: 3}
  loss: {alpha: 2}
search:
  loss.temperature: {log_uniform: [0, 10]}
  loss.alhpa: {uniform: [0, 1]}
  student.kind: {choice: [single, branches]}
  student.subnetworks: {integer: [5, 2], when: {student.kind: branches}}
  student.branch_at: {choice: [last_stage], when: {student.kind: batch_ensemble}}
  averaging.kind: {choice: [none, ema]}
  averaging.decay:
    uniform: [0.5, 0.9]
    when:
      averaging.knd: ema
  averaging.start: {uniform: [0.1, 5], when: {averaging.kind: ema}}
  perturbation.kind: {choice: [none, odds]}
  model.width: {choice: [4], when: {model.depth: 8}}
  model.depth: {choice: [8], when: {model.width: 4}}
  teachers.count: {integer: [2, 4]}
baselines:
- kd
- labels
- latentb
scheduler: {kind: ahsa}
budget:
  trials: 0
  minutes: none
resources: {cpus: -1, gpu: 2}
"""


TOLD = """\
1: presett: no such setting (did you mean preset?)
4: config.training.epoch: no such setting (did you mean epochs?)
5: config.loss.alpha: must be less than or equal to 1, not 2
7: search.loss.temperature: log_uniform: both numbers must be above 0, got [0.0, 10.0]
8: search.loss.alhpa: no such setting (did you mean loss.alpha?)
10: search.student.subnetworks: integer: the first number must be smaller than the second, got [5, 2]
11: search.student.branch_at.when.student.kind: 'batch_ensemble' is outside the domain; \
student.kind is choice ['single', 'branches']
16: search.averaging.decay.when.averaging.knd: not a searched setting (did you mean averaging.kind?)
17: search.averaging.start: must be less than 1, not 5.0
18: search.perturbation.kind: 'odds' is not one of <perturbations> (did you mean ods?)
19: search.model.width.when: model.width, model.depth depend on each other; remove one of the conditions
21: search.teachers.count: all trials share the data, the teachers and the number of epochs; move this setting to config
25: baselines.2: 'latentb' is not a preset (did you mean latentbe?)
26: scheduler.kind: 'ahsa' is not one of <schedulers> (did you mean asha?)
28: budget.trials: must be greater than or equal to 1, not 0
29: budget.minutes: must be a number, not 'none'
30: resources.cpus: must be greater than or equal to 0.01, not -1
30: resources.gpu: no such setting (did you mean gpus?)
"""


def test_all_issues_are_reported_together_ordered_by_line(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(MANY)
    text = TOLD.replace("<schedulers>", NAMES["<schedulers>"])
    expected = text.replace("<perturbations>", NAMES["<perturbations>"]).splitlines()
    assert refused(file) == [f"FILE, line {fault}" for fault in expected]


def test_invalid_names_are_also_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("preset: kd\nsearch:\n  seed: {choice: [1], true: 2}\n  3: {choice: [1]}\npreset: ekd\n")
    assert refused(file) == [
        "FILE, line 3: true: names in a mapping must be strings; put this name in quotes",
        "FILE, line 4: 3: names in a mapping must be strings; put this name in quotes",
        "FILE, line 5: preset is given twice (first on line 1)",
    ]


@pytest.mark.parametrize("bad", ["preset: kdd", "config: {training: {epochs: 0}}", "search: {}", "config: 3"])
def test_an_error_in_one_section_does_not_hide_errors_in_others(bad: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    search = "" if bad.startswith("search") else SEARCH
    file.write_text(f"{bad}\n{search}baselines: [aked]\nbudget: {{trials: 0}}\n")
    first, *others = [fault.split(": ")[1] for fault in refused(file)]
    assert first.startswith(bad.split(":")[0])
    assert others == ["baselines.0", "budget.trials"]


def test_an_invalid_condition_is_reported_even_if_preset_or_settings_are_invalid(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("preset: kdd\nsearch:\n  seed: {choice: [1], when: {sede: 2}}\n  sead: {choice: [1]}\n")
    assert [fault.split(": ")[:2] for fault in refused(file)] == [
        ["FILE, line 1", "preset"],
        ["FILE, line 3", "search.seed.when.sede"],
        ["FILE, line 4", "search.sead"],
    ]


def test_each_cycle_of_conditions_is_reported_once_without_settings_that_depend_on_it(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "search:\n"
        "  training.optimizer.momentum: {choice: [0.5], when: {seed: 1}}\n"
        "  seed: {choice: [1], when: {model.depth: 8}}\n"
        "  model.depth: {choice: [8], when: {seed: 1}}\n"
        "  training.optimizer.lr: {choice: [0.1], when: {training.optimizer.lr: 0.1}}\n"
    )
    assert refused(file) == [
        "FILE, line 3: search.seed.when: seed, model.depth depend on each other; remove one of the conditions",
        "FILE, line 5: search.training.optimizer.lr.when: training.optimizer.lr depends on itself; remove it",
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["budget.trials=0"], ["--set budget.trials: must be greater than or equal to 1, not 0"]),
        (["budget.trials.x=5"], ["--set budget.trials.x: budget.trials: must be a whole number, not {'x': 5}"]),
        (["search.seed={choice: []}"], ["--set search.seed: search.seed.choice: must have at least 1 value, not []"]),
        (["preset=kdd"], ["--set preset: 'kdd' is not a preset (did you mean kd?)"]),
        (
            ["training.epochs=2"],
            ["--set training.epochs: training: no such setting of a study (did you mean config.training?)"],
        ),
        (["config=5"], ["--set config: must be a mapping of names to values, not 5"]),
        (
            ["config.teachers.count=0"],
            [
                "--set config.teachers.count: config.teachers: an ensemble requires a teacher; "
                "increase count, or give checkpoints or predictions"
            ],
        ),
        (["budget.trials"], ["--set budget.trials: must have the form name=value, for example loss.temperature=2"]),
        (["seed=[1"], ["--set seed, line 1: the bracket on line 1 is not closed by ]"]),
        (["budget.trials=1", "budget={trials: 2}"], ["--set budget.trials: set twice"]),
        (
            ["search.seed={integer: [-1, 4]}", "confirmation.seeds=1"],
            [
                "--set confirmation.seeds: must be greater than or equal to 2, not 1",
                "--set search.seed: must be greater than or equal to 0, not -1",
            ],
        ),
    ],
    ids=str,
)
def test_an_error_in_an_override_begins_with_that_override(words: list[str], told: list[str], tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SEARCH)
    assert refused(file, *(word for change in words for word in ("--set", change))) == told


def test_errors_in_the_file_precede_those_in_overrides(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SEARCH + "baselines: [aked]\n")
    assert refused(file, "--set", "budget.trials=0") == [
        "FILE, line 2: baselines.0: 'aked' is not a preset (did you mean aekd?)",
        "--set budget.trials: must be greater than or equal to 1, not 0",
    ]


@pytest.mark.parametrize(
    ("text", "change", "told"),
    [
        (
            "search: [seed]\n",
            "search.seed={choice: [1]}",
            "FILE, line 1: search: must be a mapping of names to values, not ['seed']",
        ),
        (
            SEARCH + "config: {teachers: {count: 0}}\n",
            "config.teachers.seed=3",
            "FILE, line 2: config.teachers: an ensemble requires a teacher; increase count, "
            "or give checkpoints or predictions",
        ),
    ],
)
def test_issues_in_the_file_are_not_attributed_to_an_override(
    text: str, change: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    assert refused(file, "--set", change) == [told]


def test_an_override_can_fix_an_issue_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("preset: kdd\nconfig: {training.epochs: 0}\n" + SEARCH)
    words = ["--set", "preset=kd", "--set", "config.training.epochs=3"]
    assert call("ensdistill-tune", "check", file, "--no-estimate", *words).code == 0


def test_constraints_can_bound_every_trial_metric_and_the_latency(tmp_path: Path) -> None:
    names = ["val/nll", "val/worst_class_accuracy", "val/dee", "cost/flops", "cost/parameters", "cost/latency_ms"]
    file = tmp_path / "space.yaml"
    file.write_text(SEARCH + "constraints: {" + ", ".join(f"{name}: {{at_most: 2}}" for name in names) + "}\n")
    study = load_study(file)
    assert list(study.constraints) == names
    assert set(names) < set(study.display_metrics)
    assert study.measures_latency


@pytest.mark.parametrize(("kind", "warned"), [("tpe", False), ("gp", False), ("nsga2", False), ("qmc", True)])
def test_a_searcher_that_ignores_the_constraints_causes_a_warning(kind: str, warned: bool, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SEARCH + f"constraints: {{val/ece: {{at_most: 0.1}}}}\nsearcher: {{kind: {kind}}}\n")
    done = call("ensdistill-tune", "check", file, "--no-estimate", "--json")
    warning = f"warning: searcher.kind: {kind} ignores the constraints; they only decide which trials can win."
    assert (warning in done.err, bool(json.loads(done.out)["warnings"])) == (warned, warned)


@pytest.mark.parametrize(("kind", "warned"), [("tpe", False), ("random", False), ("gp", True)])
def test_a_searcher_that_ignores_conditional_hyperparameters_causes_a_warning(kind: str, warned: bool) -> None:
    conditional = {"averaging.decay": {"uniform": [0.9, 0.99], "when": {"averaging.kind": ["ema"]}}}
    search = {"averaging.kind": {"choice": ["none", "ema"]}} | conditional
    issues = study_warnings(StudyConfig.model_validate({"search": search, "searcher": {"kind": kind}}))
    rule = (
        "searcher.kind: gp samples conditional hyperparameters at random: averaging.decay. Use tpe, which models them."
    )
    assert [str(issue) for issue in issues] == ([rule] if warned else [])


@pytest.mark.parametrize("where", ["objective", "secondary_objectives", "constraints"])
def test_a_metric_that_requires_more_classes_than_the_data_have_is_refused_before_training(where: str) -> None:
    name = "val/top5_accuracy"
    given = {"objective": name, "secondary_objectives": [name], "constraints": {name: {"at_least": 0.5}}}[where]
    study = StudyConfig.model_validate({"search": {"seed": {"choice": [1]}}, where: given})
    (issue,) = class_issues(study, 5)
    assert str(issue).endswith(": val/top5_accuracy requires at least 6 classes, got 5")
    assert class_issues(study, 6) == []

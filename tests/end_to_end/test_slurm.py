"""The script of the Slurm page is launched, requeued and resumed with stand-ins for `srun`, `scontrol` and `ray`."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from ensdistill_tune.records.study_directory import StudyDirectory
from tests.docs.documents import ROOT, page
from tests.end_to_end import chaos
from tests.servers import wait_until

SHORT = (
    chaos.STUDY.replace("trials: 12", "trials: 1").replace("epochs: 27", "epochs: 60").replace("top_k: 1", "top_k: 0")
)
# `ray symmetric-run` runs the command on the first machine, and at its end stops every Ray process of that machine:
# too much for a test. The study runs without Ray, and without the GPUs of the script.
STAND_INS = {
    "srun": 'exec "$@"\n',
    "scontrol": 'echo "scontrol $*" >> "$CALLS"; [ "$1" = show ] && printf "first\\nsecond\\n"\n',
    "ray": (
        'echo "ray $*" >> "$CALLS"\nwhile [ "$1" != -- ]; do [ $# -gt 0 ] || exit 0; shift; done\nshift; exec "$@"\n'
    ),
    "ensdistill-tune": (
        'words=""\n'
        'for word in "$@"; do case $word in --set|resources.gpus=*) ;; *) words="$words $word" ;; esac; done\n'
        'case $1 in launch|resume) words="$words --executor inline" ;; esac\n'
        f'exec "{sys.executable}" -m ensdistill_tune $words\n'
    ),
}


def submitted(folder: Path) -> subprocess.Popen[str]:
    """Starts the job as Slurm does: in the folder from which it was submitted."""
    environment = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "77"}
    environment |= {"CALLS": str(folder / "calls"), "HOME": str(folder)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tune")])
    log = (folder / "slurm-77.out").open("a")
    return subprocess.Popen(["bash", "job.sh"], cwd=folder, env=os.environ | environment, stdout=log, stderr=log)


def test_the_script_launches_a_study_and_requeues_itself_before_the_time_limit_and_resumes_the_study(
    tmp_path: Path,
) -> None:
    (script,) = (block for block in page("guides/slurm").blocks_of("bash", "slurm") if "srun" in block)
    (tmp_path / "job.sh").write_text(script)
    (tmp_path / "my.yaml").write_text(SHORT)
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text(f'export PATH="{tmp_path}/bin:$PATH"\n')
    for name, text in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / "bin" / name).chmod(stat.S_IRWXU)
    folder = StudyDirectory(tmp_path / "studies" / "mine")
    job = submitted(tmp_path)
    wait_until(lambda: job.poll() is not None or bool(folder.read_trials()), "the first trial", 120)
    assert "--signal=B:USR1@" in script
    job.send_signal(signal.SIGUSR1)  # the signal that Slurm sends to the script, not to its steps
    job.wait(timeout=120)
    output = (tmp_path / "slurm-77.out").read_text()
    assert folder.read_summary()["state"] == "interrupted", output
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "ray get-auth-token --generate"
    assert calls[1] == "scontrol show hostnames node[1-2]"
    assert calls[2].startswith("ray symmetric-run --address first:6379 --min-nodes 2 -- sh -c ")
    assert calls[-1] == "scontrol requeue 77"
    again = submitted(tmp_path)
    assert again.wait(timeout=200) == 0, (tmp_path / "slurm-77.out").read_text()
    assert folder.read_summary()["state"] == "finished"
    assert (tmp_path / "calls").read_text().count("scontrol requeue") == 1

"""The jobs of examples/slurm: read by bash, and run with stand-ins for SLURM's commands."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import PLAIN_MAE, make_recipe, write_recipe

import hf_maskssl
from hf_maskssl.training.pretraining import checkpoints

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted((ROOT / "examples" / "slurm").glob("*.sh"))
# One machine with one task, in a process group of its own, which `scancel` signals as SLURM does a step's processes.
COMMANDS = {
    "srun": """
while [[ "$1" == -* ]]; do shift; done
SLURM_NODEID=0 SLURM_PROCID=0 setsid "$@" &
echo $! > "$FAKE/step"
wait $!
""",
    "scancel": 'echo "$@" >> "$FAKE/scancel"; kill "-${1#--signal=}" -- "-$(cat "$FAKE/step")"',
    "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; echo other; else echo "$@" >> "$FAKE/scontrol"; fi',
}


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_job_is_sound(job: Path) -> None:
    """What SLURM must be told for a run that outlives its time, and what the run must be told to go on."""
    assert len(JOBS) == 2
    subprocess.run(["bash", "-n", str(job)], check=True)
    text = job.read_text()
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2] for line in text.splitlines() if "#SBATCH" in line
    )
    assert options["nodes"] == "4" and options["gpus-per-node"] == "8" and options["ntasks-per-node"] == "1"
    assert options["signal"] == "B:USR1@300" and "requeue" in options and options["open-mode"] == "append"
    assert "trap stop USR1" in text and '"$@" --resume' in text
    for path in ("examples/run_pretrain.py", *(word for word in text.split() if word.startswith("examples/slurm/"))):
        assert (ROOT / path).is_file()


@pytest.fixture
def free_port() -> int:
    """A port for the processes to meet at, which nothing else listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environment(folder: Path, port: int) -> dict[str, str]:
    """What SLURM and its commands would give a job on one machine with two devices."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    for name, body in COMMANDS.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    source = Path(hf_maskssl.__file__).resolve().parent.parent
    slurm = {"SLURM_JOB_ID": "77", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_NODELIST": "m[1-2]"}
    return {
        **os.environ,
        **slurm,
        "FAKE": str(folder),
        "PATH": os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(source),
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_CONFIG": "examples/accelerate/two_cpu_processes.yaml",
        "OMP_NUM_THREADS": "1",
    }


# In the launchers' place: ends at once with a code, or saves when it is asked to stop.
LAUNCHER = """
echo "$@" >> "$FAKE/launched"
if [ -n "${CODE:-}" ]; then exit "$CODE"; fi
trap 'echo saved >> "$FAKE/launched"; exit 1' TERM
for part in $(seq 600); do sleep 0.05; done
"""


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_shell_of_a_job_hands_on_signals_and_codes(job: Path, tmp_path: Path) -> None:
    """What the launcher is told, what follows a signal to the shell, and that a failed job is not requeued."""
    variables = environment(tmp_path, 29500) | {"SLURM_NNODES": "4", "ACCELERATE_CONFIG": "config.yaml"}
    for name in ("torchrun", "accelerate"):
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{LAUNCHER}")
        (tmp_path / "bin" / name).chmod(0o755)
    words = ["bash", str(job), "RECIPE.yaml", "--model.hidden_size", "64"]
    for code in ("0", "3"):
        assert subprocess.run(words, cwd=ROOT, env=variables | {"CODE": code}).returncode == int(code)
    assert not (tmp_path / "scontrol").exists()
    launched = (tmp_path / "launched").read_text()
    assert launched.count(" examples/run_pretrain.py RECIPE.yaml --model.hidden_size 64 --resume\n") == 2
    expected = {
        "torchrun": "--nnodes=4 --nproc-per-node=2 --rdzv-id=77 --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:29500",
        "accelerate": "launch --config_file config.yaml --num_machines 4 --num_processes 8 "
        "--main_process_ip 127.0.0.1 --main_process_port 29500 --machine_rank 0",
    }
    assert launched.startswith(expected[job.stem])
    (tmp_path / "launched").unlink()
    process = subprocess.Popen(words, cwd=ROOT, env=variables, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (tmp_path / "launched").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # the launcher has said that it runs a moment before it listens
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 0
    assert (tmp_path / "launched").read_text().endswith("\nsaved\n")
    assert (tmp_path / "scontrol").read_text() == "requeue 77\n"


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_job_stops_in_time_and_goes_on_when_requeued(job: Path, tmp_path: Path, free_port: int) -> None:
    recipe = make_recipe(tmp_path / "run", PLAIN_MAE, max_steps=1_000_000, save_steps=20, save_total_limit=2)
    file = write_recipe(recipe, tmp_path / "recipe.yaml")
    variables = environment(tmp_path, free_port)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(["bash", str(job), str(file)], cwd=ROOT, env=variables, stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while not checkpoints.list_checkpoints(tmp_path / "run"):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)  # to the shell of the job alone, as `--signal=B:` says
        assert process.wait(timeout=120) == 0, (tmp_path / "log").read_text()[-3000:]
    assert (tmp_path / "scancel").read_text() == "--signal=TERM 77\n"
    assert (tmp_path / "scontrol").read_text() == "requeue 77\n"
    newest = checkpoints.newest_sound_checkpoint(tmp_path / "run")
    assert newest is not None and checkpoints.read_state(newest)["interrupted"]
    assert checkpoints.read_state(newest)["layout"]["num_processes"] == 2
    last = checkpoints.read_state(newest)["step"] + 2
    words = ["bash", str(job), str(file), "--max_steps", str(last)]
    ended = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert f"Resumed from {newest} at step {last - 2}" in ended.stderr
    assert (tmp_path / "scontrol").read_text() == "requeue 77\n"  # a job that has ended stays out of the queue
    assert (tmp_path / "run" / "model.safetensors").is_file()

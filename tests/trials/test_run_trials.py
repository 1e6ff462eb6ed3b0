"""Runs that are killed, run into each other, or find their checkpoints damaged: nothing is lost, and every trial is counted."""

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from finetuning_runs import make_finetuning
from runs import MODEL, PLAIN_MAE, TEXT_MODEL, assert_same_weights, make_recipe, train, weights, write_recipe

from forked import Script, launch
from hf_maskssl.locks import LOCK_FILE
from hf_maskssl.training.pretraining import checkpoints

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPT = str(EXAMPLES / "run_pretrain.py")
TWO_PROCESSES = EXAMPLES / "accelerate" / "two_cpu_processes.yaml"
PATIENCE = 600  # seconds; beside other work the runs are slow
LONG: dict[str, Any] = {"max_steps": 400, "save_steps": 20, "save_total_limit": 3, "logging_steps": 10}


def stream(folder: Path) -> dict[str, Any]:
    """Files of unequal length, an even number of them."""
    folder.mkdir(exist_ok=True)
    generator, names = random.Random(3), []
    for number, rows in enumerate((30, 11, 24, 17)):
        names.append(str(folder / f"{number}.txt"))
        Path(names[-1]).write_text("\n".join("".join(generator.choices("ACGT", k=8)) for _ in range(rows)))
    section = {"source": "text", "data_files": names, "kind": "tokens", "input_column": "text", "alphabet": "ACGT"}
    return section | {"scale": 1.0, "streaming": True, "max_train_samples": None, "cache": False}


def fields_of(case: str, folder: Path) -> dict[str, Any]:
    if case == "stream":
        return {"model": TEXT_MODEL | PLAIN_MAE, "data": stream(folder / "text"), "num_workers": 2}
    model = MODEL | PLAIN_MAE | {"hidden_dropout_prob": 0.2}
    return {"model": model, "gradient_accumulation_steps": 2, "num_workers": {"workers": 2}.get(case, 0)}


def holders(folder: Path) -> list[int]:
    """Processes that have the folder's lock file open."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(file.path == str(folder / LOCK_FILE) for file in process.open_files()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def newer(folder: Path, before: set[str]) -> bool:
    """Whether a run has written a checkpoint that was not there before."""
    return bool({path.name for path in checkpoints.list_checkpoints(folder)} - before)


def session_of(script: Script) -> list[int]:
    """Processes of a script's session, data workers and their server among them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) == script.pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def wait_until_free(folder: Path, script: Script) -> None:
    deadline = time.monotonic() + 20
    while holders(folder) or session_of(script):
        assert time.monotonic() < deadline, "a process outlives the run that started it"
        time.sleep(0.05)


@pytest.mark.parametrize("case", ["plain", "workers", "stream"])
def test_killed_at_random_moments(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_recipe(make_recipe(tmp_path / "whole", **fields_of(case, tmp_path), **LONG), tmp_path / "whole.yaml")
    assert Script([SCRIPT, str(whole)]).wait(PATIENCE).returncode == 0
    recipe = make_recipe(tmp_path / "killed", **fields_of(case, tmp_path), **LONG, resume=True)
    file = write_recipe(recipe, tmp_path / "killed.yaml")
    moments, kills = random.Random(7), 0
    for _ in range(6):
        there = {path.name for path in checkpoints.list_checkpoints(tmp_path / "killed")}
        script = Script([SCRIPT, str(file)])
        # It has gone on for a while; then at any moment, also while it writes.
        while not script.has_ended and not newer(tmp_path / "killed", there):
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.3))
        if not script.has_ended:
            os.kill(script.pid, signal.SIGKILL)  # the run alone: its workers must end by themselves
            kills += 1
        script.wait()
        wait_until_free(tmp_path / "killed", script)
        assert all(
            checkpoints.find_problem(path) is None for path in checkpoints.list_checkpoints(tmp_path / "killed")
        )
    assert Script([SCRIPT, str(file)]).wait(PATIENCE).returncode == 0
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    with capsys.disabled():
        print(f"\n{case}: killed {kills} times by SIGKILL, resumed to the very weights of the whole run")
    assert kills >= 2


@pytest.mark.parametrize("case", ["plain", "stream"])
def test_a_killed_launcher_leaves_nobody_behind(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = fields_of(case, tmp_path) | {"num_workers": 0, "max_steps": 120, "save_steps": 10}
    whole = write_recipe(make_recipe(tmp_path / "whole", **fields), tmp_path / "whole.yaml")
    launch(TWO_PROCESSES, [SCRIPT, str(whole)])
    file = write_recipe(make_recipe(tmp_path / "killed", **fields, resume=True), tmp_path / "killed.yaml")
    words = ["-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", str(TWO_PROCESSES)]
    moments, kills = random.Random(11), 0
    for number in range(3):
        port = ["--main_process_port", str(29700 + os.getpid() % 200 + number)]
        script = Script([*words, *port, SCRIPT, str(file)], {"ACCELERATE_USE_CPU": "true"})
        goal = checkpoints.checkpoint_folder(tmp_path / "killed", 10 * moments.randint(1, 3) + 20 * number)
        while not script.has_ended and not goal.exists():
            time.sleep(0.02)
        if not script.has_ended:
            os.kill(script.pid, signal.SIGKILL)
            kills += 1
        script.wait()
        wait_until_free(tmp_path / "killed", script)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*")}
        time.sleep(1.0)
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*")} == before
    launch(TWO_PROCESSES, [SCRIPT, str(file)])
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    with capsys.disabled():
        print(f"\n{case}: {kills} launchers of two processes killed by SIGKILL, nothing written afterwards")
    assert kills >= 1


def test_two_runs_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = fields_of("plain", tmp_path) | LONG | {"max_steps": 100, "save_steps": 5}
    train(make_recipe(tmp_path / "whole", **fields))
    file = write_recipe(make_recipe(tmp_path / "run", **fields, resume=True), tmp_path / "run.yaml")
    moments, refused, races = random.Random(5), 0, 6
    for _ in range(races):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        scripts = []
        for _ in range(3):
            scripts.append(Script([SCRIPT, str(file)]))
            time.sleep(moments.uniform(0.0, 0.5))
        ends = [script.wait() for script in scripts]
        assert any(end.returncode == 0 for end in ends)
        for end in ends:
            if end.returncode:
                assert "training.output_dir" in end.stderr and "is in use by another run" in end.stderr
                refused += 1
        assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "run"))
        assert all(checkpoints.find_problem(path) is None for path in checkpoints.list_checkpoints(tmp_path / "run"))
        assert not list((tmp_path / "run").glob("*.incomplete")) and not (tmp_path / "run" / LOCK_FILE).exists()
    with capsys.disabled():
        print(f"\n{races} races of three runs in one folder: {refused} were refused, no checkpoint was a mixture")
    assert refused


def damage(file: Path, kind: str, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if kind == "missing":
        file.unlink()
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "cut":
        file.write_bytes(content[: chance.randrange(len(content))])
    else:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)


def test_damaged_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields: dict[str, Any] = {"model": PLAIN_MAE, "max_steps": 6, "save_steps": 2, "save_total_limit": 3}
    train(make_recipe(tmp_path / "whole", **fields))
    expected = weights(tmp_path / "whole" / "checkpoint-00000006")
    chance, counts = random.Random(13), dict.fromkeys(("missing", "empty", "cut", "flipped"), 0)
    for trial in range(40):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "run")
        for step in chance.choice([(6,), (6, 4), (6, 4, 2)]):
            folder = checkpoints.checkpoint_folder(tmp_path / "run", step)
            kind = [*counts][(trial + step) % len(counts)]
            damage(chance.choice(sorted(path for path in folder.rglob("*") if path.is_file())), kind, chance)
            counts[kind] += 1
        train(make_recipe(tmp_path / "run", **fields, resume=True))
        assert_same_weights(weights(tmp_path / "run" / "checkpoint-00000006"), expected)
    with capsys.disabled():
        print(f"\n40 runs resumed from damaged checkpoints ({counts}) to the very weights of the whole run")


def test_fine_tuning_on_two_processes_is_stopped_and_goes_on(tmp_path: Path) -> None:
    """SIGTERM to one of the processes: both save and end at the same step."""
    files = []
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        recipe = make_finetuning(tmp_path / name, seeds=[0], num_train_epochs=4.0, batch_size=4)
        sections = {"model": recipe.model, "data": vars(recipe.data), "finetuning": vars(recipe.finetuning)}
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(sections))
    words = [[str(Path(__file__).parent / "stopped_on_two.py"), str(file)] for file in files]
    launch(TWO_PROCESSES, words[0])
    ended = launch(TWO_PROCESSES, words[1], environment={"STOP": "1"})
    assert "stopped and saved at step 5; the same command continues." in ended.stderr
    assert "goes on from step 5" in launch(TWO_PROCESSES, words[1]).stderr
    assert_same_weights(*(weights(tmp_path / name / "run" / "model") for name in ("whole", "stopped")))

"""Checkpoint folders by themselves."""

import json
import os
import shutil
from pathlib import Path

import pytest

from hf_maskssl.files import incomplete_folder, remove_incomplete
from hf_maskssl.training.pretraining import checkpoints


def seal_one(output_dir: Path, step: int, text: str = "weights") -> Path:
    final = checkpoints.checkpoint_folder(output_dir, step)
    folder = incomplete_folder(final)
    (folder / "training_state").mkdir()
    (folder / "model.safetensors").write_text(text)
    (folder / "training_state" / "optimizer.bin").write_text("moments")
    (folder / "training_state" / "random_states_0.pkl").write_text("numbers")
    (folder / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text('{"layout": {"num_processes": 1}}')
    checkpoints.seal(folder, final)
    return final


def test_a_sealed_checkpoint_is_sound_until_touched(tmp_path: Path) -> None:
    folder = seal_one(tmp_path, 3)
    assert folder.name == "checkpoint-00000003" and checkpoints.find_problem(folder) is None
    (folder / "training_state" / "optimizer.bin").write_text("momentS")
    assert checkpoints.find_problem(folder) == "training_state/optimizer.bin differs from what was written"
    (folder / "training_state" / "optimizer.bin").unlink()
    assert checkpoints.find_problem(folder) == "training_state/optimizer.bin is missing"
    (folder / "manifest.json").write_text("{")
    for damaged in ("{", "[]", '"', "null"):
        (folder / "manifest.json").write_text(damaged)
        assert "manifest.json is damaged" in str(checkpoints.find_problem(folder))


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "trainer_state.json",
        "model.safetensors",
        "training_state/optimizer.bin",
        "training_state/random_states_0.pkl",
    ],
)
def test_a_checkpoint_without_a_file_that_a_run_needs_is_not_sound(name: str, tmp_path: Path) -> None:
    """Its manifest says nothing of it: what two runs wrote into one folder at once would look like that."""
    folder = seal_one(tmp_path, 3)
    (folder / name).unlink()
    (folder / "manifest.json").unlink()
    checkpoints.seal(folder.rename(tmp_path / "aside"), folder)
    assert checkpoints.find_problem(folder) == f"{name} is not among the files of its manifest.json"


def test_weights_in_shards_are_all_needed(tmp_path: Path) -> None:
    folder = seal_one(tmp_path, 3)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"first": "model-00001-of-00002.safetensors", "second": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "manifest.json").unlink()
    checkpoints.seal(folder.rename(tmp_path / "aside"), folder)
    assert str(checkpoints.find_problem(folder)).startswith("model-00002-of-00002.safetensors is not among")


def test_leftovers_of_a_killed_run_are_not_mixed_in(tmp_path: Path) -> None:
    final = checkpoints.checkpoint_folder(tmp_path, 3)
    (incomplete_folder(final) / "stale").write_text("")
    assert not list(incomplete_folder(final).iterdir())
    assert checkpoints.list_checkpoints(tmp_path) == []


def test_thinning_keeps_the_newest_and_what_is_not_numbered(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        seal_one(tmp_path, step)
    checkpoints.copy_as(tmp_path / "checkpoint-00000001", tmp_path / checkpoints.BEST)
    (tmp_path / "checkpoint-00000011.incomplete").mkdir()
    checkpoints.thin_out(tmp_path, 2, newest=tmp_path / "checkpoint-00000003")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint-00000002", "checkpoint-00000003", "checkpoint-00000010", "checkpoint-best"}
    assert checkpoints.find_problem(tmp_path / checkpoints.BEST) is None


def test_whoever_is_killed_removing_a_folder_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        seal_one(tmp_path, step)
    checkpoints.copy_as(tmp_path / "checkpoint-00000001", tmp_path / checkpoints.BEST)

    def killed_halfway(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed_halfway)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.thin_out(tmp_path, 2, newest=tmp_path / "checkpoint-00000003")
        with pytest.raises(KeyboardInterrupt):
            checkpoints.copy_as(seal_one(tmp_path, 4, "new"), tmp_path / checkpoints.BEST)
    left = checkpoints.list_checkpoints(tmp_path)
    assert [folder.name[-1] for folder in left] == ["2", "3", "4"]
    assert all(checkpoints.find_problem(folder) is None for folder in [*left, tmp_path / checkpoints.BEST])
    assert (tmp_path / checkpoints.BEST / "model.safetensors").read_text() == "new"
    remove_incomplete(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_copy_replaces_a_former_one(tmp_path: Path) -> None:
    for step, text in ((1, "old"), (2, "new")):
        checkpoints.copy_as(seal_one(tmp_path, step, text), tmp_path / checkpoints.BEST)
    assert (tmp_path / checkpoints.BEST / "model.safetensors").read_text() == "new"
    assert checkpoints.find_problem(tmp_path / checkpoints.BEST) is None


def test_config_comes_last_so_that_no_model_is_there_before_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (moved.append(Path(new).name), replace(old, new)))

    def write(folder: Path) -> None:
        for name in ("config.json", "zebra.py", "model.safetensors"):
            (folder / name).write_text("new")

    (tmp_path / "config.json").write_text("old")
    checkpoints.replace_files(tmp_path, write)
    assert moved == ["model.safetensors", "zebra.py", "config.json"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(moved, "new")

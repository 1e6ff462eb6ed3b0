"""Streams: resumed exactly or refused by name, and read once by several processes."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from dense_runs import MULTIMAE
from PIL import Image
from runs import PLAIN_MAE, TEXT_MODEL, assert_same_weights, make_recipe, train, weights

from hf_maskssl.data.preparation import prepare_data
from hf_maskssl.data.tables.draws import RowDraws
from hf_maskssl.recipes import build_config
from hf_maskssl.training.pretraining.batches import StreamShareLoader, training_loader
from hf_maskssl.training.pretraining.checkpoints import read_state

MODEL = TEXT_MODEL | PLAIN_MAE


def write_files(folder: Path, files: int, rows: int) -> dict[str, Any]:
    """Text files whose rows all differ, and the data section that streams them."""
    folder.mkdir(exist_ok=True)
    names = []
    for number in range(files):
        names.append(str(folder / f"{number}.txt"))
        words = ["".join("ACGT"[(number * rows + row) // 4**digit % 4] for digit in range(5)) for row in range(rows)]
        Path(names[-1]).write_text("\n".join(words))
    section = {"source": "text", "data_files": names, "kind": "tokens", "input_column": "text", "alphabet": "ACGT"}
    return section | {"scale": 1.0, "streaming": True, "max_train_samples": None, "cache": False}


def write_pictures(folder: Path) -> dict[str, Any]:
    random = np.random.default_rng(0)
    for name, shape in (("rgb", (40, 40, 3)), ("depth", (40, 40))):
        (folder / "train" / name).mkdir(parents=True)
        for row in range(8):
            pixels = random.integers(1, 255, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{row}.png")
    section = {"source": "multimodal_folder", "data_dir": str(folder), "kind": "multimodal", "streaming": True}
    return section | {"augment": True, "scale": 1.0, "max_train_samples": None, "cache": False}


def test_an_augmented_stream_is_resumed_exactly(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"model": MULTIMAE, "data": write_pictures(tmp_path / "pictures")}
    train(make_recipe(tmp_path / "whole", **fields, max_steps=5))
    for steps in (1, 3, 5):  # an epoch has two batches
        train(make_recipe(tmp_path / "parts", **fields, max_steps=steps, resume=True))
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_draws_of_a_streamed_row_follow_its_content_and_the_epoch() -> None:
    draws = RowDraws(3, is_stream=True)
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)

    def number(index: int, content: np.ndarray) -> float:
        return draws.generator(index, content).random()

    draws.set_epoch(1, 5)
    first = number(0, picture)
    assert number(7, picture) == first != number(0, picture + 1)
    torch.manual_seed(9)
    assert number(0, picture) == first
    for epoch, seed in ((2, 5), (1, 6)):
        draws.set_epoch(epoch, seed)
        assert number(0, picture) != first


@pytest.mark.parametrize(
    ("files", "former", "changed", "is_refused"),
    [
        (2, {}, {"num_workers": 2}, True),
        (2, {"shuffle_buffer": 8}, {}, True),
        (1, {}, {"num_workers": 1}, False),  # the second worker of one file would read nothing
        (2, {}, {"shuffle_buffer": 1000}, False),  # as it is by itself
    ],
)
def test_another_order_is_refused(
    files: int, former: dict[str, Any], changed: dict[str, Any], is_refused: bool, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"model": MODEL, "data": write_files(tmp_path / "text", files, 16)}
    train(make_recipe(tmp_path / "run", **fields, **former, max_steps=1))
    recipe = make_recipe(tmp_path / "run", **fields, **changed, max_steps=2, resume=True)
    if is_refused:
        with pytest.raises(
            ValueError, match=rf"\(training.{[*former, *changed][0]} was .*, on which the order of the data"
        ):
            train(recipe)
    else:
        train(recipe)


def test_the_buffer_is_a_setting_and_decides_the_order(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"model": MODEL, "data": write_files(tmp_path / "text", 1, 32)}
    for buffer in (None, 1000, 2):
        train(make_recipe(tmp_path / str(buffer), **fields, shuffle_buffer=buffer, max_steps=2))
    assert_same_weights(weights(tmp_path / "None"), weights(tmp_path / "1000"))
    first, second = (weights(tmp_path / name)["metamae.norm.weight"] for name in ("None", "2"))
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="training.shuffle_buffer: expected at least 1 or nothing, got 0"):
        make_recipe(tmp_path, shuffle_buffer=0)


def rows_of_processes(data: dict[str, Any], processes: int, epoch: int, num_workers: int = 0) -> list[list[str]]:
    """The rows that each process would read in a pass."""
    recipe = make_recipe(Path("unused"), MODEL, data, batch_size=4, num_workers=num_workers)
    prepared = prepare_data(recipe.data, build_config(recipe.model))
    read = []
    for process in range(processes):
        place = SimpleNamespace(num_processes=processes, process_index=process, device=torch.device("cpu"))
        loader = training_loader(prepared, recipe.training, place)  # type: ignore[arg-type]
        loader.set_epoch(epoch)
        read.append([str(row) for batch in loader for row in batch["input_ids"].tolist()])
    return read


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are asked one after the other have nobody to agree with."""
    monkeypatch.setattr(torch.distributed, "new_group", lambda backend: None)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *words, **options: None)


@pytest.mark.parametrize(("files", "num_workers"), [(4, 0), (4, 2), (3, 0)])
def test_processes_read_each_row_once(files: int, num_workers: int, tmp_path: Path, alone: None) -> None:
    data = write_files(tmp_path / "text", files, 16)
    for epoch in (0, 1):
        first, second = rows_of_processes(data, 2, epoch, num_workers)
        assert len(first) == len(second) == files * 8
        assert len({*first, *second}) == files * 16


def test_processes_open_their_own_files_alone(tmp_path: Path, alone: None, caplog: pytest.LogCaptureFixture) -> None:
    data = write_files(tmp_path / "text", 2, 16)
    words = [rows_of_processes(data | {"data_files": data["data_files"][number]}, 1, 0)[0] for number in (0, 1)]
    first, second = rows_of_processes(data, 2, 0)
    assert sorted([sorted(first), sorted(second)]) == sorted(map(sorted, words))
    assert "cannot share out evenly" not in caplog.text
    rows_of_processes(write_files(tmp_path / "three", 3, 16), 2, 0)
    assert "3 file(s) (shards), which 2 processes cannot share out evenly" in caplog.text


def test_a_pass_ends_for_all_with_the_shortest_share(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shard:
        def __iter__(self) -> Iterator[int]:
            return iter(range(5))

    asked: list[int] = []

    def all_reduce(flag: torch.Tensor, operation: Any, group: Any) -> None:
        asked.append(int(flag))
        flag.fill_(min(int(flag), len(asked) <= 3))  # the other process has three batches

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    assert list(StreamShareLoader(Shard(), None)) == [0, 1, 2]  # type: ignore[arg-type, comparison-overlap]
    assert asked == [1, 1, 1, 1]


@pytest.mark.parametrize("cache", [True, False])
def test_a_data_file_replaced_under_its_name_is_told(
    cache: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, private_cache: None
) -> None:
    data = write_files(tmp_path / "text", 1, 16) | {"streaming": False, "cache": cache}
    train(make_recipe(tmp_path / "run", MODEL, data, max_steps=1))
    assert set(read_state(tmp_path / "run")["rows"]) == {"train"}
    train(make_recipe(tmp_path / "run", MODEL, data, max_steps=2, resume=True))
    assert "with other rows" not in caplog.text
    file = Path(data["data_files"][0])
    file.write_text(file.read_text().replace("A", "C", 1))
    train(make_recipe(tmp_path / "run", MODEL, data, max_steps=3, resume=True))
    assert "checkpoint-00000002 was written with other rows of the train split than data.source has now" in caplog.text

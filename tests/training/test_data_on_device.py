"""A small training split that lies on the device gives the batches of the ordinary loader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import (
    PLAIN_MAE,
    SMA_TEXT_MODEL,
    TEXT_MODEL,
    Killed,
    assert_same_weights,
    make_recipe,
    train,
    weights,
    without_time,
    write_text,
)
from text_runs import BERT_MODEL, write_sentences
from transformers import AutoModelForPreTraining

from hf_maskssl.data import build_config, prepare_data
from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.collators import BatchCollator
from hf_maskssl.training import Pretrainer
from hf_maskssl.training.pretraining import resident
from hf_maskssl.training.pretraining.resident import ResidentLoader, resident_rows


def recipe_of(kind: str, tmp_path: Path, name: str, **training: Any) -> Any:
    model: dict[str, Any] = PLAIN_MAE | {"hidden_dropout_prob": 0.1}
    data: dict[str, Any] = {"label_column": "label"}
    if kind.startswith("text"):
        model, data = model | TEXT_MODEL, write_text(tmp_path / "text.txt")
    if kind == "text_sma":
        model = SMA_TEXT_MODEL
    if kind == "on_the_fly":
        data["cache"] = False
    settings = {"max_steps": 23, "batch_size": 4, "save_steps": 5}  # passes of 10 batches
    return make_recipe(tmp_path / name, model, data, **(settings | training))


def batches_of(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """What the model was given in every step, with the rows' numbers."""
    taken: list[dict[str, torch.Tensor]] = []
    original = Pretrainer._step

    def step(self: Pretrainer, batches: Any) -> None:
        def listen() -> Any:
            for batch in batches:
                taken.append(self.inputs(batch) | {"index": batch["index"]})
                yield batch

        original(self, listen())

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "_step", step)
        train(recipe)
    return taken


@pytest.mark.parametrize("kind", ["image", "on_the_fly", "text", "text_sma"])
def test_batches_and_weights_are_those_of_the_loader(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = batches_of(recipe_of(kind, tmp_path, "loader"), monkeypatch)
    found = batches_of(recipe_of(kind, tmp_path, "device", data_on_device=True), monkeypatch)
    assert len(found) == len(expected) == 23
    for first, second in zip(expected, found, strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert value.dtype == second[name].dtype and torch.equal(value, second[name])
            assert second[name].is_contiguous()
    if kind.startswith("text"):  # some batches are padded, and they have different lengths
        assert len({batch["input_ids"].shape for batch in expected}) > 1
    assert_same_weights(weights(tmp_path / "device"), weights(tmp_path / "loader"))


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_killed_run_finds_its_place(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed_at: Callable[[], list[int]]
) -> None:
    _, expected = train(recipe_of(kind, tmp_path, "whole"))
    original = Pretrainer._after_step

    def stop(self: Pretrainer, progress: Any) -> None:
        if self.state.step == 18:
            raise Killed
        original(self, progress)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Pretrainer, "_after_step", stop)
        train(recipe_of(kind, tmp_path, "cut", data_on_device=True))
    trainer, found = train(recipe_of(kind, tmp_path, "cut", data_on_device=True, resume=True))
    assert resumed_at() == [15] and isinstance(trainer.loader, ResidentLoader)
    assert_same_weights(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert without_time(found) == without_time(expected)


def prepared_text(tmp_path: Path, model: dict[str, Any]) -> Any:
    return prepare_data(data_arguments(**write_text(tmp_path / "text.txt")), build_config(model))


def test_without_trimming_all_batches_have_one_shape_and_the_same_loss(tmp_path: Path) -> None:
    """The longest row of all decides the length; what is drawn being the same, padding does not change the loss."""
    for model in ({"model_type": "metamae"} | recipe_of("text", tmp_path, "unused").model, SMA_TEXT_MODEL):
        model = model | {"hidden_dropout_prob": 0.0}
        if model["model_type"] == "sma":
            model |= {"masking": "random"}
        prepared = prepared_text(tmp_path, model)
        whole = resident_rows(prepared, torch.device("cpu"), trims=False)
        cut = resident_rows(prepared, torch.device("cpu"), trims=True)
        net = AutoModelForPreTraining.from_config(build_config(model)).double()
        rows = [row for row in range(len(prepared.train)) if len(prepared.train[row]["input_ids"]) <= 6][:4]
        places = torch.tensor(rows)
        padded, trimmed = whole.take(rows, places), cut.take(rows, places)
        longest = max(len(prepared.train[row]["input_ids"]) for row in range(len(prepared.train)))
        assert padded["input_ids"].shape[1] == padded["attention_mask"].shape[1] == longest == 9
        width = trimmed["input_ids"].shape[1]
        assert width <= 6
        noise = torch.rand(4, longest, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        losses = [
            net(input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask"), noise=noise[:, :size]).loss
            for batch, size in ((padded, longest), (trimmed, width))
        ]
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-10, atol=0.0)


def test_texts_of_one_length_have_no_mask_but_where_it_is_asked_for() -> None:
    rows = {"input_ids": torch.arange(6).reshape(2, 3), "attention_mask": torch.ones(2, 3, dtype=torch.int64)}
    lengths = torch.tensor([3, 3]).numpy()
    for always in (True, False):
        for trims in (True, False):
            taken = resident.ResidentRows(rows, lengths, lengths, always, trims).take([1, 0], torch.tensor([1, 0]))
            assert ("attention_mask" in taken) == always
            assert torch.equal(taken["input_ids"], rows["input_ids"][[1, 0]])


def test_padding_of_a_row_itself_is_masked_as_the_collator_does() -> None:
    """Ids that are the padding's stand in some rows; in a batch without one nothing is masked."""
    collator = BatchCollator({"input_ids": "ids"}, vocab_size=9, pad_token_id=0)
    ids = [[1, 2, 3], [4, 5], [6, 0, 0], [7, 8, 1]]

    class Rows:
        def __len__(self) -> int:
            return len(ids)

        def __getitems__(self, rows: Any) -> list[dict[str, Any]]:
            return [{"input_ids": ids[row], "index": row} for row in rows]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resident, "_kept_rows", lambda _: Rows())
        patch.setattr(resident, "CHUNK_ROWS", 3)

        class Prepared:
            train = Rows()
            not_inputs = ("index", "labels")

        Prepared.collator = collator  # type: ignore[attr-defined]
        whole = resident_rows(Prepared(), torch.device("cpu"), trims=True)  # type: ignore[arg-type]
    for rows in ([0, 3], [1, 2], [2], [1], [3, 2, 1, 0]):
        expected = collator(Rows().__getitems__(rows))
        found = whole.take(rows, torch.tensor(rows))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [({"streaming": True}, "training split is streamed"), ("text", "made anew in each pass .masked text")],
)
def test_rows_that_are_never_whole_are_refused(data: Any, message: str, tmp_path: Path) -> None:
    model = None
    if data == "text":
        model, data = BERT_MODEL, write_sentences(tmp_path)
    with pytest.raises(ValueError, match=f"training.data_on_device: .*{message}"):
        train(make_recipe(tmp_path / "run", model, data, data_on_device=True))


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_large_split_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "MAX_BYTES", 3000)
    monkeypatch.setattr(resident, "CHUNK_ROWS", 5)
    with pytest.raises(
        ValueError, match="the 42 rows of the training split take .* Set it to false, or lower data.max_train"
    ):
        train(recipe_of(kind, tmp_path, "run", data_on_device=True))

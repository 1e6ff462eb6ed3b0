"""PoS-BERT from the loop to a task: resumed as if it had never stopped, and fine-tuned on pairs of sentences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same_weights, make_recipe, train, weights, without_time
from text_runs import BERT_MODEL, write_pairs, write_sentences, write_words
from transformers import AutoModel, AutoTokenizer

from hf_maskssl import PoSMinimaxBertForPreTraining
from hf_maskssl.data import data_arguments
from hf_maskssl.data.masked_text.rows import MaskedTextRows
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.evaluation.evaluate_checkpoint import evaluate_checkpoint
from hf_maskssl.training.finetuning.arguments import FinetuningArguments, FinetuningRecipe
from hf_maskssl.training.finetuning.sweep import Finetuner

BALANCERS: dict[str, dict[str, Any]] = {
    "minimax": {"task_balancing_options": {"momentum": 0.5}},
    "uncertainty": {"task_balancing": "uncertainty", "next_sentence_prediction": "inside"},
    "guided": {"masking": "guided", "num_masked_per_query": 2, "mask_schedule": "mix", "initializer_range": 0.3},
}


@pytest.mark.parametrize("name", BALANCERS)
def test_resumed_run_equals_an_uninterrupted_one(
    name: str, tmp_path: Path, resumed_at: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several epochs, whose maskings differ, with dropout, accumulated batches and what the balancing remembers."""
    model = BERT_MODEL | BALANCERS[name]
    fields: dict[str, Any] = {
        "model": model,
        "data": write_sentences(tmp_path, {"train": 13, "valid": 4}),
        "save_steps": 4,
        "max_steps": 8,
    }
    fields |= {"gradient_accumulation_steps": 2, "eval_steps": 4, "seed": 5}
    trainer, expected = train(make_recipe(tmp_path / "whole", **fields))
    assert expected.epoch >= 2 and len(trainer.prepared.train) % 4
    original = PoSMinimaxBertForPreTraining.forward
    calls: list[int] = []

    def stop(self: PoSMinimaxBertForPreTraining, *args: Any, **inputs: Any) -> Any:
        calls.append(1)
        if len(calls) == 16:  # in the middle of a step after the checkpoint
            raise KeyboardInterrupt
        return original(self, *args, **inputs)

    with monkeypatch.context() as patch:
        patch.setattr(PoSMinimaxBertForPreTraining, "forward", stop)
        with pytest.raises(KeyboardInterrupt):
            train(make_recipe(tmp_path / "cut", **fields))
    _, found = train(make_recipe(tmp_path / "cut", **fields, resume=True))
    assert resumed_at() == [4]
    assert_same_weights(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    assert without_time(found) == without_time(expected)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the loop leaves of a run that has learnt its text, with its history in `history`."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    model = BERT_MODEL | {"hidden_size": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    fields: dict[str, Any] = {"max_steps": 150, "batch_size": 8, "learning_rate": 3e-3, "logging_steps": 50}
    fields |= {"eval_steps": 50, "decay_norm_and_bias": False}
    data = write_sentences(folder, {"train": 40, "valid": 8})
    _, state = train(make_recipe(folder / "run", model, data, **fields))
    torch.save(state.history, folder / "history")
    return folder / "run"


def test_every_task_is_learnt_and_absent_ones_are_not_invented(checkpoint: Path) -> None:
    history = torch.load(checkpoint.parent / "history", weights_only=False)
    tasks = ("verb", "noun", "adjective", "determiner", "preposition", "pronoun", "next_sentence")
    for task in tasks[:-1]:
        assert history[-1][f"validation/{task}"] < history[0][f"validation/{task}"] - 0.3, task
        assert history[-1][f"train/weight/{task}"] > 0, task
    assert set(tasks) < {name.removeprefix("validation/") for name in history[-1]}
    for task in ("adverb", "conjunction", "interjection"):  # no word is one
        assert f"validation/{task}" not in history[-1] and history[-1][f"train/count/{task}"] == 0, task


def test_checkpoint_holds_its_tokenizer_and_every_weight_of_the_encoder(checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    encoded = tokenizer("The dog barked", "a Bird sang", return_tensors="pt")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])[:2] == ["[CLS]", "the"]
    assert encoded["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 1]]
    model, info = AutoModel.from_pretrained(checkpoint, output_loading_info=True)
    assert not info["missing_keys"] and model(**encoded).pooler_output.shape == (1, 32)


def test_fine_tuning_to_pairs_of_sentences(checkpoint: Path, tmp_path: Path) -> None:
    data = data_arguments(**write_pairs(tmp_path, {"train": 320, "valid": 32, "test": 64}))
    args = FinetuningArguments(
        checkpoint=str(checkpoint),
        output_dir=str(tmp_path / "run"),
        seeds=[0],
        learning_rate=2e-3,
        layer_decay=0.9,
        num_train_epochs=3,
        batch_size=8,
        warmup_ratio=0.06,
    )
    finetuner = Finetuner(FinetuningRecipe({"model_type": "pos_minimax_bert"}, data, args))
    batch = finetuner.data.collator([finetuner.data.train[row] for row in range(3)])
    # What the tokenizer gives of a pair: both segments, and the padding's, which is 0.
    assert (batch["input_ids"][:, 0] == 2).all() and (batch["token_type_ids"].sum(1) == 8).all()
    assert finetuner.run()["scores"]["test"]["accuracy"]["mean"] > 0.9


def test_probes_read_pairs_and_single_tokens(checkpoint: Path, tmp_path: Path) -> None:
    pairs = data_arguments(**write_pairs(tmp_path, {"train": 40, "test": 20}))
    result = evaluate_checkpoint(str(checkpoint), pairs, ProbeArguments(solver="exact", k=3))
    assert result["rows"] == {"train": 40, "test": 20}
    tokens = write_words(tmp_path, {"train": 40, "test": 20})
    result = evaluate_checkpoint(str(checkpoint), data_arguments(**tokens), ProbeArguments(solver="exact", k=3))
    # One row a word: neither [CLS] nor [SEP], which have no label. A word's embedding tells what it is.
    assert result["rows"] == {"train": 40 * 7, "test": 20 * 7}
    assert result["linear"][0]["token_accuracy"] > 0.95


def test_probe_during_pretraining_is_refused(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, BERT_MODEL, write_sentences(tmp_path), {"every_steps": 2})
    with pytest.raises(ValueError, match="probe.every_steps"):
        train(recipe)


def test_maskings_follow_the_epochs_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sequences masked otherwise in the second epoch, and in the third, of two maskings, as in the first."""
    seen: dict[int, dict[tuple[int, ...], set[int]]] = {}  # epoch -> text of a sequence -> places that are masked
    original, tell = PoSMinimaxBertForPreTraining.forward, MaskedTextRows.set_epoch

    def told(self: MaskedTextRows, epoch: int, *seed: Any) -> None:
        seen.setdefault(epoch, {})
        tell(self, epoch, *seed)

    def look(self: PoSMinimaxBertForPreTraining, **inputs: Any) -> Any:
        ids, labels = inputs["input_ids"], inputs["labels"]
        text = torch.where(labels == -100, ids, labels)  # what stood there before it was masked
        for row, mask in zip(text, labels != -100, strict=True):
            seen[max(seen)][tuple(row[row != 0].tolist())] = set(mask.nonzero().flatten().tolist())
        return original(self, **inputs)

    monkeypatch.setattr(MaskedTextRows, "set_epoch", told)
    monkeypatch.setattr(PoSMinimaxBertForPreTraining, "forward", look)
    model = BERT_MODEL | {"next_sentence_prediction": "none"}  # sequences without a second, drawn, segment
    data = write_sentences(tmp_path, {"train": 8}) | {"num_maskings": 2, "short_sequence_probability": 0.0}
    trainer, _ = train(make_recipe(tmp_path / "run", model, data, batch_size=8, max_steps=6))
    first, second, third = seen[0], seen[1], seen[2]
    assert len(trainer.prepared.train) == len(first) == 16 and first.keys() == second.keys()
    assert third == first and sum(second[text] != first[text] for text in first) > 12


def test_gradnorm_is_not_compiled(tmp_path: Path) -> None:
    model = BERT_MODEL | {"task_balancing": "gradnorm"}
    with pytest.raises(ValueError, match="training.torch_compile: task_balancing 'gradnorm'"):
        train(make_recipe(tmp_path / "run", model, write_sentences(tmp_path), max_steps=1, torch_compile=True))

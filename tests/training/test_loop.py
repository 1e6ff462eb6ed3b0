"""What a run does on one process: rates, losses, logs, checkpoints, pictures, trackers."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import FullyShardedDataParallelPlugin
from dense_runs import MULTIMAE, SCENES
from runs import (
    DATA,
    LABELLED,
    PLAIN_MAE,
    SMA_TEXT_MODEL,
    assert_same_weights,
    draws_of_the_sample,
    make_recipe,
    train,
    weights,
)
from text_runs import BERT_MODEL
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining, ViTConfig, ViTModel

from hf_maskssl.hub.cards import write_model_card
from hf_maskssl.models.mask_sampling_metamae import MetaMAEMaskSampler
from hf_maskssl.recipes import build_config
from hf_maskssl.training import Pretrainer, Watcher, pretrain, recipe_watchers
from hf_maskssl.training.pretraining import checkpoints
from hf_maskssl.training.pretraining.seeds import mix
from hf_maskssl.training.pretraining.sharding import choose_units, fsdp_units
from hf_maskssl.training.pretraining.window import LossWindow


def rates_of(monkeypatch: pytest.MonkeyPatch, recipe: Any) -> tuple[list[float], list[float]]:
    """The rate AdamW was given at each step, and the one that was logged."""
    used: list[float] = []
    original: Callable[..., None] = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, closure: Any = None) -> None:
        used.append(self.param_groups[0]["lr"])
        original(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    _, state = train(recipe)
    return used, [entry["train/learning_rate"] for entry in state.history]


@pytest.mark.parametrize(
    ("kind", "after_warmup"),
    [
        ("constant", lambda done: 1.0),
        ("linear", lambda done: 1 - done),
        ("cosine", lambda done: 0.5 * (1 + math.cos(math.pi * done))),
    ],
)
def test_schedules(
    kind: str, after_warmup: Callable[[float], float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(
        tmp_path,
        PLAIN_MAE,
        max_steps=8,
        warmup_steps=3,
        lr_scheduler_type=kind,
        learning_rate=2e-3,
        gradient_accumulation_steps=2,
    )
    used, logged = rates_of(monkeypatch, recipe)
    expected = [2e-3 * (step / 3 if step < 3 else after_warmup((step - 3) / 5)) for step in range(8)]
    assert used == pytest.approx(expected)
    assert logged == used


def test_weight_decay_of_every_parameter_or_of_matrices_alone(tmp_path: Path) -> None:
    trainer, _ = train(make_recipe(tmp_path / "all", max_steps=1, weight_decay=0.1))
    groups = trainer.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1]
    assert len(groups[0]["params"]) == len(list(trainer.model.parameters()))

    trainer, _ = train(make_recipe(tmp_path / "some", max_steps=1, weight_decay=0.1, decay_norm_and_bias=False))
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    decayed, plain = (
        {names[id(parameter)] for parameter in group["params"]} for group in trainer.optimizer.param_groups
    )
    assert [group["weight_decay"] for group in trainer.optimizer.param_groups] == [0.1, 0.0]
    assert decayed | plain == set(names.values()) and not decayed & plain
    assert all(name.endswith(".weight") and "norm" not in name for name in decayed)
    assert {
        "metamae.norm.weight",
        "metamae.embeddings.cls_token",
        "decoder.mask_tokens",
        "decoder.embed.bias",
    } <= plain


def test_accumulated_batches_are_one_large_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MetaMAEMaskSampler, "draw", draws_of_the_sample)
    histories = []
    for parts in (1, 4):
        recipe = make_recipe(
            tmp_path / str(parts),
            PLAIN_MAE,
            max_steps=5,
            batch_size=8 // parts,
            gradient_accumulation_steps=parts,
            max_grad_norm=0.5,
        )
        histories.append(train(recipe)[1].history)
    for whole, accumulated in zip(*histories, strict=True):
        assert accumulated == pytest.approx(whole, rel=1e-4)
    assert histories[0][0]["train/loss"] != histories[0][1]["train/loss"]


def test_the_gradient_is_clipped_and_its_norm_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    original: Callable[..., None] = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, closure: Any = None) -> None:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
        original(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    _, state = train(make_recipe(tmp_path / "free", logging_steps=3, max_steps=4))
    free = list(norms)
    logged = {entry["step"]: entry["train/grad_norm"] for entry in state.history}
    assert logged == pytest.approx({3: free[2], 4: free[3]})
    norms.clear()
    _, state = train(make_recipe(tmp_path / "clipped", max_steps=1, max_grad_norm=0.25))
    assert norms == pytest.approx([0.25])
    assert state.history[0]["train/grad_norm"] == pytest.approx(free[0])  # before clipping


def test_logged_values_are_means_over_the_window(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"max_steps": 8, "gradient_accumulation_steps": 2}
    _, single = train(make_recipe(tmp_path / "1", **settings))
    _, window = train(make_recipe(tmp_path / "3", logging_steps=3, **settings))
    assert [entry["step"] for entry in window.history] == [3, 6, 8]
    for first, entry in zip((0, 3, 6), window.history, strict=True):
        rows = single.history[first : int(entry["step"])]
        for name in ("train/loss", "train/reconstruction", "train/support", "train/contrastive"):
            assert entry[name] == pytest.approx(sum(row[name] for row in rows) / len(rows), rel=1e-5)
    assert {"train/learning_rate", "train/grad_norm"} <= window.history[0].keys()


def test_watching_does_not_change_the_run(tmp_path: Path) -> None:
    train(make_recipe(tmp_path / "unwatched", data={"validation_fraction": 0.2}))
    recipe = make_recipe(
        tmp_path / "watched",
        data={"validation_fraction": 0.2} | LABELLED,
        probe={"every_steps": 2, "max_samples": 20, "k": 3},
        eval_steps=1,
        picture_steps=2,
        save_steps=1,
        report_to=["tensorboard"],
    )
    train(recipe)
    assert_same_weights(weights(tmp_path / "watched"), weights(tmp_path / "unwatched"))
    pictures = {path.name for path in (tmp_path / "watched" / "pictures").iterdir()}
    assert pictures == {"reconstruction-00000002.png", "reconstruction-00000004.png", "curves.png"}
    assert list((tmp_path / "watched" / "hf_maskssl").glob("events.out.tfevents.*"))


def test_pictures_before_the_first_line_of_the_log_have_no_curves(tmp_path: Path) -> None:
    train(make_recipe(tmp_path, PLAIN_MAE, max_steps=3, picture_steps=1, logging_steps=50))
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    # The last step is logged always, before it is drawn.
    assert pictures == {*(f"reconstruction-0000000{step}.png" for step in (1, 2, 3)), "curves.png"}


def test_the_validation_loss_has_the_same_masks_every_time(tmp_path: Path) -> None:
    data = {"validation_fraction": 0.2, "max_validation_samples": 8}
    recipe = make_recipe(tmp_path, PLAIN_MAE, data, eval_steps=1, learning_rate=1e-30)
    trainer, state = train(recipe)
    losses = [entry["validation/loss"] for entry in state.history]
    assert len(losses) == 5 and len(set(losses)) == 1  # the first is that of the untrained model
    assert len({entry["train/loss"] for entry in state.history[1:]}) == 4

    # 8 rows in batches of 4, by hand: the mean over rows.
    validation: Any = trainer.prepared.validation
    rows = [validation[row] for row in range(len(validation))]
    assert len(rows) == 8
    expected = 0.0
    for number in range(2):
        batch = trainer.prepared.collator(rows[4 * number : 4 * number + 4])
        torch.manual_seed(mix(0, 0, number, 0))
        expected += 0.5 * trainer.model(pixel_values=batch["pixel_values"]).loss.item()
    assert losses[0] == pytest.approx(expected, rel=1e-4)


def test_at_most_eval_batches_and_a_stream_for_validation(tmp_path: Path) -> None:
    data = {"streaming": True, "validation_split": "test", "max_validation_samples": 10}
    _, all_rows = train(make_recipe(tmp_path / "all", PLAIN_MAE, data, eval_steps=4))
    _, first = train(make_recipe(tmp_path / "first", PLAIN_MAE, data, eval_steps=4, eval_batches=1))
    _, few = train(make_recipe(tmp_path / "few", PLAIN_MAE, data | {"max_validation_samples": 4}, eval_steps=4))
    losses = [state.latest("validation/loss") for state in (all_rows, first, few)]
    assert losses[1] == losses[2] != losses[0]


def test_the_online_probe_begins_with_the_untrained_encoder(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, {}, LABELLED, {"every_steps": 2, "max_samples": 20, "k": 3}, logging_steps=3)
    trainer = Pretrainer(recipe)
    state = trainer.run()
    probed = [entry["step"] for entry in state.history if "probe/linear_accuracy" in entry]
    assert probed == [0, 2, 4]
    assert state.history[0].keys() == {"step", "probe/linear_accuracy", "probe/knn_accuracy", "probe/rankme"}
    assert json.loads((tmp_path / "trainer_state.json").read_text())["history"] == state.history


def test_a_checkpoint_holds_model_processor_card_and_all_that_was_logged(tmp_path: Path) -> None:
    recipe = make_recipe(
        tmp_path,
        data=LABELLED | {"validation_fraction": 0.2},
        probe={"every_steps": 2, "max_samples": 20, "k": 3},
        eval_steps=2,
        save_best=True,
        save_steps=2,
    )
    trainer = Pretrainer(recipe, write_model_card)
    state = trainer.run()
    for folder in (tmp_path / "checkpoint-00000002", tmp_path / "checkpoint-00000004", tmp_path):
        model, info = AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values())
        assert AutoModel.from_pretrained(folder).config.model_type == "metamae"
        processor = AutoImageProcessor.from_pretrained(folder)
        assert processor.to_dict() == trainer.prepared.processor.to_dict()  # type: ignore[union-attr]
        assert "# MetaMAE pre-trained on" in (folder / "README.md").read_text()
        saved = checkpoints.read_state(folder)
        assert saved["history"] == [entry for entry in state.history if entry["step"] <= saved["step"]]
    assert_same_weights(weights(tmp_path), {name: value for name, value in model.state_dict().items()})
    assert not (tmp_path / "training_state").exists()


def test_the_last_checkpoints_and_the_best_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Pretrainer._step

    def step(self: Pretrainer, batches: Any) -> None:
        original(self, batches)
        if self.state.step == 4:  # from here on validation is worse
            self.model.decoder.patch_head.weight.data *= 30

    monkeypatch.setattr(Pretrainer, "_step", step)
    recipe = make_recipe(
        tmp_path, PLAIN_MAE, {"validation_fraction": 0.2}, max_steps=7, eval_steps=1, save_best=True, save_steps=2
    )
    _, state = train(recipe)
    names = [path.name for path in checkpoints.list_checkpoints(tmp_path)]
    assert names == ["checkpoint-00000006", "checkpoint-00000007"]
    best = tmp_path / "checkpoint-best"
    losses = {entry["step"]: entry["validation/loss"] for entry in state.history}
    assert state.best_step == min(losses, key=losses.__getitem__) <= 3
    assert state.best_loss == losses[state.best_step]
    assert checkpoints.find_problem(best) is None and checkpoints.read_state(best)["step"] == state.best_step
    AutoModel.from_pretrained(best)


def test_bfloat16_computes_in_it_and_keeps_float32_weights(tmp_path: Path) -> None:
    _, full = train(make_recipe(tmp_path / "no", PLAIN_MAE, max_steps=2, mixed_precision="no"))
    AcceleratorState._reset_state(reset_partial_state=True)
    for name, model in (("mae", PLAIN_MAE), ("metamae", {})):
        trainer, half = train(make_recipe(tmp_path / name, model, max_steps=2, mixed_precision="bf16"))
        assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}
        assert all(math.isfinite(entry["train/loss"]) for entry in half.history)
        if name == "mae":
            assert half.history[0]["train/loss"] != full.history[0]["train/loss"]
            assert half.history[0]["train/loss"] == pytest.approx(full.history[0]["train/loss"], rel=0.02)


@pytest.mark.parametrize("model", [{}, PLAIN_MAE], ids=["metamae", "mae"])
def test_gradient_checkpointing_changes_memory_alone(model: dict[str, Any], tmp_path: Path) -> None:
    model = model | {"hidden_dropout_prob": 0.2}
    train(make_recipe(tmp_path / "kept", model))
    trainer, _ = train(make_recipe(tmp_path / "recomputed", model, gradient_checkpointing=True))
    assert all(layer.gradient_checkpointing for layer in trainer.model.metamae.layers)
    kept, recomputed = weights(tmp_path / "kept"), weights(tmp_path / "recomputed")
    for name in kept:
        torch.testing.assert_close(recomputed[name], kept[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", [{}, PLAIN_MAE], ids=["metamae", "mae"])
def test_compiled_layers_learn_the_same(model: dict[str, Any], tmp_path: Path) -> None:
    _, eager = train(make_recipe(tmp_path / "eager", model, max_steps=3))
    trainer, compiled = train(make_recipe(tmp_path / "compiled", model, max_steps=3, torch_compile=True))
    assert all(layer._compiled_call_impl is not None for layer in trainer.model.metamae.layers)
    for first, second in zip(eager.history, compiled.history, strict=True):
        assert second == pytest.approx(first, rel=1e-3)
    assert weights(tmp_path / "compiled").keys() == weights(tmp_path / "eager").keys()
    AutoModel.from_pretrained(tmp_path / "compiled")


def test_a_watcher_of_ones_own_looks_beside_those_of_the_recipe(tmp_path: Path) -> None:
    class Norm(Watcher):
        at_start = True

        def check(self, run: Pretrainer) -> None:
            checked.append(len(run.prepared.train))

        def look(self, run: Pretrainer) -> dict[str, float]:
            return {"norm/weights": float(sum(part.detach().norm() for part in run.model.parameters()))}

    checked: list[int] = []
    recipe = make_recipe(tmp_path, PLAIN_MAE, max_steps=5, eval_steps=0)
    state = pretrain(recipe, watchers=[*recipe_watchers(recipe), Norm(2)])
    assert [entry["step"] for entry in state.history if "norm/weights" in entry] == [0, 2, 4, 5]
    assert checked == [DATA["max_train_samples"]]


def test_streams_are_shuffled_anew_every_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    original = LossWindow.add

    def record(self: LossWindow, step: int, rows: torch.Tensor, parts: dict[str, torch.Tensor]) -> None:
        seen.append(rows.tolist())
        original(self, step, rows, parts)

    monkeypatch.setattr(LossWindow, "add", record)
    train(make_recipe(tmp_path, PLAIN_MAE, {"streaming": True}, max_steps=20))
    first, second = (sum(seen[start : start + 10], []) for start in (0, 10))
    assert len(set(first)) == len(set(second)) == 40  # two of the 42 rows are left over
    assert first != second and first != sorted(first)
    assert set(first) | set(second) <= set(range(DATA["max_train_samples"]))


def test_units_of_fsdp_do_not_hold_the_input_embedding(tmp_path: Path) -> None:
    trainer, _ = train(make_recipe(tmp_path, PLAIN_MAE, max_steps=1))
    assert set(fsdp_units(trainer.model)) == {"TransformerLayer", "TransformerBlock", "MetaMAEDecoder"}


@pytest.mark.parametrize(
    ("fields", "units"),
    [
        (SMA_TEXT_MODEL, {"SMALayer", "SMAInputLayer", "SMADecoder"}),
        (SMA_TEXT_MODEL | {"tie_word_embeddings": True}, {"SMALayer", "SMAInputLayer"}),
        (BERT_MODEL, {"BertLayer"}),
        (BERT_MODEL | {"masking": "guided"}, {"BertLayer", "PoSMinimaxBertInputLayer"}),
    ],
    ids=["own output layer", "tied to a block's weight", "tied to a head's weight", "guided"],
)
def test_units_of_fsdp_hold_no_weight_that_is_tied_to_another_outside(fields: dict[str, Any], units: set[str]) -> None:
    model = AutoModelForPreTraining.from_config(build_config(fields))
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    choose_units(model, plugin)
    assert set(plugin.transformer_cls_names_to_wrap) == units


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        ({"auto_wrap_policy": "size_based_wrap"}, "SIZE_BASED_WRAP: its units would be whole lists of layers"),
        (
            {"transformer_cls_names_to_wrap": ["SMALayer", "SMADecoder", "SMAEmbeddings"]},
            "names SMADecoder, SMAEmbeddings, which FSDP cannot shard alone.*name some of SMAInputLayer, SMALayer",
        ),
    ],
)
def test_units_that_cannot_be_are_refused(launch: dict[str, Any], message: str) -> None:
    model = AutoModelForPreTraining.from_config(build_config(SMA_TEXT_MODEL | {"tie_word_embeddings": True}))
    with pytest.raises(ValueError, match=message):
        choose_units(model, FullyShardedDataParallelPlugin(fsdp_version=2, **launch))


def test_multimae_begins_as_a_vit(tmp_path: Path) -> None:
    small = {name: MULTIMAE[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    small |= {"intermediate_size": 24, "image_size": 32, "patch_size": 8}
    vit = ViTModel(ViTConfig(**small), add_pooling_layer=False)
    vit.save_pretrained(tmp_path / "vit")
    fields: dict[str, Any] = {"model": MULTIMAE, "data": SCENES | {"scale": 1.0}, "init_from": str(tmp_path / "vit")}
    with pytest.raises(ValueError, match="training.init_from=.*positions"):
        train(make_recipe(tmp_path / "refused", **fields))
    trainer, _ = train(
        make_recipe(tmp_path / "run", **fields, init_positions="drop", max_steps=1, learning_rate=1e-12)
    )
    layer: Any = trainer.bare_model.base_model.layers[1]
    torch.testing.assert_close(layer.mlp.up.weight.detach(), vit.layers[1].mlp.fc1.weight.detach())
    with pytest.raises(ValueError, match="MetaMAEForPretraining cannot"):
        train(make_recipe(tmp_path / "other", init_from=str(tmp_path / "vit")))

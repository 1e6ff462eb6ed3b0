"""MetaMAE as a transformers model: what its common tests ask of every model, and every refusal of bad input."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from metamae_cases import CASES, MODALITIES, make_batch, make_draws, small_config, small_model
from transformers import AutoModel, AutoModelForPreTraining

from hf_maskssl import (
    MetaMAEConfig,
    MetaMAEForPretraining,
    MetaMAEForSequenceClassification,
    MetaMAEForTokenClassification,
    MetaMAEModel,
)
from hf_maskssl.models.layers import enable_checkpointing, patchify, sincos_positions, unpatchify


def encoder(case: str, **changes: Any) -> MetaMAEModel:
    torch.manual_seed(0)
    return MetaMAEModel(small_config(case, **changes)).eval()


# Shapes and meaning


@pytest.mark.parametrize("case", CASES)
def test_encoder_shapes_and_pooling(case: str) -> None:
    model, batch = encoder(case), make_batch(case)
    with torch.no_grad():
        output = model(**batch)
    tokens = model.embeddings.tokenize(**({name: None for name in INPUTS} | batch))
    batch_size, num_tokens = tokens.shape
    assert output.last_hidden_state.shape == (batch_size, 1 + num_tokens, 16)
    real = torch.ones(batch_size, num_tokens) if tokens.attention_mask is None else tokens.attention_mask
    for row in range(batch_size):
        expected = output.last_hidden_state[row, 1:][real[row].bool()].mean(0)
        torch.testing.assert_close(output.pooler_output[row], expected)


INPUTS = ("input_ids", "input_values", "pixel_values", "attention_mask")


@pytest.mark.parametrize("case", ["padded_tokens", "vision_language"])
def test_padding_is_never_read(case: str) -> None:
    batch, draws = make_batch(case), make_draws(case)
    changed = batch | {
        "input_ids": torch.where(batch["attention_mask"].bool(), batch["input_ids"], 6 - batch["input_ids"])
    }
    assert not torch.equal(batch["input_ids"], changed["input_ids"])
    model = small_model(case).eval()
    first, second = model(**batch, **draws), model(**changed, **draws)
    torch.testing.assert_close(first.loss, second.loss)
    torch.testing.assert_close(model.metamae(**batch).pooler_output, model.metamae(**changed).pooler_output)
    padding = first.mask[:, -batch["attention_mask"].shape[1] :][~batch["attention_mask"].bool()]
    assert not padding.any()


def test_a_row_gives_what_it_gave_in_a_padded_batch() -> None:
    model, batch = encoder("padded_tokens"), make_batch("padded_tokens")
    together = model(**batch).pooler_output
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = model(input_ids=batch["input_ids"][row : row + 1, :length]).pooler_output
        torch.testing.assert_close(alone[0], together[row])


def test_positions_are_those_of_the_paper() -> None:
    """One value by hand: place 3, frequency 1 of 4 in one dimension; column and row halves in two."""
    table = sincos_positions((5,), 8)
    assert table[3, 1].item() == pytest.approx(torch.tensor(3 * 10000 ** (-1 / 4)).sin().item(), abs=1e-6)
    assert table[3, 5].item() == pytest.approx(torch.tensor(3 * 10000 ** (-1 / 4)).cos().item(), abs=1e-6)
    grid = sincos_positions((2, 3), 8).view(2, 3, 8)
    torch.testing.assert_close(grid[1, 2, :4], sincos_positions((3,), 4)[2])
    torch.testing.assert_close(grid[1, 2, 4:], sincos_positions((2,), 4)[1])


def test_patchify_puts_the_channel_last_and_unpatchify_undoes_it() -> None:
    values = torch.randn(2, 3, 4, 6)
    patches = patchify(values, (2, 3))
    assert patches.shape == (2, 4, 18)
    torch.testing.assert_close(patches[0, 1].view(2, 3, 3), values[0, :, 0:2, 3:6].permute(1, 2, 0))
    torch.testing.assert_close(unpatchify(patches, (2, 3), (2, 2), 3), values)
    series = torch.randn(2, 3, 12)
    torch.testing.assert_close(unpatchify(patchify(series, (4,)), (4,), (3,), 3), series)


# Saving, loading, initialisation


@pytest.mark.parametrize("case", list(MODALITIES))
def test_save_and_load_give_the_same_outputs(case: str, tmp_path: Path) -> None:
    model = small_model(case).eval()
    model.save_pretrained(tmp_path)
    batch, draws = make_batch(case), make_draws(case)
    again = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**batch, **draws).loss, model(**batch, **draws).loss)
    alone, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    torch.testing.assert_close(alone.eval()(**batch).pooler_output, model.metamae(**batch).pooler_output)


def test_encoder_weights_enter_a_head(tmp_path: Path) -> None:
    small_model("series").save_pretrained(tmp_path)
    head, info = MetaMAEForSequenceClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    assert sorted(info["missing_keys"]) == ["classifier.bias", "classifier.weight"]
    loaded = AutoModel.from_pretrained(tmp_path)
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, dict(head.metamae.named_parameters())[name])


def test_missing_weights_and_buffers_are_made_anew(tmp_path: Path) -> None:
    """Loading builds on the meta device: what the file lacks must come from `_init_weights`, tables included."""
    torch.manual_seed(0)
    MetaMAEModel(small_config("image")).save_pretrained(tmp_path)
    model = MetaMAEForPretraining.from_pretrained(tmp_path)
    fresh = MetaMAEForPretraining(small_config("image"))
    for name, buffer in fresh.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], buffer)
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
    assert 0.005 < model.decoder.mask_tokens.std().item() < 0.06


def test_initial_values_are_those_of_the_authors() -> None:
    model = small_model("image", hidden_size=64, decoder_hidden_size=32, intermediate_size=128)
    layer = model.metamae.layers[0]
    # Xavier-uniform of the fused (3D, D) matrix
    bound = (6 / (64 + 3 * 64)) ** 0.5
    assert layer.attention.qkv.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
    assert not layer.mlp.up.bias.any() and not model.decoder.patch_head.bias.any()
    assert model.metamae.embeddings.cls_token.std().item() == pytest.approx(0.02, rel=0.4)
    # the projector keeps PyTorch's own: uniform within 1 / sqrt(fan_in)
    assert model.projector.up.weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.02)


@pytest.mark.parametrize("case", list(MODALITIES))
def test_config_survives_json_and_a_folder(case: str, tmp_path: Path) -> None:
    config = small_config(case)
    config.save_pretrained(tmp_path)
    again = MetaMAEConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert MetaMAEConfig(**json.loads(config.to_json_string(use_diff=False))).grid_shape == config.grid_shape


# Attention kernels, precision, compilation


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sdpa_gives_what_eager_gives(case: str, dtype: torch.dtype) -> None:
    batch = {name: value.to(dtype) if value.is_floating_point() else value for name, value in make_batch(case).items()}
    outputs = []
    for implementation in ("sdpa", "eager"):
        model = encoder(case).to(dtype)
        model.set_attn_implementation(implementation)
        outputs.append(model(**batch).last_hidden_state)
    real = slice(None) if "attention_mask" not in batch else torch.ones(outputs[0].shape[:2], dtype=torch.bool)
    if "attention_mask" in batch:
        real[:, -batch["attention_mask"].shape[1] :] = batch["attention_mask"].bool()
    # Normalised values reach 4, where neighbouring bfloat16 numbers are 2^-6 apart: four of those.
    tolerance = 4 * 2**-6 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(outputs[0][real], outputs[1][real], rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_training_step_under_bfloat16_autocast(case: str) -> None:
    model, batch, draws = small_model(case), make_batch(case), make_draws(case)
    expected = model(**batch, **draws).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch, **draws)
    loss = output.loss
    assert {part.dtype for part in (loss, *output.loss_parts.values())} == {torch.float32}
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("case", CASES)
def test_training_step_of_a_bfloat16_model(case: str) -> None:
    model = small_model(case).to(torch.bfloat16)
    loss = model(**make_batch(case), **make_draws(case)).loss
    loss.backward()
    assert torch.isfinite(loss)


def test_float16_autocast_adapts_in_float32() -> None:
    model, batch, draws = small_model("series"), make_batch("series"), make_draws("series")
    with torch.autocast("cpu", torch.float16):
        output = model(**batch, **draws)
    assert output.patch_predictions.dtype == torch.float32
    torch.testing.assert_close(output.loss, model(**batch, **draws).loss, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.inference_mode])
def test_validation_loss_needs_no_graph(grad_mode: Any) -> None:
    model, batch, draws = small_model("image").eval(), make_batch("image"), make_draws("image")
    expected = model(**batch, **draws)
    with grad_mode():
        output = model(**batch, **draws)
    assert not output.loss.requires_grad
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(output.adapted_latents, expected.adapted_latents)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    batch, draws = make_batch("padded_tokens"), make_draws("padded_tokens")
    gradients = []
    for use_checkpointing in (False, True):
        model = small_model("padded_tokens")
        if use_checkpointing:
            enable_checkpointing(model)
        model.train()(**batch, **draws).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients() -> None:
    batch, draws = make_batch("image"), make_draws("image")
    plain, compiled = small_model("image"), small_model("image")
    for module in compiled.compilable_modules():
        module.compile(fullgraph=True)
    for model in (plain, compiled):
        model(**batch, **draws).loss.backward()
    for (name, left), (_, right) in zip(plain.named_parameters(), compiled.named_parameters(), strict=True):
        torch.testing.assert_close(
            left.grad, right.grad, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


# Outputs


def test_hidden_states_and_attentions() -> None:
    model, batch = encoder("series"), make_batch("series")
    model.set_attn_implementation("eager")
    output = model(**batch, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 3 and output.hidden_states[0].shape == (4, 7, 16)
    assert len(output.attentions) == 2 and output.attentions[0].shape == (4, 2, 7, 7)
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(4, 2, 7))
    pretraining = small_model("series")
    pretraining.set_attn_implementation("eager")
    output = pretraining(**batch, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 3 and output.attentions[1].shape == (4, 2, 4, 4)


def test_tuple_output_equals_dict_output() -> None:
    model, batch, draws = small_model("image").eval(), make_batch("image"), make_draws("image")
    as_tuple, as_dict = model(**batch, **draws, return_dict=False), model(**batch, **draws)
    torch.testing.assert_close(as_tuple[0], as_dict.loss)
    assert len(as_tuple) == len(as_dict.to_tuple())


def test_draws_decide_and_are_drawn_when_absent() -> None:
    model, batch = small_model("image"), make_batch("image")
    torch.manual_seed(3)
    first = model(**batch)
    torch.manual_seed(3)
    second = model(**batch)
    third = model(**batch)
    assert torch.equal(first.mask, second.mask) and first.loss == second.loss
    assert first.loss != third.loss


def test_sequence_classification_and_regression() -> None:
    batch = make_batch("series")
    head = MetaMAEForSequenceClassification(small_config("series", num_labels=3))
    output = head(**batch, labels=torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(
        output.loss, torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 2, 0]))
    )
    regression = MetaMAEForSequenceClassification(small_config("series", num_labels=1))
    output = regression(**batch, labels=torch.tensor([0.1, 0.2, 0.3, 0.4]))
    expected = (output.logits.squeeze(-1) - torch.tensor([0.1, 0.2, 0.3, 0.4])).pow(2).mean()
    torch.testing.assert_close(output.loss, expected)


def test_token_classification_leaves_ignored_labels_out() -> None:
    batch = make_batch("padded_tokens")
    labels = torch.where(batch["attention_mask"].bool(), batch["input_ids"] % 3, -100)
    head = MetaMAEForTokenClassification(small_config("tokens", num_labels=3))
    output = head(**batch, labels=labels)
    assert output.logits.shape == (4, 9, 3)
    expected = torch.nn.functional.cross_entropy(output.logits[labels != -100], labels[labels != -100])
    torch.testing.assert_close(output.loss, expected)
    regression = MetaMAEForTokenClassification(small_config("tokens", num_labels=1))
    output = regression(**batch, labels=labels.float())
    expected = (output.logits.squeeze(-1) - labels)[labels != -100].pow(2).mean()
    torch.testing.assert_close(output.loss, expected)


def test_shorter_series_with_a_patch_mask() -> None:
    model = encoder("series")
    values = make_batch("series")["input_values"]
    short = model(input_values=values[..., :8]).pooler_output
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]] * 4)
    torch.testing.assert_close(model(input_values=values, attention_mask=mask).pooler_output, short)


def test_resizing_the_token_table() -> None:
    model = small_model("tokens")
    model.resize_token_embeddings(11)
    assert model.config.vocab_size == 11
    output = model(input_ids=torch.full((4, 9), 10))
    assert output.token_logits.shape[-1] == 11


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"modality": "series", "series_length": 10, "patch_size": 3},
            r"series_length.*multiple of `patch_size`.*10.*3",
        ),
        ({"modality": "image", "image_size": [8, 9], "patch_size": 4}, r"image_size.*multiple"),
        ({"modality": "tokens"}, "vocab_size"),
        ({"modality": "series"}, "series_length"),
        ({"image_size": 8, "mask_ratio": 0.9}, r"mask_ratio=0.9.*0 of 4 tokens visible"),
        ({"image_size": 8, "mask_ratio": 1.0}, "mask_ratio"),
        ({"image_size": 8, "mask_ratio": 0.0}, "mask_ratio"),
        ({"image_size": 4, "patch_size": 4}, "mask_ratio"),
        ({"image_size": 8, "num_adaptation_steps": 0}, "contrastive_weight=0"),
        ({"image_size": 8, "hidden_size": 30}, "hidden_size"),
        ({"image_size": 8, "decoder_hidden_size": 34}, "decoder_hidden_size"),
        ({"image_size": 8, "contrastive_temperature": 0.0}, "contrastive_temperature"),
        ({"image_size": 8, "nearby_ratio": 1.5}, "nearby_ratio"),
        ({"image_size": 8, "num_channels": 0}, "num_channels"),
        ({"image_size": 8, "decoder_num_hidden_layers": -1}, "decoder_num_hidden_layers"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        MetaMAEConfig(**changes)
    assert "ValueError" in str(caught.value) or isinstance(caught.value, ValueError)


BAD_INPUTS: list[tuple[str, dict[str, Any], str]] = [
    ("series", {"input_values": torch.randn(2, 4, 12)}, r"num_channels=3.*got 4"),
    ("series", {"input_values": torch.randn(2, 3, 11)}, r"patch_size=2.*got 11"),
    ("series", {"input_values": torch.randn(2, 3, 14)}, r"series_length=12.*got 14"),
    ("series", {"input_values": torch.randn(3, 12)}, r"shape \(batch, channels, time\)"),
    ("series", {"input_values": torch.ones(2, 3, 12, dtype=torch.int64)}, "floating point"),
    ("series", {"input_values": torch.full((2, 3, 12), float("nan"))}, r"finite.*rows \[0, 1\]"),
    ("series", {"input_values": torch.randn(2, 3, 12), "attention_mask": torch.ones(2, 5)}, "one entry per patch"),
    ("series", {"pixel_values": torch.randn(2, 3, 4, 4)}, "takes input_values"),
    ("series", {}, "none of them"),
    ("image", {"pixel_values": torch.randn(2, 5, 6, 4)}, r"image_size=\[4, 6\].*\[6, 4\]"),
    ("tokens", {"input_ids": torch.tensor([[0, 7]])}, r"vocab_size=7.*0 to 7"),
    ("tokens", {"input_ids": torch.tensor([[0, -1]])}, "vocab_size=7"),
    ("tokens", {"input_ids": torch.tensor([[0.0, 1.0]])}, "must be integers"),
    ("tokens", {"input_ids": torch.zeros(2, 10, dtype=torch.int64)}, "max_position_embeddings=9.*10"),
    (
        "tokens",
        {
            "input_ids": torch.zeros(2, 4, dtype=torch.int64),
            "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]),
        },
        r"nothing as real in rows \[1\]",
    ),
]


@pytest.mark.parametrize(("case", "batch", "message"), BAD_INPUTS)
def test_bad_input_is_refused(case: str, batch: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model(case)(**batch)


def test_draws_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`noise` must have one draw per place, the shape \(4, 6\), got \(4, 5\)"):
        small_model("series")(**make_batch("series"), noise=torch.rand(4, 5))


def test_float64_input_is_read_in_the_models_precision() -> None:
    model, batch = encoder("series"), make_batch("series")
    expected = model(**batch).pooler_output
    torch.testing.assert_close(model(input_values=batch["input_values"].double()).pooler_output, expected)


def test_attention_implementation_reaches_every_module() -> None:
    model = copy.deepcopy(small_model("series"))
    model.set_attn_implementation("eager")
    assert {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")} == {"eager"}

"""MultiMAE's rgb path as transformers' ViT, and a ViT, DeiT or ViT-MAE as MultiMAE: the same outputs both ways."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BeitConfig,
    BeitModel,
    DeiTConfig,
    DeiTModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)

import hf_maskssl
import tiny_models
from hf_maskssl.models.vit_exchange import from_vit, load_vit, to_vit

WIDTHS: dict[str, Any] = {**tiny_models.ENCODER, "num_hidden_layers": 3, "layer_norm_eps": 1e-6}
SIZES: dict[str, Any] = {**WIDTHS, "image_size": 32, "patch_size": 8}
MODALITIES: dict[str, Any] = {
    "depth": tiny_models.DEPTH,
    "rgb": tiny_models.RGB,
    "semseg": tiny_models.SEMSEG,
}


def build(**fields: Any) -> Any:
    """A MultiMAE whose weights, biases and norms included, are all random."""
    torch.manual_seed(0)
    config = hf_maskssl.MultiMAEConfig(**{**SIZES, "modalities": MODALITIES, "num_visible_tokens": 8, **fields})
    model = hf_maskssl.MultiMAEModel(config).eval()
    return randomize(model)


def randomize(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def build_vit_mae(**fields: Any) -> Any:
    torch.manual_seed(1)
    config = ViTMAEConfig(**{**SIZES, **tiny_models.DECODER, "mask_ratio": 0.0, **fields})
    vit = ViTMAEForPreTraining(config).eval()
    # transformers 5.23 leaves the positions of a new model at zero; those of its checkpoints are this table.
    vit.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    vit.vit.embeddings.initialize_weights()
    return randomize(vit)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (48, 40)])
@torch.no_grad()
def test_exported_vit_gives_the_same(tmp_path: Path, size: tuple[int, int], final_norm: bool) -> None:
    model = build(final_norm=final_norm)
    to_vit(model).save_pretrained(tmp_path)
    loaded: Any = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    vit, info = loaded
    assert not info["missing_keys"] and not info["unexpected_keys"]
    pixel_values = torch.randn(2, 3, *size)
    ours = model(pixel_values=pixel_values, output_hidden_states=True)
    theirs = vit(pixel_values, interpolate_pos_encoding=size != (32, 32), output_hidden_states=True)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 4
    for layer in range(3):
        assert_same(ours.hidden_states[layer], theirs.hidden_states[layer])
    if final_norm:
        assert_same(ours.last_hidden_state, theirs.last_hidden_state)
    else:
        assert_same(ours.last_hidden_state, theirs.hidden_states[-1])
        normalized = torch.nn.functional.layer_norm(ours.last_hidden_state, (16,), eps=1e-6)
        assert_same(normalized, theirs.last_hidden_state)


@torch.no_grad()
def test_other_modalities_and_shapes_are_exported() -> None:
    model = build(image_size=[32, 16], patch_size=[8, 4], qkv_bias=False)
    depth = torch.randn(2, 1, 32, 16)
    ours = model(inputs={"depth": depth}).last_hidden_state
    assert_same(ours, to_vit(model, "depth")(depth, output_hidden_states=True).hidden_states[-1])


@torch.no_grad()
def test_vit_mae_is_taken_over() -> None:
    vit = build_vit_mae()
    assert vit.vit.embeddings.position_embeddings[0, 1:].any()
    model = build(position_order="column_first", final_norm=True)
    depth = model.embeddings.projections["depth"].weight.clone()
    load_vit(model, vit)
    pixel_values = torch.randn(2, 3, 32, 32)
    # ViT-MAE shuffles its tokens even when it hides none.
    theirs = vit.vit(pixel_values, noise=torch.arange(16.0).expand(2, -1)).last_hidden_state
    assert_same(model(pixel_values=pixel_values).last_hidden_state, theirs)
    assert torch.equal(model.embeddings.projections["depth"].weight, depth)


@torch.no_grad()
def test_what_was_exported_comes_back() -> None:
    """The class token's own position, which a ViT may have, goes with the global token."""
    model, other = build(), build()
    vit = to_vit(model)
    vit.embeddings.position_embeddings[0, 0] += 0.5
    randomize(other)
    load_vit(other, vit)
    states = other.state_dict()
    for name, value in model.state_dict().items():
        if "rgb" in name or name.startswith("layers."):
            assert torch.equal(states[name], value), name
    assert_same(states["embeddings.global_tokens"], model.embeddings.global_tokens + 0.5)


@torch.no_grad()
def test_learned_positions_are_refused_or_dropped() -> None:
    torch.manual_seed(2)
    vit = randomize(ViTForImageClassification(ViTConfig(**SIZES)).eval())
    model = build(final_norm=True)
    before = model.embeddings.global_tokens.clone()
    with pytest.raises(ValueError, match=r"positions differ by up to 1\.\d+ .*learned.*positions=\"drop\""):
        load_vit(model, vit)
    assert torch.equal(model.embeddings.global_tokens, before), "a refusal changes nothing"
    load_vit(model, vit, positions="drop")
    vit.vit.embeddings.position_embeddings[0, 1:] = model.embeddings.positions_rgb
    pixel_values = torch.randn(2, 3, 32, 32)
    assert_same(model(pixel_values=pixel_values).last_hidden_state, vit.vit(pixel_values).last_hidden_state)


@pytest.mark.parametrize("size", [(32, 32), (48, 40)])
@pytest.mark.parametrize("kind", ["vit", "deit", "vit_mae"])
@torch.no_grad()
def test_a_vit_becomes_a_multimae_that_gives_the_same(kind: str, size: tuple[int, int]) -> None:
    """All hidden states, of pictures of other sizes too; epsilon and biases are the ViT's, not ViT-B's."""
    fields: dict[str, Any] = {"layer_norm_eps": 1e-3, "qkv_bias": kind != "deit"}
    torch.manual_seed(3)
    theirs: Any = build_vit_mae(**fields).vit
    if kind != "vit_mae":
        model_class, config = (ViTModel, ViTConfig) if kind == "vit" else (DeiTModel, DeiTConfig)
        theirs = randomize(model_class(config(**SIZES | fields)).eval())
    model = from_vit(theirs, drop_path_rate=0.1)
    tokens = 2 if kind == "deit" else 1
    config = model.config
    assert (config.num_global_tokens, config.drop_path_rate, model.training) == (tokens, 0.1, False)
    expected = ("sincos", "column_first") if kind == "vit_mae" else ("learned", "row_first")
    assert (config.position_embeddings, config.position_order) == expected
    pixel_values = torch.randn(2, 3, *size)
    # ViT-MAE shuffles its tokens even when it hides none.
    noise = {"noise": torch.arange(30.0 if size[0] == 48 else 16.0).expand(2, -1)} if kind == "vit_mae" else {}
    given = theirs(pixel_values, interpolate_pos_encoding=size != (32, 32), output_hidden_states=True, **noise)
    ours = model(pixel_values=pixel_values, output_hidden_states=True)
    assert_same(ours.last_hidden_state, given.last_hidden_state)
    assert len(ours.hidden_states) == 4
    for layer in range(3):
        assert_same(ours.hidden_states[layer], given.hidden_states[layer])
    if kind == "vit":
        assert_same(
            to_vit(model)(pixel_values[..., :32, :32]).last_hidden_state,
            model(pixel_values=pixel_values[..., :32, :32])[0],
        )


def test_learned_positions_are_trained_and_saved(tmp_path: Path) -> None:
    model = from_vit(randomize(ViTModel(ViTConfig(**SIZES))))
    model(pixel_values=torch.randn(2, 3, 32, 32)).pooler_output.square().sum().backward()
    assert model.embeddings.positions_rgb.grad.any()
    model.save_pretrained(tmp_path)
    opened: Any = hf_maskssl.MultiMAEModel.from_pretrained(tmp_path)
    assert torch.equal(opened.embeddings.positions_rgb, model.embeddings.positions_rgb)
    fixed, fresh = (build(position_embeddings=kind).embeddings for kind in ("sincos", "learned"))
    assert "positions_rgb" not in dict(fixed.named_parameters())
    assert (fixed.positions_rgb - fresh.positions_rgb).abs().max() < 1, "learned ones begin as the fixed ones"


def test_other_architectures_are_refused() -> None:
    beit = BeitModel(BeitConfig(**WIDTHS | {"image_size": 32, "patch_size": 8}))
    with pytest.raises(ValueError, match=r"one of \['vit', 'deit', 'vit_mae'\]; this model is of 'beit'"):
        load_vit(build(), beit)
    deit = DeiTModel(DeiTConfig(**SIZES))
    with pytest.raises(
        ValueError, match="a DeiT has a class token and a distillation token, so .* `num_global_tokens` 2, got 1"
    ):
        load_vit(build(), deit)


def test_heads_and_pretraining_models_are_taken_by_their_encoder() -> None:
    config = hf_maskssl.MultiMAEConfig(**SIZES, modalities=MODALITIES, num_visible_tokens=8)
    model: Any = hf_maskssl.MultiMAEForPretraining(config)
    vit: Any = to_vit(model)
    load_vit(hf_maskssl.MultiMAEForImageClassification(config), vit)
    assert torch.equal(vit.embeddings.cls_token, model.multimae.embeddings.global_tokens)


@pytest.mark.parametrize(
    ("fields", "vit_fields", "words"),
    [
        ({}, {}, 'halves of their channels are swapped: set `position_order` of the MultiMAE to "column_first"'),
        ({"image_size": 64}, {}, "positions of 16 patches, the MultiMAE 64 of 'rgb': set its `image_size`"),
        ({}, {"num_attention_heads": 4}, "`num_attention_heads` 4 of the ViT, 2 here"),
        ({}, {"patch_size": 16}, "`patch_size` [16, 16] of the ViT, [8, 8] here"),
        ({"num_global_tokens": 2}, {}, "`num_global_tokens` 1, got 2"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], vit_fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_vit(build(**fields), build_vit_mae(**vit_fields))
    assert words in str(caught.value)


@pytest.mark.parametrize("modality", ["semseg", "thermal"])
def test_only_continuous_inputs_are_exchanged(modality: str) -> None:
    with pytest.raises(ValueError, match=r"continuous input of the MultiMAE, \['depth', 'rgb'\], got"):
        to_vit(build(), modality)
    with pytest.raises(ValueError, match="`positions` must be 'same' or 'drop', got 'keep'"):
        load_vit(build(), to_vit(build()), positions="keep")  # type: ignore[arg-type]

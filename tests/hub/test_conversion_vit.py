"""ViTs that MultiMAE's Table 1 compares with, as encoders of colours: from transformers, and in timm's names as their authors'
files have them.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BertConfig,
    BertModel,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

import tiny_models
from hf_maskssl.hub import conversion
from hf_maskssl.models.layers import sincos_positions

SIZES: dict[str, Any] = {**tiny_models.ENCODER, "image_size": 32, "patch_size": 8}
OPTIONS = ["--num_attention_heads", "2", "--num_visible_tokens", "4"]
State = dict[str, torch.Tensor]


def convert(checkpoint: Path, *options: str) -> Path:
    output = checkpoint.parent / "converted"
    conversion.main(["multimae", str(checkpoint), str(output), *options])
    return output


def randomized(model: PreTrainedModel) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def timm_state(vit: Any, tokens: tuple[str, ...] = ("cls_token",)) -> State:
    """A ViT's weights under timm's names."""
    state = vit.base_model.state_dict()
    renamed = {"pos_embed": state["embeddings.position_embeddings"], "cls_token": state["embeddings.cls_token"]}
    if "dist_token" in tokens:
        renamed["dist_token"] = state["embeddings.distillation_token"]
    for kind in ("weight", "bias"):
        renamed[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
        renamed[f"norm.{kind}"] = state[f"layernorm.{kind}"]
        for layer in range(vit.config.num_hidden_layers):
            ours, theirs = f"layers.{layer}", f"blocks.{layer}"
            parts = [state[f"{ours}.attention.{part}_proj.{kind}"] for part in "qkv"]
            renamed[f"{theirs}.attn.qkv.{kind}"] = torch.cat(parts)
            names = {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
            names |= {"norm1": "layernorm_before", "norm2": "layernorm_after"}
            renamed |= {f"{theirs}.{a}.{kind}": state[f"{ours}.{b}.{kind}"] for a, b in names.items()}
    return renamed


@torch.no_grad()
def assert_same_features(folder: Path, vit: Any) -> Any:
    """That the class token's and all patches' features agree."""
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    pixel_values = torch.randn(2, 3, 32, 32)
    expected = vit.base_model(pixel_values).last_hidden_state
    torch.testing.assert_close(model(pixel_values=pixel_values).last_hidden_state, expected, rtol=0, atol=1e-5)
    return model


def test_a_classifier_of_transformers_becomes_an_encoder_with_its_processor(tmp_path: Path) -> None:
    vit = randomized(ViTForImageClassification(ViTConfig(**SIZES, num_labels=3)))
    vit.save_pretrained(tmp_path / "vit")
    ViTImageProcessor(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]).save_pretrained(tmp_path / "vit")
    folder = convert(tmp_path / "vit")
    model = assert_same_features(folder, vit)
    assert (model.config.layer_norm_eps, model.config.position_embeddings) == (vit.config.layer_norm_eps, "learned")
    (rgb,) = AutoImageProcessor.from_pretrained(folder).pictures().values()
    assert (rgb.scale, rgb.mean, rgb.std) == (1 / 255, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    card = (folder / "README.md").read_text()
    assert (
        "`vit`, a ViTModel of transformers, converted by" in card
        and "A ViT of one modality, rgb, as the baselines of" in card
    )
    assert "an authors' checkpoint" not in card and "masked auto-encoding" not in card


def test_a_distilled_deit_keeps_both_tokens_and_imagenet_is_assumed(tmp_path: Path) -> None:
    deit = randomized(DeiTForImageClassificationWithTeacher(DeiTConfig(**SIZES)))
    deit.save_pretrained(tmp_path / "deit")
    folder = convert(tmp_path / "deit")
    assert assert_same_features(folder, deit).config.num_global_tokens == 2
    (rgb,) = AutoImageProcessor.from_pretrained(folder).pictures().values()
    assert rgb.mean == [0.485, 0.456, 0.406]
    assert (
        "holds no preprocessor_config.json: colours are standardised by ImageNet's"
        in (folder / "README.md").read_text()
    )


@pytest.mark.parametrize("kind", ["dino", "deit", "distilled", "moco"])
def test_the_authors_files_are_taken(kind: str, tmp_path: Path) -> None:
    """DINO's is the encoder alone, DeiT's has classifiers, MoCo-v3's a second encoder, a predictor and fixed positions."""
    fields = SIZES | {"layer_norm_eps": 1e-6}
    if kind == "distilled":
        vit = randomized(DeiTForImageClassification(DeiTConfig(**fields)))
    else:
        vit = randomized(ViTModel(ViTConfig(**fields)))
    if kind == "moco":
        table = torch.nn.functional.pad(sincos_positions((4, 4), 16, row_first=True), (0, 0, 1, 0))
        vit.embeddings.position_embeddings.data = table[None]
    state = timm_state(vit, ("cls_token", "dist_token") if kind == "distilled" else ("cls_token",))
    content: Any = state
    if kind in ("deit", "distilled"):
        content = {"model": state | {"head.weight": torch.ones(3, 16), "head.bias": torch.ones(3)}}
    if kind == "distilled":
        content["model"]["head_dist.weight"] = torch.ones(3, 16)
    if kind == "moco":
        other = {f"module.momentum_encoder.{name}": torch.zeros_like(value) for name, value in state.items()}
        own = {f"module.base_encoder.{name}": value for name, value in state.items()}
        heads = {"module.base_encoder.head.0.weight": torch.ones(4, 16), "module.predictor.0.weight": torch.ones(4, 4)}
        content = {"epoch": 300, "arch": "vit_base", "state_dict": own | heads | other, "optimizer": {}}
    torch.save(content, tmp_path / "authors.pth.tar")
    folder = convert(tmp_path / "authors.pth.tar", *OPTIONS)
    config = assert_same_features(folder, vit).config
    expected = ("sincos", "row_first") if kind == "moco" else ("learned", "row_first")
    assert (config.position_embeddings, config.position_order, config.final_norm) == (*expected, True)
    assert "a file in timm's names, converted by" in (folder / "README.md").read_text()


def refusal(checkpoint: Path) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        conversion.convert("multimae", checkpoint, checkpoint.parent / "converted")
    assert not (checkpoint.parent / "converted").exists()
    return str(caught.value)


def test_what_is_no_vit_is_refused(tmp_path: Path) -> None:
    BertModel(BertConfig(**tiny_models.ENCODER, vocab_size=9)).save_pretrained(tmp_path / "bert")
    assert "type 'bert' of transformers: expected one of ['vit', 'deit', 'vit_mae']" in refusal(tmp_path / "bert")
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refusal(tmp_path / "empty")
    assert "there is no such folder" in refusal(tmp_path / "facebook" / "a" / "b")
    assert "vit.pth is not a file" in refusal(tmp_path / "vit.pth")
    ViTModel(ViTConfig(**SIZES)).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3}))
    assert "preprocessor_config.json has no 'image_std'" in refusal(tmp_path / "vit")

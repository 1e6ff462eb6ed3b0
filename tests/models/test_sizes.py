"""Sizes of pictures that are given as one number, wherever they are given."""

from pathlib import Path
from typing import Any

import metamae_cases
import multimae_cases
import pytest
import sma_cases
import torch
from transformers import AutoConfig, AutoModel

from hf_maskssl import ArrayImageProcessor, MetaMAEConfig, MultiMAEImageProcessor, SMAConfig

KITS: dict[str, tuple[Any, str]] = {
    "metamae": (metamae_cases, "image"),
    "metamae-vl": (metamae_cases, "vision_language"),
    "sma": (sma_cases, "cross-image"),
    "multimae": (multimae_cases, "mixed"),
}


@pytest.mark.parametrize("name", KITS)
def test_one_number_is_a_square_however_it_is_set(name: str, tmp_path: Path) -> None:
    kit, case = KITS[name]
    config = kit.small_config(case)
    size = 48 if name == "multimae" else 12
    config.save_pretrained(tmp_path)
    assigned = AutoConfig.from_pretrained(tmp_path)
    assigned.image_size = size
    for changed in (
        assigned,
        AutoConfig.from_pretrained(tmp_path, image_size=size),
        AutoConfig.from_pretrained(tmp_path, image_size=(size, size)),
        kit.small_config(case, image_size=size),
    ):
        assert changed.image_size == [size, size]
    AutoModel.from_config(assigned).save_pretrained(tmp_path / "model")
    assert AutoConfig.from_pretrained(tmp_path / "model").image_size == [size, size]
    if name != "sma":
        assigned.patch_size = 2
        assert assigned.patch_size == [2, 2]


def test_patches_of_a_series_stay_one_number() -> None:
    config = metamae_cases.small_config("series")
    config.patch_size = 3
    assert config.patch_size == 3 and config.patch_shape == (3,)


@pytest.mark.parametrize("name", KITS)
def test_a_size_that_cannot_be_is_refused_when_a_model_is_built(name: str, tmp_path: Path) -> None:
    kit, case = KITS[name]
    AutoModel.from_config(kit.small_config(case)).save_pretrained(tmp_path)
    with pytest.raises(Exception, match="image_size"):
        AutoModel.from_pretrained(tmp_path, image_size=0 if name == "sma" else 13)


def test_configurations_build_without_arguments() -> None:
    assert SMAConfig().num_tokens == 512 and SMAConfig().vocab_size == 262
    assert MetaMAEConfig().image_size == [32, 32]


def test_a_larger_picture_is_read_after_loading(tmp_path: Path) -> None:
    kit, case = KITS["metamae"]
    AutoModel.from_config(kit.small_config(case)).save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path, image_size=12)
    assert model(pixel_values=torch.randn(2, 5, 12, 12)).last_hidden_state.shape == (2, 1 + 6 * 4, 16)


def test_processors_take_one_number_too(tmp_path: Path) -> None:
    pictures = {"rgb": {"kind": "continuous", "num_channels": 3}}
    for processor in (ArrayImageProcessor(image_size=8, num_channels=3), MultiMAEImageProcessor(pictures, 8)):
        processor.save_pretrained(tmp_path)
        assert type(processor).from_pretrained(tmp_path, image_size=16).image_size == [16, 16]
        processor.image_size = 4
        assert processor.image_size == [4, 4]

"""TensorFloat-32: asked for by name, refused where there is none."""

from pathlib import Path

import pytest
import torch

from hf_maskssl.training import load_pretraining_recipe
from hf_maskssl.training.pretraining import building
from hf_maskssl.training.pretraining.building import use_tf32

RECIPES = Path(__file__).resolve().parents[2] / "examples" / "recipes"
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def test_the_recipe_and_the_command_line_say_it() -> None:
    settings = [
        load_pretraining_recipe(RECIPES / "digits.yaml", words) for words in ([], ["--tf32"], ["--tf32", "false"])
    ]
    assert [recipe.training.tf32 for recipe in settings] == [None, True, False]


def test_it_is_set_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(building, "enable_tf32", calls.append)
    monkeypatch.setattr(building, "is_torch_tf32_available", lambda: True)
    for tf32 in (None, True, False):
        use_tf32(tf32, CUDA)
    use_tf32(False, CPU)
    assert calls == [True, False]


def test_it_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "is_torch_tf32_available", lambda: False)
    for device in (CPU, CUDA):
        with pytest.raises(ValueError, match=f"training.tf32: .* this run is on '{device}': leave it out"):
            use_tf32(True, device)
        use_tf32(False, device)

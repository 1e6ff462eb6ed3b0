"""Small MultiMAEs with different sets of modalities, with batches and draws, for the tests of this folder."""

from typing import Any

import torch

from hf_maskssl import MultiMAEConfig, MultiMAEForPretraining
from tiny_models import SCENES, SIZES

SMALL: dict[str, Any] = SIZES["multimae"] | {"segmentation_hidden_size": 32, "segmentation_cells_per_token": 4}
CASES: dict[str, dict[str, Any]] = {
    # The paper's: 2 x 3 patches each.
    "paper": {
        "modalities": SCENES,
        "image_size": [16, 24],
        "num_visible_tokens": 7,
    },
    # Patches of three sizes; 13 bands; one modality that is only an input and one that is only an output.
    "mixed": {
        "modalities": {
            "bands": {"kind": "continuous", "num_channels": 13, "patch_size": [8, 16]},
            "thermal": {"kind": "continuous", "num_channels": 1, "stride": 2, "is_output": False},
            "cover": {"kind": "categorical", "num_classes": 4, "stride": 4, "patch_size": 16, "embedding_size": 3},
            "normals": {"kind": "continuous", "num_channels": 3, "is_input": False, "loss": "l1"},
            "norm_bands": {"target_of": "bands", "loss": "standardized_mse"},
        },
        "image_size": [16, 32],
        "num_visible_tokens": 5,
        "num_global_tokens": 2,
        "final_norm": True,
        "qkv_bias": False,
        "position_order": "column_first",
        "decoder_num_hidden_layers": 0,
    },
}
# With samples that lack modalities, and with classes that are not known, a sample of nothing else among them.
CASES["lacking"] = CASES["paper"] | {"num_visible_tokens": 5}
CASES["minimax"] = CASES["lacking"] | {"task_balancing": "minimax", "task_balancing_options": {"alpha": 3.0}}
CASES["uncertainty"] = CASES["lacking"] | {"task_balancing": "uncertainty", "position_embeddings": "learned"}
# Modality -> samples that lack it; row 2 has nothing but depth, row 3 nothing but rgb.
LACKING = {"rgb": [2, 5], "depth": [0, 3], "semseg": [2, 3]}


def small_config(case: str, **changes: Any) -> MultiMAEConfig:
    return MultiMAEConfig(**(SMALL | CASES[case] | changes))


def small_model(case: str, seed: int = 0, **changes: Any) -> MultiMAEForPretraining:
    """With every weight away from its initial value: nothing is hidden by a zero."""
    torch.manual_seed(seed)
    model = MultiMAEForPretraining(small_config(case, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_batch(case: str, batch_size: int = 4, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Images of every modality, and who lacks which."""
    generator = torch.Generator().manual_seed(seed)
    config = small_config(case, **changes)
    inputs = {}
    for modality in config.modality_table().values():
        size = modality.size(config.native_size)
        if modality.is_categorical:
            inputs[modality.name] = torch.randint(0, modality.num_classes, (batch_size, *size), generator=generator)
            inputs[modality.name][:, 1:5, 2] = config.semantic_loss_ignore_index
        elif modality.source == modality.name:
            shape = (batch_size, modality.num_channels, *size)
            inputs[modality.name] = torch.randn(shape, generator=generator)
    batch: dict[str, Any] = {"inputs": inputs}
    if case in ("lacking", "minimax", "uncertainty"):
        inputs["semseg"][1] = config.semantic_loss_ignore_index
        presence = {name: torch.ones(batch_size, dtype=torch.bool) for name in LACKING}
        for name, rows in LACKING.items():
            presence[name][[row for row in rows if row < batch_size]] = False
            inputs[name][~presence[name]] = 255 if name == "semseg" else 0
        batch["presence"] = presence
    return batch


def make_draws(case: str, batch_size: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    """Proportions and noise; one sample shows no token of the first modality and one shows (nearly) nothing else."""
    generator = torch.Generator().manual_seed(seed)
    config = small_config(case)
    shares = torch.rand(batch_size, len(config.inputs()), generator=generator)
    shares[0, 0], shares[1, 1:] = 0.0, 0.0
    return {
        "proportions": shares / shares.sum(1, keepdim=True),
        "noise": torch.rand(batch_size, config.num_tokens, generator=generator),
        "shuffle_noise": torch.rand(batch_size, config.num_tokens, generator=generator),
    }


def mapped(batch: Any, change: Any) -> Any:
    """`change` of every tensor of a batch."""
    if isinstance(batch, dict):
        return {name: mapped(value, change) for name, value in batch.items()}
    return change(batch)


def rows_of(batch: Any, rows: Any) -> Any:
    return mapped(batch, lambda value: value[rows])


def to_double(batch: Any) -> Any:
    return mapped(batch, lambda value: value.double() if value.is_floating_point() else value)

"""What a MultiMAE's configuration says of its modalities, and each of its refusals."""

from pathlib import Path
from typing import Any

import pytest

from hf_maskssl import MultiMAEConfig
from tiny_models import DEPTH, NORM_RGB, RGB, SEMSEG


def test_the_default_is_the_papers() -> None:
    config = MultiMAEConfig()
    assert [modality.name for modality in config.inputs()] == ["rgb", "depth", "semseg"]
    assert [(output.name, output.loss) for output in config.outputs()] == [
        ("rgb", "mse"),
        ("depth", "l1"),
        ("semseg", "cross_entropy"),
        ("norm_rgb", "standardized_mse"),
    ]
    semseg, norm_rgb = config.modality_table()["semseg"], config.modality_table()["norm_rgb"]
    assert semseg.size((224, 224)) == (56, 56) and semseg.grid((224, 224)) == (14, 14) and semseg.patch_shape == (4, 4)
    assert (semseg.num_classes, semseg.output_channels, semseg.embedding_size) == (133, 133, 64)
    assert norm_rgb.source == "rgb" and norm_rgb.num_channels == 3 and not norm_rgb.is_input
    assert config.num_tokens == 3 * 196 and config.num_visible_tokens == 98 and config.alphas() == [1.0, 1.0, 1.0]
    assert config.depth_layer_ids() == [2, 5, 8, 11] and config.modality == "multimodal"


def test_a_modality_is_one_block_and_survives_a_folder(tmp_path: Path) -> None:
    modalities: dict[str, Any] = {
        "bands": {"kind": "continuous", "num_channels": 13, "patch_size": (8, 16)},
        "edges": {"kind": "categorical", "num_classes": 2, "stride": 2, "is_input": False},
        "norm_bands": {"target_of": "bands"},
    }
    config = MultiMAEConfig(
        modalities=modalities, image_size=(32, 64), dirichlet_alpha={"bands": 2}, num_visible_tokens=4
    )
    table = config.modality_table()
    assert table["bands"].patch_shape == (8, 16) and config.num_tokens == 16 and config.alphas() == [2.0]
    assert table["edges"].patch_shape == (8, 8) and not table["edges"].is_input
    assert table["norm_bands"].loss == "mse" and table["norm_bands"].patch_size == (8, 16)
    config.save_pretrained(tmp_path)
    again = MultiMAEConfig.from_pretrained(tmp_path)
    assert again.modality_table() == table and again.alphas() == [2.0] and again.native_size == (32, 64)


THREE = {"rgb": RGB, "depth": DEPTH, "semseg": SEMSEG}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"modalities": {}}, r"`modalities` must hold at least one input, got \[\]"),
    ({"modalities": {"rgb": RGB | {"is_input": False}}}, "`modalities` must hold at least one input.*none with `is_input`"),
    ({"modalities": {"rgb": {"num_channels": 3}}}, "'rgb' needs `kind` 'continuous' or 'categorical', got None"),
    ({"modalities": {"rgb": {"kind": "continuous"}}}, "'rgb' is continuous and needs a positive integer `num_channels`"),
    ({"modalities": {"map": {"kind": "categorical", "num_classes": 0}}}, "integer `num_classes`, got 0"),
    ({"modalities": {"rgb": RGB | {"stride": 0}}}, "'rgb' is continuous and needs a positive integer `stride`, got 0"),
    ({"modalities": {"rgb": RGB | {"channels": 3}}}, r"'rgb' has the unknown fields \['channels'\]; known are"),
    ({"modalities": {"rgb": RGB | {"loss": "cross_entropy"}}}, r"`loss` must be one of \['mse', 'l1', 'standardized_mse'\]"),
    ({"modalities": {"map": SEMSEG | {"loss": "l1"}}}, r"'map' is categorical: `loss` must be one of \['cross_entropy'\]"),
    ({"modalities": {"rgb": RGB | {"is_input": False, "is_output": False}}}, "'rgb' is neither an input nor an output"),
    ({"modalities": {"near ir": RGB}}, "'near ir': a name may hold letters, digits and underscores"),
    ({"modalities": {"rgb": RGB | {"patch_size": 8, "stride": 3}}}, r"`patch_size` \[8, 8\] must be two positive multiples of"),
    ({"modalities": {"rgb": RGB, "norm": {"target_of": "depth"}}}, r"'norm' has target_of 'depth', which is not one of"),
    ({"modalities": {"rgb": RGB, "norm": NORM_RGB | {"stride": 2}}}, "'norm' has target_of, so beside it only `loss`"),
    ({"image_size": 100}, r"`image_size` \[100, 100\] must be a multiple of the patch size of 'rgb', \[16, 16\], in height"),
    ({"image_size": [224, 100]}, r"`image_size` \[224, 100\].*in width"),
    ({"image_size": [224]}, r"`image_size` must be a height and a width, or one number for both, got \[224\]"),
    ({"modalities": {"rgb": RGB | {"patch_size": [16]}}}, r"`patch_size` \[16\] must be two positive multiples"),
    ({"patch_size": [16]}, r"`patch_size` must be a height and a width, or one number for both, got \[16\]"),
    ({"num_visible_tokens": 588}, "`num_visible_tokens` must be at least 1 and below the 588 tokens"),
    ({"num_visible_tokens": 0}, "`num_visible_tokens` must be at least 1"),
    ({"dirichlet_alpha": 0.0}, "`dirichlet_alpha` must be positive"),
    ({"dirichlet_alpha": {"rgb": 1.0}}, "`dirichlet_alpha` must have one number per input modality"),
    ({"semantic_loss_ignore_index": 7}, "`semantic_loss_ignore_index` 7 is also a class of 'semseg'"),
    ({"hidden_size": 100}, "`hidden_size` must be a positive multiple of `num_attention_heads`"),
    ({"hidden_size": 6, "num_attention_heads": 2}, "`hidden_size` must be a multiple of 4"),
    ({"decoder_hidden_size": 100}, "`decoder_hidden_size` must be a positive multiple of `decoder_num_attention_heads`"),
    ({"num_hidden_layers": 0}, "`num_hidden_layers` must be at least 1"),
    ({"num_global_tokens": -1}, "`num_global_tokens` must be 0 or more"),
    ({"num_global_tokens": 0, "classifier_pooling": "global"}, "`classifier_pooling` 'global' needs `num_global_tokens`"),
    ({"drop_path_rate": 1.0}, "`drop_path_rate` is a probability, expected 0 to below 1"),
    ({"head_modalities": ["norm_rgb"]}, r"`head_modalities` must name some of the inputs.*got \['norm_rgb'\]"),
    ({"depth_layers": [0, 1, 2]}, r"`depth_layers` must be four layers of 0 to 11, got \[0, 1, 2\]"),
    ({"task_balancing": "minmax"}, "task_balancing"),
    ({"task_balancing_options": {"alpha": 1.0}}, r"`task_balancing_options`: 'none' has no option \['alpha'\]"),
    ({"position_order": "rows"}, "position_order"),
    ({"modalities": {"rgb": "continuous"}}, "modalities"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["type", "values", "keys", "float"])
def test_names_that_a_dict_of_modules_has_itself_are_refused(name: str) -> None:
    with pytest.raises(Exception, match=f"`modalities`: '{name}': .*choose another"):
        MultiMAEConfig(modalities={name: RGB}, num_visible_tokens=5)

"""MultiMAE's heads: the dense heads and the depth loss against slow copies, the three task models, bad input."""

from pathlib import Path
from typing import Any

import pytest
import torch
from multimae_cases import SMALL
from torch import nn
from transformers import AutoModelForDepthEstimation, AutoModelForImageClassification, AutoModelForSemanticSegmentation

from hf_maskssl import (
    MultiMAEConfig,
    MultiMAEForDepthEstimation,
    MultiMAEForImageClassification,
    MultiMAEForPretraining,
    MultiMAEForSemanticSegmentation,
    MultiMAEModel,
)
from hf_maskssl.models.dense_heads import ConvNextHead, DPTHead, reverse_huber_loss
from hf_maskssl.models.layers import enable_checkpointing
from tiny_models import DEPTH, RGB, SEMSEG

CLASSES = 3
DENSE = [MultiMAEForSemanticSegmentation, MultiMAEForDepthEstimation]
MODELS = [MultiMAEForImageClassification, *DENSE]
AUTO = {
    MultiMAEForImageClassification: AutoModelForImageClassification,
    MultiMAEForSemanticSegmentation: AutoModelForSemanticSegmentation,
    MultiMAEForDepthEstimation: AutoModelForDepthEstimation,
}


def small_config(**changes: Any) -> MultiMAEConfig:
    """Three inputs of 16 x 24 pixels, 2 x 3 tokens each; categorical at half the resolution."""
    fields = SMALL | {
        "modalities": {"rgb": RGB, "depth": DEPTH, "semseg": SEMSEG},
        "image_size": [16, 24],
        "num_visible_tokens": 6,
        "segmentation_num_layers": 1,
        "num_labels": CLASSES,
    }
    return MultiMAEConfig(**(fields | changes))


def small_model(kind: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    return kind(small_config(**changes)).eval()


def make_inputs(batch_size: int = 2, height: int = 16, width: int = 24) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "rgb": torch.randn(batch_size, 3, height, width, generator=draw),
        "depth": torch.randn(batch_size, 1, height, width, generator=draw),
        "semseg": torch.randint(5, (batch_size, height // 2, width // 2), generator=draw),
    }


def make_labels(kind: Any, batch_size: int = 2, height: int = 16, width: int = 24) -> torch.Tensor:
    draw = torch.Generator().manual_seed(2)
    if kind is MultiMAEForImageClassification:
        return torch.randint(CLASSES, (batch_size,), generator=draw)
    # Maps that a head can learn: vertical stripes, a different one for every sample.
    columns = (torch.arange(width) // 8 + torch.arange(batch_size)[:, None]) % CLASSES
    stripes = columns[:, None].expand(-1, height, -1).clone()
    return stripes if kind is MultiMAEForSemanticSegmentation else 1.0 + stripes.float()


def prediction(output: Any) -> torch.Tensor:
    return output.logits if "logits" in output else output.predicted_depth


# The heads by themselves


@pytest.mark.parametrize(("grid", "cells"), [((2, 3), 16), ((1, 5), 4), ((3, 2), 1)])
def test_convnext_head_spreads_every_token_over_a_square(grid: tuple[int, int], cells: int) -> None:
    """Without blocks a cell's logits are those of its share of its token's projection, the share's channels in a row."""
    head = ConvNextHead(6, 4 * cells, cells, 0, CLASSES)
    tokens = torch.randn(2, grid[0] * grid[1], 6)
    logits = head(tokens, grid)
    side = round(cells**0.5)
    assert logits.shape == (2, CLASSES, grid[0] * side, grid[1] * side)
    kernel = head.classifier.weight[:, :, 0, 0]
    for row in range(grid[0] * side):
        for column in range(grid[1] * side):
            token = tokens[:, (row // side) * grid[1] + column // side]
            cell = (row % side) * side + column % side
            share = head.projection(token)[:, 4 * cell : 4 * cell + 4]
            torch.testing.assert_close(logits[:, :, row, column], share @ kernel.T + head.classifier.bias)


def test_convnext_block_is_the_one_of_the_paper() -> None:
    """Depthwise 7 x 7, layer norm of 1e-6, 4x GELU MLP, plus the input; no layer scale."""
    (block,) = ConvNextHead(6, 8, 1, 1, CLASSES).layers
    shapes = {name: tuple(parameter.shape) for name, parameter in block.named_parameters()}
    weights = {name: shape for name, shape in shapes.items() if name.endswith("weight")}
    assert sorted(weights.values()) == [(8,), (8, 1, 7, 7), (8, 32), (32, 8)] and len(shapes) == 8
    maps = torch.randn(1, 8, 5, 4)
    hidden = nn.functional.conv2d(maps, block.dwconv.weight, block.dwconv.bias, padding=3, groups=8).movedim(1, -1)
    hidden = nn.functional.layer_norm(hidden, (8,), block.layernorm.weight, block.layernorm.bias, eps=1e-6)
    hidden = block.pwconv2(nn.functional.gelu(block.pwconv1(hidden))).movedim(-1, 1)
    torch.testing.assert_close(block(maps), maps + hidden)


@pytest.mark.parametrize(("cells", "width"), [(8, 64), (16, 40), (0, 16)])
def test_convnext_head_refuses_cells_that_make_no_square(cells: int, width: int) -> None:
    with pytest.raises(ValueError, match="`segmentation_cells_per_token` .* square number"):
        ConvNextHead(6, width, cells, 1, CLASSES)


@pytest.mark.parametrize(
    ("grid", "size"), [((2, 4), (32, 64)), ((4, 2), (32, 16)), ((3, 5), (48, 80)), ((1, 1), (4, 4))]
)
def test_dpt_head_gives_a_map_of_the_image(grid: tuple[int, int], size: tuple[int, int]) -> None:
    head = DPTHead(6, 8, (4, 5, 6, 7))
    layers = [torch.randn(2, grid[0] * grid[1], 6, requires_grad=True) for _ in range(4)]
    depth = head(layers, grid, size)
    assert depth.shape == (2, *size)
    depth.square().sum().backward()
    for values in [*head.parameters(), *layers]:
        assert values.grad is not None and values.grad.abs().sum() > 0


def test_dpt_head_is_the_one_of_the_paper() -> None:
    """Written out from the paper's supplementary and the authors' facts, for an even grid and patches of 16."""

    def unit(layer: Any, maps: torch.Tensor) -> torch.Tensor:
        return maps + layer.convolution2(layer.convolution1(maps.relu()).relu())

    def twice(maps: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)

    torch.manual_seed(0)
    head = DPTHead(6, 8, (4, 5, 6, 7))
    tokens = [torch.randn(2, 8, 6) for _ in range(4)]
    maps = [layer.transpose(1, 2).reshape(2, 6, 2, 4) for layer in tokens]
    resized = [stage.resize(stage.projection(grid)) for stage, grid in zip(head.reassemble, maps, strict=True)]
    assert [tuple(grid.shape[1:]) for grid in resized] == [(4, 8, 16), (5, 4, 8), (6, 2, 4), (7, 1, 2)]
    assert [stage.projection.kernel_size for stage in head.reassemble] == [(1, 1)] * 4
    assert all(layer.bias is None and layer.kernel_size == (3, 3) for layer in head.projections)
    finest, fine, coarse, coarsest = (project(grid) for project, grid in zip(head.projections, resized, strict=True))
    path = head.fusion[3].projection(twice(unit(head.fusion[3].residual_layer2, coarsest)))
    for layer, skip in ((head.fusion[2], coarse), (head.fusion[1], fine), (head.fusion[0], finest)):
        path = path + unit(layer.residual_layer1, skip)
        path = layer.projection(twice(unit(layer.residual_layer2, path)))
    expected = head.output_out(head.output_mid(twice(head.output_in(path))).relu())[:, 0]
    torch.testing.assert_close(head(tokens, (2, 4), (32, 64)), expected)


# The reverse Huber loss


def slow_reverse_huber(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    pairs = zip(prediction.flatten(), target.flatten().tolist(), strict=True)
    errors = [abs(value - goal) for value, goal in pairs if 0 < goal < float("inf")]
    threshold = 0.2 * max(float(error.detach()) for error in errors)
    terms = [error if error <= threshold else (error**2 + threshold**2) / (2 * threshold) for error in errors]
    return sum(terms, torch.zeros((), dtype=torch.float64)) / len(terms)


def test_reverse_huber_loss_of_valid_pixels() -> None:
    draw = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 4, generator=draw, dtype=torch.float64) + 0.5
    target[0, 0, :] = torch.tensor([float("nan"), float("inf"), 0.0, -1.0])
    values = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64)
    values[0, 0, 1] = 1e6  # an invalid pixel does not move the threshold
    first, second = values.clone().requires_grad_(), values.clone().requires_grad_()
    loss, slow = reverse_huber_loss(first, target), slow_reverse_huber(second, target)
    torch.testing.assert_close(loss, slow)
    loss.backward()
    slow.backward()
    torch.testing.assert_close(first.grad, second.grad)
    assert not first.grad[0, 0].any() and first.grad[0, 1:].all()
    # Finite differences of all but the largest error, which sets the threshold.
    largest = torch.tensor([[[100.0]]], dtype=torch.float64)
    rest = torch.linspace(-60.0, 60.0, 7, dtype=torch.float64).view(1, 1, 7).requires_grad_()
    goals = torch.ones(1, 1, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda rest: reverse_huber_loss(torch.cat([rest, largest], 2), goals), (rest,))


@pytest.mark.parametrize("target", [float("nan"), 0.0, 2.0])
def test_reverse_huber_loss_without_valid_pixels_or_errors(target: float) -> None:
    """The last case is a perfect prediction, whose threshold is 0."""
    values = torch.full((1, 2, 2), 2.0, requires_grad=True)
    loss = reverse_huber_loss(values, torch.full((1, 2, 2), target))
    loss.backward()
    assert loss.item() == 0 and not values.grad.any()


# The models


@pytest.mark.parametrize("kind", MODELS)
def test_two_sizes_of_input(kind: Any) -> None:
    model = small_model(kind)
    for height, width in ((16, 24), (32, 16)):
        with torch.no_grad():
            output = model(inputs=make_inputs(2, height, width), labels=make_labels(kind, 2, height, width))
        expected = {
            MultiMAEForImageClassification: (2, CLASSES),
            MultiMAEForSemanticSegmentation: (2, CLASSES, height // 8 * 2, width // 8 * 2),
            MultiMAEForDepthEstimation: (2, height, width),
        }
        assert prediction(output).shape == expected[kind]
        assert output.loss.shape == () and torch.isfinite(output.loss) and output.hidden_states is None


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_gets_a_gradient(kind: Any, final_norm: bool) -> None:
    model = small_model(kind, final_norm=final_norm).train()
    enable_checkpointing(model)
    model(inputs=make_inputs(), labels=make_labels(kind)).loss.backward()
    assert not [name for name, values in model.named_parameters() if values.grad is None or not values.grad.any()]


@pytest.mark.parametrize("kind", MODELS)
def test_what_a_sample_lacks_is_not_read(kind: Any) -> None:
    model, inputs = small_model(kind), make_inputs()
    presence = {"depth": torch.tensor([True, False])}
    changed = inputs | {"depth": torch.stack([inputs["depth"][0], 5 - inputs["depth"][1]])}
    with torch.no_grad():
        first, second = (prediction(model(inputs=given, presence=presence)) for given in (inputs, changed))
        full, changed_full = (prediction(model(inputs=given)) for given in (inputs, changed))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first[0], full[0])
    assert not torch.allclose(full[1], changed_full[1]) and not torch.allclose(first[1], full[1])
    if kind is MultiMAEForImageClassification:  # as if the modality had not been given at all
        without = {name: values[1:] for name, values in inputs.items() if name != "depth"}
        torch.testing.assert_close(first[1], model(inputs=without).logits[0].detach())


def test_classifier_pools_all_tokens_or_the_first_global_one() -> None:
    inputs = make_inputs()
    for pooling in ("mean", "global"):
        model = small_model(MultiMAEForImageClassification, classifier_pooling=pooling, num_global_tokens=2)
        states = model.multimae(inputs=inputs).last_hidden_state
        assert states.shape[1] == 2 + 3 * 6
        pooled = states.mean(1) if pooling == "mean" else states[:, 0]
        expected = model.classifier(nn.functional.layer_norm(pooled, (16,), eps=1e-6))
        torch.testing.assert_close(model(inputs=inputs).logits, expected)
    assert model(pixel_values=inputs["rgb"]).logits.shape == (2, CLASSES)


def test_dense_heads_read_the_tokens_of_their_modalities() -> None:
    """Concatenated on channels in the order of `head_modalities`, global token left out; layer by layer for depth."""
    inputs, changes = make_inputs(), {"head_modalities": ["semseg", "rgb"], "num_hidden_layers": 4}
    model = small_model(MultiMAEForSemanticSegmentation, **changes)
    states = model.multimae(inputs=inputs).last_hidden_state
    tokens = torch.cat([states[:, 13:19], states[:, 1:7]], dim=-1)
    torch.testing.assert_close(model(inputs=inputs).logits, model.segmentation_head(tokens, (2, 3)))
    model = small_model(MultiMAEForDepthEstimation, depth_layers=[0, 1, 2, 2], **changes)
    output = model(inputs=inputs, output_hidden_states=True)
    layers = [torch.cat([states[:, 13:19], states[:, 1:7]], dim=-1) for states in output.hidden_states]
    expected = model.depth_head([layers[1], layers[2], layers[3], layers[3]], (2, 3), (16, 24))
    torch.testing.assert_close(output.predicted_depth, expected)


def test_segmentation_loss_is_the_mean_over_labelled_pixels() -> None:
    model, inputs = small_model(MultiMAEForSemanticSegmentation), make_inputs()
    labels = make_labels(MultiMAEForSemanticSegmentation, height=8, width=12)  # any resolution
    labels[0, :5] = 255
    output = model(inputs=inputs, labels=labels)
    logits = nn.functional.interpolate(output.logits, size=(8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(logits, labels, ignore_index=255))
    nothing = model(inputs=inputs, labels=torch.full_like(labels, 255)).loss
    nothing.backward()
    assert nothing.item() == 0 and not model.segmentation_head.classifier.weight.grad.any()


@pytest.mark.parametrize("kind", DENSE)
def test_loss_falls_on_four_samples(kind: Any) -> None:
    model = small_model(kind, segmentation_hidden_size=64, depth_hidden_size=16).train()
    batch = {"inputs": make_inputs(4), "labels": make_labels(kind, 4)}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0], losses[::5]


# Saving and loading


@pytest.mark.parametrize("kind", MODELS)
def test_save_and_load_give_the_same_outputs(kind: Any, tmp_path: Path) -> None:
    inputs, model = make_inputs(), small_model(kind)
    model.save_pretrained(tmp_path)
    again, info = AUTO[kind].from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(again, kind) and not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(prediction(again.eval()(inputs=inputs)), prediction(model(inputs=inputs)))
    _, info = MultiMAEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


@pytest.mark.parametrize("kind", MODELS)
def test_pretrained_weights_enter_a_head(kind: Any, tmp_path: Path) -> None:
    """Loading builds on the meta device: what the file lacks must come from `_init_weights`."""
    pretrained = small_model(MultiMAEForPretraining, task_balancing="uncertainty")
    pretrained.save_pretrained(tmp_path)
    head, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    names = ("classifier_norm.", "classifier.", "segmentation_head.", "depth_head.")
    assert info["missing_keys"] and all(name.startswith(names) for name in info["missing_keys"])
    assert not info["unexpected_keys"]
    for name, values in head.named_parameters():
        if name.startswith("multimae."):
            assert torch.equal(values, pretrained.get_parameter(name)), name
        else:
            assert torch.isfinite(values).all() and 0 <= values.abs().max() <= 1, name
    for name, module in head.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):  # PyTorch's own: uniform within 1 / sqrt(fan_in)
            bound = module.weight[0].numel() ** -0.5
            assert 0.8 * bound < module.weight.abs().max() <= bound, name
            assert module.bias is None or 0 < module.bias.abs().max() <= bound, name


# Bad input


@pytest.mark.parametrize("kind", DENSE)
def test_a_modality_that_the_head_reads_is_missing(kind: Any) -> None:
    inputs = make_inputs()
    with pytest.raises(ValueError, match=r"\['depth', 'semseg'\] are missing .* head_modalities=\['rgb'\]"):
        small_model(kind)(pixel_values=inputs["rgb"])
    model = small_model(kind, head_modalities=["rgb"])
    alone, together = model(pixel_values=inputs["rgb"]), model(inputs=inputs)
    assert prediction(alone).shape == prediction(together).shape
    assert not torch.allclose(prediction(alone), prediction(together))  # what else is given informs by attention


def test_refused_labels_and_settings() -> None:
    inputs = make_inputs()
    segmentation, depth = small_model(MultiMAEForSemanticSegmentation), small_model(MultiMAEForDepthEstimation)
    with pytest.raises(ValueError, match=r"num_labels=3\) or be semantic_loss_ignore_index=255, found \[3\]"):
        segmentation(inputs=inputs, labels=torch.full((2, 16, 24), 3))
    with pytest.raises(ValueError, match=r"integers of the shape \(2, height, width\)"):
        segmentation(inputs=inputs, labels=torch.zeros(2, 16, 24))
    with pytest.raises(ValueError, match=r"floating point of the shape \(2, 16, 24\)"):
        depth(inputs=inputs, labels=torch.ones(2, 8, 12))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        small_model(MultiMAEForSemanticSegmentation, num_labels=1)
    modalities = {"rgb": RGB, "depth": DEPTH | {"patch_size": 4}}
    with pytest.raises(ValueError, match="`head_modalities` must have one patch size"):
        small_model(MultiMAEForDepthEstimation, modalities=modalities)

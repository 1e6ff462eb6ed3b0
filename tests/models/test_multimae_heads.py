"""MultiMAE's heads: the dense heads and the depth loss against slow copies, the three task models, bad input."""

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from multimae_cases import SMALL
from torch import nn
from transformers import (
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoModelForImageToImage,
    AutoModelForSemanticSegmentation,
)

from hf_maskssl import (
    MultiMAEConfig,
    MultiMAEForDenseRegression,
    MultiMAEForDepthEstimation,
    MultiMAEForImageClassification,
    MultiMAEForPretraining,
    MultiMAEForSemanticSegmentation,
    MultiMAEModel,
)
from hf_maskssl.models.dense_heads import (
    ConvNextHead,
    DPTClassHead,
    DPTHead,
    DPTRegressionHead,
    LinearHead,
    SegmenterHead,
    dense_regression_loss,
    reverse_huber_loss,
)
from hf_maskssl.models.layers import enable_checkpointing
from tiny_models import DEPTH, RGB, SEMSEG

CLASSES = 3
DENSE = [MultiMAEForSemanticSegmentation, MultiMAEForDepthEstimation, MultiMAEForDenseRegression]
# Every head of a segmentation but the default one.
SEGMENTATION_HEADS = ["segmenter", "linear", "dpt"]
MODELS = [MultiMAEForImageClassification, *DENSE]
AUTO = {
    MultiMAEForImageClassification: AutoModelForImageClassification,
    MultiMAEForSemanticSegmentation: AutoModelForSemanticSegmentation,
    MultiMAEForDepthEstimation: AutoModelForDepthEstimation,
    MultiMAEForDenseRegression: AutoModelForImageToImage,
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
    if kind is MultiMAEForDenseRegression:  # of one value a class
        return torch.stack([stripes == number for number in range(CLASSES)], dim=1).float()
    return stripes if kind is MultiMAEForSemanticSegmentation else 1.0 + stripes.float()


def prediction(output: Any) -> torch.Tensor:
    return next(output[name] for name in ("logits", "predicted_depth", "reconstruction") if name in output)


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


def slow_segmenter(head: SegmenterHead, tokens: torch.Tensor, grid: tuple[int, int], heads: int) -> torch.Tensor:
    """Segmenter's mask transformer written out, sample by sample and head by head."""

    def norm(values: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
        centred = values - values.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias

    maps = []
    for sample in tokens:
        x = torch.cat([sample @ head.projection.weight.T + head.projection.bias, head.class_tokens[0]])
        for layer in head.layers:
            fused = layer.attention.qkv
            query, key, value = (norm(x, layer.attention_norm) @ fused.weight.T + fused.bias).chunk(3, dim=-1)
            width = query.shape[-1] // heads
            parts = []
            for number in range(heads):
                own = slice(number * width, (number + 1) * width)
                weights = (query[:, own] @ key[:, own].T / width**0.5).softmax(-1)
                parts.append(weights @ value[:, own])
            x = x + layer.attention.output(torch.cat(parts, -1))
            x = x + layer.mlp.down(nn.functional.gelu(layer.mlp.up(norm(x, layer.mlp_norm))))
        x = norm(x, head.norm)
        patches = x[: len(sample)] @ head.patch_projection.weight.T
        classes = x[len(sample) :] @ head.class_projection.weight.T
        cosines = (patches @ classes.T) / (patches.norm(dim=1)[:, None] * classes.norm(dim=1)[None])
        maps.append(norm(cosines, head.mask_norm).reshape(*grid, -1).movedim(-1, 0))
    return torch.stack(maps)


def test_segmenter_head_is_the_one_of_the_paper() -> None:
    torch.manual_seed(0)
    config = small_config(segmenter_num_layers=3, segmenter_hidden_size=12, segmenter_num_attention_heads=3)
    head = SegmenterHead(config, 6, CLASSES).double().eval()
    with torch.no_grad():
        for values in head.parameters():
            values.add_(0.3 * torch.randn_like(values))
    tokens = torch.randn(2, 6, 6, dtype=torch.float64)
    logits, expected = head(tokens, (2, 3)), slow_segmenter(head, tokens, (2, 3), 3)
    assert logits.shape == (2, CLASSES, 2, 3)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    assert head.patch_projection.bias is None and head.class_projection.bias is None
    assert [layer.drop_path_rate for layer in head.layers] == pytest.approx([0.0, 0.05, 0.1])  # as the encoder's
    names, values = zip(*head.named_parameters(), strict=True)
    gradients = [torch.autograd.grad(output.square().sum(), values) for output in (logits, expected)]
    for name, found, wanted in zip(names, *gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8, msg=name)


def test_segmenter_head_begins_as_the_authors_do() -> None:
    """Truncated normal weights of 0.02; biases of zero."""
    torch.manual_seed(0)
    sizes = {"segmenter_hidden_size": 96, "segmenter_num_attention_heads": 4, "segmentation_head": "segmenter"}
    head = small_model(MultiMAEForSemanticSegmentation, **sizes).segmentation_head
    for name, values in head.named_parameters():
        if "norm" in name:
            assert torch.equal(values, torch.ones_like(values) * ("weight" in name)), name
        elif name.endswith("bias"):
            assert not values.any(), name
        else:
            assert 0.017 < values.std() < 0.023, name


def test_linear_head_is_a_layer_on_every_token() -> None:
    head = LinearHead(6, CLASSES)
    tokens = torch.randn(2, 6, 6)
    logits = head(tokens, (2, 3))
    assert logits.shape == (2, CLASSES, 2, 3)
    torch.testing.assert_close(logits[1, :, 1, 0], head.classifier(tokens[1, 3]))


def test_dpt_head_of_classes_is_the_one_of_the_paper() -> None:
    """On DPT's own body: 3 x 3 without bias, ReLU, dropout, 1 x 1, then twice as large with corners aligned."""
    torch.manual_seed(0)
    head = DPTClassHead(6, 8, (4, 5, 6, 7), CLASSES, 0.5).eval()
    layers = [torch.randn(2, 8, 6) for _ in range(4)]
    hidden = nn.functional.conv2d(head.fused(layers, (2, 4)), head.output_in.weight, padding=1).relu()
    logits = nn.functional.conv2d(hidden, head.classifier.weight, head.classifier.bias)
    expected = nn.functional.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=True)
    assert head.output_in.bias is None and not [name for name, _ in head.named_buffers()]  # no batch norm
    torch.testing.assert_close(head(layers, (2, 4), (32, 64)), expected)
    assert not torch.equal(head.train()(layers, (2, 4), (32, 64)), expected)


def test_dpt_head_of_several_values_has_the_depth_head_for_each() -> None:
    torch.manual_seed(0)
    several, one = DPTRegressionHead(6, 8, (4, 5, 6, 7), 3), DPTHead(6, 8, (4, 5, 6, 7))
    layers = [torch.randn(2, 8, 6) for _ in range(4)]
    values = several(layers, (2, 4), (32, 64))
    assert values.shape == (2, 3, 32, 64)
    weights = several.state_dict()
    for channel in range(3):
        own = {name: each[channel, None] if "output_out" in name else each for name, each in weights.items()}
        one.load_state_dict(own)
        torch.testing.assert_close(one(layers, (2, 4), (32, 64)), values[:, channel])


# The losses of values


@pytest.mark.parametrize("squared", [False, True])
def test_dense_regression_loss_is_the_mean_over_what_is_known(squared: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    target = torch.randn(2, 3, 2, 4, generator=draw, dtype=torch.float64)
    target[0, :, 0, 0], target[1, 2, 1, 1], target[1, 0, 0, 2] = float("nan"), float("nan"), float("inf")
    values = torch.randn(2, 3, 2, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    loss = dense_regression_loss(values, target, squared)
    pairs = zip(values.flatten().tolist(), target.flatten().tolist(), strict=True)
    errors = [abs(value - goal) ** (2 if squared else 1) for value, goal in pairs if abs(goal) < float("inf")]
    assert loss.item() == pytest.approx(sum(errors) / len(errors)) and len(errors) == 48 - 5
    loss.backward()
    assert torch.equal(values.grad == 0, ~target.isfinite()) and values.grad.isfinite().all()
    nothing = dense_regression_loss(values, torch.full_like(target, float("nan")), squared)
    nothing.backward()
    assert nothing.item() == 0


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
            MultiMAEForDenseRegression: (2, CLASSES, height, width),
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


def head_fields(head: str) -> dict[str, Any]:
    sizes = {"segmenter_hidden_size": 16, "segmenter_num_attention_heads": 2, "segmenter_intermediate_size": 32}
    return {"segmentation_head": head, "segmentation_dropout": 0.0} | sizes


@pytest.mark.parametrize("head", SEGMENTATION_HEADS)
def test_heads_of_a_segmentation(head: str, tmp_path: Path) -> None:
    """Sizes, gradients, a round trip, and an encoder's checkpoint opened with the head."""
    model = small_model(MultiMAEForSemanticSegmentation, **head_fields(head))
    for height, width in ((16, 24), (32, 16)):
        batch = {"inputs": make_inputs(2, height, width)}
        batch["labels"] = make_labels(MultiMAEForSemanticSegmentation, 2, height, width)
        output = model(**batch)
        patch = 1 if head == "dpt" else 8
        assert output.logits.shape == (2, CLASSES, height // patch, width // patch) and output.hidden_states is None
        assert output.loss.isfinite() and len(model(**batch, output_hidden_states=True).hidden_states) == 1 + len(
            model.multimae.layers
        )
    enable_checkpointing(model.train())
    model(**batch).loss.backward()
    assert not [name for name, values in model.named_parameters() if values.grad is None or not values.grad.any()]
    model.eval().save_pretrained(tmp_path / "head")
    again, info = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "head", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(again.eval()(**batch).logits, model(**batch).logits)
    small_model(MultiMAEForPretraining).save_pretrained(tmp_path / "encoder")
    opened, info = MultiMAEForSemanticSegmentation.from_pretrained(
        tmp_path / "encoder", output_loading_info=True, num_labels=CLASSES, **head_fields(head)
    )
    assert info["missing_keys"] and all(name.startswith("segmentation_head.") for name in info["missing_keys"])
    assert not info["unexpected_keys"] and all(values.isfinite().all() for values in opened.parameters())


@pytest.mark.parametrize("head", SEGMENTATION_HEADS)
def test_a_head_of_a_segmentation_learns_four_samples(head: str) -> None:
    model = small_model(MultiMAEForSemanticSegmentation, depth_hidden_size=16, **head_fields(head)).train()
    batch = {"inputs": make_inputs(4), "labels": make_labels(MultiMAEForSemanticSegmentation, 4)}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Three tokens a row cannot draw sharp stripes: their logits are interpolated.
    assert losses[-1] < (0.25 if head == "dpt" else 0.8) * losses[0], losses[::5]


def test_a_dense_regression_takes_its_channels_and_its_loss_from_the_configuration() -> None:
    inputs, labels = make_inputs(), make_labels(MultiMAEForDenseRegression)
    labels[0, :, :4] = float("nan")
    for loss, function in (("l1", nn.functional.l1_loss), ("mse", nn.functional.mse_loss)):
        output = small_model(MultiMAEForDenseRegression, dense_regression_loss=loss)(inputs=inputs, labels=labels)
        is_known = labels.isfinite()
        torch.testing.assert_close(output.loss, function(output.reconstruction[is_known], labels[is_known]))
    edges = small_model(MultiMAEForDenseRegression, num_labels=1)(inputs=inputs, labels=labels[:, 0])
    assert edges.reconstruction.shape == (2, 1, 16, 24) and edges.loss.isfinite()


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
    share = 0.55 if kind is MultiMAEForDenseRegression else 0.25  # an absolute error falls at one pace
    assert losses[-1] < share * losses[0], losses[::5]


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
    names = ("classifier_norm.", "classifier.", "segmentation_head.", "depth_head.", "regression_head.")
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
    regression = small_model(MultiMAEForDenseRegression)
    for labels in (torch.ones(2, 16, 24), torch.ones(2, 3, 8, 12), torch.ones(2, 3, 16, 24, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"floating point of the shape \(2, 3, 16, 24\): num_labels=3 values"):
            regression(inputs=inputs, labels=labels)
    with pytest.raises(StrictDataclassError, match="`segmenter_hidden_size` must be a positive multiple of"):
        small_config(segmenter_hidden_size=9)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        small_model(MultiMAEForSemanticSegmentation, num_labels=1)
    modalities = {"rgb": RGB, "depth": DEPTH | {"patch_size": 4}}
    with pytest.raises(ValueError, match="`head_modalities` must have one patch size"):
        small_model(MultiMAEForDepthEstimation, modalities=modalities)

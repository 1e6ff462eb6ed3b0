"""MultiMAE against the authors' own: their weights, draws, masks, tokens, predictions, losses and gradients."""

from typing import Any

import pytest
import torch

from hf_maskssl.hub.conversion.multimae import convert_file, rename
from hf_maskssl.models.configuration_multimae import Modality, MultiMAEConfig
from hf_maskssl.models.layers import patchify
from hf_maskssl.models.modeling_multimae import sample_losses

VALUES = 1e-5  # absolute, float32
GRADIENTS = 1e-4  # relative to the largest entry of each tensor
INPUTS = ["rgb", "depth", "semseg"]
OUTPUTS = [*INPUTS, "norm_rgb"]


def group(golden: dict[str, Any], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors under `prefix.`, without it, in the authors' order."""
    names = [name for name in golden["case"]["tensors"] if name.startswith(f"{prefix}.")]
    return {name.removeprefix(f"{prefix}."): golden[name] for name in names}


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=VALUES)


@pytest.fixture(scope="module")
def golden(shared_golden: Any) -> dict[str, Any]:
    return shared_golden("multimae_pretrain")


@pytest.fixture(scope="module")
def model(golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("authors") / "multimae.pth"
    torch.save({"model": group(golden, "state")}, path)
    heads = {"num_attention_heads": 4, "decoder_num_attention_heads": 4}
    return convert_file(path, num_visible_tokens=14, **heads).model.train()


def draws(golden: dict[str, Any]) -> dict[str, torch.Tensor]:
    noise = torch.cat([golden[f"draw.noise_{name}"] for name in INPUTS], dim=1)
    return {"proportions": golden["draw.dirichlet"], "noise": noise, "shuffle_noise": golden["draw.shuffle"]}


@pytest.fixture(scope="module")
def trained(golden: dict[str, Any], model: Any) -> Any:
    """One pass with the authors' draws and its gradients."""
    output = model(inputs=group(golden, "input"), **draws(golden))
    model.zero_grad()
    output.loss.backward()
    return output


def test_masks_losses_and_gradients_are_the_authors(golden: dict[str, Any], model: Any, trained: Any) -> None:
    for name in INPUTS:
        assert torch.equal(trained.masks[name], golden[f"mask.{name}"].long())
    for name in OUTPUTS:
        assert_close(trained.loss_parts[name], golden[f"loss.{name}"])
    assert_close(trained.loss, golden["total_loss"])
    expected = rename(group(golden, "grad"), model.config)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(gradients) == set(expected)
    for name, value in expected.items():
        distance = (gradients[name] - value).abs().max() / value.abs().max()
        assert distance < GRADIENTS, f"{name}: {distance:.2e}"


def test_tokens_are_the_authors(golden: dict[str, Any], model: Any, trained: Any) -> None:
    """Recorded are those of the last sample, in an order that was not: theirs are matched with ours before encoding."""
    embeddings = model.multimae.embeddings(model.multimae.cut(group(golden, "input")), None, None)[2]
    assert_close(embeddings[1:], torch.cat([golden[f"tokens.{name}"][0] for name in INPUTS]))
    is_visible = ~torch.cat([golden[f"mask.{name}"][2] for name in INPUTS]).bool()
    ours = torch.cat([embeddings[:1], embeddings[1:][is_visible]])
    place = (golden["encoder_input"][0][:, None] - ours).abs().amax(-1).argmin(1)
    assert place[-1] == 0 and sorted(place.tolist()) == list(range(15)), "the global token, last there and first here"
    assert_close(ours[place], golden["encoder_input"][0])
    assert_close(trained.last_hidden_state[2, place], golden["encoder_tokens"][0])


def test_predictions_are_the_authors(golden: dict[str, Any], model: Any) -> None:
    with torch.no_grad():
        output = model(inputs=group(golden, "input"), predict_all=True, **draws(golden))
    for name in OUTPUTS:
        assert_close(output.predictions[name], golden[f"pred.{name}"])


@pytest.mark.parametrize("rows", [[0], [1], [2], [0, 1, 2]])
def test_explicit_masks_are_the_authors(golden: dict[str, Any], model: Any, rows: list[int]) -> None:
    """Their code serves one sample; all of them at once give the same here."""
    masks = {name: golden[f"mask.{name}"][rows].bool() for name in INPUTS}
    inputs = {name: value[rows] for name, value in group(golden, "input").items()}
    with torch.no_grad():
        output = model(inputs=inputs, task_masks=masks, predict_all=True)
    predicted = model.predict(inputs, visible={name: ~mask for name, mask in masks.items()})
    for name in OUTPUTS:
        expected = torch.cat([golden[f"explicit.{row}.pred.{name}"] for row in rows])
        assert_close(output.predictions[name], expected)
        assert_close(predicted[name], expected)


def mean_loss(output: Modality, prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None) -> Any:
    """The authors' masked losses: images in, mean over the samples that have something masked out."""
    if target.dim() == 3:
        target = target[:, None]
    predictions, patches = (patchify(image, output.patch_shape) for image in (prediction, target))
    is_scored = torch.ones(patches.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
    losses, has_loss = sample_losses(output, predictions, patches, is_scored, ignore_index=255)
    return losses.sum() / has_loss.sum().clamp(min=1)


def test_losses_without_masks_are_the_authors(golden: dict[str, Any], model: Any) -> None:
    for output in model.config.outputs():
        target, prediction = golden[f"input.{output.source}"], golden[f"pred.{output.name}"]
        assert_close(mean_loss(output, prediction, target, None), golden[f"loss_unmasked.{output.name}"])


# Case -> the modality's fields, its predictions and targets.
LOSSES = {
    "mse": ({"kind": "continuous", "num_channels": 3}, "pred3", "tgt3"),
    "mse_norm": ({"kind": "continuous", "num_channels": 3, "loss": "standardized_mse"}, "pred3", "tgt3"),
    "l1": ({"kind": "continuous", "num_channels": 1, "loss": "l1"}, "pred1", "tgt1"),
    "ce": ({"kind": "categorical", "num_classes": 7, "stride": 4}, "logits", "labels"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_losses_and_their_edge_cases_are_the_authors(shared_golden: Any, case: str) -> None:
    golden = shared_golden("multimae_losses")
    fields, prediction_name, target_name = LOSSES[case]
    config = MultiMAEConfig(modalities={"x": fields}, image_size=64, num_visible_tokens=4)
    output = config.modality_table()["x"]
    target = golden[f"input.{target_name}"]

    def run(mask_name: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        prediction = golden[f"input.{prediction_name}"].clone().requires_grad_()
        loss = mean_loss(output, prediction, target, None if mask_name is None else golden[f"input.{mask_name}"])
        loss.backward()
        assert prediction.grad is not None
        return loss, prediction.grad

    assert_close(run("mask_ok")[0], golden[f"{case}.ok"])
    assert_close(run(None)[0], golden[f"{case}.none"])
    loss, gradient = run("zero_mask")
    assert loss == golden[f"{case}.zero"] == 0 and not gradient.any()
    if f"{case}.ok.grad_pred" in golden:
        assert_close(run("mask_ok")[1], golden[f"{case}.ok.grad_pred"])
    # A sample without a masked token drops out of the mean; theirs has no gradient (NaN), ours is zero.
    loss, gradient = run("mask")
    assert_close(loss, golden[f"{case}.masked"])
    lacks = golden[f"{case}.masked.grad_is_nan_per_sample"]
    assert lacks.any() and gradient.isfinite().all()
    assert not gradient[lacks].any() and gradient[~lacks].flatten(1).any(1).all()

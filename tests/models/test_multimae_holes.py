"""Pixels that a modality lacks, such as holes of a depth map: never read, never predicted, never pooled."""

from typing import Any

import numpy as np
import pytest
import torch
from model_behaviours import check_slopes, step
from multimae_cases import make_batch, make_draws, mapped, small_config, small_model, to_double
from torch.nn import functional as F

from hf_maskssl import MultiMAEForDepthEstimation, MultiMAEForImageClassification
from hf_maskssl.data.multimodal.collator import MultimodalCollator
from hf_maskssl.evaluation.features import real_tokens
from hf_maskssl.models.image_processing_multimae import MultiMAEImageProcessor
from hf_maskssl.models.layers import masked_mean, patchify
from hf_maskssl.models.multimodal_losses import standardize_patches


def holed_batch(case: str = "paper") -> dict[str, Any]:
    """In the first row nothing is missing, in the second a patch of depth, in the third single pixels, in the last most."""
    batch = make_batch(case)
    observed = {name: torch.ones_like(batch["inputs"][name], dtype=torch.bool) for name in ("rgb", "depth")}
    observed["depth"][1, :, :8, :8] = False
    observed["depth"][2, :, 3:12:2, 5] = False
    observed["rgb"][2, 0, :3, :3] = False
    observed["depth"][3, :, :, 3:] = False
    for name, own in observed.items():
        batch["inputs"][name] = batch["inputs"][name].masked_fill(~own, torch.nan)
    return batch | {"observed_mask": observed}


def with_garbage(batch: dict[str, Any], value: float) -> dict[str, Any]:
    inputs = dict(batch["inputs"])
    for name, own in batch["observed_mask"].items():
        inputs[name] = inputs[name].masked_fill(~own, value)
    return batch | {"inputs": inputs}


@pytest.mark.parametrize("case", ["paper", "lacking"])
def test_what_stands_in_a_hole_changes_nothing(case: str) -> None:
    batch, draws = holed_batch(case), make_draws(case)
    expected = step(small_model(case), batch | draws)
    assert all(value.isfinite().all() for value in expected.values())
    for value in (0.0, 1e30):
        found = step(small_model(case), with_garbage(batch, value) | draws)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_masks_of_ones_change_no_bit() -> None:
    batch, draws = make_batch("paper"), make_draws("paper")
    ones = {name: torch.ones_like(batch["inputs"][name]) for name in ("rgb", "depth")}
    expected = step(small_model("paper"), batch | draws)
    found = step(small_model("paper"), batch | draws | {"observed_mask": ones})
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_loss_is_that_of_the_observed_pixels_of_hidden_patches() -> None:
    """Against a loop over samples and patches, of all three losses of values."""
    model, batch = small_model("paper").double().eval(), to_double(holed_batch())
    outputs = model(**batch, **to_double(make_draws("paper")), predict_all=True)
    for name, source in (("rgb", "rgb"), ("depth", "depth"), ("norm_rgb", "rgb")):
        loss = model.outputs[name].loss
        prediction = patchify(outputs.predictions[name], (8, 8))
        target = patchify(batch["inputs"][source], (8, 8))
        observed = patchify(batch["observed_mask"][source], (8, 8))
        means = []
        for row in range(4):
            errors = []
            for patch in outputs.masks[source][row].nonzero().flatten().tolist():
                own = observed[row, patch]
                assert own.any()  # else it is not masked
                wanted = target[row, patch][own]
                if loss == "standardized_mse":
                    wanted = (wanted - wanted.mean()) / torch.sqrt(wanted.var() + 1e-6)
                error = prediction[row, patch][own] - wanted
                errors.append(error.abs().mean() if loss == "l1" else error.pow(2).mean())
            means += [torch.stack(errors).mean()] if errors else []
        torch.testing.assert_close(outputs.loss_parts[name], torch.stack(means).mean(), rtol=1e-9, atol=1e-9)


def test_gradients_with_holes_are_finite_differences() -> None:
    model = small_model("paper").double()
    inputs = to_double(holed_batch() | make_draws("paper"))
    model(**inputs).loss.backward()
    check_slopes(model, inputs)


def test_a_patch_without_a_pixel_is_not_there() -> None:
    model, batch = small_model("paper").multimae.eval(), holed_batch()
    images = model.cut(**batch)
    real = images.is_real()
    assert real is not None and real[0].all() and not real[1].all() and real[2].all()
    outputs = model(**batch)
    for given in (with_garbage(batch, 0.0), with_garbage(holed_batch("lacking"), 0.0)):
        outputs_of = model(**given)
        tokens = outputs_of.last_hidden_state[:, model.num_prefix_tokens :]
        pooled = masked_mean(tokens, real_tokens(model, given, tokens))
        torch.testing.assert_close(pooled, outputs_of.pooler_output)
    for row in range(4):
        one = mapped(batch, lambda value, row=row: value[row : row + 1])
        alone = model(**one, ids_keep=real[row].nonzero().T)
        torch.testing.assert_close(alone.pooler_output[0], outputs.pooler_output[row], rtol=1e-4, atol=1e-4)
    nothing = {"depth": torch.zeros_like(batch["inputs"]["depth"])}
    inputs = batch | {"observed_mask": batch["observed_mask"] | nothing, "task_masks": hidden_but("depth", images)}
    shown = small_model("paper").eval()(**inputs)
    assert shown.loss.isfinite()  # a sample that shows nothing but holes reads zeros


def hidden_but(shown: str, images: Any) -> dict[str, torch.Tensor]:
    return {grid.name: torch.full((4, grid.size), grid.name != shown) for grid in images.grids}


def test_heads_never_read_a_hole() -> None:
    batch = holed_batch()
    for kind, fields in ((MultiMAEForImageClassification, {"num_labels": 3}), (MultiMAEForDepthEstimation, {})):
        model = kind(small_config("paper", **fields)).eval()
        given = {"inputs": {name: batch["inputs"][name] for name in ("rgb", "depth")}}
        if kind is MultiMAEForDepthEstimation:
            model = kind(small_config("paper", head_modalities=["rgb", "depth"])).eval()
        found = [
            model(**with_garbage(given | {"observed_mask": batch["observed_mask"]}, value)) for value in (0.0, 7.0)
        ]
        name = "logits" if "logits" in found[0] else "predicted_depth"
        assert found[0][name].isfinite().all()
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=0)


def test_bad_masks_are_refused() -> None:
    model, batch = small_model("paper"), make_batch("paper")
    depth = torch.ones_like(batch["inputs"]["depth"])
    for observed, message in (
        ({"semseg": torch.ones(4, 8, 12)}, r"continuous modalities, \['rgb', 'depth'\], got 'semseg'"),
        ({"far": depth}, "continuous modalities.* got 'far'"),
        ({"depth": depth[:, 0]}, r"one entry per value of `inputs\['depth'\]`, \(4, 1, 16, 24\), got \(4, 16, 24\)"),
        ({"depth": 3 * depth}, "must be 1 where a value was observed"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**batch, observed_mask=observed)
    alone = {"inputs": {"depth": batch["inputs"]["depth"]}, "observed_mask": {"depth": 0 * depth}}
    with pytest.raises(ValueError, match=r"nothing as observed in rows \[0, 1, 2, 3\]"):
        model.multimae(**alone)


def test_standardising_a_patch_leaves_out_what_is_missing() -> None:
    patches = torch.randn(2, 3, 8, dtype=torch.float64)
    observed = torch.rand(2, 3, 8) < 0.7
    observed[0, 0], observed[1, 1] = True, False
    found = standardize_patches(patches.masked_fill(~observed, 1e6), observed)
    torch.testing.assert_close(found[0, 0], standardize_patches(patches)[0, 0])
    own = patches[0, 1][observed[0, 1]]
    torch.testing.assert_close(found[0, 1][observed[0, 1]], (own - own.mean()) / (own.var() + 1e-6).sqrt())
    assert F.mse_loss(found[observed], found[observed]) == 0 and found.isfinite().all()


# From the picture to the batch


def test_holes_of_pictures_are_missing_in_the_batch() -> None:
    fields = {"kind": "continuous", "num_channels": 1, "standardize": "robust", "invalid_value": 0}
    modalities = {"rgb": {"kind": "continuous", "num_channels": 3}, "depth": fields}
    processor = MultiMAEImageProcessor(modalities=modalities, image_size=[8, 8])
    depth = np.random.default_rng(0).integers(500, 900, (2, 8, 8)).astype(np.uint16)
    depth[1, :4, :4] = 0
    pictures = {"rgb": np.full((2, 8, 8, 3), 100, np.uint8), "depth": list(depth)}
    batch = processor(pictures, return_tensors="pt")
    assert list(batch["observed_mask"]) == ["depth"]
    assert torch.equal(batch["observed_mask"]["depth"][:, 0], torch.from_numpy(depth != 0))
    assert not batch["inputs"]["depth"][1, 0, :4, :4].any() and batch["inputs"]["depth"].isfinite().all()
    rows = []
    for row in range(2):
        sample = {name: values[row] for name, values in pictures.items()}
        prepared = processor.prepare_row(sample, invalid=np.nan)[0]
        rows.append({f"inputs.{name}": values for name, values in prepared.items()} | {"index": row})
    collated = MultimodalCollator({"rgb": "rgb", "depth": "depth"}, {}, 255)(rows)
    torch.testing.assert_close(collated["inputs"], dict(batch["inputs"]), rtol=0, atol=0)
    torch.testing.assert_close(collated["observed_mask"], dict(batch["observed_mask"]), rtol=0, atol=0)
    whole = {name: values[:1] for name, values in pictures.items()}
    assert list(processor(whole, return_tensors="pt")) == ["inputs"]

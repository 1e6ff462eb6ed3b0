"""MultiMAE's loss and gradients against a slow reference written from the paper, and its invariances."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_behaviours import check_slopes, look_at_nothing
from multimae_cases import CASES, make_batch, make_draws, mapped, rows_of, small_model, to_double
from torch import nn
from torch.nn import functional as F

from hf_maskssl import MultiMAEForPretraining
from hf_maskssl.models.configuration_multimae import Modality

# the slow reference ------------------------------------------------------------------------------------------------


def pixels_of(modality: Modality, image: torch.Tensor, token: int) -> list[torch.Tensor]:
    """The pixels of one patch, row by row: (C,) values or a class id each."""
    height, width = modality.patch_shape
    columns = image.shape[-1] // width
    row, column = token // columns, token % columns
    places = [(row * height + y, column * width + x) for y in range(height) for x in range(width)]
    return [image[..., y, x] for y, x in places]


def embed(model: MultiMAEForPretraining, modality: Modality, image: torch.Tensor, token: int) -> torch.Tensor:
    embeddings, values = model.multimae.embeddings, []
    for pixel in pixels_of(modality, image, token):
        if not modality.is_categorical:
            values.append(pixel)
        elif pixel == 255:
            values.append(torch.zeros(modality.embedding_size, dtype=torch.float64))
        else:
            values.append(embeddings.class_embeddings[modality.name].weight[pixel])
    position = embeddings.positions(modality.name)[token]
    return embeddings.projections[modality.name](torch.cat(values)) + position


def attend(attention: nn.Module, queries: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """(M, d), (N, d) -> (M, d), one head after the other."""
    query, (key, value) = attention.query(queries), attention.key_value(context).chunk(2, dim=-1)
    width, outputs = query.shape[-1] // attention.num_heads, []
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[:, part] @ key[:, part].T / math.sqrt(width)
        outputs.append(scores.softmax(-1) @ value[:, part])
    return attention.output(torch.cat(outputs, dim=-1))


def decode(
    model: MultiMAEForPretraining, output: Modality, encoded: torch.Tensor, seen: list[tuple[str, int]], size: int
) -> torch.Tensor:
    """(N_output, P), from one sample's encoded tokens: global ones, then those that are `seen`."""
    decoder, num_global = model.decoders[output.name], model.config.num_global_tokens

    def place(name: str, token: int) -> torch.Tensor:
        position = decoder.get_buffer(f"positions_{name}")[token]
        return position + decoder.modality_embeddings[name][0, 0] if name in decoder.modality_embeddings else position

    projected = [decoder.context_projection(token) for token in encoded]
    context = projected[:num_global]
    for token, where in zip(projected[num_global:], seen, strict=True):
        context.append(token + place(*where))
    queries = []
    for token in range(size):
        if (output.source, token) in seen:
            queries.append(context[num_global + seen.index((output.source, token))])
        else:
            queries.append(decoder.mask_token[0, 0] + place(output.source, token))
    attended = attend(
        decoder.cross_attention, decoder.query_norm(torch.stack(queries)), decoder.context_norm(torch.stack(context))
    )
    hidden = attended + decoder.mlp.down(F.gelu(decoder.mlp.up(decoder.output_norm(attended))))
    for layer in decoder.layers:
        hidden = layer(hidden[None])[0]
    return decoder.prediction(hidden)


def patch_errors(output: Modality, prediction: torch.Tensor, pixels: list[torch.Tensor]) -> list[torch.Tensor]:
    """What one hidden patch adds to its sample's mean: an error, or one per pixel whose class is known."""
    if output.is_categorical:
        logits = prediction.view(len(pixels), output.num_classes)
        return [-logits[i].log_softmax(-1)[pixel] for i, pixel in enumerate(pixels) if pixel != 255]
    target = torch.cat(pixels)
    if output.loss == "standardized_mse":
        mean = sum(target) / len(target)
        variance = sum((value - mean) ** 2 for value in target) / (len(target) - 1)
        target = (target - mean) / torch.sqrt(variance + 1e-6)
    difference = prediction - target
    return [difference.abs().mean() if output.loss == "l1" else (difference**2).mean()]


def balance(model: MultiMAEForPretraining, losses: dict[str, torch.Tensor | None]) -> tuple[torch.Tensor, list[float]]:
    """One loss, and weights; None is a task that nobody has."""
    name, there = model.config.task_balancing, [key for key in losses if losses[key] is not None]
    weights, total = {key: 1.0 for key in there}, torch.zeros((), dtype=torch.float64)
    if name == "minimax":
        powers = {key: math.exp(3.0 * losses[key].item()) for key in there}  # type: ignore[union-attr]
        weights = {key: powers[key] / sum(powers.values()) for key in there}
    for key in there:
        if name == "uncertainty":
            log_variance = model.balancer.rule.log_variances[list(losses).index(key)]
            weights[key] = math.exp(-log_variance.item())
            total = total + (-log_variance).exp() * losses[key] + log_variance
        else:
            total = total + weights[key] * losses[key]  # type: ignore[operator]
    return total, [weights.get(key, 0.0) for key in losses]


def slow_loss(
    model: MultiMAEForPretraining, batch: dict[str, Any], masks: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor | None], list[float]]:
    """Section 3 of the paper for one sample after the other, one token after the other."""
    config, encoder = model.config, model.multimae
    samples: dict[str, list[torch.Tensor]] = {output.name: [] for output in config.outputs()}
    presence = batch.get("presence", {})
    for row in range(len(next(iter(masks.values())))):
        images = {name: image[row] for name, image in batch["inputs"].items() if presence.get(name, [True] * 9)[row]}
        seen, tokens = [], list(encoder.embeddings.global_tokens[0])
        for modality in config.inputs():
            for token in range(config.num_tokens_of(modality)):
                if modality.name in images and not masks[modality.name][row, token]:
                    seen.append((modality.name, token))
                    tokens.append(embed(model, modality, images[modality.name], token))
        hidden = torch.stack(tokens)[None]
        for layer in encoder.layers:
            hidden = layer(hidden)
        encoded = encoder.norm(hidden)[0]
        for output in config.outputs():
            if output.source not in images:
                continue
            size = config.num_tokens_of(output)
            predicted, errors = decode(model, output, encoded, seen, size), []
            for token in range(size):
                if (output.source, token) not in seen:
                    errors += patch_errors(output, predicted[token], pixels_of(output, images[output.source], token))
            if errors:
                samples[output.name].append(sum(errors) / len(errors))  # type: ignore[arg-type]
    losses = {name: sum(values) / len(values) if values else None for name, values in samples.items()}
    total, weights = balance(model, losses)  # type: ignore[arg-type]
    return total, losses, weights  # type: ignore[return-value]


def without(batch: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: {other: value for other, value in part.items() if other != name} for key, part in batch.items()}


@pytest.mark.parametrize("case", [*CASES, "everything", "nothing of rgb", "some normals"])
def test_loss_and_gradients_of_the_slow_reference(case: str) -> None:
    name = case if case in CASES else "mixed" if case == "some normals" else "lacking"
    model, slow = (small_model(name).double() for _ in range(2))
    batch, draws = to_double(make_batch(name, 5)), to_double(make_draws(name, 5))
    if case == "everything":  # a sample that shows all of a modality has nothing to predict there
        sizes = {"rgb": 6, "depth": 6, "semseg": 6}
        draws = {"task_masks": {key: torch.rand(5, size) < 0.6 for key, size in sizes.items()}}
        draws["task_masks"]["rgb"][0], draws["task_masks"]["depth"][2] = False, torch.arange(6) > 0
    if case == "nothing of rgb":
        batch["presence"]["rgb"][:] = False
        batch["presence"]["semseg"][:] = batch["presence"]["depth"][:] = True
    if case == "some normals":  # which are an output alone
        batch["presence"] = {"normals": torch.tensor([True, False, True, False, True])}
    outputs = model(**batch, **draws)
    outputs.loss.backward()
    expected, losses, weights = slow_loss(slow, batch, outputs.masks)
    expected.backward()
    torch.testing.assert_close(outputs.loss, expected)
    for (task, loss), weight in zip(losses.items(), weights, strict=True):
        assert outputs.loss_parts[task].item() == pytest.approx(0.0 if loss is None else loss.item())
        assert outputs.loss_parts[f"weight/{task}"].item() == pytest.approx(weight)
    assert not any(part.requires_grad for part in outputs.loss_parts.values())
    for (key, mine), theirs in zip(model.named_parameters(), slow.parameters(), strict=True):
        assert mine.grad is not None, key
        if theirs.grad is None:
            assert not mine.grad.any() and case == "nothing of rgb", key
            continue
        assert (mine.grad != 0).any(), key
        torch.testing.assert_close(mine.grad, theirs.grad, msg=key)


@pytest.mark.parametrize("case", ["minimax", "mixed"])
def test_gradients_against_finite_differences(case: str) -> None:
    model, batch = small_model(case).double(), to_double(make_batch(case, 2))
    draws = to_double(make_draws(case, 2))
    fixed = model(**batch, **draws).loss_parts
    # A weight is a constant for the gradient, so differences are taken with the one that was.
    model.balancer.rule.weights_of = lambda *_: torch.stack([fixed[f"weight/{task}"] for task in model.decoders])
    model(**batch, **draws).loss.backward()
    check_slopes(model, batch | draws)


# what a sample lacks -----------------------------------------------------------------------------------------------


def results(model: MultiMAEForPretraining, batch: dict[str, Any], draws: dict[str, Any]) -> list[torch.Tensor]:
    """Loss, parts and gradients of one pass."""
    model.zero_grad()
    outputs = model(**batch, **draws)
    outputs.loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [outputs.loss.detach(), *outputs.loss_parts.values(), *(part.clone() for part in gradients)]


def assert_same(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    assert len(first) == len(second)
    for mine, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(mine, theirs)


def with_garbage(batch: dict[str, Any]) -> dict[str, Any]:
    """Other values wherever a sample lacks a modality."""
    changed = mapped(batch, torch.clone)
    for name, present in changed["presence"].items():
        image = changed["inputs"][name]
        image[~present] = 99 if name == "semseg" else torch.nan
        assert (~present).any()
    return changed


@pytest.mark.parametrize("is_readable", [True, False], ids=["cpu", "as_on_a_gpu"])
@pytest.mark.parametrize("case", ["lacking", "minimax"])
def test_what_stands_in_a_missing_image_changes_nothing(
    case: str, is_readable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_readable:
        look_at_nothing(monkeypatch)
    model, batch, draws = small_model(case), make_batch(case), make_draws(case)
    garbage = with_garbage(batch)
    assert_same(results(model, batch, draws), results(model, garbage, draws))
    masks = model(**batch, **draws).masks
    for name, present in batch["presence"].items():
        assert not masks[name][~present].any()
    for output in ("last_hidden_state", "pooler_output"):  # of the encoder alone, whose tokens are all there
        first, second = (model.multimae(**given)[output] for given in (batch, garbage))
        rows = slice(0, 1 + 6) if output == "last_hidden_state" else slice(None)
        torch.testing.assert_close(first[0][rows], second[0][rows])


@pytest.mark.parametrize("row", range(4))
def test_a_sample_that_lacks_a_modality_is_one_without_its_key(row: int) -> None:
    """Loss, predictions, tokens and pooling of the sample alone, from a dict of what it has."""
    model, batch = small_model("lacking").eval(), rows_of(make_batch("lacking"), slice(row, row + 1))
    draws = rows_of(make_draws("lacking"), slice(row, row + 1))
    there = [name for name, present in batch["presence"].items() if present]
    alone = {"inputs": {name: batch["inputs"][name] for name in there}}
    expected = model(**batch, **draws, predict_all=True)
    masks = {name: expected.masks[name].bool() for name in there}
    found = model(**alone, task_masks=masks, predict_all=True)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.loss_parts, expected.loss_parts)
    torch.testing.assert_close(found.predictions, expected.predictions)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state)
    torch.testing.assert_close(model.multimae(**alone).pooler_output, model.multimae(**batch).pooler_output)


@pytest.mark.parametrize(("case", "name"), [("paper", "depth"), ("paper", "rgb"), ("mixed", "normals")])
def test_a_modality_that_nobody_gives_is_no_task(case: str, name: str) -> None:
    model, batch = small_model(case, task_balancing="minimax"), without(make_batch(case), name)
    masks = {key: mask.bool() for key, mask in model(**batch).masks.items()}
    assert name not in masks
    parts = model(**batch, task_masks=masks).loss_parts
    absent = [output.name for output in model.config.outputs() if output.source == name]
    assert absent
    for task in model.decoders:
        assert (parts[f"weight/{task}"] == 0) == (task in absent) and (parts[task] == 0) == (task in absent)
    assert sum(parts[f"weight/{task}"] for task in model.decoders) == pytest.approx(1.0)
    model(**batch, task_masks=masks).loss.backward()
    for key, parameter in model.named_parameters():
        belongs = name in key.split(".") and "modality_embeddings" not in key or key.split(".")[1] in absent
        assert (parameter.grad is None) == (belongs or f"modality_embeddings.{name}" in key), key


def test_every_sample_lacking_a_modality_is_no_task_either() -> None:
    """Unlike without the key every parameter has a gradient, as other processes may have the modality."""
    model, batch = small_model("paper"), make_batch("paper")
    batch["presence"] = {"depth": torch.zeros(4, dtype=torch.bool)}
    outputs = model(**batch)
    assert outputs.loss_parts["weight/depth"] == 0 and outputs.loss_parts["depth"] == 0
    outputs.loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any() != (key.startswith("decoders.depth") or ".depth" in key), key


# samples do not see each other -------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), case=st.sampled_from(["paper", "mixed", "lacking"]))
def test_a_sample_is_predicted_in_a_batch_as_alone(seed: int, case: str) -> None:
    """Explicit masks with another number of visible tokens in every sample; the authors' code serves one at a time."""
    generator = torch.Generator().manual_seed(seed)
    # In double precision: the differences of single precision come near any useful bound once in some hundred draws.
    model, batch = small_model(case).double().eval(), make_batch(case, seed=seed)
    batch["inputs"] = {
        name: image.double() if image.is_floating_point() else image for name, image in batch["inputs"].items()
    }
    masks = {
        modality.name: torch.rand(4, model.config.num_tokens_of(modality), generator=generator) < 0.7
        for modality in model.config.inputs()
    }
    for mask in masks.values():
        mask[:, 0] = False  # something is visible
    together = model(**batch, task_masks=masks, predict_all=True)
    for row in range(4):
        alone = model(**rows_of(batch, [row]), task_masks=rows_of(masks, [row]), predict_all=True)
        for name, predicted in alone.predictions.items():
            torch.testing.assert_close(predicted[0], together.predictions[name][row], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", ["paper", "mixed", "lacking"])
def test_predict_is_what_the_objective_predicts(case: str) -> None:
    model, batch, draws = small_model(case), make_batch(case), make_draws(case)
    outputs = model.train()(**batch, **draws, predict_all=True)
    visible = {name: mask == 0 for name, mask in outputs.masks.items()}
    found = model.predict(**batch, visible=visible)
    assert model.training and list(found) == list(outputs.predictions)
    assert not any(value.requires_grad for value in found.values())
    torch.testing.assert_close(found, {name: value.detach() for name, value in outputs.predictions.items()})
    some = model(**batch, **draws)  # only what is hidden is decoded
    assert some.predictions is None
    torch.testing.assert_close(some.loss, outputs.loss)


def test_cross_modal_prediction_names_what_is_seen() -> None:
    """Figures 3 and 4: depth from rgb alone, and from a few patches more; modalities not named are seen whole."""
    model, batch = small_model("paper").eval(), make_batch("paper")
    inputs = batch["inputs"]
    rgb_only = model.predict(inputs, visible={"depth": False, "semseg": False}, targets=["depth"])
    assert list(rgb_only) == ["depth"] and rgb_only["depth"].shape == (4, 1, 16, 24)
    torch.testing.assert_close(rgb_only, model.predict({"rgb": inputs["rgb"]}, targets=["depth"]))
    torch.testing.assert_close(
        rgb_only, model.predict(inputs, {"rgb": True, "depth": torch.zeros(6), "semseg": False}, targets=["depth"])
    )
    two = torch.tensor([0, 1, 0, 0, 1, 0], dtype=torch.bool)
    more = model.predict(inputs, visible={"depth": two, "semseg": False}, targets=["depth"])
    masks = {"rgb": torch.zeros(4, 6), "depth": (~two).expand(4, 6), "semseg": torch.ones(4, 6)}
    expected = model(inputs=inputs, task_masks=masks, predict_all=True).predictions["depth"]
    torch.testing.assert_close(more["depth"], expected.detach())
    assert not torch.allclose(more["depth"], rgb_only["depth"])


# invariances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["mixed", "lacking"])
def test_the_order_of_keys_changes_nothing(case: str) -> None:
    model, batch, draws = small_model(case), make_batch(case), make_draws(case)
    turned = {name: dict(reversed(part.items())) for name, part in batch.items()}
    assert list(turned["inputs"]) != list(batch["inputs"])
    assert_same(results(model, batch, draws), results(model, turned, draws))
    masks = model(**batch, **draws).masks
    explicit = {name: masks[name] for name in reversed(masks)}
    assert_same(results(model, batch, draws), results(model, turned, {"task_masks": explicit}))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), case=st.sampled_from(["paper", "mixed", "lacking"]))
def test_hidden_patches_are_targets_alone(seed: int, case: str) -> None:
    """Other pixels in them change no prediction, and every loss that has them; visible pixels are no target."""
    model, batch, draws = small_model(case).eval(), make_batch(case), make_draws(case)
    before = model(**batch, **draws, predict_all=True)
    other = make_batch(case, seed=seed + 1)
    changed = mapped(batch, torch.clone)
    for modality in model.config.modality_table().values():
        if modality.source == modality.name:
            image = changed["inputs"][modality.name]
            height, width = modality.patch_shape
            mask = before.masks.get(modality.name)
            rows, columns = image.shape[-2] // height, image.shape[-1] // width
            hidden = torch.ones(4, rows, columns) if mask is None else mask.view(4, rows, columns)
            where = hidden.bool().repeat_interleave(height, 1).repeat_interleave(width, 2)
            where = where if image.dim() == 3 else where[:, None].expand_as(image)
            image[where] = other["inputs"][modality.name][where]
    after = model(**changed, **draws, predict_all=True)
    torch.testing.assert_close(after.predictions, before.predictions)
    for task in model.decoders:
        assert after.loss_parts[task] != before.loss_parts[task]


def test_standardised_targets_do_not_know_brightness_and_contrast() -> None:
    model, batch, draws = small_model("paper"), make_batch("paper"), make_draws("paper")
    masks = {name: torch.ones(4, 6) for name in ("rgb", "depth", "semseg")}
    masks["depth"] = torch.zeros(4, 6)  # no token of rgb is seen
    brighter = batch["inputs"] | {"rgb": 3 * batch["inputs"]["rgb"] + 2}
    first, second = (model(inputs=inputs, task_masks=masks).loss_parts for inputs in (batch["inputs"], brighter))
    torch.testing.assert_close(first["norm_rgb"], second["norm_rgb"], rtol=1e-4, atol=1e-4)
    assert second["rgb"] > 2 * first["rgb"]
    assert torch.isfinite(model(inputs=batch["inputs"] | {"rgb": torch.ones(4, 3, 16, 24)}, **draws).loss)


def test_losses_of_samples_weigh_the_same() -> None:
    """A mean of samples' means (section 3.4), not of all hidden tokens."""
    model, batch = small_model("paper"), make_batch("paper", 2)
    masks = {name: torch.zeros(2, 6, dtype=torch.bool) for name in ("rgb", "depth", "semseg")}
    masks["depth"][0, :1], masks["depth"][1, :5] = True, True
    both = model(**batch, task_masks=masks).loss_parts["depth"]
    alone = [model(**rows_of(batch, [row]), task_masks=rows_of(masks, [row])).loss_parts["depth"] for row in (0, 1)]
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)
    assert model(**batch, task_masks=masks).loss_parts["weight/rgb"] == 0  # nobody has anything to predict

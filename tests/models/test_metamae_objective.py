"""MetaMAE's loss and gradient: against the paper's equations written slowly, and against finite differences."""

import math
from typing import Any

import pytest
import torch
from metamae_cases import CASES, make_batch, make_draws, small_model, to_double
from model_behaviours import check_slopes
from torch.nn import functional as F

from hf_maskssl import MetaMAEForPretraining
from hf_maskssl.models.layers import patchify


def double_model(case: str, **changes: Any) -> MetaMAEForPretraining:
    return small_model(case, **changes).double().train()


def slow_loss(model: MetaMAEForPretraining, batch: dict, draws: dict) -> dict[str, torch.Tensor]:
    """Eqs. 1-5 with a loop for everything that the model does at once; encoder and decoder are called as black boxes."""
    config = model.config
    tokens = model.metamae.embeddings.tokenize(**({name: None for name in INPUTS} | batch))
    batch_size, num_tokens = tokens.shape
    real = tokens.attention_mask if tokens.attention_mask is not None else torch.ones(batch_size, num_tokens)
    calls: list[tuple] = []
    hook = model.decoder.register_forward_pre_hook(lambda module, args: calls.append(args))
    output = model(**batch, **draws)
    hook.remove()
    latents, mask = calls[0][:2]

    num_patches = 0 if tokens.patches is None else tokens.patches.shape[1]
    is_masked, is_support = torch.zeros(batch_size, num_tokens), torch.zeros(batch_size, num_tokens)
    for row in range(batch_size):
        places = [place for place in range(num_tokens) if real[row, place]]
        order = sorted(places, key=lambda place: draws["noise"][row, place].item())
        keep = max(1, int(len(places) * (1 - config.mask_ratio)))
        visible, hidden = set(order[:keep]), set(order[keep:])
        for place in hidden:
            is_masked[row, place] = 1
        for place in places:
            near = bool(visible & neighbours(place, num_patches, config.grid_shape))
            sampled = draws["nearby_noise"][row, place] < config.nearby_ratio
            is_support[row, place] = float(place in visible or (place in hidden and near and sampled))

    def discrepancies(values: torch.Tensor) -> torch.Tensor:
        table = model.metamae.embeddings.token_embeddings.weight if config.has_tokens else None
        patch_predictions, logits, category_logits = model.decoder(values, mask, table)
        counts = config.category_counts or [0] * num_patches
        rows = []
        for row in range(batch_size):
            parts = []
            for place in range(num_tokens):
                if place < num_patches and counts[place]:
                    own = category_logits[row, sum(counts[:place]) : sum(counts[: place + 1])]
                    value = int(tokens.patches[row, place, 0])
                    parts.append(-(own[value] - own.exp().sum().log()) / math.log(counts[place]))
                elif place < num_patches:
                    error = patch_predictions[row, place] - tokens.patches[row, place]
                    if tokens.observed is not None and real[row, place]:
                        error = error[tokens.observed[row, place]]
                    parts.append(sum(value * value for value in error) / len(error))
                else:
                    word = tokens.ids[row, place - num_patches]
                    parts.append(-F.log_softmax(logits[row, place - num_patches], dim=-1)[word])
            rows.append(torch.stack(parts))
        return torch.stack(rows)

    def mean_loss(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        distances = discrepancies(values)
        total = torch.zeros((), dtype=distances.dtype)
        for kind in (slice(0, num_patches), slice(num_patches, num_tokens)):
            if weight[:, kind].numel():
                total = total + (distances[:, kind] * weight[:, kind]).sum() / weight[:, kind].sum()
        return total

    # Use math attention alone: the reference differentiates twice through PyTorch's own operations.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        adapted, support = latents, mean_loss(latents, is_support)
        for _ in range(config.num_adaptation_steps):
            inner = mean_loss(adapted, is_support) * batch_size
            (gradient,) = torch.autograd.grad(inner, adapted, create_graph=not config.first_order)
            adapted = adapted - config.adaptation_step_size * gradient
        reconstruction = mean_loss(adapted, is_masked)

    loss, contrastive = reconstruction, torch.zeros(())
    if model.projector is not None:
        pooled = []
        for states in (latents, adapted):
            rows = []
            for row in range(batch_size):
                if not len(model.decoder.layers):
                    used = [place for place in range(num_tokens) if real[row, place]]
                elif mask.keep_mask is None:
                    used = list(range(states.shape[1] - 1))
                else:
                    used = [slot for slot in range(states.shape[1] - 1) if mask.keep_mask[row, slot]]
                rows.append(torch.stack([states[row, 1 + slot] for slot in used]).mean(0))
            pooled.append(model.projector(torch.stack(rows)))
        both = torch.cat(pooled)
        terms = []
        for anchor in range(2 * batch_size):
            positive = (anchor + batch_size) % (2 * batch_size)
            similarity = [
                math.inf if other == anchor else F.cosine_similarity(both[anchor], both[other], dim=0)
                for other in range(2 * batch_size)
            ]
            exponentials = [
                torch.exp(value / config.contrastive_temperature)
                for other, value in enumerate(similarity)
                if other != anchor
            ]
            numerator = torch.exp(similarity[positive] / config.contrastive_temperature)
            terms.append(-torch.log(numerator / sum(exponentials)))
        contrastive = torch.stack(terms).mean()
        loss = loss + config.contrastive_weight * contrastive
    return {
        "loss": loss,
        "reconstruction": reconstruction,
        "support": support,
        "contrastive": contrastive,
        "mask": is_masked,
        "support_mask": is_support,
        "output": output,
    }


INPUTS = ("input_ids", "input_values", "pixel_values", "attention_mask", "observed_mask")


def neighbours(place: int, num_patches: int, grid: tuple[int, ...]) -> set[int]:
    """Places one step away along one axis; tokens and patches are not neighbours of each other."""
    if place >= num_patches:
        return {other for other in (place - 1, place + 1) if other >= num_patches}
    if len(grid) == 1:
        return {other for other in (place - 1, place + 1) if 0 <= other < num_patches}
    row, column = divmod(place, grid[1])
    steps = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
    return {r * grid[1] + c for r, c in steps if 0 <= r < grid[0] and 0 <= c < grid[1]}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "changes", [{}, {"num_adaptation_steps": 2}, {"first_order": True}, {"decoder_num_hidden_layers": 0}]
)
def test_loss_and_gradient_are_those_of_the_equations(case: str, changes: dict) -> None:
    model = double_model(case, **changes)
    batch, draws = to_double(make_batch(case)), make_draws(case)
    slow = slow_loss(model, batch, draws)
    slow["loss"].backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    output = model(**batch, **draws)
    output.loss.backward()
    assert torch.equal(output.mask, slow["mask"].long())
    assert torch.equal(output.support_mask, slow["support_mask"].long())
    for name in ("reconstruction", "support", "contrastive"):
        torch.testing.assert_close(output.loss_parts[name], slow[name].detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.loss, slow["loss"], rtol=1e-9, atol=1e-9)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [1, 3])
def test_gradient_matches_finite_differences_through_the_inner_step(case: str, steps: int) -> None:
    model = double_model(case, num_adaptation_steps=steps, adaptation_step_size=0.8)
    batch, draws = to_double(make_batch(case)), make_draws(case)
    model(**batch, **draws).loss.backward()
    check_slopes(model, batch | draws)


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_has_a_gradient(case: str) -> None:
    model = small_model(case)
    model(**make_batch(case), **make_draws(case)).loss.backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not without


def test_first_order_changes_the_gradient_and_not_the_loss() -> None:
    batch, draws = make_batch("series"), make_draws("series")
    losses, gradients = [], []
    for first_order in (False, True):
        model = small_model("series", first_order=first_order, adaptation_step_size=2.0)
        loss = model(**batch, **draws).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append(model.decoder.embed.weight.grad)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4


def test_plain_mae_is_the_same_model_without_adaptation() -> None:
    model = small_model("image", num_adaptation_steps=0, contrastive_weight=0.0)
    batch, draws = make_batch("image"), make_draws("image")
    output = model(**batch, noise=draws["noise"])
    patches = patchify(batch["pixel_values"], (2, 3))
    error = (output.patch_predictions - patches).pow(2).mean(-1)
    expected = error[output.mask.bool()].mean()
    torch.testing.assert_close(output.loss, expected)
    assert output.adapted_latents is None and output.support_mask is None
    assert list(output.loss_parts) == ["reconstruction"]
    assert not any("projector" in name for name, _ in model.named_parameters())


def test_linear_decoder_reads_masked_places_from_their_position_alone() -> None:
    """With depth 0 the encoder sees zeros at masked tokens, so their content must not matter, and their place must."""
    model = small_model("tokens", decoder_num_hidden_layers=0, num_adaptation_steps=0, contrastive_weight=0.0).eval()
    batch, noise = make_batch("tokens"), make_draws("tokens")["noise"]
    first = model(**batch, noise=noise)
    other_ids = torch.where(first.mask.bool(), (batch["input_ids"] + 1) % 7, batch["input_ids"])
    second = model(input_ids=other_ids, noise=noise)
    torch.testing.assert_close(first.token_logits, second.token_logits)
    masked = first.token_logits[0][first.mask[0].bool()]
    assert (masked[0] - masked[1]).abs().max() > 1e-4


@pytest.mark.parametrize("case", CASES)
def test_masked_content_reaches_the_prediction_only_through_the_support_set(case: str) -> None:
    """Masked tokens outside the support set are targets and nothing else."""
    model = small_model(case).eval()
    batch, draws = make_batch(case), make_draws(case)
    first = model(**batch, **draws)
    secret = (first.mask.bool() & ~first.support_mask.bool())[0]
    assert secret.any()
    changed = {name: value.clone() for name, value in batch.items()}
    num_patches = model.config.num_patches
    if "input_ids" in batch:
        places = secret[num_patches:].nonzero().flatten()
        changed["input_ids"][0, places] = (changed["input_ids"][0, places] + 1) % 7
    if model.config.has_patches:
        name = "input_values" if "input_values" in batch else "pixel_values"
        place = secret[:num_patches].nonzero().flatten()[0].item()
        grid, patch = model.config.grid_shape, model.config.patch_shape
        index = [place] if len(grid) == 1 else list(divmod(place, grid[1]))
        window = tuple(slice(i * p, (i + 1) * p) for i, p in zip(index, patch, strict=True))
        count = (model.config.category_counts or [0] * num_patches)[place]
        values = changed[name][(0, slice(None), *window)]
        changed[name][(0, slice(None), *window)] = (values + 1) % count if count else values + 3.0
    second = model(**changed, **draws)
    for left, right in (
        (first.patch_predictions, second.patch_predictions),
        (first.token_logits, second.token_logits),
    ):
        if left is not None:
            torch.testing.assert_close(left[0], right[0])
    assert first.loss != second.loss


@pytest.mark.parametrize("case", ["image", "tokens"])
def test_inputs_are_cut_and_checked_once_in_a_step(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, calls = small_model(case), make_batch(case), []
    tokenize = type(model.metamae.embeddings).tokenize

    def counted(self: Any, *inputs: Any) -> Any:
        calls.append(1)
        return tokenize(self, *inputs)

    monkeypatch.setattr(type(model.metamae.embeddings), "tokenize", counted)
    model(**batch)
    assert len(calls) == 1

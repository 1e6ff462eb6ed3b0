"""e-Mix, ShED, Capri and DABS's MAE: against the formulas written slowly, finite differences, and what must not matter."""

import math
from typing import Any

import dabs_cases
import pytest
import torch
from dabs_cases import BACKBONE, CASES, make_batch, make_draws, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from metamae_cases import to_double
from model_behaviours import ClassifierBehaviours, check_slopes
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForSequenceClassification

from hf_maskssl import (
    MetaMAEConfig,
    MetaMAEForPretraining,
    MetaMAEForSequenceClassification,
    MetaMAEForTokenClassification,
    MetaMAEModel,
)
from hf_maskssl.models.dabs_objectives import num_corrupted_tokens
from hf_maskssl.models.tokenized_input import TokenizedInput

INPUTS = ("input_ids", "input_values", "pixel_values", "attention_mask", "observed_mask")
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "emix": [{}, {"dabs_as_released": True, "dabs_temperature": 0.5}],
    "shed": [{}, {"dabs_as_released": True, "corruption_rate": 0.1}],
    "capri": [
        {},
        {"dabs_as_released": True, "capri_normalize": True},
        {"capri_negatives": "batch", "capri_normalize": True},
        {"capri_negatives": "batch", "dabs_as_released": True},
    ],
    "mae": [{}, {"dabs_as_released": True}],
}
RUNS = [(case, changes) for case in CASES for changes in VARIANTS[case.split("-")[0]]]


# ---- the formulas, slowly ------------------------------------------------------------------------------------------


class Slow:
    """A batch of a model, token by token; its encoder is a black box that reads embeddings."""

    def __init__(self, model: MetaMAEForPretraining, batch: dict[str, torch.Tensor], draws: dict) -> None:
        self.model, self.config, self.draws = model, model.config, draws
        self.tokens: TokenizedInput = model.metamae.embeddings.tokenize(**(dict.fromkeys(INPUTS) | batch))
        self.batch_size, self.length = self.tokens.shape
        mask = self.tokens.attention_mask
        self.real = [
            [place for place in range(self.length) if mask is None or mask[row, place]]
            for row in range(self.batch_size)
        ]
        self.num_patches = 0 if self.tokens.patches is None else self.tokens.patches.shape[1]
        embeddings = model.metamae.embeddings
        rows = []
        for row in range(self.batch_size):
            own = []
            for place in range(self.length):
                counts = model.config.category_counts or [0] * self.num_patches
                if place < self.num_patches and counts[place]:
                    number = sum(counts[:place]) + int(self.tokens.patches[row, place, 0])
                    own.append(embeddings.category_embeddings.weight[number])
                elif place < self.num_patches:
                    projection = embeddings.patch_projection
                    own.append(projection.weight @ self.tokens.patches[row, place] + projection.bias)
                else:
                    own.append(embeddings.token_embeddings.weight[self.tokens.ids[row, place - self.num_patches]])
            rows.append(own)
        self.embedded: list[list[torch.Tensor]] = rows

    def encode(self, embedded: list[list[torch.Tensor]]) -> torch.Tensor:
        """(B, N, D), without the class token."""
        stacked = torch.stack([torch.stack(row) for row in embedded])
        return self.model.metamae(tokens=self.tokens, embedded=stacked).last_hidden_state[:, 1:]

    def chosen(self, row: int) -> list[int]:
        """Places that are corrupted, the largest draw first."""
        rate = self.config.corruption_rate or 0.15
        count = math.ceil(rate * len(self.real[row]))
        if self.config.objective == "shed" and not self.config.dabs_as_released:
            count = max(count, 2) if len(self.real[row]) > 1 else 0
        order = sorted(self.real[row], key=lambda place: -self.draws["noise"][row, place].item())
        return order[:count]

    def with_zeros(self) -> list[list[torch.Tensor]]:
        return [
            [value * 0 if place in self.chosen(row) else value for place, value in enumerate(values)]
            for row, values in enumerate(self.embedded)
        ]

    def predictor(self, values: torch.Tensor) -> torch.Tensor:
        return self.model.dabs.predictor(values)


def slow_emix(slow: Slow) -> dict[str, Any]:
    config, partners = slow.config, slow.draws["mix_partners"].tolist()
    shares = [max(share, 1 - share) for share in slow.draws["mix_noise"].tolist()]
    mixed = []
    for row, (partner, share) in enumerate(zip(partners, shares, strict=True)):
        both = set(slow.real[row]) & set(slow.real[partner])
        mixed.append(
            [
                share * value + (1 - share) * slow.embedded[partner][place].detach() if place in both else value
                for place, value in enumerate(slow.embedded[row])
            ]
        )
    projected = []
    for states in (slow.encode(mixed), slow.encode(slow.embedded)):
        pooled = torch.stack([states[row, slow.real[row]].mean(0) for row in range(slow.batch_size)])
        centred = pooled - pooled.mean(-1, keepdim=True)
        scaled = centred / (pooled.var(-1, unbiased=False, keepdim=True) + config.layer_norm_eps).sqrt()
        norm = slow.model.dabs.norm
        projected.append(slow.predictor(scaled * norm.weight + norm.bias))
    temperature = config.dabs_temperature or 0.2
    own, other, right = [], [], 0
    for row, query in enumerate(projected[0]):
        values = torch.stack([F.cosine_similarity(query, key, dim=0) / temperature for key in projected[1]])
        logs = values - values.exp().sum().log()
        own.append(-logs[row])
        other.append(-logs[partners[row]])
        right += int(values.argmax() == row)
    if config.dabs_as_released:
        mean = sum(shares) / len(shares)
        loss = mean * sum(own) / len(own) + (1 - mean) * sum(other) / len(other)
    else:
        loss = sum(s * a + (1 - s) * b for s, a, b in zip(shares, own, other, strict=True)) / len(own)
    return {"contrastive": loss, "accuracy": right / len(own)}


def slow_shed(slow: Slow) -> dict[str, Any]:
    moved, is_moved = [], torch.zeros(slow.batch_size, slow.length)
    for row, values in enumerate(slow.embedded):
        order, shuffled = slow.chosen(row), list(values)
        for number, place in enumerate(order):
            shuffled[place] = values[order[number - 1]]  # of the first, the last
            is_moved[row, place] = 1
        moved.append(shuffled)
    states = slow.encode(moved)
    losses, right = [], []
    for row in range(slow.batch_size):
        for place in slow.real[row]:
            logits, label = slow.predictor(states[row, place]), int(is_moved[row, place])
            losses.append(logits.exp().sum().log() - logits[label])
            right.append(float(logits.argmax() == label))
    return {"detection": sum(losses) / len(losses), "accuracy": sum(right) / len(right), "mask": is_moved}


def slow_capri(slow: Slow) -> dict[str, Any]:
    config = slow.config
    states = slow.encode(slow.with_zeros())
    predictions = {(r, p): slow.predictor(states[r, p]) for r in range(slow.batch_size) for p in slow.real[r]}
    targets = {(r, p): slow.embedded[r][p] for r, p in predictions}
    if config.capri_normalize:
        predictions = {key: value / value.norm() for key, value in predictions.items()}
        targets = {key: value / value.norm() for key, value in targets.items()}
    masked = [(row, place) for row in range(slow.batch_size) for place in sorted(slow.chosen(row))]
    is_batch, temperature = config.capri_negatives == "batch", config.dabs_temperature or 0.07
    losses, surely, perhaps = [], [], []  # equal embeddings tie: of the same id, of a table's numbers
    scores_all = config.dabs_as_released and not is_batch
    for key in list(predictions) if scores_all else masked:
        candidates = masked if is_batch else [(key[0], place) for place in slow.real[key[0]]]
        rows = torch.stack([predictions[key] @ targets[other] for other in candidates]) / temperature
        columns = torch.stack([predictions[other] @ targets[key] for other in candidates]) / temperature
        values = columns if scores_all else rows
        losses.append(values.exp().sum().log() - values[candidates.index(key)])
        own = candidates.index(key)
        best_other = max([value for place, value in enumerate(rows.tolist()) if place != own], default=-math.inf)
        surely.append(float(rows[own] > best_other + 1e-9))
        perhaps.append(float(rows[own] > best_other - 1e-9))
    between = (sum(surely) / len(losses), sum(perhaps) / len(losses))
    return {"contrastive": sum(losses) / len(losses), "accuracy": between, "mask": as_mask(slow)}


def slow_mae(slow: Slow) -> dict[str, Any]:
    states = slow.encode(slow.with_zeros())
    errors: dict[str, list[torch.Tensor]] = {"patches": [], "tokens": []}
    for row in range(slow.batch_size):
        for place in slow.chosen(row):
            if place < slow.num_patches:
                error = slow.predictor(states[row, place].clamp(min=0)) - slow.tokens.patches[row, place]
                if slow.tokens.observed is not None:
                    error = error[slow.tokens.observed[row, place]]
                square = error.pow(2)
                errors["patches"].append(square.sum().sqrt() if slow.config.dabs_as_released else square.mean())
            else:
                logits = slow.model.metamae.embeddings.token_embeddings.weight @ states[row, place]
                word = slow.tokens.ids[row, place - slow.num_patches]
                errors["tokens"].append(logits.exp().sum().log() - logits[word])
    means = [sum(values) / len(values) for values in errors.values() if values]
    return {"reconstruction": sum(means) / len(means), "mask": as_mask(slow)}


def as_mask(slow: Slow) -> torch.Tensor:
    mask = torch.zeros(slow.batch_size, slow.length)
    for row in range(slow.batch_size):
        mask[row, slow.chosen(row)] = 1
    return mask


SLOW = {"emix": slow_emix, "shed": slow_shed, "capri": slow_capri, "mae": slow_mae}


@pytest.mark.parametrize(("case", "changes"), RUNS)
def test_loss_and_gradients_are_those_of_the_formula(case: str, changes: dict[str, Any]) -> None:
    model = small_model(case, **changes).double().train()
    batch, draws = to_double(make_batch(case)), to_double(make_draws(case))
    output = model(**batch, **draws)
    output.loss.backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters()}
    assert all(value.any() for name, value in found.items() if "predictor.bias" not in name)
    model.zero_grad()
    expected = SLOW[model.config.objective](Slow(model, batch, draws))
    loss = next(iter(expected.values()))
    torch.testing.assert_close(output.loss, loss)
    for name, value in expected.items():
        if name == "mask":
            assert torch.equal(output.mask, value.long())
        else:
            low, high = value if isinstance(value, tuple) else (float(value), float(value))
            assert low - 1e-9 <= output.loss_parts[name].item() <= high + 1e-9
    loss.backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize("case", ["emix-padded_tokens", "shed-image", "capri-holed_series", "mae-vision_language"])
@pytest.mark.parametrize("changes", [{}, BACKBONE | {"dabs_as_released": True}])
def test_gradients_are_finite_differences(case: str, changes: dict[str, Any]) -> None:
    model, batch, draws = small_model(case, **changes).double(), to_double(make_batch(case)), make_draws(case)
    if case.startswith("emix"):  # what is mixed in is detached, so slopes along the embeddings are not the gradient's
        model.metamae.embeddings.token_embeddings.requires_grad_(False)
        model.requires_grad_(False)
        model.dabs.requires_grad_(True)
        model.metamae.layers.requires_grad_(True)
    inputs = batch | to_double(draws)
    model(**inputs).loss.backward()
    if case.startswith("emix"):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        check_slopes(Trained(model), inputs)
    else:
        check_slopes(model, inputs)


class Trained:
    """A model of which only the parameters that have a gradient move."""

    def __init__(self, model: MetaMAEForPretraining) -> None:
        self.model = model

    def __call__(self, **inputs: torch.Tensor) -> Any:
        return self.model(**inputs)

    def parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


# ---- what must not matter ------------------------------------------------------------------------------------------

LOSSES = ["contrastive", "detection", "reconstruction"]
objectives = st.sampled_from(dabs_cases.OBJECTIVES)


@settings(max_examples=15, deadline=None)
@given(objective=objectives, seed=st.integers(0, 1000), released=st.booleans())
def test_the_order_of_the_batch_does_not_matter(objective: str, seed: int, released: bool) -> None:
    case = f"{objective}-padded_tokens"
    model = small_model(case, dabs_as_released=released).eval()
    batch, draws = make_batch(case, 5, seed), make_draws(case, 5, seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    moved = {name: value[order] for name, value in (batch | draws).items()}
    if objective == "emix":
        moved["mix_partners"] = order.argsort()[moved["mix_partners"]]
    with torch.no_grad():
        torch.testing.assert_close(model(**moved).loss, model(**batch, **draws).loss)


@settings(max_examples=15, deadline=None)
@given(objective=objectives, seed=st.integers(0, 1000), more=st.integers(0, 3), negatives=st.booleans())
def test_padding_does_not_matter(objective: str, seed: int, more: int, negatives: bool) -> None:
    """Neither its content nor its length."""
    case = f"{objective}-tokens"
    fields = {"max_position_embeddings": 12, "capri_negatives": "batch" if negatives else "sequence"}
    model = small_model(case, **fields).eval()
    generator = torch.Generator().manual_seed(seed)
    ids, noise = torch.randint(0, 7, (4, 9), generator=generator), torch.rand(4, 9, generator=generator)
    mask = (torch.arange(9) < torch.tensor([[9], [7], [2], [5]])).long()
    draws = make_draws(case, seed=seed) if objective == "emix" else {"noise": noise}
    longer = F.pad(torch.where(mask.bool(), ids, 6 - ids), (0, more), value=3)
    changed = draws if objective == "emix" else {"noise": F.pad(noise, (0, more), value=0.99)}
    with torch.no_grad():
        first = model(input_ids=ids, attention_mask=mask, **draws)
        second = model(input_ids=longer, attention_mask=F.pad(mask, (0, more)), **changed)
    torch.testing.assert_close(first.loss, second.loss)
    if objective != "emix":
        assert torch.equal(F.pad(first.mask, (0, more)), second.mask)
        assert not (first.mask & (1 - mask)).any()


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 200), rate=st.floats(0.01, 0.99), objective=st.sampled_from(["shed", "capri", "mae"]))
def test_the_corrupted_share_is_rounded_up(length: int, rate: float, objective: str) -> None:
    fields = {"modality": "tokens", "vocab_size": 4, "max_position_embeddings": 200, "corruption_rate": rate}
    plain = MetaMAEConfig(objective=objective, **fields)
    released = MetaMAEConfig(objective=objective, dabs_as_released=True, **fields)
    assert num_corrupted_tokens(length, released) == math.ceil(length * rate)
    if objective == "shed":  # a token alone has no other place to go to
        assert num_corrupted_tokens(length, plain) == (max(2, math.ceil(length * rate)) if length > 1 else 0)
    else:
        assert num_corrupted_tokens(length, plain) == num_corrupted_tokens(length, released)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("emix")])
def test_shuffled_tokens_move_and_masked_ones_are_not_read(case: str) -> None:
    model, seen = small_model(case).eval(), []
    encoder = model.metamae
    hook = encoder.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    output = model(**make_batch(case), **make_draws(case))
    hook.remove()
    before = encoder.embeddings(seen[0]["tokens"], place=False)
    after, is_corrupted = seen[0]["embedded"], output.mask.bool()
    assert torch.equal(after[~is_corrupted], before[~is_corrupted]) and is_corrupted.any()
    if not case.startswith("shed"):
        assert not after[is_corrupted].any()
        return
    for row in range(len(after)):
        own = before[row, is_corrupted[row]]
        moved = after[row, is_corrupted[row]]
        assert torch.equal(own.sum(1).sort().values, moved.sum(1).sort().values)  # the same embeddings, elsewhere


# ---- as a model ----------------------------------------------------------------------------------------------------


class TestDABSObjectives(ClassifierBehaviours):
    kit = dabs_cases
    encoder_class = MetaMAEModel
    sequence_classifier, token_classifier = MetaMAEForSequenceClassification, MetaMAEForTokenClassification
    token_cases = ["emix-padded_tokens"]
    cases = shapes = ["emix-padded_tokens", "shed-image", "capri-series", "mae-vision_language"]
    anew = ("emix-image", BACKBONE)
    variants = [
        ("capri-padded_tokens", {"capri_negatives": "batch"}),
        ("capri-padded_tokens", {"dabs_as_released": True}),
        ("mae-image", {**BACKBONE, "dabs_as_released": True}),
        ("shed-holed_series", {"masking": "span"}),
    ]
    impossible = [
        ({"objective": "simclr"}, "objective"),
        ({"objective": "shed", "corruption_rate": 1.0}, "corruption_rate"),
        ({"objective": "emix", "dabs_temperature": 0.0}, "dabs_temperature"),
        ({"objective": "shed", "image_size": 4, "patch_size": 4}, "shuffles tokens, got 1"),
        ({"head_dim": 0}, "head_dim"),
    ]
    bad_inputs = [("shed-image", {"input_ids": torch.zeros(2, 3, dtype=torch.int64)}, "takes pixel_values")]
    bad_draws = [
        ("shed-image", {"noise": torch.rand(4, 5)}, r"`noise` must .* the shape \(4, 4\)"),
        ("shed-image", {"is_masked": torch.ones(4, 4)}, "objective 'shed' masks nothing"),
        ("emix-padded_tokens", {"is_masked": torch.ones(4, 9)}, "objective 'emix' masks nothing"),
        ("emix-padded_tokens", {"mix_noise": torch.rand(3)}, r"`mix_noise` must .* the shape \(4,\)"),
        ("emix-padded_tokens", {"mix_partners": torch.tensor([0, 1, 2, 2])}, "must be a permutation"),
        ("capri-series", {"is_masked": torch.ones(4, 6)}, "hides every token in rows"),
    ]

    def is_token(self, encoder: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        tokens = encoder.embeddings.tokenize(**(dict.fromkeys(INPUTS) | batch))
        real = torch.ones(tokens.shape) if tokens.attention_mask is None else tokens.attention_mask
        return torch.nn.functional.pad(real.bool(), (1, 0))


@pytest.mark.parametrize("objective", dabs_cases.OBJECTIVES)
def test_dabs_encoder_by_configuration(objective: str, tmp_path: Any) -> None:
    """Learned positions, wide heads, no final norm, the class token pooled: saved, opened as encoder and as classifier."""
    model = small_model(f"{objective}-image", **BACKBONE).eval()
    layer = model.metamae.layers[0].attention
    assert layer.qkv.weight.shape == (3 * 2 * 6, 16) and layer.output.weight.shape == (16, 12)
    model.save_pretrained(tmp_path)
    encoder, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    batch = make_batch(f"{objective}-image")
    states = encoder(**batch)
    torch.testing.assert_close(states.pooler_output, states.last_hidden_state.mean(1))
    torch.testing.assert_close(states.last_hidden_state, model.metamae(**batch).last_hidden_state)
    _, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True, num_labels=2)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"} and not info["unexpected_keys"]


def test_learned_positions_and_metamae_go_together() -> None:
    model = small_model("emix-image", objective="metamae", **BACKBONE)
    model(**make_batch("emix-image")).loss.backward()
    assert model.metamae.embeddings.learned_positions.grad.any(1).all()


@pytest.mark.parametrize("objective", ["capri", "mae"])
def test_a_mask_of_the_caller_is_the_mask(objective: str) -> None:
    case = f"{objective}-padded_tokens"
    batch = make_batch(case)
    is_masked = torch.zeros(4, 9, dtype=torch.int64)
    is_masked[:, 1] = is_masked[0, 5] = is_masked[3, 8] = 1
    output = small_model(case)(**batch, is_masked=is_masked)
    assert torch.equal(output.mask, is_masked * batch["attention_mask"])


def test_default_rates_and_temperatures_are_those_of_dabs() -> None:
    fields = {"image_size": 8, "mask_ratio": 0.75}
    rates = {name: MetaMAEConfig(objective=name, **fields).share_corrupted for name in ("shed", "capri", "mae")}
    assert rates == {"shed": 0.15, "capri": 0.15, "mae": 0.75}
    temperatures = [MetaMAEConfig(objective=name, **fields).dabs_temperature_or_default for name in ("emix", "capri")]
    assert temperatures == [0.2, 0.07]

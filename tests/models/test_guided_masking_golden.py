"""The guided mask against the authors' own, given their attention scores and their draws: all 14 reference cases."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_maskssl.models.configuration_sma import SMAConfig
from hf_maskssl.models.guided_masking import attention_received
from hf_maskssl.models.masking import mask_top_scores
from hf_maskssl.models.modeling_sma import ChosenQueries, SMAForMaskedModeling

CASES = range(14)
HEADS = {"mean": "mean", "random_mix": "random"}


class Case:
    """One reference case, its draws as this package takes them."""

    def __init__(self, golden: dict[str, Any], number: int) -> None:
        self.about = golden["case"]["cases"][number]
        tensors = {
            name.removeprefix(f"case{number}."): value
            for name, value in golden.items()
            if name.startswith(f"case{number}.")
        }
        self.options = {"varying_length": True, "head_aggregation": "mean", **self.about["transform_args"]}
        self.scores = tensors["input.scores"]
        self.batch_size, self.num_heads, self.num_queries, self.num_tokens = self.scores.shape
        self.attention_mask = tensors["input.attention_mask"]
        self.is_real = self.attention_mask.bool()
        self.lengths = self.is_real.sum(1)
        self.counts = torch.tensor(self.about["masked"])
        self.keep_mask, self.loss_mask = tensors["out.keep_mask"].bool(), tensors["out.loss_mask"].bool()
        draws = [tensors[f"draw.{place}"] for place in range(self.about["draws"])]
        self.query_heads = None
        if self.options["head_aggregation"] == "random_mix":
            self.query_heads = draws.pop(0).view(self.batch_size, self.num_queries)
        self.query_mask = self._query_mask(draws[: self.batch_size])
        self.permutations = draws[self.batch_size :]

    @property
    def is_cross(self) -> bool:
        return self.about["attention"] == "cross"

    def _query_mask(self, permutations: list[torch.Tensor]) -> torch.Tensor:
        """The first entries of the authors' permutations; how many is in the fact sheet."""
        lengths = self.lengths.float()
        if self.is_cross or not self.options["varying_length"]:
            lengths = torch.full((self.batch_size,), float(self.num_tokens))
        sizes = (lengths * self.options["masking_ratio"] / self.options["num_per_query"]).round().long().tolist()
        chosen = torch.zeros(self.batch_size, self.num_queries, dtype=torch.bool)
        for sample, (permutation, size) in enumerate(zip(permutations, sizes, strict=True)):
            assert size > 0
            chosen[sample, permutation[:size]] = True
        return chosen

    def received(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Attention that the tokens receive from the queries `ids` (B, R): the products are the given scores."""
        rows = ids[:, None, :, None].expand(-1, self.num_heads, -1, self.num_tokens)
        identity = torch.eye(self.num_tokens).expand(self.batch_size, -1, -1)
        return attention_received(self.scores.gather(2, rows), identity, weights, self.is_real)

    def noise(self, order: torch.Tensor) -> torch.Tensor:
        """Draws whose largest are the authors' choice: `order` (B, N) lists the positions their permutations run
        over."""
        noise = torch.zeros(self.batch_size, self.num_tokens)
        for sample, permutation in enumerate(self.permutations):
            places = order[sample][permutation]
            noise[sample, places] = 1 - torch.arange(len(places)) / self.num_tokens
        return noise


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, shared_golden: Any) -> Case:
    return Case(shared_golden("sma_masking"), request.param)


def all_queries(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Every query, those outside R without weight."""
    ids = torch.arange(case.num_queries).expand(case.batch_size, -1)
    weights = case.query_mask[:, None].expand(-1, case.num_heads, -1) / case.num_heads
    if case.query_heads is not None:
        one_head = torch.nn.functional.one_hot(case.query_heads, case.num_heads).transpose(1, 2)
        weights = weights * case.num_heads * one_head
    return ids, weights


def guided_part(case: Case) -> torch.Tensor:
    """How many tokens the attention chooses in the mixed schedule."""
    share = 1 - case.options["select_initial_ratio"] * case.about["noise_scale"]
    return (case.options["masking_ratio"] * share * case.lengths).round().long()


def draws_of(case: Case, received: torch.Tensor) -> torch.Tensor | None:
    """The schedule's random draws, in the order of what the authors permuted."""
    if not case.permutations:
        return None
    if not case.options["varying_length"]:  # the best-attended tokens, best first
        return case.noise(received.argsort(dim=1, descending=True))
    others = ~mask_top_scores(received, guided_part(case), case.num_tokens, case.is_real) & case.is_real
    return case.noise((~others).to(torch.int8).argsort(dim=1, stable=True))


def test_primitives_give_the_authors_mask(case: Case) -> None:
    received = case.received(*all_queries(case))
    if case.options.get("mask_self"):
        received = received.masked_fill(case.query_mask, case.num_heads)
    noise = draws_of(case, received)
    if noise is None:
        is_masked = mask_top_scores(received, case.counts, int(case.counts.max()), case.is_real)
    elif case.options["varying_length"]:
        guided = guided_part(case)
        by_attention = mask_top_scores(received, guided, int(guided.max()), case.is_real)
        others = noise.masked_fill(by_attention, -1.0)
        is_masked = by_attention | mask_top_scores(others, case.counts - guided, case.num_tokens, case.is_real)
    else:
        ratio, start = case.options["masking_ratio"], case.options["select_initial_ratio"]
        num_candidates = round(case.num_tokens * (ratio + (start - ratio) * case.about["noise_scale"]))
        candidates = mask_top_scores(received, num_candidates, num_candidates)
        is_masked = mask_top_scores(noise.masked_fill(~candidates, -1.0), case.counts, int(case.counts.max()))
    assert torch.equal(case.is_real & ~is_masked, case.keep_mask)
    is_scored = is_masked if case.options.get("exclude_seen_reconstruction", True) else case.is_real
    assert torch.equal(is_scored, case.loss_mask)


def make_model(case: Case, monkeypatch: pytest.MonkeyPatch) -> SMAForMaskedModeling:
    """A model whose first layer's attention is the case's."""
    fields: dict[str, Any] = {}
    if case.permutations:
        fields["mask_schedule"] = "mix" if case.options["varying_length"] else "widen"
        fields["mask_schedule_start"] = case.options["select_initial_ratio"]
    config = SMAConfig(
        vocab_size=5,
        max_position_embeddings=case.num_tokens,
        encoder_type="cross_attention" if case.is_cross else "self_attention",
        num_latents=case.num_queries,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=case.num_heads,
        mask_ratio=case.options["masking_ratio"],
        num_masked_per_query=case.options["num_per_query"],
        head_aggregation=HEADS[case.options["head_aggregation"]],
        mask_queries=case.options.get("mask_self", False),
        **fields,
    )
    model = SMAForMaskedModeling(config)
    model.random_share.fill_(case.about["noise_scale"])

    def attention_to_inputs(tokens: Any, chosen: ChosenQueries, per_query: bool = False) -> torch.Tensor:
        return case.received(chosen.ids, chosen.weights)

    monkeypatch.setattr(model.sma, "attention_to_inputs", attention_to_inputs)
    return model


def test_model_gives_the_authors_mask(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what stands around the primitives: counts, the set R, heads and schedule."""
    model = make_model(case, monkeypatch)
    noise = draws_of(case, case.received(*all_queries(case)))
    is_masked = model.sample_mask(
        torch.zeros(case.batch_size, case.num_tokens, dtype=torch.int64),
        attention_mask=case.attention_mask,
        query_mask=case.query_mask,
        query_heads=case.query_heads,
        noise=noise,
    )
    theirs = case.is_real & ~case.keep_mask
    if case.permutations and case.options["varying_length"]:
        # Their two parts are rounded apart and may sum to one token more; ours always mask N r.
        assert not (is_masked & ~theirs).any()
        assert set((theirs.sum(1) - is_masked.sum(1)).tolist()) <= {0, 1}
        assert is_masked.sum(1).tolist() == [round(case.options["masking_ratio"] * n) for n in case.lengths.tolist()]
    else:
        assert torch.equal(is_masked, theirs)


def test_every_case_is_tested() -> None:
    root = Path(os.environ.get("HF_MASKSSL_SHARED", Path(__file__).resolve().parents[3] / "shared"))
    path = root / "golden" / "sma_masking.json"
    if not path.exists():
        pytest.skip("the reference vectors are not here")
    assert len(json.loads(path.read_text())["cases"]) == len(CASES)

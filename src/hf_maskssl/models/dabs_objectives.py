"""The objectives of DABS on an encoder of any modality: e-Mix, ShED, Capri and MAE.

e-Mix and ShED: Tamkin et al. 2021, DABS (https://arxiv.org/abs/2111.12062). Capri and MAE: Tamkin et al. 2022, DABS 2.0. They are
the baselines of MetaMAE's tables (Jang et al. 2023, section 3.1). All four corrupt embedded tokens before positions are added:
e-Mix mixes each sample with another, ShED moves some tokens of a sample to each other's places, Capri and MAE set some to zero.

Where the released code of DABS computes something else than the papers write, `config.dabs_as_released` chooses the code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_metamae import MetaMAEConfig
from .distributed import all_gather, mean_over_scored, rank, world_size
from .input_checks import check_draw, check_explicit_mask, values_are_readable
from .layers import at_least_float32, squared_error
from .masking import gather_tokens
from .tokenized_input import TokenizedInput

# Embedded tokens (B, N, D), before positions -> the encoder's output.
Encode = Callable[[torch.Tensor], BaseModelOutputWithPooling]


@dataclass
class Corruption:
    """The tokens of a batch that are corrupted.

    Attributes:
        order: (B, N) int64, positions with the largest draws first; padding comes last.
        count: (B, 1) int64, the number of corrupted tokens of each row, which are the first ones in `order`.
        limit: The largest number that a row of this batch may have, known without looking at the device.
        limit_anywhere: The same for batches of any length.
        is_corrupted: (B, N) bool, True = corrupted; never padding.
    """

    order: torch.Tensor
    count: torch.Tensor
    limit: int
    limit_anywhere: int
    is_corrupted: torch.Tensor


@dataclass
class DABSInput:
    """The input of an objective.

    Attributes:
        tokens: The checked batch.
        embedded: (B, N, D), its tokens' embeddings before positions.
        token_table: (V, D), the embedding of every id; None without tokens.
        encode: The encoder, from embedded tokens on.
        scores: (B, N), draws that order the tokens for corruption.
        is_masked: (B, N) of the caller, nonzero = corrupted, in place of what the scores say; None leaves it to them.
        mix_noise: (B,) uniform draws, shares of e-Mix; drawn when absent.
        mix_partners: (B,) int64, a permutation of the batch for e-Mix; drawn when absent.
    """

    tokens: TokenizedInput
    embedded: torch.Tensor
    token_table: torch.Tensor | None
    encode: Encode
    scores: torch.Tensor
    is_masked: torch.Tensor | None = None
    mix_noise: torch.Tensor | None = None
    mix_partners: torch.Tensor | None = None

    @property
    def is_real(self) -> torch.Tensor:
        """(B, N) bool, False on padding."""
        is_real = self.tokens.is_real
        return torch.ones_like(self.scores, dtype=torch.bool) if is_real is None else is_real


@dataclass
class DABSResult:
    """The result of an objective; its attributes are those of the model's output.

    Attributes:
        parts: Name -> scalar. The first is the loss.
        encoded: The encoder's output for what it read; with e-Mix for the samples themselves.
        corruption: Corrupted tokens; None with e-Mix.
        patch_predictions, token_logits: Predictions of MAE, (B, N_patches, P) and (B, N_tokens, V).
        detection_logits: (B, N, 2) of ShED.
        predicted_embeddings: (B, N, D) of Capri.
        projections, mixed_projections: (B, projector_output_size) of e-Mix.
    """

    parts: dict[str, torch.Tensor]
    encoded: BaseModelOutputWithPooling
    corruption: Corruption | None = None
    patch_predictions: torch.Tensor | None = None
    token_logits: torch.Tensor | None = None
    detection_logits: torch.Tensor | None = None
    predicted_embeddings: torch.Tensor | None = None
    projections: torch.Tensor | None = None
    mixed_projections: torch.Tensor | None = None


def num_corrupted_tokens(num_tokens: int, config: MetaMAEConfig) -> int:
    """Corrupted tokens of a sample with `num_tokens` real ones: `ceil(num_tokens * rate)` in double precision, as DABS has it.

    A single token cannot change its place: ShED moves at least two where there are two, but for `dabs_as_released`, which then
    calls a token moved that is where it was.
    """
    count = min(math.ceil(num_tokens * config.share_corrupted), num_tokens)
    if config.objective == "shed" and not config.dabs_as_released:
        return max(count, 2) if num_tokens > 1 else 0
    return count


def corrupted_token_table(config: MetaMAEConfig) -> torch.Tensor:
    """(num_tokens + 1,) int64: `num_corrupted_tokens(n)` for every n, to look up without leaving the device."""
    counts = [num_corrupted_tokens(number, config) for number in range(config.num_tokens + 1)]
    return torch.tensor(counts, dtype=torch.int64)


def corrupted_tokens(given: DABSInput, counts: torch.Tensor, config: MetaMAEConfig) -> Corruption:
    """The tokens with the largest draws, the same share of every sample's real tokens; or those that the caller chose.

    Args:
        given: The batch.
        counts: `corrupted_token_table`, on the same device.
        config: Configuration of the model.

    Raises:
        ValueError: A mask of another shape, or one that hides all.
    """
    num_tokens = given.scores.shape[1]
    if given.is_masked is not None:
        is_corrupted = check_explicit_mask(given.is_masked, given.tokens.shape, given.tokens.is_real)
        order = is_corrupted.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        return Corruption(order, is_corrupted.sum(1, keepdim=True), num_tokens, config.num_tokens, is_corrupted)
    lowest = -torch.inf if given.scores.is_floating_point() else torch.iinfo(given.scores.dtype).min
    order = given.scores.masked_fill(~given.is_real, lowest).argsort(dim=1, descending=True, stable=True)
    count = counts[given.is_real.sum(1)][:, None]
    is_first = torch.arange(num_tokens, device=order.device) < count
    is_corrupted = torch.zeros_like(is_first).scatter(1, order, is_first)
    limit, limit_anywhere = (num_corrupted_tokens(number, config) for number in (num_tokens, config.num_tokens))
    return Corruption(order, count, limit, limit_anywhere, is_corrupted)


def token_states(encoded: BaseModelOutputWithPooling) -> torch.Tensor:
    """(B, N, D): the encoder's states without that of the class token."""
    assert encoded.last_hidden_state is not None  # optional in transformers' class
    return encoded.last_hidden_state[:, 1:]


def pooled_states(encoded: BaseModelOutputWithPooling) -> torch.Tensor:
    """(B, D): the encoder's pooled state of each sample."""
    assert encoded.pooler_output is not None
    return encoded.pooler_output


def rolled_sources(corruption: Corruption) -> torch.Tensor:
    """(B, N) int64: the position whose embedding each token gets. A corrupted token gets that of the one before it in `order`.

    A cycle through all of them: no token stays where it was. Other derangements are not drawn.
    """
    rank = torch.arange(corruption.order.shape[1], device=corruption.order.device)
    before = torch.where(rank == 0, corruption.count - 1, rank - 1).clamp(min=0)
    before = torch.where(rank < corruption.count, before, rank)
    return torch.empty_like(corruption.order).scatter(1, corruption.order, corruption.order.gather(1, before))


class DABSObjective(nn.Module):
    """One of the four objectives: `config.objective` is "emix", "shed", "capri" or "mae"."""

    counts: torch.Tensor

    def __init__(self, config: MetaMAEConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.norm: nn.LayerNorm | None = None
        self.predictor: nn.Linear | None = None
        if config.objective == "emix":
            self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
            self.predictor = nn.Linear(width, config.projector_output_size)
        elif config.objective == "shed":
            self.predictor = nn.Linear(width, 2)
        elif config.objective == "capri":
            self.predictor = nn.Linear(width, width)
        elif config.has_patches:  # words are read off by the table of the embeddings
            self.predictor = nn.Linear(width, math.prod(config.patch_shape) * config.num_channels)
        self.register_buffer("counts", corrupted_token_table(config), persistent=False)

    def forward(self, given: DABSInput) -> DABSResult:
        """Corrupt, encode, predict or compare.

        Raises:
            ValueError: A draw has another shape, or there is a mask for an objective that has none.
        """
        if self.config.objective in ("emix", "shed") and given.is_masked is not None:
            raise ValueError(
                f"objective '{self.config.objective}' masks nothing: leave `is_masked` out (objectives 'mae', 'capri' and "
                "'metamae' take it)."
            )
        steps = {"emix": self._mix, "shed": self._shuffle, "capri": self._contrast, "mae": self._reconstruct}
        return steps[self.config.objective](given)

    def _predict(self, states: torch.Tensor) -> torch.Tensor:
        assert self.predictor is not None  # MAE on tokens alone has none
        return self.predictor(states)

    def _similarities(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return queries @ keys.transpose(-1, -2) / self.config.dabs_temperature_or_default

    # e-Mix

    def _mix(self, given: DABSInput) -> DABSResult:
        """Mixup of embedded samples; each mixture is matched to both of its samples among the batch (i-Mix, Lee et al. 2021).

        With lambda_b ~ Beta(1, 1), which is uniform, and lambda_b = max(lambda_b, 1 - lambda_b), sample b is mixed with the
        detached embeddings of a partner, and the loss is lambda_b CE(b) + (1 - lambda_b) CE(partner of b), where the candidates
        are the un-mixed samples of all processes. The released code weighs the mean of all CE(b) by the mean lambda, and takes
        the candidates of each process alone.
        """
        embedded, config = given.embedded, self.config
        share, partners = self._mix_draws(given)
        share = torch.maximum(share, 1 - share).to(embedded.dtype)
        other, other_is_real = embedded.detach().index_select(0, partners), given.is_real.index_select(0, partners)
        weight = share[:, None, None]
        mixed = weight * embedded + (1 - weight) * other
        if given.tokens.is_real is not None:  # a token is mixed only where neither sample has padding
            mixed = torch.where((given.is_real & other_is_real).unsqueeze(-1), mixed, embedded)
        encoded_mix, encoded = given.encode(mixed), given.encode(embedded)
        projections = [self._project(pooled_states(states)) for states in (encoded_mix, encoded)]
        with torch.autocast(embedded.device.type, enabled=False):
            queries, keys = (F.normalize(values, dim=1) for values in at_least_float32(*projections))
            own = torch.arange(len(queries), device=keys.device)
            if not config.dabs_as_released:
                offset = rank() * len(keys)
                keys, own, partners = all_gather(keys), own + offset, partners + offset
            logits = self._similarities(queries, keys)
            to_own, to_partner = (F.cross_entropy(logits, places, reduction="none") for places in (own, partners))
            share = share.to(logits.dtype)
            if config.dabs_as_released:
                loss = share.mean() * to_own.mean() + (1 - share.mean()) * to_partner.mean()
            else:
                loss = (share * to_own + (1 - share) * to_partner).mean()
        accuracy = (logits.argmax(1) == own).to(loss.dtype).mean()
        parts = {"contrastive": loss, "accuracy": accuracy}
        return DABSResult(parts, encoded, projections=projections[1], mixed_projections=projections[0])

    def _project(self, pooled: torch.Tensor) -> torch.Tensor:
        assert self.norm is not None  # e-Mix has one
        return self._predict(self.norm(pooled))

    def _mix_draws(self, given: DABSInput) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares (B,) in [0, 1) and partners (B,) int64, those of the caller or new ones."""
        rows, device = given.embedded.shape[0], given.embedded.device
        share, partners = given.mix_noise, given.mix_partners
        check_draw("mix_noise", share, (rows,))
        check_draw("mix_partners", partners, (rows,))
        share = torch.rand(rows, device=device) if share is None else share
        if partners is None:
            return share, torch.rand(rows, device=device).argsort()
        if values_are_readable(partners) and sorted(partners.tolist()) != list(range(rows)):
            raise ValueError(
                f"`mix_partners` must be a permutation of the batch's rows 0 to {rows - 1}, got {partners.tolist()}."
            )
        return share, partners

    # ShED

    def _shuffle(self, given: DABSInput) -> DABSResult:
        """Shuffled embedding detection: whether a token has another token's embedding, cross entropy over all tokens."""
        corruption = corrupted_tokens(given, self.counts, self.config)
        encoded = given.encode(gather_tokens(given.embedded, rolled_sources(corruption)))
        logits = self._predict(token_states(encoded))
        (scores,) = at_least_float32(logits.transpose(1, 2))
        is_moved = corruption.is_corrupted.long()
        loss = mean_over_scored(F.cross_entropy(scores, is_moved, reduction="none"), given.is_real)
        accuracy = mean_over_scored((scores.argmax(1) == is_moved).to(loss.dtype), given.is_real)
        return DABSResult({"detection": loss, "accuracy": accuracy}, encoded, corruption, detection_logits=logits)

    # Capri

    def _contrast(self, given: DABSInput) -> DABSResult:
        """Contrastive masked prediction: the prediction at a masked token is matched to the token's embedding among others.

        The others are all tokens of its sample, or with `capri_negatives="batch"` all masked tokens of all processes.
        Embeddings are not detached. The released code scores every token of a sample, masked or not, and its softmax runs over
        the predictions: of every embedding, which prediction is its own. (Its option of a symmetric loss transposes the batch
        as well, which gives the same term twice.)
        """
        config = self.config
        corruption = corrupted_tokens(given, self.counts, config)
        encoded = given.encode(given.embedded.masked_fill(corruption.is_corrupted.unsqueeze(-1), 0.0))
        predicted = self._predict(token_states(encoded))
        with torch.autocast(predicted.device.type, enabled=False):
            predictions, targets = at_least_float32(predicted, given.embedded)
            if config.capri_normalize and not (config.capri_negatives == "batch" and config.dabs_as_released):
                predictions, targets = F.normalize(predictions, dim=-1), F.normalize(targets, dim=-1)
            if config.capri_negatives == "batch":
                loss, accuracy = self._among_batch(predictions, targets, corruption)
            elif config.dabs_as_released:
                loss, accuracy = self._among_predictions(predictions, targets, given.is_real)
            else:
                loss, accuracy = self._among_sample(predictions, targets, corruption, given.is_real)
        return DABSResult(
            {"contrastive": loss, "accuracy": accuracy}, encoded, corruption, predicted_embeddings=predicted
        )

    def _among_sample(
        self, predictions: torch.Tensor, targets: torch.Tensor, corruption: Corruption, is_real: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and accuracy of masked tokens among the tokens of their sample."""
        places, is_used = _first(corruption, corruption.limit)
        logits = self._similarities(gather_tokens(predictions, places), targets)  # (B, M, N)
        logits = logits.masked_fill(~is_real[:, None], torch.finfo(logits.dtype).min)
        loss = F.cross_entropy(logits.transpose(1, 2), places, reduction="none")
        is_right = (logits.argmax(-1) == places).to(loss.dtype)
        return mean_over_scored(loss, is_used), mean_over_scored(is_right, is_used)

    def _among_predictions(
        self, predictions: torch.Tensor, targets: torch.Tensor, is_real: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss as released: for the embedding of every token a softmax over the predictions. Accuracy is the share of predictions
        that are nearest to their own embedding."""
        logits = self._similarities(predictions, targets)  # (B, predictions, targets)
        lowest = torch.finfo(logits.dtype).min
        own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
        loss = F.cross_entropy(logits.masked_fill(~is_real.unsqueeze(-1), lowest), own, reduction="none")
        is_right = (logits.masked_fill(~is_real[:, None], lowest).argmax(-1) == own).to(loss.dtype)
        return mean_over_scored(loss, is_real), mean_over_scored(is_right, is_real)

    def _among_batch(
        self, predictions: torch.Tensor, targets: torch.Tensor, corruption: Corruption
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and accuracy of masked tokens among the masked tokens of the batch; as released, of this process's batch."""
        places, is_used = _first(corruption, corruption.limit)
        queries, keys = (gather_tokens(values, places).flatten(0, 1) for values in (predictions, targets))
        scored, is_key = is_used.flatten(), is_used.flatten()
        own = torch.arange(len(queries), device=queries.device)
        if world_size() > 1 and not self.config.dabs_as_released:
            # Batches padded to other lengths have other numbers of masked tokens; all processes must bring equally many.
            most = len(places) * corruption.limit_anywhere
            missing = most - len(keys)
            own = own + rank() * most
            keys = all_gather(F.pad(keys, (0, 0, 0, missing)))
            is_key = all_gather(F.pad(is_key.to(keys.dtype), (0, missing))) > 0
        logits = self._similarities(queries, keys).masked_fill(~is_key, torch.finfo(queries.dtype).min)
        loss = F.cross_entropy(logits, own, reduction="none")
        is_right = (logits.argmax(-1) == own).to(loss.dtype)
        if self.config.dabs_as_released:
            return _own_mean(loss, scored), _own_mean(is_right, scored)
        return mean_over_scored(loss, scored), mean_over_scored(is_right, scored)

    # MAE

    def _reconstruct(self, given: DABSInput) -> DABSResult:
        """Masked auto-encoding without a decoder: patches by ReLU and a linear layer, words by the tied embedding table.

        The discrepancy of patches is the mean squared error; the released code takes the norm of the difference, un-squared. With
        image and words the loss is the mean of both kinds'.
        """
        tokens = given.tokens
        corruption = corrupted_tokens(given, self.counts, self.config)
        encoded = given.encode(given.embedded.masked_fill(corruption.is_corrupted.unsqueeze(-1), 0.0))
        states = token_states(encoded)
        num_patches = 0 if tokens.patches is None else tokens.patches.shape[1]
        result = DABSResult({}, encoded, corruption)
        parts = {}
        if tokens.patches is not None:
            result.patch_predictions = self._predict(F.relu(states[:, :num_patches]))
            prediction, target = at_least_float32(result.patch_predictions, tokens.patches)
            error = _norm if self.config.dabs_as_released else squared_error
            discrepancy = error(prediction, target, tokens.observed)
            parts["reconstruction_patches"] = mean_over_scored(discrepancy, corruption.is_corrupted[:, :num_patches])
        if tokens.ids is not None and given.token_table is not None:
            words = states[:, num_patches:]
            result.token_logits = words @ given.token_table.to(words.dtype).T
            (logits,) = at_least_float32(result.token_logits.transpose(1, 2))
            discrepancy = F.cross_entropy(logits, tokens.ids.long(), reduction="none")
            parts["reconstruction_tokens"] = mean_over_scored(discrepancy, corruption.is_corrupted[:, num_patches:])
        result.parts = {"reconstruction": torch.stack(list(parts.values())).mean()}
        result.parts |= parts if len(parts) > 1 else {}
        return result


def _first(corruption: Corruption, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (B, M) of the corrupted tokens, and True (B, M) where there is one; rows with fewer have others to fill up."""
    places = corruption.order[:, :limit]
    return places, torch.arange(places.shape[1], device=places.device) < corruption.count


def _norm(prediction: torch.Tensor, target: torch.Tensor, observed: torch.Tensor | None) -> torch.Tensor:
    """Euclidean length of the difference over the last dimension, of the values that `observed` marks True."""
    difference = prediction - target
    if observed is not None:
        difference = difference.masked_fill(~observed, 0.0)
    return torch.linalg.vector_norm(difference, dim=-1)


def _own_mean(values: torch.Tensor, is_scored: torch.Tensor) -> torch.Tensor:
    """The mean over the scored entries of this process alone."""
    weight = is_scored.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)

"""Configuration of MetaMAE (Jang et al. 2023, https://arxiv.org/abs/2310.16318)."""

import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .field_checks import (
    SizesAsPairs,
    check_at_least,
    check_category_counts,
    check_heads,
    check_mask_schedule,
    check_partly_observed,
    check_positive,
    check_probabilities,
    check_token_id,
)
from .masking import num_visible_tokens

AUTO_MAP = {
    "AutoConfig": "configuration_metamae.MetaMAEConfig",
    "AutoModel": "modeling_metamae.MetaMAEModel",
    "AutoModelForPreTraining": "modeling_metamae.MetaMAEForPretraining",
    "AutoModelForSequenceClassification": "modeling_metamae.MetaMAEForSequenceClassification",
    "AutoModelForImageClassification": "modeling_metamae.MetaMAEForSequenceClassification",
    "AutoModelForAudioClassification": "modeling_metamae.MetaMAEForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_metamae.MetaMAEForTokenClassification",
}


@strict
class MetaMAEConfig(SizesAsPairs, PreTrainedConfig):
    """The input of MetaMAE, its size, and its pre-training objective.

    Sizes default to Table 7 of the paper. Where the paper and its authors' released code differ, the default is what produced
    the published numbers, that is the code: LayerNorm epsilon 1e-5, no bias on query/key/value, an MLP of twice the width
    (Table 7 agrees), a projector D -> 4D -> 128 with BatchNorm and ReLU after its first layer and no biases (Table 7 writes
    1028 and no activation), nearby tokens drawn one by one with probability `nearby_ratio` among the masked tokens next to a
    visible one (Algorithm 1 asks for a fixed count), an inner gradient whose support loss is divided by the batch's mean
    support size, mean squared error where Eq. 1 names the l2 norm, and support tokens kept in the outer loss.

    `objective` puts another objective on the same encoder: those of DABS, the baselines of the paper's tables
    (`dabs_objectives.py`). Fields that an objective has no use for are not read. DABS's own encoder is
    `position_embeddings="learned", head_dim=64, final_norm=False, pool_class_token=True`.

    Args:
        objective: Objective of pre-training. "metamae": the paper's. "emix": a mixture of two samples is matched to both, and
            "shed": tokens whose embeddings were shuffled are detected (DABS, Tamkin et al. 2021). "capri": the prediction at a
            masked token is matched to its embedding, and "mae": masked tokens are predicted by one linear layer (DABS 2.0, 2022).
            A MAE with the decoder below is "metamae" with `num_adaptation_steps=0, contrastive_weight=0`.
        modality: Kind of a sample.
            "tokens": `input_ids` (B, N); needs `vocab_size`, `max_position_embeddings`.
            "series": `input_values` (B, C, T), also tabular rows as (B, 1, features); needs `series_length`,
            `num_channels`, `patch_size`. "image": `pixel_values` (B, C, H, W), also spectrograms; needs `image_size`,
            `num_channels`, `patch_size`. "vision_language": image patches and tokens in one sequence; needs what both
            need.
        vocab_size: Number of token ids.
        max_position_embeddings: Longest token sequence.
        series_length: Time steps (or features) of a series, the longest when lengths differ.
        image_size: Height and width in pixels; one number for a square.
        num_channels: Channels of a series or an image.
        patch_size: Time steps of a series patch; height and width of an image patch, one number for a square.
        category_counts: Number of categories of each column of a table that holds numbers and categories, 0 for numbers; None
            for numbers alone. `input_values` then has class numbers, 0 to count - 1, in columns of categories.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: The encoder (Table 7).
        head_dim: Width of a head of the encoder; None is `hidden_size / num_attention_heads`.
        position_embeddings: Positions of the encoder. "sincos": fixed, and the class token has none. "learned": a table for the
            class token and every position.
        final_norm: Whether the encoder ends in a LayerNorm.
        pool_class_token: Whether the class token counts in the mean over tokens, `pooler_output`.
        hidden_dropout_prob: The encoder's dropout P_drop (Table 8: 0.1 for PAMAP2 and HIGGS, else 0). The decoder has
            none.
        attention_probs_dropout_prob: Dropout on attention weights; none in the paper.
        decoder_hidden_size, decoder_num_attention_heads, decoder_intermediate_size: The decoder (Table 7).
        decoder_num_hidden_layers: Decoder depth. 0 is the linear decoder of DABS (Tamkin et al. 2022): the encoder
            then reads every position, masked embeddings set to zero, and ReLU + linear (tokens: the tied embedding
            table) predicts.
        projector_hidden_size: Width of the projector's hidden layer; None is 4 * `hidden_size`.
        projector_output_size: Width of the contrasted representation, that of "emix" too.
        mask_ratio: Share of tokens hidden from the encoder, in (0, 1) (Table 8).
        masking: Choice of the hidden tokens. "random": every token alone, as in the paper. "span": runs of neighbours of
            geometric length with mean `mean_span_length`, as where a sensor drops out for a while or a block of columns is
            missing; for modality "tokens" and "series". "guided": those that the model's first layer attends to, as many as at
            random (SMA, Xie et al. 2024, Eqs. 3-5), for objectives that mask or corrupt tokens.
        num_masked_per_query: Tokens masked for each query of the first layer that "guided" masking draws.
        mask_schedule, mask_schedule_start, mask_schedule_fraction: Way from random to guided masking, as in `SMAConfig`.
        mean_span_length: Mean length of a run, in tokens.
        gap_ratio: Probability that in pre-training a channel of a series drops out for a run of tokens, as sensors do (of a
            table: a block of columns): its values there are missing, neither read nor predicted. 0 makes no gaps.
        mean_gap_length: Mean length of such a run, in tokens.
        num_adaptation_steps: Gradient steps on the latent (Table 15); 0 is plain MAE and needs `contrastive_weight=0`.
        adaptation_step_size: Step size alpha of Eq. 2.
        first_order: Whether to leave out the derivative of the inner gradient; cheaper, and worse in the paper.
        nearby_ratio: Probability r that a masked token next to a visible one joins the support set.
        contrastive_weight: Weight lambda of Eq. 5; 0 leaves the task contrastive loss and its projector out.
        contrastive_temperature: Temperature tau of Eq. 4.
        partly_observed_embedding: Whether patches of which some values are missing (`observed_mask`) get a learned embedding
            added, beside zeros in place of what is missing.
        corruption_rate: Share of tokens that "shed" shuffles and "capri" and "mae" set to zero. None is DABS's 0.15 for "shed"
            and "capri", and `mask_ratio` for "mae".
        dabs_temperature: Temperature of "emix" and "capri". None is DABS's: 0.2 and 0.07.
        dabs_as_released: Whether to compute what DABS's released code computes where it departs from the papers. "emix": the
            batch's mean mixing share weighs all samples, and each process compares within its own batch. "shed": where one
            token alone is to be shuffled, it stays and counts as shuffled. "capri": every token is scored, masked or not, and
            the softmax runs over predictions. "mae": the un-squared norm of the error, not its mean square.
        capri_negatives: Candidates of "capri": all tokens of the sample, or the masked tokens of the batch (of all processes).
        capri_normalize: Whether "capri" compares directions only. DABS does not, and reports that "capri" may diverge. Without
            effect with `capri_negatives="batch"` and `dabs_as_released`.
        initializer_range: Standard deviation of the class and mask tokens, and of learned positions (1.0 in DABS).
        classifier_dropout: Dropout in front of a classification head.

    Raises:
        ValueError: A size is missing, or does not divide as it must; or the mask ratio leaves no token visible or none masked.
    """

    model_type = "metamae"

    objective: Literal["metamae", "mae", "emix", "shed", "capri"] = "metamae"
    modality: Literal["tokens", "series", "image", "vision_language"] = "image"
    vocab_size: int | None = None
    max_position_embeddings: int | None = None
    series_length: int | None = None
    image_size: int | list[int] | tuple[int, ...] | None = None
    num_channels: int = 3
    patch_size: int | list[int] | tuple[int, ...] = 4
    pad_token_id: int | None = None
    partly_observed_embedding: bool = False
    category_counts: list[int] | None = None

    hidden_size: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    intermediate_size: int = 512
    head_dim: int | None = None
    position_embeddings: Literal["sincos", "learned"] = "sincos"
    final_norm: bool = True
    pool_class_token: bool = False
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    qkv_bias: bool = False
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    classifier_dropout: float | int = 0.0

    decoder_hidden_size: int = 128
    decoder_num_hidden_layers: int = 4
    decoder_num_attention_heads: int = 4
    decoder_intermediate_size: int = 256
    projector_hidden_size: int | None = None
    projector_output_size: int = 128

    mask_ratio: float = 0.5
    masking: Literal["random", "span", "guided"] = "random"
    num_masked_per_query: int = 4
    mask_schedule: Literal["none", "mix", "widen"] = "none"
    mask_schedule_start: float | int = 1.0
    mask_schedule_fraction: float | int = 1.0
    mean_span_length: float | int = 3.0
    gap_ratio: float | int = 0.0
    mean_gap_length: float | int = 3.0
    num_adaptation_steps: int = 1
    adaptation_step_size: float | int = 0.5
    first_order: bool = False
    nearby_ratio: float | int = 0.1
    contrastive_weight: float | int = 0.1
    contrastive_temperature: float | int = 0.5
    corruption_rate: float | None = None
    dabs_temperature: float | int | None = None
    dabs_as_released: bool = False
    capri_negatives: Literal["sequence", "batch"] = "sequence"
    capri_normalize: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.image_size is None and self.modality == "image":
            self.image_size = 32
        # Every class of a checkpoint's code can be reached from it, not only the one that was saved.
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)

    def is_pair(self, name: str) -> bool:
        return name in ("image_size", "patch_size") and self.modality in ("image", "vision_language")

    @property
    def has_patches(self) -> bool:
        return self.modality != "tokens"

    @property
    def has_tokens(self) -> bool:
        return self.modality in ("tokens", "vision_language")

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """(p,) for a series, (h, w) for an image."""
        return (self.patch_size,) if isinstance(self.patch_size, int) else tuple(self.patch_size)

    @property
    def signal_shape(self) -> tuple[int, ...]:
        """(T,) for a series, (H, W) for an image, () for tokens alone."""
        if self.modality == "series":
            return (int(self.series_length or 0),)
        if self.modality == "tokens" or self.image_size is None or isinstance(self.image_size, int):
            return ()
        return tuple(self.image_size)

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """Patches along each axis of the signal."""
        return tuple(size // patch for size, patch in zip(self.signal_shape, self.patch_shape, strict=False))

    @property
    def num_patches(self) -> int:
        """Patches of a full signal; 0 for tokens alone."""
        return math.prod(self.grid_shape) if self.has_patches else 0

    @property
    def num_tokens(self) -> int:
        """Longest sequence the encoder sees, without the class token."""
        return self.num_patches + (int(self.max_position_embeddings or 0) if self.has_tokens else 0)

    @property
    def share_corrupted(self) -> float:
        """Share of tokens that an objective of DABS corrupts."""
        if self.corruption_rate is not None:
            return self.corruption_rate
        return self.mask_ratio if self.objective == "mae" else 0.15

    @property
    def dabs_temperature_or_default(self) -> float:
        """Temperature of an objective of DABS."""
        if self.dabs_temperature is not None:
            return self.dabs_temperature
        return 0.2 if self.objective == "emix" else 0.07

    def validate_input(self) -> None:
        tokens: dict[str, object] = {
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
        }
        image: dict[str, object] = {"image_size": self.image_size, "num_channels": self.num_channels}
        needed: dict[str, dict[str, object]] = {
            "tokens": tokens,
            "series": {"series_length": self.series_length, "num_channels": self.num_channels},
            "image": image,
            "vision_language": tokens | image,
        }
        for name, value in needed[self.modality].items():
            if value is None or (isinstance(value, int) and value < 1):
                raise ValueError(f"modality='{self.modality}' needs a positive `{name}`, got {value}.")
        values = math.prod(self.patch_shape) * self.num_channels if self.has_patches else 1
        check_partly_observed(self, values)
        check_category_counts(self, math.prod(self.patch_shape))
        if not self.has_patches:
            return
        if len(self.signal_shape) != len(self.patch_shape):
            raise ValueError(
                f"`patch_size` must have one number per axis of a {self.modality}, got {self.patch_size} for "
                f"{self.signal_shape}."
            )
        for size, patch in zip(self.signal_shape, self.patch_shape, strict=True):
            if patch < 1 or size < 1 or size % patch:
                name = "series_length" if self.modality == "series" else "image_size"
                raise ValueError(
                    f"`{name}` {list(self.signal_shape)} must be a positive multiple of `patch_size` "
                    f"{list(self.patch_shape)}: {size} is not a multiple of {patch}."
                )

    def validate_numbers(self) -> None:
        check_positive(self, "layer_norm_eps", "contrastive_temperature", "dabs_temperature")
        check_at_least(self, 1, "num_channels", "patch_size", "mean_span_length", "mean_gap_length", "head_dim")
        check_at_least(self, 1, "num_masked_per_query")
        check_at_least(
            self, 0, "initializer_range", "num_adaptation_steps", "contrastive_weight", "adaptation_step_size"
        )
        check_probabilities(self, "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
        check_probabilities(self, "nearby_ratio", "gap_ratio", one_is_allowed=True)
        check_token_id(self, self.vocab_size if self.has_tokens else None, "pad_token_id")

    def validate_widths(self) -> None:
        axes = 1 if self.modality in ("tokens", "series") else 2
        for part in ("", "decoder_"):
            width = check_heads(self, f"{part}hidden_size", f"{part}num_attention_heads")
            is_learned = self.position_embeddings == "learned" and not part
            if width % (2 * axes) and not is_learned:
                raise ValueError(
                    f"`{part}hidden_size` must be a multiple of {2 * axes} for sine-cosine positions in {axes}-D, got "
                    f"{width}."
                )
        names = ("num_hidden_layers", "intermediate_size", "decoder_intermediate_size", "projector_output_size")
        check_at_least(self, 1, *names)
        if self.decoder_num_hidden_layers < 0:
            raise ValueError(
                "`decoder_num_hidden_layers` must be 0 (linear decoder) or more, got "
                f"{self.decoder_num_hidden_layers}."
            )
        if self.projector_hidden_size is not None and self.projector_hidden_size < 1:
            raise ValueError(f"`projector_hidden_size` must be at least 1 or None, got {self.projector_hidden_size}.")

    def validate_objective(self) -> None:
        for name, share in (("mask_ratio", self.mask_ratio), ("corruption_rate", self.corruption_rate)):
            if share is not None and not 0 < share < 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, both excluded, got {share}.")
        if self.masking == "span" and self.modality not in ("tokens", "series"):
            raise ValueError(f"masking='span' needs modality 'tokens' or 'series', got '{self.modality}'.")
        if self.masking == "guided" and self.objective == "emix":
            raise ValueError(
                "masking='guided' chooses tokens, but objective 'emix' mixes whole samples: leave it out."
            )
        check_mask_schedule(self, self.mask_ratio if self.objective == "metamae" else self.share_corrupted)
        if self.gap_ratio > 0 and self.modality != "series":
            raise ValueError(f"`gap_ratio` makes gaps in series, but modality is '{self.modality}': set it to 0.")
        if self.objective == "mae" and self.category_counts is not None:
            raise ValueError(
                "objective='mae' predicts numbers and words only, but `category_counts` is set: use objective 'metamae', which "
                "with num_adaptation_steps=0 and contrastive_weight=0 is a masked auto-encoder too."
            )
        if self.objective != "metamae":
            if self.objective == "shed" and self.num_tokens < 2:
                raise ValueError(f"objective='shed' shuffles tokens, got {self.num_tokens}: use smaller patches.")
            return
        if self.num_adaptation_steps == 0 and self.contrastive_weight > 0:
            raise ValueError(
                "`num_adaptation_steps=0` is plain MAE, whose amortised and adapted latents are the same: there is "
                f"nothing to contrast. Set `contrastive_weight=0` as well (it is {self.contrastive_weight})."
            )
        total = self.num_tokens
        if int(total * (1 - self.mask_ratio)) < 1 or num_visible_tokens(total, self.mask_ratio) >= total:
            raise ValueError(
                f"`mask_ratio={self.mask_ratio}` leaves {int(total * (1 - self.mask_ratio))} of {total} tokens visible; "
                "at least one must stay visible and one be masked. Change `mask_ratio`, or use smaller patches."
            )

"""Configuration of SMA, self-guided masked autoencoders (Xie et al. 2024, https://arxiv.org/abs/2402.14789)."""

import math
from typing import Any, Literal, TypeAlias

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

Sizes: TypeAlias = dict[str, int | list[int] | tuple[int, ...] | None]
AUTO_MAP = {
    "AutoConfig": "configuration_sma.SMAConfig",
    "AutoModel": "modeling_sma.SMAModel",
    "AutoModelForPreTraining": "modeling_sma.SMAForMaskedModeling",
    "AutoModelForSequenceClassification": "modeling_sma.SMAForSequenceClassification",
    "AutoModelForImageClassification": "modeling_sma.SMAForSequenceClassification",
    "AutoModelForAudioClassification": "modeling_sma.SMAForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_sma.SMAForTokenClassification",
}


@strict
class SMAConfig(SizesAsPairs, PreTrainedConfig):
    """The input of SMA, its size, and the way it chooses its masks.

    Sizes default to the chemistry model (Table 9). Tables 8 to 12 leave the width of the MLPs, the biases and the
    decoder open: there the defaults are those of the authors' released code (MLPs as wide as the hidden states, no
    biases, a decoder of one cross-attention with one head and no residual around it).

    Args:
        modality: Kind of a sample.
            "tokens": `input_ids` (B, N); needs `vocab_size`, `max_position_embeddings`.
            "series": `input_values` (B, N, C), also tabular rows as (B, features, 1); needs `series_length`,
            `num_channels`. "image": `pixel_values` (B, C, H, W), one token per pixel; needs `image_size`,
            `num_channels`.
        vocab_size: Number of token ids.
        max_position_embeddings: Longest token sequence: the rows of the learned position table. Where neither this nor
            `vocab_size` is given, they are those of the authors' chemistry model: 262 (bytes and six special ids) and 512.
        series_length: Time steps (or features) of a series, the longest when lengths differ.
        image_size: Height and width in pixels; one number for a square.
        num_channels: Values per time step or pixel (the paper's d_raw).
        partly_observed_embedding: Whether tokens of which some channels are missing (`observed_mask`) get a learned embedding
            added, beside zeros in place of what is missing.
        category_counts: Number of categories of each column of a table that holds numbers and categories, 0 for numbers; None
            for numbers alone. `input_values` then has class numbers, 0 to count - 1, in columns of categories.
        encoder_type: "self_attention": the embedded inputs are their own queries (chemistry, physics).
            "cross_attention": `num_latents` learned queries read the input once (Perceiver IO; proteins, text, images).
        num_latents: Number l of learned latents of a cross-attention encoder.
        hidden_size: Width D of the hidden states.
        embedding_size: Width E of the embedded inputs and of the position table ("embed dimension"); None is
            `hidden_size`, which a self-attention encoder needs.
        qk_channels, v_channels: Width of all heads' queries and keys, and of their values, together; None is
            `hidden_size`.
        num_hidden_layers: All layers of the encoder, the first one, which reads the input, included.
        num_layer_repeats: Number of times that the layers after the first are applied, with the same weights.
        num_attention_heads: Heads of every layer.
        num_cross_attention_heads: Heads of a cross-attention encoder's first layer; None is the same number.
        intermediate_size: Width of the MLPs; None is `hidden_size`.
        cross_intermediate_size: Width of the MLP of a cross-attention encoder's first layer; None is the same width.
        use_bias: Whether the linear layers of the attention layers and their MLPs have biases.
        drop_path_rate: Stochastic depth of the last layer, rising linearly from 0 over the layers after the first.
        layer_norm_eps: Epsilon of the norms in attention layers.
        embedding_layer_norm_eps: Epsilon of the norm of the embedded inputs and of the decoder's output.
        decoder_qk_channels, decoder_v_channels, decoder_intermediate_size: The decoder's widths; None is
            `embedding_size`.
        decoder_num_attention_heads: Heads of the decoder.
        decoder_query_residual: Whether to add the queries to the decoder's attended values.
        decoder_mask_token: Whether to add a learned vector to the queries of the predicted positions.
        decoder_shared_positions: The decoder's queries are the input's position embeddings (Eq. 6); False gives it a
            table of its own.
        tie_word_embeddings: Tokens are read off with the input embedding table.
        masking: Choice of tokens. "guided": Eqs. 3-5. "iterative": the exact procedure that Eq. 5 approximates,
            one top-k per query (appendix D). "random": every token alone. "word": whole words, the text between
            `word_delimiter_id`. "span": segments of geometric length with mean `mean_span_length`. "patch": squares
            of `mask_patch_size` pixels.
        word_delimiter_id: Token between words, for the masking "word".
        mean_span_length: Mean number of tokens of a segment, for the masking "span".
        mask_patch_size: Height and width in pixels of a square, for the masking "patch".
        mask_ratio: Share r of a sample's tokens that is masked, in (0, 1).
        num_masked_per_query: Tokens masked for each chosen query: the set R has round(N r / num_masked_per_query)
            queries, at least one and at most all.
        head_aggregation: "mean": over all heads (the sum of Eq. 5, scaled). "random": of one random head per query.
        padded_query_count: Whether the size of the set R follows from the length of the padded batch and not from a sample's
            own, as in the authors' code for cross-attention.
        mask_queries: The chosen queries' own tokens are masked first (self-attention).
        mask_schedule: Way from random to guided masking, with c falling from 1 to 0 as a half cosine over
            the first `mask_schedule_fraction` of training. "none": guided from the start. "mix": a share
            `mask_schedule_start` * c of the masked tokens is drawn at random among those the attention did not choose.
            "widen": masked tokens are drawn at random among the best-attended share r + (`mask_schedule_start` - r) c.
        mask_schedule_start: Share at random at the start of the schedules "mix" and "widen".
        mask_schedule_fraction: Share of training, in (0, 1], after which masking is guided alone.
        gap_ratio: Probability that in pre-training a channel of a series drops out for a run of tokens, as sensors do (of a
            table: a block of columns): its values there are missing, neither read nor predicted. 0 makes no gaps.
        mean_gap_length: Mean length of such a run, in tokens.
        reconstruct_visible: Whether to score every real position and not only the masked ones.
        target_mean, target_std, target_clip: Numbers by which continuous targets become (x - mean) / std, then are clipped to
            [-clip, clip]; a number, or one per channel for mean and std; None leaves them.
        classifier_pooling: Input of a sequence classifier. "query": the output of a learned query that attends to the hidden
            states, as in the authors' code; "mean": their mean.
        classifier_intermediate_size: Width of the MLP behind the learned query; None is `intermediate_size`. The authors'
            is as wide as the hidden states.
        classifier_num_attention_heads: Heads of the learned query; None is `num_attention_heads`.
        classifier_norm_eps: Epsilon of the norm in front of the classifier's linear layer; None is `layer_norm_eps`. The
            authors' is 1e-12.

    Raises:
        ValueError: Sizes, the mask ratio or a masking do not fit each other; the error names the field.
    """

    model_type = "sma"

    modality: Literal["tokens", "series", "image"] = "tokens"
    vocab_size: int | None = None
    max_position_embeddings: int | None = None
    series_length: int | None = None
    image_size: int | list[int] | tuple[int, ...] | None = None
    num_channels: int = 1
    pad_token_id: int | None = None
    partly_observed_embedding: bool = False
    category_counts: list[int] | None = None
    encoder_type: Literal["self_attention", "cross_attention"] = "self_attention"
    num_latents: int = 256
    hidden_size: int = 768
    embedding_size: int | None = None
    qk_channels: int | None = None
    v_channels: int | None = None
    num_hidden_layers: int = 12
    num_layer_repeats: int = 1
    num_attention_heads: int = 12
    num_cross_attention_heads: int | None = None
    intermediate_size: int | None = None
    cross_intermediate_size: int | None = None
    use_bias: bool = False
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    layer_norm_eps: float = 1e-5
    embedding_layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    classifier_dropout: float | int = 0.0
    classifier_pooling: Literal["query", "mean"] = "query"
    classifier_intermediate_size: int | None = None
    classifier_num_attention_heads: int | None = None
    classifier_norm_eps: float | None = None

    decoder_qk_channels: int | None = None
    decoder_v_channels: int | None = None
    decoder_intermediate_size: int | None = None
    decoder_num_attention_heads: int = 1
    decoder_query_residual: bool = False
    decoder_mask_token: bool = False
    decoder_shared_positions: bool = True
    tie_word_embeddings: bool = False

    masking: Literal["guided", "iterative", "random", "word", "span", "patch"] = "guided"
    mask_ratio: float = 0.3
    num_masked_per_query: int = 4
    head_aggregation: Literal["mean", "random"] = "mean"
    padded_query_count: bool = False
    mask_queries: bool = False
    mask_schedule: Literal["none", "mix", "widen"] = "none"
    mask_schedule_start: float | int = 1.0
    mask_schedule_fraction: float | int = 1.0
    word_delimiter_id: int | None = None
    mean_span_length: float | int = 3.0
    gap_ratio: float | int = 0.0
    mean_gap_length: float | int = 3.0
    mask_patch_size: int = 16
    reconstruct_visible: bool = False
    target_mean: float | list[float] | None = None
    target_std: float | list[float] | None = None
    target_clip: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.modality == "tokens" and self.vocab_size is None and self.max_position_embeddings is None:
            self.vocab_size, self.max_position_embeddings = 262, 512
        # Every class of a checkpoint's code can be reached from it, not only the one that was saved.
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)

    def is_pair(self, name: str) -> bool:
        return name == "image_size" and self.modality == "image"

    @property
    def channels_last(self) -> bool:
        """True: a series is (B, N, C), an array of values whose rows are tokens."""
        return True

    @property
    def has_tokens(self) -> bool:
        return self.modality == "tokens"

    @property
    def has_patches(self) -> bool:
        return self.modality != "tokens"

    @property
    def is_cross_attention(self) -> bool:
        return self.encoder_type == "cross_attention"

    @property
    def is_guided(self) -> bool:
        """Whether masks come from attention."""
        return self.masking in ("guided", "iterative")

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Every time step and every pixel is a token."""
        return (1, 1) if self.modality == "image" else (1,)

    @property
    def signal_shape(self) -> tuple[int, ...]:
        """(T,) for a series, (H, W) for an image, () for tokens."""
        if self.modality == "series":
            return (int(self.series_length or 0),)
        if self.modality == "image" and isinstance(self.image_size, list):
            return tuple(self.image_size)
        return ()

    @property
    def grid_shape(self) -> tuple[int, ...]:
        return self.signal_shape

    @property
    def num_tokens(self) -> int:
        """N, the longest sequence of inputs: the rows of the position table."""
        if self.has_tokens:
            return int(self.max_position_embeddings or 0)
        return math.prod(self.signal_shape) if self.signal_shape else 0

    @property
    def embedding_width(self) -> int:
        return self.embedding_size or self.hidden_size

    @property
    def decoder_width(self) -> int:
        """Width of the decoder's values, and so of its hidden states."""
        return self.decoder_v_channels or self.embedding_width

    @property
    def num_queries(self) -> int:
        """Queries of the first layer for a sample of full length: the rows of the attention map of Eq. 2."""
        return self.num_latents if self.is_cross_attention else self.num_tokens

    @property
    def output_size(self) -> int:
        """Number of values predicted at a position: V logits or C values."""
        return int(self.vocab_size or 0) if self.has_tokens else self.num_channels

    def num_chosen_queries(self, num_tokens: int) -> int:
        """Size of the set R for a sample of `num_tokens` real tokens."""
        wanted = round(num_tokens * self.mask_ratio / self.num_masked_per_query)
        return max(1, min(wanted, self.num_latents if self.is_cross_attention else num_tokens))

    def validate_input(self) -> None:
        needed: dict[str, Sizes] = {
            "tokens": {"vocab_size": self.vocab_size, "max_position_embeddings": self.max_position_embeddings},
            "series": {"series_length": self.series_length, "num_channels": self.num_channels},
            "image": {"image_size": self.image_size, "num_channels": self.num_channels},
        }
        for name, value in needed[self.modality].items():
            sizes = [*value] if isinstance(value, list | tuple) else [value]
            if any(size is None or size < 1 for size in sizes):
                raise ValueError(f"modality='{self.modality}' needs a positive `{name}`, got {value}.")
        if self.modality == "image" and len(self.signal_shape) != 2:
            raise ValueError(f"`image_size` must be a height and a width, or one number, got {self.image_size}.")
        check_partly_observed(self, 1 if self.has_tokens else self.num_channels)
        check_category_counts(self)
        for name, numbers in (("target_mean", self.target_mean), ("target_std", self.target_std)):
            if numbers is not None and self.has_tokens:
                raise ValueError(f"`{name}` standardises continuous targets; modality 'tokens' has none: remove it.")
            if numbers is not None and self.category_counts is not None:
                raise ValueError(f"`{name}` would change class numbers, but `category_counts` is set: remove it.")
            if isinstance(numbers, list) and len(numbers) != self.num_channels:
                raise ValueError(f"`{name}` must have one number per channel, {self.num_channels}, got {numbers}.")

        if self.target_clip is not None and self.category_counts is not None:
            raise ValueError("`target_clip` would change class numbers, but `category_counts` is set: remove it.")

    def validate_widths(self) -> None:
        _check_widths(self)

    def validate_numbers(self) -> None:
        check_positive(
            self, "layer_norm_eps", "embedding_layer_norm_eps", "classifier_norm_eps", "target_std", "target_clip"
        )
        check_at_least(self, 0, "initializer_range")
        check_at_least(self, -math.inf, "target_mean")
        check_at_least(self, 1, "num_channels", "embedding_size", "intermediate_size", "cross_intermediate_size")
        check_at_least(self, 1, "decoder_intermediate_size", "mean_span_length", "mask_patch_size", "mean_gap_length")
        check_at_least(self, 1, "classifier_intermediate_size", "classifier_num_attention_heads")
        check_token_id(self, self.vocab_size if self.has_tokens else None, "pad_token_id", "word_delimiter_id")
        dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "classifier_dropout")
        check_probabilities(self, *dropouts)
        check_probabilities(self, "gap_ratio", one_is_allowed=True)

    def validate_masking(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"`mask_ratio` must lie between 0 and 1, both excluded, got {self.mask_ratio}.")
        total = self.num_tokens
        if not 0 < (rounded := round(total * self.mask_ratio)) < total:
            raise ValueError(
                f"`mask_ratio={self.mask_ratio}` masks {rounded} of {total} tokens; at least one must be masked and "
                "one stay visible: change `mask_ratio`."
            )
        check_at_least(self, 1, "num_masked_per_query")
        if self.is_guided and round(total * self.mask_ratio / self.num_masked_per_query) < 1:
            raise ValueError(
                f"`num_masked_per_query={self.num_masked_per_query}` chooses no query for {total} tokens of which "
                f"{rounded} are masked: it may be at most about {2 * rounded - 1}."
            )
        if self.padded_query_count and not self.is_cross_attention:
            raise ValueError(
                "`padded_query_count` needs encoder_type 'cross_attention': padding is no query of a self-attention encoder."
            )
        if self.mask_queries and self.is_cross_attention:
            raise ValueError("`mask_queries` needs encoder_type 'self_attention': latents are no tokens to mask.")
        if self.gap_ratio > 0 and self.modality != "series":
            raise ValueError(f"`gap_ratio` makes gaps in series, but modality is '{self.modality}': set it to 0.")
        check_mask_schedule(self, self.mask_ratio)
        _check_masked_units(self)


def _check_widths(config: SMAConfig) -> None:
    counts = ("num_hidden_layers", "num_layer_repeats", "num_latents", "num_cross_attention_heads")
    check_at_least(config, 1, "hidden_size", *counts)
    if not config.is_cross_attention and config.embedding_width != config.hidden_size:
        raise ValueError(
            f"`embedding_size` {config.embedding_size} must equal `hidden_size` {config.hidden_size} (or be left out) "
            "when encoder_type is 'self_attention': the embedded inputs are the first hidden states."
        )
    embedding, heads = config.embedding_width, ["num_attention_heads"]
    if config.is_cross_attention and config.num_cross_attention_heads is not None:
        heads.append("num_cross_attention_heads")
    for width in ("qk_channels", "v_channels"):
        for heads_name in heads:
            check_heads(config, width, heads_name, default=config.hidden_size)
        if config.classifier_num_attention_heads is not None:
            check_heads(config, width, "classifier_num_attention_heads", default=config.hidden_size)
        check_heads(config, f"decoder_{width}", "decoder_num_attention_heads", default=embedding)
    if config.decoder_query_residual and config.decoder_width != embedding:
        raise ValueError(
            f"`decoder_query_residual` adds queries of `embedding_size` {embedding} to values of "
            f"`decoder_v_channels` {config.decoder_width}: make them equal."
        )
    if config.tie_word_embeddings and (not config.has_tokens or config.decoder_width != embedding):
        raise ValueError(
            "`tie_word_embeddings` reads tokens off with the input table: it needs modality 'tokens' and "
            f"`decoder_v_channels` equal to `embedding_size`, got '{config.modality}', {config.decoder_width} and "
            f"{embedding}."
        )


def _check_masked_units(config: SMAConfig) -> None:
    if config.masking == "word" and (not config.has_tokens or config.word_delimiter_id is None):
        raise ValueError(
            "masking='word' needs modality 'tokens' and `word_delimiter_id`, the id of the blank, got "
            f"'{config.modality}' and {config.word_delimiter_id}."
        )
    if config.masking == "patch" and config.modality != "image":
        raise ValueError(f"masking='patch' needs modality 'image', got '{config.modality}'.")
    if config.masking == "patch" and any(size % config.mask_patch_size for size in config.signal_shape):
        raise ValueError(f"`mask_patch_size` {config.mask_patch_size} must divide `image_size` {config.image_size}.")

"""Layers that the methods share: patches, fixed positions, attention, the pre-norm Transformer layer, pooling."""

import math
from collections.abc import Sequence
from typing import Union, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .autograd_context import Context
from .dropout import Dropout
from .dropout import dropout as drop
from .input_checks import values_are_readable
from .masking import gather_tokens
from .second_order import attention as attention_differentiable_twice
from .second_order import gelu as gelu_differentiable_twice
from .second_order import layer_norm as layer_norm_differentiable_twice


def patchify(values: torch.Tensor, patch_shape: tuple[int, ...]) -> torch.Tensor:
    """Cut a signal into non-overlapping patches.

    Args:
        values: (B, C, T) series or (B, C, H, W) image; each size a multiple of the patch's.
        patch_shape: (p,) or (h, w).

    Returns:
        (B, N, P): N patches in row-major order, P = product of `patch_shape` times C, the channel varying fastest.
    """
    batch_size, num_channels, *sizes = values.shape
    blocks: list[int] = []
    for size, patch in zip(sizes, patch_shape, strict=True):
        blocks += [size // patch, patch]
    values = values.view(batch_size, num_channels, *blocks)
    dims = len(patch_shape)
    order = [0, *(2 + 2 * i for i in range(dims)), *(3 + 2 * i for i in range(dims)), 1]
    return values.permute(order).reshape(batch_size, math.prod(blocks[::2]), -1)


def unpatchify(
    patches: torch.Tensor, patch_shape: tuple[int, ...], grid_shape: tuple[int, ...], num_channels: int
) -> torch.Tensor:
    """Inverse of `patchify`: (B, N, P) -> (B, C, *grid_shape * patch_shape)."""
    dims = len(patch_shape)
    values = patches.view(patches.shape[0], *grid_shape, *patch_shape, num_channels)
    order = [0, 2 * dims + 1]
    for i in range(dims):
        order += [1 + i, 1 + dims + i]
    sizes = [grid * patch for grid, patch in zip(grid_shape, patch_shape, strict=True)]
    return values.permute(order).reshape(patches.shape[0], num_channels, *sizes)


def sincos_positions(
    grid_shape: tuple[int, ...], width: int, spacing: tuple[float, ...] | None = None, row_first: bool = False
) -> torch.Tensor:
    """Fixed sine-cosine position table (Vaswani et al. 2017; 2-D as in MAE, He et al. 2022).

    One dimension: frequencies 10000^(-k / (D/2)), all sines then all cosines. Two dimensions: one half of the channels
    encodes the column, the other the row. Computed in float64, returned in float32.

    Args:
        grid_shape: (N,) or (rows, cols).
        width: D, a multiple of 2 (one dimension) or 4 (two).
        spacing: Distance of neighbours along each axis, 1 when None; coordinates are those of the patches' centres, counted
            from the centre of a patch of size 1 in the same corner.
        row_first: Whether, in two dimensions, the first half encodes the row, as in MultiMAE, and not the column, as in MAE.

    Returns:
        (N, D) float32, row-major.
    """

    def encode(positions: torch.Tensor, channels: int) -> torch.Tensor:
        frequency = 10000.0 ** (-torch.arange(channels // 2, dtype=torch.float64) / (channels / 2))
        angle = positions[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    places = [
        (torch.arange(size, dtype=torch.float64) + 0.5) * step - 0.5
        for size, step in zip(grid_shape, spacing or [1.0] * len(grid_shape), strict=True)
    ]
    if len(grid_shape) == 1:
        return encode(places[0], width).float()
    rows, cols = grid_shape
    halves = [encode(places[1].repeat(rows), width // 2), encode(places[0].repeat_interleave(cols), width // 2)]
    return torch.cat(halves[::-1] if row_first else halves, dim=1).float()


def resized_positions(
    table: torch.Tensor, grid_shape: tuple[int, int], new_shape: tuple[int, int], mode: str
) -> torch.Tensor:
    """A 2-D position table (N, D) interpolated to another grid (corners not aligned); itself at its own."""
    if grid_shape == new_shape:
        return table
    grid = table.T.reshape(1, -1, *grid_shape)
    resized = nn.functional.interpolate(grid, size=new_shape, mode=mode, align_corners=False)
    return resized.flatten(2)[0].T


def masked_mean(values: torch.Tensor, is_real: torch.Tensor | None) -> torch.Tensor:
    """Mean over tokens, (B, N, D) -> (B, D), leaving out those that `is_real` (B, N) marks False."""
    if is_real is None:
        return values.mean(1)
    weight = is_real.to(values.dtype).unsqueeze(-1)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


class SquaredError(torch.autograd.Function):
    """Mean squared error of the last dimension, (..., P) twice -> (...), with one temporary of that size and not five."""

    @staticmethod
    def forward(ctx: Context, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(prediction, target)
        # Not a dot product, which autocast would compute in half precision.
        return (prediction - target).square_().mean(-1)

    @staticmethod
    def backward(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        prediction, target = ctx.saved_tensors
        return (grad * (2 / target.shape[-1])).unsqueeze(-1) * (prediction - target), None


def squared_error(
    prediction: torch.Tensor, target: torch.Tensor, observed: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of the last dimension, (..., P) twice -> (...), over the values that `observed` (..., P) marks True.

    0 where none was observed. Targets that were not observed must be finite.
    """
    if observed is None:
        return SquaredError.apply(prediction, target)
    error = (prediction - target).masked_fill(~observed, 0.0)
    return error.square().sum(-1) / observed.sum(-1).clamp(min=1)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out. Unlike the fused kernels it can be differentiated twice.

    Args:
        query, key, value: (B, heads, N, head_dim).
        attention_mask: Numbers added to the scores, broadcastable to (B, heads, N_query, N_key), or None.

    Returns:
        (B, N, heads, head_dim) and the weights (B, heads, N_query, N_key).
    """
    scores = (query * scaling) @ key.transpose(-2, -1)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = drop(scores.softmax(-1), dropout, module.training)
    return (weights @ value).transpose(1, 2), weights


def attend(
    module: Union["SelfAttention", "CrossAttention"],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The kernel of `module.config._attn_implementation`, through transformers' attention interface.

    Args:
        module: The attention module; has `config`, `scaling` and `attention_dropout`.
        query, key, value: (B, heads, M or N, head_dim).
        attention_mask: The mask that transformers makes for the kernel, or None.

    Returns:
        (B, M, heads, head_dim), and the weights where the kernel gives them.
    """
    kernel = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager_attention_forward)
    dropout = module.attention_dropout if module.training else 0.0
    return kernel(module, query, key, value, attention_mask, scaling=module.scaling, dropout=dropout, **kwargs)


def padding_mask(
    config: PreTrainedConfig,
    queries: torch.Tensor,
    is_real: torch.Tensor | None,
    context: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """The attention kernel's mask for padded keys, or None where nothing is padded.

    Args:
        queries: (B or 1, M, ·); their number, type and device are read.
        is_real: (B, N), 1 = real, 0 = padding.
        context: (B, N, ·), the tokens attended to; None means the queries themselves.
    """
    if is_real is None:
        return None
    return create_bidirectional_mask(  # type: ignore[return-value]  # flex attention has a type of its own
        config=config,
        inputs_embeds=queries,
        attention_mask=is_real.to(torch.int64),
        encoder_hidden_states=context,
        # A mask of ones alone can be recognised on the CPU; on a GPU that would mean waiting for it.
        allow_is_bidirectional_skip=values_are_readable(is_real),
    )


class FusedLinear(nn.Linear):
    """Several linear layers of one input in one matrix product; `parts` equal blocks of rows.

    It is a class of its own so that weights can be initialised like those of the single layers.
    """

    def __init__(self, in_features: int, out_features: int, parts: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.parts = parts


def is_here(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module's weight may be read outside the module's own forward pass.

    Not that of a module that is no `kind`, such as a LoRA layer around one, which adds to what the weight says; nor a weight that
    was offloaded (by `device_map` or `accelerate.cpu_offload`), which comes when the module's forward begins and then leaves.
    """
    return isinstance(module, kind) and cast(torch.Tensor, module.weight).device.type != "meta"


class _SplitHeads(torch.autograd.Function):
    """(B, N, parts * heads * head_dim) -> views (B, heads, N, head_dim), one per part.

    PyTorch's own backward pass stacks the gradients of the parts and then copies them into the order of the input; here each
    is written to its place. Any number of derivatives.
    """

    @staticmethod
    def forward(ctx: Context, fused: torch.Tensor, parts: int, num_heads: int) -> tuple[torch.Tensor, ...]:
        return fused.unflatten(-1, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    @staticmethod
    def backward(ctx: Context, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _MergeHeads.apply(*grads), None, None


class _MergeContext(Context):
    sizes: tuple[int, int]


class _MergeHeads(torch.autograd.Function):
    """The inverse of `_SplitHeads`, and its adjoint."""

    @staticmethod
    def forward(ctx: _MergeContext, *parts: torch.Tensor) -> torch.Tensor:
        batch_size, num_heads, num_tokens, head_dim = parts[0].shape
        ctx.sizes = len(parts), num_heads
        merged = parts[0].new_empty(batch_size, num_tokens, len(parts), num_heads, head_dim)
        for place, part in enumerate(parts):
            merged[:, :, place] = part.transpose(1, 2)
        return merged.flatten(2)

    @staticmethod
    def backward(ctx: _MergeContext, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _SplitHeads.apply(grad, *ctx.sizes)


def split_heads(fused: torch.Tensor, parts: int, num_heads: int) -> tuple[torch.Tensor, ...]:
    """(B, N, parts * heads * head_dim), as a fused projection gives it -> `parts` tensors (B, heads, N, head_dim)."""
    if torch.compiler.is_compiling():  # the compiler plans the copies itself
        return fused.unflatten(-1, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return _SplitHeads.apply(fused, parts, num_heads)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection (rows: all queries, all keys, all values).

    The kernel is transformers' attention interface (`config._attn_implementation`: sdpa, flash_attention_2,
    flex_attention, eager), or one with a second derivative when a call asks for `differentiable_twice`; the fused
    kernels have none.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        hidden_size: int,
        num_heads: int,
        dropout: float,
        attention_dropout: float,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.head_dim = hidden_size // num_heads if head_dim is None else head_dim
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = attention_dropout
        self.is_causal = False
        width = num_heads * self.head_dim
        self.qkv = FusedLinear(hidden_size, 3 * width, parts=3, bias=config.qkv_bias)
        self.output = nn.Linear(width, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        differentiable_twice: bool = False,
        query_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, N, D) -> (B, N, D) and the weights; with `query_ids` (B, M) only those rows, (B, M, D)."""
        query, key, value = self._project(hidden_states, query_ids)
        if differentiable_twice:
            context = attention_differentiable_twice(query, key, value, attention_mask, self.scaling).transpose(1, 2)
            weights = None
        else:
            context, weights = attend(self, query, key, value, attention_mask, **kwargs)
        return self.dropout(self.output(context.flatten(2))), weights

    def _project(self, hidden_states: torch.Tensor, query_ids: torch.Tensor | None) -> Sequence[torch.Tensor]:
        """Query, key and value, each (B, heads, N or M, head_dim)."""
        if query_ids is None or not is_here(self.qkv, FusedLinear):
            query, key, value = split_heads(self.qkv(hidden_states), 3, self.num_heads)
            if query_ids is not None:
                places = query_ids[:, None, :, None].expand(-1, self.num_heads, -1, self.head_dim)
                query = query.gather(2, places)
            return query, key, value
        width = self.num_heads * self.head_dim
        for_query, for_rest = self.qkv.weight.split([width, 2 * width])
        query_bias, rest_bias = (None, None) if self.qkv.bias is None else self.qkv.bias.split([width, 2 * width])
        query = nn.functional.linear(gather_tokens(hidden_states, query_ids), for_query, query_bias)
        rest = nn.functional.linear(hidden_states, for_rest, rest_bias)
        key, value = split_heads(rest, 2, self.num_heads)
        return query.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2), key, value

    def queries_and_keys(
        self, hidden_states: torch.Tensor, query_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What says where `query_ids` (B, M) attend to: scaled queries (B, heads, M, head_dim), keys (B, heads, N, head_dim).

        Keys lack their bias: it adds the same to a whole row of the map, which the softmax takes away again.
        """
        if not is_here(self.qkv, FusedLinear):
            query, key, _ = self._project(hidden_states, query_ids)
            return query * self.scaling, key
        width = self.num_heads * self.head_dim
        for_query, for_key, _ = self.qkv.weight.split(width)
        query_bias = None if self.qkv.bias is None else self.qkv.bias[:width]
        query = nn.functional.linear(gather_tokens(hidden_states, query_ids), for_query, query_bias) * self.scaling
        key = nn.functional.linear(hidden_states, for_key)
        return tuple(part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (query, key))


class CrossAttention(nn.Module):
    """Multi-head attention of queries to a context, each side with widths of its own.

    The kernel is transformers' attention interface. Fused kernels want queries, keys and values of one width per head:
    the narrower are filled up with zeros, which changes no score and no value.

    Args:
        query_size, context_size, output_size: Widths of the inputs and of the output.
        qk_size, v_size: Width of all heads' queries and keys, and of their values, together.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        query_size: int,
        context_size: int,
        num_heads: int,
        qk_size: int,
        v_size: int,
        output_size: int,
        bias: bool,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.widths = (qk_size, v_size)
        self.scaling = (qk_size // num_heads) ** -0.5
        self.attention_dropout = attention_dropout
        self.is_causal = False
        self.query = nn.Linear(query_size, qk_size, bias=bias)
        self.key_value = FusedLinear(context_size, qk_size + v_size, parts=2, bias=bias)
        self.output = nn.Linear(v_size, output_size, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        queries: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        query_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from the queries to the context.

        Args:
            queries: (B, M, query_size), or (1, M, query_size) shared by the batch, which is projected once.
            context: (B, N, context_size).
            attention_mask: The mask that transformers makes for the kernel, or None.
            query_ids: (B, K) int64, attend from these rows of shared queries alone.

        Returns:
            (B, M or K, output_size), and the weights where the kernel gives them.
        """
        query = self.query(queries)
        if query_ids is not None:
            query = gather_tokens(query[0], query_ids)
        elif query.shape[0] != context.shape[0]:
            query = query.expand(context.shape[0], -1, -1)
        key, value = self.key_value(context).split(self.widths, dim=-1)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        qk_dim, v_dim = key.shape[-1], value.shape[-1]
        if qk_dim < v_dim:
            query, key = (nn.functional.pad(part, (0, v_dim - qk_dim)) for part in (query, key))
        elif v_dim < qk_dim:
            value = nn.functional.pad(value, (0, qk_dim - v_dim))
        attended, weights = attend(self, query, key, value, attention_mask, **kwargs)
        return self.dropout(self.output(attended[..., :v_dim].flatten(2))), weights


def drop_path(hidden_states: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Drop a residual branch for whole samples, (B, ...), and scale the others up (stochastic depth, Huang et al. 2016)."""
    if rate == 0.0 or not training:
        return hidden_states
    keep = hidden_states.new_empty(hidden_states.shape[0], *[1] * (hidden_states.dim() - 1)).bernoulli_(1 - rate)
    return hidden_states * keep / (1 - rate)


class Mlp(nn.Module):
    """Linear, activation, dropout, linear, dropout."""

    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: str, dropout: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.up = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.activation = ACT2FN[activation]
        self.activation_differentiable_twice = gelu_differentiable_twice if activation == "gelu" else self.activation
        self.down = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, hidden_states: torch.Tensor, differentiable_twice: bool = False) -> torch.Tensor:
        activation = self.activation_differentiable_twice if differentiable_twice else self.activation
        return self.dropout(self.down(self.dropout(activation(self.up(hidden_states)))))


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)). (B, N, D) -> (B, N, D).

    `differentiable_twice=True` computes the same from operations whose second derivative is cheap (`second_order.py`);
    its attention mask is additive. `query_ids` (B, M) asks for those rows of the output alone, (B, M, D): a last layer
    need not compute what nobody reads. Gradient checkpointing is left to `TransformerLayer`, because recomputed
    activations have no second derivative.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path_rate: float = 0.0,
        head_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.attention_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = SelfAttention(config, hidden_size, num_heads, dropout, attention_dropout, head_dim)
        self.mlp_norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(hidden_size, intermediate_size, config.hidden_act, dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        differentiable_twice: bool = False,
        query_ids: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attended, _ = self.attention(
            normalize(hidden_states, self.attention_norm, differentiable_twice),
            attention_mask,
            differentiable_twice=differentiable_twice,
            query_ids=query_ids,
            **kwargs,
        )
        if query_ids is not None:
            hidden_states = gather_tokens(hidden_states, query_ids)
        hidden_states = hidden_states + drop_path(attended, self.drop_path_rate, self.training)
        normalized = normalize(hidden_states, self.mlp_norm, differentiable_twice)
        return hidden_states + drop_path(
            self.mlp(normalized, differentiable_twice), self.drop_path_rate, self.training
        )


def normalize(hidden_states: torch.Tensor, norm: nn.LayerNorm, differentiable_twice: bool) -> torch.Tensor:
    """`norm(hidden_states)`, with a cheap second derivative when one is needed."""
    if differentiable_twice and is_here(norm, nn.LayerNorm):
        return layer_norm_differentiable_twice(hidden_states, norm)
    return norm(hidden_states)


class TransformerLayer(GradientCheckpointingLayer, TransformerBlock):
    """`TransformerBlock` with gradient checkpointing: the layer of every encoder."""


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Recompute the activations of `model`'s checkpointed layers in the backward pass."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    else:  # its name before transformers 5.21, the last releases for Python 3.10
        model.gradient_checkpointing_enable()


def init_linear_xavier(module: nn.Linear, parts: int = 1) -> None:
    """Xavier-uniform weight and zero bias, as MAE (He et al. 2022) initialises every linear layer.

    With `parts`, as many layers of equal width that were fused into one.
    """
    bound = math.sqrt(6 / (module.out_features // parts + module.in_features))
    init.uniform_(module.weight, -bound, bound)
    if module.bias is not None:
        init.zeros_(module.bias)


def at_least_float32(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Half-precision tensors as float32; losses are sums over many terms."""
    return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]


def linear_in_full_precision(linear: nn.Linear, values: torch.Tensor) -> torch.Tensor:
    """`linear(values)` in the weights' own precision, under autocast too.

    A head's output in half precision would have 8 or 11 bits: of years near 2000, in bfloat16, one in eight.
    """
    with torch.autocast(values.device.type, enabled=False):
        return linear(values.to(linear.weight.dtype))

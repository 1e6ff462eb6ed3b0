"""Heads that turn the tokens of a Vision Transformer into a map of the image, and the losses of depth and other maps.

Those of ConvNeXt and DPT are built from the blocks of transformers' own models, which have the same structure as those of
MultiMAE's transfers (Bachmann et al. 2022, https://arxiv.org/abs/2204.01678, supplementary).
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.models.convnext.configuration_convnext import ConvNextConfig
from transformers.models.convnext.modeling_convnext import ConvNextLayer
from transformers.models.dpt.configuration_dpt import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTFeatureFusionLayer, DPTReassembleLayer

from .distributed import mean_over_scored, world_size
from .dropout import Dropout
from .layers import TransformerLayer, linear_in_full_precision, unpatchify

REASSEMBLE_FACTORS = (4, 2, 1, 0.5)  # upsampling of the four stages, the finest first
OUTPUT_CHANNELS = 32  # width of the last layer but one of `DPTHead`


class ConvNextHead(nn.Module):
    """ConvNeXt-style segmentation head: every token is spread over a square of cells, which blocks then smooth.

    Args:
        in_channels: Channels of a token; several modalities' tokens are concatenated on channels.
        hidden_size: Width that a token is projected to, shared out over its cells.
        cells_per_token: Cells that a token is spread over, a square number: 16 gives 4 x 4.
        num_layers: ConvNeXt blocks (Liu et al. 2022), without layer scale.
        num_labels: Classes.

    Raises:
        ValueError: `cells_per_token` is not the square of a whole number, or does not divide `hidden_size`.
    """

    def __init__(
        self, in_channels: int, hidden_size: int, cells_per_token: int, num_layers: int, num_labels: int
    ) -> None:
        super().__init__()
        side = math.isqrt(max(cells_per_token, 0))
        if side < 1 or side * side != cells_per_token or hidden_size < 1 or hidden_size % cells_per_token:
            raise ValueError(
                f"`segmentation_cells_per_token` {cells_per_token} must be a square number (16 spreads a token over 4 x 4 "
                f"cells) that divides `segmentation_hidden_size` {hidden_size}."
            )
        self.side, self.width = side, hidden_size // cells_per_token
        self.projection = nn.Linear(in_channels, hidden_size)
        config = ConvNextConfig(layer_scale_init_value=0.0)
        self.layers = nn.ModuleList(ConvNextLayer(config, self.width) for _ in range(num_layers))
        self.classifier = nn.Conv2d(self.width, num_labels, kernel_size=1)

    def forward(self, tokens: torch.Tensor, grid_shape: tuple[int, int]) -> torch.Tensor:
        """Logits of every cell.

        Args:
            tokens: (B, rows * columns, in_channels), row-major.
            grid_shape: Rows and columns.

        Returns:
            (B, num_labels, rows * side, columns * side); a token's cells are row-major, too.
        """
        cells = unpatchify(self.projection(tokens), (self.side, self.side), grid_shape, self.width)
        for layer in self.layers:
            cells = layer(cells)
        return self.classifier(cells)


class LinearHead(nn.Module):
    """The linear decoder of Segmenter (Strudel et al. 2021, section 3.2): a linear layer on every token.

    Args:
        in_channels: Channels of a token; several modalities' tokens are concatenated on channels.
        num_labels: Classes.
    """

    def __init__(self, in_channels: int, num_labels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(in_channels, num_labels)

    def forward(self, tokens: torch.Tensor, grid_shape: tuple[int, int]) -> torch.Tensor:
        """Logits (B, num_labels, rows, columns) of tokens (B, rows * columns, in_channels), row-major."""
        logits = linear_in_full_precision(self.classifier, tokens)
        return logits.transpose(1, 2).unflatten(2, grid_shape)


class SegmenterHead(nn.Module):
    """The mask transformer of Segmenter (Strudel et al. 2021, section 3.2), as MultiMAE's code has it.

    Tokens are projected, and a learned token for each class is put behind them; Transformer layers and a layer norm see all.
    Logits are the cosines of a patch's and the classes' projections, layer-normalised over the classes.

    Args:
        config: The model's configuration, for what all of its Transformer layers share and for the `segmenter_*` fields.
        in_channels: Channels of a token; several modalities' tokens are concatenated on channels.
        num_labels: Classes.
    """

    def __init__(self, config: PreTrainedConfig, in_channels: int, num_labels: int) -> None:
        super().__init__()
        width, num_layers, eps = config.segmenter_hidden_size, config.segmenter_num_layers, config.layer_norm_eps
        self.projection = nn.Linear(in_channels, width)
        self.class_tokens = nn.Parameter(torch.zeros(1, num_labels, width))
        self.layers = nn.ModuleList(
            TransformerLayer(
                config,
                width,
                config.segmenter_num_attention_heads,
                config.segmenter_intermediate_size,
                drop_path_rate=config.segmenter_drop_path_rate * layer / max(1, num_layers - 1),
            )
            for layer in range(num_layers)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.patch_projection = nn.Linear(width, width, bias=False)
        self.class_projection = nn.Linear(width, width, bias=False)
        self.mask_norm = nn.LayerNorm(num_labels, eps=eps)

    @torch.no_grad()
    def init_weights(self, std: float) -> None:
        """Truncated normal class tokens and linear layers, biases of zeros, as the authors' code has it."""
        init.trunc_normal_(self.class_tokens, std=std)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init.trunc_normal_(module.weight, std=std)
                if module.bias is not None:
                    init.zeros_(module.bias)

    def forward(self, tokens: torch.Tensor, grid_shape: tuple[int, int]) -> torch.Tensor:
        """Logits (B, num_labels, rows, columns) of tokens (B, rows * columns, in_channels), row-major."""
        classes = self.class_tokens.expand(tokens.shape[0], -1, -1)
        states = torch.cat([self.projection(tokens), classes], dim=1)
        for layer in self.layers:
            states = layer(states)
        states = self.norm(states)
        num_patches = tokens.shape[1]
        patches = F.normalize(self.patch_projection(states[:, :num_patches]), dim=-1)
        classes = F.normalize(self.class_projection(states[:, num_patches:]), dim=-1)
        masks = self.mask_norm(patches @ classes.transpose(1, 2))
        return masks.transpose(1, 2).unflatten(2, grid_shape)


class DPTMaps(nn.Module):
    """The body of DPT (Ranftl et al. 2021), which its heads have in common.

    The tokens of four layers become maps of 4, 2, 1 and 1/2 times their grid, which are fused from coarse to fine. A
    grid with an odd side works as in transformers' DPT: finer maps are resized to what the coarser grew to.

    Args:
        in_channels: Channels of a token; several modalities' tokens are concatenated on channels.
        hidden_size: Channels of the fusion.
        reassemble_sizes: Channels of the four maps, finest first.

    Raises:
        ValueError: `reassemble_sizes` are not four widths, or a width is not positive.
    """

    def __init__(self, in_channels: int, hidden_size: int, reassemble_sizes: Sequence[int]) -> None:
        super().__init__()
        if len(reassemble_sizes) != len(REASSEMBLE_FACTORS) or min(reassemble_sizes) < 1 or hidden_size < 2:
            raise ValueError(
                f"`depth_reassemble_sizes` must be {len(REASSEMBLE_FACTORS)} positive widths and `depth_hidden_size` at "
                f"least 2, got {list(reassemble_sizes)} and {hidden_size}."
            )
        config = DPTConfig(hidden_size=in_channels, fusion_hidden_size=hidden_size)
        self.reassemble = nn.ModuleList(
            DPTReassembleLayer(config, channels, factor)  # type: ignore[arg-type]  # a factor may be 1/2
            for channels, factor in zip(reassemble_sizes, REASSEMBLE_FACTORS, strict=True)
        )
        self.projections = nn.ModuleList(
            nn.Conv2d(channels, hidden_size, kernel_size=3, padding=1, bias=False) for channels in reassemble_sizes
        )
        self.fusion = nn.ModuleList(DPTFeatureFusionLayer(config) for _ in reassemble_sizes)
        # The coarsest map has no other to be fused with; a parameter without a gradient would stop DistributedDataParallel.
        self.fusion[-1].residual_layer1 = nn.Identity()

    def fused(self, layers: Sequence[torch.Tensor], grid_shape: tuple[int, int]) -> torch.Tensor:
        """(B, hidden_size, height, width) of four layers' tokens, as the heads take them; 8 times the grid where it is even."""
        fused = None
        for stage in reversed(range(len(self.fusion))):
            grid = layers[stage].transpose(1, 2).unflatten(2, grid_shape)
            finer = self.projections[stage](self.reassemble[stage](grid))
            fused = self.fusion[stage](finer) if fused is None else self.fusion[stage](fused, finer)
        assert fused is not None  # there are four stages
        return fused


class DPTRegressionHead(DPTMaps):
    """Dense prediction head of DPT for values: any number of channels.

    Args:
        in_channels, hidden_size, reassemble_sizes: Sizes of `DPTMaps`.
        num_channels: Values of a pixel.
    """

    def __init__(
        self, in_channels: int, hidden_size: int, reassemble_sizes: Sequence[int], num_channels: int = 1
    ) -> None:
        super().__init__(in_channels, hidden_size, reassemble_sizes)
        self.output_in = nn.Conv2d(hidden_size, hidden_size // 2, kernel_size=3, padding=1)
        self.output_mid = nn.Conv2d(hidden_size // 2, OUTPUT_CHANNELS, kernel_size=3, padding=1)
        self.output_out = nn.Conv2d(OUTPUT_CHANNELS, num_channels, kernel_size=1)

    def forward(
        self, layers: Sequence[torch.Tensor], grid_shape: tuple[int, int], image_size: tuple[int, int]
    ) -> torch.Tensor:
        """The head's values for every pixel.

        Args:
            layers: Four of (B, rows * columns, in_channels), row-major tokens, those of the first layer first.
            grid_shape: Rows and columns.
            image_size: Height and width of the output; a power of two per token loses nothing.

        Returns:
            (B, num_channels, height, width), of any sign.
        """
        values = self.output_in(self.fused(layers, grid_shape))
        values = F.interpolate(values, size=image_size, mode="bilinear", align_corners=True)
        values = F.relu(self.output_mid(values))
        return linear_in_full_precision(self.output_out, values)  # type: ignore[arg-type]  # a 1x1 convolution


class DPTHead(DPTRegressionHead):
    """`DPTRegressionHead` of one channel, which `forward` gives as (B, height, width): the depth head."""

    def __init__(self, in_channels: int, hidden_size: int, reassemble_sizes: Sequence[int]) -> None:
        super().__init__(in_channels, hidden_size, reassemble_sizes)

    def forward(
        self, layers: Sequence[torch.Tensor], grid_shape: tuple[int, int], image_size: tuple[int, int]
    ) -> torch.Tensor:
        """(B, height, width), see `DPTRegressionHead.forward`."""
        return super().forward(layers, grid_shape, image_size).squeeze(1)


class DPTClassHead(DPTMaps):
    """Dense prediction head of DPT for classes, without batch norm, as MultiMAE's code has it.

    Args:
        in_channels, hidden_size, reassemble_sizes: Sizes of `DPTMaps`.
        num_labels: Classes.
        dropout: Probability of dropout before the classifier.
    """

    def __init__(
        self, in_channels: int, hidden_size: int, reassemble_sizes: Sequence[int], num_labels: int, dropout: float
    ) -> None:
        super().__init__(in_channels, hidden_size, reassemble_sizes)
        self.output_in = nn.Conv2d(hidden_size, hidden_size, kernel_size=3, padding=1, bias=False)
        self.dropout = Dropout(dropout)
        self.classifier = nn.Conv2d(hidden_size, num_labels, kernel_size=1)

    def forward(
        self, layers: Sequence[torch.Tensor], grid_shape: tuple[int, int], image_size: tuple[int, int]
    ) -> torch.Tensor:
        """Logits (B, num_labels, height, width) of every pixel; arguments as in `DPTRegressionHead.forward`."""
        values = self.dropout(F.relu(self.output_in(self.fused(layers, grid_shape))))
        logits = linear_in_full_precision(self.classifier, values)  # type: ignore[arg-type]  # a 1x1 convolution
        return F.interpolate(logits, size=image_size, mode="bilinear", align_corners=True)


def dense_regression_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    squared: bool = False,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Mean absolute, or squared, error over the known values of all processes, as MultiMAE's Taskonomy transfers have it.

    Args:
        prediction: (B, C, H, W) float.
        target: (B, C, H, W); values that are NaN or infinite are not known and have no gradient.
        squared: Whether errors are squared.
        num_items: Number of known values in all accumulated batches and processes, which then divides the sum.

    Returns:
        A scalar whose average over processes is the loss; 0 where no value is known.
    """
    is_known = known_values(target)
    # Unknown values are replaced before the difference: 0 * NaN is NaN in the backward pass, too.
    error = (prediction - target.to(prediction.dtype).masked_fill(~is_known, 0.0)).masked_fill(~is_known, 0.0)
    return mean_over_scored(error.pow(2) if squared else error.abs(), is_known, num_items)


def known_values(target: torch.Tensor) -> torch.Tensor:
    """Bool, of the shape of `target`: which values `dense_regression_loss` scores."""
    return torch.isfinite(target)


def valid_depths(target: torch.Tensor) -> torch.Tensor:
    """Bool, of the shape of `target`: which pixels `reverse_huber_loss` scores."""
    return torch.isfinite(target) & (target > 0)


def reverse_huber_loss(
    prediction: torch.Tensor, target: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Reverse Huber loss of depth maps (berHu; Laina et al. 2016, Eq. 1): the mean over the valid pixels of all processes.

    |e| up to a threshold c, (e^2 + c^2) / 2c above it; c is a fifth of the largest |e| of all processes' batches and
    carries no gradient. Accumulated batches have each their own c, as the largest error of the later ones is not known.

    Args:
        prediction: (B, H, W) float.
        target: (B, H, W); pixels that are 0 or less, NaN or infinite are not valid and have no gradient.
        num_items: Number of valid pixels in all accumulated batches and processes, which then divides the sum.

    Returns:
        A scalar whose average over processes is the loss; 0 where no pixel is valid.
    """
    is_valid = valid_depths(target)
    # Invalid pixels are replaced before the difference: 0 * NaN is NaN in the backward pass, too.
    error = (prediction - target.to(prediction.dtype).masked_fill(~is_valid, 0.0)).masked_fill(~is_valid, 0.0).abs()
    threshold = error.detach().amax() if error.numel() else error.new_zeros(())
    if world_size() > 1:
        dist.all_reduce(threshold, op=dist.ReduceOp.MAX)
    threshold = (0.2 * threshold).clamp(min=1e-8)
    values = torch.where(error <= threshold, error, (error.pow(2) + threshold.pow(2)) / (2 * threshold))
    return mean_over_scored(values, is_valid, num_items)

"""Heads that turn the tokens of a Vision Transformer into a map of the image, and the loss of depth maps.

Both are built from the blocks of transformers' own ConvNeXt and DPT models, which have the same structure as those of
MultiMAE's transfers (Bachmann et al. 2022, https://arxiv.org/abs/2204.01678, supplementary).
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from transformers.models.convnext.configuration_convnext import ConvNextConfig
from transformers.models.convnext.modeling_convnext import ConvNextLayer
from transformers.models.dpt.configuration_dpt import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTFeatureFusionLayer, DPTReassembleLayer

from .distributed import mean_over_scored, world_size
from .layers import linear_in_full_precision, unpatchify

REASSEMBLE_FACTORS = (4, 2, 1, 0.5)  # finest first
OUTPUT_CHANNELS = 32  # of the last layer but one of `DPTHead`


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


class DPTHead(nn.Module):
    """Dense prediction head of DPT (Ranftl et al. 2021) with one output channel.

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
        self.output_in = nn.Conv2d(hidden_size, hidden_size // 2, kernel_size=3, padding=1)
        self.output_mid = nn.Conv2d(hidden_size // 2, OUTPUT_CHANNELS, kernel_size=3, padding=1)
        self.output_out = nn.Conv2d(OUTPUT_CHANNELS, 1, kernel_size=1)

    def forward(
        self, layers: Sequence[torch.Tensor], grid_shape: tuple[int, int], image_size: tuple[int, int]
    ) -> torch.Tensor:
        """The head's value for every pixel.

        Args:
            layers: Four of (B, rows * columns, in_channels), row-major tokens, those of the first layer first.
            grid_shape: Rows and columns.
            image_size: Height and width of the output; a power of two per token loses nothing.

        Returns:
            (B, height, width), of any sign.
        """
        fused = None
        for stage in reversed(range(len(self.fusion))):
            grid = layers[stage].transpose(1, 2).unflatten(2, grid_shape)
            finer = self.projections[stage](self.reassemble[stage](grid))
            fused = self.fusion[stage](finer) if fused is None else self.fusion[stage](fused, finer)
        values = self.output_in(fused)
        values = F.interpolate(values, size=image_size, mode="bilinear", align_corners=True)
        values = F.relu(self.output_mid(values))
        return linear_in_full_precision(self.output_out, values).squeeze(1)  # type: ignore[arg-type]  # a 1x1 convolution


def reverse_huber_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Reverse Huber loss of depth maps (berHu; Laina et al. 2016, Eq. 1): the mean over the valid pixels of all processes.

    |e| up to a threshold c, (e^2 + c^2) / 2c above it; c is a fifth of the largest |e| of all processes' batches and
    carries no gradient.

    Args:
        prediction: (B, H, W) float.
        target: (B, H, W); pixels that are 0 or less, NaN or infinite are not valid and have no gradient.

    Returns:
        A scalar whose average over processes is the loss; 0 where no pixel is valid.
    """
    is_valid = torch.isfinite(target) & (target > 0)
    # Invalid pixels are replaced before the difference: 0 * NaN is NaN in the backward pass, too.
    error = (prediction - target.to(prediction.dtype).masked_fill(~is_valid, 0.0)).masked_fill(~is_valid, 0.0).abs()
    threshold = error.detach().amax() if error.numel() else error.new_zeros(())
    if world_size() > 1:
        dist.all_reduce(threshold, op=dist.ReduceOp.MAX)
    threshold = (0.2 * threshold).clamp(min=1e-8)
    values = torch.where(error <= threshold, error, (error.pow(2) + threshold.pow(2)) / (2 * threshold))
    return mean_over_scored(values, is_valid)

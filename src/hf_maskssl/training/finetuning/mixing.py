"""Mixup, cutmix and smoothed labels: batches of a classification whose labels are shares of classes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Inputs that hold pixels, and what goes with them; anything else of a row cannot be mixed.
PIXELS = ("pixel_values", "inputs")


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed; the draws depend on the seed, the step and the process alone.

    Attributes:
        mixup: Concentration of the Beta distribution of mixup's share (Zhang et al. 2018); 0 is no mixup.
        cutmix: That of cutmix (Yun et al. 2019); 0 is no cutmix.
        probability: Probability that a batch is mixed at all.
        switch: Probability of cutmix where there are both.
        smoothing: Share of a label that is spread evenly over all classes.
        num_labels: Number of classes.
    """

    mixup: float
    cutmix: float
    probability: float
    switch: float
    smoothing: float
    num_labels: int

    def __call__(self, batch: Mapping[str, Any], seed: list[int]) -> dict[str, Any]:
        """A batch with labels (B, num_labels) float32, each row mixed with its opposite: the first with the last.

        Args:
            batch: `labels` (B,) class ids, and `pixel_values` (B, C, H, W) or `inputs`, {modality: (B, C, h, w)}.
            seed: Numbers that the draws depend on.

        Raises:
            ValueError: Inputs that hold no pixels, or class maps.
        """
        generator = np.random.default_rng(seed)
        targets = self.targets(batch["labels"])
        if generator.random() >= self.probability or not (self.mixup or self.cutmix):
            return {**batch, "labels": targets}
        pictures = mixable(batch)
        is_cut = self.cutmix > 0 and (self.mixup == 0 or generator.random() < self.switch)
        concentration = self.cutmix if is_cut else self.mixup
        share = float(generator.beta(concentration, concentration))
        mixed: dict[str, torch.Tensor] = {}
        if is_cut:
            box = cut_box(share, generator)
            mixed = {name: with_patch(pixels, box) for name, pixels in pictures.items()}
            share = 1.0 - max(map(covered, pictures.values(), [box] * len(pictures)))
        else:
            mixed = {name: share * pixels + (1 - share) * pixels.flip(0) for name, pixels in pictures.items()}
        labels = share * targets + (1 - share) * targets.flip(0)
        inputs: dict[str, Any] = {"inputs": mixed} if "inputs" in batch else dict(mixed)
        return {**batch, **inputs, "labels": labels}

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        """(B,) class ids -> (B, num_labels) float32, smoothed."""
        ones = torch.nn.functional.one_hot(labels.long(), self.num_labels).float()
        return ones * (1 - self.smoothing) + self.smoothing / self.num_labels


def mixable(batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The pictures of a batch, by name.

    Raises:
        ValueError: It holds something else, which has no mean of two rows.
    """
    pictures = batch["inputs"] if "inputs" in batch else {name: batch[name] for name in PIXELS if name in batch}
    broken = [name for name, pixels in pictures.items() if not (pixels.is_floating_point() and pixels.dim() == 4)]
    others = [name for name in batch if name not in ("labels", *PIXELS)]
    if broken or others or not pictures:
        raise ValueError(
            "finetuning.mixup and finetuning.cutmix mix pictures of the shape (rows, channels, height, width) alone, but the "
            f"batch holds {broken or others or 'none'}: leave them out"
        )
    return pictures


def cut_box(share: float, generator: np.random.Generator) -> tuple[float, float, float, float]:
    """Top, bottom, left and right, as shares of the picture, of a rectangle with 1 - `share` of its area, cut at its edges."""
    half = math.sqrt(1 - share) / 2
    middles = generator.random(2)
    (top, bottom), (left, right) = ((max(0.0, middle - half), min(1.0, middle + half)) for middle in middles)
    return top, bottom, left, right


def _pixels_of(pixels: torch.Tensor, box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """Rows and columns of a rectangle in pictures (B, C, h, w)."""
    height, width = pixels.shape[-2:]
    return slice(round(box[0] * height), round(box[1] * height)), slice(round(box[2] * width), round(box[3] * width))


def covered(pixels: torch.Tensor, box: tuple[float, float, float, float]) -> float:
    """The share of pictures (B, C, h, w) that a rectangle covers, pixel by pixel."""
    rows, columns = _pixels_of(pixels, box)
    return (rows.stop - rows.start) * (columns.stop - columns.start) / (pixels.shape[-2] * pixels.shape[-1])


def with_patch(pixels: torch.Tensor, box: tuple[float, float, float, float]) -> torch.Tensor:
    """Pictures (B, C, h, w) with a rectangle taken from the opposite row of the batch."""
    rows, columns = _pixels_of(pixels, box)
    mixed = pixels.clone()
    mixed[:, :, rows, columns] = pixels.flip(0)[:, :, rows, columns]
    return mixed

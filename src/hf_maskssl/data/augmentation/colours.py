"""Changes of a picture's colours, by Pillow.

albumentations (archived since 2025; its successor is under the AGPL) would bring OpenCV and SciPy, 260 MB and a second of
import, kornia works on float tensors and draws from torch's global generator, and neither draws by row, epoch and seed: the few
operations that the papers name are a line of Pillow each.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from .arguments import JITTERED, Augmentation

# A change of an RGB picture of bytes.
Change = Callable[[Image.Image], Image.Image]
HUES = 256  # steps of the colour circle in Pillow's HSV
THREE_AUGMENT_SIGMA = (0.1, 2.0)  # DeiT III's own
ENHANCERS: dict[str, Callable[[Image.Image], ImageEnhance._Enhance]] = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


def enhanced(picture: Image.Image, what: str, factor: float) -> Image.Image:
    """The picture with its brightness, contrast, saturation or sharpness times a factor of at least 0."""
    return ENHANCERS[what](picture).enhance(factor)


def with_hue(picture: Image.Image, share: float) -> Image.Image:
    """The picture with all hues moved by a share of the colour circle, -0.5 to 0.5."""
    hue, saturation, value = picture.convert("HSV").split()
    moved = (np.asarray(hue, dtype=np.int16) + round(share * HUES)) % HUES
    return Image.merge("HSV", (Image.fromarray(moved.astype(np.uint8)), saturation, value)).convert("RGB")


def gray(picture: Image.Image) -> Image.Image:
    """The picture without its colours."""
    return picture.convert("L").convert("RGB")


def solarized(picture: Image.Image, threshold: float) -> Image.Image:
    """The picture with all values from a threshold on inverted."""
    return ImageOps.solarize(picture, threshold)  # type: ignore[arg-type]  # any number is compared


def blurred(picture: Image.Image, sigma: float) -> Image.Image:
    """The picture behind a Gaussian blur of a standard deviation in pixels."""
    return picture.filter(ImageFilter.GaussianBlur(sigma))


def draw_colours(entries: Augmentation, generator: np.random.Generator) -> list[Change]:
    """The changes of one row's colours, in their order; those of RandAugment are drawn by `draw_rand_augment`."""
    changes: list[Change] = []
    if entries.three_augment:
        changes.append(_one_of_three(entries, generator))
    if any(entries.jitter()) and generator.random() < entries.color_jitter_probability:
        changes += _jitter(entries.jitter(), generator)
    if generator.random() < entries.gray_probability:
        changes.append(gray)
    if generator.random() < entries.blur_probability:
        changes.append(_blur(entries.blur_sigma, generator))
    if generator.random() < entries.solarize_probability:
        changes.append(_solarize(entries.solarize_threshold))
    return changes


def _one_of_three(entries: Augmentation, generator: np.random.Generator) -> Change:
    choice = generator.integers(3)
    if choice == 2:
        return _blur(THREE_AUGMENT_SIGMA, generator)
    return gray if choice == 0 else _solarize(entries.solarize_threshold)


def _jitter(strengths: Sequence[float], generator: np.random.Generator) -> list[Change]:
    """Brightness, contrast, saturation and hue in random order, drawn as torchvision's `ColorJitter` draws them."""
    changes: list[Change] = []
    for place in generator.permutation(len(JITTERED)).tolist():
        what, strength = JITTERED[place], strengths[place]
        if not strength:
            continue
        if what == "hue":
            share = float(generator.uniform(-strength, strength))
            changes.append(lambda picture, share=share: with_hue(picture, share))  # type: ignore[misc]
        else:
            factor = float(generator.uniform(max(0.0, 1 - strength), 1 + strength))
            changes.append(lambda picture, what=what, factor=factor: enhanced(picture, what, factor))  # type: ignore[misc]
    return changes


def _blur(sigmas: Sequence[float], generator: np.random.Generator) -> Change:
    sigma = float(generator.uniform(sigmas[0], sigmas[1]))
    return lambda picture: blurred(picture, sigma)


def _solarize(threshold: float) -> Change:
    return lambda picture: solarized(picture, threshold)

"""A page on which one chooses what a MultiMAE sees, and looks at what it predicts: the web demo of its paper, by gradio."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from ..extras import missing_extra
from ..models.field_checks import pair
from ..models.modeling_multimae import MultiMAEForPretraining
from .modalities import ClassNames, draw_modalities

if TYPE_CHECKING:
    from gradio import Blocks


class Demo:
    """Pictures of single samples, of which a chosen number of patches is visible in each modality.

    Args:
        model: A `MultiMAEForPretraining`.
        batch: `inputs`, and perhaps `presence`, of the samples to choose from.
        processor: The `MultiMAEImageProcessor` that prepared the batch.
        class_names: Modality -> names of its classes, for the legend.

    Attributes:
        num_patches: Input modality of the batch -> how many patches it has.
        num_samples: Number of samples.
    """

    def __init__(
        self,
        model: MultiMAEForPretraining,
        batch: Mapping[str, Any],
        processor: object = None,
        class_names: ClassNames | None = None,
    ) -> None:
        self.model, self.batch, self.processor, self.class_names = model, batch, processor, class_names
        height, width = pair(model.config.image_size)
        grids = {one.name: one.grid((height, width)) for one in model.config.inputs() if one.name in batch["inputs"]}
        self.num_patches = {name: rows * columns for name, (rows, columns) in grids.items()}
        self.num_samples = len(next(iter(batch["inputs"].values())))

    def masks(self, seed: int, visible: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """Modality -> (1, N) bool, True = hidden; `visible` of the N patches are drawn by the seed, for each modality anew."""
        random = torch.Generator().manual_seed(seed)
        found = {}
        for name, count in self.num_patches.items():
            order = torch.randperm(count, generator=random)
            found[name] = (order >= visible[name])[None]
        return found

    def picture(self, sample: int, seed: int, visible: Sequence[int]) -> Image.Image:
        """Masked inputs, predictions and targets of a sample, as `draw_modalities` draws them.

        Args:
            sample: Number of the sample.
            seed: Seed by which the visible patches are drawn.
            visible: Number of visible patches of each modality, in the order of `num_patches`.

        Raises:
            ValueError: Nothing is visible.
        """
        if not any(visible):
            raise ValueError("no patch is visible: show at least one of a modality")
        one = slice(sample, sample + 1)
        batch = {
            part: {name: values[one] for name, values in self.batch[part].items()}
            for part in ("inputs", "presence")
            if self.batch.get(part)
        }
        masks = self.masks(seed, dict(zip(self.num_patches, visible, strict=True)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "predictions.png")
            draw_modalities(self.model, batch, path, self.processor, masks, 1, self.class_names)
            with Image.open(path) as image:
                image.load()
                return image


def page(demo: Demo, title: str) -> "Blocks":
    """The page: sliders for the sample, for the visible patches of each modality and for the seed, and the picture.

    Args:
        demo: Model and samples.
        title: Heading of the page.

    Returns:
        gradio's `Blocks`, whose `launch` serves it.

    Raises:
        ImportError: gradio, of the extra `demo`, is missing.
    """
    gradio = load_gradio()

    def draw(sample: float, seed: float, *visible: float) -> Image.Image:
        try:
            return demo.picture(int(sample), int(seed), [int(count) for count in visible])
        except ValueError as error:
            raise gradio.Error(str(error)) from error

    usual = usual_counts(demo)
    with gradio.Blocks(title=title) as blocks:
        gradio.Markdown(f"# {title}\nHow many patches of each modality does the model see?")
        sample = gradio.Slider(0, max(1, demo.num_samples - 1), 0, step=1, label="sample")
        sliders = [
            gradio.Slider(0, count, usual[name], step=1, label=f"visible patches of {name}, of {count}")
            for name, count in demo.num_patches.items()
        ]
        seed = gradio.Slider(0, 99, 0, step=1, label="seed of the choice of patches")
        given = [sample, seed, *sliders]
        first = demo.picture(0, 0, [usual[name] for name in demo.num_patches])
        shown = gradio.Image(first, label="masked input, prediction, target", show_label=True)
        for slider in given:
            slider.release(draw, given, shown)
    return blocks


def load_gradio() -> Any:
    """The package gradio.

    Raises:
        ImportError: It is missing; the message names the extra.
    """
    try:
        import gradio
    except ImportError as error:
        raise missing_extra("A page of predictions", "demo", error) from error
    return gradio


def usual_counts(demo: Demo) -> dict[str, int]:
    """Modality -> the number of its patches that pre-training shows on average, at least one."""
    share = demo.model.config.num_visible_tokens / sum(demo.num_patches.values())
    return {name: min(count, max(1, round(share * count))) for name, count in demo.num_patches.items()}

"""Draw the masks that a pre-trained SMA or MetaMAE chooses on a recipe's data.

    hf-maskssl masks CHECKPOINT --recipe RECIPE [--output_dir FOLDER]

CHECKPOINT is a folder or a Hub name. The data section of the recipe is read,
and options change any of its fields. Images, texts and series are drawn with
several masks from the same weights (masks.png), for a table how often each
column is masked, and with which others (columns.png).
"""

import argparse
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForPreTraining

from .. import (
    MetaMAEForPretraining,
    SMAForMaskedModeling,
)  # registers the package's models with AutoModelForPreTraining, too
from ..checkpoint_folders import checkpoint_folder
from ..data.arguments import DataArguments
from ..data.preparation import prepare_data
from ..data.processors import Processor, load_processor, split_processor
from ..evaluation.former_results import described, folder_of_results, refuse_other_results
from ..files import write_json
from ..pictures.masks import (
    draw_column_masks,
    draw_image_masks,
    draw_series_masks,
    draw_text_masks,
)
from ..pictures.reconstruction import is_table
from ..recipes import load_recipe
from ..scripts import OneLineErrors

OUTPUT = Path("outputs/masks")
TABLE_ROWS = 256


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> Path:
    """Command line; returns the picture."""
    parser = OneLineErrors(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder or Hub name of a pre-training checkpoint")
    parser.add_argument("--recipe", required=True, help="YAML file with a `data` section")
    parser.add_argument(
        "--output_dir", type=Path, help=f"folder to write; default: {OUTPUT}, or {OUTPUT}-2 beside others' pictures"
    )
    parser.add_argument(
        "--num_samples", type=int, default=4, help="number of images, texts or series; default: %(default)s"
    )
    parser.add_argument("--num_views", type=int, default=2, help="number of masks of each; default: %(default)s")
    parser.add_argument(
        "--num_draws", type=int, default=100, help="number of masks of each row of a table; default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="write over pictures of other models or data")
    options, overrides = parser.parse_known_args(argv)
    folder = checkpoint_folder(options.checkpoint, "CHECKPOINT")
    model = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=False).eval()
    if not isinstance(model, SMAForMaskedModeling | MetaMAEForPretraining):
        raise ValueError(
            f"CHECKPOINT {options.checkpoint!r}: expected a pre-training checkpoint of 'sma' or 'metamae', got one of "
            f"{model.config.model_type!r}"
        )
    if model.config.modality == "vision_language":
        raise ValueError(
            f"CHECKPOINT {options.checkpoint!r}: expected a model of one kind of data, whose masks are drawn over it, got one "
            "of modality 'vision_language'"
        )
    processor = load_processor(folder)
    args = load_recipe(options.recipe, overrides, {"data": DataArguments})["data"]
    rows_are_table = args.ROWS_OF_CELLS or (model.config.modality == "series" and is_table(model, processor))
    name = "columns" if rows_are_table else "masks"

    def check(folder: Path) -> None:
        files = (folder / f"{name}.png", folder / f"{name}.json")
        refuse_other_results(*files, described([options.checkpoint], args), "--output_dir", options.overwrite)

    path = folder_of_results(options.output_dir, OUTPUT, check) / f"{name}.png"
    prepared = prepare_data(args, model.config, processor)
    # Rows that pre-training did not see, where there are any.
    split: Any = prepared.validation or prepared.test or prepared.train
    rows = list(islice(iter(split), TABLE_ROWS if rows_are_table else options.num_samples))
    batch = prepared.collator(rows)
    _draw(model, batch, processor, path, options, rows_are_table)
    write_json(path.with_suffix(".json"), described([options.checkpoint], args))
    print(f"Written: {path}")
    return path


def _draw(
    model: Any, batch: Mapping[str, Any], processor: Processor, path: Path, options: argparse.Namespace, as_table: bool
) -> None:
    """Draw the masks of a batch over its pictures, series or texts, or how often each column of a table is hidden."""
    numeric, tokenizer = split_processor(processor)
    observed = batch.get("observed_mask")
    if as_table:
        names = getattr(numeric, "feature_names", None)
        draw_column_masks(model, batch["input_values"], names, path, options.num_draws, observed)
    elif "pixel_values" in batch:
        draw_image_masks(
            model, batch["pixel_values"], path, options.num_views, processor=numeric, observed_mask=observed
        )
    elif "input_values" in batch:
        draw_series_masks(
            model, batch["input_values"], path, options.num_views, processor=numeric, observed_mask=observed
        )
    else:
        draw_text_masks(model, batch["input_ids"], tokenizer, path, options.num_views, batch.get("attention_mask"))

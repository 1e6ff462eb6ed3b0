"""Draw what a pre-trained MultiMAE sees and predicts, as the figures of its
paper do.

    hf-maskssl predict CHECKPOINT [--output FOLDER]
    hf-maskssl predict CHECKPOINT --source multimodal_folder --data_dir FOLDER
    hf-maskssl predict CHECKPOINT --recipe RECIPE [--data_field value ...]
    hf-maskssl predict CHECKPOINT --serve

CHECKPOINT is a folder or a Hub name of a pre-training checkpoint. Without
--source and --recipe the pictures are of generated scenes. The data section of
a recipe is read, and options change any of its fields. Written are
  masked.png         masked inputs, predictions with visible patches laid over,
                     targets (Figure 1);
  single_inputs.png  what is predicted from each whole modality (Figure 3);
  repainted.png      --partial (rgb) from the whole of --whole (depth) and a few
                     patches, one in other hues (Figure 4); left out with a note
                     where the model lacks the two, unless they were named.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoModelForPreTraining

from .. import MultiMAEForPretraining  # registers the package's models with AutoModelForPreTraining, too
from ..checkpoint_folders import checkpoint_folder
from ..data.arguments import DataArguments, data_arguments
from ..data.builtin.scenes import LAYOUT
from ..data.preparation import prepare_data
from ..data.processors import load_processor
from ..evaluation.former_results import described, folder_of_results, refuse_other_results
from ..files import write_json
from ..pictures.demo import Demo, load_gradio, page
from ..pictures.modalities import (
    draw_modalities,
    draw_repainted,
    draw_single_inputs,
    known_class_names,
)
from ..recipes import load_recipe
from ..scripts import OneLineErrors

OUTPUT = Path("outputs/multimae_predict")
PICTURES = ("masked", "single_inputs", "repainted")
WHOLE, PARTIAL = "depth", "rgb"
ROWS = ("data.max_train_samples", "data.num_scenes")  # fields of `data` that --num_samples sets


def make_parser() -> OneLineErrors:
    """The options of the command."""
    parser = OneLineErrors(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder or Hub name of a pre-training checkpoint")
    parser.add_argument("--source", help="source of the rows, as data.source; default: scenes, or the recipe's")
    parser.add_argument("--data_dir", help="folder of the source, as data.data_dir")
    parser.add_argument(
        "--split",
        help="name of the split; default: validation for scenes, else train; with a recipe, its held-out split",
    )
    parser.add_argument("--recipe", help="YAML file with a `data` section")
    parser.add_argument("--output", type=Path, help=f"folder; default: {OUTPUT}")
    parser.add_argument(
        "--pictures",
        nargs="+",
        choices=PICTURES,
        metavar="NAME",
        default=list(PICTURES),
        help=f"some of {', '.join(PICTURES)}",
    )
    parser.add_argument("--num_samples", type=int, default=6, help="number of rows to draw; default: %(default)s")
    parser.add_argument("--whole", help=f"modality that repainted.png shows whole; {WHOLE}")
    parser.add_argument("--partial", help=f"modality that repainted.png predicts; default: {PARTIAL}")
    parser.add_argument(
        "--num_patches", type=int, default=2, help="number of its patches that are seen; default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="write over pictures of other models or data")
    parser.add_argument("--serve", action="store_true", help="serve the paper's web demo instead, a page")
    return parser


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Command line; returns the pictures."""
    options, overrides = make_parser().parse_known_args(argv)
    if options.serve:
        load_gradio()
    folder = checkpoint_folder(options.checkpoint, "CHECKPOINT")
    model = _load(folder, options.checkpoint)
    processor = load_processor(folder)
    args = read_arguments(options, overrides, model.config)
    pictures = [name for name in PICTURES if name in options.pictures and not options.serve]

    def check(folder: Path) -> None:
        for name in pictures:
            files = (folder / f"{name}.png", folder / f"{name}.json")
            now = described([options.checkpoint], args)
            refuse_other_results(*files, now, "--output", options.overwrite, ROWS)

    output = folder_of_results(options.output, OUTPUT, check)
    paths = [output / f"{name}.png" for name in pictures]
    prepared = prepare_data(args, model.config, processor)
    # Rows that pre-training did not see, where there are any.
    rows: Any = prepared.validation or prepared.test or prepared.train
    batch = prepared.collator(list(islice(iter(rows), options.num_samples)))
    given: dict[str, Any] = {"processor": prepared.processor, "num_samples": options.num_samples}
    given["class_names"] = known_class_names(args)
    if options.serve:
        demo = Demo(model, batch, prepared.processor, given["class_names"])
        page(demo, f"What {folder.name} sees and predicts").launch()
    chosen: dict[str, Any] = {"whole": options.whole or WHOLE, "partial": options.partial or PARTIAL}
    draw: dict[str, Callable[..., Any]] = {"masked": draw_modalities, "single_inputs": draw_single_inputs}
    draw["repainted"] = partial(draw_repainted, **chosen, num_patches=options.num_patches)
    written = []
    for path in paths:
        try:
            draw[path.stem](model, batch, path, **given)
        except ValueError as error:
            if path.stem != "repainted" or options.whole or options.partial:
                raise
            print(f"Left out: {path}; other modalities can be named by --whole and --partial. {error}", flush=True)
            continue
        write_json(path.with_suffix(".json"), described([options.checkpoint], args))
        print(f"Written: {path}", flush=True)
        written.append(path)
    return written


def _load(folder: Path, checkpoint: str) -> MultiMAEForPretraining:
    """The pre-training model of a folder; `checkpoint` is what the user named."""
    model: Any = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=False).eval()
    if not isinstance(model, MultiMAEForPretraining):
        raise ValueError(
            f"CHECKPOINT {checkpoint!r}: expected a pre-training checkpoint of 'multimae', got one of "
            f"{model.config.model_type!r}"
        )
    return model


def read_arguments(options: argparse.Namespace, overrides: Sequence[str], config: Any) -> DataArguments:
    """The data section of the recipe with the options, or of the options alone."""
    if options.recipe is not None:
        named = {"source": options.source, "data_dir": options.data_dir, "train_split": options.split}
        if options.split is not None:
            named |= {"validation_split": "null", "test_split": "null"}
        words = [word for name, value in named.items() if value is not None for word in (f"--{name}", value)]
        args = load_recipe(options.recipe, [*overrides, *words], {"data": DataArguments})["data"]
        args.augment = False
        return args
    if overrides:
        raise ValueError(f"unknown options {overrides}; fields of `data` need a --recipe")
    source = options.source or ("scenes" if options.data_dir is None else "multimodal_folder")
    chosen: dict[str, Any] = {"max_train_samples": options.num_samples, "verify_images": False, "allow_missing": True}
    if source == "scenes":
        split = options.split or "validation"
        chosen = {"num_scenes": {split: options.num_samples}, "scene_size": list(config.image_size)}
        chosen["input_column"] = scene_columns(config)
    else:
        split = options.split or "train"
    return data_arguments(source, data_dir=options.data_dir, train_split=split, kind="multimodal", **chosen)


def scene_columns(config: Any) -> dict[str, str]:
    """Modality -> its column of the scenes; the classes are `layout` where the model knows as many as that has."""
    names = [modality.name for modality in config.modality_table().values() if modality.source == modality.name]
    columns = {name: name for name in names}
    if "semseg" in columns and config.modality_table()["semseg"].num_classes == len(LAYOUT):
        columns["semseg"] = "layout"
    return columns

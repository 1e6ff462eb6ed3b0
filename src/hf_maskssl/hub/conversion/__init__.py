"""Official checkpoints into folders of this package: `python -m hf_maskssl.hub.conversion METHOD CHECKPOINT OUT`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ...files import refuse_full_folder, whole_folder
from ...methods import METHODS
from ...scripts import OneLineErrors
from ..cards import write_converted_card
from .dabs import DABS_FIELDS
from .metamae import NOT_STORED
from .multimae import NOT_IN_WEIGHTS


def convert(method: str, checkpoint: Path, output: Path, **fields: Any) -> PreTrainedModel:
    """Convert a checkpoint into a folder with weights, code and card, which appears whole or not at all.

    Args:
        method: Model type of a method whose record names a converter.
        checkpoint: The authors' file, or for "sma" their folder; for "multimae" also folder or Hub name of a ViT of transformers.
        output: Folder to write; must be new or empty.
        fields: Further arguments of the method's converter.

    Raises:
        ValueError: The method has no converter, the checkpoint cannot be read or converted, or the folder holds
            something or cannot be written.
    """
    refuse_full_folder(output, "output")
    converter = METHODS[method].load_converter() if method in METHODS else None
    if converter is None:
        known = [name for name, record in METHODS.items() if record.converter is not None]
        raise ValueError(f"method '{method}' has no converter: expected one of {known}.")
    converted = converter(checkpoint, **fields)
    try:
        with whole_folder(output, "output") as folder:
            converted.model.save_pretrained(folder)
            if converted.processor is not None:
                converted.processor.save_pretrained(folder)
            write_converted_card(folder, checkpoint.resolve().name, converted)
    except OSError as error:
        raise ValueError(f"output {output} cannot be written: {error}. Name a folder you may write to.") from error
    return converted.model


def main(argv: Sequence[str] | None = None) -> None:
    """Command line.

    Raises:
        ValueError: The checkpoint cannot be converted.
    """
    parser = OneLineErrors(description=__doc__)
    methods = parser.add_subparsers(dest="method", required=True)
    metamae = methods.add_parser("metamae", help="alinlab/MetaMAE, alextamkin/dabs")
    metamae.add_argument("checkpoint", type=Path, help="the authors' file, e.g. ckpt-100k.pth")
    for name, description in NOT_STORED.items():
        metamae.add_argument(f"--{name}", type=int if name.endswith("heads") else float, help=description)
    for name, (kind, description) in DABS_FIELDS.items():
        metamae.add_argument(f"--{name}", type=kind, help=description)
    sma = methods.add_parser("sma", help="Johnathan-Xie/sma")
    sma.add_argument("checkpoint", type=Path, help="the authors' folder: config.json and pytorch_model.bin")
    sma.add_argument("--modality", choices=["series", "image"], help="modality of a model of continuous inputs")
    multimae = methods.add_parser("multimae", help="EPFL-VILAB/MultiMAE, and the ViTs that it is compared with")
    multimae.add_argument(
        "checkpoint",
        type=Path,
        help="the authors' file, e.g. checkpoint-1599.pth; a ViT in timm's names, e.g. MoCo-v3's vit-b-300ep.pth.tar; or folder "
        "or Hub name of a ViT, DeiT or ViT-MAE of transformers, e.g. facebook/dino-vitb16",
    )
    for name, description in NOT_IN_WEIGHTS.items():
        kind = float if name == "dirichlet_alpha" else int
        multimae.add_argument(f"--{name}", type=kind, help=description)
    others = [name for name, record in METHODS.items() if record.converter is not None and name not in methods.choices]
    for name in others:  # methods of other packages
        methods.add_parser(name).add_argument("checkpoint", type=Path, help="the authors' file or folder")
    for method in methods.choices.values():
        method.add_argument("output", type=Path, help="folder to write; loads with AutoModel.from_pretrained")
    for method in (metamae, sma):
        method.add_argument("--image_size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="default: square")
    options = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    model = convert(**options)
    print(f"{options['output']}: {model.num_parameters():,} parameters, {type(model).__name__}")

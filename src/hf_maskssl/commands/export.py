"""Export a checkpoint to files that run without this package: ONNX, a
torch.export program, or a plain ViT of transformers. The export is run again on
inputs of other sizes and compared with the model before it is kept.

    hf-maskssl export outputs/digits --output digits-onnx
    hf-maskssl export outputs/scenes --inputs rgb --format vit --output vit
"""

import argparse
from pathlib import Path

from ..hub.export import FORMATS, TOLERANCE, ExportOptions, export
from ..scripts import OneLineErrors


def main() -> None:
    """Command line.

    Raises:
        ValueError: The checkpoint cannot be exported so.
        ImportError: A package of the format is missing.
        FileNotFoundError: No such checkpoint.
    """
    parser = OneLineErrors(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="checkpoint folder or Hub name")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder to write, new or empty")
    formats = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    parser.add_argument("--format", default="onnx", metavar="FORMAT", help=f"{formats} (default: onnx)")
    parser.add_argument("--head", help="encoder, or the head's name (default: as the checkpoint was saved)")
    parser.add_argument(
        "--inputs", nargs="+", metavar="NAME", help="modalities to read, of a model of several (default: all)"
    )
    parser.add_argument("--fixed_length", action="store_true", help="keep one length where the model takes several")
    parser.add_argument("--observed_mask", action="store_true", help="read a mask of missing values, too")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"largest difference from the model's outputs (default: {TOLERANCE:g})",
    )
    options = vars(parser.parse_args())
    model, output = options.pop("model"), options.pop("output")
    found = export(model, output, ExportOptions(**options))
    for entry in found["inputs"]:
        print(f"reads {entry['name']}: {entry['dtype']} [{', '.join(map(str, entry['shape']))}]")
    print(f"gives {', '.join(entry['name'] for entry in found['outputs'])}")
    print(f"largest difference from the model: {found['check']['largest_difference']:.2g}")
    print(f"{output}: {found['model']} ({found['head']})")
    print("README.md there says how to run it")

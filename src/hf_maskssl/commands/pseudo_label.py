"""Label pictures with depth and COCO's 133 classes, to pre-train MultiMAE on
them (the paper's section 3.4).

    hf-maskssl pseudo-label --data_dir PICTURES --output_dir FOLDER
    accelerate launch -m hf_maskssl pseudo-label --source HUB_NAME --split train
        --output_dir FOLDER [--mixed_precision bf16]

Depth comes from Intel/dpt-hybrid-midas, classes from
facebook/mask2former-swin-small-coco-panoptic; any network of
AutoModelForDepthEstimation and AutoModelForUniversalSegmentation can take their
places. Writes FOLDER/{rgb,depth,semseg}/CLASS/NAME.EXT, which a recipe reads
with source: multimodal_folder and data_dir: FOLDER, and
FOLDER/pseudo_labels.json. FOLDER lies neither in PICTURES nor around it.

After an interruption, give the same command again: what is labelled is kept.
Pictures that cannot be read are named and left out; more than 1 % of them stop
the run.
"""

import sys

from ..annotation.pseudo_labels import PseudoLabelArguments, make_pseudo_labels
from .options import DataclassParser


def main() -> None:
    """Read the command line, and label."""
    parser = DataclassParser(PseudoLabelArguments, __doc__, "pseudo-label")
    parser.refuse_unknown(sys.argv[1:])
    (args,) = parser.parse_args_into_dataclasses()
    make_pseudo_labels(args)

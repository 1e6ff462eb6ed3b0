"""Label pictures with depth and COCO's 133 classes, to pre-train MultiMAE on them (the paper's section 3.4).

    accelerate launch examples/run_pseudo_label.py --data_dir PICTURES --output_dir FOLDER [--mixed_precision bf16]
    accelerate launch examples/run_pseudo_label.py --source HUB_NAME --split train --output_dir FOLDER

Depth comes from Intel/dpt-hybrid-midas, classes from facebook/mask2former-swin-small-coco-panoptic; any network of
AutoModelForDepthEstimation and AutoModelForUniversalSegmentation can take their places. Writes FOLDER/{rgb,depth,semseg}/
CLASS/NAME.EXT, which a recipe reads with `source: multimodal_folder` and `data_dir: FOLDER`, and FOLDER/pseudo_labels.json.
FOLDER lies neither in PICTURES nor around it.

After an interruption, give the same command again: what is labelled is kept. Pictures that cannot be read are named and
left out; more than 1 % of them stop the run.
"""

import logging

from transformers import HfArgumentParser

from hf_maskssl.annotation.pseudo_labels import PseudoLabelArguments, make_pseudo_labels
from hf_maskssl.scripts import OneLineErrors, run_script


class Parser(OneLineErrors, HfArgumentParser):
    """Options of a dataclass, whose mistakes are told in one line."""


def main() -> None:
    parser = Parser(PseudoLabelArguments, description=__doc__.partition("\n")[0])  # type: ignore[arg-type]
    (args,) = parser.parse_args_into_dataclasses()
    make_pseudo_labels(args)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    logging.getLogger("hf_maskssl").setLevel(logging.INFO)
    run_script(main)

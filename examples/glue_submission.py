"""Pack the predictions of GLUE's test sets into the zip that its server takes.

    python examples/glue_submission.py FOLDER [FOLDER ...] [--output submission.zip]

FOLDER is an output folder of run_finetune.py with --predict_test true, one for each task, or a folder of NAME.tsv files. The
script checks every file, says which of the eleven are missing, and names those whose rows are not as many as the test set's.
Upload the zip at https://gluebenchmark.com/submit. The server scores a zip with all files; a random answer, as for WNLI in
many papers, has to be put in by hand.
"""

import argparse
from pathlib import Path

from hf_maskssl.evaluation.glue_server import pack_submission
from hf_maskssl.scripts import OneLineErrors, run_script


def main() -> None:
    parser = OneLineErrors(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument(
        "--output", type=Path, default=Path("submission.zip"), help="file to write; default: %(default)s"
    )
    options = parser.parse_args()
    packed = pack_submission(options.folders, options.output)
    for name, count in packed["files"].items():
        print(f"{name}.tsv: {count:,} rows")
    for difference in packed["differences"]:
        print(f"warning: {difference}")
    if packed["missing"]:
        print(f"missing: {', '.join(f'{name}.tsv' for name in packed['missing'])}")
    print(f"Written: {options.output}")


if __name__ == "__main__":
    run_script(main)

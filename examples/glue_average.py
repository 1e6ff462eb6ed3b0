"""Average the tasks of GLUE that an encoder was fine-tuned to.

    python examples/glue_average.py FOLDER [FOLDER ...] [--tasks cola,rte,sst2] [--output FILE.json]

FOLDER is an output folder of run_finetune.py, one for each task. The recipe in it names the task; where it does not, write
TASK=FOLDER. The script prints a table: each task's own metric with its 95 % interval over seeds, and the mean over tasks,
all in percent. A task that is missing, or there twice, is an error; `--tasks` averages fewer than the paper's eight.
"""

import argparse
from pathlib import Path

from hf_maskssl.evaluation.glue import GLUE_METRICS, average_tasks
from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.files import write_json
from hf_maskssl.scripts import OneLineErrors, run_script


def main() -> None:
    parser = OneLineErrors(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--tasks", default=",".join(GLUE_METRICS), help="names of the tasks, with commas between them")
    parser.add_argument("--output", type=Path, help="file to write the numbers to as well")
    options = parser.parse_args()
    results = average_tasks(options.folders, [task.strip() for task in options.tasks.split(",")])
    if options.output is not None:
        write_json(options.output, results)
    print(f"Fine-tuned from {results['encoder']}.\n")
    print(markdown_table(results["table"]["rows"], results["table"]["columns"]))


if __name__ == "__main__":
    run_script(main)

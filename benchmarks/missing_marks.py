"""Series patches of which some values are missing: zeros in their place alone, or a learned embedding on such patches besides.

    python benchmarks/missing_marks.py [--sets NAME ...] [--shares 30] [--seeds 0 1 2] [--tables_only]

The rows, holes, steps and probe are those of benchmarks/missing.py, one by one removed ("single"), where almost every patch
lacks something; its runs are the arm without the embedding. Runs with a result in benchmarks/results/missing_marks are left
out.
"""

import json
import tempfile
from pathlib import Path

from common import RESULTS, begin, interval, read_runs, seeded_parser
from missing import (
    RUNS,
    SERIES,
    SHARES,
    SINGLE,
    USUAL_STEPS,
    filling_errors,
    holed_rows,
    is_category,
    pretrained,
    read_set,
)

from hf_maskssl.files import write_json

MARKED = RESULTS / "missing_marks"
FIELD = {"model.partly_observed_embedding": "true"}


def measure(name: str, share: int, seed: int) -> None:
    """One run with the embedding; one file."""
    path = MARKED / f"{name}-{share}-{seed}.json"
    plain = RUNS / f"{name}-{SINGLE}-{share}-{seed}.json"
    if path.exists():
        return
    if not plain.exists():
        raise SystemExit(f"{plain} is not there: run benchmarks/missing.py for this set, share and seed first.")
    whole = read_set(name)
    holed = holed_rows(whole, share, SINGLE, seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer, score = pretrained(name, holed, Path(folder), USUAL_STEPS, seed, FIELD)
        columns = is_category(name, whole["train"].values.shape[2])
        error = filling_errors(trainer, holed, whole["test"], columns)["model"]["numbers"]
    without = json.loads(plain.read_text(encoding="utf-8"))
    scores = {"zeros": without["scores"]["mask"], "marked": score}
    errors = {"zeros": without["errors"]["model"]["numbers"], "marked": error}
    write_json(path, {"data_set": name, "share": share, "seed": seed, "scores": scores, "errors": errors})
    print(f"{path.stem}: {scores}, filling {errors}", flush=True)


def write_tables() -> None:
    """benchmarks/results/missing_marks.json from whatever runs have ended."""
    runs, rows = read_runs(MARKED), []
    for name, share in sorted({(run["data_set"], run["share"]) for run in runs}):
        own = [run for run in runs if (run["data_set"], run["share"]) == (name, share)]
        scores = [interval([run["scores"][arm] for run in own]) for arm in ("zeros", "marked")]
        difference = interval([run["scores"]["marked"] - run["scores"]["zeros"] for run in own])
        errors = [interval([run["errors"][arm] for run in own], 1) for arm in ("zeros", "marked")]
        rows.append([name, share, len(own), *scores, difference, *errors])
    columns = [
        "data set",
        "%",
        "seeds",
        "zeros",
        "zeros and an embedding",
        "difference",
        "filling, zeros",
        "filling, embedding",
    ]
    what = "test accuracy in per cent of frozen features, and the error of filling in standard deviations"
    write_json(RESULTS / "missing_marks.json", {"what": what, "table": {"columns": columns, "rows": rows}})


def main() -> None:
    parser = seeded_parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SERIES, default=SERIES)
    parser.add_argument("--shares", nargs="+", type=int, choices=SHARES[1:], default=[30])
    options = parser.parse_args()
    begin(MARKED)
    if not options.tables_only:
        for seed in options.seeds:
            for name in options.sets:
                for share in options.shares:
                    measure(name, share, seed)
    write_tables()


if __name__ == "__main__":
    main()

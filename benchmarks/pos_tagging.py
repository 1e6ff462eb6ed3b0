"""How fast text is tagged with parts of speech, and how far the tags agree with those of people.

    python benchmarks/pos_tagging.py [--processes 1 2] [--repeats 3] [--sentences N] [--tables_only]

Tags sentences of the Brown corpus, their words joined by blanks, as `examples/run_tag_pos.py` does: from Parquet to Parquet, with
splitting into sentences and words, by so many processes. On one process also the time of each step alone, and the share of words
whose part of speech is the corpus's own (its `upos`). Each run is written to benchmarks/results/pos_tagging/ as it ends. The data
is found through HF_MASKSSL_SHARED, the tagger's through NLTK_DATA or, failing that, beside the former.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import RESULTS, ROOT, device_name, interval, read_runs
from matplotlib.figure import Figure

from hf_maskssl.annotation.tag_folder import TaggingArguments, tag_folder
from hf_maskssl.data.masked_text.parts_of_speech import task_ids
from hf_maskssl.data.masked_text.pos_tagging import sentence_spans, tag_words, word_spans
from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.files import write_json
from hf_maskssl.models.configuration_pos_minimax_bert import PARTS_OF_SPEECH

NAME = "pos_tagging"
ROWS_PER_PART = 1000


def read_corpus(file: Path, count: int | None) -> tuple[list[list[str]], list[list[str]]]:
    """Words and universal tags of the first sentences."""
    table = pq.read_table(file, columns=["tokens", "upos"])
    table = table if count is None else table.slice(0, count)
    return table["tokens"].to_pylist(), table["upos"].to_pylist()


def tag_once(texts: Sequence[str], processes: int) -> dict[str, Any]:
    """What tagging says of its speed, from a Parquet file to Parquet parts; starting the processes counts."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "text.parquet"
        pq.write_table(pa.table({"text": texts}), source)
        args = TaggingArguments(
            output_dir=str(Path(folder) / "tagged"),
            source="parquet",
            data_files=[str(source)],
            rows_per_part=ROWS_PER_PART,
            num_proc=processes,
        )
        return tag_folder(args)["splits"]["train"]["run"]


def steps_alone(texts: Sequence[str]) -> dict[str, float]:
    """Seconds of each step on this process."""
    seconds = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - started
        return result

    spans = timed("sentences", lambda: [sentence_spans(text) for text in texts])
    sentences = [text[start:end] for text, found in zip(texts, spans, strict=True) for start, end in found]
    spans = timed("words", lambda: [word_spans(sentence) for sentence in sentences])
    words = [[text[start:end] for start, end in found] for text, found in zip(sentences, spans, strict=True)]
    timed("tags", lambda: tag_words(words))
    return seconds


def agreement(words: Sequence[Sequence[str]], upos: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of words with the corpus's part of speech (or none), of all and of those of each part in the corpus."""
    found, expected = (
        np.concatenate([task_ids(tags, PARTS_OF_SPEECH)[0] for tags in given]) for given in (tag_words(words), upos)
    )
    shares = {"all": float((found == expected).mean())}
    for number, part in enumerate(PARTS_OF_SPEECH):
        if (expected == number).any():
            shares[part] = float((found == expected)[expected == number].mean())
    return shares


# Tables and plots.


def speed_table(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean speed over the repeats, with intervals, and against one process."""
    rows = []
    alone = speeds(runs[0], "sentences") if runs and runs[0]["processes"] == 1 else []
    for run in runs:
        rates = [interval(speeds(run, unit), factor=1) for unit in ("sentences", "words")]
        gain = float(np.mean(speeds(run, "sentences")) / np.mean(alone)) if alone else None
        rows.append([run["processes"], *rates, gain, run["device_name"]])
    return {"columns": ["processes", "sentences/s", "words/s", "times one process", "processor"], "rows": rows}


def speeds(run: dict[str, Any], unit: str) -> list[float]:
    return [repeat[unit] / repeat["seconds"] for repeat in run["repeats"]]


def write_tables(folder: Path) -> None:
    """pos_tagging.json and .png beside `folder`, from whatever has been measured."""
    results = read_runs(folder)
    runs = sorted((result for result in results if "processes" in result), key=lambda result: result["processes"])
    alone = next((result for result in results if "agreement" in result), None)
    tables = {"speed": speed_table(runs)}
    if alone is not None:
        shares = alone["agreement"]
        tables["agreement"] = {
            "columns": list(shares),
            "rows": [[100 * share for share in shares.values()]],
        }
    write_json(
        folder.with_suffix(".json"),
        {
            "what": "speed of tagging sentences of Brown with NLTK, mean and 95 % interval over repeats; share of words (%) "
            "whose part of speech is the corpus's own",
            "tables": tables,
            "runs": results,
        },
    )
    draw(runs, alone, folder.with_suffix(".png"))
    for table in tables.values():
        print(markdown_table(table["rows"], table["columns"]), end="\n\n")


def draw(runs: list[dict[str, Any]], alone: dict[str, Any] | None, path: Path) -> None:
    """Speed against processes to the left, what one process spends its time on to the right."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    cells = [interval(speeds(run, "sentences"), factor=1) for run in runs]
    known = [(run["processes"], cell) for run, cell in zip(runs, cells, strict=True) if cell is not None]
    names = [str(processes) for processes, _ in known]
    left.bar(names, [cell["mean"] for _, cell in known], 0.5, yerr=[cell["half_width"] or 0.0 for _, cell in known])
    left.set_xlabel("processes")
    left.set_ylabel("sentences per second")
    if alone is not None:
        steps = alone["seconds_alone"]
        right.barh(list(steps), [1e6 * seconds / alone["sentences"] for seconds in steps.values()], 0.5)
        right.set_xlabel("microseconds per sentence, one process")
        right.invert_yaxis()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=None, help="the first so many; all where not given")
    parser.add_argument("--output", type=Path, default=RESULTS / NAME, help="folder of the measurements")
    parser.add_argument("--tables_only", action="store_true", help="make the tables and the plot of what was measured")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    os.environ.setdefault("HF_MASKSSL_SHARED", str(ROOT.parent / "shared"))
    shared = Path(os.environ["HF_MASKSSL_SHARED"]) / "data"
    os.environ.setdefault("NLTK_DATA", str(shared / "nltk_data"))
    missing = [count for count in options.processes if not (options.output / f"processes-{count}.json").exists()]
    alone = options.output / "alone.json"
    if not options.tables_only and (missing or not alone.exists()):
        words, upos = read_corpus(shared / "text" / "brown" / "train.parquet", options.sentences)
        texts = [" ".join(sentence) for sentence in words]
        for count in missing:
            result = {"processes": count, "device_name": device_name("cpu", count)}
            result["repeats"] = [tag_once(texts, count) for _ in range(options.repeats)]
            write_json(options.output / f"processes-{count}.json", result)
            print(f"{count} processes: {np.mean(speeds(result, 'sentences')):.0f} sentences/s", flush=True)
        if not alone.exists():
            steps = steps_alone(texts)
            write_json(alone, {"sentences": len(texts), "seconds_alone": steps, "agreement": agreement(words, upos)})
    write_tables(options.output)


if __name__ == "__main__":
    main()

"""The files that GLUE's server scores (https://gluebenchmark.com, Wang et al. 2018): one for each test set, all in a zip."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import JsonObject, write_whole

HEADER = "index\tprediction"
HIGHEST_SIMILARITY = 5.0  # STS-B has scores from 0 to 5
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the date of every file in a zip: equal predictions make equal bytes
NAMED = 5

NLI, YES_NO = ("entailment", "neutral", "contradiction"), ("0", "1")


@dataclass(frozen=True)
class ServerTask:
    """A task as the server has it.

    Attributes:
        words: What the server reads for each class, in the order of the ids of nyu-mll/glue; empty for STS-B, whose values it
            reads.
        names: Names of these classes in nyu-mll/glue.
        files: Name of a file without its ending -> the split of nyu-mll/glue that it is of.
    """

    words: tuple[str, ...]
    names: tuple[str, ...]
    files: Mapping[str, str]


# AX, the diagnostic set, is a configuration of its own with one split; a model of MNLI answers it.
DIAGNOSTIC = "AX"
SERVER_TASKS = {
    "cola": ServerTask(YES_NO, ("unacceptable", "acceptable"), {"CoLA": "test"}),
    "sst2": ServerTask(YES_NO, ("negative", "positive"), {"SST-2": "test"}),
    "mrpc": ServerTask(YES_NO, ("not_equivalent", "equivalent"), {"MRPC": "test"}),
    "stsb": ServerTask((), (), {"STS-B": "test"}),
    "qqp": ServerTask(YES_NO, ("not_duplicate", "duplicate"), {"QQP": "test"}),
    "mnli": ServerTask(NLI, NLI, {"MNLI-m": "test_matched", "MNLI-mm": "test_mismatched", DIAGNOSTIC: "ax"}),
    "qnli": ServerTask(("entailment", "not_entailment"), ("entailment", "not_entailment"), {"QNLI": "test"}),
    "rte": ServerTask(("entailment", "not_entailment"), ("entailment", "not_entailment"), {"RTE": "test"}),
    "wnli": ServerTask(YES_NO, ("not_entailment", "entailment"), {"WNLI": "test"}),
}
# File -> rows of the test set.
SERVER_ROWS = {
    **{"CoLA": 1_063, "SST-2": 1_821, "MRPC": 1_725, "STS-B": 1_379, "MNLI-m": 9_796, "MNLI-mm": 9_847},
    **{"QNLI": 5_463, "RTE": 3_000, "QQP": 390_965, "WNLI": 146, DIAGNOSTIC: 1_104},
}


def words_of_classes(task: str, label_names: Sequence[str] | None) -> tuple[str, ...]:
    """The server's word for each class of a model.

    Args:
        task: A key of `SERVER_TASKS`.
        label_names: Names of the model's classes: those of nyu-mll/glue, or ids in its order ("0", "1", ...); None for values.

    Returns:
        A word for each; empty for STS-B.

    Raises:
        ValueError: Other classes than the task's.
    """
    server = SERVER_TASKS[task]
    if not server.words:
        if label_names:
            raise ValueError(f"{task}: the server reads values, but the model says the classes {list(label_names)}.")
        return ()
    by_name = dict(zip(server.names, server.words, strict=True)) | {
        str(number): word for number, word in enumerate(server.words)
    }
    found = tuple(by_name.get(name, "") for name in label_names or ())
    if sorted(found) != sorted(server.words):
        raise ValueError(
            f"{task}: expected the classes {list(server.names)}, or their ids 0 to {len(server.words) - 1} in this order, got "
            f"{list(label_names or ())}: write the labels of the data so."
        )
    return found


def submission_text(outputs: np.ndarray, index: Sequence[int], words: Sequence[str]) -> str:
    """The content of a file: a line for each row, by rising index.

    Args:
        outputs: (n, L) logits of the classes, or (n,) or (n, 1) values.
        index: The row's number in the test set.
        words: The word of each class; none for values, which are clipped to 0 to 5 and have three decimals.

    Raises:
        ValueError: Outputs that are not finite, or numbers that are not 0 to n - 1, each once.
    """
    if not np.isfinite(outputs).all():
        raise ValueError("predictions: expected finite outputs, got NaN or infinite ones.")
    if sorted(index) != list(range(len(outputs))):
        raise ValueError(
            f"predictions: expected the rows 0 to {len(outputs) - 1} of the test set, each once, got {sorted(index)[:NAMED]} ..."
        )
    if words:
        said = [words[number] for number in outputs.argmax(axis=-1)]
    else:
        said = [f"{value:.3f}" for value in np.clip(outputs.reshape(-1), 0.0, HIGHEST_SIMILARITY)]
    lines = [f"{number}\t{word}" for number, word in sorted(zip(index, said, strict=True))]
    return "\n".join([HEADER, *lines]) + "\n"


def pack_submission(folders: Sequence[Path], output: Path) -> JsonObject:
    """Put the files of several folders into one zip for the server; an interrupted write leaves the former file.

    Args:
        folders: Output folders of fine-tuning (which have the files in `glue`), or folders of the files themselves.
        output: File to write.

    Returns:
        {"files": {name: rows}, "missing": names of files that are not there, "differences": sentences on numbers of rows that are
        not those of the test sets}.

    Raises:
        FileNotFoundError: A folder without such files.
        ValueError: A file that is there twice, or is not as the server reads it.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        place = folder / "glue" if (folder / "glue").is_dir() else folder
        files = [place / f"{name}.tsv" for name in SERVER_ROWS if (place / f"{name}.tsv").is_file()]
        if not files:
            raise FileNotFoundError(
                f"{place} holds none of {', '.join(f'{name}.tsv' for name in SERVER_ROWS)}: fine-tune with --predict_test true."
            )
        for path in files:
            if path.stem in found:
                raise ValueError(
                    f"{path.name} is there twice, in {found[path.stem].parent} and {place}: name one of them."
                )
            found[path.stem] = path
    texts = {name: found[name].read_text(encoding="utf-8") for name in SERVER_ROWS if name in found}
    counts = {name: _check_file(found[name], text) for name, text in texts.items()}

    def write(aside: Path) -> None:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                entry = zipfile.ZipInfo(f"{name}.tsv", LONG_AGO)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, text)

    write_whole(output, write)
    differences = [
        f"{name}.tsv has {count:,} rows, the test set {SERVER_ROWS[name]:,}: the server will refuse it"
        for name, count in counts.items()
        if count != SERVER_ROWS[name]
    ]
    return {
        "files": counts,
        "missing": [name for name in SERVER_ROWS if name not in found],
        "differences": differences,
    }


def _check_file(path: Path, text: str) -> int:
    """The number of rows of a file.

    Raises:
        ValueError: A header, an index or a prediction that the server does not read.
    """
    lines = text.splitlines()
    if not lines or lines[0] != HEADER:
        raise ValueError(f"{path}: expected the first line {HEADER!r}, got {lines[:1]}.")
    task = next(server for server in SERVER_TASKS.values() if path.stem in server.files)
    for number, line in enumerate(lines[1:]):
        index, _, word = line.partition("\t")
        if index != str(number) or not (word in task.words if task.words else _is_similarity(word)):
            wanted = f"one of {sorted(set(task.words))}" if task.words else "a value from 0 to 5"
            raise ValueError(f"{path}: line {number + 2}: expected {number}, a tab and {wanted}, got {line!r}.")
    return len(lines) - 1


def _is_similarity(word: str) -> bool:
    try:
        return 0.0 <= float(word) <= HIGHEST_SIMILARITY
    except ValueError:
        return False

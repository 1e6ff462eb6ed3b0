"""Bases of bacteria: Genomics and Genomics-OOD."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .cuts import cut
from .raw import RawFolder
from .record import Rows
from .tfrecords import Feature, examples

BASES = 250
LETTERS = str.maketrans("0123", "ACGT")
# Split of TensorFlow Datasets -> folder of the release, and the rows of each class that TensorFlow Datasets has.
PARTS = {
    "train": ("before_2011_in_tr", 100_000),
    "validation": ("between_2011-2016_in_val", 10_000),
    "validation_ood": ("between_2011-2016_ood_val", 10_000),
}


def genomics(raw: RawFolder) -> Iterator[Rows]:
    """Bacteria found before 2011 to pre-train on, those found until 2016 to probe."""
    yield from _part(raw, "train", ("train", "held_out"))
    yield from _part(raw, "validation", ("probe", "test"))


def genomics_ood(raw: RawFolder) -> Iterator[Rows]:
    """The 60 classes that occur in no training row, to probe."""
    yield from _part(raw, "validation_ood", ("probe", "test"))


def _part(raw: RawFolder, part: str, splits: tuple[str, str]) -> Iterator[Rows]:
    files, most = _files(raw, part)
    names = cut(sum(1 for _ in _sequences(raw, files, most)), splits)
    for split, (sequence, label) in zip(names, _sequences(raw, files, most), strict=True):
        if split != "held_out":  # DABS's validation rows of pre-training, which no number of the paper stands on
            yield Rows(split, {"sequence": sequence, "label": label})


def _files(raw: RawFolder, part: str) -> tuple[list[Path], int]:
    """Files that TensorFlow Datasets has prepared, or those of the release, whose classes may have more rows."""
    folder, most = PARTS[part]
    prepared = f"genomics_ood-{part}.tfrecord*"
    try:
        return raw.every(prepared), most
    except FileNotFoundError:
        return raw.every(f"{folder}/*.tfrecord*"), most


def _sequences(raw: RawFolder, files: list[Path], most: int) -> Iterator[tuple[str, int]]:
    """Letters and class of each row, the first `most` of each class."""
    seen: Counter[int] = Counter()
    for path in files:
        if path.suffix == ".index":
            continue
        raw.current = path
        for row in examples(path):
            sequence, label = _row(row)
            seen[label] += 1
            if seen[label] <= most:
                yield sequence, label


def _row(row: dict[str, Feature]) -> tuple[str, int]:
    """`x`, numbers with blanks between them, and `y` of the release; `seq` and `label` of TensorFlow Datasets."""
    text, label = row.get("seq", row.get("x", [])), row.get("label", row.get("y", []))
    if len(text) != 1 or len(label) != 1 or not isinstance(text[0], bytes) or not isinstance(label[0], int):
        raise ValueError(f"expected the features x and y, or seq and label, got {sorted(row)}")
    letters = text[0].decode().replace(" ", "").translate(LETTERS)
    if len(letters) != BASES or set(letters) - set("ACGT"):
        raise ValueError(f"expected {BASES} letters of A C G T, got {letters[:40]!r} ({len(letters)} letters)")
    return letters, label[0]

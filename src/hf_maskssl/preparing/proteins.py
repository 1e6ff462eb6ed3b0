"""Proteins: Pfam and the tasks of TAPE."""

import math
from collections.abc import Iterator

from ..files import JsonObject
from .cuts import SHARE, shuffled
from .json_records import json_records
from .raw import RawFolder, wanted_columns
from .record import Cell, Rows

TRANSFER_ROWS = 200_000  # rows of Pfam's validation file that DABS probes on
LENGTH = 128  # Table 16 of the MetaMAE paper
PADDING, CLASS_OF_PADDING = "X", 3


def pfam(raw: RawFolder) -> Iterator[Rows]:
    """The training file to pre-train on, and DABS's 200,000 rows of the validation file to probe."""
    valid = raw.find("pfam/pfam_valid.json", "pfam_valid.json")
    for record in _records(raw, "pfam/pfam_train.json", ("primary", "clan")):
        yield Rows("train", {"primary": record["primary"], "clan": record["clan"]})
    raw.current = valid
    order = shuffled(sum(1 for _ in json_records(valid)))[-TRANSFER_ROWS:].tolist()
    size = math.ceil(SHARE * len(order))
    splits = dict.fromkeys(order[:size], "probe") | dict.fromkeys(order[size:], "test")
    for row, record in enumerate(json_records(valid)):
        if row in splits:
            yield Rows(splits[row], {"primary": record["primary"], "clan": record["clan"]})


def scop(raw: RawFolder) -> Iterator[Rows]:
    """Folds of SCOP: remote homology."""
    files = {"train": "train", "valid": "valid", "test": "test_fold_holdout"}
    for split, ending in files.items():
        for record in _records(raw, f"remote_homology/remote_homology_{ending}.json", ("primary", "fold_label")):
            yield Rows(split, {"primary": record["primary"], "fold_label": record["fold_label"]})


def secondary_structure(raw: RawFolder) -> Iterator[Rows]:
    """A class for each residue: helix, strand or other; `padded` and `ss4` as DABS pads them."""
    wanted = ("primary", "ss3", "valid_mask")
    for split, ending in {"train": "train", "valid": "valid", "test": "cb513"}.items():
        for record in _records(raw, f"secondary_structure/secondary_structure_{ending}.json", wanted):
            primary, classes = str(record["primary"]), list(record["ss3"])
            if len(primary) != len(classes) or len(primary) != len(record["valid_mask"]):
                raise ValueError(
                    f"{split}: a protein of {len(primary)} letters has {len(classes)} classes and "
                    f"{len(record['valid_mask'])} entries of valid_mask"
                )
            cut = classes[:LENGTH]
            row: dict[str, Cell] = {"primary": primary, "ss3": classes}
            row["mask"] = [int(is_valid) for is_valid in record["valid_mask"]]
            row["padded"] = primary[:LENGTH].ljust(LENGTH, PADDING)
            row["ss4"] = cut + [CLASS_OF_PADDING] * (LENGTH - len(cut))
            yield Rows(split, row)


def stability(raw: RawFolder) -> Iterator[Rows]:
    """Stability of small designed proteins."""
    yield from _regression(raw, "stability", "stability_score")


def fluorescence(raw: RawFolder) -> Iterator[Rows]:
    """Brightness of variants of avGFP."""
    yield from _regression(raw, "fluorescence", "log_fluorescence")


def _regression(raw: RawFolder, name: str, column: str) -> Iterator[Rows]:
    """Files whose label is a list of one number."""
    for split in ("train", "valid", "test"):
        for record in _records(raw, f"{name}/{name}_{split}.json", ("primary", column)):
            label = record[column]
            number = label[0] if isinstance(label, list) and len(label) == 1 else label
            if not isinstance(number, int | float):
                raise ValueError(f"{column}: expected a number or a list of one, got {label!r:.60}")
            yield Rows(split, {"primary": record["primary"], column: float(number)})


def _records(raw: RawFolder, name: str, wanted: tuple[str, ...]) -> Iterator[JsonObject]:
    path = raw.find(name, name.rpartition("/")[2])
    for record in json_records(path):
        wanted_columns(path, record, wanted)
        yield record

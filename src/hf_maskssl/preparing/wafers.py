"""Maps of defects on silicon wafers: WM-811K."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..extras import missing_extra
from .cuts import cut
from .raw import RawFolder
from .record import Rows

if TYPE_CHECKING:
    import h5py

UNLABELLED = ""
GREYS = np.array([0, 127, 255], dtype=np.uint8)  # 127.5 times 0, 1 and 2, as DABS rounds them
MATLAB_CLASS, MATLAB_EMPTY = "MATLAB_class", "MATLAB_empty"
LABELS = ("none", "random", "donut", "scratch", "center", "loc", "edge-loc", "edge-ring", "near-full")


def wafer_map(raw: RawFolder) -> Iterator[Rows]:
    """Maps without a failure type to pre-train on, those with one to probe; each shuffled and cut 90 / 10."""
    try:
        import h5py
    except ImportError as error:
        raise missing_extra("Reading WM811K.mat", "prepare", error) from error
    path = raw.find("WM811K.mat")
    with h5py.File(path) as file:
        if "data" not in file or not {"failureType", "waferMap"} <= set(file["data"]):
            raise ValueError(f"expected data with failureType and waferMap, got {sorted(file)}")
        types = [_text(file, reference) for reference in file["data/failureType"][()].ravel()]
        splits = _splits(types)
        for row, reference in enumerate(file["data/waferMap"][()].ravel()):
            if splits[row] != "held_out":
                picture = _picture(file, reference, row)
                yield Rows(splits[row], {"image": picture, "label": types[row] or None})


def _splits(types: list[str]) -> list[str]:
    splits = ["held_out"] * len(types)
    for is_labelled, names in ((False, ("train", "held_out")), (True, ("probe", "test"))):
        rows = [row for row, text in enumerate(types) if bool(text) == is_labelled]
        for row, split in zip(rows, cut(len(rows), names), strict=True):
            splits[row] = split
    return splits


def _leaf(file: "h5py.File", reference: object) -> "h5py.Dataset":
    """The array behind a reference: MATLAB puts cells, references again, around it."""
    import h5py

    found = file[reference]
    while isinstance(found, h5py.Dataset) and found.dtype == h5py.ref_dtype:
        found = file[found[()].ravel()[0]]
    return found


def _text(file: "h5py.File", reference: object) -> str:
    """A failure type in lower letters; empty where the wafer has none."""
    leaf = _leaf(file, reference)
    kind = leaf.attrs.get(MATLAB_CLASS, b"")
    if leaf.attrs.get(MATLAB_EMPTY, 0) or bytes(kind) != b"char":
        return UNLABELLED
    text = "".join(map(chr, leaf[()].ravel().tolist())).lower()
    if text not in LABELS:
        raise ValueError(f"failureType: expected one of {list(LABELS)}, got {text!r}")
    return text


def _picture(file: "h5py.File", reference: object, row: int) -> bytes:
    """A map as a grey PNG; MATLAB's rows are the columns of HDF5."""
    values = np.asarray(_leaf(file, reference)[()]).T
    if values.ndim != 2 or not np.isin(values, (0, 1, 2)).all():
        raise ValueError(f"waferMap {row}: expected a map of 0, 1 and 2, got shape {values.shape}")
    content = io.BytesIO()
    Image.fromarray(GREYS[values.astype(np.int64)]).save(content, format="PNG")
    return content.getvalue()

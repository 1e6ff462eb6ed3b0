"""Wearable sensors: PAMAP2."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from .cuts import SEED
from .raw import RawFolder
from .record import Rows

SUBJECTS = {"train": (101, 102, 103, 104, 107, 108, 109), "test": (105, 106)}
WINDOWS = {"train": 50_000, "test": 10_000}
STEPS = 320
ACTIVITIES = (1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 17, 24)
COLUMNS = 54  # time stamp, activity, heart rate, 17 values of each of three sensors
ACTIVITY, FIRST = 1, 2


def pamap2(raw: RawFolder) -> Iterator[Rows]:
    """Windows of 320 steps of one activity of one subject, drawn once."""
    base = raw.base("Protocol/subject101.dat")
    random = np.random.default_rng(SEED)
    for split, subjects in SUBJECTS.items():
        runs: list[tuple[np.ndarray, int]] = []
        for subject in subjects:
            runs += _activities(raw, str((base / f"Protocol/subject{subject}.dat").relative_to(base)))
        if not runs:
            continue
        count = WINDOWS[split] if raw.max_rows is None else min(WINDOWS[split], raw.max_rows)
        for _ in range(count):
            values, label = runs[random.integers(len(runs))]
            start = random.integers(len(values) - STEPS)
            window = values[start : start + STEPS].T
            yield Rows(split, {"series": list(window), "label": label})


def _activities(raw: RawFolder, name: str) -> list[tuple[np.ndarray, int]]:
    """The (steps, 52) float32 values of each activity of a subject that lasts longer than a window, and its class."""
    path = raw.find(name)
    table = pd.read_csv(path, sep=r"\s+", header=None)
    if table.shape[1] != COLUMNS:
        raise ValueError(f"expected {COLUMNS} columns, got {table.shape[1]}")
    # What is missing in front of the first value is no part of any activity that is kept.
    whole = table.interpolate(limit_direction="both").to_numpy(dtype=np.float32)
    found = []
    for label, activity in enumerate(ACTIVITIES):
        values = whole[whole[:, ACTIVITY] == activity, FIRST:]
        if len(values) > STEPS:
            found.append((values, label))
    return found

"""Training, validation and test split, given by the source or cut out of one split."""

from collections.abc import Sequence

import numpy as np
from datasets import Dataset, IterableDataset

from ..arguments import DataArguments
from .columns import require_columns
from .file_paths import with_whole_paths
from .files import READING_ERRORS
from .labels import drop_missing_labels
from .report import DataReport
from .scaffolds import scaffold_groups
from .sources import AnyDataset, choose_rows, first_row, read_split, unreadable_stream

ROLES = ("train", "validation", "test")


def load_splits(args: DataArguments) -> dict[str, AnyDataset]:
    """The raw splits a recipe names.

    Args:
        args: The recipe's data section.

    Returns:
        `"train"` and, where named (or cut by `validation_fraction` or `split`), `"validation"` and `"test"`, each
        limited to its `max_*_samples`.

    Raises:
        ValueError: An unset environment variable, a split that is not there or has no rows, or an unreadable file.
        FileNotFoundError: A file, folder or Hub data set that does not exist.
        ImportError: A scaffold split without RDKit.
    """
    return limit_splits(read_splits(args), args)


def read_splits(args: DataArguments, report: DataReport | None = None) -> dict[str, AnyDataset]:
    """The splits of `load_splits` before `max_*_samples` are applied; the errors are the same.

    Args:
        args: The recipe's data section.
        report: Report that counts files and rows that are left out; the log does too.
    """
    names = {"train": args.train_split, "validation": args.validation_split, "test": args.test_split}
    splits = {
        role: with_whole_paths(read_split(args, name, report if role == "train" else None), args, name)
        for role, name in names.items()
        if name is not None
    }
    for role, split in splits.items():
        _refuse_empty(split, role, names[role] or args.train_split, args)
    splits = {role: args.assembled(split, role) for role, split in splits.items()}
    if args.drop_missing_labels or isinstance(args.label_column, list):
        splits = {role: drop_missing_labels(split, args, role, report) for role, split in splits.items()}
    if args.split != "given":
        cut = cut_split(splits["train"], args)
        if report is not None:
            lost = len(splits["train"]) - sum(map(len, cut.values()))
            report.leave_out(
                "train", lost, f"in no part of data.split {args.split!r}, such as SMILES that cannot be read"
            )
        return dict(cut)
    if args.validation_fraction:
        of_steps = args.cut_in_time(splits["train"])
        of_rows = of_steps or _cut(splits["train"], args.validation_fraction, args.split_seed)
        splits["train"], splits["validation"] = of_rows
    return splits


def cut_names(args: DataArguments) -> list[str]:
    """The splits that are cut off the training rows by chance or by a rule, and not the source's own."""
    if args.split != "given":
        return [name for name in split_names(args) if name != "train"]
    return ["validation"] if args.validation_fraction else []


def split_names(args: DataArguments) -> list[str]:
    """The splits that `read_splits` will give, told without reading anything."""
    if args.split != "given":
        return [role for role, fraction in zip(ROLES, args.split_fractions, strict=True) if fraction > 0.0]
    named = {"train": args.train_split, "validation": args.validation_split or args.validation_fraction}
    return [role for role, name in (named | {"test": args.test_split}).items() if name]


def limit_splits(splits: dict[str, AnyDataset], args: DataArguments) -> dict[str, AnyDataset]:
    """At most `max_<split>_samples` rows of each split: a seeded choice in the original order; of a stream the first.

    The choice is random because many sets are sorted by class.
    """
    limited = {}
    for role, split in splits.items():
        limit = args.max_samples[role]
        if limit is not None and isinstance(split, IterableDataset):
            split = split.take(limit)
        elif limit is not None and limit < len(split):
            split = choose_rows(split, limit, args.split_seed)
        limited[role] = split
    return limited


def cut_split(dataset: Dataset, args: DataArguments) -> dict[str, Dataset]:
    """Cut one split into training, validation and test rows, which keep their order.

    Args:
        dataset: All rows.
        args: `split`, `split_fractions`, `split_seed` and `split_column` are read.

    Returns:
        The splits whose fraction is not 0.

    Raises:
        ValueError: No such column, or a split that would have no rows.
        ImportError: A scaffold split without RDKit.
    """
    groups = _groups(dataset, args)
    if args.split != "scaffold":
        groups = _drawn_order(groups, args)
    parts = fill_parts(groups, args.split_fractions)
    cut = {}
    for role, rows, fraction in zip(ROLES, parts, args.split_fractions, strict=True):
        if len(rows) == 0 and fraction > 0.0:
            raise ValueError(
                f"data.split {args.split!r} with data.split_fractions {args.split_fractions} leaves no row for the "
                f"{role} split: {sum(map(len, parts))} rows in {len(groups)} groups, the largest of "
                f"{max(map(len, groups), default=0)}; choose other fractions or another data.split"
            )
        if fraction > 0.0:
            cut[role] = dataset.select(rows)
    return cut


def fill_parts(groups: Sequence[Sequence[int]], fractions: Sequence[float]) -> tuple[np.ndarray, ...]:
    """Deal whole groups out: to the first part while they fit, else to the second, else to the third.

    deepchem's `ScaffoldSplitter` (Ramsundar et al. 2019). A group too large for the rest of a part does not close
    it: later, smaller ones still go there.

    Args:
        groups: Row numbers of each group, in the order of dealing.
        fractions: Size of each of the three parts, together 1.

    Returns:
        Sorted row numbers of each part, int64.
    """
    total = sum(map(len, groups))
    # The sums are rounded, because 0.7 + 0.2 is a little less than 0.9.
    first_end = round(fractions[0] * total, 6)
    second_end = round((fractions[0] + fractions[1]) * total, 6)
    parts: tuple[list[int], ...] = ([], [], [])
    for group in groups:
        if len(parts[0]) + len(group) <= first_end:
            parts[0].extend(group)
        elif len(parts[0]) + len(parts[1]) + len(group) <= second_end:
            parts[1].extend(group)
        else:
            parts[2].extend(group)
    return tuple(np.sort(np.asarray(part, dtype=np.int64)) for part in parts)


def _drawn_order(groups: list[list[int]], args: DataArguments) -> list[list[int]]:
    """A drawn order in which groups too large for validation or test come first, and so go into training."""
    total = sum(map(len, groups))
    smallest = min((fraction * total for fraction in args.split_fractions[1:] if fraction > 0.0), default=total)
    order = np.random.default_rng(args.split_seed).permutation(len(groups))
    drawn = [groups[place] for place in order]
    return sorted(drawn, key=lambda group: len(group) <= smallest / 2)


def _groups(dataset: Dataset, args: DataArguments) -> list[list[int]]:
    """Groups of rows that have to stay together."""
    column = args.split_column
    if args.split == "random" and column is None:
        return [[row] for row in range(len(dataset))]
    field = "split_column"
    if column is None:
        # The arguments were checked: a scaffold split without a split column has one input column.
        field, column = "input_column", str(args.input_column)
    require_columns(dataset, [(field, column)], "train")
    if args.split != "random":
        return scaffold_groups(dataset, column, args.num_proc)
    equal: dict[object, list[int]] = {}
    for row, value in enumerate(dataset.with_format(None)[column]):
        equal.setdefault(tuple(value) if isinstance(value, list) else value, []).append(row)
    return list(equal.values())


def cut_rows(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers, rising, of the rows to train on and of those that a validation split holds out, at least one.

    Raises:
        ValueError: None is left to train on.
    """
    held_out = max(1, round(fraction * count))
    if held_out >= count:
        raise ValueError(f"data.validation_fraction {fraction} of {count} training rows leaves none to train on")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _cut(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    kept, held_out = cut_rows(len(dataset), fraction, seed)
    return dataset.select(kept), dataset.select(held_out)


def _refuse_empty(split: AnyDataset, role: str, name: str, args: DataArguments) -> None:
    try:
        is_empty = first_row(split) is None if isinstance(split, IterableDataset) else len(split) == 0
    except READING_ERRORS as error:
        raise unreadable_stream(args, name, error) from error
    if is_empty:
        raise ValueError(f"the {role} split {name!r} has no rows: check data.data_files and data.{role}_split")

"""A recipe of pre-training from data alone: the kind by the columns, the sizes by the rows and by the time there is."""

import json
import shlex
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import datasets
import numpy as np
import yaml
from datasets import Dataset
from transformers import CONFIG_MAPPING

from ..checks import shown
from ..data.arguments import DataArguments, data_arguments
from ..data.kinds import KINDS
from ..data.kinds.guesses import Guess
from ..data.kinds.series_guesses import why_no_logger
from ..data.looking import columns_of, first_look, is_string, source_values, usual_label
from ..data.tables.columns import numeric_columns, undecoded
from ..data.tables.csv_numbers import cells_beside_numbers
from ..data.tables.csv_shape import POINT
from ..data.tables.csv_words import MISSING_WORDS
from ..data.tables.empty_rows import empty_rows, missing_values
from ..data.tables.first_rows import first_rows
from ..data.tables.json_tables import refuse_lists
from ..data.tables.labels import missing_labels
from ..data.tables.sources import AnyDataset, column_names
from ..data.tables.splits import cut_rows
from ..data.tables.table_columns import count_categories
from ..files import JsonObject, JsonView, write_whole
from ..recipes import nearest, overridden
from ..terminal import counted, looking_ahead, one_voice
from .needs import describe

# Fields of the data section by which the columns of a CSV file become what they are.
WRITTEN_FIELDS = ("delimiter", "decimal", "thousands", "missing_words")
MOST_CLASSES = 100
VALIDATION_FRACTION = 0.1
LABELS_LOOKED_AT = 2000


@dataclass(frozen=True)
class Size:
    """A size of model: width, layers and heads."""

    width: int
    layers: int
    heads: int


# The size by the number of rows: up to so many.
SIZES = ((10_000, Size(64, 4, 4)), (200_000, Size(128, 6, 8)), (None, Size(256, 8, 8)))
MOST_PASSES, FEWEST_STEPS = 300, 20
WANTED_STEPS = 1_000  # fewer in the time there is mean a smaller model
TIMED_STEPS = 5
# Share of the time for the steps; validation, probes, pictures and checkpoints take the rest.
SHARE_OF_STEPS = 0.75


def recipe_from_data(
    data: str,
    name: str,
    kind: str | None = None,
    label_column: str | None = None,
    minutes: float = 10.0,
    max_steps: int | None = None,
    overrides: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Path:
    """Write a recipe that pre-trains on data for about so many minutes on this machine.

    Args:
        data: File, folder, name on the Hub, or a data set of the package.
        name: Name of the recipe; NAME.yaml is written, and outputs/NAME is its folder.
        kind: Kind of data; None guesses it by the columns.
        label_column: Column of the labels, for the probes on the way; None takes one with a usual name.
        minutes: Time for the run, in minutes.
        max_steps: Number of steps; None takes as many as the time allows, which some steps measure.
        overrides: Words of the command line that change fields of the recipe.
        say: Function that is given each remark.

    Returns:
        The file.

    Raises:
        FileExistsError, FileNotFoundError: NAME.yaml is there; the data are not.
        ValueError: The kind cannot be guessed, or the data are none that it can read.
    """
    path = Path(f"{name}.yaml")
    if path.exists():
        raise FileExistsError(
            f"{path} exists already: run `hf-maskssl pretrain {path}`, or name another one by --name NAME"
        )
    with one_voice(quiet=True):  # the run says again what the data are
        values = _as_written(source_values(data, kind), overrides)
        rows = first_look(values)
        guess = guessed(rows, values, kind, label_column)
    each = _rows_of_each(guess, rows)
    say("\n".join(guess.remarks))
    count = None if each is None else int(each.sum())

    def text(size: Size, steps: int) -> str:
        return _text(data, sections(guess, size, name, each, steps))

    most = None if count is None else max(FEWEST_STEPS, MOST_PASSES * count // guess.batch_size)
    if max_steps is None:
        candidates = [size for _, size in reversed(SIZES) if size.width <= _size_for(count).width]
        with looking_ahead():
            size, steps, reason = _fitted(candidates, minutes, most, text, path.name, overrides)
    else:
        size, steps, reason = _size_for(count), max_steps, "--max_steps"
    write_whole(path, lambda aside: aside.write_text(text(size, steps), encoding="utf-8"))
    say(f"size: width {size.width}, {size.layers} layers; {steps:,} steps, {reason}")
    say(f"recipe: {path}, which you can change and run by `hf-maskssl pretrain {path}`")
    return path


def _size_for(count: int | None) -> Size:
    """The largest size of model for so many training rows; for a stream the largest of all."""
    return next(size for most, size in SIZES if most is None or (count is not None and count <= most))


def _rows_of_each(guess: Guess, rows: AnyDataset) -> np.ndarray | None:
    """How many training rows (rows,) int64 each row of the data is, 0 of those that are left out; None of a stream."""
    if guess.rows_of_each is not None or not isinstance(rows, Dataset):
        return guess.rows_of_each
    args: DataArguments = data_arguments(**guess.data)
    left_out = empty_rows(rows, KINDS[args.kind].inputs(args))
    if args.drop_missing_labels:
        left_out[missing_labels(rows, args)] = True
    return (~left_out).astype(np.int64)


def _fitted(
    candidates: Sequence[Size],
    minutes: float,
    most: int | None,
    text: Callable[[Size, int], str],
    name: str,
    overrides: Sequence[str],
) -> tuple[Size, int, str]:
    """The largest size that takes enough steps in the time, the number of steps, and why it is that."""
    for size in candidates:
        with tempfile.TemporaryDirectory() as folder:  # a killed call leaves no recipe that was only tried
            path = Path(folder) / name
            path.write_text(text(size, WANTED_STEPS), encoding="utf-8")
            measured = describe(path, overrides, TIMED_STEPS).measured
        assert measured is not None  # steps were asked for
        step = statistics.median(measured.seconds)
        steps = max(FEWEST_STEPS, int(60 * minutes * SHARE_OF_STEPS / step))
        if steps >= WANTED_STEPS:
            break
    if most is not None and most < steps:
        return size, most, f"{MOST_PASSES} passes over the rows; --max_steps changes it"
    return size, steps, f"{minutes:g} minutes at {step:.2g} s a step; --minutes changes it"


def _as_written(values: JsonObject, overrides: Sequence[str]) -> JsonObject:
    """The fields that say where rows are, changed by those words of the command line that say how a CSV file is written."""
    words: list[str] = []
    for place, word in enumerate(overrides):
        name, equals, _ = word.partition("=")
        if name.removeprefix("--").removeprefix("data.") in WRITTEN_FIELDS:
            words += [word] if equals else overrides[place : place + 2]
    return overridden("data", DataArguments, values, words)


# ---- the kind ----------------------------------------------------------------------------------------------------------


def guessed(rows: AnyDataset, values: JsonView, kind: str | None, label_column: str | None) -> Guess:
    """The kind of rows and what it reads of them.

    Args:
        rows: Training rows as they come.
        values: Fields of the data section that say where they are.
        kind: Kind that the user names, or None.
        label_column: Column of the labels that the user names, or None.

    Raises:
        ValueError: No kind, or several, fit.
    """
    names = column_names(rows)
    if kind is not None and kind not in KINDS:
        raise ValueError(f"--kind: expected one of {list(KINDS)}, got {kind!r}{nearest(kind, KINDS)}")
    if label_column is not None and label_column not in names:
        raise ValueError(f"--label_column: no column {label_column!r}; the columns are {names}")
    label = label_column or usual_label(rows)
    asked = KINDS if kind is None else {kind: KINDS[kind]}
    guesses = {name: guess for name, one in asked.items() if (guess := one.guess(rows, label)) is not None}
    if not guesses:
        if values["source"] == "json":
            refuse_lists(rows, "DATA: ")
        raise ValueError("; ".join([_no_kind(rows, kind), *_words_among_numbers(rows, values, label)]))
    name = max(guesses, key=lambda one: guesses[one].certainty)
    guess = guesses[name]
    guess.data = {**values, "kind": name, **guess.data}
    guess.remarks.insert(0, f"kind: {name}, from {guess.reason}{'' if kind else '; --kind sets another'}")
    _add_spelling(guess, rows, label)
    _add_label(guess, rows, label, is_named=label_column is not None)
    return guess


def _add_spelling(guess: Guess, rows: AnyDataset, label: str | None) -> None:
    """Say how a CSV file writes numbers and what is missing, and which cells keep a column from being one of numbers.

    Words such as NA stay missing in the columns of categories, which the recipe will name.
    """
    columns = guess.data.get("category_columns") or []
    if guess.data["source"] == "csv" and columns:
        with one_voice(quiet=True):
            kept = first_look({**guess.data, "input_column": {name: name for name in columns}})
        words = {word for name in columns for word in count_categories(kept, name)}
        given = [*guess.data.get("missing_words", []), *(word for word in MISSING_WORDS if word in words)]
        guess.data |= {"missing_words": given} if given else {}
    if "thousands" in guess.data:
        guess.remarks.append(f"thousands: {guess.data['thousands']!r} stands between them; --data.thousands")
    given = guess.data.get("missing_words", [])
    if given:
        guess.remarks.append(f"missing: cells that hold {', '.join(map(repr, given))}; --data.missing_words")
    if KINDS[guess.data["kind"]].arguments.ROWS_OF_CELLS:
        guess.remarks += why_no_logger(rows, label)
        guess.remarks += _words_among_numbers(rows, guess.data, label)


def _words_among_numbers(rows: AnyDataset, values: JsonView, label: str | None) -> list[str]:
    """Of each column of a CSV file that a few cells keep from being one of numbers: which, and what to do."""
    found = []
    given = values.get("missing_words", [])
    for name in columns_of(rows, is_string) if values["source"] == "csv" else ():
        counts = {} if name == label else {str(cell): count for cell, count in count_categories(rows, name).items()}
        if cells := cells_beside_numbers(counts, values.get("decimal", POINT)):
            words = shlex.quote(json.dumps([*given, *cells], ensure_ascii=False))
            found.append(
                f"words: {name} holds numbers but for {', '.join(map(repr, cells))}, which make it a column of words; "
                f"--data.missing_words {words} reads it as numbers"
            )
    return found


def _no_kind(rows: AnyDataset, kind: str | None) -> str:
    recipe = None if kind is None else KINDS[kind].own_data_recipe
    if recipe is not None:
        return f"--kind {kind}: its columns have to be named; start from `hf-maskssl recipes copy {recipe}`"
    if isinstance(rows, Dataset) and empty_rows(rows, [rows.column_names]).all():
        return f"DATA: its {counted(len(rows), 'row')} hold nothing: every cell is empty"
    features = rows.features or {}
    seen = {name: _type_name(features.get(name)) for name in column_names(rows)}
    wanted = f"kind {kind!r}" if kind else "any kind: name it by --kind, or its columns in a recipe of your own"
    return f"DATA: no column fits {wanted}; seen: {shown(seen)}"


def _type_name(feature: object) -> str:
    return str(feature.dtype) if isinstance(feature, datasets.Value) else type(feature).__name__


def _add_label(guess: Guess, rows: AnyDataset, label: str | None, is_named: bool) -> None:
    if label is None:
        return
    looked_at = undecoded(rows.select_columns([label]), [label])
    if isinstance(looked_at, Dataset):  # from all of it: the first rows may be of one class
        looked_at = looked_at.select(range(0, len(looked_at), -(-len(looked_at) // LABELS_LOOKED_AT)))
    found = first_rows(looked_at, LABELS_LOOKED_AT)
    values = [row[label] for row in found if row[label] is not None and row[label] == row[label]]
    distinct = len(set(map(str, values)))
    are_numbers = all(isinstance(value, int | float | Decimal) for value in values)
    are_classes = are_numbers or all(isinstance(value, str) for value in values)  # no lists, no times
    is_number = are_numbers and (distinct > MOST_CLASSES or not all(float(value).is_integer() for value in values))
    words = "numbers to predict" if is_number else f"{distinct} classes"
    if not is_number and not (are_classes and 2 <= distinct <= MOST_CLASSES):
        kind = f"{counted(distinct, 'value')}{'' if are_classes else ' that are no words and no numbers'}"
        if is_named:
            raise ValueError(
                f"--label_column {label}: {kind} in {len(values)} rows are no classes: name another column"
            )
        _leave_out_label(guess, rows, label)
        guess.remarks.append(f"labels: none, as {label} has {kind}; --label_column names others")
        return
    lacking = 0
    if isinstance(rows, Dataset) and guess.rows_of_each is None:  # windows have labels of their own
        lacking = missing_values(rows, [label]).get(label, 0)
    if lacking and not is_named:
        _leave_out_label(guess, rows, label)
        guess.remarks.append(
            f"labels: none, as {lacking} of {len(rows)} rows lack {label}; --label_column {label} probes on the way, and leaves "
            "such rows out"
        )
        return
    guess.data |= {"label_column": label, **({"task": "regression"} if is_number else {}), **guess.with_label}
    guess.remarks.append(f"labels: {label}, {words}, for probes on the way and not for training; --label_column")
    if lacking:
        guess.data["drop_missing_labels"] = True
        guess.remarks.append(
            f"left out: {counted(lacking, 'row')} without {label}; without --label_column all are read"
        )


def _leave_out_label(guess: Guess, rows: AnyDataset, label: str) -> None:
    """Keep a column of labels that the recipe does not name from becoming a feature."""
    if KINDS[guess.data["kind"]].arguments.ROWS_OF_CELLS and "input_column" not in guess.data:
        guess.data["input_column"] = numeric_columns(rows, {"label_column": label})[0]


# ---- the recipe -------------------------------------------------------------------------------------------------------


def sections(guess: Guess, size: Size, name: str, rows_of_each: np.ndarray | None, steps: int) -> JsonObject:
    """The sections of a recipe, with the settings that the package's small recipes have.

    Args:
        guess: Kind of the data, and what it reads of them.
        size: Size of the model.
        name: Name of the recipe.
        rows_of_each: How many training rows (rows,) int64 each row of the data is; None of a stream.
        steps: Number of steps.
    """
    model: JsonObject = {**guess.model, "hidden_size": size.width, "num_hidden_layers": size.layers}
    model |= {"num_attention_heads": size.heads, "intermediate_size": 2 * size.width}
    if "decoder_hidden_size" in CONFIG_MAPPING[model["model_type"]].__dataclass_fields__:
        model |= {"decoder_hidden_size": size.width, "decoder_num_hidden_layers": 2}
        model |= {"decoder_num_attention_heads": size.heads, "decoder_intermediate_size": 2 * size.width}
    held_out = 0.0 if "validation_split" in guess.data else VALIDATION_FRACTION
    data = {**guess.data, **({"validation_fraction": held_out} if held_out else {})}
    batch_size = guess.batch_size
    if rows_of_each is not None:
        batch_size = max(1, min(batch_size, rows_to_train_on(rows_of_each, held_out)))
    every = max(1, steps // 5)
    training: JsonObject = {
        "output_dir": f"outputs/{name}",
        "max_steps": steps,
        "batch_size": batch_size,
        "learning_rate": 1e-3 if size.width <= 128 else 5e-4,
        "weight_decay": guess.weight_decay,
        "lr_scheduler_type": "cosine",
        "warmup_steps": steps // 10,
        "eval_steps": every,
        "logging_steps": max(1, min(20, every)),
        "save_steps": max(1, steps // 2),
    }
    found: JsonObject = {"model": model, "data": data}
    if "label_column" in guess.data:
        found["probe"] = {"every_steps": every}
    return {**found, "training": training}


def rows_to_train_on(rows_of_each: np.ndarray, validation_fraction: float) -> int:
    """How many training rows a validation split leaves, which holds out rows of the data; of one row its last part.

    Args:
        rows_of_each: How many training rows (rows,) int64 each row of the data is.
        validation_fraction: Share that is held out; 0 holds out nothing.
    """
    if len(rows_of_each) == 1 or not validation_fraction:
        return int((1.0 - validation_fraction) * int(rows_of_each.sum()))
    kept, _ = cut_rows(len(rows_of_each), validation_fraction, DataArguments.split_seed)
    return int(rows_of_each[kept].sum())


class _RecipeDumper(yaml.SafeDumper):
    """A field a line, lists within it."""


def _flow_list(dumper: yaml.SafeDumper, values: list[object]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_RecipeDumper.add_representer(list, _flow_list)


def _text(data: str, content: JsonView) -> str:
    title = f"# Made from {data} by `hf-maskssl pretrain`; `hf-maskssl fields` says what each field means."
    parts = [
        yaml.dump({name: value}, Dumper=_RecipeDumper, sort_keys=False, width=100) for name, value in content.items()
    ]
    return "\n".join([f"{title}\n", *parts])

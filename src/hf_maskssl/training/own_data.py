"""A recipe of pre-training from data alone: the kind by the columns, the sizes by the rows and by the time there is."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import yaml
from datasets import Dataset

from ..data.looking import (
    TEXT_NAMES,
    columns_of,
    first_look,
    is_array,
    is_file,
    is_list_of_numbers,
    is_string,
    is_text,
    source_values,
    usual_label,
)
from ..data.tables.columns import numeric_columns, undecoded
from ..data.tables.files import FOLDER_ENDINGS
from ..data.tables.pictures import read_image
from ..data.tables.rows import Row
from ..data.tables.sounds import native_waveform
from ..data.tables.sources import AnyDataset, column_names
from ..files import JsonObject, JsonView
from ..terminal import counted, one_voice
from .needs import describe

Kind = Literal["tabular", "series", "image", "spectrogram", "tokens"]
# What is made of each kind: the recipe to start from where the kind cannot be told from data alone.
OTHER_KINDS = {
    "multimodal": "multimae_own_data",
    "masked_text": "pos_bert_own_data",
    "vision_language": "metamae_mscoco",
}
MOST_CLASSES = 100
LOOKED_AT = 200  # rows that sizes are taken from
# Names of columns that count rows.
ROW_NAMES = ("id", "index", "row", "row_id", "unnamed: 0")
FEWEST_FEATURES = 2


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


@dataclass
class Guess:
    """What data could be, and why.

    Attributes:
        kind: Kind of data.
        data: Fields of the data section.
        model: Fields of the model section, without those of its size.
        batch_size: Number of rows of a step.
        remarks: Sentences for the user, each with the field that changes what it says.
    """

    kind: str
    data: JsonObject
    model: JsonObject = field(default_factory=dict)
    batch_size: int = 128
    remarks: list[str] = field(default_factory=list)


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
        FileExistsError: NAME.yaml is there.
        ValueError: The kind cannot be guessed, or the data are none that it can read.
        FileNotFoundError: No such data.
    """
    path = Path(f"{name}.yaml")
    if path.exists():
        raise FileExistsError(
            f"{path} exists already: run `hf-maskssl pretrain {path}`, or name another one by --name NAME"
        )
    with one_voice(quiet=True):  # the run says again what the data are
        values = source_values(data, kind)
        rows = first_look(values)
        guess = guessed(rows, values, kind, label_column)
    count = rows.num_rows if isinstance(rows, Dataset) else None
    for remark in guess.remarks:
        say(remark)
    fitting = next(size for most, size in SIZES if most is None or (count is not None and count <= most))
    candidates = [size for _, size in reversed(SIZES) if size.width <= fitting.width]

    def write(size: Size, steps: int) -> None:
        _write(path, data, sections(guess, size, name, count, steps))

    most = None if count is None else max(FEWEST_STEPS, MOST_PASSES * count // guess.batch_size)
    try:
        if max_steps is None:
            size, steps, reason = _fitted(candidates, minutes, most, write, path, overrides)
        else:
            size, steps, reason = fitting, max_steps, "--max_steps"
        write(size, steps)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    say(f"size: width {size.width}, {size.layers} layers; {steps:,} steps, {reason}")
    say(f"recipe: {path}, which you can change and run by `hf-maskssl pretrain {path}`")
    return path


def _fitted(
    candidates: Sequence[Size],
    minutes: float,
    most: int | None,
    write: Callable[[Size, int], None],
    path: Path,
    overrides: Sequence[str],
) -> tuple[Size, int, str]:
    """The largest size that takes enough steps in the time, the number of steps, and why it is that."""
    for size in candidates:
        write(size, WANTED_STEPS)
        measured = describe(path, overrides, TIMED_STEPS).measured
        assert measured is not None  # steps were asked for
        step = statistics.median(measured.seconds)
        steps = max(FEWEST_STEPS, int(60 * minutes * SHARE_OF_STEPS / step))
        if steps >= WANTED_STEPS:
            break
    if most is not None and most < steps:
        return size, most, f"{MOST_PASSES} passes over the rows; --max_steps changes it"
    return size, steps, f"{minutes:g} minutes at {step:.2g} s a step; --minutes changes it"


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
    if kind in OTHER_KINDS:
        raise ValueError(
            f"--kind {kind}: its columns have to be named; start from `hf-maskssl recipes copy {OTHER_KINDS[kind]}`"
        )
    if label_column is not None and label_column not in names:
        raise ValueError(f"--label_column: no column {label_column!r}; the columns are {names}")
    label = label_column or usual_label(rows)
    makers: dict[str, Callable[[AnyDataset, str | None], Guess | None]] = {
        "spectrogram": _sounds,
        "image": _pictures,
        "series": _series,
        "tokens": _texts,
        "tabular": _table,
    }
    if kind is not None and kind not in makers:
        raise ValueError(f"--kind: expected one of {[*makers, *OTHER_KINDS]}, got {kind!r}")
    for name, make in makers.items():
        if kind not in (None, name):
            continue
        guess = make(rows, label)
        if guess is not None:
            guess.data = {**values, "kind": name, **guess.data}
            said = "" if kind else "; --kind sets another"
            guess.remarks.insert(0, f"kind: {name}, from {guess.remarks.pop(0)}{said}")
            _add_label(guess, rows, label, is_named=label_column is not None)
            return guess
    seen = {name: _type_name((rows.features or {}).get(name)) for name in names}
    wanted = f"kind {kind!r}" if kind else "any kind: name it by --kind, or its columns in a recipe of your own"
    raise ValueError(f"DATA: no column fits {wanted}; seen: {seen}")


def _type_name(feature: object) -> str:
    return str(feature.dtype) if isinstance(feature, datasets.Value) else type(feature).__name__


def _add_label(guess: Guess, rows: AnyDataset, label: str | None, is_named: bool) -> None:
    if label is None:
        return
    values = [
        row[label] for row in _some(undecoded(rows, column_names(rows)), 10 * LOOKED_AT) if row[label] is not None
    ]
    is_number = bool(values) and isinstance(values[0], float) and any(value != int(value) for value in values)
    distinct = len(set(map(str, values)))
    if is_number:
        guess.data |= {"label_column": label, "task": "regression"}
    elif 2 <= distinct <= MOST_CLASSES:
        guess.data["label_column"] = label
    elif is_named:
        raise ValueError(f"--label_column {label}: {distinct} different values in {len(values)} rows are no classes")
    else:
        return
    words = "numbers to predict" if is_number else f"{distinct} classes"
    guess.remarks.append(f"labels: {label}, {words}, for probes on the way and not for training; --label_column")


def _some(rows: AnyDataset, count: int = LOOKED_AT) -> list[Row]:
    return list(islice(iter(rows), count))


def _file_column(rows: AnyDataset, source: str) -> str | None:
    """The column of pictures or sounds: files as datasets stores them, or paths with their endings."""
    wanted = datasets.Image if source == "imagefolder" else datasets.Audio
    found = columns_of(rows, lambda feature: isinstance(feature, wanted))
    if not found:
        endings = FOLDER_ENDINGS[source]
        first = _some(undecoded(rows, column_names(rows)), 1)
        for name in columns_of(
            rows, lambda feature: is_string(feature) or (is_file(feature) and isinstance(feature, dict))
        ):
            value = first[0][name] if first else None
            path = value.get("path") if isinstance(value, Mapping) else value
            if isinstance(path, str) and Path(path).suffix.lower() in endings:
                found.append(name)
    return found[0] if found else None


# ---- what each kind reads ---------------------------------------------------------------------------------------------


def _sounds(rows: AnyDataset, label: str | None) -> Guess | None:
    column = _file_column(rows, "audiofolder")
    if column is None:
        return None
    sounds = [native_waveform(row[column]) for row in _some(undecoded(rows, [column]), 32) if row[column] is not None]
    if not sounds:
        return None
    rate = int(statistics.median(rate for _, rate in sounds))
    seconds = statistics.median(len(samples) / its_rate for samples, its_rate in sounds)
    # Powers of two near 32 ms and half of it; so many frames as cover most sounds, up to 128.
    frame = 2 ** round(np.log2(0.032 * rate))
    frames = int(min(128, max(32, 8 * round(seconds * rate / (frame // 2) / 8))))
    bands = 32 if rate <= 8000 else 64
    covered = (frames - 1) * (frame // 2) / rate
    return Guess(
        "spectrogram",
        {"input_column": column, "sampling_rate": rate, "frame_length": frame, "hop_length": frame // 2},
        {
            "modality": "image",
            "image_size": [bands, frames],
            "num_channels": 1,
            "patch_size": [bands // 8, 4 if frames <= 64 else 8],
        },
        64,
        [
            f"sounds in {column!r}",
            f"sounds: {rate:,} Hz, {seconds:.2g} s by their median; the first {covered:.2g} s are read",
        ],
    )


def _pictures(rows: AnyDataset, label: str | None) -> Guess | None:
    column = _file_column(rows, "imagefolder") or next(iter(columns_of(rows, _is_picture_array)), None)
    if column is None:
        return None
    arrays = [
        np.asarray(read_image(row[column])) for row in _some(undecoded(rows, [column]), 64) if row[column] is not None
    ]
    if not arrays:
        return None
    channels = statistics.mode(1 if array.ndim == 2 else min(array.shape[0], array.shape[-1]) for array in arrays)
    short = [
        min(array.shape[:2] if array.ndim == 2 or array.shape[-1] == channels else array.shape[1:]) for array in arrays
    ]
    # About 8 x 8 patches; larger pictures are brought down to 64 pixels.
    patch = max(1, min(8, round(statistics.median(short) / 8)))
    size = (
        8 * patch if statistics.median(short) >= 8 * patch else patch * max(2, int(statistics.median(short)) // patch)
    )
    return Guess(
        "image",
        {"input_column": column},
        {"modality": "image", "image_size": [size, size], "num_channels": channels, "patch_size": [patch, patch]},
        128,
        [
            f"pictures in {column!r}",
            f"pictures: {counted(channels, 'channel')}, brought to {size} x {size} pixels; --image_size",
        ],
    )


def _is_picture_array(feature: object) -> bool:
    return isinstance(feature, datasets.Array2D | datasets.Array3D) and str(feature.dtype).startswith("uint8")


def _series(rows: AnyDataset, label: str | None) -> Guess | None:
    columns = [name for name in columns_of(rows, is_array) if name != label]
    if len(columns) != 1:
        return None
    shapes = [np.shape(row[columns[0]]) for row in _some(rows)]
    shape = shapes[0] if shapes else ()
    if len(shape) not in (1, 2):
        return None
    channels, length = (1, shape[0]) if len(shape) == 1 else shape
    # Patches that divide the length into 16 to 64 tokens where that goes.
    patch = min((one for one in range(1, length + 1) if length % one == 0), key=lambda one: abs(length / one - 32))
    return Guess(
        "series",
        {"input_column": columns[0]},
        {"modality": "series", "series_length": length, "num_channels": channels, "patch_size": patch},
        128,
        [
            f"lists of numbers in {columns[0]!r}",
            f"series: {counted(channels, 'channel')}, {length} time steps, {length // patch} patches",
        ],
    )


def _texts(rows: AnyDataset, label: str | None) -> Guess | None:
    found = [name for name in columns_of(rows, is_text) if name != label]
    usual = [name for name in TEXT_NAMES if name in found]
    if not usual and (len(found) != 1 or len(columns_of(rows, _is_feature)) >= FEWEST_FEATURES):
        return None
    column = usual[0] if usual else found[0]
    texts = [row[column] for row in _some(rows, 10 * LOOKED_AT) if row[column]]
    texts = [" ".join(text) if isinstance(text, list) else text for text in texts]
    if not texts:
        return None
    lengths = sorted(len(text.encode("utf-8")) for text in texts)
    longest = lengths[int(0.95 * (len(lengths) - 1))]
    tokens = int(min(256, max(16, 16 * -(-(longest + 1) // 16))))
    model = {
        "modality": "tokens",
        "vocab_size": 262,
        "pad_token_id": 0,
        "max_position_embeddings": tokens,
    }
    return Guess(
        "tokens",
        {"input_column": column, "tokenizer": "utf-8"},
        model,
        64,
        [f"texts in {column!r}", f"texts: bytes, the first {tokens} of each text; --max_position_embeddings"],
    )


def _is_feature(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and str(feature.dtype).startswith(("int", "uint", "float", "bool"))


def _table(rows: AnyDataset, label: str | None) -> Guess | None:
    lists = [name for name in columns_of(rows, is_list_of_numbers) if name != label]
    if len(lists) == 1 and not columns_of(rows, _is_feature):
        length = len(_some(rows, 1)[0][lists[0]])
        return Guess("tabular", {"input_column": lists[0]}, _table_model(length), 128, [f"lists of {length} numbers"])
    if len([name for name in columns_of(rows, _is_feature) if name != label]) < FEWEST_FEATURES:
        return None
    without = {"label_column": label} if label is not None else {}
    columns, left_out = numeric_columns(rows, without)
    named = [name for name in columns if name.lower() not in ROW_NAMES]
    remarks = [f"{len(named)} columns of numbers"]
    dropped = [*left_out, *(name for name in columns if name not in named)]
    dropped = [name for name in dropped if name != label]
    if dropped:
        remarks.append(f"left out: the columns {', '.join(dropped)}; --data.input_column names those to read")
    data: JsonObject = {} if len(named) == len(columns) else {"input_column": named}
    return Guess("tabular", data, _table_model(len(named)), 128, remarks)


def _table_model(features: int) -> JsonObject:
    return {"modality": "series", "series_length": features, "num_channels": 1, "patch_size": 1}


# ---- the recipe -------------------------------------------------------------------------------------------------------


def sections(guess: Guess, size: Size, name: str, rows: int | None, steps: int) -> JsonObject:
    """The sections of a recipe: MetaMAE, or SMA for texts, with the settings that the package's small recipes have."""
    width = {"hidden_size": size.width, "num_hidden_layers": size.layers, "num_attention_heads": size.heads}
    width["intermediate_size"] = 2 * size.width
    if guess.kind == "tokens":
        model = {"model_type": "sma", **guess.model, "encoder_type": "self_attention", **width}
        model |= {"decoder_query_residual": True, "masking": "guided", "mask_ratio": 0.3, "head_aggregation": "random"}
        model |= {"mask_schedule": "widen", "mask_schedule_fraction": 1.0}
    else:
        decoder = {"decoder_hidden_size": size.width, "decoder_num_hidden_layers": 2}
        decoder |= {"decoder_num_attention_heads": size.heads, "decoder_intermediate_size": 2 * size.width}
        ratio = {"tabular": 0.5, "series": 0.75}.get(guess.kind, 0.75 if guess.kind == "spectrogram" else 0.5)
        model = {"model_type": "metamae", **guess.model, **width, **decoder, "mask_ratio": ratio}
        model |= {"adaptation_step_size": 1.0 if guess.kind == "tabular" else 0.5, "contrastive_weight": 1.0}
    data = {**guess.data, "validation_fraction": 0.1}
    if guess.kind != "tokens":
        data["standardize"] = "dataset"
    every = max(1, steps // 5)
    training: JsonObject = {
        "output_dir": f"outputs/{name}",
        "max_steps": steps,
        "batch_size": guess.batch_size if rows is None else max(1, min(guess.batch_size, int(0.9 * rows))),
        "learning_rate": 1e-3 if size.width <= 128 else 5e-4,
        "weight_decay": 1e-4 if guess.kind != "tokens" else 0.01,
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


class _RecipeDumper(yaml.SafeDumper):
    """A field a line, lists within it."""


def _flow_list(dumper: yaml.SafeDumper, values: list[object]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_RecipeDumper.add_representer(list, _flow_list)


def _write(path: Path, data: str, content: JsonView) -> None:
    title = f"# Made from {data} by `hf-maskssl pretrain`; `hf-maskssl fields` says what each field means."
    parts = [
        yaml.dump({name: value}, Dumper=_RecipeDumper, sort_keys=False, width=100) for name, value in content.items()
    ]
    path.write_text("\n".join([f"{title}\n", *parts]), encoding="utf-8")

"""Hashes of weights, rows and settings, so that stored runs are not taken for runs of others that have the same name."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datasets import IterableDataset

from ..data.arguments import DEFAULT_KIND
from ..data.masked_text.rows import MaskedTextRows
from ..data.preparation import PreparedData
from ..data.tables.preparing import Preparer
from ..data.tables.rows import PreparedRows, TransformedRows
from ..data.tables.windows import WindowedRows
from ..files import JsonObject

if TYPE_CHECKING:
    from .finetuning.scores import FinetuningRows
    from .pretraining.arguments import PretrainingRecipe

TABLE_ROWS = 1024  # rows that are hashed at a time
# Environment variables that hold folders of data, which differ between machines.
PLACES = ("HF_MASKSSL_SHARED",)
# Of a larger table pre-training hashes no values: reading all of them would delay each start.
MAX_HASHED_BYTES = 2**30
# Fields of the training section that do not change what a run gives, beyond the order of floating-point sums.
NO_SETTINGS = {
    "output_dir",
    "resume",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "num_workers",
    "pin_memory",
    "report_to",
    "project_name",
    "picture_steps",
    "eval_steps",
    "eval_batches",
    "push_to_hub",
    "hub_model_id",
    "hub_private",
    "torch_compile",
    "mixed_precision",
    "cuda_graphs",
    "data_on_device",
    "tf32",
}


def weights_digest(checkpoint: Path) -> str:
    """A hash of the weights' files."""
    digest = hashlib.sha256()
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def split_digests(data: PreparedData) -> dict[str, str]:
    """`rows_digest` of the splits that pre-training reads; none of a stream, which is known by reading it alone."""
    if data.parts:
        found = {part: split_digests(rows) for part, rows in data.parts.items()}
        return {f"{part}/{name}": digest for part, digests in found.items() for name, digest in digests.items()}
    splits = {"train": data.train, "validation": data.validation}
    known = {
        name: split for name, split in splits.items() if split is not None and not isinstance(split, IterableDataset)
    }
    return {name: rows_digest(split, MAX_HASHED_BYTES) for name, split in known.items()}


def rows_digest(rows: "FinetuningRows", most_bytes: int | None = None) -> str:
    """A hash of the prepared rows' values. Where preparing all of them now would take as long as a pass over them
    (`data.cache` is false), a hash of how they are prepared and of the datasets library's fingerprint of their files,
    which changes whenever a file is written.

    Args:
        rows: The split.
        most_bytes: Size of prepared rows from which on they are known by their files, too; None hashes any.
    """
    digest = hashlib.sha256()
    if isinstance(rows, TransformedRows):
        assert isinstance(rows.prepare, Preparer)
        digest.update(f"{rows.dataset._fingerprint} {rows.prepare.description()}".encode())
        if isinstance(rows, WindowedRows):
            digest.update(repr((rows.windows.size, rows.windows.stride, rows.windows.label_column)).encode())
        return digest.hexdigest()
    if not isinstance(rows, PreparedRows | MaskedTextRows):  # rows of another package's kind
        for number in range(len(rows)):
            for name, value in sorted(rows[number].items()):
                digest.update(name.encode() + np.asarray(value).tobytes())
        return digest.hexdigest()
    if most_bytes is not None and rows.table.data.nbytes > most_bytes:
        return hashlib.sha256(f"{rows.table._fingerprint} {len(rows.table)}".encode()).hexdigest()
    for part in rows.table.with_format("arrow").iter(batch_size=TABLE_ROWS):
        # Lists have the same bytes wherever the values' chunk of the table begins and ends.
        for batch in part.combine_chunks().replace_schema_metadata().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()


def encoder_settings(
    recipe: "PretrainingRecipe", is_pretrained: bool = True, places: Sequence[str] = PLACES
) -> JsonObject:
    """What an encoder depends on: {"model", "data", "seed", and where it `is_pretrained` "training"}."""
    data = changed_fields(recipe.data, places=places)
    if recipe.data.kind != DEFAULT_KIND:
        data["kind"] = recipe.data.kind  # the default of its own class
    settings: JsonObject = {"model": portable(recipe.model, places), "data": data, "seed": recipe.training.seed}
    if is_pretrained:
        settings["training"] = changed_fields(recipe.training, NO_SETTINGS, places)
    return settings


def changed_fields(arguments: object, without: Collection[str] = (), places: Sequence[str] = PLACES) -> JsonObject:
    """Fields that differ from their defaults: one that a later version adds then leaves digests as they are.

    Args:
        arguments: An instance of a dataclass.
        without: Names of fields that are left out.
        places: As of `portable`.
    """
    found = {}
    for field in dataclasses.fields(arguments):  # type: ignore[arg-type]  # mypy has no type for "a dataclass"
        default = field.default_factory() if callable(field.default_factory) else field.default
        value = getattr(arguments, field.name)
        if field.name not in without and value != default:
            found[field.name] = portable(value, places)
    return found


def portable(value: object, places: Sequence[str] = PLACES) -> object:
    """The value as JSON gives it back, without the places of data, which differ between machines.

    Args:
        value: Anything that a recipe may hold.
        places: Names of environment variables that hold a folder: a text that begins with one is written with its name.
    """
    if isinstance(value, Mapping):
        return {str(name): portable(entry, places) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [portable(entry, places) for entry in value]
    if isinstance(value, str):
        for name in places:
            place = os.environ.get(name)
            if place and value.startswith(place):
                return f"${{{name}}}" + value[len(place) :]
    return value


def settings_digest(value: object) -> str:
    """Twelve hexadecimal digits of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]

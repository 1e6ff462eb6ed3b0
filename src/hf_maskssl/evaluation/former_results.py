"""Results that a folder holds already: of the same models and data they are replaced, of others they are kept."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

from ..annotation.resumable import changed_settings
from ..data.arguments import DataArguments
from ..files import JsonObject

# Fields of the data section that change no result.
IMMATERIAL = ("num_proc", "cache")

logger = logging.getLogger(__name__)


class OtherResultsError(ValueError):
    """A folder holds results of other models or data."""


def described(models: Sequence[str], data: DataArguments) -> JsonObject:
    """{"models", "data"}: what a report says its results are of, in JSON's types."""
    found: JsonObject = json.loads(json.dumps({"models": list(models), "data": dataclasses.asdict(data)}))
    return found


def refuse_other_results(
    results: Path,
    report: Path,
    models: Sequence[str],
    data: DataArguments,
    option: str,
    overwrite: bool,
    immaterial: Sequence[str] = (),
) -> None:
    """Keep results of other models or data from being written over.

    Args:
        results: File that is to be written.
        report: JSON file beside it, perhaps the same, which holds what `described` gives.
        models: Checkpoint folders or Hub names of this call.
        data: Data section of this call.
        option: Option that named the folder, for the error: "--output".
        overwrite: Whether any results may be written over.
        immaterial: Further fields of the data section that may differ.

    Raises:
        OtherResultsError: The results exist and are of other models or data, or nothing says of what they are.
    """
    if overwrite or not results.exists():
        return
    way = "name another folder, or write over what is there by --overwrite"
    former = _read(report)
    if former is None:
        raise OtherResultsError(
            f"{option} {results.parent} holds {results.name} and no {report.name} that says of what it is: {way}"
        )
    before = _flat(former)
    # Fields that an earlier version did not have cannot differ.
    now = {name: value for name, value in _flat(described(models, data)).items() if name in before}
    now = {name: value for name, value in now.items() if name.removeprefix("data.") not in immaterial}
    changed = changed_settings(before, now)
    if changed:
        raise OtherResultsError(
            f"{option} {results.parent} holds {results.name} of other models or data ({'; '.join(changed)}): {way}"
        )


def folder_of_results(named: Path | None, default: Path, check: Callable[[Path], None]) -> Path:
    """The folder for results: the one that was named, else the first of DEFAULT, DEFAULT-2, ... without others' results.

    Args:
        named: Folder that the user names, or None.
        default: Folder otherwise.
        check: Function that raises `OtherResultsError` where a folder holds results of other models or data.

    Raises:
        OtherResultsError: The folder that was named holds such.
    """
    if named is not None:
        check(named)
        return named
    for number in count(1):
        folder = default if number == 1 else default.with_name(f"{default.name}-{number}")
        try:
            check(folder)
        except OtherResultsError:
            continue
        if number > 1:
            logger.warning("%s holds results of other models or data: these go to %s", default, folder)
        return folder
    raise AssertionError("numbers do not end")


def _read(report: Path) -> JsonObject | None:
    """The content of a report, None where it is none."""
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # ValueError: no JSON, or no text
        return None
    return found if isinstance(found, dict) and isinstance(found.get("data"), Mapping) else None


def _flat(report: JsonObject) -> JsonObject:
    """The models and the fields of the data by their names in a recipe."""
    # Version 0.2.0 named the models in `results` alone.
    models = report.get("models", [one["model"] for one in report.get("results", ())])
    fields = {f"data.{name}": value for name, value in report["data"].items() if name not in IMMATERIAL}
    return {"models": models, **fields}

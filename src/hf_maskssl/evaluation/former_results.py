"""Results that a folder holds already: of the same models, data and settings they are replaced, of others they are kept."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

from ..annotation.resumable import changed_settings
from ..data.arguments import DataArguments
from ..files import JsonObject

# Fields that change no result: how data are prepared, and those of the online probe.
IMMATERIAL = ("data.num_proc", "data.cache", "probe.every_steps", "probe.max_samples")

logger = logging.getLogger(__name__)


class OtherResultsError(ValueError):
    """A folder holds results of other models, data or settings.

    Args:
        reason: Text that says which folder, and of what.

    Attributes:
        reason: The same, without what to do.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: name another folder, or write over what is there by --overwrite")
        self.reason = reason


def described(models: Sequence[str], data: DataArguments, **settings: object) -> JsonObject:
    """What a report says its results are of, in JSON's types.

    Args:
        models: Checkpoint folders or Hub names.
        data: Data section.
        settings: Further sections of the recipe, instances of dataclasses, and options, in JSON's types.

    Returns:
        {"models", "data", and the settings by their names}.
    """
    sections = {
        name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        for name, value in {"data": data, **settings}.items()
    }
    found: JsonObject = json.loads(json.dumps({"models": list(models), **sections}))
    return found


def refuse_other_results(
    results: Path,
    report: Path,
    now: JsonObject,
    option: str,
    overwrite: bool,
    immaterial: Sequence[str] = (),
) -> None:
    """Keep results of other models, data or settings from being written over.

    Args:
        results: File that is to be written.
        report: JSON file beside it, perhaps the same, which holds what `described` gives.
        now: What `described` gives for this call.
        option: Option that named the folder, for the error: "--output".
        overwrite: Whether any results may be written over.
        immaterial: Further fields that may differ, such as "data.max_train_samples".

    Raises:
        OtherResultsError: The results exist and are of other models, data or settings, or nothing says of what they are.
    """
    if overwrite or not results.exists():
        return
    former = _read(report)
    if former is None:
        raise OtherResultsError(
            f"{option} {results.parent} holds {results.name} and no {report.name} that says of what it is"
        )
    before = _flat(former, now)
    # Fields that an earlier version did not have cannot differ.
    known = {name: value for name, value in _flat(now, now).items() if name in before and name not in immaterial}
    changed = changed_settings(before, known)
    if changed:
        raise OtherResultsError(
            f"{option} {results.parent} holds {results.name} of other models, data or settings ({'; '.join(changed)})"
        )


def folder_of_results(named: Path | None, default: Path, check: Callable[[Path], None]) -> Path:
    """The folder for results: the one that was named, else the first of DEFAULT, DEFAULT-2, ... without others' results.

    Args:
        named: Folder that the user names, or None.
        default: Folder otherwise.
        check: Function that raises `OtherResultsError` where a folder holds results of other models, data or settings.

    Raises:
        OtherResultsError: The folder that was named holds such.
    """
    if named is not None:
        check(named)
        return named
    first: OtherResultsError | None = None
    for number in count(1):
        folder = default if number == 1 else default.with_name(f"{default.name}-{number}")
        try:
            check(folder)
        except OtherResultsError as error:
            first = first or error
            continue
        if first is not None:
            logger.warning("%s: these go to %s", first.reason, folder)
        return folder
    raise AssertionError("numbers do not end")


def _read(report: Path) -> JsonObject | None:
    """The content of a report, None where it is none."""
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # ValueError: no JSON, or no text
        return None
    return found if isinstance(found, dict) and isinstance(found.get("data"), Mapping) else None


def _flat(report: JsonObject, now: JsonObject) -> JsonObject:
    """The models, and the fields of sections by their names in a recipe, as far as `described` has them now."""
    # Version 0.2.0 named the models in `results` alone.
    models = report.get("models", [one["model"] for one in report.get("results", ())])
    flat: JsonObject = {"models": models}
    for section in (name for name in now if name != "models" and name in report):
        found = report[section]
        fields = found.items() if isinstance(found, Mapping) else ()
        flat |= {f"{section}.{name}": value for name, value in fields} if fields else {section: found}
    return {name: value for name, value in flat.items() if name not in IMMATERIAL}

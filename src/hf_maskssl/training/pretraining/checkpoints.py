"""Checkpoint folders: written aside and renamed, checked before use, thinned out."""

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedConfig

from ...checks import changes
from ...data.arguments import default_fields
from ...files import JsonObject, incomplete_folder, remove_folder, remove_incomplete, replace_folder
from ...recipes import own_fields

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE_FILE = "trainer_state.json"
BEST = "checkpoint-best"
# What a checkpoint must have beside the weights, whole or in shards, and the optimiser's state and random numbers.
REQUIRED = (STATE_FILE, "config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
OPTIMIZER = "training_state/optimizer"
RANDOM_STATES = "training_state/random_states_{}.pkl"
_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoint_folder(output_dir: Path, step: int) -> Path:
    return output_dir / f"checkpoint-{step:08d}"


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Numbered checkpoints, oldest first."""
    if not output_dir.is_dir():
        return []
    return sorted(path for path in output_dir.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))


def seal(folder: Path, final: Path) -> None:
    """Write the manifest, flush every file to disk, and give the folder its final name in one step."""
    write_manifest(folder)
    replace_folder(folder, final)  # a run resumed from an older checkpoint writes this step again
    _sync_directory(final.parent)


def write_manifest(folder: Path) -> None:
    """List every file with its size and checksum, and flush all of it to disk."""
    manifest = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        manifest[path.relative_to(folder).as_posix()] = _fingerprint(path)
    _write_synced(folder / MANIFEST, json.dumps(manifest, indent=1))
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        _sync_directory(path)


def find_problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None when it has all that a run goes on with, each file as it was written."""
    return find_damage(folder) or _find_missing(folder)


def find_damage(folder: Path) -> str | None:
    """Which file of a folder is not as `write_manifest` found it; None when all are."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return f"it has no {MANIFEST}: it was not written to the end"
    except (OSError, ValueError) as error:
        return f"its {MANIFEST} is damaged: {error}"
    if not isinstance(manifest, dict):
        return f"its {MANIFEST} is damaged: it holds no names of files"
    for name, expected in manifest.items():
        try:
            if _fingerprint(folder / name) != expected:
                return f"{name} differs from what was written"
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return f"{name} is missing"
        except (OSError, ValueError) as error:  # a damaged disk; a name that no file can have
            return f"{name} cannot be read: {error}"
    return None


def _find_missing(folder: Path) -> str | None:
    """Which file a run needs that a manifest does not list: it was written by two runs at once, or by another program."""
    names = set(json.loads((folder / MANIFEST).read_text()))
    for name in REQUIRED:
        if name not in names:
            return f"{name} is not among the files of its {MANIFEST}"
    if WEIGHTS[0] not in names:
        if WEIGHTS[1] not in names:
            return f"{WEIGHTS[0]} is not among the files of its {MANIFEST}"
        shards = set(json.loads((folder / WEIGHTS[1]).read_text())["weight_map"].values())
        if shards - names:
            return f"{min(shards - names)} is not among the files of its {MANIFEST}"
    # Sharded, the optimiser's state is a folder.
    if not any(name.startswith(OPTIMIZER) for name in names):
        return f"{OPTIMIZER}.bin is not among the files of its {MANIFEST}"
    for process in range(read_state(folder).get("layout", {}).get("num_processes", 1)):
        if RANDOM_STATES.format(process) not in names:
            return f"{RANDOM_STATES.format(process)} is not among the files of its {MANIFEST}"
    return None


def refuse_former_run(output_dir: Path) -> None:
    """Refuse to begin anew in a folder with a run's checkpoints, or with the model that it ended with.

    Raises:
        ValueError: The folder holds some.
    """
    if list_checkpoints(output_dir):
        raise ValueError(
            f"training.output_dir {output_dir} holds checkpoints of an earlier run: pass --resume to continue it, or name "
            "another folder."
        )
    refuse_former_model(output_dir)


def refuse_former_model(output_dir: Path) -> None:
    """Refuse to begin anew where the new run's model would in the end be written over another one.

    Raises:
        ValueError: The folder holds weights.
    """
    found = [name for name in WEIGHTS if (output_dir / name).is_file()]
    if found:
        raise ValueError(
            f"training.output_dir {output_dir} holds the model of an earlier run ({found[0]}) without a checkpoint to resume "
            "from, and the new one would be written over it: name another folder. training.init_from goes on from that model."
        )


def newest_sound_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint whose files are intact; damaged ones are named in a warning and passed over."""
    for folder in reversed(list_checkpoints(output_dir)):
        problem = find_problem(folder)
        if problem is None:
            return folder
        logger.warning("Skipping checkpoint %s: %s. Trying the one before.", folder, problem)
    return None


def thin_out(output_dir: Path, keep: int, newest: Path) -> None:
    """Remove all but the last `keep` numbered checkpoints up to `newest`, and half-written ones of killed runs.

    Checkpoints beyond `newest` are damaged ones that a resumed run has passed over and will write again.
    """
    for folder in [folder for folder in list_checkpoints(output_dir) if folder.name <= newest.name][:-keep]:
        remove_folder(folder)
    remove_incomplete(output_dir)


def copy_as(source: Path, final: Path) -> None:
    """Copy a sealed checkpoint under another name, whole or not at all."""
    folder = incomplete_folder(final)
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / MANIFEST).unlink()
    seal(folder, final)


def replace_files(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder aside, then move its files into `folder` one by one, `config.json` last.

    A reader finds either the former or the new version of each file, and no model before its weights are there.
    """
    aside = incomplete_folder(folder / "model")
    write(aside)
    for path in sorted(aside.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, folder / path.name)
    aside.rmdir()


def read_state(folder: Path) -> JsonObject:
    return json.loads((folder / STATE_FILE).read_text())


def check_same_model(folder: Path, config: PreTrainedConfig) -> None:
    """Refuse a checkpoint of another method, or of the same one in another shape.

    Raises:
        ValueError: The two differ; the error names the fields.
    """
    saved = json.loads((folder / "config.json").read_text())
    advice = "name another training.output_dir, or take back the change."
    if saved.get("model_type") != config.model_type:
        raise ValueError(
            f"{folder} is a checkpoint of model_type '{saved.get('model_type')}', the recipe's model_type is "
            f"'{config.model_type}': {advice}"
        )
    former, now = own_fields(type(config).from_pretrained(folder)), own_fields(config)
    changed = changes({name: former[name] for name in now}, now, "model.")
    if changed:
        raise ValueError(f"{folder} was written with another model ({'; '.join(changed)}): {advice}")


def changed_settings(former: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Fields that had another value when a checkpoint was written; unknown ones count as unchanged."""
    return [name for name, value in now.items() if former.get(name, value) != value]


def said_changes(
    names: Sequence[str], former: Mapping[str, str], now: Mapping[str, str], section: str = "training."
) -> list[str]:
    """Changes of some fields in words.

    Args:
        names: The fields.
        former, now: Field -> its value as JSON.
        section: Words before the names.
    """
    before, after = ({name: json.loads(texts[name]) for name in names if name in texts} for texts in (former, now))
    return changes(before, after, section)


def warn_of_changed_data(folder: Path, former: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Warn of fields of the data section that have changed since a checkpoint was written.

    Args:
        folder: The checkpoint.
        former, now: Field -> its value as JSON.
    """
    # A field that one of them does not name, as that version or kind has none, has its default.
    unsaid = {name: json.dumps(value, default=str) for name, value in default_fields().items()}
    changed = [
        name
        for name in sorted({*former, *now})
        if former.get(name, unsaid.get(name)) != now.get(name, unsaid.get(name))
    ]
    if changed and former:
        values = "; ".join(said_changes(changed, {**unsaid, **former}, {**unsaid, **now}, "data."))
        logger.warning(
            "%s was written with other data (%s): the run goes on with what the recipe says now.", folder, values
        )


def _fingerprint(path: Path) -> list[int]:
    """[size in bytes, CRC-32]: finds truncation and flipped bits at the speed of the disk."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return [path.stat().st_size, checksum]


def _write_synced(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

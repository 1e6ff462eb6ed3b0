"""From the files of a release to Parquet, checks of the counts, and recipes that read what was written."""

import csv
import logging
import shlex
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import yaml

from ..checks import shown
from ..files import JsonObject, incomplete_folder, replace_folder, write_json
from ..recipes import read_yaml
from ..terminal import PATIENCE, MovingLine, counted
from ..version import __version__
from .picture_folders import SplitFolder
from .raw import RawFolder
from .record import PaperData, Use, filled, use_fields
from .writing import SplitFile, SplitWriter, WrongCell

REPORT_FILE = "prepared.json"
# What readers raise for a file that is not what its name says: of ours, of Arrow, pandas, NumPy, and Python's own.
UNREADABLE = (
    *(ValueError, LookupError, OSError, EOFError, TypeError, AttributeError, pa.ArrowException),
    *(struct.error, zlib.error, csv.Error, zipfile.BadZipFile, tarfile.TarError),
)

logger = logging.getLogger(__name__)


@dataclass
class Prepared:
    """What a preparation has written.

    Attributes:
        folder: Folder with a Parquet file or a folder for each split, the recipes and the report.
        rows: Split -> number of rows.
        classes: Column of labels -> number of classes over all splits.
        differences: What differs from the whole release, a sentence each.
        recipes: Uses whose recipe was written.
    """

    folder: Path
    rows: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    recipes: list[tuple[Use, Path]] = field(default_factory=list)


def prepare(
    record: PaperData,
    roots: tuple[Path, ...],
    folder: Path,
    *,
    partial: bool = False,
    max_rows: int | None = None,
    keeps_paths: bool = False,
    overwrite: bool = False,
) -> Prepared:
    """Write a data set as Parquet or as folders of pictures, with the paper's splits and a recipe for each use.

    The folder gets its name when all is written; before that it lies beside it under a name that ends with `.incomplete`.

    Args:
        record: Data set.
        roots: Folders with the files of the release.
        folder: Folder to write.
        partial: Whether rows whose file is missing are left out, where a list of the release names files.
        max_rows: Largest number of rows of each split, for a trial.
        keeps_paths: Whether pictures and sounds stay where they are, and only their paths are written.
        overwrite: Whether an earlier preparation in a folder of that name is replaced.

    Raises:
        FileNotFoundError: A file of the release is missing.
        FileExistsError: The folder exists, and is none of an earlier preparation or is not to be replaced.
        ValueError: A file is not what the release has, or a split is left without rows.
    """
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(f"--raw {root}: no such folder. It holds the files of {record.source}, unpacked")
    _refuse_existing(record, folder, overwrite)
    raw = RawFolder(roots, record.name, record.source, partial, max_rows)
    unfinished = incomplete_folder(folder.resolve())
    try:
        prepared = _write_splits(record, raw, unfinished, keeps_paths or record.keeps_paths)
        prepared.folder = folder
        uses = _usable(record, raw, unfinished)
        prepared.differences = list(_differences(record, prepared, raw))
        prepared.recipes = [(use, folder / use.file) for use in uses]
        for use in uses:
            text = _recipe_text(record, use, folder.resolve(), raw.class_names)
            (unfinished / use.file).write_text(text, encoding="utf-8")
        write_json(unfinished / REPORT_FILE, _report(record, prepared, raw, max_rows))
        _refuse_existing(record, folder, overwrite)
        replace_folder(unfinished, folder.resolve())
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    for difference in prepared.differences:
        logger.warning("%s: %s", record.name, difference)
    return prepared


def _usable(record: PaperData, raw: RawFolder, folder: Path) -> list[Use]:
    """The recipes but those of segmentation without maps of classes in the written folders, which a remark names."""
    usable = []
    for use in record.uses:
        label = {**read_yaml(use.recipe)["data"], **use.data}.get("label_column")
        is_map = record.form == "folder" and label in record.labels and label in record.columns
        lacking = [split for split in record.rows if is_map and not (folder / split / str(label)).is_dir()]
        if lacking:
            raw.remarks.append(f"{use.file} is not written: {' and '.join(lacking)} have no maps {label}, its labels")
        else:
            usable.append(use)
    return usable


def _refuse_existing(record: PaperData, folder: Path, overwrite: bool) -> None:
    """Only what an earlier preparation has written is replaced: a folder of that name may hold the release."""
    if not folder.exists():
        return
    if not overwrite:
        raise FileExistsError(f"--output_dir {folder} exists already: name another folder, or add --overwrite")
    if not (folder / REPORT_FILE).is_file():
        raise FileExistsError(
            f"--output_dir {folder} was not written by a preparation (it has no {REPORT_FILE}), so it is not replaced: "
            "name another folder"
        )
    own = {REPORT_FILE, *(use.file for use in record.uses)}
    own |= {split if record.form == "folder" else f"{split}.parquet" for split in record.rows}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in own)
    if record.form == "folder":  # such as labels that were made for the pictures
        foreign += sorted(
            f"{split}/{path.name}"
            for split in record.rows
            if (folder / split).is_dir()
            for path in (folder / split).iterdir()
            if path.name not in record.columns
        )
    if foreign:
        raise FileExistsError(
            f"--output_dir {folder} holds {shown(foreign)}, which no preparation of {record.name} wrote, so it is not replaced: "
            "move that away, or name another folder"
        )


def _write_splits(record: PaperData, raw: RawFolder, folder: Path, keeps_paths: bool) -> Prepared:
    """Write every split; the counts."""
    files = {split: _split_writer(record, folder, split, keeps_paths) for split in record.rows}
    total = sum(min(count or 0, raw.max_rows or count or 0) for count in record.rows.values())
    try:
        with MovingLine("row", total, delay=PATIENCE) as line:
            with _named_errors(record, raw):
                for split, content in record.read(raw):
                    line.update(_write(files[split], content, raw.max_rows))
                    if raw.max_rows is not None and all(file.rows >= raw.max_rows for file in files.values()):
                        break
                for file in files.values():
                    file.flush()
    finally:
        for file in files.values():
            file.close()
    empty = [split for split, file in files.items() if not file.rows]
    if empty:
        raise ValueError(
            f"--raw {raw.roots[0]}: no row for {' and '.join(empty)} of {record.name}: is the release whole? "
            f"{record.source}"
        )
    classes = {name: len({value for file in files.values() for value in file.values[name]}) for name in record.labels}
    return Prepared(folder, {split: file.rows for split, file in files.items()}, classes)


def _split_writer(record: PaperData, folder: Path, split: str, keeps_paths: bool) -> SplitWriter:
    if record.form == "folder":
        return SplitFolder(folder / split, list(record.columns), list(record.labels))
    return SplitFile(folder / f"{split}.parquet", record.columns, list(record.labels), keeps_paths)


def _write(file: SplitWriter, content: Mapping[str, object] | pa.RecordBatch, max_rows: int | None) -> int:
    """Write a row or a batch as far as `max_rows` lets; the number of rows written."""
    room = None if max_rows is None else max_rows - file.rows
    if room is not None and room <= 0:
        return 0
    before = file.rows
    if isinstance(content, pa.RecordBatch):
        file.add_batch(content if room is None else content.slice(0, room))
    else:
        file.add(content)
    return file.rows - before


@contextmanager
def _named_errors(record: PaperData, raw: RawFolder) -> Iterator[None]:
    """Errors of a reader, and of the writing of what it gives, name the file that was being read.

    Raises:
        ValueError: A file is not what the release has.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise
    except WrongCell as error:
        raise ValueError(
            f"--raw {raw.roots[0]}: not what {record.name} is released as ({record.source}): {error}"
        ) from error
    except UNREADABLE as error:
        words = f"{error}" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        where = str(raw.current or raw.roots[0])
        place = "" if where in words else f"{where}: "
        raise ValueError(f"--raw: {place}not what {record.name} is released as ({record.source}): {words}") from error


def _differences(record: PaperData, prepared: Prepared, raw: RawFolder) -> Iterator[str]:
    """What of the counts is not as in the whole release, a sentence each."""
    yield from raw.remarks
    if raw.left_out:
        yield f"left out are {counted(raw.left_out, 'row')} without a file (--partial)"
    if raw.max_rows is not None:
        yield (
            f"the first {raw.max_rows:,} rows of each split are taken (--max_rows): no number of a paper compares, and of files "
            "sorted by class some classes may be missing"
        )
        return
    for split, expected in record.rows.items():
        if expected is not None and prepared.rows[split] != expected:
            yield f"{split} has {counted(prepared.rows[split], 'row')}, the whole release gives {expected:,}"
    for name, expected in record.labels.items():
        if prepared.classes[name] != expected:
            yield f"{name} has {counted(prepared.classes[name], 'class')}, the whole release has {expected:,}"


def _recipe_text(record: PaperData, use: Use, folder: Path, class_names: Mapping[str, Sequence[str]]) -> str:
    """A recipe of the package, pointed to the prepared files and with the names of their classes, as YAML."""
    sections = read_yaml(use.recipe)
    wanted = {"pretrain": ("model", "data", "probe", "training"), "probe": ("data", "probe")}
    read = "what the first command writes" if use.first else "the files beside this one"
    first = [f"# First:    {' '.join(words)}" for words in first_commands(use, folder)]
    kept: JsonObject = {name: sections[name] for name in wanted.get(use.command, sections) if name in sections}
    data = {**kept["data"], **use_fields(use, record, folder)}
    if data.get("task") == "semantic_segmentation" and (names := class_names.get(data["label_column"])):
        data["label_names"] = list(names)
    kept["data"] = {name: value for name, value in data.items() if value is not None}
    changes = {"probe": use.probe, "finetuning": use.finetuning}
    if "finetuning" in kept:  # recipes of several data sets are one in the package
        changes["finetuning"] = {"output_dir": f"outputs/finetune_{record.name}", **use.finetuning}
    for name, fields in changes.items():
        if fields:
            kept[name] = {**kept.get(name, {}), **fields}
    head = [
        f"# {record.title}.",
        "#",
        f"# The recipe {use.recipe} of hf_maskssl {__version__}, which reads {read}.",
        *first,
        f"# Launch:   {' '.join(command_of(record, use, folder / use.file))}",
        f"# Expected: {use.expected}",
        f"# Source:   {record.source}",
    ]
    return "\n".join(head) + "\n\n" + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=120)


def command_of(record: PaperData, use: Use, path: Path | str) -> list[str]:
    """The command line that runs a written recipe: its words, an option with its value as one.

    Args:
        record: Data set.
        use: Recipe in question.
        path: Path of the written recipe.
    """
    if use.command != "probe":
        return ["hf-maskssl", use.command, shlex.quote(str(path))]
    output = f"--output outputs/{use.name or use.command}_{record.name}"
    return ["hf-maskssl", "probe", shlex.quote(checkpoint_of(use)), shlex.quote(str(path)), output]


def first_commands(use: Use, folder: Path) -> list[list[str]]:
    """The commands to run before a written recipe's own: their words, an option with its value as one.

    Args:
        use: Recipe in question.
        folder: Folder of the prepared files.
    """
    commands = []
    for words in use.first:
        grouped: list[str] = []
        for word in words:
            quoted = shlex.quote(filled(word, folder))
            if grouped and grouped[-1].startswith("--") and " " not in grouped[-1]:
                grouped[-1] += f" {quoted}"
            else:
                grouped.append(quoted)
        commands.append(grouped)
    return commands


def checkpoint_of(use: Use) -> str:
    """The folder of the checkpoint that a probe looks at: what the recipe it follows has trained."""
    sections = read_yaml(use.recipe)
    folder: str = sections.get("training", {}).get("output_dir", f"outputs/{use.recipe}")
    return folder


def _report(record: PaperData, prepared: Prepared, raw: RawFolder, max_rows: int | None) -> JsonObject:
    return {
        "name": record.name,
        "title": record.title,
        "source": record.source,
        "licence": record.licence,
        "splits": record.splits,
        "note": record.note,
        "raw": [str(root.resolve()) for root in raw.roots],
        "rows": prepared.rows,
        "classes": prepared.classes,
        "differences": prepared.differences,
        "max_rows": max_rows,
        "recipes": {use.file: use.expected for use, _ in prepared.recipes},
        "version": __version__,
    }

"""The record of a data set, in which its preparation, its checks and its pages find everything they need."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa

from ..files import JsonObject, JsonView
from .raw import RawFolder

Command = Literal["pretrain", "probe", "finetune", "segment", "depth"]
# What is written: a table for each split, or a folder of pictures for each split and modality.
Form = Literal["parquet", "folder"]
# Kinds of columns, which `writing.FEATURES` turns into features of `datasets`.
ColumnKind = Literal["string", "int", "float", "floats", "ints", "series", "bands", "image", "sound"]
Cell = object


class Rows(NamedTuple):
    """Rows of one split: one as a dictionary, or many as a batch of Arrow.

    Attributes:
        split: Name of the split, and of its file.
        content: A row, column -> cell; files are `Media`, bytes or `ClassMap`. In a record of the form "folder" the row has a
            `name`, "CLASS/NAME", as well. Or a batch with the record's columns.
    """

    split: str
    content: Mapping[str, Cell] | pa.RecordBatch


Reader = Callable[[RawFolder], Iterator[Rows]]


@dataclass(frozen=True)
class Use:
    """A recipe that reads the prepared files, written beside them as `NAME.yaml`.

    Attributes:
        command: Verb that runs it.
        recipe: Name of the recipe of the package that it follows.
        expected: Number of the paper, with its table.
        data: Fields of its data section that differ; a probe's and a fine-tuning's as well. In texts `FOLDER` stands for the
            folder of the prepared files.
        probe: Fields of its probe section that differ.
        finetuning: Fields of its finetuning section that differ.
        name: Name of the file; None means the command's.
        first: Words of commands to run before, in which `FOLDER` stands for the folder of the prepared files.
    """

    command: Command
    recipe: str
    expected: str
    data: JsonView = field(default_factory=dict)
    probe: JsonView = field(default_factory=dict)
    finetuning: JsonView = field(default_factory=dict)
    name: str | None = None
    first: Sequence[Sequence[str]] = ()

    @property
    def file(self) -> str:
        """Name of the written file."""
        return f"{self.name or self.command}.yaml"


@dataclass(frozen=True)
class PaperData:
    """A data set of a paper.

    Attributes:
        name: Name on the command line, and of the folder that is written where none is given.
        title: What it is, in a line.
        paper: Tables of the papers that use it.
        source: Address of the original release.
        licence: Licence, in words.
        layout: Files of the release that are read, one a line.
        documented: Addresses that document the layout and the splits.
        columns: Name of a column -> its kind.
        rows: Split -> number of its rows in the whole release; None where no document says it.
        labels: Name of a column of labels, of class maps too, -> number of its classes in the whole release.
        read: Function from the folder of the release to rows.
        uses: Recipes that read what was written.
        note: What differs from the paper, or is to be known.
        downloads: Addresses of archives that --download fetches; none where terms have to be accepted first.
        hub: Name of a Hub data set with the same rows, which recipes can name as it is.
        keeps_paths: Whether pictures and sounds stay where they are, and only their paths are written, since rows share them.
        splits: What the files hold, in words.
        form: What is written. In folders, pictures of the release are linked, and only what had to be made is new.
    """

    name: str
    title: str
    paper: str
    source: str
    licence: str
    layout: Sequence[str]
    documented: Sequence[str]
    columns: Mapping[str, ColumnKind]
    rows: Mapping[str, int | None]
    labels: Mapping[str, int]
    read: Reader
    uses: Sequence[Use] = ()
    note: str = ""
    downloads: Sequence[str] = ()
    hub: str | None = None
    keeps_paths: bool = False
    splits: str = ""
    form: Form = "parquet"

    @property
    def total(self) -> int:
        """Number of rows of all splits that a document says."""
        return sum(count or 0 for count in self.rows.values())


def use_fields(use: Use, record: PaperData, folder: Path) -> JsonObject:
    """The data section's fields that point a recipe to the prepared files.

    Args:
        use: Recipe in question.
        record: Data set.
        folder: Folder of the prepared files.
    """
    source: JsonObject = {"source": "multimodal_folder", "config_name": None, "data_dir": str(folder)}
    if record.form == "parquet":
        files = {split: f"{split}.parquet" for split in record.rows}
        source |= {"source": "parquet", "data_files": files}
    return source | {
        name: filled(value, folder) if isinstance(value, str) else value for name, value in use.data.items()
    }


def filled(text: str, folder: Path) -> str:
    """A text of a `Use` with the folder of the prepared files in its place."""
    return text.replace("FOLDER", str(folder))

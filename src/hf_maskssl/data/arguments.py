"""The fields of a recipe's `data` section that all kinds of rows share."""

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..checks import AT_LEAST_1, SEED, SHARE, SHARE_BELOW_1, Range, check_numbers
from ..recipes import ChosenSection, build_section, nearest
from .builtin import SOURCES, Source

if TYPE_CHECKING:  # datasets takes long to import
    from datasets import Dataset

    from .tables.sources import AnyDataset

LOCAL_SOURCES = ("parquet", "csv", "json", "text", "numpy", "fasta", "imagefolder", "audiofolder")
# The source of rows that join those of several data sections.
PARTS = "parts"

Task = Literal[
    "classification",
    "multi_label_classification",
    "regression",
    "token_classification",
    "semantic_segmentation",
    "depth_estimation",
    "dense_regression",
]
DataFiles = str | list[str] | dict[str, str | list[str]] | None
# Tasks whose label is a map as large as the picture.
DENSE_TASKS = ("semantic_segmentation", "depth_estimation", "dense_regression")
# Tasks that several columns of labels may set.
TASKS_OF_COLUMNS = ("multi_label_classification", "regression")
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)
DEFAULT_NUM_SCENES = {"train": 4000, "validation": 500, "test": 1000}
DEFAULT_KIND = "image"

# Kind -> the class of its arguments; `register_kind` fills it.
ARGUMENTS: dict[str, type["DataArguments"]] = {}


@dataclass
class DataArguments(ChosenSection):
    """The source of the rows, the columns that matter and the rows that are taken: the fields of all kinds.

    Each kind adds how a row becomes the model's input. `kind` chooses the class in `data_arguments` and in recipes.

    Attributes:
        source: `"digits"` (scikit-learn's 8x8 handwritten digits: columns `image`, `label`; splits `train` of 1,437 and `test`
            of 360 rows), `"scenes"` (rooms with textured solids, rendered here: columns `rgb`, `depth` in millimetres,
            `normals`, `semseg`, `layout`, its classes with all solids as one, and `label`, the solid that covers most pixels;
            splits `train`, `validation`, `test`), `"captioned_scenes"` (rooms with three coloured things, rendered here: columns
            `image`, `caption`, `statement`, a caption that is false in half of the rows, `truth`, 1 where it is true, `question`
            and `answer`, a colour; the same splits), `"pydoc"` (the help topics that Python brings along, `help("topics")`:
            columns `topic`, `text`; split `train`), a kind of local file (`"parquet"`, `"csv"`, `"json"`, `"text"`, `"numpy"`,
            `"fasta"`, `"imagefolder"`, `"audiofolder"`), `"multimodal_folder"` (`data_dir` with files `modality/class/name.png`
            or `split/modality/class/name.png`), a folder written by `Dataset.save_to_disk`, or any Hub data set or local path
            that `datasets.load_dataset` takes.
        config_name: Name of the data set's configuration (`name` of `load_dataset`).
        revision: Branch, tag or commit of a Hub data set.
        data_dir: Folder to read. For local sources, relative paths start at the current directory.
        data_files: File, list of files or `{split: file or files}`. Environment variables such as `${HOME}` are expanded here,
            in `data_dir` and in `source`. For `"numpy"`: one or more `.npz` files whose arrays are the columns, or `.npy` files,
            one a column, named by their file name (`image.npy`, `label.npy`). For `"fasta"`: files of sequences, also packed
            (.gz, .bz2, .xz); the columns are `id`, `description` and `sequence`.
        delimiter: Character between the cells of CSV files.
        decimal: Character in front of the decimals of their numbers.
        thousands: Character between the thousands of their numbers, as in 1,234.5; None means that there is none.
        missing_words: Words of CSV files that mean a missing cell in every column, such as "?" or "-". Empty cells always do,
            and NaN, NA, null and the like in columns of numbers; in labels of words these stay classes.
        streaming: Whether to read rows as they come (`IterableDataset`) instead of downloading and caching them first.
        train_split: Name of the training split.
        validation_split: Name of the validation split, or None.
        test_split: Name of the test split, or None.
        validation_fraction: Share of the training split, in [0, 1), that is set aside where there is no validation split.
        split_seed: Seed of that cut, of `split` and of the choice of rows under `max_*_samples`.
        split: `"given"` takes the splits named above. The others cut all three out of the training split: `"random"` by
            `split_seed`; `"scaffold"` keeps molecules of one Bemis-Murcko scaffold together, the most common scaffolds first
            into training (deepchem's rule, without chance); `"scaffold_random"` deals the scaffolds out in an order drawn from
            `split_seed`, those with more rows than half a validation or test split first. SMILES that RDKit cannot read are left
            out with a warning. Scaffolds need RDKit: `pip install hf_maskssl[chem]`.
        split_fractions: Shares of the training, validation and test rows where `split` cuts them, together 1; 0 leaves out
            validation or test.
        split_column: Name of the column that says which rows stay together. Scaffold splits read the SMILES there, None means
            the input column; `"random"` keeps rows with an equal value together, None means that each row goes by itself.
        kind: Name of a `Kind`: what a row is. It decides which further fields there are (`data_arguments`).
        input_column: Name of the column that holds the input; some kinds take several, or none. The built-in digits and pydoc
            need no name.
        label_column: Name of the column that holds the label; None means no labels, which pre-training does not need. A list
            of names is one column for each of several tasks: of 0 and 1 for task `"multi_label_classification"`, of numbers for
            `"regression"`. Their cells may be null or NaN (of 0 and 1 also -100): such a gap is no target. Rows with gaps alone
            are left out, with a warning that counts them.
        drop_missing_labels: Whether to leave out rows whose label is null or NaN, with a warning that counts them. Otherwise
            they are an error. Several columns of labels need it not.
        task: Name of the task that the labels set; the kind decides which tasks there are.
        scene_size: Size of the pictures of `"scenes"` and `"captioned_scenes"` in pixels, one number for a square or [height,
            width].
        num_scenes: Number of scenes of each split of these two.
        scenes_seed: Seed that all of them are drawn from.
        max_train_samples: Largest number of training rows, chosen by `split_seed` (the first ones of a stream).
        max_validation_samples: Largest number of validation rows, chosen in the same way.
        max_test_samples: Largest number of test rows, chosen in the same way.
        num_proc: Number of processes that prepare the rows; None means this one alone.
        cache: Whether to prepare every row once and keep the result in the datasets cache. False prepares rows each time they
            are read, for sets whose prepared form is too large for the disk. None means the kind's own choice.
    """

    source: str = "digits"
    config_name: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    data_files: DataFiles = None
    delimiter: str = ","
    decimal: str = "."
    thousands: str | None = None
    missing_words: list[str] | None = None
    streaming: bool = False
    train_split: str = "train"
    validation_split: str | None = None
    test_split: str | None = None
    validation_fraction: float = 0.0
    split_seed: int = 0
    split: Literal["given", "random", "scaffold", "scaffold_random"] = "given"
    split_fractions: list[float] = field(default_factory=lambda: list(DEFAULT_FRACTIONS))
    split_column: str | None = None
    kind: str = DEFAULT_KIND
    input_column: str | list[str] | dict[str, str] | None = None
    label_column: str | list[str] | None = None
    drop_missing_labels: bool = False
    task: Task = "classification"
    scene_size: int | list[int] = 64
    num_scenes: dict[str, int] = field(default_factory=lambda: dict(DEFAULT_NUM_SCENES))
    scenes_seed: int = 0
    max_train_samples: int | None = None
    max_validation_samples: int | None = None
    max_test_samples: int | None = None
    num_proc: int | None = None
    cache: bool | None = None

    # The forms and defaults of the common fields. A kind with other ones sets them in its own class.
    TASKS: ClassVar[tuple[str, ...]] = ("classification", "multi_label_classification", "regression")
    INPUT_FORMS: ClassVar[tuple[type, ...]] = (str,)  # types of `input_column`: str, list, dict, type(None)
    CACHES: ClassVar[bool] = True  # `cache` when it is left out
    ROWS_OF_CELLS: ClassVar[bool] = False  # whether a sample is the cells of a row, one number or category each
    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("max_train_samples", "max_validation_samples", "max_test_samples", "num_proc"), AT_LEAST_1),
        **dict.fromkeys(("split_seed", "scenes_seed"), SEED),
        "validation_fraction": SHARE_BELOW_1,
        "split_fractions": SHARE,
        "scene_size": AT_LEAST_1,
        "num_scenes": AT_LEAST_1,
    }

    @classmethod
    def chosen(cls, values: Mapping[str, Any]) -> tuple[type["DataArguments"], dict[str, Any]]:
        """The class of the kind that the values name, and the values for it.

        Fields of other kinds are left out where they have their default values (`fields_of_kinds`).

        Raises:
            ValueError: No such kind, or a field that another kind has.
        """
        kind = values.get("kind", DEFAULT_KIND)
        if kind not in ARGUMENTS:
            hint = nearest(kind, ARGUMENTS) if isinstance(kind, str) else ""
            raise ValueError(f"data.kind: expected one of {list(ARGUMENTS)}, got {kind!r}{hint}")
        arguments = ARGUMENTS[kind]
        own = {entry.name for entry in fields(arguments)}
        defaults = fields_of_kinds()
        kept = {name: value for name, value in values.items() if name not in defaults.keys() - own}
        for name in values.keys() - kept.keys():
            if values[name] != defaults[name]:
                others = [
                    repr(other) for other, one in ARGUMENTS.items() if name in {entry.name for entry in fields(one)}
                ]
                raise ValueError(
                    f"unknown field data.{name} for kind {kind!r}, which {' and '.join(others)} has: remove it, or set "
                    "another data.kind"
                )
        return arguments, kept

    @classmethod
    def every_class(cls) -> list[type["DataArguments"]]:
        """The classes of all kinds."""
        return list(ARGUMENTS.values())

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> str:
        """The kind, as errors of unknown fields name it."""
        return f" for kind {values.get('kind', DEFAULT_KIND)!r}"

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work.

        Raises:
            ValueError: The combination cannot work; the error names fields, expectation and value.
        """
        if self.builtin is not None and self.input_column is None:
            self.input_column = self.builtin.input_column
        if self.cache is None:
            self.cache = self.CACHES
        check_numbers("data.", self, self.RANGES)
        _check_splits(self)
        _check_cut(self)
        self._check_columns()
        _check_csv(self)
        _check_scenes(self)

    @property
    def builtin(self) -> Source | None:
        """The data set of this package that `source` names, if it does."""
        return SOURCES.get(self.source)

    @property
    def max_samples(self) -> dict[str, int | None]:
        """Split -> number of its rows to keep; None keeps all."""
        return {
            "train": self.max_train_samples,
            "validation": self.max_validation_samples,
            "test": self.max_test_samples,
        }

    @property
    def reads_lines(self) -> bool:
        """Whether rows are the lines of text files, where a blank one ends a document."""
        return self.source == "text"

    @property
    def reads_lists(self) -> bool:
        """Whether cells of CSV files that are JSON lists of numbers are read as lists, not as texts."""
        return False

    def assembled(self, rows: "AnyDataset", split: str) -> "AnyDataset":
        """The rows of a split as samples: a kind whose samples lie in several rows each joins them here.

        Args:
            rows: Rows as they come.
            split: Name of the split, for errors.

        Raises:
            ValueError: They cannot be joined.
        """
        return rows

    def cut_in_time(self, rows: "Dataset") -> "tuple[Dataset, Dataset] | None":
        """Training and validation as parts in time of one long sample, where `validation_fraction` finds but that; else None."""
        return None

    @property
    def may_lack_columns(self) -> bool:
        """Whether rows may lack the value of some input column."""
        return False

    @property
    def file_columns(self) -> list[str]:
        """Columns whose texts are paths of files; relative ones start at the folder of their table."""
        return []

    def input_columns(self) -> list[str]:
        """The columns that `input_column` names; empty for None."""
        if isinstance(self.input_column, dict):
            return list(self.input_column.values())
        return [self.input_column] if isinstance(self.input_column, str) else list(self.input_column or [])

    def columns_read(self) -> list[str]:
        """All columns that the model's inputs are made of, as far as the recipe names them."""
        return self.input_columns()

    def _check_columns(self) -> None:
        if not isinstance(self.input_column, self.INPUT_FORMS):
            self._refuse_input()
        for name, column in self.label_columns().items():
            if column is not None and column in self.columns_read():
                raise ValueError(
                    f"data.{name}: {column!r} is also an input column ({self.columns_read()}), so the model would read the "
                    "answer: take it out of the input columns"
                )
        if self.task not in self.TASKS:
            others = [kind for kind, arguments in ARGUMENTS.items() if self.task in arguments.TASKS]
            raise ValueError(f"data.task {self.task!r} needs kind {' or '.join(map(repr, others))}, got {self.kind!r}")
        self._check_targets()
        if self.drop_missing_labels and (self.streaming or self.label_column is None):
            raise ValueError(
                f"data.drop_missing_labels is true with data.label_column {self.label_column!r} and data.streaming "
                f"{self.streaming}: it needs a label column, and rows that can be counted beforehand (streaming false)"
            )

    def _refuse_input(self) -> None:
        if self.input_column is None:
            raise ValueError(
                f"data.input_column: kind {self.kind!r} needs the name of the column that holds the input"
            )
        forms = {str: "one column", list: "a list of columns", dict: "{modality: column}"}
        known = " or ".join(words for form, words in forms.items() if form in self.INPUT_FORMS)
        raise ValueError(f"data.input_column: kind {self.kind!r} takes {known}, got {self.input_column}")

    def _check_targets(self) -> None:
        if not isinstance(self.label_column, list):
            if self.task == "multi_label_classification":
                raise ValueError(
                    f"data.label_column: task {self.task!r} takes a list of columns, one a task, got {self.label_column!r}; for "
                    "one column of classes set data.task to 'classification'"
                )
            return
        if self.task not in TASKS_OF_COLUMNS:
            raise ValueError(
                f"data.label_column {self.label_column}: several columns go with data.task {' or '.join(TASKS_OF_COLUMNS)}, "
                f"got {self.task!r}"
            )
        if not self.label_column or len(set(self.label_column)) != len(self.label_column):
            raise ValueError(f"data.label_column: expected different columns, at least one, got {self.label_column}")

    def sections(self) -> "dict[str, DataArguments]":
        """Name -> data section of each part, of a kind whose rows join those of others; else nothing."""
        return {}

    def with_few_rows(self, most: int) -> "DataArguments":
        """The arguments with at most that many training rows."""
        return dataclasses.replace(self, max_train_samples=min(most, self.max_train_samples or most))

    def target_columns(self) -> list[str]:
        """The columns whose values the task is to predict: those that `label_column` names; empty for None."""
        return [self.label_column] if isinstance(self.label_column, str) else list(self.label_column or [])

    def single_label_column(self) -> str | None:
        """The one column of labels, None without; where a kind reads no more than one, several were refused."""
        if isinstance(self.label_column, list):
            raise ValueError(f"data.label_column: expected one column here, got {self.label_column}")
        return self.label_column

    def label_columns(self) -> dict[str, str | None]:
        """Field -> the column that it names, for the fields that name columns of labels."""
        if isinstance(self.label_column, list):
            return {f"label_column[{place}]": column for place, column in enumerate(self.label_column)}
        return {"label_column": self.label_column}


def _check_splits(args: DataArguments) -> None:
    """Refuse splits that contradict each other, and sources without files."""
    if args.validation_fraction and args.validation_split is not None:
        raise ValueError(
            f"data.validation_fraction is {args.validation_fraction} although data.validation_split is "
            f"{args.validation_split!r}: keep one of them"
        )
    if args.validation_fraction and args.streaming:
        raise ValueError(
            "data.validation_fraction: a stream cannot be cut the same way under every number of workers; "
            "name a data.validation_split or set data.streaming to false"
        )
    if args.source in LOCAL_SOURCES and args.data_files is None and args.data_dir is None:
        raise ValueError(f"data.source {args.source!r} needs data.data_files or data.data_dir: the files to read")
    named = {
        "numpy": "the .npz or .npy files",
        "fasta": "the FASTA files",
    }  # `datasets` does not find files of these sources in a folder
    if args.source in named and args.data_files is None:
        raise ValueError(f"data.source {args.source!r} needs data.data_files: {named[args.source]} of each split")
    if args.source == "multimodal_folder" and args.data_dir is None:
        raise ValueError("data.source 'multimodal_folder' needs data.data_dir: the folder of the modalities' folders")


def _check_cut(args: DataArguments) -> None:
    """Refuse settings of a cut that does not use them, or that cannot be made."""
    if args.split == "given":
        for name, given, default in (
            ("split_fractions", args.split_fractions, list(DEFAULT_FRACTIONS)),
            ("split_column", args.split_column, None),
        ):
            if given != default:
                raise ValueError(
                    f"data.{name} is {given}, which data.split 'given' does not use: set data.split "
                    "to 'random', 'scaffold' or 'scaffold_random', or remove it"
                )
        return
    for name, value in (
        ("validation_split", args.validation_split),
        ("test_split", args.test_split),
        ("validation_fraction", args.validation_fraction),
        ("streaming", args.streaming),
    ):
        if value:
            raise ValueError(
                f"data.{name} is {value!r} although data.split {args.split!r} cuts all splits out of "
                "the whole training split: keep one of them"
            )
    fractions = args.split_fractions
    if len(fractions) != 3 or min(fractions) < 0.0 or fractions[0] == 0.0 or abs(sum(fractions) - 1.0) > 1e-6:
        raise ValueError(
            "data.split_fractions: expected three numbers for training (above 0), validation and test, together "
            f"1, got {fractions}"
        )
    if args.split != "random" and args.split_column is None and not isinstance(args.input_column, str):
        raise ValueError(
            f"data.split_column: split {args.split!r} needs the column of the SMILES; data.input_column is "
            f"{args.input_column}"
        )


def _check_csv(args: DataArguments) -> None:
    """Refuse characters that cut no CSV file, and those of other sources."""
    written = {"delimiter": args.delimiter, "decimal": args.decimal, "thousands": args.thousands}
    for name, value in {**written, "missing_words": args.missing_words}.items():
        if name in written and value is not None and len(value) != 1:
            raise ValueError(f"data.{name}: expected one character, got {value!r}")
        if args.source != "csv" and value != getattr(DataArguments, name):
            raise ValueError(
                f"data.{name} is {value!r} with data.source {args.source!r}: it is only for csv; remove it"
            )
    if args.decimal in (args.delimiter, args.thousands):
        other = "delimiter" if args.decimal == args.delimiter else "thousands"
        raise ValueError(f"data.{other} and data.decimal are both {args.decimal!r}: expected two characters")
    if args.thousands is not None and args.streaming:
        raise ValueError(
            "data.thousands: a stream does not know beforehand which columns hold numbers; set data.streaming to false"
        )


def _check_scenes(args: DataArguments) -> None:
    size = [args.scene_size] * 2 if isinstance(args.scene_size, int) else args.scene_size
    if len(size) != 2 or min(size) < 8:
        raise ValueError(f"data.scene_size: expected one number or [height, width], at least 8, got {size}")
    if args.source == "captioned_scenes" and size[1] > 2 * size[0]:
        raise ValueError(
            "data.scene_size: three things fit side by side into pictures of captioned_scenes that are at most twice as wide as "
            f"high, got [height, width] {size}"
        )
    if set(args.num_scenes) - set(DEFAULT_NUM_SCENES) or min(args.num_scenes.values(), default=1) < 1:
        raise ValueError(
            f"data.num_scenes: expected positive numbers for some of {list(DEFAULT_NUM_SCENES)}, got {args.num_scenes}"
        )


def data_arguments(source: str = "digits", **values: object) -> Any:
    """Arguments of the class that `kind` chooses, as a recipe's `data` section would give them.

    Args:
        source: Name of the data set, a value of `DataArguments.source`.
        values: Any further fields of the kind, and `kind` itself.

    Raises:
        ValueError: An unknown kind, a field that the kind does not have (with the nearest one it has), a value of another
            type, or values that do not go together.
    """
    return build_section("data", DataArguments, {"source": source, **values})


def is_hub_name(source: str) -> bool:
    """Whether a `data.source`, or a checkpoint, is named as on the Hub and is no file of this machine."""
    is_local = source in (*SOURCES, *LOCAL_SOURCES, "multimodal_folder", PARTS) or Path(source).exists()
    return not is_local and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) is not None and not source.startswith(".")


def checkpoint_name(checkpoint: str) -> str:
    """A Hub name, or the last part of a path: its other parts mean nothing on another machine."""
    return checkpoint if is_hub_name(checkpoint) else Path(checkpoint).resolve().name


def fields_of_kinds() -> dict[str, Any]:
    """Field -> its default value, for the fields that some kind has beside the common ones.

    Recipes written before kinds had arguments of their own hold all of these fields; at their default values, those of other
    kinds mean nothing.
    """
    common = {entry.name for entry in fields(DataArguments)}
    return {name: value for name, value in default_fields().items() if name not in common}


def default_fields() -> dict[str, Any]:
    """Field -> its default value, for the fields of all kinds, the common ones with their own defaults.

    What an earlier version has stored lacks the fields that have come since: they are at these values.
    """
    classes: list[type[DataArguments]] = [*ARGUMENTS.values(), DataArguments]
    return {
        entry.name: entry.default_factory() if entry.default_factory is not MISSING else entry.default
        for arguments in classes
        for entry in fields(arguments)
    }


def expand_variables(text: str, field_name: str) -> str:
    """Replace `$NAME`, `${NAME}` and a leading `~`.

    Args:
        text: Path or pattern as written in the recipe.
        field_name: Name of the field for the error, such as `"data.data_files"`.

    Raises:
        ValueError: A variable is not set; the error names it.
    """
    expanded = os.path.expanduser(os.path.expandvars(text))
    if "$" in expanded:
        start = expanded.index("$")
        name = expanded[start:].split("/")[0]
        raise ValueError(
            f"{field_name}: the environment variable {name} in {text!r} is not set; export it or write the path out"
        )
    return expanded

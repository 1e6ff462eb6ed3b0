"""Tagged texts in a folder of Parquet parts, of which a killed run leaves whole ones: the work of `examples/run_tag_pos.py`."""

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset

from ..checks import AT_LEAST_1, Range, check_numbers
from ..data.arguments import DataArguments
from ..data.masked_text.arguments import MaskedTextArguments
from ..data.masked_text.documents import runs_of_rows, warn_of_wrapped_text
from ..data.masked_text.parts_of_speech import PART_OF_TAG
from ..data.masked_text.pos_tagging import load_tagger, tag_values
from ..data.tables.caching import batch_rows_of, mean_bytes
from ..data.tables.columns import require_columns
from ..data.tables.rows import Rows
from ..data.tables.splits import read_splits
from ..data.text.texts import row_place
from ..files import write_whole
from ..locks import FolderLock
from ..recipes import load_recipe
from .resumable import ResumableFolder

logger = logging.getLogger(__name__)

REPORT_FILE = "tagging.json"
# Key in a part's Parquet metadata for the counts of its rows.
COUNTS_KEY = b"hf_maskssl.tagging"
# Default size of parts: a few for each process, so that a kill loses only minutes.
MOST_ROWS_PER_PART = 5000
PARTS_PER_PROCESS = 4
PART_BYTES = (100_000, 20_000_000)
LOOKED_AT = 64  # rows whose content must not change before a run is continued
FEATURES = datasets.Features(
    {
        "text": datasets.Value("string"),
        "word_starts": datasets.List(datasets.Value("int32")),
        "word_ends": datasets.List(datasets.Value("int32")),
        "tags": datasets.List(datasets.Value("string")),
        "document": datasets.Value("int64"),
        "row": datasets.Value("int64"),
    }
)
DATA_FIELDS = (
    *("source", "config_name", "revision", "data_dir", "data_files"),
    *("train_split", "validation_split", "test_split", "input_column", "document_column"),
)
# Further fields of a recipe that decide the rows.
CUT_FIELDS = ("validation_fraction", "split", "split_fractions", "split_column", "split_seed")


@dataclass
class TaggingArguments:
    """The text to tag, and the output folder."""

    output_dir: str = field(
        metadata={"help": "folder to write, used for nothing else; a call with the same folder and options continues"}
    )
    recipe: str | None = field(
        default=None,
        metadata={
            "help": "recipe whose data section names the text, also without --recipe in front of all options; the options "
            "below replace its fields"
        },
    )
    source: str | None = field(
        default=None, metadata={"help": "source of the text, as data.source: text, parquet, json, a Hub name, ..."}
    )
    config_name: str | None = field(default=None, metadata={"help": "configuration of a Hub data set"})
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of a Hub data set"})
    data_dir: str | None = field(default=None, metadata={"help": "folder of the source"})
    data_files: list[str] | None = field(default=None, metadata={"help": "files of the training split"})
    train_split: str | None = field(
        default=None, metadata={"help": "name of the training split in the source; train where not given"}
    )
    validation_split: str | None = field(
        default=None, metadata={"help": "name of the validation split in the source; none where not given"}
    )
    test_split: str | None = field(
        default=None, metadata={"help": "name of the test split in the source; none where not given"}
    )
    input_column: str | None = field(
        default=None,
        metadata={
            "help": "name of the column that holds texts, or lists of words, each a sentence; text where not given"
        },
    )
    document_column: str | None = field(
        default=None,
        metadata={
            "help": "name of the column that holds documents: neighbouring rows with an equal value are one; where not given, "
            "every row is one, or in text files (a paragraph a line, not wrapped) the lines between two blank ones"
        },
    )
    rows_per_part: int | None = field(
        default=None,
        metadata={
            "help": "number of rows of the source in each file; a kill loses no more than those being tagged. Where not given, "
            "at most 5000, fewer where they are long, and at least 4 files for each process"
        },
    )
    num_proc: int = field(default=1, metadata={"help": "number of processes"})

    RANGES: ClassVar[dict[str, Range]] = {"rows_per_part": AT_LEAST_1, "num_proc": AT_LEAST_1}

    def __post_init__(self) -> None:
        check_numbers("", self, self.RANGES)
        if self.recipe is None and self.source is None:
            raise ValueError(
                "recipe and source are both missing: name a recipe with a data section, or a source of text"
            )


@dataclass
class TaggedRows:
    """A function from rows of text to rows of tagged sentences.

    Attributes:
        column: Name of the column that holds strings or lists of words.
        split: Name of the split, for errors.
    """

    column: str
    split: str

    def __call__(self, batch: Rows, indices: Sequence[int], documents: Sequence[int]) -> pa.Table:
        """The columns of `FEATURES`; rows without text give no sentence.

        Args:
            batch: Columns of some rows.
            indices: Numbers of the rows in the split.
            documents: Number of each row's document.

        Raises:
            ValueError: A row holds neither text nor a list of words; the error names split, row and column.
        """
        values = [self._text(value, index) for value, index in zip(batch[self.column], indices, strict=True)]
        columns: dict[str, list[object]] = {name: [] for name in FEATURES}
        for index, document, sentences in zip(indices, documents, tag_values(values), strict=True):
            for sentence in sentences:
                for name, value in zip(columns, (*sentence, document, index), strict=True):
                    columns[name].append(value)
        return pa.table(columns, schema=FEATURES.arrow_schema)

    def _text(self, value: object, index: int) -> str | list[str]:
        if value is None:
            return ""
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            return value
        raise ValueError(
            f"{row_place(self.split, index, self.column)}: expected text or a list of words, got {value!r:.80}"
        )


@dataclass
class PartWriter:
    """A function that tags and writes one part, for `Dataset.map` over part numbers in any number of processes.

    Attributes:
        rows: Rows of the split.
        data: Arguments that say what a document is.
        function: Tagger of the rows.
        paths: File of each part.
        rows_per_part: Number of the split's rows in each part but the last.
    """

    rows: Dataset
    data: MaskedTextArguments
    function: TaggedRows
    paths: list[Path]
    rows_per_part: int

    def __call__(self, part: dict[str, int]) -> None:
        """Write the part of this number, whose first row is of this document, with its counts in the file's metadata."""
        started = time.perf_counter()
        first = part["part"] * self.rows_per_part
        rows = self.rows.select(range(first, min(first + self.rows_per_part, len(self.rows))))
        # Documents are numbered here: numbers for all rows would take as much memory as the texts, in every process.
        documents = runs_of_rows(rows, self.data).astype(np.int64)
        documents += part["document"] - documents[0]
        size = batch_rows_of(rows, self.function.column)
        tables = []
        for start, batch in zip(range(0, len(rows), size), rows.iter(batch_size=size), strict=True):
            end = min(start + size, len(rows))
            tables.append(self.function(batch, range(first + start, first + end), documents[start:end].tolist()))
        table = pa.concat_tables(tables).combine_chunks()
        counts = {**_count(table, len(rows)), "seconds": round(time.perf_counter() - started, 3)}
        metadata = {**(table.schema.metadata or {}), COUNTS_KEY: json.dumps(counts).encode()}
        write_whole(
            self.paths[part["part"]],
            lambda unfinished: pq.write_table(table.replace_schema_metadata(metadata), unfinished),
        )


def tag_folder(args: TaggingArguments) -> dict[str, Any]:
    """Split texts into sentences and words, tag them with NLTK, and write them for `tag_column: tags`.

    Writes, under `output_dir`:
        train/part-00000-of-00040.parquet (and validation/, test/): the columns of `FEATURES`, a row for every sentence, in the
            order of the source. `word_starts` and `word_ends` are places in `text`; `tags` are Penn Treebank tags; neighbouring
            rows of equal `document` are one document; `row` is the sentence's row in the source.
        tagging.json: the settings, and for each split rows, sentences, words, tags and the seconds of all processes together;
            under `run`, the counts of this call and its seconds by the clock.

    A part is written under another name and then renamed, so that a part with its name is whole even after a kill; the
    same call tags the missing parts, and does nothing when none is missing.

    Args:
        args: Options, one a field. All rows of a recipe's splits are tagged: `max_*_samples` apply when they are read.

    Returns:
        The content of tagging.json.

    Raises:
        TaggerDataError: The tagger's data is missing or broken.
        ValueError: No such split or column, a streamed source, rows that hold no text, a split with nothing to tag, or a
            folder with other text or settings.
        FileNotFoundError: No such data.
    """
    data = _data_arguments(args)
    load_tagger()  # fails before any data is read
    with FolderLock(Path(args.output_dir), "output_dir"):
        return _tag_splits(args, data)


def _tag_splits(args: TaggingArguments, data: MaskedTextArguments) -> dict[str, Any]:
    splits: dict[str, Any] = read_splits(data)
    column = str(data.input_column)
    for split, rows in splits.items():
        require_columns(rows, [("input_column", column), ("document_column", data.document_column)], split)
    root = Path(args.output_dir)
    part_rows = {split: _rows_per_part(rows, column, args) for split, rows in splits.items()}
    folder = ResumableFolder(
        *(root, REPORT_FILE, "*/part-*.parquet", "parts", "text or settings"),
        unspoken={"content": "its rows differ"},  # numbers and digests
    )
    # A folder that was begun keeps its size of parts, whatever the number of processes.
    part_rows |= folder.report.get("part_rows", {})
    folder.begin(_settings(args, data, splits), part_rows=part_rows)
    for split, rows in splits.items():
        warn_of_wrapped_text(rows, data, split)
    counts = {
        split: _tag_split(root / split, split, rows, data, part_rows[split], args.num_proc)
        for split, rows in splits.items()
    }
    folder.complete(splits=counts)
    logger.info(
        "%s: for training, set data.source parquet, data.data_dir %s, data.data_files {%s}, data.input_column text, "
        "data.tag_column tags, data.document_column document",
        root,
        root,
        ", ".join(f"{split}: {split}/*.parquet" for split in splits),
    )
    return folder.report


# Arguments and settings


def _data_arguments(args: TaggingArguments) -> MaskedTextArguments:
    given = {name: value for name, value in vars(args).items() if name in DATA_FIELDS and value is not None}
    if args.recipe is None:
        given = {"input_column": "text", **given}
        # No text is tokenised here, but this kind asks for a tokenizer.
        data = MaskedTextArguments(tokenizer="utf-8", **given)
    else:
        section = load_recipe(args.recipe, sections={"data": DataArguments})["data"]
        if not isinstance(section, MaskedTextArguments):
            raise ValueError(f"recipe {args.recipe}: expected data.kind 'masked_text', got {section.kind!r}")
        data = replace(section, **given)
    if data.streaming:
        raise ValueError(
            "data.streaming: parts have a fixed number of rows, which a stream does not tell; set it to false"
        )
    if not isinstance(data.input_column, str):
        raise ValueError(f"data.input_column: expected the one column of the text, got {data.input_column}")
    return data


def _settings(args: TaggingArguments, data: MaskedTextArguments, splits: Mapping[str, Dataset]) -> dict[str, Any]:
    """The settings that decide the parts: the source of the text, its cut, and a glance at its content."""
    fields = {name: vars(data)[name] for name in (*DATA_FIELDS, *CUT_FIELDS)}
    rows = {
        split: {"rows": len(dataset), "digest": _digest(dataset, str(data.input_column))}
        for split, dataset in splits.items()
    }
    return {**fields, "rows_per_part": args.rows_per_part, "content": rows}


def _digest(rows: Dataset, column: str) -> str:
    places = np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(np.int64))
    content = rows.select_columns([column]).select(places)[:][column]
    return sha256(json.dumps(content, default=repr).encode()).hexdigest()[:16]


def _rows_per_part(rows: Dataset, column: str, args: TaggingArguments) -> int:
    """The part size that `args` ask for, or else a few parts for each process, neither tiny nor of hours of work."""
    if args.rows_per_part is not None:
        return args.rows_per_part
    evenly = len(rows) / (PARTS_PER_PROCESS * args.num_proc)
    fewest, most = (size / mean_bytes(rows, column) for size in PART_BYTES)
    return max(1, int(min(max(evenly, fewest), most, MOST_ROWS_PER_PART)))


# Tagging and counting


def _tag_split(
    folder: Path, split: str, rows: Dataset, data: MaskedTextArguments, part_rows: int, num_proc: int
) -> dict[str, Any]:
    """Tag the parts that are missing.

    Returns:
        The counts over all parts, and those of this call under "run".
    """
    folder.mkdir(exist_ok=True)
    column, num_parts = str(data.input_column), -(-len(rows) // part_rows)
    paths = [folder / f"part-{number:05d}-of-{num_parts:05d}.parquet" for number in range(num_parts)]
    missing = [number for number, path in enumerate(paths) if not _is_whole(path)]
    logger.info(
        "%s: %d rows in %d parts, %d of them tagged before", split, len(rows), num_parts, num_parts - len(missing)
    )
    started = time.perf_counter()
    if missing:
        firsts = runs_of_rows(rows, data)[np.array(missing) * part_rows].tolist()
        _write_parts(PartWriter(rows, data, TaggedRows(column, split), paths, part_rows), missing, firsts, num_proc)
    seconds = time.perf_counter() - started
    counts = [_read_counts(path) for path in paths]
    total = _add_up(counts)
    if not total["sentences"]:
        raise ValueError(f"the {split} split has no text: all {len(rows)} rows of column {column!r} are empty")
    run = {name: sum(counts[number][name] for number in missing) for name in ("sentences", "words")}
    logger.info(
        "%s: %d sentences, %d words, %d of %d rows empty; now tagged %d sentences in %.1f s (%.0f sentences/s, %.0f words/s)",
        split,
        *(total[name] for name in ("sentences", "words", "empty_rows", "rows")),
        run["sentences"],
        seconds,
        run["sentences"] / seconds,
        run["words"] / seconds,
    )
    return {**total, "run": {**run, "seconds": round(seconds, 3), "num_proc": num_proc}}


def _write_parts(writer: PartWriter, missing: Sequence[int], documents: Sequence[int], num_proc: int) -> None:
    parts = Dataset.from_dict({"part": missing, "document": documents})
    parts.map(
        writer,
        # The files themselves are the cache.
        keep_in_memory=True,
        load_from_cache_file=False,
        # The fingerprint is given, because hashing the writer would read all rows of a split into memory.
        new_fingerprint=parts._fingerprint,
        num_proc=min(num_proc, len(missing)) if num_proc > 1 else None,
        desc=f"Tagging {writer.function.split}, parts",
    )


def _count(table: pa.Table, num_rows: int) -> dict[str, Any]:
    """The counts of a part: rows, and the content of their tagged sentences."""
    tags = pc.value_counts(pc.list_flatten(table["tags"])).to_pylist()
    return {
        "rows": num_rows,
        "empty_rows": num_rows - pc.count_distinct(table["row"]).as_py(),
        "sentences": len(table),
        "words": sum(pair["counts"] for pair in tags),
        "tags": {pair["values"]: pair["counts"] for pair in tags},
    }


def _is_whole(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        _read_counts(path)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s cannot be read and is tagged again: %s", path, error)
        return False
    return True


def _read_counts(path: Path) -> dict[str, Any]:
    """The counts in a part's metadata."""
    return json.loads(pq.read_schema(path).metadata[COUNTS_KEY])


def _add_up(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of all parts, with parts of speech counted from the tags."""
    names = ("rows", "empty_rows", "sentences", "words", "seconds")
    total: dict[str, Any] = {name: round(sum(count[name] for count in counts), 3) for name in names}
    tags: Counter = sum((Counter(count["tags"]) for count in counts), Counter())
    parts: Counter = Counter()
    for tag, count in tags.items():
        parts[PART_OF_TAG.get(tag) or "none"] += count
    return {**total, "tags": dict(tags.most_common()), "parts_of_speech": dict(parts.most_common())}

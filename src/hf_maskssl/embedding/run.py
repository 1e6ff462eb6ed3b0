"""Embedding of whole data sets: rows through the encoder, shard by shard, by one process or many."""

import contextlib
import dataclasses
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from accelerate.state import PartialState
from tqdm.auto import tqdm

from ..data.arguments import DataArguments
from ..data.looking import source_values
from ..data.tables.report import DataReport
from ..data.tables.windows import means_of_rows
from ..evaluation.features import Features, Precision, extract_features
from ..files import JsonObject
from ..launch import launched_state
from ..locks import FolderLock
from ..recipes import overridden, read_yaml
from .arguments import EmbedArguments
from .encoders import Encoder, chosen_precision, load_encoder
from .output import Output, told_by_main
from .places import Place
from .rows import RowSource, Shard
from .sources import completed_values, section_of
from .tables import write_shard

# Settings that are long or mean nothing to a reader.
UNSPOKEN = {"digest": "MODEL has other weights", "stamp": "the file DATA has changed"}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class EmbedReport:
    """What was done.

    Attributes:
        rows: Number of rows written, by all processes and earlier calls.
        width: Number of numbers in each.
        done_before: Number of shards that an earlier call had written.
        left_out: Reason -> rows of a stream that were left out.
        written: Files or folder that hold the features.
        data: Counts of the data.
        carried: Names of the columns beside the features.
        seconds: Seconds that it took.
        pools_windows: Whether the features of a row are the mean of those of its windows.
    """

    rows: int
    width: int
    done_before: int
    left_out: dict[str, int]
    written: list[str]
    data: DataReport
    carried: list[str]
    seconds: float
    pools_windows: bool = False


def embed_to(args: EmbedArguments) -> EmbedReport | None:
    """Write the features of data.

    Every shard is written whole; after an interruption the same call goes on. Under `accelerate launch` each process embeds
    shards of its own.

    Args:
        args: Model, data and options.

    Returns:
        The counts, on the main process; None on the others.

    Raises:
        ValueError: Data that cannot be read or do not fit the model, an output that exists or was begun otherwise, or
            processes that do not know of each other.
        FileNotFoundError: No such model, recipe or data.
    """
    began = time.monotonic()
    output = Output(args.output)
    state = launched_state()
    told_by_main(state, lambda: output.check(args.overwrite))
    try:
        with _locked(output.folder, state):
            report = _embed_to(args, output, state)
    finally:
        if state.is_main_process:
            output.remove_folder()
    return None if report is None else dataclasses.replace(report, seconds=time.monotonic() - began)


def _embed_to(args: EmbedArguments, output: Output, state: PartialState) -> EmbedReport | None:
    device = args.device or ("cpu" if state.device.type == "mps" else str(state.device))
    encoder = load_encoder(args.model, device=device)
    with state.main_process_first():  # whose cache the others read
        section = data_section(args, encoder)
        source = RowSource(section, encoder, args.carried, args.splits, args.tokens)
    precision = chosen_precision(args.precision, device)
    settings = _settings(args, encoder, source, section, precision)
    told_by_main(state, lambda: output.begin(settings, args.overwrite, UNSPOKEN))
    state.wait_for_everyone()
    done = output.shards()
    width = _width(encoder)
    names: list[str] = []
    total = sum(count or 0 for count in source.counts().values()) or None
    with tqdm(total=total, unit=" rows", disable=None if state.is_main_process else True, ncols=79) as progress:
        for one in source.shards(args.shard_rows, done, (state.process_index, state.num_processes)):
            names.append(one if isinstance(one, str) else one.name)
            if isinstance(one, Shard):
                write_one(one, encoder, source, args, device, precision, output.shard(one.name))
            progress.update(min(args.shard_rows, (total or 10**18) - progress.n))
    state.wait_for_everyone()
    report = None
    if state.is_main_process:
        rows, left_out = output.finish(names, settings, width=width, data=source.report.to_json())
        places = [str(place) for place in output.written()]
        report = EmbedReport(
            rows, width, len(done), left_out, places, source.report, source.carried, 0.0, source.pools_windows
        )
    state.wait_for_everyone()
    return report


def data_section(args: EmbedArguments, encoder: Encoder) -> DataArguments:
    """The data section of the recipe, or one for DATA.

    Raises:
        ValueError: Unknown fields, or columns that do not say which of them are the input.
        FileNotFoundError: No such recipe or data.
    """
    if args.recipe is not None:
        values = read_yaml(args.recipe).get("data") or {}
        if not isinstance(values, dict):
            raise ValueError(f"{args.recipe}: section 'data' should hold fields (name: value)")
        return section_of(overridden("data", DataArguments, values, args.overrides))
    values = overridden("data", DataArguments, source_values(str(args.data), encoder.kind), args.overrides)
    return section_of(completed_values(values, encoder))


def write_one(
    shard: Shard,
    encoder: Encoder,
    source: RowSource,
    args: EmbedArguments,
    device: str,
    precision: Precision,
    place: Place,
) -> None:
    """Embed a shard and write it."""
    if len(shard.rows):
        found = embedded(shard, encoder, source, args, device, precision)
    else:  # all were left out
        found = Features(np.zeros((0, _width(encoder)), dtype=np.float32), np.zeros(0, dtype=np.int64))
    if shard.owners is not None and not args.tokens:
        found = Features(means_of_rows(found.values, shard.owners), None)
    samples = found.required_labels() - shard.first if args.tokens else None
    write_shard(place, shard.carried, found.values, samples, {"rows": len(found), "left_out": shard.left_out})


def embedded(
    shard: Shard, encoder: Encoder, source: RowSource, args: EmbedArguments, device: str, precision: Precision
) -> Features:
    """The features of a shard's rows, or of their tokens."""
    return extract_features(
        encoder.model if args.tokens else encoder.pooled(args.pooling),
        shard.rows,
        source.collator,
        batch_size=args.batch_size,
        level="every_token" if args.tokens else "sequence",
        device=device,
        num_workers=args.num_workers,
        precision=precision,
    )


def _width(encoder: Encoder) -> int:
    return int(encoder.config.hidden_size)


def _settings(
    args: EmbedArguments, encoder: Encoder, source: RowSource, section: DataArguments, precision: Precision
) -> JsonObject:
    """Everything that decides the features, in JSON's types."""
    settings = {
        "model": args.model,
        "digest": encoder.digest(),
        "data": dataclasses.asdict(section),
        "rows": source.counts(),
        "stamp": _stamp(section),
        "tokens": args.tokens,
        "pooling": args.pooling,
        "precision": precision,
        "columns": source.carried,
        "shard_rows": args.shard_rows,
    }
    plain: JsonObject = json.loads(json.dumps(settings))
    return plain


def _stamp(section: DataArguments) -> list[int] | None:
    """Size and time of the one file that is read, where it is one."""
    if isinstance(section.data_files, str) and Path(section.data_files).is_file():
        status = os.stat(section.data_files)
        return [status.st_size, status.st_mtime_ns]
    return None


@contextlib.contextmanager
def _locked(folder: Place, state: PartialState) -> Iterator[None]:
    """Hold the folder for this run; those far away have no lock."""
    if folder.local is None:
        yield
        return
    with FolderLock(folder.local, "--output", state):
        yield

"""Batches of a run: the rows of each process, in an order that a resumed run finds again."""

import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import torch
from accelerate.accelerator import Accelerator
from accelerate.data_loader import DataLoaderShard, prepare_data_loader, skip_first_batches
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader

from ...data.collators import BatchCollator
from ...data.preparation import PreparedData
from ...data.tables.draws import tell_epoch
from ...data.tables.rows import Row
from ...data.unified.arguments import errors_of_part
from .arguments import PretrainingArguments
from .resident import ResidentLoader, resident_rows
from .signals import PatientWorkers
from .state import RunState

logger = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ShareCollator:
    """Makes a batch of one process's share of rows that all processes have read.

    Attributes:
        collator: Rows -> batch.
        process: Number of this process.
        num_processes: Number of equal shares that the rows are cut into.
    """

    collator: BatchCollator
    process: int
    num_processes: int

    def __call__(self, rows: Sequence[Row]) -> Batch:
        share = len(rows) // self.num_processes
        return self.collator(rows[self.process * share : (self.process + 1) * share])


class StreamShareLoader:
    """Batches of this process's own files of a stream; a pass ends for all processes where one of them has no batch left.

    Args:
        shard: The loader of this process.
        group: Processes that agree, on their CPUs, so that no device is waited for; None takes all.
    """

    def __init__(self, shard: DataLoaderShard, group: torch.distributed.ProcessGroup | None) -> None:
        self.shard, self.group = shard, group

    @property
    def base_dataloader(self) -> DataLoader:
        """Torch's loader."""
        return self.shard.base_dataloader

    def set_epoch(self, epoch: int) -> None:
        """Set the order of the next pass."""
        self.shard.set_epoch(epoch)

    def without_first(self, batches: int) -> "StreamShareLoader":
        """The loader without the first batches of a pass."""
        return StreamShareLoader(skip_first_batches(self.shard, batches), self.group)

    def __iter__(self) -> Iterator[Batch]:
        """The batches that every process has one for."""
        batches = iter(self.shard)
        while True:
            batch = next(batches, None)
            has_batch = torch.tensor(batch is not None, dtype=torch.int32)
            torch.distributed.all_reduce(has_batch, torch.distributed.ReduceOp.MIN, group=self.group)
            if batch is None or not has_batch:
                return
            yield batch


Loader: TypeAlias = DataLoaderShard | ResidentLoader | StreamShareLoader


def has_own_files(dataset: IterableDataset, processes: int) -> bool:
    """Whether every process of several can have files (or other shards) of a stream of its own, equally many."""
    return processes > 1 and dataset.num_shards % processes == 0


def stream_layout(prepared: PreparedData, args: PretrainingArguments, processes: int) -> dict[str, int]:
    """Settings that decide the order of a stream, beyond those that decide any order; empty where the rows are no stream.

    More workers than a process has files change nothing, and do not count.
    """
    if not isinstance(prepared.train, IterableDataset):
        return {}
    files = prepared.train.num_shards
    files //= processes if has_own_files(prepared.train, processes) else 1
    return {"num_workers": max(1, min(args.num_workers, files)), "shuffle_buffer": args.rows_in_buffer}


def training_loader(prepared: PreparedData, args: PretrainingArguments, accelerator: Accelerator) -> Loader:
    """The loader of this process, its batches put on the device; `set_epoch(e)` decides the order of pass e.

    Rows are dealt out in batches, each process taking its turn. Of a stream every process reads files of its own, where they
    can be shared out evenly; else every process reads all rows and keeps its part.

    Raises:
        ValueError: There are fewer rows than one batch on every process; `data_on_device` does not go with the data.
    """
    dataset = prepared.train
    is_stream = isinstance(dataset, IterableDataset)
    processes = accelerator.num_processes
    _refuse_too_few(prepared, args, processes)
    resident = None
    if args.data_on_device:
        resident = resident_rows(prepared, accelerator.device, trims=not args.cuda_graphs)
    shares = 1  # number of processes that read the same rows and keep a share
    is_split = isinstance(dataset, IterableDataset) and has_own_files(dataset, processes)
    if isinstance(dataset, IterableDataset):
        shares = 1 if is_split else processes
        if shares > 1:
            logger.warning(
                "The training stream has %d file(s) (shards), which %d processes cannot share out evenly: each reads all of "
                "them and keeps its part of the rows. A number of files that is a multiple of the processes is read once.",
                dataset.num_shards,
                processes,
            )
        dataset = dataset.shuffle(seed=args.seed, buffer_size=args.rows_in_buffer)
        if is_split:
            dataset = split_dataset_by_node(dataset, accelerator.process_index, processes)
    loader = DataLoader(
        dataset,
        batch_size=args.batch_size * shares,
        shuffle=None if is_stream else True,
        drop_last=True,
        collate_fn=(
            ShareCollator(prepared.collator, accelerator.process_index, shares) if shares > 1 else prepared.collator
        ),
        num_workers=args.num_workers,
        pin_memory=pins_memory(args, accelerator),
        persistent_workers=args.num_workers > 0,
        worker_init_fn=PatientWorkers(),
        # Workers' seeds come from this generator, so that making an iterator leaves the model's random numbers alone.
        generator=torch.Generator().manual_seed(args.seed),
    )
    if is_stream:
        share = prepare_data_loader(
            loader,
            accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
            non_blocking=pins_memory(args, accelerator),
        )
        return StreamShareLoader(share, torch.distributed.new_group(backend="gloo")) if is_split else share
    shard = accelerator.prepare(loader)
    return shard if resident is None else ResidentLoader(shard, resident, accelerator.device)


def _refuse_too_few(prepared: PreparedData, args: PretrainingArguments, processes: int) -> None:
    """Refuse a batch of more rows than the training split, or that of a part, has: a row would be in the batch twice."""
    for name, part in prepared.parts.items():
        with errors_of_part(name):
            _refuse_too_few(part, args, processes)
    rows = None if isinstance(prepared.train, IterableDataset) else len(prepared.train)
    if rows is not None and rows < args.batch_size * processes:
        raise ValueError(
            f"the training split has {rows} rows, fewer than one batch of training.batch_size={args.batch_size} "
            f"on each of {processes} process(es): lower training.batch_size to {rows // processes} or less, or add data."
        )


def endless_batches(
    loader: Loader, prepared: PreparedData, args: PretrainingArguments, place: RunState
) -> Generator[Batch, None, None]:
    """Batches of pass after pass; epoch e is the permutation of seed + e, so a resumed run finds its place again.

    Args:
        loader: Loader from `training_loader`.
        prepared: Data of the loader.
        args: Arguments of the run.
        place: State whose `epoch` and `batches_in_epoch` say where to begin, and follow the batches.

    Raises:
        ValueError: The data gives no full batch.
    """
    current: Loader = loader
    try:
        while True:
            current = _loader_of_epoch(loader, prepared, args, place)
            is_empty = True
            for batch in current:
                is_empty = False
                place.batches_in_epoch += 1
                yield batch
            if is_empty and not place.batches_in_epoch:
                raise ValueError(
                    f"the training data gave no full batch of training.batch_size={args.batch_size} rows: lower it or add "
                    "data."
                )
            place.epoch += 1
            place.batches_in_epoch = 0
    finally:
        end_workers(current)


def _loader_of_epoch(loader: Loader, prepared: PreparedData, args: PretrainingArguments, place: RunState) -> Loader:
    """The loader, in the order of the state's epoch, without the batches that were used already."""
    loader.set_epoch(place.epoch)
    # Random draws of rows depend on the epoch, which the loader of several processes does not pass on.
    tell_epoch(prepared.train, place.epoch, args.seed)
    if not place.batches_in_epoch:
        return loader
    rest = without_first(loader, place.batches_in_epoch)
    rest.set_epoch(place.epoch)
    return rest


def without_first(loader: Loader, batches: int) -> Loader:
    """The loader without the first batches of a pass, which a resumed run has used already."""
    if isinstance(loader, ResidentLoader | StreamShareLoader):
        return loader.without_first(batches)
    return skip_first_batches(loader, batches)


def end_workers(loader: Loader) -> None:
    """End the worker processes of a `training_loader` (or one that skips its first batches); it gives no batch afterwards.

    Without this call they would outlive the run, until the program ends or the loader is dropped.
    """
    base = loader.base_dataloader
    if isinstance(base.worker_init_fn, PatientWorkers):
        base.worker_init_fn.end()
    iterator = getattr(base, "_iterator", None)  # only loaders with persistent workers keep it
    if iterator is not None:
        iterator._shutdown_workers()


def pins_memory(args: PretrainingArguments, accelerator: Accelerator) -> bool:
    """Whether batches are copied to a GPU from pinned memory, so that the CPU need not wait."""
    return args.pin_memory and accelerator.device.type == "cuda"


def validation_batches(
    prepared: PreparedData, args: PretrainingArguments, accelerator: Accelerator
) -> Iterator[tuple[int, Batch]]:
    """(rows of all processes, this process's part) of at most `eval_batches` batches, the same ones every time.

    Every process gets equally many rows of each batch, because losses gather over processes; up to
    `num_processes - 1` rows at the end are left out.
    """
    processes, process = accelerator.num_processes, accelerator.process_index
    dataset = prepared.validation
    size = args.batch_size * processes
    assert dataset is not None, "only a run that validates calls this"
    if not isinstance(dataset, IterableDataset):
        usable = len(dataset) - len(dataset) % processes
        sizes = [min(size, usable - start) for start in range(0, usable, size)][: args.eval_batches]
        shares = []
        for number, rows in enumerate(sizes):
            first = number * size + process * (rows // processes)
            shares.append(list(range(first, first + rows // processes)))
        loader = DataLoader(dataset, batch_sampler=shares, collate_fn=prepared.collator)
        yield from zip(sizes, loader, strict=True)
        return
    stream = iter(dataset)
    share = ShareCollator(prepared.collator, process, processes)
    for _ in range(args.eval_batches):
        rows = list(islice(stream, size))
        if len(rows) < processes:
            return
        yield len(rows) - len(rows) % processes, share(rows)

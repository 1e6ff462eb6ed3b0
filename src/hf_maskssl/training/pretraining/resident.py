"""Small data sets held whole on the device: batches without a data loader's work in every step."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard
from datasets import IterableDataset
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ...data.collators import BatchCollator
from ...data.preparation import PreparedData
from ...data.tables.preparing import Preparer
from ...data.tables.rows import PreparedRows, TransformedRows
from ...data.tables.windows import WindowedRows

# Bytes that a training split may take on the device.
MAX_BYTES = 2**30
# Rows that are collated at a time.
CHUNK_ROWS = 1024


class ResidentRows:
    """Every row of a split as tensors on a device.

    Args:
        tensors: Name -> (n, ...), all rows in one batch of the collator.
        lengths: (n,) tokens of each row, padding of its own included; None where there are no ids.
        num_real: (n,) tokens of each row that are not padding; None where there are no ids.
        always_mask: Whether a batch has an `attention_mask` even where nothing is padded.
        trims: Whether to cut a batch to its longest row, as a collator does. Else all batches have the length of the longest row
            and, where any row is shorter, an `attention_mask`: one shape for all.
    """

    def __init__(
        self,
        tensors: dict[str, torch.Tensor],
        lengths: np.ndarray | None,
        num_real: np.ndarray | None,
        always_mask: bool,
        trims: bool,
    ) -> None:
        self.tensors = tensors
        self.lengths, self.num_real = lengths, num_real
        self.always_mask, self.trims = always_mask, trims

    def take(self, rows: Sequence[int], places: torch.Tensor) -> dict[str, torch.Tensor]:
        """A batch of these rows: their numbers on the CPU, and again as (B,) int64 on the device."""
        if self.lengths is None or self.num_real is None:
            return {name: whole.index_select(0, places) for name, whole in self.tensors.items()}
        width = longest = self.tensors["input_ids"].shape[1]
        num_real = self.num_real
        if self.trims:
            numbers = np.asarray(rows)
            width, num_real = int(self.lengths[numbers].max()), num_real[numbers]
        is_masked = self.always_mask or bool((num_real < width).any())
        batch = {}
        for name, whole in self.tensors.items():
            if name == "attention_mask" and not is_masked:
                continue
            if name in _PADDED and width < longest:
                whole = whole[:, :width]
            batch[name] = whole.index_select(0, places)
        return batch


class ResidentLoader:
    """A substitute for a prepared loader: the same rows in the same order, taken from tensors on the device.

    Args:
        loader: Loader that decides the order; it reads no rows.
        rows: Rows on the device.
        device: Device of the rows.
        skipped: Number of batches left out at the beginning of a pass.
    """

    def __init__(self, loader: DataLoaderShard, rows: ResidentRows, device: torch.device, skipped: int = 0) -> None:
        self.loader = loader
        self.rows = rows
        self.device = device
        self.skipped = skipped

    @property
    def base_dataloader(self) -> DataLoader[Any]:
        """The loader that would have read the rows; it has no running workers."""
        return self.loader.base_dataloader

    def set_epoch(self, epoch: int) -> None:
        """Decide the order of the next pass."""
        self.loader.set_epoch(epoch)

    def without_first(self, batches: int) -> "ResidentLoader":
        """The same without the first batches of a pass."""
        return ResidentLoader(self.loader, self.rows, self.device, batches)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        order = list(self.loader.batch_sampler)[self.skipped :]
        if not order:
            return
        places = torch.tensor(order).to(self.device)  # one copy for the whole pass
        for number, rows in enumerate(order):
            yield self.rows.take(rows, places[number])


def resident_rows(prepared: PreparedData, device: torch.device, trims: bool) -> ResidentRows:
    """Collate the training split once, in its order; labels, which pre-training does not read, are left out.

    Raises:
        ValueError: Rows are streamed or drawn anew in each pass, or do not fit into `MAX_BYTES`; or the collator
            refuses a row.
    """
    dataset = _kept_rows(prepared)
    left_out = [name for name in prepared.not_inputs if name != "index"]
    chunks: list[dict[str, torch.Tensor]] = []
    lengths: list[int] = []
    taken = 0
    for start in range(0, len(dataset), CHUNK_ROWS):
        rows = dataset.__getitems__(range(start, min(start + CHUNK_ROWS, len(dataset))))
        batch = prepared.collator(rows)
        if "input_ids" in batch:
            lengths += [len(row["input_ids"]) for row in rows]
            batch.setdefault("attention_mask", torch.ones_like(batch["input_ids"]))
        chunks.append({name: part for name, part in batch.items() if name not in left_out})
        taken += sum(part.nbytes for part in chunks[-1].values())
        _check_size(taken, len(dataset), is_whole=False)
    if any("observed_mask" in chunk for chunk in chunks):
        for chunk in chunks:
            signal = next(chunk[name] for name in ("input_values", "pixel_values") if name in chunk)
            chunk.setdefault("observed_mask", torch.ones_like(signal, dtype=torch.bool))
    longest = max(lengths, default=0)
    filling = {"input_ids": prepared.collator.pad_token_id or 0}
    tensors = {}
    for name in chunks[0]:
        parts = [chunk[name] for chunk in chunks]
        if name in _PADDED:
            _check_size(len(dataset) * longest * parts[0].itemsize, len(dataset), is_whole=True)
            parts = [F.pad(part, (0, longest - part.shape[1]), value=filling.get(name, 0)) for part in parts]
        tensors[name] = torch.cat(parts)
    _check_size(sum(whole.nbytes for whole in tensors.values()), len(dataset), is_whole=True)
    num_real = tensors["attention_mask"].sum(1).numpy() if lengths else None
    return ResidentRows(
        {name: whole.to(device) for name, whole in tensors.items()},
        np.array(lengths) if lengths else None,
        num_real,
        prepared.collator.always_mask,
        trims,
    )


# Names of a batch that are padded to its longest row.
_PADDED = ("input_ids", "attention_mask", "token_type_ids")


def _kept_rows(prepared: PreparedData) -> PreparedRows | TransformedRows:
    """The training rows, which are the same in every pass.

    Raises:
        ValueError: They change, or are streamed.
    """
    dataset = prepared.train
    reason = (
        "Rows of this kind are made anew in each pass (masked text, aligned pictures of several modalities), so what would "
        "be kept is used once."
    )
    if type(prepared.collator) is BatchCollator:
        if isinstance(dataset, PreparedRows):
            return dataset
        if isinstance(dataset, WindowedRows):
            reason = (
                "Windows of series (data.window) begin elsewhere in each pass, so what would be kept is used once."
            )
        elif isinstance(dataset, TransformedRows) and isinstance(dataset.prepare, Preparer):
            if not dataset.prepare.is_drawn:
                return dataset
    if isinstance(dataset, IterableDataset):
        reason = "The training split is streamed (data.streaming), so it is never whole."
    raise ValueError(f"training.data_on_device: {reason} Set it to false.")


def _check_size(taken: int, num_rows: int, is_whole: bool) -> None:
    if taken > MAX_BYTES:
        raise ValueError(
            f"training.data_on_device: the {num_rows} rows of the training split take {'' if is_whole else 'more than '}"
            f"{taken / 2**20:.0f} MiB, the most is {MAX_BYTES / 2**20:.0f} MiB. Set it to false, or lower data.max_train_samples."
        )

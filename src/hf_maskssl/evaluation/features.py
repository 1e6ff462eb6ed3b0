"""Frozen features: every sample through the encoder once, rows kept in memory or, when they are many, on disk."""

import collections
import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
import torch
from numpy.lib import format as npy
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModel, PreTrainedModel

from ..checkpoint_folders import load_listed
from ..data.tables.labels import IGNORED_LABEL
from ..data.tables.windows import firsts_of_rows, means_of_rows, pooled_owners
from ..methods.optional_fields import takes_channels_last
from ..models.layers import patchify

Level = Literal["sequence", "token", "every_token"]
Precision = Literal["no", "bf16"]
Rows: TypeAlias = Dataset[dict[str, Any]] | Sequence[Mapping[str, Any]]
Collator: TypeAlias = Callable[[list[Mapping[str, Any]]], Mapping[str, Any]]

MEMORY_LIMIT = 2**30  # bytes of features; what exceeds them is kept on disk
IN_FLIGHT = 2  # batches that a GPU may be ahead of the host
NAMED_WEIGHTS = 5  # an error names so many of the missing weights

logger = logging.getLogger(__name__)


@runtime_checkable
class TokenEncoder(Protocol):
    """An encoder that says how many tokens, such as a class token, lead its `last_hidden_state`; others have one."""

    num_prefix_tokens: int


@runtime_checkable
class GridEncoder(Protocol):
    """An encoder of several pictures, whose tokens lie in grids, one a modality, in the order of `last_hidden_state`."""

    def token_grids(self, inputs: Any) -> Sequence[Any]:
        """The grids of a batch's modalities, each with `name`, `rows`, `columns` and `size`."""


@runtime_checkable
class LatentEncoder(Protocol):
    """An encoder whose tokens may be latents, (L, D), which read the input: none of them is padding."""

    latents: torch.Tensor | None


class EncoderOutput(Protocol):
    """An encoder's output for B samples: `last_hidden_state` (B, P + N, D) and `pooler_output` (B, D)."""

    last_hidden_state: torch.Tensor
    pooler_output: torch.Tensor | None


def load_encoder(folder: Path, device: str | torch.device = "cpu") -> PreTrainedModel:
    """The encoder of a checkpoint, on a device; a decoder, or a head, is not looked at.

    A warning names weights that are not there.
    """
    loaded = load_listed(AutoModel, folder)
    if loaded.missing:
        named = ", ".join(loaded.missing[:NAMED_WEIGHTS])
        logger.warning("%s lacks %d weights of its encoder, which are random: %s", folder, len(loaded.missing), named)
    return loaded.model.to(device)  # type: ignore[arg-type]  # transformers wraps `to` in a way that hides its types


@dataclass
class Features:
    """Feature rows and their labels, row by row.

    Attributes:
        values: (n, D) float32; a read-only memory map when they are on disk.
        labels: (n,) int64 classes or float32 values, or (n, columns) float32 with gaps; None when the data has no labels.
    """

    values: np.ndarray
    labels: np.ndarray | None

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"Features.values: expected a matrix (n, D), got shape {self.values.shape}")
        if self.labels is not None and (len(self.labels) != len(self.values) or self.labels.ndim not in (1, 2)):
            raise ValueError(
                f"Features.labels: expected one for each of the {len(self.values)} rows, got shape {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.values)

    def select(self, rows: np.ndarray) -> "Features":
        """The rows with these indices, in this order, copied into memory."""
        return Features(np.asarray(self.values[rows]), None if self.labels is None else self.labels[rows])

    def required_labels(self) -> np.ndarray:
        """The labels.

        Raises:
            ValueError: There are none.
        """
        if self.labels is None:
            raise ValueError("a probe needs labels and these features have none; name data.label_column in the recipe")
        return self.labels


def level_of_task(task: str) -> Level:
    """Which features a task's probe looks at: one row a token for token classification, else one a sample."""
    return "token" if task == "token_classification" else "sequence"


def extract_features(
    encoder: nn.Module,
    loader_or_dataset: DataLoader[Mapping[str, Any]] | Rows,
    collator: Collator | None = None,
    *,
    batch_size: int = 256,
    level: Level = "sequence",
    device: str | torch.device = "cpu",
    output: str | Path | None = None,
    memory_limit: int = MEMORY_LIMIT,
    max_rows: int | None = None,
    num_workers: int = 0,
    precision: Precision = "no",
) -> Features:
    """Features of every sample, in the order of the data, from the frozen encoder on unmasked inputs.

    The encoder runs in evaluation mode without gradients; afterwards each module is back in its former mode.

    Args:
        encoder: Model that gives `pooler_output` (B, D) and `last_hidden_state` (B, P + N, D), where P is its
            `num_prefix_tokens` (1, a class token, where it does not say). It stays on its device.
        loader_or_dataset: Batches (a `DataLoader`), or rows for `collator`: a split of `PreparedData`, or whatever
            else a `DataLoader` reads.
        collator: List of rows -> batch. Left out for a `DataLoader`.
        batch_size: Rows of a batch.
        level: "sequence": one feature row a sample, `pooler_output`. "token": one for each token that has a label,
            `last_hidden_state` without the prefix where `labels` (B, N) is not -100. "every_token": one for each token that
            is neither padding nor of an absent modality; the labels are then the samples' `index`.
        device: Device of the encoder, to which batches are moved.
        output: `.npy` file to which the features are streamed (labels go to `<name>.labels.npy` beside it). None keeps
            them in memory up to `memory_limit`, and beyond it in an unnamed temporary file.
        memory_limit: Bytes of features that may be held in memory.
        max_rows: Number of feature rows after which to stop.
        num_workers: Processes that make batches of rows; a `DataLoader` has its own.
        precision: "bf16" runs the encoder under autocast to bfloat16; the features are float32 all the same.

    Raises:
        ValueError: There is no row, the encoder's output lacks the features or they are not finite, the labels do not fit the
            tokens, or there is no such precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision: expected one of {get_args(Precision)}, got {precision!r}")
    device = torch.device(device)
    batches = _batches(loader_or_dataset, collator, batch_size, num_workers, pin_memory=device.type == "cuda")
    output = None if output is None else Path(output)
    values, labels = RowStore(output, memory_limit), RowStore(labels_path(output), memory_limit)
    blocks = _encoded(encoder, batches, level, device, precision)
    with values, labels, evaluation_mode(encoder), torch.no_grad():
        for position, (rows, row_labels) in enumerate(_arrived(blocks, IN_FLIGHT if device.type == "cuda" else 0)):
            if max_rows is not None:
                rows = rows[: max_rows - len(values)]
            _check_finite(rows, position)
            values.append(rows)
            if row_labels is not None:
                labels.append(row_labels[: len(rows)])
            if len(values) == max_rows:
                break
        if len(values) == 0:
            raise ValueError("there are no features to extract: the data set is empty or no token has a label")
        return Features(values.finish(), labels.finish() if len(labels) else None)


def save_features(features: Features, output: Path) -> None:
    """Write features and their labels as `extract_features` does."""
    for path, values in ((output, features.values), (labels_path(output), features.labels)):
        if path is not None and values is not None:
            with RowStore(path, 0) as store:
                store.append(values)
                store.finish()


def pooled_windows(features: Features, rows: object) -> Features:
    """The features of windows as those of their rows, the mean over the windows of each, with the label of its first.

    Args:
        features: One row for each window.
        rows: What they are of; where it is not windows to be pooled, features stay as they are.
    """
    owners = pooled_owners(rows)
    if owners is None:
        return features
    owners = owners[: len(features)]
    values = means_of_rows(features.values, owners)
    first = firsts_of_rows(owners)
    return Features(values, None if features.labels is None else features.labels[first])


def _encoded(
    encoder: nn.Module, batches: Iterable[Mapping[str, Any]], level: Level, device: torch.device, precision: Precision
) -> Iterator["_Block"]:
    """The feature rows of each batch, still on the device."""
    num_prefix_tokens = encoder.num_prefix_tokens if isinstance(encoder, TokenEncoder) else 1
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    for batch in batches:
        inputs = {name: _to_device(batch[name], device) for name in batch if name not in ("labels", "index")}
        with autocast:
            outputs = encoder(**inputs)
        if level == "every_token":
            labels = _samples_of_tokens(
                encoder, inputs, outputs.last_hidden_state[:, num_prefix_tokens:], batch["index"]
            )
            yield _Block(*_feature_rows(outputs, labels, "token", num_prefix_tokens))
        else:
            yield _Block(*_feature_rows(outputs, batch.get("labels"), level, num_prefix_tokens))


def _samples_of_tokens(
    encoder: nn.Module, inputs: Mapping[str, Any], tokens: torch.Tensor, index: torch.Tensor
) -> torch.Tensor:
    """(B, N) int64, the sample that each token belongs to; -100 where there is nothing in the input."""
    is_real = real_tokens(encoder, inputs, tokens)
    found = torch.ones(tokens.shape[:2], dtype=torch.bool) if is_real is None else is_real.cpu()
    return torch.where(found, index[:, None], IGNORED_LABEL)


def real_tokens(encoder: nn.Module, inputs: Mapping[str, Any], tokens: torch.Tensor) -> torch.Tensor | None:
    """Which tokens stand for something in the input; None where all do.

    Args:
        encoder: Encoder that gave the tokens.
        inputs: Batch that it was given.
        tokens: `last_hidden_state` (B, N, D) without the prefix.

    Returns:
        (B, N) bool: neither padding, nor missing, nor of an absent modality.
    """
    if isinstance(encoder, GridEncoder):
        return _real_patches(encoder, inputs, tokens)
    mask, observed = inputs.get("attention_mask"), inputs.get("observed_mask")
    nothing_said = mask is None and observed is None
    if nothing_said or (isinstance(encoder, LatentEncoder) and encoder.latents is not None):
        return None
    is_real = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    # Patches of a picture come before the tokens of its text.
    if mask is not None:
        is_real &= F.pad(mask.bool(), (tokens.shape[1] - mask.shape[1], 0), value=True)
    if observed is not None and isinstance(encoder, PreTrainedModel):
        is_series = observed.dim() == 3
        values = observed.transpose(1, 2) if is_series and takes_channels_last(encoder.config) else observed
        there = patchify(values.bool().contiguous(), encoder.config.patch_shape).any(-1)
        is_real &= F.pad(there, (0, tokens.shape[1] - there.shape[1]), value=True)
    return is_real


def _real_patches(encoder: GridEncoder, inputs: Mapping[str, Any], tokens: torch.Tensor) -> torch.Tensor | None:
    presence, observed = inputs.get("presence", {}), inputs.get("observed_mask", {})
    if not presence and not observed:
        return None
    parts = []
    for grid in encoder.token_grids(inputs["inputs"]):
        there = torch.ones(len(tokens), grid.size, dtype=torch.bool, device=tokens.device)
        if grid.name in presence:
            there &= presence[grid.name][:, None]
        if grid.name in observed:
            pixels = observed[grid.name].bool().any(1)
            shape = (pixels.shape[1] // grid.rows, pixels.shape[2] // grid.columns)
            there &= patchify(pixels.unsqueeze(1), shape).any(-1)
        parts.append(there)
    return torch.cat(parts, dim=1)


def _check_finite(rows: np.ndarray, batch: int) -> None:
    if not np.isfinite(rows).all():
        raise ValueError(
            f"the encoder gave NaN or infinite features for batch {batch}; check its weights and the scale of the inputs"
        )


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """`module.eval()`, undone at the end: each part returns to its former mode, frozen ones too."""
    was_training = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in was_training:
            part.training = training


def labels_path(output: Path | None) -> Path | None:
    """File of the labels that belong to the features in `output`: `train.npy` -> `train.labels.npy`."""
    return None if output is None else output.with_suffix(".labels.npy")


def draw_indices(num_rows: int, count: int, seed: int) -> np.ndarray:
    """`count` different row numbers below `num_rows`, ascending, drawn with the seed."""
    return np.sort(np.random.default_rng(seed).choice(num_rows, count, replace=False))


class _Block:
    """A batch's rows and labels on their way to the host; on a GPU the copies are begun at once and waited for in `arrays`."""

    def __init__(self, rows: torch.Tensor, labels: torch.Tensor | None) -> None:
        self._parts = [None if part is None else self._begun(part) for part in (rows, labels)]
        self._event: torch.cuda.Event | None = None
        if any(part is not None and part.is_cuda for part in (rows, labels)):
            self._event = torch.cuda.Event()
            self._event.record()

    @staticmethod
    def _begun(part: torch.Tensor) -> torch.Tensor:
        if not part.is_cuda:
            return part
        return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)

    def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(rows, D) float32 and (rows,) labels, in ordinary memory: pinned memory is scarce, and used again."""
        if self._event is not None:
            self._event.synchronize()
        rows, labels = (
            None if part is None else part.numpy().copy() if part.is_pinned() else part.cpu().numpy()
            for part in self._parts
        )
        return rows, labels  # type: ignore[return-value]  # there are always rows


def _arrived(blocks: Iterable[_Block], in_flight: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The blocks in order, each when `in_flight` more have been begun, so that a GPU always has work."""
    waiting: collections.deque[_Block] = collections.deque()
    for block in blocks:
        waiting.append(block)
        if len(waiting) > in_flight:
            yield waiting.popleft().arrays()
    while waiting:
        yield waiting.popleft().arrays()


def _batches(
    source: DataLoader[Mapping[str, Any]] | Rows,
    collator: Collator | None,
    batch_size: int,
    num_workers: int,
    pin_memory: bool,
) -> Iterable[Mapping[str, Any]]:
    if isinstance(source, DataLoader):
        return source
    if collator is None:
        raise ValueError("collator: rows of a data set need one to become batches; pass it, or pass a DataLoader")
    # A loader draws a seed for its workers. It draws from a generator of its own, so that a training run's random numbers stay
    # the same.
    return DataLoader(
        source,  # type: ignore[arg-type]  # torch reads any sequence as well
        batch_size=batch_size,
        collate_fn=collator,
        generator=torch.Generator(),
        num_workers=num_workers,
        pin_memory=pin_memory,
    )


def _to_device(value: object, device: torch.device) -> object:
    if isinstance(value, Mapping):  # {modality: tensor}
        return {name: _to_device(part, device) for name, part in value.items()}
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


def _feature_rows(
    outputs: EncoderOutput, labels: torch.Tensor | None, level: Level, num_prefix_tokens: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A batch's feature rows (rows, D) float32, on their device, and their labels (rows,), where the batch had them."""
    if level == "sequence":
        rows = outputs.pooler_output
        if rows is None:
            raise ValueError("the encoder's pooler_output is None; load the base model with AutoModel.from_pretrained")
        if labels is not None and labels.ndim != 1 and not (labels.ndim == 2 and labels.is_floating_point()):
            raise ValueError(f"labels: expected one a sample, got shape {tuple(labels.shape)}; check data.task")
    else:
        tokens = outputs.last_hidden_state[:, num_prefix_tokens:]
        if labels is None or labels.shape != tokens.shape[:2]:
            raise ValueError(
                f"labels: expected shape (samples, tokens) = {tuple(tokens.shape[:2])}, -100 where there is none, "
                f"got {'no labels' if labels is None else f'shape {tuple(labels.shape)}'}; "
                "check data.label_column and data.task"
            )
        # The rows are found on the device of the labels, usually the CPU, because a GPU would have to be waited for.
        places = (labels != IGNORED_LABEL).flatten().nonzero().flatten()
        labels = labels.flatten()[places]
        if tokens.is_cuda and not places.is_cuda:
            places = places.pin_memory().to(tokens.device, non_blocking=True)
        rows = tokens.flatten(0, 1)[places.to(tokens.device)]
    return rows.float(), labels


class RowStore:
    """Rows appended one batch at a time, whose number is not known beforehand; `finish` gives them as one array.

    Without a path they are held in memory and move to an unnamed temporary file, which vanishes with the array, when
    they exceed the limit. With a path they are streamed to that `.npy` file, written aside and renamed when complete.
    Use it as a context manager, which removes an unfinished file.
    """

    def __init__(self, path: Path | None, memory_limit: int) -> None:
        self.path = path
        self.memory_limit = memory_limit
        self.num_rows = 0
        self.num_bytes = 0
        self._blocks: list[np.ndarray] = []  # empty once there is a file
        self._file: IO[bytes] | None = None
        self._row_shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return self.num_rows

    def __enter__(self) -> "RowStore":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()
            if self.path is not None:
                self._aside(self.path).unlink(missing_ok=True)
        self._file, self._blocks = None, []

    def append(self, rows: np.ndarray) -> None:
        """Add rows (n, ...); all must have the same shape and type but for n."""
        if self.num_rows == 0:
            self._row_shape, self._dtype = rows.shape[1:], rows.dtype
        elif rows.shape[1:] != self._row_shape or rows.dtype != self._dtype:
            raise ValueError(
                f"rows: expected shape (n, *{self._row_shape}) of {self._dtype} like the rows before, "
                f"got {rows.shape} of {rows.dtype}"
            )
        self.num_rows += len(rows)
        self.num_bytes += rows.nbytes
        self._blocks.append(rows)
        if self._file is None and (self.path is not None or self.num_bytes > self.memory_limit):
            self._open()
        if self._file is not None:
            self._write_blocks(self._file)

    def finish(self) -> np.ndarray:
        """All rows: an array, or a read-only memory map of the file they are in."""
        if self._file is None:
            return np.concatenate(self._blocks)
        self._file.seek(0)
        self._write_header(self._file)
        self._file.flush()
        offset = self._header_size
        mapped = np.memmap(
            self._file, dtype=self._dtype, mode="r", offset=offset, shape=(self.num_rows, *self._row_shape)
        )
        self._file.close()  # the memory map stays valid
        self._file = None
        if self.path is not None:
            os.replace(self._aside(self.path), self.path)
        return mapped

    def _open(self) -> None:
        if self.path is None:
            self._file = tempfile.TemporaryFile()
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._aside(self.path), "w+b")
        self._write_header(self._file)
        self._header_size = self._file.tell()

    def _write_header(self, file: IO[bytes]) -> None:
        # NumPy pads the header so that the first dimension can grow in place: the size is the same for any number of
        # rows.
        header = {
            "descr": npy.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.num_rows, *self._row_shape),
        }
        npy.write_array_header_1_0(file, header)

    def _write_blocks(self, file: IO[bytes]) -> None:
        for block in self._blocks:
            file.write(np.ascontiguousarray(block).data)
        self._blocks = []

    @staticmethod
    def _aside(path: Path) -> Path:
        return path.with_name(f".{path.name}.partial")

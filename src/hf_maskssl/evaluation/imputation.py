"""Missing values of tables and series, predicted by a pre-training model, and its error on values that it was not shown."""

import inspect
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForPreTraining, PreTrainedModel

from ..methods.optional_fields import takes_channels_last, target_moments
from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..models.layers import patchify, unpatchify
from ..models.pretraining import pretraining_hooks
from ..models.table_values import Cell, Table, rows_of_table
from .features import evaluation_mode

if TYPE_CHECKING:
    import pandas as pd

# Rows of a table, or (n, C, T), (n, T) where C is 1.
Data: TypeAlias = "pd.DataFrame | np.ndarray | Sequence[Any]"

# Passes by which tokens with some holes are masked: each is predicted from all others, whatever was observed of them.
TURNS = 4
SEEN = 1e-9  # weight of the prediction of a token that was seen

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImputationError:
    """The error on values that were hidden on purpose, of one feature of a table or one channel of a series.

    Attributes:
        name: Name of the feature, or number of the channel.
        rmse: Root of the mean squared error, in the data's units; None for categories.
        rmse_of_mean: The same of the mean of all observed values, for comparison.
        values: Number of hidden values.
        wrong: Share of hidden categories for which another one was predicted; None for numbers.
        wrong_of_most_frequent: The same of the most frequent of all observed categories, for comparison.
    """

    name: str
    rmse: float | None
    rmse_of_mean: float | None
    values: int
    wrong: float | None = None
    wrong_of_most_frequent: float | None = None


@dataclass(frozen=True)
class Imputed:
    """Data without missing values.

    Attributes:
        data: The data in the form in which they came, float64 where values were filled in, categories in the data's own words.
            Rows of which nothing was observed stay without values, as do dates; a category that training did not have stays.
        was_missing: (n, C, T) bool, True = a value that was missing.
        errors: Errors on values hidden on purpose, one a feature or channel; empty where none could be hidden.
    """

    data: Any
    was_missing: np.ndarray
    errors: list[ImputationError]


def impute(
    model: PreTrainedModel | str | os.PathLike[str],
    data: Data,
    processor: SeriesFeatureExtractor | None = None,
    *,
    hidden_share: float = 0.1,
    seed: int = 0,
    batch_size: int = 256,
) -> Imputed:
    """Predict what is missing.

    A token (a patch of a series, a feature of a table) of which nothing was observed is masked, and predicted from the others of
    its row, as in pre-training. Patches with some holes take turns: in each of four passes a quarter of them is masked, and what
    was observed of the others is read. Of a row that has no other, the fullest one is read in part.

    Args:
        model: Pre-training model of tables or series, or its folder or Hub name.
        data: Rows with NaN, None or the processor's `invalid_value` for what is missing: a DataFrame with the columns that the
            model was trained on, or arrays (n, C, T), or (n, T) where C is 1; of a table with categories also rows as lists of
            cells or as {column: cell}.
        processor: Processor of the checkpoint; None loads it from `model`, which then names one.
        hidden_share: Share of the observed tokens that are hidden, in a second pass, to measure the error; 0 measures none.
        seed: Seed of that choice.
        batch_size: Rows of a batch.

    Raises:
        ValueError: A model of other data, or that cannot predict on demand; columns that are not there; no rows, or none in
            which anything was observed.
    """
    model, processor = _loaded(model, processor)
    if not 0.0 <= hidden_share < 1.0:
        raise ValueError(f"hidden_share: expected a share of 0 to below 1, got {hidden_share}")
    samples = _samples(data, processor)
    scaled = np.stack([processor.scaled_values(sample) for sample in samples])
    lengths = np.array([processor.unpadded_values(sample).shape[1] for sample in samples])
    is_padding = np.broadcast_to(np.arange(scaled.shape[2]) >= lengths[:, None, None], scaled.shape)
    is_hole = np.isnan(scaled)  # a hole for the model
    raw = processor.unscaled_values(scaled)
    kept = np.flatnonzero(~is_hole.all(axis=(1, 2)))
    if len(kept) < len(samples):
        logger.warning(
            "%d of %d rows have nothing that was observed and stay as they are", len(samples) - len(kept), len(samples)
        )
    if not len(kept):
        raise ValueError(f"data: all {len(samples)} rows have nothing that was observed")
    rows = _Rows(model, processor, [samples[int(row)] for row in kept], is_padding[kept], batch_size)
    was_missing = is_hole & ~is_padding & ~_unseen(samples, processor)
    filled = raw.copy()
    filled[kept] = np.where(was_missing[kept], rows.predicted(rows.nothing()), raw[kept])
    errors = []
    if hidden_share:
        hidden = _to_hide(rows.observed(), hidden_share, seed)
        is_scored = _spread(model, hidden, rows.prepared).numpy() & ~is_hole[kept]
        errors = _errors(rows.predicted(hidden), raw[kept], is_scored, processor)
    return Imputed(_like(data, filled, was_missing, lengths, processor), was_missing, errors)


class _Rows:
    """Rows of which something was observed, prepared for the model."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: SeriesFeatureExtractor,
        samples: Sequence[Any],
        is_padding: np.ndarray,
        batch_size: int,
    ) -> None:
        self.model, self.processor, self.samples, self.batch_size = model, processor, samples, batch_size
        self.prepared = torch.from_numpy(np.stack([processor.prepare_sample(sample) for sample in samples]))
        padding = torch.from_numpy(np.ascontiguousarray(is_padding))  # (n, C, T)
        self.padding = patchify(padding, model.config.patch_shape)

    def observed(self) -> torch.Tensor:
        """(n, N, P) bool, the values of each token that were observed."""
        return _observed_patches(self.model, self.prepared)

    def nothing(self) -> torch.Tensor:
        """(n, N) bool, a choice of no token."""
        return torch.zeros(self.observed().shape[:2], dtype=torch.bool)

    def predicted(self, hidden: torch.Tensor) -> np.ndarray:
        """(n, C, T) float64 predictions in the data's units, with the tokens `hidden` (n, N) masked, too."""
        found = _predictions(self.model, self.prepared, self.padding, hidden, self.batch_size)
        values = zip(found, self.samples, strict=True)
        return np.stack([self.processor.raw_values(own, sample) for own, sample in values])


def _loaded(
    model: PreTrainedModel | str | os.PathLike[str], processor: SeriesFeatureExtractor | None
) -> tuple[PreTrainedModel, SeriesFeatureExtractor]:
    if isinstance(model, PreTrainedModel):
        loaded = model
    else:
        name = os.fspath(model)
        if processor is None:
            processor = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
        loaded = AutoModelForPreTraining.from_pretrained(name, trust_remote_code=False)
    if not isinstance(processor, SeriesFeatureExtractor):
        raise ValueError(
            f"processor: expected the SeriesFeatureExtractor of a model of tables or series, got {type(processor).__name__}"
        )
    reason = pretraining_hooks(loaded).reason_against_reconstruction()
    if reason is not None:
        raise ValueError(f"model: {reason}")
    if not {"is_masked", "observed_mask", "return_loss"} <= set(inspect.signature(loaded.forward).parameters):
        raise ValueError(
            f"model: a {type(loaded).__name__} cannot be asked for what is missing: give a pre-training model of MetaMAE or SMA"
        )
    return loaded, processor


def _samples(data: Data, processor: SeriesFeatureExtractor) -> Sequence[Any]:
    """The raw samples, one a row."""
    if isinstance(data, Table):
        names = processor.column_names or list(data.columns)
        lacking = [name for name in names if name not in data.columns]
        if lacking:
            raise ValueError(
                f"data: the model was trained on the columns {names}, of which {lacking} are not there: {list(data.columns)}"
            )
        if processor.reads_cells:
            data = rows_of_table(data, names)
        else:
            data = data[names].to_numpy(dtype=np.float64, na_value=np.nan)  # type: ignore[index]
    if not len(data):
        raise ValueError("data: expected at least one row, got none")
    return data  # type: ignore[return-value]


def _unseen(samples: Sequence[Any], processor: SeriesFeatureExtractor) -> np.ndarray:
    """(n, 1, T) bool, the categories that are there, though training did not have them; False for series."""
    names = processor.feature_names or []
    if processor.categories is None:
        return np.zeros(1, dtype=bool)
    flags = np.zeros((len(samples), 1, len(names)), dtype=bool)
    for row, sample in enumerate(samples):
        for name in processor.unseen(sample):
            flags[row, 0, names.index(name)] = True
    return flags


def _like(
    data: Data, filled: np.ndarray, was_missing: np.ndarray, lengths: np.ndarray, processor: SeriesFeatureExtractor
) -> Any:
    """Filled values (n, C, T) in the form of the data; what was there is left as it is.

    Shorter series come without their padding: where lengths differ, as a list of arrays.
    """
    if isinstance(data, Table):
        names = processor.feature_names or list(data.columns)
        holed = [int(place) for place in np.flatnonzero(was_missing.any(axis=(0, 1))) if names[place] in data.columns]
        table: Any = data  # a DataFrame, as far as its methods tell
        columns = {}
        for place in holed:
            column, is_hole, values = table[names[place]], was_missing[:, 0, place], filled[:, 0, place]
            if not processor.is_category(place):
                columns[names[place]] = _with_numbers(column, is_hole, values)
                continue
            cells = np.array(_cells(values, place, processor), dtype=object)
            whole = column.astype(object).where(~is_hole, cells)
            # pandas' own categories may lack the word.
            columns[names[place]] = whole if str(column.dtype) == "category" else whole.astype(column.dtype)
        return table.assign(**columns)
    if not processor.reads_cells and (lengths == lengths[0]).all():
        return filled[..., : lengths[0]].reshape(np.shape(data))
    if not processor.reads_cells:
        shapes = [np.shape(sample) for sample in data]
        rows = zip(filled, lengths, shapes, strict=True)
        return [values[:, :length].reshape(shape) for values, length, shape in rows]
    return [_filled_row(row, filled[number, 0], was_missing[number, 0], processor) for number, row in enumerate(data)]


def _with_numbers(column: Any, is_hole: np.ndarray, values: np.ndarray) -> Any:
    """A pandas Series with numbers (n,) in its holes (n,): float64, or objects where it held texts or objects."""
    if isinstance(column.dtype, np.dtype) and column.dtype != object:
        return column.where(~is_hole, values)
    # Nullable whole numbers and columns of Arrow take no fraction.
    whole = column.astype(object).where(~is_hole, values)
    return whole.astype(np.float64) if column.dtype.kind in "biuf" else whole


def _cells(values: np.ndarray, feature: int, processor: SeriesFeatureExtractor) -> list[Cell]:
    """(n,) values of a feature as cells."""
    if not processor.is_category(feature):
        return values.tolist()
    return [processor.category_of(feature, value) for value in values.tolist()]


def _filled_row(row: Any, values: np.ndarray, was_missing: np.ndarray, processor: SeriesFeatureExtractor) -> Any:
    """A row of cells, a list or {column: cell}, with values (T,) in its holes."""
    columns = processor.column_names or []
    filled = dict(row) if isinstance(row, Mapping) else dict(zip(columns, row, strict=True))
    for place, name in enumerate(processor.feature_names or []):
        if was_missing[place] and name in filled:
            filled[name] = _cells(values[place : place + 1], place, processor)[0]
    return filled if isinstance(row, Mapping) else list(filled.values())


def _errors(
    found: np.ndarray, raw: np.ndarray, is_scored: np.ndarray, processor: SeriesFeatureExtractor
) -> list[ImputationError]:
    """The error of each feature or channel, (n, C, T) arrays; of those with a hidden value."""
    axis = 1 if processor.statistics_axis == "channel" else 2
    count = raw.shape[axis]
    names = processor.feature_names or [str(number) for number in range(count)]
    errors = []
    for place, name in enumerate(names):
        own_found, own_raw, own_scored = (np.take(part, place, axis) for part in (found, raw, is_scored))
        values = int(own_scored.sum())
        if not values:
            continue
        if axis == 2 and processor.is_category(place):
            classes, counts = np.unique(own_raw[~np.isnan(own_raw)], return_counts=True)
            shares = [
                float((guess != own_raw)[own_scored].mean()) for guess in (own_found, classes[int(counts.argmax())])
            ]
            errors.append(ImputationError(name, None, None, values, *shares))
            continue
        mean = np.nanmean(own_raw)
        squares = [((guess - own_raw) ** 2)[own_scored].mean() for guess in (own_found, mean)]
        rmse, rmse_of_mean = (float(np.sqrt(square)) for square in squares)
        errors.append(ImputationError(name, rmse, rmse_of_mean, values))
    return errors


# ---- the model ------------------------------------------------------------------------------------------------------


def _channels_first(model: PreTrainedModel, values: torch.Tensor) -> torch.Tensor:
    return values.transpose(1, 2).contiguous() if takes_channels_last(model.config) else values


def _observed_patches(model: PreTrainedModel, prepared: torch.Tensor) -> torch.Tensor:
    """(n, N, P) bool, the values of each token that were observed."""
    return patchify(~_channels_first(model, prepared).isnan(), model.config.patch_shape)


def _spread(model: PreTrainedModel, is_token: torch.Tensor, prepared: torch.Tensor) -> torch.Tensor:
    """(n, N) flags of tokens as (n, C, T) flags of their values."""
    size = _observed_patches(model, prepared[:1]).shape[-1]
    flags = is_token.unsqueeze(-1).expand(-1, -1, size).contiguous()
    channels = _channels_first(model, prepared).shape[1]
    return unpatchify(flags, model.config.patch_shape, (is_token.shape[1],), channels)


def _to_hide(observed: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """(n, N) bool: a share of the complete tokens, drawn by the seed, of which every row keeps at least one."""
    complete = observed.all(-1)
    draws = torch.rand(complete.shape, generator=torch.Generator().manual_seed(seed))
    kept = draws.masked_fill(~complete, -1.0).argmax(1, keepdim=True)
    return (complete & (draws < share)).scatter(1, kept, False)


def _predictions(
    model: PreTrainedModel, prepared: torch.Tensor, padding: torch.Tensor, hidden: torch.Tensor, batch_size: int
) -> np.ndarray:
    """Predictions of every value, (n, ...) in the layout of `prepared`, with `hidden` tokens and those of which nothing was
    observed masked, and those with some holes in turn.

    Nobody asks for `padding`, (n, N, P) bool: a token of nothing else is absent.
    """
    observed = _observed_patches(model, prepared)
    incomplete = ~(observed | padding).all(-1)
    in_part = incomplete & observed.any(-1) & ~hidden
    turns = torch.where(in_part, (in_part.cumsum(1) - 1) % TURNS, -1)  # neighbours have different ones
    passes = [hidden | (incomplete & ~in_part) | (turns == turn) for turn in range(max(1, int(turns.max()) + 1))]
    total, times = torch.zeros_like(prepared), torch.zeros_like(prepared)
    for is_masked in passes:
        # Something must be read: of a row without a token to see the fullest one, in part.
        blind = (is_masked | padding.all(-1)).all(1, keepdim=True)
        fullest = torch.zeros_like(is_masked).scatter(1, observed.sum(-1).argmax(1, keepdim=True), True)
        is_masked = is_masked & ~(blind & fullest)
        found = _one_pass(model, prepared, padding, is_masked, batch_size)
        # The prediction of a token that was seen counts only where it is never masked.
        weight = torch.where(_channels_first(model, _spread(model, is_masked, prepared)), 1.0, SEEN)
        total, times = total + weight * found, times + weight
    return (total / times).numpy()


def _one_pass(
    model: PreTrainedModel, prepared: torch.Tensor, padding: torch.Tensor, is_masked: torch.Tensor, batch_size: int
) -> torch.Tensor:
    """Predictions of every value, (n, ...) in the layout of `prepared`, with these tokens (n, N) masked."""
    mean, std = target_moments(model.config)
    found = torch.zeros_like(prepared)
    visible = (~is_masked & ~padding.all(-1)).sum(1)
    with evaluation_mode(model), torch.no_grad():
        # Rows of one number of visible tokens go together: MetaMAE's adaptation follows the mean number of a batch.
        for number in visible.unique().tolist():
            for rows in (visible == number).nonzero().flatten().split(batch_size):
                outputs = _forward(model, prepared[rows], is_masked[rows])
                values = (outputs * outputs.new_tensor(std) + outputs.new_tensor(mean)).float().cpu()
                channels = _channels_first(model, prepared).shape[1]
                whole = unpatchify(values, model.config.patch_shape, (values.shape[1],), channels)
                found[rows] = _channels_first(model, whole)
    return found


def _forward(model: PreTrainedModel, values: torch.Tensor, is_masked: torch.Tensor) -> torch.Tensor:
    """(B, N, P) predictions of every token of a batch of which `is_masked` is hidden."""
    accepted = inspect.signature(model.forward).parameters
    # A masked token is no missing one: it is asked for. Its values are never read.
    asked = _channels_first(model, _spread(model, is_masked, values))
    given = {
        "input_values": torch.nan_to_num(values),
        "observed_mask": ~values.isnan() | asked,
        "is_masked": is_masked,
    }
    if (
        "nearby_noise" in accepted
    ):  # no masked token may be a target of the adaptation: there is nothing to compare it with
        given["nearby_noise"] = torch.ones(is_masked.shape)
    options = {"predict_all": True} if "predict_all" in accepted else {}
    moved = {name: part.to(model.device) for name, part in given.items()}
    outputs = model(**moved, **options, return_loss=False)
    predictions = outputs.get("patch_predictions", outputs.get("predictions"))
    assert isinstance(predictions, torch.Tensor)
    return predictions

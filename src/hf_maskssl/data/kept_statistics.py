"""A new processor with the mean and standard deviation of the one that a checkpoint was trained with."""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..models.image_processing_array import ArrayImageProcessor
from ..models.image_processing_multimae import MultiMAEImageProcessor
from ..models.table_values import Category
from .processors import ImageTextProcessor, NumericProcessor, Processor, split_processor

Statistics = dict[str, tuple[float, float]]  # name of a column or channel -> mean and standard deviation


@dataclass
class KeptStatistics:
    """Names of columns, channels and modalities whose statistics are the former ones, and of those with others."""

    kept: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)


def keep_statistics(
    processor: Processor, former: Processor, given: Collection[str] = ()
) -> tuple[Processor, KeptStatistics]:
    """Put the former processor's statistics in the place of measured ones, of whatever both know.

    Columns of a table are found by their names, modalities by theirs, channels by their numbers where there are as many.
    Statistics are of scaled values, so `scale` stays that of now.

    Args:
        processor: Processor that was measured on the data of now.
        former: Processor of the checkpoint.
        given: Names of modalities whose statistics the recipe gives.

    Returns:
        A processor with the former statistics, and whose they are.
    """
    own, theirs = split_processor(processor)[0], split_processor(former)[0]
    found = KeptStatistics()
    if own is None:
        return processor, found
    if isinstance(own, MultiMAEImageProcessor):
        return _of_modalities(own, theirs, found, given), found
    kept = _of_one(own, theirs, found)
    if isinstance(processor, ImageTextProcessor):
        assert isinstance(kept, ArrayImageProcessor)
        return dataclasses.replace(processor, image_processor=kept), found
    return kept, found


def _of_one(own: NumericProcessor, former: NumericProcessor | None, found: KeptStatistics) -> NumericProcessor:
    measured = _statistics(own)
    known = _statistics(former) if type(former) is type(own) else {}
    if len(known) != len(measured) and not (column_names(own) and column_names(former)):
        known = {}  # channels without names
    found.kept = [name for name in measured if name in known]
    found.measured = [name for name in measured if name not in known]
    if not found.kept:
        return own
    every = [known.get(name, measured[name]) for name in measured]
    settings = {**own.to_dict(), "mean": [mean for mean, _ in every], "std": [std for _, std in every]}
    return type(own)(**{name: value for name, value in settings.items() if not name.endswith("_type")})


def _of_modalities(
    own: MultiMAEImageProcessor, former: NumericProcessor | None, found: KeptStatistics, given: Collection[str]
) -> MultiMAEImageProcessor:
    known = former.modalities if isinstance(former, MultiMAEImageProcessor) else {}
    for name, entry in own.modalities.items():
        if entry.get("mean") is None:
            continue
        before = known.get(name, {})
        if name in given or before.get("mean") is None or len(before["mean"]) != len(entry["mean"]):
            found.measured.append(name)
            continue
        found.kept.append(name)
        own.modalities[name] = {**entry, "mean": before["mean"], "std": before["std"]}
    return own


def _statistics(processor: NumericProcessor | None) -> Statistics:
    """Name of each column or channel -> its mean and standard deviation; empty where none are of a data set."""
    if processor is None or isinstance(processor, MultiMAEImageProcessor):
        return {}
    if processor.mean is None or processor.std is None:
        return {}
    names = column_names(processor) or [f"channel {number}" for number in range(len(processor.mean))]
    return dict(zip(names, zip(processor.mean, processor.std, strict=True), strict=True))


def is_of_a_table(processor: Processor) -> bool:
    """Whether a processor prepares rows of a table, whose features have no neighbours."""
    return isinstance(processor, SeriesFeatureExtractor) and processor.statistics_axis == "feature"


def column_names(processor: Processor) -> list[str] | None:
    """The names of a table's columns in the order of its features; None where they have none."""
    return processor.feature_names if isinstance(processor, SeriesFeatureExtractor) else None


def categories_of(processor: Processor) -> dict[str, list[Category]]:
    """Feature of a table -> its categories in the order of their numbers; those of numbers are left out."""
    if not isinstance(processor, SeriesFeatureExtractor) or processor.categories is None:
        return {}
    named = zip(processor.feature_names or [], processor.categories, strict=True)
    return {name: categories for name, categories in named if categories is not None}


def columns_in_order(columns: Sequence[str], former: Sequence[str]) -> list[str]:
    """The columns of now, each known one where it was; new ones take the free places, and the rest follows.

    A model that tells features by their places (MetaMAE) then finds the known ones where it has learnt them. Only where more
    columns are gone than are new must some move.
    """
    new = [name for name in columns if name not in former]
    placed: list[str] = []
    for name in former:
        if name in columns:
            placed.append(name)
        elif new:
            placed.append(new.pop(0))
    return placed + new

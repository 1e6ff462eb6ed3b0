"""The weights of a checkpoint of this package for a new model of the same method, whose inputs may be others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from ...checkpoint_folders import load_listed
from ...data.kept_statistics import categories_of, column_names, is_of_a_table
from ...data.processors import Processor, split_processor
from ...methods import find_method
from ...methods.meanings import Meaning
from ...models.table_values import Category
from ...models.task_balancing import TaskPretraining
from .start_report import StartReport, StartWeight

# Fields that decide what the layers of an encoder are, or what they compute. What reads the data may differ.
ENCODER_FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps"),
    *("qkv_bias", "use_bias", "final_norm", "num_global_tokens", "position_order", "position_embeddings"),
    *("encoder_type", "num_latents", "embedding_size", "qk_channels", "v_channels", "num_layer_repeats"),
    *("num_cross_attention_heads", "cross_intermediate_size", "embedding_layer_norm_eps"),
)
DECODER = "decoder"  # first word of the names of its fields and modules
BALANCER = "balancer."
# Interpolation by the number of a grid's axes.
MODES = {1: "linear", 2: "bicubic"}
Weights = dict[str, torch.Tensor]
Rows = tuple[list[int], list[int]]  # numbers of rows: in the new table, and in the former one


@dataclass(frozen=True)
class Names:
    """Names of the rows of tables, for the new model and in the checkpoint: a row is found by its name, never by its number.

    Attributes:
        words, former_words: Word -> its id; None without a tokenizer.
        columns, former_columns: Columns of a table; None without names.
        categories, former_categories: Column of a table -> its categories in the order of their numbers.
        is_table: Whether the data are a table, whose features have no neighbours to interpolate between.
    """

    words: Mapping[str, int] | None = None
    former_words: Mapping[str, int] | None = None
    columns: Sequence[str] | None = None
    former_columns: Sequence[str] | None = None
    categories: Mapping[str, Sequence[Category]] = field(default_factory=dict)
    former_categories: Mapping[str, Sequence[Category]] = field(default_factory=dict)
    is_table: bool = False


def names_of(processor: Processor, former: Processor) -> Names:
    """The words and columns that two processors know."""
    words, former_words = (split_processor(one)[1] for one in (processor, former))
    return Names(
        None if words is None else words.get_vocab(),
        None if former_words is None else former_words.get_vocab(),
        column_names(processor),
        column_names(former),
        categories_of(processor),
        categories_of(former),
        is_of_a_table(processor),
    )


def check_encoder(config: PreTrainedConfig, former: PreTrainedConfig) -> None:
    """Refuse a checkpoint whose encoder has other layers.

    Raises:
        ValueError: Naming the fields, their values on both sides, and what to set.
    """
    ours, theirs = config.to_dict(), former.to_dict()
    fields = [name for name in ENCODER_FIELDS if name in ours and name in theirs and ours[name] != theirs[name]]
    if fields:
        differences = ", ".join(
            f"model.{name} is {ours[name]!r}, the checkpoint's {theirs[name]!r}" for name in fields
        )
        raise ValueError(f"the encoders differ: {differences}; set {'it' if len(fields) == 1 else 'them'} alike.")


def take_weights(
    model: PreTrainedModel, folder: str, names: Names, positions: Literal["same", "drop"], source: str
) -> StartReport:
    """Give a new model what fits of a checkpoint, and list it.

    Args:
        model: New pre-training model. Changed in place.
        folder: Folder of the checkpoint: of pre-training, of an encoder alone, or with a head.
        names: Names of words and columns.
        positions: "same" takes learned tables of positions, "drop" leaves them new.
        source: Name of the checkpoint for the report.

    Raises:
        ValueError: Weights of the encoder's layers have other shapes, or nothing fits.
    """
    loaded = load_listed(type(model), folder)
    start, absent = loaded.model, set(loaded.missing)
    theirs: Weights = {name: value for name, value in start.state_dict().items() if name not in absent}
    report = StartReport(source, start.config.model_type)
    fitter = _Fitter(model, start.config, names, positions)
    own: Weights = model.state_dict()
    fitter.check_shapes(own, theirs)
    state = {name: fitter.fit(name, value, theirs.get(name), report) for name, value in own.items()}
    report.left = _left_behind(model, Path(folder), theirs)
    if not report.taken:
        raise ValueError("no weight of it fits this model: name another checkpoint, or take its configuration.")
    model.load_state_dict(state)
    report.columns = moved_columns(names)
    return report


def _left_behind(model: PreTrainedModel, folder: Path, theirs: Weights) -> list[StartWeight]:
    """The weights of a checkpoint that a model has no place for, heads included, which loading passes over in silence."""
    own = model.state_dict().keys()
    shapes = {name: list(value.shape) for name, value in theirs.items()}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            found = {name: list(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118  no mapping
        prefixed = {name: f"{model.base_model_prefix}.{name}" for name in found}  # an encoder alone
        shapes |= {name: shape for name, shape in found.items() if prefixed[name] not in own}
    return [StartWeight(name, shape) for name, shape in shapes.items() if name not in own]


def moved_columns(names: Names) -> dict[str, list[str]]:
    """Where the columns of a table come from; empty without names on both sides."""
    if names.columns is None or names.former_columns is None:
        return {}
    place = {name: number for number, name in enumerate(names.former_columns)}
    known = [(number, name) for number, name in enumerate(names.columns) if name in place]
    return {
        "kept": [name for number, name in known if place[name] == number],
        "moved": [name for number, name in known if place[name] != number],
        "new": [name for name in names.columns if name not in place],
        "left": [name for name in names.former_columns if name not in names.columns],
    }


def interpolate_positions(table: torch.Tensor, former: tuple[int, ...], grid: tuple[int, ...]) -> torch.Tensor:
    """A table of learned positions for another grid, linear in one dimension and bicubic in two, as for ViT.

    Args:
        table: (N, D), row-major.
        former: Grid of its N places.
        grid: Grid of the new one's M places.

    Returns:
        (M, D).
    """
    channels = table.T.reshape(1, -1, *former).float()
    resized = F.interpolate(channels, size=grid, mode=MODES[len(grid)], align_corners=False)
    return resized.flatten(2)[0].T.to(table.dtype)


class _Fitter:
    """Decides weight by weight what a new model takes."""

    def __init__(
        self, model: PreTrainedModel, former: PreTrainedConfig, names: Names, positions: Literal["same", "drop"]
    ) -> None:
        self.model, self.config, self.former = model, model.config, former
        self.names, self.positions = names, positions
        ours, theirs = self.config.to_dict(), former.to_dict()
        fields = [name for name in ours if name.startswith(f"{DECODER}_")]
        self.other_decoder = [name for name in fields if ours[name] != theirs.get(name, ours[name])]
        self.meaning_of = find_method(self.config).weight_meaning

    def check_shapes(self, own: Weights, theirs: Weights) -> None:
        """Refuse layers of other shapes: only what reads the data may differ."""
        layers = [
            name for name in own if name.startswith(f"{self.model.base_model_prefix}.") and ".embeddings." not in name
        ]
        other = [name for name in layers if name in theirs and own[name].shape != theirs[name].shape]
        if other:
            found = "; ".join(f"{name} {list(theirs[name].shape)}, here {list(own[name].shape)}" for name in other[:3])
            raise ValueError(
                f"{len(other)} weights of the encoder's layers have other shapes in the checkpoint ({found}): take its sizes."
            )

    def fit(self, name: str, own: torch.Tensor, former: torch.Tensor | None, report: StartReport) -> torch.Tensor:
        """The value of one weight; the report says where it comes from."""
        shape = list(own.shape)

        def stays_new(reason: str = "") -> torch.Tensor:
            other = None if former is None or list(former.shape) == shape else list(former.shape)
            report.new.append(StartWeight(name, shape, other, reason))
            return own

        if former is None:
            return stays_new()
        if isinstance(self.model, TaskPretraining) and name.startswith(BALANCER):
            return stays_new("the balancing begins anew")
        if self.other_decoder and name.startswith(DECODER):
            return stays_new(f"another {self.other_decoder[0]}")
        mine, theirs = self._meanings(name)
        if mine is not None and theirs is not None:
            if mine.kind in ("positions", "places") and self.positions == "drop":
                return stays_new("init_positions is drop")
            if mine.kind != theirs.kind or mine.of != theirs.of:
                return stays_new("it stood for other data")
            rows = self._rows(mine, theirs, own, former)
            if rows is not None:
                return self._matched(name, own, former, rows, report)
            if mine.kind == "positions" and mine.grid != theirs.grid:
                note = f"grid {list(theirs.grid)} to {list(mine.grid)}"
                report.interpolated.append(StartWeight(name, shape, list(former.shape), note))
                return interpolate_positions(former, theirs.grid, mine.grid)
        if former.shape != own.shape:
            return stays_new("another shape")
        report.taken.append(StartWeight(name, shape))
        return former

    def _meanings(self, name: str) -> tuple[Meaning | None, Meaning | None]:
        if self.meaning_of is None:
            return None, None
        return self.meaning_of(self.config, name), self.meaning_of(self.former, name)

    def _rows(self, mine: Meaning, theirs: Meaning, own: torch.Tensor, former: torch.Tensor) -> Rows | None:
        """Which rows of a table are which rows of the former one; None where it is no such table, or all are the same."""
        names = self.names
        ours: Iterable[object] = range(len(own))
        before: Iterable[object] = range(len(former))
        if mine.kind == "words" and names.words is not None and names.former_words is not None:
            ours, before = (_by_id(words) for words in (names.words, names.former_words))
        elif mine.kind == "positions" and names.is_table:
            if names.columns is not None and names.former_columns is not None:
                ours, before = names.columns, names.former_columns
        elif mine.kind == "categories":
            ours = _by_column(names.columns, names.categories, mine.grid)
            before = _by_column(names.former_columns, names.former_categories, theirs.grid)
        elif mine.kind not in ("words", "places"):
            return None
        place = {name: row for row, name in enumerate(before) if name is not None and row < len(former)}
        known = [(row, place[name]) for row, name in enumerate(ours) if name in place and row < len(own)]
        if len(own) == len(former) and all(row == other for row, other in known) and len(known) == len(place):
            return None
        return [row for row, _ in known], [row for _, row in known]

    def _matched(
        self, name: str, own: torch.Tensor, former: torch.Tensor, rows: Rows, report: StartReport
    ) -> torch.Tensor:
        """A table with the former rows where there are any; the others stay new."""
        value = own.clone()
        value[rows[0]] = former[rows[1]].to(own)
        note = f"{len(rows[0])} of {len(own)} rows"
        other = None if former.shape == own.shape else list(former.shape)
        report.matched.append(StartWeight(name, list(own.shape), other, note))
        return value


def _by_column(
    columns: Sequence[str] | None, categories: Mapping[str, Sequence[Category]], counts: Sequence[int]
) -> list[tuple[str, Category] | None]:
    """Column and category of every row of a table of all columns' categories; None where the data have none for it."""
    rows: list[tuple[str, Category] | None] = []
    for number, count in enumerate(counts):
        column = "" if columns is None else columns[number]
        known = [(column, category) for category in categories.get(column, [])][:count]
        rows += [*known, *[None] * (count - len(known))]
    return rows


def _by_id(words: Mapping[str, int]) -> list[str | None]:
    """The word of every id; None where an id has none."""
    table: list[str | None] = [None] * (max(words.values(), default=-1) + 1)
    for word, number in words.items():
        table[number] = word
    return table

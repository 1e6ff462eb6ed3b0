"""What a run took from the model that it began with: for the log, the model card and `start_report.json`."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ...files import JsonObject
from ...terminal import counted

START_FILE = "start_report.json"  # name of the report in the output_dir of a run
FEW = 4  # weights that a line names one by one


@dataclass(frozen=True)
class StartWeight:
    """One weight of the model that is trained, or of the one before.

    Attributes:
        name: Name of the weight.
        shape: Its shape; of one that was left, that in the checkpoint.
        former: Its shape in the checkpoint, where that is another one.
        note: Rule by which it was taken, or the reason why it is new, in a few words.
    """

    name: str
    shape: list[int]
    former: list[int] | None = None
    note: str = ""

    def words(self) -> str:
        """Name and shapes: "a.weight, 10 x 16 to 14 x 16 (note)"."""
        shapes = [sizes(shape) for shape in (self.former, self.shape) if shape is not None]
        text = ", ".join([self.name, " to ".join(shapes)] if shapes else [self.name])
        return f"{text} ({self.note})" if self.note else text


@dataclass
class StartReport:
    """What a run began with.

    Attributes:
        source: Folder or Hub name of the model.
        model_type: Its model type.
        taken: Weights with the checkpoint's values.
        interpolated: Tables of positions, interpolated to another grid.
        matched: Tables of which some rows were taken, by the name of a word or column, or by their place.
        new: Weights that are random.
        left: Weights of the checkpoint that the model has no place for.
        columns: "kept", "moved", "new", "left" -> columns of a table; empty for other data.
        statistics: "kept", "measured" -> columns, channels or modalities whose mean and std are the checkpoint's, or not.
        frozen: Names of the weights that are not trained.
    """

    source: str
    model_type: str
    taken: list[StartWeight] = field(default_factory=list)
    interpolated: list[StartWeight] = field(default_factory=list)
    matched: list[StartWeight] = field(default_factory=list)
    new: list[StartWeight] = field(default_factory=list)
    left: list[StartWeight] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)
    statistics: dict[str, list[str]] = field(default_factory=dict)
    frozen: list[str] = field(default_factory=list)

    @property
    def parts(self) -> dict[str, list[StartWeight]]:
        """Title -> weights, in the order in which a reader wants them."""
        return {
            "taken": self.taken,
            "interpolated": self.interpolated,
            "taken in part": self.matched,
            "new": self.new,
            "left behind": self.left,
        }

    def to_json(self) -> JsonObject:
        """All of it as JSON writes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: JsonObject) -> "StartReport":
        """The report that `to_json` wrote."""
        lists = ("taken", "interpolated", "matched", "new", "left")
        weights = {name: [StartWeight(**weight) for weight in values[name]] for name in lists}
        return cls(**{**values, **weights})

    def counts(self) -> str:
        """How many weights came from where: "52 taken, 1 interpolated, 12 new"."""
        return ", ".join(f"{len(weights)} {title}" for title, weights in self.parts.items() if weights)

    def lines(self, width: int = 80) -> list[str]:
        """All of it in words, no line longer than `width`; of many weights of a kind, the modules that hold them."""
        found = [f"begun from: {self.source} ({self.model_type})"]
        for title, weights in self.parts.items():
            if not weights:
                continue
            if title != "taken" and len(weights) <= FEW:
                found += [f"  {title}: {weight.words()}" for weight in weights]
            else:
                found.append(f"  {title}: {counted(len(weights), 'weight')}, of {', '.join(modules(weights))}")
        for what, names in (("columns", self.columns), ("statistics", self.statistics)):
            found += [f"  {what} {title}: {', '.join(some)}" for title, some in names.items() if some]
        if self.frozen:
            found.append(f"  not trained: {counted(len(self.frozen), 'weight')}")
        cut = textwrap.TextWrapper(width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        return [part for line in found for part in cut.wrap(line)]


def modules(weights: Sequence[StartWeight]) -> list[str]:
    """The modules that hold weights, two names deep, each with how many it holds: "decoders.rgb (28)"."""
    counts: dict[str, int] = {}
    for weight in weights:
        module = ".".join(weight.name.split(".")[:-1][:2]) or weight.name
        counts[module] = counts.get(module, 0) + 1
    return [f"{name} ({count})" for name, count in counts.items()]


def sizes(shape: Sequence[int]) -> str:
    """A shape in words: "10 x 16"; a single number is "1"."""
    return " x ".join(map(str, shape)) if shape else "1"

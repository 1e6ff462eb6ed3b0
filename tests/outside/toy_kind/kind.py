"""Kind "number_list": a series of one channel, written as text such as "0.5;1;1.5"."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_maskssl import SeriesFeatureExtractor
from hf_maskssl.data.kinds.examples import Example, arrays
from hf_maskssl.data.kinds.numeric import NumericArguments
from hf_maskssl.data.kinds.preparers import ArrayInput, NumericInput
from hf_maskssl.data.kinds.series import SeriesInputs


@dataclass
class NumberListArguments(NumericArguments):
    """Arguments of number lists.

    Attributes:
        separator: What stands between two numbers.
    """

    kind: str = "number_list"
    separator: str = " "


@dataclass(frozen=True)
class NumberList(ArrayInput):
    """Reads numbers from text."""

    separator: str

    def read(self, values: list[Any]) -> Any:
        return [[float(number) for number in values[0].split(self.separator)]]

    def opened(self, dataset: Any) -> Any:
        return dataset  # text, not numbers


class NumberListKind(SeriesInputs[NumberListArguments]):
    """Series written as text."""

    name = "number_list"
    arguments = NumberListArguments
    picture = "toy_kind.kind:draw_numbers"

    def unmeasured(self, args: NumberListArguments, config: Any, train_split: Any) -> Any:
        return SeriesFeatureExtractor(1, config.series_length, scale=args.scale, standardize=args.standardize)

    def numeric_input(self, args: NumberListArguments, processor: Any, train_split: Any) -> NumericInput:
        return NumberList(self.input_name, tuple(args.input_columns()), processor, args.separator)

    def example(self, processor: Any, config: Any, args: NumberListArguments | None, task: str | None) -> Example:
        separator = " " if args is None else args.separator
        text = separator.join(["0.5"] * config.series_length)
        return arrays(
            "numbers",
            f"numbers = [[[float(number) for number in {text!r}.split({separator!r})]]] * 2",
            "AutoFeatureExtractor",
        )

    def summary(self, args: NumberListArguments, config: Any) -> list[tuple[str, Any]]:
        return [*super().summary(args, config), ("separator", f"`{args.separator}`")]


def draw_numbers(model: Any, batch: Any, path: Path | None, processor: Any, args: NumberListArguments) -> Path | None:
    if path is not None:
        path.write_text(f"{len(batch['input_values'])} rows separated by {args.separator}")
    return path


KIND = NumberListKind()

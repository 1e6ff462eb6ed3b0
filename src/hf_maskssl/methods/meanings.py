"""The meaning of a weight's rows and values: it decides what `training.init_from` can take from a model of other sizes."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Meaning:
    """The meaning of a weight that depends on the data.

    Attributes:
        kind: Kind of the weight. "positions": a row for each place of a grid, or for each column of a table; it can be
            interpolated. "places": a row for each position in a text, never interpolated. "words": a row for each entry of the
            vocabulary. "categories": a row for each category of each column of a table, column after column. "values": numbers
            of the input or the output themselves.
        of: Facts that both models must have alike; otherwise nothing can be taken, whatever the shapes.
        grid: Grid on which positions lie; of categories the number of each column's, 0 for numbers.
    """

    kind: Literal["positions", "places", "words", "categories", "values"]
    of: tuple[object, ...] = ()
    grid: tuple[int, ...] = ()

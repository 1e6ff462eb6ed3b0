"""What `embed` is told."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..checks import AT_LEAST_0, AT_LEAST_1, Range, check_numbers
from ..recipes import coerce
from .encoders import Pooling

ENDINGS = (".parquet", ".npy")


@dataclass
class EmbedArguments:
    """A model, data, and where and how their features are written.

    Attributes:
        model: Checkpoint folder or name on the Hub.
        output: `.parquet` or `.npy` file, or a folder for Parquet shards; a path, or an address that fsspec knows.
        data: File, folder, address, name on the Hub or data set of the package; None takes that of the recipe.
        recipe: Recipe whose data section is used, its splits included; None makes one for `data`.
        overrides: Command-line words that change fields of the data section.
        tokens: Whether to write a row for each token instead of one for each row.
        pooling: Name of the way in which tokens become one row.
        id_column: Name of the column that names rows, which goes along.
        keep: Names of further columns that go along.
        splits: Names of the splits to read; None means all.
        batch_size: Number of rows in a forward pass.
        num_workers: Number of processes that prepare rows, for each process of the launch.
        device: Device of the encoder; None means the GPU if there is one.
        precision: Name of the type that the encoder computes in; "auto" is bf16 on a GPU.
        shard_rows: Number of rows of a shard.
        overwrite: Whether to write over features that exist.
    """

    model: str
    output: str
    data: str | None = None
    recipe: str | None = None
    overrides: list[str] = field(default_factory=list)
    tokens: bool = False
    pooling: Pooling = "auto"
    id_column: str | None = None
    keep: list[str] = field(default_factory=list)
    splits: list[str] | None = None
    batch_size: int = 64
    num_workers: int = 0
    device: str | None = None
    precision: Literal["auto", "no", "bf16"] = "auto"
    shard_rows: int = 10_000
    overwrite: bool = False

    RANGES: ClassVar[dict[str, Range]] = {
        "batch_size": AT_LEAST_1,
        "num_workers": AT_LEAST_0,
        "shard_rows": AT_LEAST_1,
    }

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: A value cannot work; the error names it.
        """
        check_numbers("--", self, self.RANGES)
        coerce(self.pooling, Pooling, "--pooling")
        if (self.data is None) == (self.recipe is None):
            came = "nothing" if self.data is None else f"DATA {self.data!r} and --recipe {self.recipe!r}"
            raise ValueError(f"DATA: expected one of DATA and --recipe, got {came}")
        if self.tokens and self.pooling != "auto":
            raise ValueError(
                f"--pooling is {self.pooling!r} with --tokens, which pools nothing: leave one of them out"
            )

    @property
    def carried(self) -> list[str]:
        """The columns that go along, ids first."""
        return list(dict.fromkeys([*([self.id_column] if self.id_column is not None else []), *self.keep]))

"""Molecules by the scaffold they share (Bemis and Murcko 1996). Needs RDKit, the extra `[chem]`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from datasets import Dataset

from ...extras import missing_extra
from .caching import cached_map
from .rows import Rows

NAMED_ROWS = 5

logger = logging.getLogger(__name__)


def scaffold_groups(dataset: Dataset, column: str, num_proc: int | None = None) -> list[list[int]]:
    """Row numbers of the molecules of each scaffold, in deepchem's order (`ScaffoldSplitter`, Ramsundar et al. 2019).

    SMILES that RDKit cannot read, empty ones and missing ones are in no group; a warning counts and names them.

    Args:
        dataset: Rows of any split.
        column: Name of the column of the SMILES.
        num_proc: Number of processes.

    Returns:
        Groups from the largest to the smallest; of equally large ones the one whose first row comes last is first.

    Raises:
        ImportError: RDKit is not installed.
        ValueError: The column does not hold strings, or no row can be read.
    """
    version = _rdkit().__version__
    function = ScaffoldFinder(column)
    rows = cached_map(dataset.select_columns([column]), function, f"scaffolds {version} {column}", num_proc)
    groups: dict[str, list[int]] = {}
    scaffold_of: dict[str, str] = {}
    unreadable = []
    for row, (molecule, scaffold) in enumerate(zip(rows["molecule"], rows["scaffold"], strict=True)):
        if molecule:
            # Every notation of a molecule has the scaffold with which it was first seen.
            groups.setdefault(scaffold_of.setdefault(molecule, scaffold), []).append(row)
        else:
            unreadable.append(row)
    if unreadable:
        _warn_of_unreadable(dataset, column, unreadable)
    if not groups:
        raise ValueError(
            f"column {column!r}: RDKit can read none of the {len(dataset)} SMILES: check data.split_column"
        )
    return sorted(groups.values(), key=lambda group: (len(group), group[0]), reverse=True)


@dataclass(frozen=True)
class ScaffoldFinder:
    """A callable that finds molecule and scaffold of each row of a batch.

    Attributes:
        column: Name of the column of the SMILES.
    """

    column: str

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, list[str]]:
        """Read a batch.

        Args:
            batch: Raw column name -> one value per row.
            indices: Row numbers.

        Returns:
            `molecule`, the canonical SMILES, empty where RDKit cannot read the row's, and `scaffold`, the SMILES of its
            Bemis-Murcko scaffold without chirality, empty for molecules without a ring.

        Raises:
            ValueError: A value that is no string.
        """
        rdkit = _rdkit()
        molecules, scaffolds = [], []
        # RDKit would print every SMILES it cannot read; they are counted instead.
        with rdkit.rdBase.BlockLogs():
            for value, index in zip(batch[self.column], indices, strict=True):
                if value is not None and not isinstance(value, str):
                    raise ValueError(
                        f"row {index}, column {self.column!r}: expected a SMILES string, got {value!r:.60}"
                    )
                molecule = rdkit.Chem.MolFromSmiles(value) if value else None
                molecules.append("" if molecule is None else rdkit.Chem.MolToSmiles(molecule))
                scaffolds.append(_scaffold(rdkit, molecule))
        return {"molecule": molecules, "scaffold": scaffolds}


def _scaffold(rdkit: ModuleType, molecule: object) -> str:
    if molecule is None:
        return ""
    return str(rdkit.Chem.Scaffolds.MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False))


def _rdkit() -> ModuleType:
    # The import stands here, because only scaffold splits need it, and it is an extra.
    try:
        import rdkit
        import rdkit.Chem.Scaffolds.MurckoScaffold
        import rdkit.rdBase
    except ImportError as error:
        raise missing_extra("data.split: a scaffold split", "chem", error) from error
    return rdkit


def _warn_of_unreadable(dataset: Dataset, column: str, rows: list[int]) -> None:
    first = rows[:NAMED_ROWS]
    named = [f"row {row} {value!r:.60}" for row, value in zip(first, dataset.select(first)[column], strict=True)]
    logger.warning(
        "column %r: RDKit cannot read %d of %d SMILES, which are left out of the split: %s%s",
        column,
        len(rows),
        len(dataset),
        ", ".join(named),
        ", ..." if len(rows) > len(named) else "",
    )

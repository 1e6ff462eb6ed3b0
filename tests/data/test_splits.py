"""Cutting one split into three: at random, and by molecular scaffold against deepchem's rule written out slowly."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_configs import token_config
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_maskssl.data import DataArguments, data_arguments, load_splits, prepare_data
from hf_maskssl.data.tables.splits import fill_parts

pytest.importorskip("rdkit")
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

ROLES = ("train", "validation", "test")
# Benzenes, pyridines, chains, a cyclohexane and rings of their own, some molecules written twice.
SMILES = ["c1ccccc1C", "C1=CC=CC=C1O", "CCO", "c1ccncc1", "OCC", "Cc1ccccc1", "C1CCCCC1N", "CC(C)C", "n1ccccc1Cl"]
SMILES += [
    "c1ccccc1Br",
    "CCCC",
    "C1CC1",
    "c1ccsc1",
    "C1CCC1C",
    "c1ccoc1C",
    "CCCN",
    "Oc1ccccc1",
    "C1CCCC1",
    "c1ccccc1N",
]


def smiles_args(path: str, **fields: Any) -> DataArguments:
    """Arguments of a file of SMILES cut by scaffold."""
    fields = {"split": "scaffold", "input_column": "smiles", "tokenizer": "utf-8", **fields}
    return data_arguments("parquet", data_files=path, kind="tokens", **fields)


def reference_scaffold_split(smiles: list[str], fractions: list[float]) -> list[list[int]]:
    """deepchem's ScaffoldSplitter, step by step."""
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(smiles):
        with rdBase.BlockLogs():
            scaffold = MurckoScaffoldSmiles(mol=Chem.MolFromSmiles(text), includeChirality=False)
        groups.setdefault(scaffold, []).append(row)
    by_size = sorted(groups.values(), key=lambda rows: (len(rows), rows[0]), reverse=True)
    train: list[int] = []
    valid: list[int] = []
    test: list[int] = []
    for rows in by_size:
        if len(train) + len(rows) > fractions[0] * len(smiles):
            if len(train) + len(valid) + len(rows) > (fractions[0] + fractions[1]) * len(smiles):
                test += rows
            else:
                valid += rows
        else:
            train += rows
    return [sorted(train), sorted(valid), sorted(test)]


def cut_rows(args: DataArguments) -> list[list[int]]:
    """The column `row` of the three splits."""
    splits = load_splits(args)
    return [list(splits[role]["row"]) if role in splits else [] for role in ROLES]


@pytest.mark.parametrize("fractions", [[0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.6, 0.0, 0.4], [0.7, 0.3, 0.0]])
def test_scaffold_splits_follow_deepchem(write_parquet: Callable[..., str], fractions: list[float]) -> None:
    path = write_parquet("all", smiles=SMILES, row=list(range(len(SMILES))))
    expected = reference_scaffold_split(SMILES, fractions)
    assert cut_rows(smiles_args(path, split_fractions=fractions)) == expected
    # The seed decides nothing here.
    assert cut_rows(smiles_args(path, split_fractions=fractions, split_seed=5)) == expected


def scaffolds(split: Dataset) -> set[str]:
    """Scaffolds of a split."""
    with rdBase.BlockLogs():
        return {MurckoScaffoldSmiles(smiles=text, includeChirality=False) for text in split["smiles"]}


@pytest.mark.parametrize("name", ["bbbp", "esol"])
def test_real_molecules_share_no_scaffold_across_splits(shared_data: Callable[[str], Path], name: str) -> None:
    path = str(shared_data("moleculenet") / f"{name}.parquet")
    for rule in ("scaffold", "scaffold_random"):
        splits = load_splits(smiles_args(path, split=rule))
        sizes = [len(splits[role]) for role in ROLES]
        total = sum(sizes)
        assert np.abs(np.array(sizes) / total - [0.8, 0.1, 0.1]).max() < 0.01
        found = [scaffolds(splits[role]) for role in ROLES]
        assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]
        molecules = [{Chem.CanonSmiles(text) for text in splits[role]["smiles"]} for role in ROLES]
        assert sum(map(len, molecules)) == len(set.union(*molecules)) < total
        if rule == "scaffold":
            everything = list(load_splits(smiles_args(path, split="given"))["train"]["smiles"])
            expected = reference_scaffold_split(everything, [0.8, 0.1, 0.1])
            rows = [[everything[row] for row in part] for part in expected]
            assert rows == [list(splits[role]["smiles"]) for role in ROLES]


def test_scaffolds_are_drawn_by_seed(write_parquet: Callable[..., str]) -> None:
    rings = [f"C1{'C' * size}C1" for size in range(1, 31)]
    smiles = ["c1ccccc1C"] * 20 + ["CCO"] * 10 + rings
    path = write_parquet("all", smiles=smiles, row=list(range(60)))
    drawn = [cut_rows(smiles_args(path, split="scaffold_random", split_seed=seed)) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and drawn[1] != drawn[2] != drawn[3]
    for parts in drawn:
        assert [len(part) for part in parts] == [48, 6, 6] and sorted(sum(parts, [])) == list(range(60))
        # Benzenes and chains are more than a test split takes.
        assert set(range(30)) <= set(parts[0])


def test_unreadable_smiles_are_counted_named_and_left_out(
    write_parquet: Callable[..., str], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    bad: list[str | None] = ["c1ccc", "", None, "not a molecule"]
    smiles = [*SMILES[:5], *bad, *SMILES[5:]]
    path = write_parquet("all", smiles=smiles, row=list(range(len(smiles))))
    with caplog.at_level(logging.WARNING):
        parts = cut_rows(smiles_args(path))
    assert sorted(sum(parts, [])) == [*range(5), *range(9, len(smiles))]
    assert "RDKit cannot read 4 of 23 SMILES, which are left out of the split: row 5 'c1ccc', row 6 ''" in caplog.text
    assert "Parse Error" not in capfd.readouterr().err
    path = write_parquet("bad", smiles=["?", "!"], row=[0, 1])
    with pytest.raises(ValueError, match="column 'smiles': RDKit can read none of the 2 SMILES"):
        load_splits(smiles_args(path))


def test_without_rdkit_the_extra_is_named(write_parquet: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet("all", smiles=SMILES)
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ImportError, match=r"pip install .hf_maskssl\[chem\]"):
        load_splits(smiles_args(path))
    assert len(load_splits(smiles_args(path, split="random"))["train"]) == 15


def test_random_splits_follow_the_seed_and_keep_equal_values_together(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("all", smiles=[f"C{row // 2}" for row in range(40)], row=list(range(40)))
    parts = cut_rows(smiles_args(path, split="random"))
    assert [len(part) for part in parts] == [32, 4, 4]
    assert sorted(sum(parts, [])) == list(range(40)) and all(part == sorted(part) for part in parts)
    assert parts == cut_rows(smiles_args(path, split="random"))
    assert parts != cut_rows(smiles_args(path, split="random", split_seed=1))
    for seed in range(4):
        parts = cut_rows(smiles_args(path, split="random", split_column="smiles", split_seed=seed))
        assert [len(part) for part in parts] == [32, 4, 4]
        assert all({row ^ 1 for row in part} == set(part) for part in parts)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.tuples(st.integers(1, 9), *[st.integers(0, 9)] * 2))
def test_groups_stay_whole_and_training_takes_no_more_than_its_share(
    sizes: list[int], shares: tuple[int, int, int]
) -> None:
    starts = np.cumsum([0, *sizes])
    groups = [list(range(starts[place], starts[place + 1])) for place in range(len(sizes))]
    fractions = [share / sum(shares) for share in shares]
    parts = fill_parts(groups, fractions)
    assert sorted(np.concatenate(parts).tolist()) == list(range(sum(sizes)))
    assert len(parts[0]) <= fractions[0] * sum(sizes) + 1e-6
    assert all(sum(set(group) <= set(part.tolist()) for part in parts) == 1 for group in groups)


def test_a_cut_reaches_the_batches(write_parquet: Callable[..., str]) -> None:
    path = write_parquet("all", smiles=SMILES, y=[float(row) for row in range(len(SMILES))])
    args = smiles_args(path, label_column="y", task="regression", max_train_samples=9)
    data = prepare_data(args, token_config(262, 32))
    expected = reference_scaffold_split(SMILES, [0.8, 0.1, 0.1])
    assert len(data.train) == 9 and data.test is not None and data.validation is not None
    assert [row["labels"] for row in data.test] == expected[2]
    assert [row["index"] for row in data.test] == list(range(len(expected[2])))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "given", "split_fractions": [0.5, 0.5, 0.0]}, "data.split_fractions is .* data.split 'given'"),
        ({"split": "given", "split_column": "smiles"}, "data.split_column is smiles, which data.split 'given'"),
        ({"test_split": "test"}, "data.test_split is 'test' although data.split 'scaffold' cuts"),
        ({"validation_fraction": 0.1}, "data.validation_fraction is 0.1 although data.split 'scaffold'"),
        ({"streaming": True}, "data.streaming is True although data.split 'scaffold' cuts"),
        ({"split_fractions": [0.5, 0.5]}, "data.split_fractions: expected three numbers"),
        ({"split_fractions": [0.0, 0.5, 0.5]}, "training .above 0."),
        ({"split_fractions": [0.8, 0.1, 0.2]}, "together 1, got"),
        ({"split_fractions": [1.2, -0.1, -0.1]}, r"split_fractions\[0\]: expected a number in \[0, 1\], got 1.2"),
        ({"input_column": ["a", "b"]}, "data.split_column: split 'scaffold' needs the column of the SMILES"),
    ],
)
def test_splits_that_cannot_be_cut_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smiles_args("rows.parquet", **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split_column": "molecule"}, "data.split_column: the train split has no column 'molecule'"),
        ({"input_column": "molecule"}, "data.input_column: the train split has no column 'molecule'"),
        ({"split_column": "row"}, "row 0, column 'row': expected a SMILES string, got 0"),
        ({}, "leaves no row for the validation split: 3 rows in 2 groups, the largest of 2"),
    ],
)
def test_data_that_cannot_be_cut_are_refused(
    write_parquet: Callable[..., str], fields: dict[str, Any], message: str
) -> None:
    path = write_parquet("all", smiles=["CC", "CCC", "c1ccccc1"], row=[0, 1, 2])
    with pytest.raises(ValueError, match=message):
        load_splits(smiles_args(path, **fields))

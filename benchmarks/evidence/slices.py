"""Data that claims want cut beforehand, because a machine that runs them may lack what cuts it (RDKit)."""

from pathlib import Path

from hf_maskssl.data.arguments import data_arguments
from hf_maskssl.data.tables.splits import read_splits

MOLECULES = ("bbbp", "bace", "esol", "freesolv", "lipo")


def write_slices(folder: Path) -> list[str]:
    """`moleculenet/NAME/{train,validation,test}.parquet` below `folder`, by deepchem's scaffold split, where not there yet.

    Returns:
        Names of the sets whose source is not here.
    """
    absent = []
    for name in MOLECULES:
        target = folder / "moleculenet" / name
        if (target / "test.parquet").is_file():  # written last
            continue
        source = f"${{HF_MASKSSL_SHARED}}/data/moleculenet/{name}.parquet"
        try:
            data = data_arguments(
                source="parquet",
                data_files={"train": source},
                split="scaffold",
                kind="tokens",
                input_column="smiles",
                label_column="label",
                task="classification" if name in ("bbbp", "bace") else "regression",
            )
            splits = read_splits(data)
        except FileNotFoundError:
            absent.append(name)
            continue
        target.mkdir(parents=True, exist_ok=True)
        for split in ("train", "validation", "test"):
            aside = target / f".{split}.parquet"
            splits[split].to_parquet(aside)
            aside.replace(target / f"{split}.parquet")
    return absent

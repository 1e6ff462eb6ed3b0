"""Damaged files of every reader: each is read, or is a ValueError that names the file. The damage is drawn from fixed seeds."""

import bz2
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_configs import series_config, token_config

from hf_maskssl.data import data_arguments, prepare_data

DAMAGES = 60  # of each format
ROWS = 60


def whole_files(folder: Path) -> dict[str, bytes]:
    """Name -> content of a sound file of each format."""
    rng = np.random.default_rng(0)
    columns = {"text": [f"text number {row}" for row in range(ROWS)], "x": rng.normal(size=ROWS).tolist()}
    table = pa.table(columns)
    lines = "\n".join(json.dumps(row) for row in table.to_pylist()).encode()
    csv = ("text,x\n" + "\n".join(f"{row['text']},{row['x']}" for row in table.to_pylist())).encode()
    pq.write_table(table, folder / "plain.parquet", compression="none")
    pq.write_table(table, folder / "packed.parquet", compression="zstd", row_group_size=20)
    np.save(folder / "x.npy", np.array(columns["x"]))
    np.savez(folder / "plain.npz", x=np.array(columns["x"]), text=np.array(columns["text"]))
    np.savez_compressed(folder / "packed.npz", x=np.array(columns["x"]))
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    content |= {"a.csv": csv, "a.jsonl": lines, "a.json": json.dumps(table.to_pylist()).encode(), "a.txt": csv}
    return content | {
        "a.csv.gz": gzip.compress(csv, mtime=0),
        "a.jsonl.gz": gzip.compress(lines, mtime=0),
        "a.jsonl.xz": lzma.compress(lines),
        "a.jsonl.bz2": bz2.compress(lines),
        "a.txt.gz": gzip.compress(csv, mtime=0),
    }


def damaged(content: bytes, others: list[bytes], rng: np.random.Generator) -> Iterator[bytes]:
    """The content cut short, with other bytes, with a part twice or left out, and the content of another format."""
    for number in range(DAMAGES):
        place = int(rng.integers(len(content)))
        way = number % 5
        if way == 0:
            yield content[:place]
        elif way == 1:
            flipped = bytearray(content)
            for at in rng.integers(len(content), size=int(rng.integers(1, 9))):
                flipped[at] ^= int(rng.integers(1, 256))
            yield bytes(flipped)
        elif way == 2:
            yield content[:place] + content[place // 2 :]
        elif way == 3:
            yield content[: place // 2] + content[place:]
        else:
            yield others[int(rng.integers(len(others)))]


def source_of(name: str) -> str:
    """The source that reads a file."""
    endings = {"csv": "csv", "json": "json", "parquet": "parquet", "npy": "numpy", "npz": "numpy", "txt": "text"}
    return next(source for ending, source in endings.items() if f".{ending}" in name)


def read_all(path: Path, source: str, streaming: bool) -> None:
    """Read and prepare all rows."""
    if source == "numpy":
        config, fields = series_config(1, 1), {"kind": "series", "input_column": "x"}
    else:
        config, fields = token_config(262, 32), {"kind": "tokens", "input_column": "text", "tokenizer": "utf-8"}
    args = data_arguments(source, data_files=str(path), streaming=streaming, **fields)
    list(prepare_data(args, config).train)


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_damaged_files_are_read_or_named(tmp_path: Path, streaming: bool, write_parquet: Callable[..., str]) -> None:
    (tmp_path / "whole").mkdir()
    content = whole_files(tmp_path / "whole")
    found: Counter[str] = Counter()
    wrong = []
    for number, name in enumerate(sorted(content)):
        rng = np.random.default_rng(number)
        others = [other for one, other in content.items() if source_of(one) != source_of(name)]
        for trial, one in enumerate(damaged(content[name], others, rng)):
            path = tmp_path / f"{trial}_{name}"
            path.write_bytes(one)
            try:
                read_all(path, source_of(name), streaming)
                found["read"] += 1
            except ValueError as error:
                named = path.name in str(error) or "data." in str(error) or "column" in str(error)
                found["refused"] += 1
                if not named or len(str(error)) > 2000:
                    wrong.append(f"{path.name}: nothing is named: {error!s:.200}")
            except Exception as error:  # whatever else comes is what this test looks for
                wrong.append(f"{path.name}: {type(error).__name__}: {error!s:.200}")
    print(dict(found))
    assert not wrong, f"{len(wrong)} of {sum(found.values()) + len(wrong)}:\n" + "\n".join(wrong[:40])

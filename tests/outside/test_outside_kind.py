"""A ninth kind of data from another distribution goes the whole way, with no line of hf_maskssl changed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hf_maskssl.data import DataArguments, Kind, find_kind, register_kind
from hf_maskssl.data.kinds import KINDS
from hf_maskssl.data.kinds.image import ImageKind
from outside import EXAMPLES, WALK, install
from tiny_models import section

RECIPE: dict[str, dict[str, Any]] = {
    "model": section("metamae", modality="series", num_channels=1, series_length=12, patch_size=3),
    "data": {
        "source": "json",
        "data_files": {"train": "train.jsonl", "test": "test.jsonl"},
        "test_split": "test",
        "kind": "number_list",
        "separator": ";",
        "input_column": "numbers",
        "label_column": "label",
    },
    "probe": {"every_steps": 2, "k": 3},
    "training": {
        "output_dir": "run",
        "max_steps": 4,
        "batch_size": 8,
        "learning_rate": 0.01,
        "save_steps": 2,
        "picture_steps": 2,
    },
}
SCRIPT = WALK + 'run(str(examples / "run_pretrain.py"), "recipe.yaml", "--data.separatr", ",")\n'


@pytest.mark.slow
def test_a_ninth_kind_goes_the_whole_way(tmp_path: Path) -> None:
    environment = install(tmp_path, "toy_kind", "[hf_maskssl.kinds]\nnumbers = toy_kind.kind:KIND\n")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    for name, count in (("train", 64), ("test", 30)):
        random = np.random.default_rng(count)
        rows = [
            {"numbers": ";".join(f"{number:.3f}" for number in random.normal(label, 0.5, 12)), "label": label}
            for label in random.integers(0, 2, count).tolist()
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(EXAMPLES)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "both ways of loading agree" in result.stdout, result.stdout[-2000:] + result.stderr[-4000:]
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert """ for number in '0.5;0.5;0.5;""" in card, "the card's example is the kind's own"
    pictures = sorted((tmp_path / "run" / "pictures").glob("reconstruction-*.png"))
    assert [picture.read_text() for picture in pictures] == ["8 rows separated by ;"] * 6  # 12 steps
    assert "| separator | `;` |" in card and "| kind | number_list |" in card
    assert "crop_scale" not in card, "a card holds the fields of its kind alone"
    assert json.loads((tmp_path / "probe" / "result.json").read_text())
    assert "unknown field 'separatr' (did you mean 'separator'?)" in result.stderr


def test_a_name_is_given_once() -> None:
    class Other(Kind[Any]):
        name = "image"
        modality = "image"
        arguments = DataArguments

    Other.__abstractmethods__ = frozenset()
    with pytest.raises(ValueError, match="data.kind 'image' is ImageKind already"):
        register_kind(Other())
    assert isinstance(find_kind("image"), ImageKind)


def test_arguments_extend_the_common_ones() -> None:
    class Wrong(ImageKind):
        name = "wrong"
        arguments = dict  # type: ignore[assignment]

    with pytest.raises(ValueError, match="kind 'wrong': `arguments` must extend DataArguments, got <class 'dict'>"):
        register_kind(Wrong())
    assert "wrong" not in KINDS

"""What a recipe's run will need, by some steps of it."""

import re
from pathlib import Path

import pytest
import yaml
from finetuning_runs import make_finetuning
from runs import LABELLED, make_recipe, write_recipe

from hf_maskssl.commands.describe import main
from hf_maskssl.training import PretrainingRecipe
from hf_maskssl.training.needs import Description, describe

N = r"-?[\d.,]+(e-?\d+)?"
MEASURED = (
    rf"step: {N} s on cpu with 1 thread, the median of 2",
    rf"memory: {N} GB at the most, of {N} GB",
)


def words(description: Description) -> str:
    lines = description.lines(80)
    assert max(map(len, lines)) <= 80
    return "\n".join(lines)


def recipe_file(tmp_path: Path) -> Path:
    recipe: PretrainingRecipe = make_recipe(
        tmp_path / "run", data=LABELLED, max_steps=500, gradient_accumulation_steps=2, report_to=["tensorboard"]
    )
    return write_recipe(recipe, tmp_path / "recipe.yaml")


def test_pretraining_is_described_by_some_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hf_maskssl")
    description = describe(recipe_file(tmp_path), ["--max_train_samples", "50"], steps=2)
    said = words(description)
    assert description.measured is not None and len(description.measured.seconds) == 2
    assert (
        "train: 50 rows" in said and "columns: image, label" in said and "run: 500 steps of 8 rows, 80 epochs" in said
    )
    assert re.search(r"model: metamae, [\d,]+ parameters", said)
    for pattern in MEASURED:
        assert re.search(pattern, said), said
    step = sum(description.measured.seconds) / 2
    assert "time: about " in said and 0 < step < 60
    assert not (tmp_path / "run").exists() and not caplog.text


def test_without_steps_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["hf-maskssl describe", str(recipe_file(tmp_path)), "--steps", "0", "--batch_size", "7"]
    )
    main()
    said = capsys.readouterr().out
    assert "run: 500 steps of 14 rows" in said and "memory" not in said and "time" not in said
    monkeypatch.setattr("sys.argv", ["hf-maskssl describe", "recipe.yaml", "--steps", "-1"])
    with pytest.raises(ValueError, match="--steps: expected a number of 0 or more, got -1"):
        main()


def test_fine_tuning_is_described_by_some_steps(tmp_path: Path) -> None:
    recipe = make_finetuning(tmp_path, "regression", seeds=[0, 1, 2], learning_rate=[1e-2, 1e-3], baselines=True)
    sections = {"model": recipe.model, "data": vars(recipe.data), "finetuning": vars(recipe.finetuning)}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(sections))
    said = words(describe(tmp_path / "recipe.yaml", steps=2))
    assert "runs: 6, each of 36 steps of 8 rows, 6 epochs" in said and "here for 216 steps" in said
    for pattern in MEASURED:
        assert re.search(pattern, said), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_data_alone_are_described_by_the_recipe_that_they_would_get(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{number},{number % 7}.5,{'xy'[number % 2]}" for number in range(40)]
    Path("a.csv").write_text("\n".join(["first,second,label", *rows]))
    words = ["a.csv", "--steps", str(steps), "--minutes", "0.01", "--hidden_size", "8", "--num_attention_heads", "1"]
    monkeypatch.setattr("sys.argv", ["hf-maskssl describe", *words])
    main()
    said = capsys.readouterr().out
    assert said.startswith("kind: tabular, from 2 columns of numbers") and "features (2): first, second" in said
    assert "2 classes: x" in said and "model: metamae, " in said and max(map(len, said.splitlines())) <= 80
    assert ("memory: " in said) == ("time: about" in said) == bool(steps) and "recipe:" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]

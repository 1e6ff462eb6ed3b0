"""The average over GLUE's tasks: by hand, from folders as fine-tuning writes them, and every way to get it wrong."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from hf_maskssl.evaluation.glue import GLUE_METRICS, average_tasks

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "glue_average.py"
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_results(name: str, scores: dict[int, float], metric: str = "accuracy", **changes: Any) -> str:
        """A folder as fine-tuning leaves it; a second learning rate was tried and not chosen."""
        data = {"config_name": name, "data_dir": None, "test_split": "validation"}
        finetuning = {"checkpoint": "outputs/bert", "from_scratch": False}
        settings: dict[str, dict[str, Any]] = {"data": data, "finetuning": finetuning}
        for section in settings.values():
            section.update({key: value for key, value in changes.items() if key in section})
        runs = [
            {"learning_rate": rate, "seed": seed, "test": {metric: score * share}}
            for rate, share in ((1e-3, 0.5), (1e-4, 1.0))
            for seed, score in scores.items()
        ]
        runs[0]["test"] = None
        folder = tmp_path / changes.get("folder", name)
        folder.mkdir()
        results = {"learning_rate": 1e-4, "runs": runs, "settings": settings}
        (folder / "results.json").write_text(json.dumps(results))
        return str(folder)

    return write_results


def test_mean_and_intervals_by_hand(write: Write) -> None:
    cola = write("cola", {0: 0.50, 1: 0.60}, "matthews")
    rte = write("rte", {1: 0.72, 0: 0.66})
    results = average_tasks([rte, cola], ["cola", "rte"])
    factor = stats.t.ppf(0.975, 1) / 2**0.5
    assert list(results["tasks"]) == ["cola", "rte"]  # in the paper's order
    assert results["tasks"]["cola"] | {"folder": ""} == {
        "metric": "matthews",
        "scores": {0: 50.0, 1: 60.0},
        "mean": 55.0,
        "half_width": pytest.approx(factor * 50**0.5),
        "folder": "",
    }
    # The mean's interval is that of the two seeds' own means, 58 and 66.
    assert results["mean"] == {"mean": pytest.approx(62.0), "half_width": pytest.approx(factor * 32**0.5)}
    assert results["table"]["rows"][-1][0] == "mean of 2"


def test_different_seeds_have_a_mean_and_no_interval(write: Write) -> None:
    folders = [write("cola", {0: 0.5, 1: 0.7}, "matthews"), write("rte", {0: 0.8})]
    assert average_tasks(folders, ["cola", "rte"])["mean"] == {"mean": pytest.approx(70.0), "half_width": None}


def test_script_takes_all_eight_and_writes_them(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [write(task, {0: 0.8, 1: 0.8}, metric) for task, metric in GLUE_METRICS.items() if task != "sst2"]
    # Of local files, the folder tells.
    folders.append(write("", {0: 0.4, 1: 0.4}, config_name=None, data_dir="data/text/sst2", folder="local"))
    monkeypatch.setattr(sys, "argv", ["glue_average.py", *folders, "--output", str(tmp_path / "glue.json")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    assert "| mean of 8 |  | 75.00 ± 0.00 | 2 |" in printed and "outputs/bert" in printed
    assert json.loads((tmp_path / "glue.json").read_text())["tasks"]["sst2"]["mean"] == 40.0
    monkeypatch.setattr(sys, "argv", ["glue_average.py", *folders[-2:], "--tasks", "rte, sst2"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "| mean of 2 |  | 60.00" in capsys.readouterr().out


def test_named_folder(write: Write) -> None:
    folder = write("", {0: 0.4}, "f1", config_name=None, folder="mine")
    assert average_tasks([f"mrpc={folder}"], ["mrpc"])["mean"]["mean"] == pytest.approx(40.0)
    with pytest.raises(ValueError, match="mine: expected one of the tasks .* got '': write TASK=.*mine"):
        average_tasks([folder], ["mrpc"])


def test_what_does_not_belong_together_is_refused(write: Write, tmp_path: Path) -> None:
    rte, cola = write("rte", {0: 0.5}), write("cola", {0: 0.5}, "matthews")
    with pytest.raises(
        ValueError, match="no folder is of mnli, qqp, qnli, sst2, stsb, mrpc: the mean is over 8 tasks"
    ):
        average_tasks([rte, cola])
    with pytest.raises(ValueError, match=r"rte is there 2 times, in .*rte, .*again"):
        average_tasks([rte, cola, write("rte", {0: 0.5}, folder="again")], ["rte", "cola"])
    with pytest.raises(ValueError, match=r"cola in .* is none of the tasks \['rte'\]"):
        average_tasks([rte, cola], ["rte"])
    with pytest.raises(ValueError, match=r"tasks: expected different ones .* got \['wnli'\]"):
        average_tasks([rte], ["wnli"])
    with pytest.raises(
        ValueError, match=r"a mean is of one encoder, but rte .*outputs/bert; sst2 .* random weights, conf"
    ):
        average_tasks([rte, write("sst2", {0: 0.5}, from_scratch=True)], ["rte", "sst2"])
    with pytest.raises(ValueError, match="matched set, got data.test_split 'validation_mismatched'"):
        average_tasks([write("mnli", {0: 0.5}, test_split="validation_mismatched")], ["mnli"])
    qqp = write("qqp", {0: 0.5})
    with pytest.raises(ValueError, match=r"qqp is scored by f1, but the runs have \['accuracy'\]: .* classification"):
        average_tasks([qqp], ["qqp"])
    with pytest.raises(ValueError, match=r"stsb is scored by spearman, but .*: set data.task to regression"):
        average_tasks([write("stsb", {0: 0.5})], ["stsb"])
    file = Path(qqp) / "results.json"
    file.write_text(file.read_text().replace('{"accuracy": 0.5}', "null"))
    with pytest.raises(ValueError, match=r"its test split, of which the runs say nothing: set .* development set\.$"):
        average_tasks([qqp], ["qqp"])
    with pytest.raises(FileNotFoundError, match="nowhere holds no results.json"):
        average_tasks([str(tmp_path / "nowhere")], ["rte"])

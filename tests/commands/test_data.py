"""`hf-maskssl data`: the list, a page of each data set, and the way from a release to a probe."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest

from hf_maskssl.commands import main
from hf_maskssl.evaluation.evaluate_checkpoint import main as probe
from hf_maskssl.preparing.catalogue import DATA_SETS
from hf_maskssl.preparing.downloads import download
from hf_maskssl.preparing.pages import list_lines, show_lines
from hf_maskssl.preparing.prepare import prepare
from hf_maskssl.recipes import read_yaml
from hf_maskssl.scripts import UserError
from hf_maskssl.training import load_pretraining_recipe, pretrain

sys.path.append(str(Path(__file__).resolve().parents[1] / "preparing"))
from miniatures import MINIATURES  # noqa: E402

WIDTH = 80


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/hf-maskssl", "data", *words])
    main()


def test_the_list_names_all_and_fits() -> None:
    lines = list(list_lines())
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in DATA_SETS)
    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_page_of_each_says_what_to_do_and_fits(name: str) -> None:
    record, text = DATA_SETS[name], "\n".join(show_lines(DATA_SETS[name]))
    assert record.source in text and f"hf-maskssl data prepare {name} --" in text
    assert all(use.expected in " ".join(text.replace("    # ", "").split()) for use in record.uses)
    # An address is never broken, so that it can be followed.
    assert [line for line in text.splitlines() if len(line) > WIDTH and "http" not in line] == []


def test_from_a_release_to_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    MINIATURES["cub"](tmp_path / "raw")
    call(monkeypatch, "prepare", "cub", "--raw", "raw")
    printed = capsys.readouterr().out
    assert printed == (
        "Written: cub\n"
        "rows: train 4, test 2\n"
        "classes: label 2\n"
        "Next:\n"
        "  hf-maskssl probe outputs/metamae_imagenet32 cub/probe.yaml \\\n"
        "    --output outputs/probe_cub\n"
        "    # 6.3 % accuracy (MetaMAE, Table 2)\n"
    )
    assert set(read_yaml("cub/probe.yaml")) == {"data", "probe"}
    assert json.loads(Path("cub/prepared.json").read_text())["classes"] == {"label": 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prepare", "cup", "--raw", "x"), "NAME: no data set 'cup' (did you mean 'cub'?)"),
        (("prepare", "cub"), "expected one of --raw FOLDER and --download"),
        (("prepare", "cub", "--raw", "x", "--download"), "expected one of --raw FOLDER and --download"),
        (("prepare", "cub", "--raw", "nowhere"), "--raw nowhere: no such folder. It holds the files of https://"),
        (("prepare", "cub", "--raw", ".", "--max_rows", "0"), "--max_rows: expected a number of 1 or more, got 0"),
        (("prepare",), "NAME: expected the name of a data set to prepare, got nothing"),
        (
            ("prepar", "cub"),
            "ACTION: expected one of ['list', 'show', 'prepare'], got 'prepar' (did you mean 'prepare'?)",
        ),
        (("prepare", "voxceleb1", "--download"), "--download: voxceleb1 has no open address. Get it from https://"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as end:
        call(monkeypatch, *words)
    assert end.value.code == 2 and message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_downloaded_archives_are_read_together(tmp_path: Path) -> None:
    """An archive, and a file that is none, in two places of the cache."""
    expected = MINIATURES["vgg_flowers"](tmp_path / "raw")
    archive = shutil.make_archive(str(tmp_path / "102flowers"), "gztar", tmp_path / "raw", "jpg")
    addresses = (archive, str(tmp_path / "raw" / "imagelabels.mat"))
    record = dataclasses.replace(DATA_SETS["vgg_flowers"], downloads=addresses)
    roots = download(record, tmp_path / "cache")
    assert len(roots) == 2 and all(root.is_dir() for root in roots)
    assert prepare(record, roots, tmp_path / "out").rows == expected


def test_a_packed_table_is_found_under_its_name(tmp_path: Path) -> None:
    expected = MINIATURES["higgs"](tmp_path / "raw")
    record = dataclasses.replace(DATA_SETS["higgs"], downloads=(str(tmp_path / "raw" / "HIGGS.csv.gz"),))
    assert prepare(record, download(record, tmp_path / "cache"), tmp_path / "out").rows == expected


SMALL = ["--hidden_size", "16", "--num_hidden_layers", "1", "--num_attention_heads", "2", "--intermediate_size", "32"]
SMALL += ["--decoder_num_hidden_layers", "1", "--decoder_hidden_size", "16", "--decoder_num_attention_heads", "2"]
SMALL += ["--max_steps", "2", "--training.batch_size", "4", "--num_workers", "0", "--save_steps", "2"]


@pytest.mark.slow
@pytest.mark.usefixtures("private_cache")
@pytest.mark.parametrize(
    ("pretrained", "probed"),
    [
        *((name, name) for name in ("pamap2", "genomics", "pfam", "higgs", "eurosat", "wafer_map")),
        ("imagenet32", "cifar10"),
    ],
)
def test_from_a_release_to_a_probe(
    pretrained: str, probed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip({"eurosat": "tifffile", "wafer_map": "h5py"}.get(pretrained, "numpy"))
    monkeypatch.chdir(tmp_path)
    for name in {pretrained, probed}:
        MINIATURES[name](tmp_path / f"raw_{name}")
        call(monkeypatch, "prepare", name, "--raw", f"raw_{name}", *(["--max_rows", "12"] if name == "pamap2" else []))
    recipe = load_pretraining_recipe(f"{pretrained}/pretrain.yaml", SMALL)
    pretrain(recipe)
    words = [recipe.training.output_dir, f"{probed}/probe.yaml", "--probe.k", "2"]
    assert f"hf-maskssl probe {recipe.training.output_dir} {probed}/probe.yaml" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["hf-maskssl probe", *words])
    probe()
    assert "linear probe" in capsys.readouterr().out

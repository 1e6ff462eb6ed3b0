"""Every data set from a release in miniature to Parquet, and through the recipes that were written."""

import dataclasses
import gzip
import json
import logging
import shlex
import string
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from miniatures import MINIATURES, WNIDS, Counts, nyu_frame, picture, text
from PIL import Image

from hf_maskssl.data.arguments import DataArguments
from hf_maskssl.data.preparation import prepare_data
from hf_maskssl.data.tables.splits import read_splits
from hf_maskssl.data.text.tokenizers import build_character_tokenizer
from hf_maskssl.evaluation.arguments import ProbeArguments
from hf_maskssl.files import link_file
from hf_maskssl.preparing.catalogue import DATA_SETS
from hf_maskssl.preparing.class_maps import millimetres
from hf_maskssl.preparing.hypersim import planar_depth, tone_mapped
from hf_maskssl.preparing.molecules import TOX21
from hf_maskssl.preparing.prepare import REPORT_FILE, Prepared, command_of, first_commands, prepare
from hf_maskssl.preparing.raw import RawFolder
from hf_maskssl.preparing.record import PaperData
from hf_maskssl.recipes import build_config, load_recipe, recipe_names
from hf_maskssl.training import PretrainingArguments
from hf_maskssl.training.finetuning.arguments import load_finetuning_recipe

pytestmark = pytest.mark.usefixtures("private_cache")
SECTIONS = {"model": dict, "data": DataArguments, "probe": ProbeArguments, "training": PretrainingArguments}
NEEDS = {"eurosat": "tifffile", "wafer_map": "h5py", "nyuv2": "h5py", "hypersim": "h5py"}
# Readers that draw as many rows as they are asked for.
DRAWN = {"pamap2": 12}
# Shape of a sample of Table 16, and what the model gets it as.
SHAPES = {
    "pamap2": ("input_values", (52, 320)),
    "higgs": ("input_values", (1, 28)),
    "genomics": ("input_ids", (250,)),
    "eurosat": ("pixel_values", (13, 64, 64)),
    "wafer_map": ("pixel_values", (3, 32, 32)),
    "cifar10": ("pixel_values", (3, 32, 32)),
    "aircraft": ("pixel_values", (3, 32, 32)),
    "traffic_sign": ("pixel_values", (3, 32, 32)),
    "audio_mnist": ("pixel_values", (1, 224, 224)),
    "librispeech": ("pixel_values", (1, 224, 224)),
    "mscoco": ("pixel_values", (3, 224, 224)),
    "vqa": ("pixel_values", (3, 224, 224)),
}


def prepared_miniature(name: str, folder: Path) -> tuple[Prepared, Counts]:
    pytest.importorskip(NEEDS.get(name, "numpy"))
    expected = MINIATURES[name](folder / "raw")
    prepared = prepare(DATA_SETS[name], (folder / "raw",), folder / name, max_rows=DRAWN.get(name))
    return prepared, expected


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    """In the place of BERT's, which is on the Hub."""
    letters = string.ascii_letters + string.digits + " ?[]"
    build_character_tokenizer(letters, 32).save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_every_data_set_has_a_miniature() -> None:
    assert set(MINIATURES) == set(DATA_SETS)


def test_table_16_is_whole() -> None:
    """MetaMAE's Table 16, copied a second time: data set -> number of classes; what differs is a note of the record."""
    table: dict[str, int | None] = {
        **{"pamap2": 12, "higgs": 2, "eurosat": 10, "genomics": 10, "genomics_ood": 60, "pfam": 623, "scop": 1195},
        **{"secondary_structure": None, "stability": None, "fluorescence": None, "audio_mnist": 10},
        **{"google_speech": 36, "voxceleb1": 1251, "wafer_map": 9, "imagenet32": 1000, "cifar10": 10, "cub": 200},
        **{"vgg_flowers": 102, "dtd": 47, "traffic_sign": 43, "aircraft": 100, "mscoco": 80, "vqa": 2},
        **{"mismatched_caption": 2},
    }
    for name, classes in table.items():
        assert list(DATA_SETS[name].labels.values())[:1] == ([] if classes is None else [classes]), name
    assert dict(DATA_SETS["fluent_speech"].labels) == {"action": 6, "object": 14, "location": 4}
    assert "librispeech" in DATA_SETS and "102" in DATA_SETS["aircraft"].note


@pytest.mark.parametrize("record", DATA_SETS.values(), ids=lambda record: record.name)
def test_record_is_whole(record: PaperData) -> None:
    assert record.uses and record.layout and record.splits and record.documented
    assert {use.recipe for use in record.uses} <= set(recipe_names())
    assert len({use.file for use in record.uses}) == len(record.uses)
    # Of pictures in folders, label is the class folder.
    assert set(record.labels) <= {*record.columns, *(["label"] if record.form == "folder" else [])}


@pytest.mark.parametrize("name", DATA_SETS)
def test_release_becomes_splits_and_recipes(name: str, tmp_path: Path, tokenizer: str) -> None:
    prepared, expected = prepared_miniature(name, tmp_path)
    record, folder = DATA_SETS[name], tmp_path / name
    assert prepared.rows == expected
    written = [split if record.form == "folder" else f"{split}.parquet" for split in record.rows]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*written, *(use.file for use in record.uses), REPORT_FILE]
    )
    assert [path for path in tmp_path.iterdir() if path.name.endswith(".incomplete")] == []
    assert json.loads((folder / REPORT_FILE).read_text())["rows"] == expected
    for split, rows in expected.items():
        if record.form == "folder":
            counts = {path.name: len(list(path.glob("*/*"))) for path in (folder / split).iterdir()}
            assert counts == dict.fromkeys(record.columns, rows)
            continue
        table = pq.read_table(folder / f"{split}.parquet")
        assert table.num_rows == rows and table.column_names == list(record.columns)
    for use in record.uses:
        path = folder / use.file
        assert use.expected in path.read_text(encoding="utf-8")
        if use.first:  # which makes what the recipe reads
            (words,) = first_commands(use, folder.resolve())
            assert f"--output_dir {load_recipe(path, (), SECTIONS)['data'].data_dir}" in words
            continue
        if use.command in ("finetune", "segment", "depth"):
            # A handful of molecules cannot be cut by scaffolds.
            data = dataclasses.replace(load_finetuning_recipe(path, []).data, split="given")
            rows = next(iter(read_splits(data).values()))
            assert rows.column_names is not None and set(data.target_columns()) <= set(rows.column_names)
            continue
        sections = load_recipe(path, (), SECTIONS)
        data = dataclasses.replace(sections["data"], max_train_samples=4, max_test_samples=4)
        if is_cut := data.split == "scaffold":  # a handful of molecules cannot be
            data = dataclasses.replace(data, split="given")
        if "tokenizer" in data.__dataclass_fields__ and data.tokenizer is not None:
            data = dataclasses.replace(data, tokenizer=tokenizer)
        model = load_recipe(use.recipe)["model"]
        if name in ("mscoco", "mismatched_caption", "vqa"):
            model["vocab_size"] = 72
        ready = prepare_data(data, build_config(model))
        batch = ready.collator([ready.train[row] for row in range(2)])
        if name in SHAPES:
            key, shape = SHAPES[name]
            assert tuple(batch[key].shape) == (2, *shape)
        if use.command == "probe":
            assert "labels" in batch and (is_cut or ready.test is not None)


# What the papers' splits are


def column(folder: Path, split: str, name: str) -> list[object]:
    values: list[object] = pq.read_table(folder / f"{split}.parquet", columns=[name]).column(name).to_pylist()
    return values


def test_windows_are_of_one_activity_of_the_splits_subjects(tmp_path: Path) -> None:
    prepared_miniature("pamap2", tmp_path)
    classes = {split: set(column(tmp_path / "pamap2", split, "label")) for split in ("train", "test")}
    # Subject 101's activity is the sixth of the list in the miniature, and so on.
    assert classes["train"] <= {subject % 12 for subject in (101, 102, 103, 104, 107, 108, 109)}
    assert classes["test"] <= {105 % 12, 106 % 12} and len(classes["train"]) > 2
    series = np.array(column(tmp_path / "pamap2", "train", "series"))
    assert series.shape == (12, 52, 320) and np.isfinite(series).all()


def test_higgs_is_cut_as_dabs_does(tmp_path: Path) -> None:
    prepared_miniature("higgs", tmp_path)
    rows = {
        split: [round(cells[0]) for cells in column(tmp_path / "higgs", split, "inputs")]  # type: ignore[index]
        for split in ("train", "probe", "test")
    }
    order = np.random.RandomState(42).permutation(180)
    assert sorted(rows["train"]) == sorted(order[:162].tolist())
    order = np.random.RandomState(42).permutation(20) + 180
    assert sorted(rows["probe"]) == sorted(order[:18].tolist()) and sorted(rows["test"]) == sorted(order[18:].tolist())
    labels = column(tmp_path / "higgs", "train", "label")
    assert [row % 2 for row in rows["train"]] == labels


def test_the_last_rows_are_the_test(tmp_path: Path) -> None:
    prepared_miniature("year", tmp_path)
    assert sorted(round(value) for value in column(tmp_path / "year", "test", "timbre_01")) == list(range(90, 100))  # type: ignore[call-overload]
    together = [
        round(value)  # type: ignore[call-overload]
        for split in ("train", "valid", "test")
        for value in column(tmp_path / "year", split, "timbre_01")
    ]
    assert sorted(together) == list(range(100))


def test_bases_are_letters(tmp_path: Path) -> None:
    from miniatures import bases

    prepared_miniature("genomics", tmp_path)
    known = {"".join("ACGT"[base] for base in bases(row)): row % 10 for row in range(30)}
    for split in ("train", "probe", "test"):
        sequences = column(tmp_path / "genomics", split, "sequence")
        labels = column(tmp_path / "genomics", split, "label")
        assert [known[str(sequence)] for sequence in sequences] == labels


def test_padding_is_the_fourth_class(tmp_path: Path) -> None:
    prepared_miniature("secondary_structure", tmp_path)
    table = pq.read_table(tmp_path / "secondary_structure" / "train.parquet").to_pylist()
    assert {len(row["padded"]) for row in table} == {len(row["ss4"]) for row in table} == {128}
    assert table[0]["ss4"] == table[0]["ss3"] + [3] * 98 and table[0]["padded"].endswith("X" * 98)
    assert table[1]["ss4"] == table[1]["ss3"][:128] and len(table[1]["primary"]) == 130
    assert table[0]["mask"] == [1] * 29 + [0]


def test_speakers_are_cut_one_by_one(tmp_path: Path) -> None:
    prepared_miniature("librispeech", tmp_path)
    counts = {split: Counter(column(tmp_path / "librispeech", split, "speaker_id")) for split in ("probe", "test")}
    assert counts == {"probe": Counter({84: 4, 1272: 4}), "test": Counter({84: 1, 1272: 1})}


def test_test_files_are_not_trained_on(tmp_path: Path) -> None:
    prepared_miniature("google_speech", tmp_path)
    tested = column(tmp_path / "google_speech", "test", "label")
    trained = Counter(column(tmp_path / "google_speech", "train", "label"))
    assert sorted(map(str, tested)) == ["no", "yes"]
    assert trained == Counter({"yes": 2, "no": 2, "_background_noise_": 3})


def test_flowers_are_cut_as_dabs_does(tmp_path: Path) -> None:
    prepared_miniature("vgg_flowers", tmp_path)
    random = np.random.RandomState(42)
    expected = []
    for label, files in ((1, [0, 2, 4, 6, 8]), (0, [1, 3, 5, 7, 9])):
        order = np.arange(5)
        random.shuffle(order)
        expected += [(f"image_{files[place] + 1:05d}.jpg", label) for place in order[4:]]
    rows = pq.read_table(tmp_path / "vgg_flowers" / "test.parquet").to_pylist()
    assert sorted((row["image"]["path"], row["label"]) for row in rows) == sorted(expected)


def test_planes_are_cut_to_their_boxes(tmp_path: Path) -> None:
    import datasets

    prepared_miniature("aircraft", tmp_path)
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "aircraft" / "train.parquet"), split="train")
    assert rows[0]["image"].size == (4, 5) and rows[0]["label"] == "Boeing 707-320"


def test_wafers_are_drawn_in_matlabs_order(tmp_path: Path) -> None:
    import datasets

    prepared_miniature("wafer_map", tmp_path)
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "wafer_map" / "probe.parquet"), split="train")
    assert set(rows["label"]) <= {"none", "edge-ring", "loc"}
    picture = np.asarray(rows[0]["image"])
    assert picture.shape[0] == 5 and set(np.unique(picture)) <= {0, 127, 255}
    assert set(column(tmp_path / "wafer_map", "train", "label")) == {None}


def test_half_of_the_captions_are_another_pictures(tmp_path: Path) -> None:
    prepared_miniature("mismatched_caption", tmp_path)
    rows = pq.read_table(tmp_path / "mismatched_caption" / "train.parquet").to_pylist()
    for row in rows:
        image = int(Path(row["image"]["path"]).stem)
        assert row["image"]["bytes"] is None and Path(row["image"]["path"]).is_file()
        if row["label"] == 1:
            assert row["caption"] == f"last {image}"
    assert 0 < sum(row["label"] for row in rows) < len(rows)
    assert sorted(row["caption"] for row in rows) == sorted(f"last {image}" for image in range(1, 9))


def test_half_of_the_answers_are_wrong(tmp_path: Path) -> None:
    prepared_miniature("vqa", tmp_path)
    rows = pq.read_table(tmp_path / "vqa" / "train.parquet").to_pylist()
    assert all((row["text"] == "Is it? [SEP] yes") == (row["label"] == 1) for row in rows)
    assert {row["label"] for row in rows} == {0, 1}


def test_a_task_without_a_label_is_a_gap(tmp_path: Path) -> None:
    prepared_miniature("tox21", tmp_path)
    values = column(tmp_path / "tox21", "train", "NR-AR")
    assert values == [None, 1, 0, 1, 0, None]


def test_recipes_of_several_assays_take_all_of_them(tmp_path: Path) -> None:
    prepared, _ = prepared_miniature("tox21", tmp_path)
    assert [use.command for use, _ in prepared.recipes] == ["finetune", "probe"]
    for _, path in prepared.recipes:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]
        assert data["label_column"] == list(TOX21) and data["task"] == "multi_label_classification"
        assert data["split"] == "scaffold"
    assert load_finetuning_recipe(prepared.recipes[0][1]).finetuning.metric == "mean_roc_auc"


# Aligned pictures


def files_of(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def test_validation_pictures_get_the_class_of_the_kits_number(tmp_path: Path) -> None:
    prepared_miniature("imagenet1k", tmp_path)
    assert list(files_of(tmp_path / "imagenet1k" / "val")) == [
        "rgb/n01440764/ILSVRC2012_val_00000002.jpg",
        "rgb/n01443537/ILSVRC2012_val_00000001.jpg",
        "rgb/n01443537/ILSVRC2012_val_00000003.jpg",
    ]
    assert len(files_of(tmp_path / "imagenet1k" / "train" / "rgb" / "n01440764")) == 3


def test_pictures_in_folders_are_linked(tmp_path: Path) -> None:
    """Kaggle's layout: boxes in class folders beside the pictures, and a table of the validation's classes."""
    data = tmp_path / "raw" / "ILSVRC" / "Data" / "CLS-LOC"
    text(tmp_path / "raw" / "ILSVRC" / "Annotations" / "CLS-LOC" / "train" / WNIDS[0] / "box.xml", "<annotation/>")
    picture(data / "train" / WNIDS[0] / "one.JPEG")
    picture(data / "val" / "ILSVRC2012_val_00000001.JPEG", 90)
    text(
        tmp_path / "raw" / "LOC_val_solution.csv",
        f"ImageId,PredictionString\nILSVRC2012_val_00000001,{WNIDS[1]} 1 2 3 4\n",
    )
    prepare(DATA_SETS["imagenet1k"], (tmp_path / "raw",), tmp_path / "out")
    train, val = (files_of(tmp_path / "out" / split) for split in ("train", "val"))
    assert train[f"rgb/{WNIDS[0]}/one.JPEG"].samefile(data / "train" / WNIDS[0] / "one.JPEG")
    assert list(val) == [f"rgb/{WNIDS[1]}/ILSVRC2012_val_00000001.JPEG"]


def test_frames_are_turned_as_they_are_seen(tmp_path: Path) -> None:
    prepared_miniature("nyuv2", tmp_path)
    folder = tmp_path / "nyuv2" / "train"
    colours, depth, labels = nyu_frame(2)  # the third frame, by MATLAB's numbers
    found = {name: np.asarray(Image.open(folder / name / "all" / "0003.png")) for name in ("rgb", "depth", "semseg")}
    np.testing.assert_array_equal(found["rgb"], colours)
    np.testing.assert_allclose(found["depth"] / 1000, depth, atol=5.1e-4)
    np.testing.assert_array_equal(found["semseg"], np.where(labels == 0, 255, (labels - 1) % 40))
    (tmp_path / "raw" / "classMapping40.mat").unlink()
    prepared = prepare(DATA_SETS["nyuv2"], (tmp_path / "raw",), tmp_path / "less")
    assert "classMapping40.mat is not there" in prepared.differences[0]
    assert "segment.yaml is not written: train and test have no maps semseg" in prepared.differences[1]
    assert sorted(path.name for path in (tmp_path / "less" / "test").iterdir()) == ["depth", "rgb"]
    written = {"depth.yaml", "prepared.json", "test", "train"}
    assert {path.name for path in (tmp_path / "less").iterdir()} == written
    assert [use.file for use, _ in prepared.recipes] == ["depth.yaml"]
    recipe = load_finetuning_recipe(tmp_path / "nyuv2" / "segment.yaml")
    assert recipe.data.label_names == [f"class {number}" for number in range(40)]


def test_classes_of_scenes_begin_at_0(tmp_path: Path) -> None:
    prepared, _ = prepared_miniature("ade20k", tmp_path)
    assert prepared.classes == {"semseg": 149}  # 1 to 149 of 150
    found = np.asarray(Image.open(tmp_path / "ade20k" / "train" / "semseg" / "all" / "ADE_train_00000001.png"))
    np.testing.assert_array_equal(found.ravel()[:3], [255, 0, 1])


def test_depth_is_planar() -> None:
    """A wall straight ahead, 2 m away, with a view of 60 degrees: f = 512 / tan(30 degrees), and rays by hand."""
    x, y = np.meshgrid(np.arange(1024) - 511.5, np.arange(768) - 383.5)
    distance = 2 * np.sqrt(x**2 + y**2 + 886.8100134752651**2) / 886.8100134752651
    np.testing.assert_allclose(planar_depth(distance), 2, rtol=1e-6)


def test_tones_put_the_90th_percentile_at_80_percent() -> None:
    radiance = np.full((10, 10, 3), 4.0)
    radiance[0] = 900.0  # what shows nothing does not count
    is_something = np.arange(10)[:, None].repeat(10, 1) > 0
    found = tone_mapped(radiance, is_something)
    assert (found[1:] == 204).all() and (found[0] == 255).all()
    assert not tone_mapped(np.zeros((2, 2, 3)), np.ones((2, 2), dtype=bool)).any()
    assert millimetres(np.array([[np.nan, 0, 70, 1.0005, -1]])).tolist() == [[0, 0, 65535, 1000, 0]]


def test_rendered_frames_have_colours_or_previews(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    prepared_miniature("hypersim", tmp_path)
    names = files_of(tmp_path / "hypersim")
    assert {name for name in names if name.startswith("val/")} == {
        "val/rgb/ai_002_001/cam_00_frame.0000.jpg",
        "val/depth/ai_002_001/cam_00_frame.0000.png",
        "val/semseg/ai_002_001/cam_00_frame.0000.png",
    }
    images = tmp_path / "raw" / "scenes" / "ai_002_001" / "images"
    preview = images / "scene_cam_00_final_preview" / "frame.0000.tonemap.jpg"
    assert names["val/rgb/ai_002_001/cam_00_frame.0000.jpg"].samefile(preview)
    with h5py.File(images / "scene_cam_00_geometry_hdf5" / "frame.0000.semantic.hdf5") as file:
        classes = file["dataset"][()]
    found = np.asarray(Image.open(names["val/semseg/ai_002_001/cam_00_frame.0000.png"]))
    np.testing.assert_array_equal(found, np.where(classes == -1, 255, classes - 1))
    next((tmp_path / "raw" / "scenes" / "ai_001_001").rglob("frame.0001.color.hdf5")).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"frame.0001.tonemap.jpg, which metadata_images_split_scene_v1.csv lists"
    ):
        prepare(DATA_SETS["hypersim"], (tmp_path / "raw",), tmp_path / "out")
    assert prepare(DATA_SETS["hypersim"], (tmp_path / "raw",), tmp_path / "out", partial=True).rows["train"] == 2


@pytest.mark.parametrize("layout", ["{domain}/taskonomy/{building}", "{building}/{domain}"])
def test_targets_lie_in_folders_of_several_layouts(layout: str, tmp_path: Path) -> None:
    expected = MINIATURES["taskonomy"](tmp_path / "made")
    for path in files_of(tmp_path / "made").values():
        place = tmp_path / "raw"
        if path.suffix == ".png" and path.parts[-3] == "keypoints3d":
            continue  # a target that was not fetched
        if path.suffix == ".png":
            place /= layout.format(domain=path.parts[-3], building=path.parts[-2])
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
    prepared = prepare(DATA_SETS["taskonomy"], (tmp_path / "raw",), tmp_path / "out")
    assert prepared.rows == expected
    assert prepared.differences[0] == "left out are the targets keypoints3d, for which there is no folder"
    assert len(list((tmp_path / "out" / "val").iterdir())) == 9


def test_archives_of_targets_may_lie_in_several_folders(tmp_path: Path) -> None:
    expected = MINIATURES["taskonomy"](tmp_path / "one")
    (folder,) = [path for path in (tmp_path / "one").rglob("normal") if path.is_dir()]
    (tmp_path / "two").mkdir()
    folder.rename(tmp_path / "two" / "normal")
    prepared = prepare(DATA_SETS["taskonomy"], (tmp_path / "one", tmp_path / "two"), tmp_path / "out")
    assert prepared.rows == expected and not any("left out" in one for one in prepared.differences)


def test_validation_classes_are_looked_for_before_training_pictures_are_written(tmp_path: Path) -> None:
    MINIATURES["imagenet1k"](tmp_path / "raw")
    for path in (tmp_path / "raw").rglob("ILSVRC2012_validation_ground_truth.txt"):
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match="needs ILSVRC2012_validation_ground_truth.txt or LOC_val_solution.csv"
    ):
        next(DATA_SETS["imagenet1k"].read(RawFolder((tmp_path / "raw",), "imagenet1k")))


def test_a_link_to_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="is a link to .*gone, which is not there"):
        link_file(tmp_path / "a", tmp_path / "b")


def test_labels_made_for_prepared_pictures_are_not_replaced(tmp_path: Path) -> None:
    prepared_miniature("ade20k", tmp_path)
    (tmp_path / "ade20k" / "train" / "depth").mkdir()
    with pytest.raises(FileExistsError, match=r"holds \['train/depth'\], which no preparation of ade20k wrote"):
        prepare(DATA_SETS["ade20k"], (tmp_path / "raw",), tmp_path / "ade20k", overwrite=True)


def test_a_list_names_no_place_outside_the_written_folder(tmp_path: Path) -> None:
    MINIATURES["taskonomy"](tmp_path / "raw")
    text(tmp_path / "raw" / "tiny_val.csv", "building,point,view\n../../trainville,0,0\n")
    with pytest.raises(ValueError, match="which lies outside the release|expected a name of a folder and a file"):
        prepare(DATA_SETS["taskonomy"], (tmp_path / "raw",), tmp_path / "out", partial=True)
    assert not (tmp_path / "out").exists()


# Counts, options, mistakes


def test_a_whole_release_has_no_difference(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = MINIATURES["cub"](tmp_path / "raw")
    record = dataclasses.replace(DATA_SETS["cub"], rows=expected, labels={"label": 2})
    assert prepare(record, (tmp_path / "raw",), tmp_path / "whole").differences == []
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        found = prepare(DATA_SETS["cub"], (tmp_path / "raw",), tmp_path / "less").differences
    assert found == [
        "train has 4 rows, the whole release gives 5,994",
        "test has 2 rows, the whole release gives 5,794",
        "label has 2 classes, the whole release has 200",
    ]
    assert "cub: train has 4 rows" in caplog.text


def test_a_missing_file_is_an_error_or_a_row_less(tmp_path: Path) -> None:
    MINIATURES["cub"](tmp_path)
    lost = tmp_path / "CUB_200_2011" / "images" / "001.Bird_0" / "Bird_2.jpg"
    lost.rename(lost.with_name("Bird_22.jpg"))
    with pytest.raises(
        FileNotFoundError, match=r"Bird_2.jpg, which images.txt lists, is not there .*'Bird_22.jpg'.*--partial"
    ):
        prepare(DATA_SETS["cub"], (tmp_path,), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CUB_200_2011"]
    prepared = prepare(DATA_SETS["cub"], (tmp_path,), tmp_path / "out", partial=True)
    assert prepared.rows == {"train": 3, "test": 2}
    assert prepared.differences[0] == "left out are 1 row without a file (--partial)"


def test_no_more_rows_than_asked_for(tmp_path: Path) -> None:
    MINIATURES["higgs"](tmp_path)
    prepared = prepare(DATA_SETS["higgs"], (tmp_path,), tmp_path / "out", max_rows=5)
    assert prepared.rows == {"train": 5, "probe": 5, "test": 2}
    assert len(prepared.differences) == 1 and "--max_rows" in prepared.differences[0]


def test_paths_in_place_of_bytes(tmp_path: Path) -> None:
    MINIATURES["dtd"](tmp_path)
    prepare(DATA_SETS["dtd"], (tmp_path,), tmp_path / "out", keeps_paths=True)
    cells = column(tmp_path / "out", "test", "image")
    expected = tmp_path.resolve() / "dtd" / "images" / "banded" / "banded_test1.jpg"
    assert cells[0] == {"bytes": None, "path": str(expected)}


def test_a_folder_that_exists_is_kept(tmp_path: Path) -> None:
    MINIATURES["dtd"](tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="--output_dir .*out exists already"):
        prepare(DATA_SETS["dtd"], (tmp_path,), tmp_path / "out")
    with pytest.raises(FileExistsError, match="was not written by a preparation"):
        prepare(DATA_SETS["dtd"], (tmp_path / "dtd",), tmp_path / "dtd", overwrite=True)
    assert (tmp_path / "dtd" / "labels").is_dir()
    prepare(DATA_SETS["dtd"], (tmp_path,), tmp_path / "first")
    prepare(DATA_SETS["dtd"], (tmp_path,), tmp_path / "first", max_rows=1, overwrite=True)
    assert pq.read_table(tmp_path / "first" / "train.parquet").num_rows == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dtd", "first", "out"]


@pytest.mark.parametrize("name", DATA_SETS)
def test_an_empty_folder_is_one_error(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "numpy"))
    with pytest.raises(FileNotFoundError, match=f"{name} needs .*the folder is empty.*Get it from http"):
        prepare(DATA_SETS[name], (tmp_path,), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Without a time: what a test is called by has to be the same in every process that collects it.
HIGGS_WITHOUT_LABEL = gzip.compress(
    "".join(",".join(["" if row == 3 else "1.0", *["0.5"] * 28]) + "\n" for row in range(10)).encode(), mtime=0
)


def breakages() -> Iterator[tuple[str, str, bytes, str]]:
    """(data set, file, its content, what the error says)."""
    yield (
        "pamap2",
        "PAMAP2_Dataset/Protocol/subject101.dat",
        b"1 2 3\n4 5 6\n",
        "subject101.dat.*expected 54 columns, got 3",
    )
    yield "higgs", "HIGGS.csv.gz", b"not packed", "HIGGS.csv.gz.*not what higgs is released as"
    yield "year", "YearPredictionMSD.txt", b"2001,1,2\n", "expected the label and 90 features, got 3 columns"
    yield "genomics", "llr/before_2011_in_tr/before_2011_in_tr-00000-of-00002.tfrecord", b"abcd", "cut, or no TFRecord"
    yield "scop", "remote_homology/remote_homology_train.json", b'[{"primary": "AC"', "cut, or no JSON of records"
    yield (
        "scop",
        "remote_homology/remote_homology_train.json",
        b'[{"primary": "A", "fold_lable": 1}]',
        "'fold_label'.*'fold_lable'",
    )
    yield (
        "stability",
        "stability/stability_train.json",
        b'[{"primary": "A", "stability_score": []}]',
        "a list of one, got",
    )
    yield "cifar10", "cifar-10-batches-bin/data_batch_1.bin", bytes(3000), "data_batch_1.bin.*the file is cut"
    yield "imagenet32", "val_data.npz", b"PK", "val_data.npz"
    yield "aircraft", "fgvc-aircraft-2013b/data/images/0034309.jpg", b"no picture", "not what aircraft is released as"
    yield "mscoco", "annotations/captions_train2017.json", b"[]", "an object with the list 'annotations'"
    yield "imagenet32", "train_data_batch_1.npz", b"PK\x03\x04cut", "train_data_batch_1.npz.*not what imagenet32"
    yield "bace", "bace.csv", b"CID,mol,Class\nb\n", "bace.csv.*not what bace is released as"
    yield "bace", "bace.csv", b"CID,mol,Class\nb,CC,0.7\n", "bace.csv.*expected a class, a whole number, got '0.7'"
    yield "higgs", "HIGGS.csv.gz", HIGGS_WITHOUT_LABEL, "row 3: the label, in the first column, is empty"
    yield (
        "scop",
        "remote_homology/remote_homology_train.json",
        b'[{"primary": ["A"], "fold_label": 1}]',
        "not what scop is released as .*: train split, column 'primary': expected string",
    )
    yield "hiv", "HIV.csv", b"smiles,active\nCC,1\n", "no column 'HIV_active'"
    yield "imagenet1k", "ILSVRC2012_img_train.tar", b"no tar", "ILSVRC2012_img_train.tar.*not what imagenet1k"
    yield "imagenet100", "imagenet100.txt", b"cat\n", "imagenet100.txt.*expected a class a line"
    yield "nyuv2", "nyu_depth_v2_labeled.mat", b"MATLAB", "nyu_depth_v2_labeled.mat.*not what nyuv2"
    yield (
        "ade20k",
        "ADEChallengeData2016/annotations/training/ADE_train_00000002.png",
        b"no picture",
        "not what ade20k.*ADE_train_00000002.png",
    )
    yield "hypersim", "metadata_images_split_scene_v1.csv", b"scene,camera\n", "no column 'scene_name'"
    yield "taskonomy", "tiny_train.csv", b"building,point\n", "no column 'view'"
    yield "fluent_speech", "fluent_speech_commands_dataset/data/train_data.csv", b"path,act\n", "no column 'action'"


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [pytest.param(*case, id=f"{case[0]}-{number}") for number, case in enumerate(breakages())],
)
def test_a_broken_file_is_named(name: str, file: str, content: bytes, message: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "numpy"))
    MINIATURES[name](tmp_path)
    assert (tmp_path / file).is_file()
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        prepare(DATA_SETS[name], (tmp_path,), tmp_path / "out", max_rows=4)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("outside", ["../../secret.txt", "{folder}/secret.txt"])
def test_a_list_brings_in_no_file_from_outside_the_release(outside: str, tmp_path: Path) -> None:
    MINIATURES["dtd"](tmp_path / "raw")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "raw" / "dtd" / "labels" / "train1.txt").write_text(outside.format(folder=tmp_path) + "\n")
    with pytest.raises(ValueError, match="train1.txt lists .*, which lies outside the release"):
        prepare(DATA_SETS["dtd"], (tmp_path / "raw" / "dtd",), tmp_path / "out", partial=True)


def test_a_linked_folder_belongs_to_the_release(tmp_path: Path) -> None:
    MINIATURES["dtd"](tmp_path / "elsewhere")
    (tmp_path / "raw").mkdir()
    for name in ("labels", "images"):
        (tmp_path / "raw" / name).symlink_to(tmp_path / "elsewhere" / "dtd" / name)
    assert prepare(DATA_SETS["dtd"], (tmp_path / "raw",), tmp_path / "out").rows["test"]


def test_what_no_preparation_wrote_is_not_replaced(tmp_path: Path) -> None:
    MINIATURES["dtd"](tmp_path / "out" / "raw")
    with pytest.raises(FileExistsError, match="exists already"):
        prepare(DATA_SETS["dtd"], (tmp_path / "out" / "raw",), tmp_path / "out")
    prepare(DATA_SETS["dtd"], (tmp_path / "out" / "raw",), tmp_path / "written")
    (tmp_path / "written" / "model.bin").write_text("weights")
    with pytest.raises(FileExistsError, match=r"holds \['model.bin'\], which no preparation of dtd wrote"):
        prepare(DATA_SETS["dtd"], (tmp_path / "out" / "raw",), tmp_path / "written", overwrite=True)
    assert (tmp_path / "written" / "model.bin").read_text() == "weights"


def test_archives_of_one_release_may_lie_side_by_side(tmp_path: Path) -> None:
    MINIATURES["voxceleb1"](tmp_path / "raw")
    whole = prepare(DATA_SETS["voxceleb1"], (tmp_path / "raw",), tmp_path / "whole").rows
    wav = next((tmp_path / "raw").rglob("wav"))
    speakers = sorted(wav.iterdir())
    (tmp_path / "raw" / "second" / "wav").mkdir(parents=True)
    speakers[0].rename(tmp_path / "raw" / "second" / "wav" / speakers[0].name)
    assert prepare(DATA_SETS["voxceleb1"], (tmp_path / "raw",), tmp_path / "cut").rows == whole


def test_commands_are_quoted_for_a_shell(tmp_path: Path) -> None:
    MINIATURES["dtd"](tmp_path / "raw")
    prepared = prepare(DATA_SETS["dtd"], (tmp_path / "raw",), tmp_path / "my sets")
    for use, path in prepared.recipes:
        assert str(path) in shlex.split(" ".join(command_of(DATA_SETS["dtd"], use, path)))
        launch = next(line for line in path.read_text().splitlines() if line.startswith("# Launch:"))
        assert str(path.resolve()) in shlex.split(launch.partition(":")[2])


def test_downloads_are_encrypted() -> None:
    addresses = [address for record in DATA_SETS.values() for address in record.downloads]
    assert addresses and [address for address in addresses if not address.startswith("https://")] == []

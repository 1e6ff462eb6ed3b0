"""Releases in miniature: the files of each data set as its publishers lay them out, with few rows."""

import csv
import gzip
import io
import json
import struct
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat, wavfile

from hf_maskssl.preparing.molecules import TOX21
from hf_maskssl.preparing.pictures import CIFAR_CLASSES
from hf_maskssl.preparing.sensors import ACTIVITIES
from hf_maskssl.preparing.speech import LIBRISPEECH_PARTS
from hf_maskssl.preparing.taskonomy import DOMAINS

Counts = dict[str, int]
SIDE = 8


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def picture(path: Path, shade: int = 0, kind: str = "JPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIDE, SIDE + 2, 3), shade % 256, dtype=np.uint8)
    Image.fromarray(pixels).save(path, format=kind)


def sound(path: Path, rate: int = 16_000, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    wavfile.write(content, rate, np.random.default_rng(seed).integers(-999, 999, 2100).astype(np.int16))
    path.write_bytes(content.getvalue())  # also under the name of a FLAC file, which is read by its first bytes


def as_json(path: Path, content: object) -> None:
    text(path, json.dumps(content))


def pamap2(raw: Path) -> Counts:
    """Nine subjects, of one activity or two; what is missing is written NaN, and activity 0 is none."""
    random = np.random.default_rng(0)
    for subject in range(101, 110):
        steps, activities = 400, (ACTIVITIES[subject % 12], 0)
        values = random.normal(size=(2 * steps, 54)).round(3)
        values[:, 0] = np.arange(2 * steps) / 100
        values[:, 1] = np.repeat(activities, steps)
        lines = [" ".join("NaN" if row % 9 and place == 2 else f"{cell:g}" for place, cell in enumerate(cells))
                 for row, cells in enumerate(values)]  # fmt: skip
        text(raw / "PAMAP2_Dataset" / "Protocol" / f"subject{subject}.dat", "\n".join(lines) + "\n")
    return {"train": 12, "test": 12}


def higgs(raw: Path) -> Counts:
    numbers(raw / "HIGGS.csv.gz", 200, 28, ("0.000000000000000000e+00", "1.000000000000000000e+00"))
    return {"train": 162, "probe": 18, "test": 2}


def higgs_sma(raw: Path) -> Counts:
    numbers(raw / "HIGGS.csv.gz", 200, 28, ("0.000000000000000000e+00", "1.000000000000000000e+00"))
    return {"train": 180, "test": 20}


def year(raw: Path) -> Counts:
    numbers(raw / "YearPredictionMSD.txt", 100, 90, ("2001", "1987"))
    return {"train": 72, "valid": 18, "test": 10}


def numbers(path: Path, rows: int, features: int, labels: Sequence[str]) -> None:
    """A label and as many features as the row has a number of, so that each row is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        ",".join([labels[row % 2], *[f"{row + place / 1000:.3f}" for place in range(features)]]) for row in range(rows)
    ]
    opened = gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w")
    with opened as file:
        file.write("\n".join(lines) + "\n")


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(values: dict[str, bytes | int], packed: bool = True) -> bytes:
    """A `tf.train.Example`."""
    entries = b""
    for name, value in values.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        else:
            feature = field(3, field(1, varint(value)) if packed else varint(1 << 3) + varint(value))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def tfrecord(path: Path, rows: Sequence[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(struct.pack("<Q", len(row)) + b"crc1" + row + b"crc2" for row in rows))


def bases(seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 4, 250).tolist()


def released_bases(folder: Path, rows: int, first: int, classes: int) -> None:
    """Rows as the release has them, in two files and with an index file of another tool beside."""
    content = [
        example({"x": " ".join(map(str, bases(row))).encode(), "y": first + row % classes, "z": b"NC_1"}, row % 2 == 0)
        for row in range(rows)
    ]
    for part in range(2):
        tfrecord(folder / f"{folder.name}-0000{part}-of-00002.tfrecord", content[part::2])
    text(folder / f"{folder.name}-00000-of-00002.tfrecord.index", "0 10")


def genomics(raw: Path) -> Counts:
    released_bases(raw / "llr" / "before_2011_in_tr", 20, 0, 10)
    released_bases(raw / "llr" / "between_2011-2016_in_val", 30, 0, 10)
    return {"train": 18, "probe": 27, "test": 3}


def genomics_ood(raw: Path) -> Counts:
    """As TensorFlow Datasets writes them."""
    rows = [
        example(
            {"seq": "".join("ACGT"[base] for base in bases(row)).encode(), "label": 10 + row % 60, "domain": b"ood"}
        )
        for row in range(60)
    ]
    tfrecord(raw / "genomics_ood" / "1.0.0" / "genomics_ood-validation_ood.tfrecord-00000-of-00001", rows)
    return {"probe": 54, "test": 6}


def protein(row: int, length: int = 40) -> str:
    return "".join(np.random.default_rng(row).choice(list("ACDEFGHIKLMNPQRSTVWY"), length))


def pfam(raw: Path) -> Counts:
    """More validation rows than are probed on would be too many here: all are taken."""
    for name, rows in (("train", 10), ("valid", 20)):
        records = [
            {"primary": protein(row), "protein_length": 40, "clan": row % 5 - 1, "family": row} for row in range(rows)
        ]
        as_json(raw / "pfam" / f"pfam_{name}.json", records)
    return {"train": 10, "probe": 18, "test": 2}


def scop(raw: Path) -> Counts:
    for name, rows in (("train", 6), ("valid", 4), ("test_fold_holdout", 3), ("test_family_holdout", 2)):
        records = [{"primary": protein(row), "fold_label": row % 3} for row in range(rows)]
        as_json(raw / "remote_homology" / f"remote_homology_{name}.json", records)
    return {"train": 6, "valid": 4, "test": 3}


def secondary_structure(raw: Path) -> Counts:
    for name, rows in (("train", 6), ("valid", 4), ("cb513", 3)):
        records = []
        for row in range(rows):
            length = 130 if row == 1 else 30
            classes = np.random.default_rng(row).integers(0, 3, length).tolist()
            records.append(
                {"primary": protein(row, length), "ss3": classes, "valid_mask": [True] * (length - 1) + [False]}
            )
        as_json(raw / "secondary_structure" / f"secondary_structure_{name}.json", records)
    return {"train": 6, "valid": 4, "test": 3}


def regression(raw: Path, name: str, column: str) -> Counts:
    counts = {"train": 6, "valid": 4, "test": 3}
    for split, rows in counts.items():
        records = [{"primary": protein(row), column: [row / 4 + 0.25]} for row in range(rows)]
        as_json(raw / name / f"{name}_{split}.json", records)
    return counts


def librispeech(raw: Path) -> Counts:
    root = raw / "LibriSpeech"
    for number, part in enumerate(LIBRISPEECH_PARTS):
        sound(root / part / str(number) / "7" / f"{number}-7-0000.flac")
        text(root / part / str(number) / "7" / f"{number}-7.trans.txt", f"{number}-7-0000 A WORD")
    for speaker in (84, 1272):
        for take in range(5):
            sound(root / "dev-clean" / str(speaker) / "12" / f"{speaker}-12-{take:04}.flac", seed=take)
    return {"train": 3, "probe": 8, "test": 2}


def audio_mnist(raw: Path) -> Counts:
    for speaker in range(1, 61):
        sound(raw / "AudioMNIST" / "data" / f"{speaker:02}" / f"{speaker % 10}_{speaker:02}_0.wav", rate=48_000)
    return {"train": 48, "test": 12}


def fluent_speech(raw: Path) -> Counts:
    root, counts = raw / "fluent_speech_commands_dataset", {"train": 3, "valid": 2, "test": 2}
    for split, rows in counts.items():
        lines = [",path,speakerId,transcription,action,object,location"]
        for row in range(rows):
            path = f"wavs/speakers/s{row}/{split}{row}.wav"
            sound(root / path)
            lines.append(f'{row},{path},s{row},"Turn it up, now",{("increase", "bring")[row % 2]},none,none')
        text(root / "data" / f"{split}_data.csv", "\n".join(lines) + "\n")
    return {"train": 5, "test": 2}


def google_speech(raw: Path) -> Counts:
    for word in ("yes", "no", "_background_noise_"):
        for take in range(3):
            sound(raw / word / f"a{take}_nohash_0.wav")
    text(raw / "testing_list.txt", "yes/a0_nohash_0.wav\nno/a0_nohash_0.wav\n")
    text(raw / "validation_list.txt", "yes/a1_nohash_0.wav\n")
    return {"train": 7, "test": 2}


def voxceleb1(raw: Path) -> Counts:
    lines = [f"{part} id1000{speaker}/video/0000{part}.wav" for speaker in range(2) for part in (1, 2, 3)]
    for line in lines:
        sound(raw / "wav" / line[2:])
    text(raw / "iden_split.txt", "\n".join(lines) + "\n")
    return {"train": 4, "test": 2}


def eurosat(raw: Path) -> Counts:
    from tifffile import imwrite

    random = np.random.default_rng(0)
    for name in ("AnnualCrop", "Forest"):
        for row in range(50):
            path = raw / "ds" / "images" / name / f"{name}_{row + 1}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            imwrite(
                path,
                random.integers(0, 4000, (16, 16, 13)).astype(np.uint16),
                photometric="minisblack",
                planarconfig="contig",
            )
    return {"train": 81, "probe": 9, "test": 1}


def wafer_map(raw: Path) -> Counts:
    """A struct array of MATLAB 7.3: fields of references to cells of references to values; values lie column by column."""
    import h5py

    types = ["", "none", "Edge-Ring", "Loc"] * 5
    path = raw / "MIR-WM811K" / "MATLAB" / "WM811K.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        fields: dict[str, list[object]] = {"failureType": [], "waferMap": []}
        for row, kind in enumerate(types):
            value = file.create_dataset(
                f"#refs#/map{row}", data=random.integers(0, 3, (6 + row % 3, 5)).astype(np.uint8)
            )
            value.attrs["MATLAB_class"] = np.bytes_("uint8")
            name = file.create_dataset(
                f"#refs#/type{row}",
                data=np.array([[ord(letter)] for letter in kind], dtype=np.uint16)
                if kind
                else np.zeros(2, dtype=np.uint64),
            )
            name.attrs["MATLAB_class"] = np.bytes_("char" if kind else "double")
            if not kind:
                name.attrs["MATLAB_empty"] = 1
            for field_name, leaf in (("failureType", name), ("waferMap", value)):
                cell = file.create_dataset(
                    f"#refs#/cell{field_name}{row}", data=np.array([[leaf.ref]], dtype=h5py.ref_dtype)
                )
                fields[field_name].append(cell.ref)
        for field_name, references in fields.items():
            file.create_dataset(f"data/{field_name}", data=np.array([references], dtype=h5py.ref_dtype))
    return {"train": 5, "probe": 14, "test": 1}


def imagenet32(raw: Path) -> Counts:
    random = np.random.default_rng(0)
    for name, rows in (("train_data_batch_1", 3), ("train_data_batch_2", 2), ("val_data", 2)):
        pixels = random.integers(0, 256, (rows, 3072)).astype(np.uint8)
        raw.mkdir(parents=True, exist_ok=True)
        np.savez(raw / f"{name}.npz", data=pixels, labels=np.arange(1, rows + 1), mean=np.zeros(3072))
    return {"train": 5, "validation": 2}


def cifar10(raw: Path) -> Counts:
    folder = raw / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]):
        rows = np.random.default_rng(number).integers(0, 256, (2, 3073)).astype(np.uint8)
        rows[:, 0] = (number, 9 - number)
        (folder / name).write_bytes(rows.tobytes())
    text(folder / "batches.meta.txt", "\n".join(CIFAR_CLASSES))
    return {"train": 10, "test": 2}


def cub(raw: Path) -> Counts:
    root = raw / "CUB_200_2011"
    names = [f"00{row % 2 + 1}.Bird_{row % 2}/Bird_{row}.jpg" for row in range(6)]
    for row, name in enumerate(names):
        picture(root / "images" / name, 20 * row)
    text(root / "images.txt", "".join(f"{row + 1} {name}\n" for row, name in enumerate(names)))
    text(root / "image_class_labels.txt", "".join(f"{row + 1} {row % 2 + 1}\n" for row in range(6)))
    text(root / "train_test_split.txt", "".join(f"{row + 1} {int(row < 4)}\n" for row in range(6)))
    return {"train": 4, "test": 2}


def vgg_flowers(raw: Path) -> Counts:
    labels = [2, 1, 2, 1, 2, 1, 2, 1, 2, 1]
    for row in range(10):
        picture(raw / "jpg" / f"image_{row + 1:05d}.jpg", 20 * row)
    savemat(raw / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    return {"train": 8, "test": 2}


def dtd(raw: Path) -> Counts:
    for name in ("train1", "val1", "test1"):
        lines = [f"{kind}/{kind}_{name}.jpg" for kind in ("banded", "woven")]
        for line in lines:
            picture(raw / "dtd" / "images" / line)
        text(raw / "dtd" / "labels" / f"{name}.txt", "\n".join(lines) + "\n")
    return {"train": 4, "test": 2}


def traffic_sign(raw: Path) -> Counts:
    folder = raw / "GTSRB" / "Final_Training" / "Images"
    for sign in range(2):
        for row in range(5):
            picture(folder / f"{sign:05}" / f"00000_{row:05}.ppm", 40 * row, "PPM")
        text(folder / f"{sign:05}" / f"GT-{sign:05}.csv", "Filename;Width;Height\n")
    return {"train": 8, "test": 2}


def aircraft(raw: Path) -> Counts:
    root = raw / "fgvc-aircraft-2013b" / "data"
    rows = {"trainval": ("0034309", "0034958"), "test": ("0037511",)}
    for split, names in rows.items():
        for name in names:
            picture(root / "images" / f"{name}.jpg", 90)
        text(root / f"images_variant_{split}.txt", "".join(f"{name} Boeing 707-320\n" for name in names))
    names = [name for part in rows.values() for name in part]
    text(root / "images_box.txt", "".join(f"{name} 2 3 6 8\n" for name in names))
    return {"train": 2, "test": 1}


def mscoco(raw: Path) -> Counts:
    """Of every part one picture has no marked thing, and each has two captions."""
    for part in ("train2017", "val2017"):
        images = range(1, 10)
        for image in images:
            picture(raw / part / f"{image:012d}.jpg", 20 * image)
        captions = [
            {"image_id": image, "caption": f"{word} {image}"} for word in ("first", "last") for image in images
        ]
        marked = [{"image_id": image, "category_id": 7 if image % 2 else 90} for image in images if image != 9]
        as_json(raw / "annotations" / f"captions_{part}.json", {"annotations": captions})
        content = {"categories": [{"id": 7}, {"id": 90}], "annotations": marked}
        as_json(raw / "annotations" / f"instances_{part}.json", content)
    return {"train": 8, "test": 8}


def vqa(raw: Path) -> Counts:
    """One answer of each part is no choice."""
    for part in ("train2014", "val2014"):
        questions, answers = [], []
        for row in range(8):
            picture(raw / part / f"COCO_{part}_{row // 2:012d}.jpg", 20 * row)
            choices = ["yes", "no", "red"]
            questions.append(
                {"question_id": row, "image_id": row // 2, "question": "Is it?", "multiple_choices": choices}
            )
            answer = "blue" if row == 7 else "yes"
            answers.append({"question_id": row, "image_id": row // 2, "multiple_choice_answer": answer})
        as_json(raw / f"MultipleChoice_mscoco_{part}_questions.json", {"questions": questions})
        as_json(raw / f"mscoco_{part}_annotations.json", {"annotations": answers})
    return {"train": 7, "test": 7}


WNIDS = ("n01440764", "n01443537")


def tarred(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def jpeg(shade: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE + 2, 3), shade, dtype=np.uint8)).save(content, format="JPEG")
    return content.getvalue()


def imagenet_tars(raw: Path) -> Counts:
    """A tar of class tars, validation pictures without a class, and the kit, which numbers classes in another order."""
    classes = {}
    for number, wnid in enumerate(WNIDS):
        tarred(raw / "class.tar", {f"{wnid}_{row}.JPEG": jpeg(90 * number + row) for row in range(3 - number)})
        classes[f"{wnid}.tar"] = (raw / "class.tar").read_bytes()
    (raw / "class.tar").unlink()
    tarred(raw / "ILSVRC2012_img_train.tar", classes)
    tarred(raw / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_{row:08d}.JPEG": jpeg(200 + row) for row in (1, 2, 3)})
    development_kit(raw)
    return {"train": 5, "val": 3}


def development_kit(raw: Path) -> None:
    kit = raw / "ILSVRC2012_devkit_t12" / "data"
    text(kit / "ILSVRC2012_validation_ground_truth.txt", "1\n2\n1\n")
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    synsets = np.array([(1, WNIDS[1], 0), (2, WNIDS[0], 0), (1001, "n00001740", 2)], dtype=fields)
    savemat(kit / "meta.mat", {"synsets": synsets.reshape(-1, 1)})


def imagenet100(raw: Path) -> Counts:
    """Folders, as everyone unpacks them; the second class alone is listed."""
    for number, wnid in enumerate(WNIDS):
        for row in range(2):
            picture(raw / "train" / wnid / f"{wnid}_{row}.JPEG", 90 * number + row)
        picture(raw / "val" / wnid / f"ILSVRC2012_val_0000000{number}.JPEG", 200)
    text(raw / "imagenet100.txt", f"{WNIDS[1]}\n")
    return {"train": 2, "validation": 1}


def imagenets50(raw: Path) -> Counts:
    """Links to another copy, as LUSS's script makes them."""
    for part, rows in (("train", 2), ("validation", 1)):
        for wnid in WNIDS:
            for row in range(rows):
                picture(raw.parent / "elsewhere" / f"{wnid}_{row}.JPEG", 30 * row)
                link = raw / "imagenet-s" / "ImageNetS50" / part / wnid / f"{wnid}_{row}.JPEG"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(raw.parent / "elsewhere" / f"{wnid}_{row}.JPEG")
    return {"train": 4, "val": 2}


NYU_SIZE = (6, 8)


def nyu_frame(row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours, depth and labels of a frame as they are seen."""
    random = np.random.default_rng(row)
    depth = random.uniform(0.5, 9.9, NYU_SIZE).astype(np.float32)
    return random.integers(0, 256, (*NYU_SIZE, 3)).astype(np.uint8), depth, random.integers(0, 895, NYU_SIZE)


def nyuv2(raw: Path) -> Counts:
    """MATLAB 7.3, whose axes are turned round in HDF5, beside MATLAB 5."""
    import h5py

    raw.mkdir(parents=True, exist_ok=True)
    frames = [nyu_frame(row) for row in range(5)]
    with h5py.File(raw / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack([colours.transpose(2, 1, 0) for colours, _, _ in frames])
        file["depths"] = np.stack([depth.T for _, depth, _ in frames])
        file["labels"] = np.stack([labels.T for _, _, labels in frames]).astype(np.uint16)
    savemat(raw / "splits.mat", {"trainNdxs": np.array([[1], [3], [5]]), "testNdxs": np.array([[2], [4]])})
    names = np.array([f"class {number}" for number in range(40)], dtype=object)[None]
    classes = (1 + np.arange(894) % 40).astype(np.uint8)[None]
    savemat(raw / "classMapping40.mat", {"mapClass": classes, "className": names})
    return {"train": 3, "test": 2}


def ade20k(raw: Path) -> Counts:
    counts = {"training": 3, "validation": 2}
    for part, rows in counts.items():
        for row in range(rows):
            name = f"ADE_{part[:5]}_{row + 1:08d}"
            picture(raw / "ADEChallengeData2016" / "images" / part / f"{name}.jpg", 40 * row)
            path = raw / "ADEChallengeData2016" / "annotations" / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.arange(SIDE * (SIDE + 2)).reshape(SIDE, SIDE + 2).astype(np.uint8) + 70 * (row % 2)
            Image.fromarray(values).save(path)
    return {"train": 3, "val": 2}


def hypersim(raw: Path) -> Counts:
    """Two scenes, the second without radiance; a third is in the list and was not released."""
    import h5py

    random = np.random.default_rng(0)
    lines = ["scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"]
    for scene, split, frames in (("ai_001_001", "train", 3), ("ai_002_001", "val", 1), ("ai_003_001", "test", 1)):
        for frame in range(frames):
            lines.append(f"{scene},cam_00,{frame},True,,{split}")
            images = raw / "scenes" / scene / "images"
            arrays: dict[str, np.ndarray] = {
                "geometry_hdf5/frame.{}.depth_meters.hdf5": random.uniform(1, 5, (6, 8)).astype(np.float16),
                "geometry_hdf5/frame.{}.semantic.hdf5": random.choice([-1, 1, 2, 40], (6, 8)).astype(np.int16),
            }
            if split == "train":
                arrays["geometry_hdf5/frame.{}.render_entity_id.hdf5"] = np.full((6, 8), 7, dtype=np.int32)
                arrays["final_hdf5/frame.{}.color.hdf5"] = random.uniform(0, 3, (6, 8, 3)).astype(np.float16)
            else:
                picture(images / "scene_cam_00_final_preview" / f"frame.{frame:04d}.tonemap.jpg", 80)
            for name, values in arrays.items():
                path = images / f"scene_cam_00_{name.format(f'{frame:04d}')}"
                path.parent.mkdir(parents=True, exist_ok=True)
                with h5py.File(path, "w") as file:
                    file["dataset"] = values
    lines.append("ai_001_001,cam_00,3,False,People,")
    text(raw / "metadata_images_split_scene_v1.csv", "\n".join(lines) + "\n")
    return {"train": 3, "val": 1, "test": 1}


def taskonomy(raw: Path) -> Counts:
    counts = {"train": 3, "val": 2, "test": 2}
    for split, rows in counts.items():
        building = f"{split}ville"
        lines = [f"{building},{row},{row % 2}" for row in range(rows)]
        text(raw / f"tiny_{split}.csv", "\n".join(["building,point,view", *lines]) + "\n")
        for row in range(rows):
            for domain in DOMAINS:
                in_bytes = domain in ("rgb", "normal", "principal_curvature", "reshading")
                pixels = (
                    np.full((SIDE, SIDE, 3), 40 + row, np.uint8)
                    if in_bytes
                    else np.full((SIDE, SIDE), 900 + row, np.uint16)
                )
                path = raw / domain / building / f"point_{row}_view_{row % 2}_domain_{domain}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return counts


def molecules(raw: Path, name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Counts:
    content = io.StringIO()
    csv.writer(content).writerows([header, *rows])
    raw.mkdir(parents=True, exist_ok=True)
    if name.endswith(".gz"):
        (raw / name).write_bytes(gzip.compress(content.getvalue().encode()))
    else:
        (raw / name).write_text(content.getvalue(), encoding="utf-8")
    return {"train": len(rows)}


def tox21(raw: Path) -> Counts:
    rows = [
        [
            *("" if (row + place) % 5 == 0 else str((row + place) % 2) for place in range(12)),
            f"TOX{row}",
            "CC" * (row + 1),
        ]
        for row in range(6)
    ]
    return molecules(raw, "tox21.csv.gz", [*TOX21, "mol_id", "smiles"], rows)


SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN"]
MEASURED = ["0.5", "-1.25", "2", "0"]
CLASSES = ["1", "0", "1", "0"]


def simple(name: str, header: Sequence[str], labels: Sequence[str]) -> Callable[[Path], Counts]:
    """A table with the columns of the header; "smiles" or "mol" holds SMILES, the first other one the label."""

    def write(raw: Path) -> Counts:
        label = next(column for column in header if column not in ("smiles", "mol", "name", "iupac"))
        rows = [
            [smiles if column in ("smiles", "mol") else value if column == label else "x" for column in header]
            for smiles, value in zip(SMILES, labels, strict=True)
        ]
        return molecules(raw, name, header, rows)

    return write


MINIATURES: dict[str, Callable[[Path], Counts]] = {
    **{one.__name__: one for one in (pamap2, higgs, higgs_sma, year, genomics, genomics_ood, pfam, scop, tox21)},
    **{one.__name__: one for one in (secondary_structure, librispeech, audio_mnist, fluent_speech, google_speech)},
    **{one.__name__: one for one in (voxceleb1, eurosat, wafer_map, imagenet32, cifar10, cub, vgg_flowers, dtd)},
    **{one.__name__: one for one in (traffic_sign, aircraft, mscoco, vqa, imagenet100, imagenets50, nyuv2, ade20k)},
    **{one.__name__: one for one in (hypersim, taskonomy)},
    "imagenet1k": imagenet_tars,
    "mismatched_caption": mscoco,
    "stability": lambda raw: regression(raw, "stability", "stability_score"),
    "fluorescence": lambda raw: regression(raw, "fluorescence", "log_fluorescence"),
    "bbbp": simple("BBBP.csv", ("name", "p_np", "smiles"), CLASSES),
    "bace": simple("bace.csv", ("mol", "Class", "Model"), CLASSES),
    "hiv": simple("HIV.csv", ("smiles", "HIV_active", "activity"), CLASSES),
    "esol": simple("delaney-processed.csv", ("measured log solubility in mols per litre", "smiles"), MEASURED),
    "freesolv": simple("SAMPL.csv", ("iupac", "smiles", "expt", "calc"), MEASURED),
    "lipo": simple("Lipophilicity.csv", ("exp", "smiles"), MEASURED),
}

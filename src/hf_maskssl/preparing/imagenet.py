"""ImageNet-1K, and the two parts of it that the papers use: ImageNet-100 and ImageNetS-50.

ILSVRC 2012 comes as ILSVRC2012_img_train.tar, a tar of one tar a class, as ILSVRC2012_img_val.tar, and as the development kit
with the classes of the validation pictures; Kaggle's copy has them unpacked, with the classes in LOC_val_solution.csv. Folders
are read before tars.
"""

import csv
import re
import tarfile
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..extras import missing_extra
from .raw import Media, RawFolder, wanted_columns
from .record import Rows

CLASS = re.compile(r"n\d{8}")
ENDINGS = (".JPEG", ".jpeg", ".jpg", ".png")
TRAIN_TAR, VALIDATION_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
KIT, TRUTH, KAGGLE = "meta.mat", "ILSVRC2012_validation_ground_truth.txt", "LOC_val_solution.csv"
FIRST_CLASSES = 1000  # the first entries of the kit's list are the leaves, in the order of their numbers


class Picture(NamedTuple):
    """A picture, its class (WordNet's number, "n01440764") and its name without ending."""

    wnid: str
    name: str
    content: Media | bytes


def imagenet1k(raw: RawFolder) -> Iterator[Rows]:
    """All pictures, as the modality rgb."""
    # Both are looked for before the first is written.
    for split, pictures in (("train", _training(raw)), ("val", _validation(raw))):
        for picture in islice(pictures, raw.max_rows):
            yield Rows(split, _aligned(picture))


def imagenet100(raw: RawFolder) -> Iterator[Rows]:
    """The pictures of the classes that imagenet100.txt lists, one a line."""
    path = raw.find("imagenet100.txt")
    wanted = path.read_text(encoding="utf-8").split()
    wrong = [word for word in wanted if not CLASS.fullmatch(word)]
    if wrong or not wanted:
        raise ValueError(f"expected a class a line, such as n01440764, got {wrong[:1] or 'none'}")
    for split, pictures in (("train", _training(raw, wanted)), ("validation", _validation(raw, wanted))):
        for picture in islice(pictures, raw.max_rows):
            yield Rows(split, {"image": picture.content, "label": picture.wnid})


def imagenets50(raw: RawFolder) -> Iterator[Rows]:
    """The folders that LUSS's data_preparation.sh makes, of links or of copies."""
    base = raw.base("ImageNetS50/train") / "ImageNetS50"
    for split, folder in (("train", "train"), ("val", "validation")):
        for picture in islice(_of_folders(raw, base / folder), raw.max_rows):
            yield Rows(split, _aligned(picture))


def _aligned(picture: Picture) -> dict[str, object]:
    return {"name": f"{picture.wnid}/{picture.name}", "rgb": picture.content, "label": picture.wnid}


def _training(raw: RawFolder, wanted: Collection[str] | None = None) -> Iterator[Picture]:
    """Pictures in class folders, or in the tar of class tars; they are found at once, and read when they are asked for.

    Raises:
        FileNotFoundError: Neither is there.
    """
    folder = next(filter(_has_classes, raw.places("train")), None)
    if folder is not None:
        return _of_folders(raw, folder, wanted)
    return _of_class_tars(raw, raw.find(TRAIN_TAR, "train"), wanted)


def _of_class_tars(raw: RawFolder, path: Path, wanted: Collection[str] | None) -> Iterator[Picture]:
    raw.current = path
    with tarfile.open(path) as classes:
        for member in classes:
            wnid = Path(member.name).stem
            if not member.isfile() or (wanted is not None and wnid not in wanted):
                continue
            if not CLASS.fullmatch(wnid) or not member.name.endswith(".tar"):
                raise ValueError(f"expected a tar for each class, such as n01440764.tar, got {member.name!r}")
            with tarfile.open(fileobj=classes.extractfile(member)) as pictures:
                for name, content in _of_tar(pictures):
                    yield Picture(wnid, name, content)


def _validation(raw: RawFolder, wanted: Collection[str] | None = None) -> Iterator[Picture]:
    """Pictures in class folders, or side by side in a folder or a tar beside the list of their classes; found at once.

    Raises:
        FileNotFoundError: There are no pictures, or no list of their classes.
    """
    folder = next((path for path in raw.places("val") if _has_classes(path) or _has_pictures(path)), None)
    if folder is not None and _has_classes(folder):
        return _of_folders(raw, folder, wanted)
    place = raw.find(VALIDATION_TAR, "val") if folder is None else folder
    return _side_by_side(raw, place, _validation_classes(raw), wanted)


def _side_by_side(
    raw: RawFolder, place: Path, classes: dict[str, str], wanted: Collection[str] | None
) -> Iterator[Picture]:
    raw.current = place
    if place.is_dir():
        for path in sorted(place.iterdir()):
            if path.suffix in ENDINGS and _is_wanted(wnid := _class_of(classes, path.stem), wanted):
                yield Picture(wnid, path.stem, Media(path))
        return
    with tarfile.open(place) as pictures:
        for name, content in _of_tar(pictures):
            if _is_wanted(wnid := _class_of(classes, name), wanted):
                yield Picture(wnid, name, content)


def _class_folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if CLASS.fullmatch(path.name) and path.is_dir())


def _has_classes(folder: Path) -> bool:
    """Whether there are class folders with pictures: Kaggle's boxes lie in class folders, too."""
    return any(map(_has_pictures, _class_folders(folder)))


def _has_pictures(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix in ENDINGS for path in folder.iterdir())


def _of_folders(raw: RawFolder, folder: Path, wanted: Collection[str] | None = None) -> Iterator[Picture]:
    raw.current = folder
    for one in sorted(_class_folders(folder)):
        if _is_wanted(one.name, wanted):
            for path in sorted(one.iterdir()):
                if path.suffix in ENDINGS:
                    yield Picture(one.name, path.stem, Media(path))


def _of_tar(pictures: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Name without ending and content of each picture."""
    for member in pictures:
        path = Path(member.name)
        if path.suffix in ENDINGS and (opened := pictures.extractfile(member)) is not None:
            yield path.stem, opened.read()


def _is_wanted(wnid: str, wanted: Collection[str] | None) -> bool:
    return wanted is None or wnid in wanted


def _class_of(classes: dict[str, str], name: str) -> str:
    if name not in classes:
        raise ValueError(f"the picture {name!r} has no class in {TRUTH} or {KAGGLE}")
    return classes[name]


def _validation_classes(raw: RawFolder) -> dict[str, str]:
    """Name of a validation picture -> its class.

    The kit's list of 1,860 synsets begins with the 1,000 classes, by their number ILSVRC2012_ID, which is what the truth names, a
    line a picture.
    """
    truth = raw.find(TRUTH, KAGGLE)
    if truth.name == KAGGLE:
        with truth.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            wanted_columns(truth, rows.fieldnames or (), ("ImageId", "PredictionString"))
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    numbers = [int(line) for line in truth.read_text(encoding="utf-8").split()]
    kit = raw.find(f"data/{KIT}", KIT)
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise missing_extra(f"Reading {KIT}", "prepare", error) from error
    synsets = loadmat(kit, squeeze_me=True)["synsets"]
    classes = {int(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in synsets}
    raw.current = truth
    wrong = [number for number in numbers if not 1 <= number <= FIRST_CLASSES or number not in classes]
    if wrong:
        raise ValueError(f"expected numbers of classes from 1 to {FIRST_CLASSES:,}, got {wrong[0]}")
    return {f"ILSVRC2012_val_{place:08d}": classes[number] for place, number in enumerate(numbers, 1)}

"""Speech: LibriSpeech, Audio MNIST, Fluent Speech Commands, Google Speech Commands and VoxCeleb1."""

import csv
from collections.abc import Iterator

from .cuts import cut_by_group
from .raw import Media, RawFolder, wanted_columns
from .record import Rows

LIBRISPEECH_PARTS = ("train-clean-100", "train-clean-360", "train-other-500")
# Test speakers of Audio MNIST's first cut, which DABS takes; the others train.
AUDIO_MNIST_TEST = (26, 52, 60, 18, 32, 42, 5, 13, 22, 33, 45, 51)
AUDIO_MNIST_SPEAKERS = 60
FLUENT_LABELS = ("action", "object", "location")


def librispeech(raw: RawFolder) -> Iterator[Rows]:
    """960 hours to pre-train on; dev-clean to probe who speaks, DABS's cut: 80 / 20 of each speaker."""
    files = sorted(raw.every("dev-clean/*/*/*.flac"), key=lambda path: path.stem)
    speakers = [int(file.stem.partition("-")[0]) for file in files]
    order = sorted(range(len(files)), key=lambda row: speakers[row])
    splits = cut_by_group([speakers[row] for row in order], ("probe", "test"))
    yield from (
        Rows("train", {"audio": Media(file), "speaker_id": int(file.stem.partition("-")[0])})
        for part in LIBRISPEECH_PARTS
        for file in raw.every(f"{part}/*/*/*.flac")
    )
    for row, split in zip(order, splits, strict=True):
        yield Rows(split, {"audio": Media(files[row]), "speaker_id": speakers[row]})


def audio_mnist(raw: RawFolder) -> Iterator[Rows]:
    """Spoken digits of 60 speakers: 12 are the test."""
    for speaker in range(1, AUDIO_MNIST_SPEAKERS + 1):
        split = "test" if speaker in AUDIO_MNIST_TEST else "train"
        for file in raw.every(f"{speaker:02}/*_{speaker:02}_*.wav"):
            yield Rows(split, {"audio": Media(file), "label": int(file.name[0]), "speaker": speaker})


def fluent_speech(raw: RawFolder) -> Iterator[Rows]:
    """Commands to a house: action, object and location. The release's validation part trains as well."""
    base = raw.base("data/train_data.csv")
    for split, names in (("train", ("train", "valid")), ("test", ("test",))):
        for name in names:
            path = raw.find(f"data/{name}_data.csv")
            with path.open(encoding="utf-8", newline="") as lines:
                table = csv.DictReader(lines)
                wanted_columns(path, table.fieldnames or (), ("path", *FLUENT_LABELS))
                for row in table:
                    if (file := raw.listed(base / row["path"], path)) is not None:
                        yield Rows(split, {"audio": file, **{label: row[label] for label in FLUENT_LABELS}})


def google_speech(raw: RawFolder) -> Iterator[Rows]:
    """35 words, and the six recordings of noise as a class; what testing_list.txt does not name trains."""
    path = raw.find("testing_list.txt")
    base, tested = path.parent, dict.fromkeys(path.read_text(encoding="utf-8").split())
    for file in sorted(base.glob("*/*.wav")):
        name = file.relative_to(base).as_posix()
        if name not in tested:
            yield Rows("train", {"audio": Media(file), "label": file.parent.name})
    raw.current = path
    for name in tested:
        if (found := raw.listed(base / name, path)) is not None:
            yield Rows("test", {"audio": found, "label": name.partition("/")[0]})


def voxceleb1(raw: RawFolder) -> Iterator[Rows]:
    """1,251 speakers; parts 1 and 2 of iden_split.txt train, part 3 is the test."""
    path = raw.find("iden_split.txt")
    folders = raw.find_all("wav")  # one of each archive, or one of both
    raw.current = path
    for line in path.read_text(encoding="utf-8").splitlines():
        part, _, name = line.strip().partition(" ")
        folder = next((one for one in folders if (one / name).is_file()), folders[0])
        if name and (file := raw.listed(folder / name, path)) is not None:
            split = {"1": "train", "2": "train", "3": "test"}[part]
            yield Rows(split, {"audio": file, "label": name.partition("/")[0]})

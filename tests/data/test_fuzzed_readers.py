"""Thousands of damaged files: every reader gives a value, or a ValueError that names the file."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_maskssl.annotation.picture_files import open_picture
from hf_maskssl.data.multimodal.classes import ids_of_map
from hf_maskssl.data.tables.pictures import picture_header, read_image, read_map
from hf_maskssl.data.tables.raw_files import encoded
from hf_maskssl.data.tables.sounds import read_waveform
from hf_maskssl.models.image_processing_array import ArrayImageProcessor

pytestmark = pytest.mark.slow

SEED = 13
DAMAGED = 120  # copies of every file
FORMATS = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "jpg": ["L", "RGB", "CMYK"],
    "tif": ["1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"],
    "webp": ["RGB", "RGBA"],
    "bmp": ["1", "L", "P", "RGB"],
    "gif": ["L", "P"],
    "ppm": ["L", "RGB"],
    "tga": ["L", "RGB"],
    "ico": ["RGBA"],
    "pcx": ["L", "RGB"],
    "sgi": ["L", "RGB"],
    "jp2": ["L", "RGB"],
    "dds": ["RGB"],
    "icns": ["RGBA"],
    "im": ["L", "I;16"],
    "xbm": ["1"],
    "avif": ["RGB"],
}


def picture_of(mode: str) -> Image.Image:
    generator = np.random.default_rng(SEED)
    if mode == "I;16":
        return Image.fromarray(generator.integers(0, 65536, (32, 32)).astype(np.uint16))
    colours = Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    if mode == "LAB":
        return Image.frombytes("LAB", (32, 32), colours.tobytes())
    return colours.convert("L").convert(mode) if mode in ("I", "F", "1") else colours.convert(mode)


def pictures() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    found = {}
    for ending, modes in FORMATS.items():
        for mode in modes:
            buffer = io.BytesIO()
            try:
                with_exif = {"exif": exif} if ending in ("png", "jpg", "webp", "tif") else {}
                options = {"sizes": [(32, 32)]} if ending in ("ico", "icns") else {}
                picture_of(mode).save(buffer, Image.registered_extensions()[f".{ending}"], **with_exif, **options)
            except (OSError, KeyError, ValueError, SystemError):  # this Pillow cannot write it
                continue
            found[f"{mode.replace(';', '')}.{ending}"] = buffer.getvalue()
    assert len(found) > 25
    return found


def arrays() -> dict[str, bytes]:
    found = {}
    for dtype in (">u2", "u1", "f4", "i8", "c8", "U3", "M8[s]", "V3", "?"):
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((8, 8), dtype))
        found[f"{np.dtype(dtype).name}.npy"] = buffer.getvalue()
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(3), b=np.zeros(4))
    return {**found, "archive.npy": archive.getvalue()}


def sounds() -> dict[str, bytes]:
    from scipy.io import wavfile

    generator = np.random.default_rng(SEED)
    found = {}
    for dtype in ("u1", "i2", "i4", "f4", "f8"):
        for channels in (1, 2):
            values = generator.uniform(0, 100, (300, channels)).astype(dtype)
            buffer = io.BytesIO()
            wavfile.write(buffer, 8000, values)
            found[f"{dtype}{channels}.wav"] = buffer.getvalue()
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 0xFFFE, 1, 8000, 16000, 2, 16)
    found["extensible.wav"] = b"RIFF" + struct.pack("<I", 4 + len(form)) + b"WAVE" + form
    return {**found, "f.flac": b"fLaC" + generator.bytes(200), "id3.mp3": b"ID3" + generator.bytes(200)}


def damage(content: bytes, generator: np.random.Generator) -> bytes:
    """Cut, with flipped bytes, with a part doubled or left out, or with a number at its limit."""
    changed = bytearray(content)
    kind = int(generator.integers(5))
    start = int(generator.integers(len(changed)))
    # The beginning decides most: half of all changes fall there.
    start = start % min(len(changed), 64) if generator.random() < 0.5 else start
    length = int(generator.integers(1, 9))
    if kind == 0:
        return bytes(changed[:start])
    if kind == 1:
        for place in generator.integers(0, len(changed), length):
            changed[place] ^= 1 << int(generator.integers(8))
    elif kind == 2:
        changed[start : start + length] = generator.bytes(length)
    elif kind == 3:
        changed[start : start + length] = bytes(changed[start : start + length]) * 2 if length % 2 else b""
    else:
        changed[start : start + 4] = [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"][length % 3]
    return bytes(changed)


def picture_used(value: object) -> None:
    picture = read_image(value)
    ArrayImageProcessor(3, 8)(picture)


def map_used(value: object) -> None:
    ids_of_map(read_map(value))


def header_used(value: object) -> None:
    file = encoded(value, "picture")
    assert file is not None
    picture_header(file)


def picture_labelled(value: object) -> None:
    open_picture(value, max_side=16)


def sound_used(value: object) -> None:
    read_waveform(value, 8000, 4000)


PICTURES = [picture_used, map_used, header_used, picture_labelled]


@pytest.mark.parametrize(
    ("files", "readers"),
    [(pictures, PICTURES), (arrays, [map_used]), (sounds, [sound_used])],
    ids=["pictures", "arrays", "sounds"],
)
def test_damaged_files_are_read_or_named(
    files: Callable[[], dict[str, bytes]], readers: list[Callable[[object], None]], tmp_path: Path
) -> None:
    """Endings are swapped as well: a fifth of the files have that of another one."""
    generator = np.random.default_rng(SEED)
    contents = files()
    endings = sorted({Path(name).suffix for name in contents} | {".png", ".npy", ".wav"})
    counts = {"read": 0, "refused": 0}
    wrong = []
    for name, whole in contents.items():
        for number in range(DAMAGED):
            ending = str(generator.choice(endings)) if number % 5 == 0 else Path(name).suffix
            path = tmp_path / f"{Path(name).stem}-{number}{ending}"
            path.write_bytes(damage(whole, generator) if number else whole)
            for reader in readers:
                for value in (str(path), {"bytes": path.read_bytes(), "path": str(path)}):
                    try:
                        reader(value)
                        counts["read"] += 1
                    except ValueError as error:
                        counts["refused"] += 1
                        # What a picture is taken for comes after it was read: its row names the file then.
                        is_use = reader in (picture_used, map_used, picture_labelled) and "expected" in str(error)
                        if path.name not in str(error) and not is_use:
                            wrong.append(f"{reader.__name__} {path.name}: unnamed: {error!s:.200}")
                    except Exception as error:
                        wrong.append(f"{reader.__name__} {path.name}: {type(error).__name__}: {error!s:.200}")
            path.unlink()
    print(counts)
    assert not wrong, f"{len(wrong)} of {sum(counts.values())}:\n" + "\n".join(wrong[:30])
    assert min(counts.values()) > 50

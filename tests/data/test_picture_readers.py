"""Pictures as files: errors of every decoder, orientation and depth alike in training and in use, tables of paths."""

import io
import logging
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
from data_configs import image_config, token_config
from PIL import Image, ImageFile
from transformers import AutoImageProcessor

from hf_maskssl.annotation.picture_files import open_picture as picture_to_label
from hf_maskssl.data import PreparedData, data_arguments, prepare_data
from hf_maskssl.data.tables.pictures import read_image, read_map
from hf_maskssl.data.tables.raw_files import UNREADABLE
from hf_maskssl.data.tables.sources import chosen_numbers
from hf_maskssl.models.image_processing_array import ORIENTATION_TAG, ArrayImageProcessor, converted
from hf_maskssl.models.image_processing_multimae import MultiMAEImageProcessor

SCALE = {"scale": 1 / 255, "standardize": "none"}


def greys(seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (20, 20)).astype(dtype)


def colours(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)


def write_folder(root: Path, **pictures: Any) -> Path:
    """`a/NAME.png` of every picture; bytes are written as they are."""
    (root / "a").mkdir(parents=True)
    for name, picture in pictures.items():
        path = root / "a" / f"{name}.png"
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path)
    return root


def prepared(root: Path, channels: int, **fields: Any) -> PreparedData:
    args = data_arguments("imagefolder", data_dir=str(root), kind="image", input_column="image", **fields)
    return prepare_data(args, image_config(channels, 8, 8))


def png_with(chunk: bytes) -> bytes:
    """A whole PNG whose EXIF data is broken."""
    buffer = io.BytesIO()
    Image.fromarray(greys()).save(buffer, "PNG", exif=b"Exif\x00\x00" + chunk)
    return buffer.getvalue()


BROKEN = {
    "empty": b"",
    "text": b"no picture",
    "cut": png_with(b"II*\x00\x08\x00\x00\x00\x00\x00")[:90],
    "exif": png_with(b"nothing of a TIFF"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("read", [read_image, read_map, picture_to_label])
def test_every_reader_names_a_broken_file(tmp_path: Path, name: str, read: Callable[[object], Any]) -> None:
    path = tmp_path / f"{name}.png"
    path.write_bytes(BROKEN[name])
    for value in (str(path), {"path": str(path), "bytes": None}, {"path": str(path), "bytes": BROKEN[name]}):
        with pytest.raises(
            ValueError, match=rf"unreadable (image|picture) .*{name}\.png.*; replace the file, or take"
        ):
            read(value)


@pytest.mark.parametrize("raised", UNREADABLE, ids=lambda error: error.__name__)
def test_whatever_pillow_raises_becomes_an_error_that_names_row_and_file(
    tmp_path: Path, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(tmp_path, good=colours(), zeta=colours(1))
    load = ImageFile.ImageFile.load

    def broken(self: ImageFile.ImageFile) -> Any:
        if "zeta" in str(vars(self).get("fp")):
            raise raised.__new__(raised)
        return load(self)

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    with pytest.raises(ValueError, match=r"row 1, column 'image': unreadable image .*zeta\.png"):
        prepared(root, 3)


def test_a_broken_picture_beside_a_caption_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path, good=colours(), zeta=colours(1))
    (root / "a" / "zeta.png").write_bytes(BROKEN["cut"])
    (root / "metadata.csv").write_text("file_name,text\na/good.png,red box\na/zeta.png,blue ball\n")
    settings = {"data_dir": str(root), "input_column": "image", "text_column": "text", "tokenizer": "utf-8"}
    config = SimpleNamespace(
        **vars(image_config(3, 8, 8)) | vars(token_config(300, 16)) | {"modality": "vision_language"}
    )
    message = (
        r"row 1, column 'image'.*: unreadable image .*zeta\.png: .*; replace the file, or take it out of the data"
    )
    with pytest.raises(ValueError, match=message):
        prepare_data(data_arguments("imagefolder", kind="vision_language", **settings), config)


def test_a_picture_above_the_pixel_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path, good=np.zeros((4, 4), np.uint8), scan=np.zeros((90, 90), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"row 1, column 'image': .*scan\.png: DecompressionBombError"):
        prepared(root, 3)


def turned(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_and_the_saved_processor_turn_photos_alike(tmp_path: Path, orientation: int) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:8, :9] = 200
    (tmp_path / "a").mkdir()
    path = turned(tmp_path / "a" / "photo.png", pixels, orientation)
    data = prepared(tmp_path, 3, **SCALE)
    assert isinstance(data.processor, ArrayImageProcessor)
    data.processor.save_pretrained(tmp_path / "saved")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "saved")
    with Image.open(path) as picture:
        used = processor(picture, return_tensors="np")["pixel_values"][0]
        rgb = {"rgb": {"kind": "continuous", "num_channels": 3}}
        several = MultiMAEImageProcessor(rgb, 8)({"rgb": [picture]}, return_tensors="np")["inputs"]["rgb"]
    np.testing.assert_array_equal(data.train[0]["pixel_values"], used)
    np.testing.assert_array_equal(several, MultiMAEImageProcessor(rgb, 8)([read_image(str(path))])["pixel_values"])


def test_a_label_map_is_turned_with_its_picture(tmp_path: Path) -> None:
    path = turned(tmp_path / "map.png", np.arange(6, dtype=np.uint8).reshape(2, 3), 6)
    one = MultiMAEImageProcessor({"map": {"kind": "categorical", "num_classes": 6}}, [3, 2])
    with Image.open(path) as picture:
        ids = one({"map": [picture]}, return_tensors="np")["inputs"]["map"][0]
    np.testing.assert_array_equal(ids, [[3, 0], [4, 1], [5, 2]])


@pytest.mark.parametrize("kept", [8, 16])
def test_greys_of_two_depths_are_brought_to_that_of_the_most(
    tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    flat, deep = greys(), greys().astype(np.uint16) * 257
    several = {f"{number}": flat if kept == 8 else deep for number in range(3)}
    root = write_folder(tmp_path / "data", **several, odd=deep if kept == 8 else flat)
    data = prepared(root, 1, standardize="none")
    assert isinstance(data.processor, ArrayImageProcessor) and data.processor.bit_depth == kept
    rows = [data.train[row]["pixel_values"] for row in range(4)]
    assert rows[0].max() > (1000 if kept == 16 else 100)
    np.testing.assert_allclose(rows[3], rows[0], atol=1)
    warning = f"1 of 4 pictures have {24 - kept} bit, such as .*odd.png; they are brought to the range of {kept} bit"
    assert re.search(warning, caplog.text)
    data.processor.save_pretrained(tmp_path / "saved")
    with Image.open(root / "a" / "odd.png") as picture:
        used = AutoImageProcessor.from_pretrained(tmp_path / "saved")(picture)["pixel_values"][0]
    np.testing.assert_array_equal(used, rows[3])


def test_pictures_without_a_known_range_are_refused_among_others(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_folder(root, a=greys(), b=greys(1))
    Image.fromarray(greys().astype(np.float32)).save(root / "a" / "c.tif")
    with pytest.raises(ValueError, match=r"2 of 8 bit \(.*a\.png\), 1 of 32 bit \(.*c\.tif\)"):
        prepared(root, 1)
    with pytest.raises(ValueError, match=r"row 2, .* expected 3 channels .* mode F of 32 bit.*c\.tif"):
        prepared(root, 3)
    (root / "a" / "a.png").unlink()
    (root / "a" / "b.png").unlink()
    data = prepared(root, 1, standardize="none")
    np.testing.assert_allclose(data.train[0]["pixel_values"].mean(), greys().mean(), rtol=0.05)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pictures_of_all_modes_become_colours(tmp_path: Path, mode: str) -> None:
    """The same in training and in the processor, whatever mode stands among the colours."""
    odd = Image.fromarray(greys(dtype=np.uint16)) if mode == "I;16" else Image.fromarray(colours()).convert(mode)
    root = write_folder(tmp_path / "data", first=colours())
    path = root / "a" / ("odd.tif" if mode in ("CMYK", "YCbCr") else "odd.png")
    odd.save(path)
    data = prepared(root, 3, **SCALE)
    assert isinstance(data.processor, ArrayImageProcessor)
    found = data.train[1]["pixel_values"]
    with Image.open(path) as picture:
        np.testing.assert_array_equal(data.processor(picture)["pixel_values"][0], found)
    assert 0.02 < found.std() < 0.6 and found.max() <= 1


def test_modes_that_pillow_does_not_convert_are_named() -> None:
    with pytest.raises(ValueError, match="a picture in mode LAB cannot become L"):
        converted(Image.new("LAB", (2, 2)), 1)
    with pytest.raises(ValueError, match="bit_depth: expected one of"):
        ArrayImageProcessor(1, 4, bit_depth=12)
    with pytest.raises(ValueError, match="modality 'd': expected one of .* `bit_depth`, got 4"):
        MultiMAEImageProcessor({"d": {"kind": "continuous", "num_channels": 1, "bit_depth": 4}})


def test_what_is_converted_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    root = write_folder(tmp_path, a=colours(), b=greys(), c=Image.fromarray(colours()).convert("P"))
    turned(root / "a" / "d.jpg", colours(), 3)
    pages = [Image.fromarray(colours(seed)) for seed in range(3)]
    pages[0].save(root / "a" / "e.tif", save_all=True, append_images=pages[1:])
    prepared(root, 3)
    assert (
        "of 5 pictures looked at these are converted to RGB (num_channels 3): 1 of mode L, 1 of mode P; 1 are turned"
        in (caplog.text)
    )
    assert (
        "1 of 5 pictures hold several frames, such as " in caplog.text and "e.tif; the first one alone" in caplog.text
    )


@pytest.mark.parametrize("source", ["csv", "json", "parquet"])
@pytest.mark.parametrize("mode", [{}, {"streaming": True}, {"cache": False}], ids=["cached", "stream", "on the fly"])
def test_a_table_of_paths_reads_from_its_folder(tmp_path: Path, source: str, mode: dict[str, Any]) -> None:
    pictures = write_folder(tmp_path / "files", x=colours(), y=colours(1))
    rows = datasets.Dataset.from_dict({"path": ["files/a/x.png", str(pictures / "a" / "y.png")], "label": ["u", "v"]})
    table = str(tmp_path / f"table.{source}")
    {"csv": rows.to_csv, "json": rows.to_json, "parquet": rows.to_parquet}[source](table)
    fields: dict[str, Any] = {"kind": "image", "input_column": "path", "label_column": "label", **SCALE, **mode}
    data = prepare_data(data_arguments(source, data_files=table, **fields), image_config(3, 8, 8))
    found = [row["pixel_values"] for row in data.train]
    for pixels, seed in zip(found, (0, 1), strict=True):
        np.testing.assert_array_equal(pixels, data.processor(Image.fromarray(colours(seed)))["pixel_values"][0])  # type: ignore[operator,misc]


@pytest.mark.parametrize("mode", [{}, {"streaming": True}], ids=["cached", "stream"])
def test_a_table_of_bytes_or_paths_reads_from_its_folder(tmp_path: Path, mode: dict[str, Any]) -> None:
    pictures = write_folder(tmp_path / "files", x=colours(), y=colours(1))
    content = (pictures / "a" / "y.png").read_bytes()
    cells = [{"bytes": None, "path": "files/a/x.png"}, {"bytes": content, "path": "y.png"}]
    datasets.Dataset.from_dict({"image": cells, "label": ["u", "v"]}).to_parquet(str(tmp_path / "table.parquet"))
    fields: dict[str, Any] = {"kind": "image", "input_column": "image", "label_column": "label", **SCALE, **mode}
    args = data_arguments("parquet", data_files=str(tmp_path / "table.parquet"), **fields)
    data = prepare_data(args, image_config(3, 8, 8))
    for row, seed in zip(data.train, (0, 1), strict=True):
        expected = data.processor(Image.fromarray(colours(seed)))["pixel_values"][0]  # type: ignore[operator,misc]
        np.testing.assert_array_equal(row["pixel_values"], expected)


def test_paths_are_looked_for_in_their_own_tables_folder(tmp_path: Path) -> None:
    for name, seed in (("train", 0), ("test", 1)):
        write_folder(tmp_path / name, x=colours(seed))
        (tmp_path / name / "rows.csv").write_text("path\na/x.png\n")
    both = {name: str(tmp_path / name / "rows.csv") for name in ("train", "test")}
    fields: dict[str, Any] = {"kind": "image", "input_column": "path", "standardize": "none"}
    args = data_arguments("csv", data_files=both, test_split="test", **fields)
    data = prepare_data(args, image_config(3, 20, 20))
    assert data.test is not None
    np.testing.assert_array_equal(data.test[0]["pixel_values"], colours(1).transpose(2, 0, 1))
    with pytest.raises(ValueError, match=r"the path 'a/x.png' of a row stands for several files, .*test.*train"):
        prepare_data(data_arguments("csv", data_files=list(both.values()), **fields), image_config(3, 20, 20))
    # A file written anew is read anew, and one that is not there is named with its folder.
    Image.fromarray(colours(7)).save(tmp_path / "test" / "a" / "x.png")
    assert prepare_data(args, image_config(3, 20, 20)).test[0]["pixel_values"][0, 0, 0] == colours(7)[0, 0, 0]  # type: ignore[index]
    (tmp_path / "test" / "a" / "x.png").unlink()
    with pytest.raises(ValueError, match=r"row 0, column 'path': unreadable image .*test/a/x\.png"):
        prepare_data(args, image_config(3, 20, 20))


def test_an_image_of_two_gigabytes_costs_an_error_and_no_memory(tmp_path: Path) -> None:
    """A header alone can promise any size."""
    content = bytearray(png_with(b"II*\x00\x08\x00\x00\x00\x00\x00"))
    content[16:24] = struct.pack(">II", 60000, 60000)
    with pytest.raises(ValueError, match="unreadable image"):
        read_image(bytes(content))


def test_errors_while_measuring_name_the_row_of_the_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not its place among the rows that were drawn to be measured."""
    monkeypatch.setattr("hf_maskssl.data.tables.statistics.STATISTICS_ROWS", 4)
    root = write_folder(tmp_path, **{f"{number}": colours() for number in range(8)})
    broken = {int(number) for number in chosen_numbers(8, 4, 0)[-1:]}
    for number in broken:
        (root / "a" / f"{number}.png").write_bytes(b"no picture")
        with pytest.raises(ValueError, match=rf"train split, row {number}, column 'image': .*{number}\.png"):
            prepared(root, 3)


@pytest.mark.parametrize("layout", ["frames", "samples"])
def test_a_tiff_of_bands_is_an_array_of_them(layout: str, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    bands = np.random.default_rng(0).integers(0, 9000, (13, 20, 24), dtype=np.uint16)
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "one.tif"
    if layout == "frames":
        tifffile.imwrite(path, bands, photometric="minisblack")
    else:
        tifffile.imwrite(
            path, np.moveaxis(bands, 0, -1), planarconfig="contig", photometric="minisblack", extrasamples=[0] * 12
        )
    for read in (read_image, read_map):
        assert (np.asarray(read(str(path), with_bands=True)) == np.moveaxis(bands, 0, -1)).all()
    tifffile.imwrite(tmp_path / "a" / "two.tif", bands + 1, photometric="minisblack")
    args = data_arguments(
        "imagefolder", data_dir=str(tmp_path), kind="image", input_column="image", standardize="none"
    )
    rows = prepare_data(args, image_config(13, 20, 24)).train
    assert (np.asarray(rows[0]["pixel_values"]) == bands).all() and (
        np.asarray(rows[1]["pixel_values"]) == bands + 1
    ).all()


def test_bands_of_several_types_and_unmeasured_values_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile = pytest.importorskip("tifffile")
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    for name, kind in (("1", np.uint16), ("2", np.uint16), ("3", np.float32)):
        nothing = [(42113, "s", 0, "-9999", True)] if name == "3" else []  # as GDAL writes it
        bands = np.arange(6 * 64).reshape(6, 8, 8).astype(kind)
        tifffile.imwrite(folder / f"{name}.tif", bands, photometric="minisblack", extratags=nothing)
    fields: dict[str, Any] = {
        "source": "imagefolder",
        "data_dir": str(folder.parent),
        "input_column": "image",
        "kind": "image",
    }
    prepare_data(data_arguments(**fields), image_config(6, 8, 8))
    assert f"several types, 2 of uint16 ({folder}/1.tif), 1 of float32 ({folder}/3.tif); all" in caplog.text
    assert (
        "nothing was measured, -9999 (1 of 3 pictures), which are read as measured: set data.invalid_value"
        in caplog.text
    )
    caplog.clear()
    prepare_data(data_arguments(**fields, invalid_value=-9999.0), image_config(6, 8, 8))
    assert "nothing was measured" not in caplog.text


def test_several_frames_are_no_bands_to_a_model_of_one_channel(tmp_path: Path) -> None:
    frames = [Image.fromarray(greys(seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert (np.asarray(read_image(str(tmp_path / "a.tif"))) == greys()).all()


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colours_that_lose_bits_are_said(ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tifffile = pytest.importorskip("tifffile")
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / f"one.{ending}"
    if ending == "tif":
        tifffile.imwrite(path, np.full((8, 8, 3), 3000, np.uint16))
    else:
        path.write_bytes(png_of_16_bits(np.full((8, 8, 3), 3000, np.uint16)))
    prepared(tmp_path, 3)
    assert f"1 of 1 pictures have 16 bits a colour, such as {path}; their upper 8 alone are read" in caplog.text


def png_of_16_bits(colours: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    head = struct.pack(">IIBBBBB", colours.shape[1], colours.shape[0], 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    written = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)

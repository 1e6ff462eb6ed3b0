"""TFRecord files of `tf.train.Example` messages, read without TensorFlow: the few rules of their format that are needed."""

import struct
from collections.abc import Iterator
from pathlib import Path

LENGTH = struct.Struct("<Q")
# Bytes of the checksums behind a record's length and behind its content, which are not looked at.
CHECKSUM = 4
LARGEST_RECORD = 1 << 30
VARINT, BYTES = 0, 2  # wire types of protocol buffers

Feature = list[bytes] | list[int]


def examples(path: Path) -> Iterator[dict[str, Feature]]:
    """The features of each record: name -> its bytes or whole numbers; floats are left out.

    Raises:
        ValueError: The file is cut, or no TFRecord file.
    """
    with path.open("rb") as file:
        while head := file.read(LENGTH.size + CHECKSUM):
            size = LENGTH.unpack(head[: LENGTH.size])[0] if len(head) == LENGTH.size + CHECKSUM else LARGEST_RECORD
            content = file.read(size + CHECKSUM) if size < LARGEST_RECORD else b""
            if len(content) != size + CHECKSUM:
                raise ValueError(f"{path}: byte {file.tell():,}: the file is cut, or no TFRecord file")
            yield _example(content[:size])


def _example(content: bytes) -> dict[str, Feature]:
    """Example = {1: Features = {1: map entry = {1: name, 2: Feature = {1: bytes list, 3: whole numbers}}}}."""
    found: dict[str, Feature] = {}
    for features in _fields(content, 1):
        for entry in _fields(features, 1):
            name = b"".join(_fields(entry, 1)).decode()
            for value in _fields(entry, 2):
                if texts := [text for entries in _fields(value, 1) for text in _fields(entries, 1)]:
                    found[name] = texts
                elif numbers := [number for entries in _fields(value, 3) for number in _numbers(entries)]:
                    found[name] = numbers
    return found


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """The contents of a message's fields of one number that hold bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key & 7 == VARINT:
            _, place = _varint(message, place)
            continue
        if key & 7 != BYTES:
            raise ValueError(f"field of wire type {key & 7}, which no Example has")
        size, place = _varint(message, place)
        if place + size > len(message):
            raise ValueError("a field is longer than its record")
        if key >> 3 == wanted:
            yield message[place : place + size]
        place += size


def _numbers(entries: bytes) -> Iterator[int]:
    """Whole numbers of an Int64List, which come packed in one field, or each with a key of its own."""
    packed = bool(entries) and entries[0] & 7 == BYTES
    for values in _fields(entries, 1) if packed else [entries]:
        place = 0
        while place < len(values):
            if not packed:
                _, place = _varint(values, place)
            number, place = _varint(values, place)
            yield number


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("a number does not end within its record")
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place

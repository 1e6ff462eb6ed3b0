"""The records of a JSON file, one at a time: a list of objects, or an object a line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from ..files import JsonObject

CHUNK = 1 << 20
BETWEEN = re.compile(r"[\s,]*")


def json_records(path: Path) -> Iterator[JsonObject]:
    """The objects of a file, in constant memory.

    Raises:
        ValueError: The file is cut, or holds something else.
    """
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text = file.read(CHUNK).lstrip()
        is_list = text.startswith("[")
        place = int(is_list)
        while True:
            place = _behind_blanks(text, place)
            if is_list and text.startswith("]", place):
                return
            try:
                record, place = decoder.raw_decode(text, place)
            except json.JSONDecodeError as error:
                # A record that the chunk cuts is whole once more is read.
                more = file.read(max(CHUNK, len(text) - place))
                if more:
                    text, place = text[place:] + more, 0
                    continue
                if place == len(text) and not is_list:
                    return
                raise ValueError(f"{path}: cut, or no JSON of records, at {text[place : place + 60]!r}") from error
            if not isinstance(record, dict):
                raise ValueError(f"{path}: expected objects with named fields, got {str(record)[:60]!r}")
            yield record


def _behind_blanks(text: str, place: int) -> int:
    found = BETWEEN.match(text, place)
    return place if found is None else found.end()

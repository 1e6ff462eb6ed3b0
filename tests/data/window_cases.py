"""What every kind that is read by windows refuses."""

from typing import Any

# (fields of the data section, the error)
IMPOSSIBLE_WINDOWS: list[tuple[dict[str, Any], str]] = [
    ({"stride": 4}, "data.stride is 4 without data.window"),
    ({"window": 4, "stride": 5}, "data.stride 5 is more than data.window 4"),
    ({"window": 0}, "data.window"),
    ({"window": 4, "streaming": True}, "data.window: a stream cannot be read by windows"),
]

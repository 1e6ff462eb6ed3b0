"""Where features are written: shards that a killed run leaves whole, a report that says what they are of, and one file."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list

from ..annotation.resumable import changed_settings
from ..files import JsonObject, JsonView, write_json
from ..locks import LOCK_FILE
from .arguments import ENDINGS
from .places import Place
from .rows import shard_name
from .tables import read_facts, rows_place, write_joined

REPORT = "embedding.json"
SHARD = ".parquet"


class Output:
    """The features of a run: a folder of shards, or one file that is made of them in the end.

    Args:
        address: `.parquet` or `.npy` file, or a folder.

    Attributes:
        final: What was asked for.
        folder: Folder of the shards: `final` itself, or one beside it while the run goes on.

    Raises:
        ValueError: A file of another ending.
    """

    def __init__(self, address: str) -> None:
        self.final = Place(address)
        ending = f".{self.final.name.rpartition('.')[2]}" if "." in self.final.name else ""
        self.is_file = ending in ENDINGS and not address.endswith("/")
        if ending in (".csv", ".json", ".jsonl", ".npz", ".pt", ".safetensors", ".txt"):
            raise ValueError(
                f"--output {address}: features are written as .parquet or .npy, or into a folder (without an ending)"
            )
        self.folder = self.final.beside(f"{self.final.name}.parts") if self.is_file else self.final

    def check(self, overwrite: bool) -> None:
        """Refuse to write over what exists.

        Raises:
            ValueError: The file or a complete folder exists and `overwrite` is false; or a folder of something else.
        """
        if not self.is_file and self.final.exists() and not self.final.is_folder():
            raise ValueError(
                f"--output {self.final} is a file, and names without the ending .parquet or .npy are folders: take another name"
            )
        report = self.report()
        if self.is_file and self.final.exists() and not overwrite:
            raise ValueError(f"--output {self.final} exists: take another name, or write over it by --overwrite")
        if self.is_file and self.final.is_folder():
            raise ValueError(f"--output {self.final} is a folder: take another name")
        if report is None:
            others = [name for name in self.folder.names() if name != LOCK_FILE]
            if others:
                raise ValueError(
                    f"--output {self.folder} holds {others[0]!r} and no {REPORT}, so it is no folder of features: take "
                    "another name"
                )
        elif report["complete"] and not self.is_file and not overwrite:
            raise ValueError(
                f"--output {self.final} exists and is complete, {report.get('rows', 0):,} rows: take another name, or "
                "write over it by --overwrite"
            )

    def report(self) -> JsonObject | None:
        """The report in the folder, None where there is none."""
        place = self.folder.child(REPORT)
        if not place.exists():
            return None
        with place.open() as file:
            found: JsonObject = json.load(file)
        return found

    def begin(self, settings: JsonView, overwrite: bool, unspoken: Mapping[str, str]) -> None:
        """Write the report of an incomplete folder.

        Args:
            settings: Settings that decide the features, in JSON's types.
            overwrite: Whether shards of other settings are removed.
            unspoken: Setting -> words that replace its values in an error.

        Raises:
            ValueError: The folder was begun with other settings.
        """
        report = self.report()
        if report is not None and overwrite:
            for name in self.shards():
                self.folder.child(name + SHARD).remove()
        elif report is not None:
            changed = changed_settings(report["settings"], settings, unspoken)
            if changed:
                raise ValueError(
                    f"--output {self.final} was begun with other options: {'; '.join(changed)}. Give the same ones, take "
                    "another name, or begin anew by --overwrite"
                )
        self._write({"settings": dict(settings), "complete": False})

    def shards(self) -> list[str]:
        """Names of the shards that are there, without endings."""
        return [name.removesuffix(SHARD) for name in self.folder.names() if _is_shard(name)]

    def shard(self, name: str) -> Place:
        """The file of a shard."""
        return self.folder.child(name + SHARD)

    def finish(self, names: Sequence[str], settings: JsonView, **facts: Any) -> tuple[int, dict[str, int]]:
        """Join the shards where one file was asked for, and say that all is there.

        Args:
            names: The shards of the data, in their order.
            settings: Settings of the run.
            facts: Further facts for the report.

        Returns:
            The number of rows written, and reason -> rows of a stream that were left out.
        """
        left_out: dict[str, int] = {}
        rows = 0
        for name in names:
            found = read_facts(self.shard(name))
            rows += found["rows"]
            for reason, count in found["left_out"].items():
                left_out[reason] = left_out.get(reason, 0) + count
        facts |= {"rows": rows, "left_out_of_stream": left_out}
        if self.is_file:
            write_joined(self.final, [self.shard(name) for name in names], {"settings": dict(settings), **facts})
            self._remove_parts(names)
        else:
            for stale in set(self.shards()) - set(names):
                self.shard(stale).remove()
            self._write({"settings": dict(settings), "complete": True, **facts})
        return rows, left_out

    def written(self) -> list[Place]:
        """The files that a user finds in the end."""
        if not self.is_file:
            return [self.final]
        return [self.final, *([rows_place(self.final)] if self.final.name.endswith(".npy") else [])]

    def _write(self, report: JsonView) -> None:
        self.folder.child(REPORT).write(lambda path: write_json(path, report))

    def _remove_parts(self, names: Sequence[str]) -> None:
        for name in {*names, *self.shards()}:
            self.shard(name).remove()
        self.folder.child(REPORT).remove()

    def remove_folder(self) -> None:
        """Remove the folder of shards where it is empty: they have become one file, or none was begun."""
        if self.folder.exists() and not self.folder.names():
            self.folder.remove_folder()


def _is_shard(name: str) -> bool:
    stem = name.removesuffix(SHARD)
    split, _, number = stem.rpartition("-")
    return name.endswith(SHARD) and number.isdigit() and stem == shard_name(split, int(number))


def told_by_main(state: PartialState, check: Any) -> None:
    """Run a check on the main process; what it refuses, all processes refuse.

    Raises:
        ValueError: The check raised one.
    """
    problem: list[str | None] = [None]
    if state.is_main_process:
        try:
            check()
        except ValueError as error:
            problem = [str(error)]
    if state.num_processes > 1:
        broadcast_object_list(problem)
    if problem[0] is not None:
        raise ValueError(problem[0])

"""A folder of results that a killed run leaves whole and the same call completes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import write_json


class ResumableFolder:
    """A folder of many files, with a JSON report that says from the beginning with what settings they are made.

    The files themselves say what is done: each is written under another name and then renamed (`write_whole`).

    Args:
        root: The folder; `begin` makes it.
        report_name: File name of the report.
        results: Glob pattern of files that are made.
        results_name: What these files are, for errors.
        settings_name: What the settings are, for errors.
        unspoken: Setting -> what an error says in place of its values, where these would tell a reader nothing.

    Attributes:
        report: What the report says. Until `begin`, what earlier calls wrote; of a new folder, nothing.
    """

    def __init__(
        self,
        root: str | Path,
        report_name: str,
        results: str,
        results_name: str,
        settings_name: str = "settings",
        unspoken: Mapping[str, str] | None = None,
    ) -> None:
        self.root, self.file = Path(root), Path(root) / report_name
        self.results, self.results_name = results, results_name
        self.settings_name, self.unspoken = settings_name, unspoken or {}
        self.report: dict[str, Any] = {}
        if self.file.is_file():
            self.report = json.loads(self.file.read_text(encoding="utf-8"))

    def begin(self, settings: Mapping[str, Any], **facts: object) -> None:
        """Write the report of an incomplete folder, and clear away what a kill left behind.

        Args:
            settings: What decides the results.
            facts: What else the report says, in JSON's types.

        Raises:
            ValueError: The folder was begun with other settings, or holds results and no report.
        """
        settings = json.loads(json.dumps(settings))  # as an earlier report would give them back
        if self.report:
            self._compare(settings)
        elif any(self.root.glob(self.results)):
            raise ValueError(
                f"output_dir {self.root} holds {self.results_name}, but no {self.file.name} that says of what: take "
                "another folder"
            )
        for leftover in self.root.rglob(".*"):
            if leftover.suffix in (".partial", ".tmp"):  # .tmp: as earlier versions named them
                leftover.unlink()
        self.report = {"settings": settings, **facts, "complete": False}
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.file, self.report, synced=True)

    def complete(self, **counts: object) -> None:
        """Write the report of a folder that lacks nothing."""
        self.report |= {"complete": True, **counts}
        write_json(self.file, self.report, synced=True)

    def _compare(self, settings: Mapping[str, Any]) -> None:
        before = self.report["settings"]
        changed = [
            self.unspoken.get(name, f"{name} was {before.get(name)!r} and is {value!r}")
            for name, value in settings.items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"output_dir {self.root} was begun with other {self.settings_name}: {', '.join(changed)}. Take another "
                "folder"
            )

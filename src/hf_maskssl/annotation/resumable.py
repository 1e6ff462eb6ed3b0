"""A folder of results that a killed run leaves whole and the same call completes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checks import changes
from ..files import write_json


class ResumableFolder:
    """A folder of many files, with a JSON report that from the beginning holds the settings of its files.

    A file that exists is done: each is written under another name and then renamed (`write_whole`).

    Args:
        root: Path of the folder; `begin` makes it.
        report_name: File name of the report.
        results: Glob pattern of the result files.
        results_name: Name of these files, for errors.
        settings_name: Name of the settings, for errors.
        unspoken: Setting -> words that replace its values in an error, where these would say nothing to a reader.

    Attributes:
        report: Content of the report. Until `begin` it is that of earlier calls; in a new folder it is empty.
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
        """Write the report of an incomplete folder, and remove a killed run's leftovers.

        Args:
            settings: Settings that decide the results.
            facts: Further entries of the report, in JSON's types.

        Raises:
            ValueError: The folder was begun with other settings, or holds results and no report.
        """
        settings = json.loads(json.dumps(settings))  # the form in which a report returns them
        if self.report:
            self._compare(settings)
        elif any(self.root.glob(self.results)):
            raise ValueError(
                f"output_dir {self.root} holds {self.results_name}, but no {self.file.name} that says of what: take "
                "another folder"
            )
        for leftover in self.root.rglob(".*"):
            if leftover.suffix in (".partial", ".tmp"):  # earlier versions wrote .tmp
                leftover.unlink()
        self.report = {"settings": settings, **facts, "complete": False}
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.file, self.report, synced=True)

    def complete(self, **counts: object) -> None:
        """Write the report of a complete folder."""
        self.report |= {"complete": True, **counts}
        write_json(self.file, self.report, synced=True)

    def _compare(self, settings: Mapping[str, Any]) -> None:
        changed = changed_settings(self.report["settings"], settings, self.unspoken)
        if changed:
            raise ValueError(
                f"output_dir {self.root} was begun with other {self.settings_name}: {'; '.join(changed)}. Take another "
                "folder"
            )


def changed_settings(
    before: Mapping[str, Any], settings: Mapping[str, Any], unspoken: Mapping[str, str] | None = None
) -> list[str]:
    """The settings that are not what they were, in words.

    Args:
        before: Settings of the report.
        settings: Settings of this call, in JSON's types.
        unspoken: Setting -> words that replace its values.
    """
    found: list[str] = []
    for name, value in settings.items():
        former = {name: before[name]} if name in before else {}
        words = changes(former, {name: value})
        found += [unspoken[name]] if words and unspoken and name in unspoken else words
    return found

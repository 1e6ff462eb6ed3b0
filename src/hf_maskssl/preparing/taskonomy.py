"""Taskonomy: views of buildings with maps of many quantities, the tiny split as MultiMAE's authors take it."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from .raw import RawFolder, wanted_columns
from .record import Rows

# Pictures of the authors' lists that are taken; None takes all.
TAKEN = {"train": 800, "val": 200, "test": None}
TARGETS = (
    *("principal_curvature", "depth_zbuffer", "depth_euclidean", "edge_texture", "edge_occlusion"),
    *("keypoints2d", "keypoints3d", "normal", "reshading"),
)
DOMAINS = ("rgb", *TARGETS)
COLUMNS = ("building", "point", "view")


def taskonomy(raw: RawFolder) -> Iterator[Rows]:
    """The first views of the authors' shuffled lists tiny_train.csv and tiny_val.csv, and all of tiny_test.csv.

    A file is DOMAIN/BUILDING/point_P_view_V_domain_DOMAIN.png, DOMAIN/taskonomy/BUILDING/... or BUILDING/DOMAIN/..., whichever is
    there. The first is what the authors' code reads, the last the layout of the release's sample building; which of them today's
    download tool makes is not documented.
    """
    places = _Places(raw)
    for split, count in TAKEN.items():
        path = raw.find(f"tiny_{split}.csv")
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            wanted_columns(path, rows.fieldnames or (), COLUMNS)
            limits = [limit for limit in (count, raw.max_rows) if limit is not None]
            for row in islice(rows, min(limits, default=None)):
                content = places.row(row["building"], int(row["point"]), int(row["view"]), path)
                if content is not None:
                    yield Rows(split, content)


class _Places:
    """Finds the files of a view; a target of which no file was fetched is left out and told."""

    def __init__(self, raw: RawFolder) -> None:
        self.raw = raw
        # Beside rgb, and at the top of what each archive brought: to look for what is not there would list every folder.
        self.bases = list(dict.fromkeys([*(path.parent for path in raw.find_all("rgb")), *raw.roots]))
        self.domains = [domain for domain in DOMAINS if any((base / domain).is_dir() for base in self.bases)]
        missing = [domain for domain in TARGETS if domain not in self.domains]
        if missing:
            raw.remarks.append(f"left out are the targets {', '.join(missing)}, for which there is no folder")
        self.folders: dict[tuple[str, str], Path] = {}

    def row(self, building: str, point: int, view: int, why: Path) -> dict[str, object] | None:
        """The files of a view by domain; None where one of them is missing."""
        row: dict[str, object] = {"name": f"{building}/point_{point}_view_{view}"}
        names = {domain: f"point_{point}_view_{view}_domain_{domain}.png" for domain in self.domains}
        files = self.raw.all_listed([self._folder(domain, building) / name for domain, name in names.items()], why)
        return None if files is None else row | dict(zip(names, files, strict=True))

    def _folder(self, domain: str, building: str) -> Path:
        key = domain, building
        if key not in self.folders:
            places = [
                place
                for base in self.bases
                for place in (
                    base / domain / building,
                    base / domain / "taskonomy" / building,
                    base.parent / building / domain,
                )
            ]
            self.folders[key] = next((place for place in places if place.is_dir()), places[0])
        return self.folders[key]

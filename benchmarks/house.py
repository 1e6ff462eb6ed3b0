"""Measures the package's source: sizes, switches on the kind of data, untyped places, and the way of one batch.

    PYTHONPATH=src python benchmarks/house.py [--walk] [--json FILE]

`--walk` runs digits.yaml up to its first optimiser step and counts the functions and files of this package that are visited
before the step: from the YAML to the batch, and in the step. It trains nothing and needs a minute.
"""

import argparse
import ast
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "hf_maskssl"
KINDS = {
    "auto",
    "image",
    "masked_text",
    "multimodal",
    "series",
    "spectrogram",
    "tabular",
    "tokens",
    "unified",
    "vision_language",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walk", action="store_true", help="count what one batch of digits.yaml visits")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    found = measure() | (walk() if args.walk else {})
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:{width}}  {value}")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measure() -> dict[str, Any]:
    """Counts over all files of the package, by their syntax trees."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
    lines = {path.relative_to(SOURCE): len(path.read_text(encoding="utf-8").splitlines()) for path in trees}
    classes = [(_length(node), node.name) for _, node in _nodes(trees, ast.ClassDef)]
    functions = [(_length(node), node.name) for _, node in _nodes(trees, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {
        "files": len(trees),
        "lines": sum(lines.values()),
        "files above 700 lines": ", ".join(f"{path} {count}" for path, count in lines.items() if count > 700),
        "classes above 300 lines": ", ".join(
            f"{name} {count}" for count, name in sorted(classes)[::-1] if count > 300
        ),
        "functions above 60 lines": ", ".join(
            f"{name} {count}" for count, name in sorted(functions)[::-1] if count > 60
        ),
        "comparisons of a kind outside kinds": sum(
            _compares_kind(node) for path, node in _nodes(trees, ast.Compare) if "kinds" not in path.parts
        ),
        "Any annotations": sum(_count_any(node) for _, node in _annotations(trees)),
        "hasattr and getattr": sum(
            isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr")
            for _, node in _nodes(trees, ast.Call)
        ),
    }


def _nodes(trees: dict[Path, ast.Module], types: Any) -> Iterator[tuple[Path, Any]]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, types):
                yield path, node


def _length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _compares_kind(node: ast.Compare) -> bool:
    """Whether one side is a kind's name, or several of them, and the other is called a kind."""
    sides = [node.left, *node.comparators]
    names = [side.attr for side in sides if isinstance(side, ast.Attribute)]
    names += [side.id for side in sides if isinstance(side, ast.Name)]
    constants = [leaf.value for side in sides for leaf in ast.walk(side) if isinstance(leaf, ast.Constant)]
    return any("kind" in name for name in names) and any(value in KINDS for value in constants)


def _annotations(trees: dict[Path, ast.Module]) -> Iterator[tuple[Path, ast.expr]]:
    for path, node in _nodes(trees, (ast.arg, ast.AnnAssign, ast.FunctionDef)):
        annotation = node.returns if isinstance(node, ast.FunctionDef) else node.annotation
        if annotation is not None:
            yield path, annotation


def _count_any(annotation: ast.expr) -> int:
    """1 where `Any` stands, alone or in a container; a dictionary of JSON, `dict[str, Any]`, has no better type."""
    text = ast.unparse(annotation)
    for plain in ("Mapping[str, Any]", "dict[str, Any]"):
        text = text.replace(plain, "")
    return int("Any" in text.replace("AnyDataset", "").replace("AnyPreparer", ""))


def walk() -> dict[str, int]:
    """Functions and files of the package that one batch of digits.yaml visits from its recipe to the optimiser."""
    from hf_maskssl.training import Pretrainer, load_pretraining_recipe

    visited: dict[str, set[tuple[str, str]]] = {"before the step": set(), "in the step": set()}
    phase = "before the step"

    def watch(frame: Any, event: str, argument: Any) -> None:
        nonlocal phase
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if event != "call" or not path.startswith(str(SOURCE)) or name.startswith("<"):
            return
        if name == "_step":
            phase = "in the step"
        visited[phase].add((path, name))

    with tempfile.TemporaryDirectory() as folder:
        words = [
            "--output_dir",
            folder,
            "--max_steps",
            "1",
            "--warmup_steps",
            "0",
            "--probe.every_steps",
            "0",
            "--eval_steps",
            "0",
        ]
        words += ["--picture_steps", "0", "--save_steps", "0"]
        sys.setprofile(watch)
        try:
            Pretrainer(load_pretraining_recipe(ROOT / "examples" / "recipes" / "digits.yaml", words)).run()
        finally:
            sys.setprofile(None)
    counts = {}
    for name, places in visited.items():
        counts[f"functions {name}"] = len(places)
        counts[f"files {name}"] = len({path for path, _ in places})
    return counts


if __name__ == "__main__":
    main()

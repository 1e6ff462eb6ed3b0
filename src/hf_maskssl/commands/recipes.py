"""`hf-maskssl recipes`: the recipes that come with the package."""

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ..recipes import find_recipe, read_yaml, recipe_folder, recipe_names
from ..scripts import OneLineErrors

WIDTH = 80
# Sections by which a recipe is for one command.
COMMANDS = {"training": "pretrain", "finetuning": "finetune"}


def describe(path: Path) -> tuple[str, str]:
    """(command that a recipe is for, first line of its comment)."""
    sections = read_yaml(path)
    command = next((verb for section, verb in COMMANDS.items() if section in sections), "probe")
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return command, first.lstrip("# ").rstrip() if first.startswith("#") else ""


def main() -> None:
    """List, show or copy recipes."""
    parser = OneLineErrors(
        description="The recipes that come with the package: list them, show one, copy one to change it."
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "show", "copy"), default="list", help="default: %(default)s"
    )
    parser.add_argument("name", nargs="?", help="name of a recipe, such as digits; for show and copy")
    parser.add_argument(
        "target", nargs="?", type=Path, help="file to copy to; default: NAME.yaml in the current folder"
    )
    options = parser.parse_args()
    if options.action == "list":
        list_recipes()
        return
    if options.name is None:
        parser.error(f"NAME: expected the name of a recipe to {options.action}, got nothing")
    source = find_recipe(options.name)
    if options.action == "show":
        print(source.read_text(encoding="utf-8"), end="")
        return
    target = options.target or Path(source.name)
    if target.exists():
        raise FileExistsError(f"TARGET: {target} exists already; name another file")
    shutil.copyfile(source, target)
    print(f"Written: {target}")


def list_recipes() -> None:
    """Print a line of at most 80 columns for each recipe, those of one command together."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in recipe_names():
        command, title = describe(recipe_folder() / f"{name}.yaml")
        groups.setdefault(command, []).append((name, title))
    for command, rows in groups.items():
        print(f"{command}:")
        print("\n".join(titled_lines(rows)))
    print("\n`hf-maskssl recipes show NAME` prints one, `recipes copy NAME` copies it.")


def titled_lines(rows: Sequence[tuple[str, str]]) -> list[str]:
    """A line of at most 80 columns for each (name, title)."""
    width = max(len(name) for name, _ in rows)
    return [
        textwrap.shorten(title, WIDTH, initial_indent=f"  {name:{width}}  ", placeholder=" ...")
        for name, title in rows
    ]

"""`hf-maskssl fields`: every field of a recipe, with its type, default and meaning, from the docstrings."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Literal, get_args, get_origin, get_type_hints

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.utils.auto_docstring import ConfigArgs

from ..annotation.pseudo_labels import PseudoLabelArguments
from ..annotation.tag_folder import TaggingArguments
from ..data.arguments import ARGUMENTS, DEFAULT_KIND
from ..evaluation.arguments import ProbeArguments
from ..methods import METHODS
from ..recipes import Hint, nearest
from ..scripts import OneLineErrors
from ..training.finetuning.arguments import FinetuningArguments
from ..training.pretraining.arguments import PretrainingArguments

SECTIONS = ("model", "data", "training", "probe", "finetuning")
# Verbs whose options are no section of a recipe.
OPTIONS = {"tag": TaggingArguments, "pseudo-label": PseudoLabelArguments}
WIDTH = 80
# "name: meaning" or "name, other: meaning", one level deep in a docstring's list.
ENTRY = re.compile(r"^ {4}([a-z_]\w*(?:, [a-z_]\w*)*): (.*)$")


def meanings(cls: type) -> dict[str, str]:
    """Field -> its description in the `Args:` or `Attributes:` of a class and of its bases, in one line."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        names: list[str] = []
        is_list = False
        for line in inspect.cleandoc(one.__doc__ or "").splitlines():
            entry = ENTRY.match(line)
            if line in ("Args:", "Attributes:"):
                is_list = True
            elif line and not line.startswith(" "):
                is_list, names = False, []
            elif is_list and entry:
                names = entry[1].split(", ")
                found.update(dict.fromkeys(names, entry[2]))
            elif is_list and names and line.startswith(" " * 8):
                found.update(dict.fromkeys(names, f"{found[names[0]]} {line.strip()}"))
    return found


def section_class(section: str, kind: str, model: str) -> type:
    """The class whose fields a section of a recipe has."""
    if section == "model":
        return CONFIG_MAPPING[model]
    if section == "data":
        return ARGUMENTS[kind]
    if section in OPTIONS:
        return OPTIONS[section]
    return {"training": PretrainingArguments, "probe": ProbeArguments, "finetuning": FinetuningArguments}[section]


def common_meaning(cls: type, name: str) -> str | None:
    """The description that transformers gives a field with that name in every configuration that has it of its own."""
    is_own = issubclass(cls, PreTrainedConfig) and name not in {
        field.name for field in dataclasses.fields(PreTrainedConfig)
    }
    entry = vars(ConfigArgs).get(name)
    return " ".join(entry["description"].split()) if is_own and entry is not None else None


def type_name(hint: Hint) -> str:
    """A type as a user writes it: "one of 'a', 'b'" for a Literal."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"\b(?:typing|collections\.abc)\.", "", name)


def field_types(cls: type) -> dict[str, Hint]:
    """Field -> type. Annotations of configurations are types already, as they travel without the package."""
    if issubclass(cls, PreTrainedConfig):
        return {field.name: field.type for field in dataclasses.fields(cls)}
    return get_type_hints(cls)


def written(default: object) -> str:
    """The end of a field's first line: its default, or that it has none."""
    return " (needed)" if default is dataclasses.MISSING else f" = {default!r}"


def field_lines(cls: type) -> Iterator[str]:
    """Lines, at most 80 columns wide, of the fields of a dataclass that are described."""
    described, types = meanings(cls), field_types(cls)
    for field in dataclasses.fields(cls):
        text = described.get(field.name, field.metadata.get("help") or common_meaning(cls, field.name))
        if text is None:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        head = f"{field.name}: {type_name(types[field.name])}{written(default)}"
        yield from textwrap.wrap(head, WIDTH, subsequent_indent="    ", break_long_words=False)
        yield from textwrap.wrap(text.replace("`", ""), WIDTH, initial_indent="    ", subsequent_indent="    ")


def main() -> None:
    """Print the fields of one section, or what the sections are."""
    parser = OneLineErrors(
        description="The fields of a recipe: type, default, meaning. Without a section, the sections.",
        epilog="Any of them can be changed on the command line: --FIELD VALUE or --SECTION.FIELD VALUE.",
    )
    parser.add_argument(
        "section",
        nargs="?",
        choices=(*SECTIONS, *OPTIONS),
        metavar="SECTION",
        help=f"one of {', '.join((*SECTIONS, *OPTIONS))}",
    )
    parser.add_argument("--kind", default=DEFAULT_KIND, help="data.kind whose fields are listed; default: %(default)s")
    parser.add_argument("--model", default="metamae", help="model.model_type; default: %(default)s")
    options = parser.parse_args()
    if options.kind not in ARGUMENTS:
        parser.error(
            f"--kind: expected one of {list(ARGUMENTS)}, got {options.kind!r}{nearest(options.kind, ARGUMENTS)}"
        )
    if options.model not in METHODS:
        parser.error(
            f"--model: expected one of {list(METHODS)}, got {options.model!r}{nearest(options.model, METHODS)}"
        )
    for section in SECTIONS if options.section is None else [options.section]:
        cls = section_class(section, options.kind, options.model)
        title = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0].replace("`", "")
        print(textwrap.fill(f"{section} ({cls.__name__}): {title}", WIDTH, subsequent_indent="    "))
        if options.section is not None:
            print("\n".join(field_lines(cls)))
    if options.section is None:
        for field, names in (("data.kind", ARGUMENTS), ("model.model_type", METHODS)):
            print(textwrap.fill(f"{field}: {', '.join(names)}", WIDTH, subsequent_indent="    "))
        print("\n`hf-maskssl fields SECTION` lists the fields of one.")

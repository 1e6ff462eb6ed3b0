"""The parts of the documentation that follow from the code, as Markdown: `<!-- generated:NAME -->` on a page stands for one."""

import contextlib
import dataclasses
import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from hf_maskssl.commands import VERBS, function_of, help_text
from hf_maskssl.commands.fields import (
    OPTIONS,
    common_meaning,
    field_types,
    meanings,
    section_class,
    type_name,
    written,
)
from hf_maskssl.data.arguments import ARGUMENTS, DataArguments
from hf_maskssl.methods import METHODS
from hf_maskssl.preparing.catalogue import DATA_SETS
from hf_maskssl.preparing.pages import how_to_get

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 80


# ---- fields ------------------------------------------------------------------------------------------------------------


def fields() -> str:
    """Every field of every section of a recipe, with type, default and meaning."""
    common = {field.name for field in dataclasses.fields(DataArguments)}
    parts = ["## data", *field_list(section_class("data", "image", "metamae"), only=common)]
    for kind in ARGUMENTS:
        cls = section_class("data", kind, "metamae")
        entries = list(field_list(cls, without=common))
        parts += [f"## data, kind {kind}", title_of(cls), *(entries or ["No fields of its own."])]
    for section in ("training", "probe", "finetuning"):
        cls = section_class(section, "image", "metamae")
        parts += [f"## {section}", title_of(cls), *field_list(cls)]
    for model in METHODS:
        cls = section_class("model", "image", model)
        parts += [f"## model, {model}", title_of(cls), *field_list(cls)]
    for verb, cls in OPTIONS.items():
        parts += [f"## Options of {verb}", title_of(cls), *field_list(cls)]
    return "\n\n".join(parts)


def title_of(cls: type) -> str:
    """The first sentences of a class's docstring, without the lists below them."""
    document = " ".join((cls.__doc__ or "").partition("\n\n")[0].split())
    return markdown(document)


def markdown(text: str) -> str:
    """A sentence of a docstring, in which `<` and `*` are no marks."""
    outside = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*_\[\]$|])", r"\\\1", part) for part in outside)


def field_list(cls: type, only: set[str] | None = None, without: set[str] | None = None) -> Iterator[str]:
    """An entry for each described field of a dataclass."""
    described, types = meanings(cls), field_types(cls)
    for field in dataclasses.fields(cls):
        if (only is not None and field.name not in only) or field.name in (without or ()):
            continue
        text = described.get(field.name, field.metadata.get("help") or common_meaning(cls, field.name))
        if text is not None:
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            head = f"{type_name(types[field.name])}{written(default)}"
            yield f"- **`{field.name}`**: `{head}`  \n  {markdown(text)}"


# ---- commands ----------------------------------------------------------------------------------------------------------


def commands() -> str:
    """The help page of every verb, as a terminal of 80 columns shows it."""
    parts = [fenced(help_text())]
    for verb in VERBS:
        parts += [f"## {verb}", fenced(help_of(verb))]
    return "\n\n".join(parts)


def fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.strip()}\n```"


def help_of(verb: str) -> str:
    """What `hf-maskssl VERB --help` prints."""
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"hf-maskssl {verb}", "--help"]),
        mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH)}),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        function_of(verb)()
    return printed.getvalue()


# ---- data sets -----------------------------------------------------------------------------------------------------------


def data_sets() -> str:
    """The papers' data sets: a table of all, and what each is made from."""
    rows = ["| name | rows | classes | papers' numbers | option |", "|---|---|---|---|---|"]
    parts = []
    for name, record in DATA_SETS.items():
        counts = " + ".join("?" if count is None else f"{count:,}" for count in record.rows.values())
        classes = " / ".join(dict.fromkeys(f"{count:,}" for count in record.labels.values())) or "-"
        scored = [use for use in record.uses if use.command != "pretrain"] or record.uses
        numbers = "; ".join(markdown(use.expected) for use in scored)
        rows.append(f"| `{name}` | {counts} | {classes} | {numbers} | `{how_to_get(record)}` |")
        files = "\n".join(f"- `{line}`" for line in record.layout)
        text = [
            f"### {name}",
            f"{markdown(record.title)}. {markdown(record.paper)}. Licence: {markdown(record.licence)}.",
        ]
        text += [f"Source: <{record.source}>", files, f"{markdown(record.splits)}.", markdown(record.note)]
        text += ["Documented: " + ", ".join(f"<{address}>" for address in record.documented)]
        parts += [one for one in text if one]
    return "\n\n".join(["\n".join(rows), *parts])


# ---- API ---------------------------------------------------------------------------------------------------------------

# Module -> what its names are for.
MODULES = {
    "hf_maskssl": "Models, configurations and processors, which the Auto classes of transformers know, too",
    "hf_maskssl.data": "From a recipe to batches",
    "hf_maskssl.training": "Pre-training",
}


def api() -> str:
    """Directives that show the public names of the package with their docstrings."""
    parts = []
    for module, title in MODULES.items():
        parts += [f"## {module}", f"{title}."]
        found = importlib.import_module(module)
        for name in sorted(set(found.__all__) - {"__version__"}, key=str.lower):
            parts += [f"### {name}", fenced(directive(module, name), "{eval-rst}")]
    return "\n\n".join(parts)


def directive(module: str, name: str) -> str:
    """The directive of autodoc for a public name."""
    value = getattr(importlib.import_module(module), name)
    kind = "class" if isinstance(value, type) else "function"
    lines = [f".. auto{kind}:: {module}.{name}"]
    if kind == "class":
        lines += ["   :members:", "   :exclude-members: from_pretrained, main_input_name, model_type"]
    return "\n".join(lines)


# ---- files of the repository --------------------------------------------------------------------------------------------


def text_below_title(name: str) -> str:
    """A Markdown file of the repository's root without its title, its links as they are from docs/."""
    text = (ROOT / name).read_text(encoding="utf-8").partition("\n")[2]
    return text.replace("](SECURITY.md)", "](security.md)")


PARTS: dict[str, Callable[[], str]] = {
    "fields": fields,
    "commands": commands,
    "data_sets": data_sets,
    "api": api,
    "changelog": lambda: text_below_title("CHANGELOG.md"),
    "security": lambda: text_below_title("SECURITY.md"),
}

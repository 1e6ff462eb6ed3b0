"""Recipes: YAML files whose sections become dataclasses, with overrides from the command line."""

import dataclasses
import re
import types
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ForwardRef, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, PreTrainedConfig

from .checks import shown
from .files import JsonObject, JsonView, did_you_mean, nearest_path

RECIPE_ENDINGS = (".yaml", ".yml")
KNOWN_SECTIONS = ("model", "data", "probe", "training", "finetuning")
# What programs print for numbers that are none, and YAML reads as words: it writes `.nan` and `.inf`.
NO_NUMBER = re.compile(r"[-+]?(nan|inf|infinity)", flags=re.IGNORECASE)
# A type annotation as an object (`int`, `list[str]`, `int | None`, a Literal); Python has no common type for them.
Hint: TypeAlias = Any


class ChosenSection(ABC):
    """Base of a section's dataclass whose fields depend on one of its values: those of `data` depend on `kind`."""

    @classmethod
    @abstractmethod
    def chosen(cls, values: JsonView) -> tuple[type, JsonObject]:
        """The dataclass to build, and the values to build it from.

        Raises:
            ValueError: The values choose none.
        """

    @classmethod
    @abstractmethod
    def every_class(cls) -> Sequence[type]:
        """All dataclasses that may be chosen."""

    @classmethod
    def described(cls, values: JsonView) -> str:
        """Words for the chosen class, which errors put after the name of a field."""
        return ""


class RecipeLoader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number (YAML 1.1 wants `1.0e-3`) and a key written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Refuse repeated keys: without an error the first value would be lost."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = [key for position, key in enumerate(keys) if key in keys[:position]]
        if repeated:
            raise ValueError(f"line {node.start_mark.line + 1}: {repeated[0]!r} is written twice; keep one of them")
        return super().construct_mapping(node, deep)


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def load_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    sections: Mapping[str, type] | None = None,
    primary: str | None = None,
) -> JsonObject:
    """Read a recipe and check every field of the sections asked for.

    Args:
        path: YAML file, or name of a recipe of the package, with the sections `model`, `data`, `probe`, `training` and
            `finetuning`, each optional.
        overrides: Command-line words: `--field value`, `--section.field=value`, or `--flag` for a boolean.
        sections: Section name -> dataclass to build from it; `"model": dict` keeps the model's fields as a plain
            dictionary for `build_config`. None means `{"model": dict}`.
        primary: Name of the section that a bare field name means when several have the field. None, or a section without it,
            makes such a name an error.

    Returns:
        Section name -> dataclass instance (`model`: dict). A section absent from the file gets its defaults.

    Raises:
        ValueError: An unknown section or field (with the nearest known name), a value of the wrong type, an override
            that fits no field or several, or a file that is not YAML.
        FileNotFoundError: No such file.
    """
    return build_recipe(read_yaml(path), path, overrides, sections, primary)


def build_recipe(
    content: JsonView,
    path: str | Path,
    overrides: Sequence[str] = (),
    sections: Mapping[str, type] | None = None,
    primary: str | None = None,
) -> JsonObject:
    """`load_recipe` of the content of a file.

    Args:
        content: Section name -> field -> value.
        path: Name of the recipe, for errors.
        overrides, sections, primary: As of `load_recipe`, like what is returned and raised.
    """
    sections = dict(sections or {"model": dict})
    values = _values_of_sections(content, path, sections)
    for section, field, value in _parse_overrides(overrides, sections, values, primary):
        values[section][field] = value
    return {name: build_section(name, kind, values[name]) for name, kind in sections.items()}


def override_fields(
    path: str | Path, overrides: Sequence[str], sections: Mapping[str, type], primary: str | None = None
) -> JsonObject:
    """`section.field` -> value of command-line words; arguments and errors as of `load_recipe`."""
    values = _values_of_sections(read_yaml(path), path, sections)
    found = _parse_overrides(overrides, sections, values, primary)
    return {f"{section}.{field}": value for section, field, value in found}


def _values_of_sections(content: JsonView, path: str | Path, sections: Iterable[str]) -> dict[str, JsonObject]:
    for name in content:
        if name not in KNOWN_SECTIONS:
            raise ValueError(
                f"{path}: unknown section {name!r}{nearest(name, KNOWN_SECTIONS)}; known: {list(KNOWN_SECTIONS)}"
            )
    return {name: _section_values(path, name, content.get(name)) for name in sections}


def recipe_folder() -> Path:
    """The folder of the recipes that come with the package."""
    return Path(__file__).parent / "recipe_files"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, sorted: file names without the ending."""
    return names_in(recipe_folder())


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe.

    Args:
        recipe: Path of a YAML file, or name of a recipe of the package, such as "digits".

    Raises:
        FileNotFoundError: Neither.
    """
    expected = "sections such as 'model:' and 'data:', or a name of those that `hf-maskssl recipes` lists"
    return find_packaged(recipe, recipe_folder(), "recipe", expected)


def names_in(folder: Path) -> list[str]:
    """Names of the YAML files of a folder, sorted, without the ending."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_packaged(name: str | Path, folder: Path, what: str, expected: str) -> Path:
    """The file of a path, or else of a name among those that come with the package.

    Args:
        name: Path of a YAML file, or name of one in `folder`.
        folder: Folder of the files that come with the package.
        what: What the file holds, such as "recipe", for the error.
        expected: What a file would hold, or where names are listed, for the error.

    Raises:
        FileNotFoundError: Neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    is_name = len(path.parts) == 1
    packaged = folder / f"{path}.yaml"
    if is_name and packaged.is_file():
        return packaged
    if path.is_dir():
        found = "a folder, not a file"
    else:
        near = (nearest(path.stem, names_in(folder)) if is_name else "") or nearest_path(path)
        found = f"no such file, and no {what} of the package{near}"
    raise FileNotFoundError(f"{what.upper()} {path}: {found}; expected a YAML file with {expected}")


def read_yaml(path: str | Path) -> JsonObject:
    """The top-level mapping of a recipe, a file or the name of one of the package.

    Raises:
        ValueError: The file is not YAML or holds no mapping.
        FileNotFoundError: No such file and no such recipe.
    """
    path = find_recipe(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"recipe {path} is not readable YAML: {yaml_reason(error)}") from error
    if not isinstance(content, dict):
        came = "an empty file" if content is None else shown(content)
        raise ValueError(f"recipe {path}: expected sections such as 'model:' and 'data:', got {came}")
    return content


def yaml_reason(error: Exception) -> str:
    """What a YAML reader objects to, with what to do about it where that is known."""
    reason = " ".join(str(error).split())
    if isinstance(error, UnicodeDecodeError):
        return f"{reason}; save it as UTF-8"
    if "'\\t'" in reason:
        return f"{reason}; YAML takes no tabs in front of a line: indent with blanks"
    if isinstance(error, yaml.constructor.ConstructorError) and "tag" in reason:
        return f"{reason}; tags such as !!python/... are not run: write plain values"
    return reason


def build_config(fields: JsonView) -> PreTrainedConfig:
    """The model configuration of a recipe's `model` section.

    Args:
        fields: Table of `model_type` and any field of that configuration class.

    Raises:
        ValueError: An unknown model type or field, or a value the configuration refuses.
    """
    config_class = _config_class(fields)
    known = _config_fields(config_class)
    values: JsonObject = {}
    for name, value in fields.items():
        if name == "model_type":
            continue
        if name not in known:
            raise ValueError(f"unknown field model.{name}{nearest(name, known)}")
        if _is_no_number(value, known[name]):
            raise _wrong_type(value, known[name], f"model.{name}")
        if get_origin(known[name]) is Literal:
            coerce(value, known[name], f"model.{name}")
        # The configuration classes check their types strictly; recipes may only write `1` for `1.0`.
        values[name] = float(value) if known[name] is float and type(value) is int else value
    try:
        return config_class(**values)
    except (StrictDataclassError, TypeError) as error:
        raise ValueError(_explain(error, values)) from error


def _explain(error: Exception, values: JsonView) -> str:
    """The error of a strict configuration in one line; the original has two, the first of which names a function."""
    cause = error.__cause__ or error.__context__ if isinstance(error, StrictDataclassError) else None
    message = str(cause or error)
    for value in values.values():
        message = message.replace(repr(value), shown(value))
    message = " ".join(message.split())
    field = re.match(r"Field '(\w+)' ", message)
    message = f"model.{field[1]}: {message[field.end() :]}" if field else f"model section: {message}"
    quoted = re.findall(r"'([^']+)'", message)
    given = set(_words(list(values.values())))
    # A message quotes a wrong value once; it quotes a right one twice, the second time among the choices.
    for word in quoted:
        if word in given and quoted.count(word) == 1 and (hint := nearest(word, set(quoted) - given)):
            return message.rstrip(".") + hint
    return message


def _words(value: object) -> list[str]:
    """All texts in a value, keys included."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return [word for item in value for word in _words(item)]
    return [value] if isinstance(value, str) else []


def coerce(value: object, expected: Hint, name: str) -> object:
    """Check a value against a type annotation; `1` is accepted for a float, nothing else is converted.

    Args:
        value: Value that YAML gave.
        expected: Type annotation: bool, int, float, str, list, dict, Literal, or a union of these.
        name: Name of the field for the error, `section.field`.

    Returns:
        The value, an int turned into a float where a float is expected.

    Raises:
        ValueError: The value has another type; the error names field, type and value.
    """
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return _coerce_union(value, arguments, expected, name)
    if origin is Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        hint = nearest(value, [str(argument) for argument in arguments]) if isinstance(value, str) else ""
        raise ValueError(f"{name}: expected one of {list(arguments)}, got {shown(value)}{hint}")
    container = origin or expected
    if container is float and type(value) is int:
        return float(value)
    # `type(...) is`: True must not pass for the integer 1.
    if container is Any or type(value) is container:
        if isinstance(value, list) and arguments:
            return [coerce(item, arguments[0], f"{name}[{position}]") for position, item in enumerate(value)]
        if isinstance(value, dict) and arguments:
            return {
                coerce(key, arguments[0], name): coerce(v, arguments[1], f"{name}.{key}") for key, v in value.items()
            }
        return value
    raise _wrong_type(value, expected, name)


def _wrong_type(value: object, expected: Hint, name: str) -> ValueError:
    """The error for a value of another type than expected."""
    if _is_no_number(value, expected):
        return ValueError(f"{name}: expected a finite number, got {value}")
    return ValueError(f"{name}: expected {_type_name(expected)}, got {shown(value)} ({type(value).__name__})")


def _is_no_number(value: object, expected: Hint) -> bool:
    return isinstance(value, str) and NO_NUMBER.fullmatch(value) is not None and _accepts(expected, float)


def _coerce_union(value: object, choices: tuple[Hint, ...], expected: Hint, name: str) -> object:
    if value is None and type(None) in choices:
        return None
    choices = tuple(choice for choice in choices if choice is not type(None))
    # An exact match first, so that 1 stays an int under `float | int`.
    for choice in sorted(choices, key=lambda choice: type(value) is not (get_origin(choice) or choice)):
        try:
            return coerce(value, choice, name)
        except ValueError:
            if len(choices) == 1:
                raise
    raise _wrong_type(value, expected, name)


def _section_values(path: str | Path, name: str, content: object) -> JsonObject:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path}: section {name!r} should hold fields (name: value), got {shown(content)}")
    return dict(content)


def build_section(name: str, kind: type, values: JsonView) -> Any:
    """A section's dataclass, every value checked against the type of its field.

    Args:
        name: Name of the section, for errors.
        kind: Class to build: a dataclass, a `ChosenSection`, or dict, which keeps the values.
        values: Table of field -> value.

    Raises:
        ValueError: An unknown field (with the nearest known name), or a value that the field does not take.
    """
    if kind is dict:
        return dict(values)
    words = ""
    if issubclass(kind, ChosenSection):
        words = kind.described(values)
        kind, values = kind.chosen(values)
    hints = _field_types(kind)
    for field in values:
        if field not in hints:
            raise ValueError(f"unknown field {name}.{field}{words}{nearest(field, hints)}; known: {sorted(hints)}")
    return kind(**{field: coerce(value, hints[field], f"{name}.{field}") for field, value in values.items()})


def overridden(name: str, kind: type, values: JsonView, overrides: Sequence[str]) -> JsonObject:
    """The values of one section, changed by command-line words.

    Args:
        name: Name of the section, for `--section.field`.
        kind: Class of the section.
        values: Table of field -> value; it stays as it is.
        overrides: Command-line words of `load_recipe`.

    Raises:
        ValueError: A word that fits no field, or a value that is no YAML.
    """
    changed = dict(values)
    for _, field, value in _parse_overrides(overrides, {name: kind}, {name: changed}, name):
        changed[field] = value
    return changed


def _parse_overrides(
    words: Sequence[str],
    sections: Mapping[str, type],
    values: Mapping[str, JsonObject],
    primary: str | None,
) -> list[tuple[str, str, object]]:
    """Command-line words -> (section, field, value) triples, in order."""
    known = {
        name: _model_fields(values[name]) if kind is dict else _override_types(kind)
        for name, kind in (sections.items() if words else ())
    }
    found = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise ValueError(f"override {shown(word)}: expected --field value or --section.field value")
        name, equals, text = word[2:].partition("=")
        section, field = _locate(name, known, primary)
        if not equals:
            # A negative number is a value; only another `--name` ends a bare flag.
            takes_next = bool(rest) and not rest[0].startswith("--")
            if not takes_next and not _accepts(known[section][field], bool):
                raise ValueError(f"override --{name}: expected a value after it")
            text = rest.pop(0) if takes_next else "true"
        found.append((section, field, _parse_value(text, known[section][field], name)))
    return found


def _locate(name: str, known: Mapping[str, JsonView], primary: str | None) -> tuple[str, str]:
    if "." in name:
        section, field = name.split(".", 1)
        if section not in known:
            raise ValueError(
                f"override --{name}: no section {section!r}{nearest(section, known)}; here: {list(known)}"
            )
        if field not in known[section]:
            raise ValueError(f"override --{name}: unknown field {field!r}{nearest(field, known[section])}")
        return section, field
    owners = [section for section, fields in known.items() if name in fields]
    if not owners:
        every = [field for fields in known.values() for field in fields]
        raise ValueError(f"override --{name}: unknown field{nearest(name, every)}")
    if len(owners) > 1 and primary in owners:
        return str(primary), name
    if len(owners) > 1:
        choices = " or ".join(f"--{section}.{name}" for section in owners)
        raise ValueError(f"override --{name}: the sections {owners} both have this field; write {choices}")
    return owners[0], name


def _parse_value(text: str, expected: Hint, name: str) -> object:
    # A field that only takes text keeps it as written: `--revision 1e3` is a branch, not a thousand.
    if not _accepts(expected, bool, int, float, list, dict):
        return None if text in ("null", "~", "") and _accepts(expected, type(None)) else text
    try:
        value = yaml.load(text, Loader=RecipeLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(
            f"override --{name}: {shown(text)} is not a YAML value: {' '.join(str(error).split())}"
        ) from error
    # `--report_to tensorboard` for a list of one.
    is_one_item = not isinstance(value, list) and not _accepts(expected, type(value))
    return [value] if is_one_item and _accepts(expected, list) else value


def _accepts(expected: Hint, *wanted: Hint) -> bool:
    """Whether the annotation is, or is a union with, one of the wanted types; an unresolved name may be any."""
    if isinstance(expected, (str, ForwardRef)):
        return True
    if get_origin(expected) in (Union, types.UnionType):
        return any(_accepts(choice, *wanted) for choice in get_args(expected))
    if get_origin(expected) is Literal:
        return any(type(argument) in wanted for argument in get_args(expected))
    return expected is Any or (get_origin(expected) or expected) in wanted


def _override_types(kind: type) -> JsonObject:
    """Types of all fields that overrides may name; `build_section` checks whether the chosen class has them."""
    if issubclass(kind, ChosenSection):
        return {name: hint for chosen in kind.every_class() for name, hint in _field_types(chosen).items()}
    return _field_types(kind)


def _field_types(kind: type) -> JsonObject:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _config_class(fields: JsonView) -> type[PreTrainedConfig]:
    model_type = fields.get("model_type")
    if model_type is None:
        raise ValueError("model.model_type: missing; name the method, such as 'metamae'")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"model.model_type: transformers knows no {model_type!r}{nearest(str(model_type), CONFIG_MAPPING)}; "
            "`import hf_maskssl` registers the methods of this package"
        )
    return CONFIG_MAPPING[model_type]


def _model_fields(fields: JsonView) -> JsonObject:
    """The fields that overrides may set in the model section; without a `model_type` (a recipe that only probes) just that."""
    return {"model_type": str} if "model_type" not in fields else _config_fields(_config_class(fields))


def _config_fields(config_class: type[PreTrainedConfig]) -> JsonObject:
    hints = {field.name: field.type for field in dataclasses.fields(config_class) if field.init}
    aliases = {alias: hints[name] for alias, name in config_class.attribute_map.items() if name in hints}
    return {"model_type": str, **hints, **aliases}


def own_fields(config: PreTrainedConfig) -> JsonObject:
    """A method's own fields of its configuration with their values, without those that `PreTrainedConfig` gives every model."""
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    return {field.name: vars(config)[field.name] for field in dataclasses.fields(config) if field.name not in common}


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of an error message: the known name that is most like `name`, or nothing."""
    return did_you_mean(name, known) if isinstance(name, str) else ""


def _type_name(expected: Hint) -> str:
    return expected.__name__ if isinstance(expected, type) and not get_args(expected) else str(expected)

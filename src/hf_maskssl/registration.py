"""Registers the methods with the Auto classes of transformers when they are first needed.

Importing `hf_maskssl.methods` registers them, and imports torch and the model files with them, which takes seconds. So
that `import hf_maskssl` takes none, registration waits until one of these is used:

- a file of `hf_maskssl.models`, or recipes: registered together;
- `AutoConfig`: knows the model types at once, and their configuration classes as soon as one of them is used;
- `AutoImageProcessor`, `AutoFeatureExtractor`: look for classes by name among those that are registered;
- `transformers.pipelines`: knows the task "masked-feature-extraction", whose other parts are imported when one is made.

`AutoModel` and its like choose by the class of a configuration, so the methods are registered before they are asked.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

AUTO = "transformers.models.auto"
PIPELINES = "transformers.pipelines"
NEED_METHODS = (
    "hf_maskssl.models",
    "hf_maskssl.recipes",
    f"{AUTO}.image_processing_auto",
    f"{AUTO}.feature_extraction_auto",
)


def register_when_needed(configurations: Mapping[str, str]) -> None:
    """Let the Auto classes know the methods of this package, and those of other installed packages.

    Args:
        configurations: Table of model type -> public name of its configuration class.
    """
    actions: dict[str, Callable[[], None]] = {PIPELINES: _register_pipeline}
    if entry_points(group="hf_maskssl.methods"):  # only their modules know their model types
        _register()
    else:
        actions |= dict.fromkeys(NEED_METHODS, _register)
        actions[f"{AUTO}.configuration_auto"] = lambda: _promise(configurations)
    for name in set(actions) & set(sys.modules):
        actions.pop(name)()
    sys.meta_path.insert(0, _ImportWatcher(actions))


def _register() -> None:
    importlib.import_module("hf_maskssl.methods")


def _register_pipeline() -> None:
    importlib.import_module(
        "hf_maskssl.embedding.pipelines"
    ).register()  # a string: nothing in front imports what is behind


def _promise(configurations: Mapping[str, str]) -> None:
    mapping = sys.modules[f"{AUTO}.configuration_auto"].CONFIG_MAPPING
    for model_type, name in configurations.items():
        if model_type not in mapping:
            mapping.register(model_type, _PromisedClass(name))


class _PromisedClass:
    """A stand-in for a public class of the package until it is used."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    # Any, like the members of the class that it stands for.
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python's own protocols, such as pickling
            raise AttributeError(name)
        return getattr(self._load(), name)  # attribute of the real class

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._load()(*args, **kwargs)

    def _load(self) -> Any:
        return getattr(importlib.import_module("hf_maskssl"), self.__name__)  # a string names it


class _ImportWatcher(MetaPathFinder):
    """A finder that calls a function right after a module has been imported for the first time."""

    def __init__(self, actions: dict[str, Callable[[], None]]) -> None:
        self.actions = actions

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's own specification, whose loader acts afterwards; None for others, which other finders find."""
        if name not in self.actions:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            self.actions.pop(name, lambda: None)()

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]  # a loader has one module
        return spec

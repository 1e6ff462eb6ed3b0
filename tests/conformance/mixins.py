"""transformers' common tests of a model, from its source distribution (`fetch.py`), made to know this package's models."""

import importlib
import sys
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import transformers
from fetch import SOURCE

from hf_maskssl.methods import BUILT_IN

PACKAGE = "tests_of_transformers"
# What the mixins import of files that the distribution leaves out. Of the first two they only ask for the class: the models here
# neither generate text nor have exporters.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {
        # An unusual value for every argument that all configurations have.
        "config_common_kwargs": {
            "return_dict": False,
            "output_hidden_states": True,
            "dtype": "float16",
            "chunk_size_feed_forward": 5,
            "architectures": ["BertModel"],
            "id2label": {0: "label"},
            "label2id": {"label": 0},
            "problem_type": "regression",
        }
    },
}


def load_mixins() -> tuple[Any, Any]:
    """`ModelTesterMixin` and `ConfigTester`; the module that asks is skipped where they are not there."""
    if not (SOURCE / "tests" / "test_modeling_common.py").exists():
        reason = f"transformers' own tests are not in {SOURCE}: run `python tests/conformance/fetch.py`"
        pytest.skip(reason, allow_module_level=True)
    pytest.importorskip("parameterized")
    if PACKAGE not in sys.modules:
        _package(PACKAGE, str(SOURCE / "tests"))
        for name, contents in LEFT_OUT.items():
            _package(f"{PACKAGE}.{name.split('.')[0]}")
            vars(_package(f"{PACKAGE}.{name}")).update(contents)
    # It would import a second transformers, from the folder of these tests.
    with mock.patch("transformers.utils.direct_transformers_import", lambda path: transformers):
        modeling = importlib.import_module(f"{PACKAGE}.test_modeling_common")
        configuration = importlib.import_module(f"{PACKAGE}.test_configuration_common")
    _add_models(modeling)
    return modeling.ModelTesterMixin, configuration.ConfigTester


def _package(name: str, *path: str) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = list(path)
    sys.modules[name] = module
    return module


def _add_models(modeling: ModuleType) -> None:
    """Into the mixins' own copies of the tables of Auto classes, by which they tell what labels and checks a model wants."""
    for name, table in list(vars(modeling).items()):
        for method in BUILT_IN:
            for auto_class, model_class in method.model_classes.items():
                if table is auto_class._model_mapping._model_mapping:
                    known = {**getattr(modeling, name), method.model_type: model_class.__name__}
                    setattr(modeling, name, known)

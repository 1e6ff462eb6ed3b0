"""Masked self-supervised encoders for data that is not just web images or English, as ordinary Hugging Face models.

Importing the package makes its configurations, models and processors known to the Auto classes of transformers, so
that `AutoModel.from_pretrained` opens their checkpoints; slow imports wait until they are needed (`registration`).
"""

import importlib
from typing import TYPE_CHECKING, Any

from .registration import register_when_needed
from .version import __version__

if TYPE_CHECKING:
    from .methods import Description as Description
    from .methods import Method as Method
    from .methods import register_method as register_method

# Model type -> the public name of its configuration.
_CONFIGURATIONS = {
    "metamae": "MetaMAEConfig",
    "sma": "SMAConfig",
    "multimae": "MultiMAEConfig",
    "pos_minimax_bert": "PoSMinimaxBertConfig",
    "unified": "UnifiedConfig",
}

# Public name -> the module that defines it; imported on first use.
_PUBLIC = {
    "Description": "methods",
    "Method": "methods",
    "register_method": "methods",
    "embed": "embedding.in_python",
    "MetaMAEConfig": "models.configuration_metamae",
    "MetaMAEModel": "models.modeling_metamae",
    "MetaMAEForPretraining": "models.modeling_metamae",
    "MetaMAEForSequenceClassification": "models.modeling_metamae",
    "MetaMAEForTokenClassification": "models.modeling_metamae",
    "SMAConfig": "models.configuration_sma",
    "SMAModel": "models.modeling_sma",
    "SMAForMaskedModeling": "models.modeling_sma",
    "SMAForSequenceClassification": "models.modeling_sma",
    "SMAForTokenClassification": "models.modeling_sma",
    "MultiMAEConfig": "models.configuration_multimae",
    "MultiMAEModel": "models.modeling_multimae",
    "MultiMAEForPretraining": "models.modeling_multimae",
    "MultiMAEForImageClassification": "models.modeling_multimae_heads",
    "MultiMAEForSemanticSegmentation": "models.modeling_multimae_heads",
    "MultiMAEForDepthEstimation": "models.modeling_multimae_heads",
    "MultiMAEForDenseRegression": "models.modeling_multimae_heads",
    "PoSMinimaxBertConfig": "models.configuration_pos_minimax_bert",
    "PoSMinimaxBertModel": "models.modeling_pos_minimax_bert",
    "PoSMinimaxBertForPreTraining": "models.modeling_pos_minimax_bert",
    "PoSMinimaxBertForMaskedLM": "models.modeling_pos_minimax_bert",
    "PoSMinimaxBertForSequenceClassification": "models.modeling_pos_minimax_bert",
    "PoSMinimaxBertForTokenClassification": "models.modeling_pos_minimax_bert",
    "PoSMinimaxBertForQuestionAnswering": "models.modeling_pos_minimax_bert",
    "PoSMinimaxBertForMultipleChoice": "models.modeling_pos_minimax_bert",
    "UnifiedConfig": "models.configuration_unified",
    "UnifiedModel": "models.modeling_unified",
    "UnifiedForPretraining": "models.modeling_unified",
    "SeriesFeatureExtractor": "models.feature_extraction_series",
    "SpectrogramFeatureExtractor": "models.feature_extraction_spectrogram",
    "ArrayImageProcessor": "models.image_processing_array",
    "MultiMAEImageProcessor": "models.image_processing_multimae",
    "impute": "evaluation.imputation",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:  # classes and functions of all kinds
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hf_maskssl' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_needed(_CONFIGURATIONS)

"""The methods: one file and one record each. A new method adds its record to `BUILT_IN`.

Importing this registers all methods with the Auto classes, those of other packages last (`hf_maskssl.registration`).
"""

from ..models.feature_extraction_series import SeriesFeatureExtractor
from ..models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from ..models.image_processing_array import ArrayImageProcessor
from ..models.image_processing_multimae import MultiMAEImageProcessor
from . import metamae, multimae, pos_minimax_bert, sma, unified
from .record import (
    METHODS,
    Description,
    Method,
    find_method,
    register_installed_methods,
    register_method,
    register_processor,
)

BUILT_IN = (metamae.METHOD, sma.METHOD, multimae.METHOD, pos_minimax_bert.METHOD, unified.METHOD)
# Processors of a kind of data, which several methods may have.
PROCESSORS = (SeriesFeatureExtractor, SpectrogramFeatureExtractor, ArrayImageProcessor, MultiMAEImageProcessor)

__all__ = ["METHODS", "Description", "Method", "find_method", "register_method"]

for method in BUILT_IN:
    register_method(method)
for processor in PROCESSORS:
    register_processor(processor)
register_installed_methods()

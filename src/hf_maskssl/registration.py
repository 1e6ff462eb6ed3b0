"""Makes the Auto classes of transformers know every model, and every saved checkpoint carry the code of all its
classes."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSemanticSegmentation,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    FeatureExtractionMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor

from .models.configuration_metamae import MetaMAEConfig
from .models.configuration_multimae import MultiMAEConfig
from .models.configuration_pos_minimax_bert import PoSMinimaxBertConfig
from .models.configuration_sma import SMAConfig
from .models.feature_extraction_series import SeriesFeatureExtractor
from .models.feature_extraction_spectrogram import SpectrogramFeatureExtractor
from .models.image_processing_array import ArrayImageProcessor
from .models.image_processing_multimae import MultiMAEImageProcessor
from .models.modeling_metamae import (
    MetaMAEForPretraining,
    MetaMAEForSequenceClassification,
    MetaMAEForTokenClassification,
    MetaMAEModel,
)
from .models.modeling_multimae import MultiMAEForPretraining, MultiMAEModel
from .models.modeling_multimae_heads import (
    MultiMAEForDepthEstimation,
    MultiMAEForImageClassification,
    MultiMAEForSemanticSegmentation,
)
from .models.modeling_pos_minimax_bert import (
    PoSMinimaxBertForMaskedLM,
    PoSMinimaxBertForMultipleChoice,
    PoSMinimaxBertForPreTraining,
    PoSMinimaxBertForQuestionAnswering,
    PoSMinimaxBertForSequenceClassification,
    PoSMinimaxBertForTokenClassification,
    PoSMinimaxBertModel,
)
from .models.modeling_sma import (
    SMAForMaskedModeling,
    SMAForSequenceClassification,
    SMAForTokenClassification,
    SMAModel,
)

# A new method adds its line here: configuration -> the model class of each Auto class.
MODELS: dict[type[PreTrainedConfig], dict[type, type[PreTrainedModel]]] = {
    MetaMAEConfig: {
        AutoModel: MetaMAEModel,
        AutoModelForPreTraining: MetaMAEForPretraining,
        AutoModelForSequenceClassification: MetaMAEForSequenceClassification,
        AutoModelForTokenClassification: MetaMAEForTokenClassification,
    },
    SMAConfig: {
        AutoModel: SMAModel,
        AutoModelForPreTraining: SMAForMaskedModeling,
        AutoModelForSequenceClassification: SMAForSequenceClassification,
        AutoModelForTokenClassification: SMAForTokenClassification,
    },
    MultiMAEConfig: {
        AutoModel: MultiMAEModel,
        AutoModelForPreTraining: MultiMAEForPretraining,
        AutoModelForImageClassification: MultiMAEForImageClassification,
        AutoModelForSemanticSegmentation: MultiMAEForSemanticSegmentation,
        AutoModelForDepthEstimation: MultiMAEForDepthEstimation,
    },
    PoSMinimaxBertConfig: {
        AutoModel: PoSMinimaxBertModel,
        AutoModelForPreTraining: PoSMinimaxBertForPreTraining,
        AutoModelForMaskedLM: PoSMinimaxBertForMaskedLM,
        AutoModelForSequenceClassification: PoSMinimaxBertForSequenceClassification,
        AutoModelForTokenClassification: PoSMinimaxBertForTokenClassification,
        AutoModelForQuestionAnswering: PoSMinimaxBertForQuestionAnswering,
        AutoModelForMultipleChoice: PoSMinimaxBertForMultipleChoice,
    },
}
FEATURE_EXTRACTORS: list[type[FeatureExtractionMixin]] = [SeriesFeatureExtractor, SpectrogramFeatureExtractor]
IMAGE_PROCESSORS: list[type[BaseImageProcessor]] = [ArrayImageProcessor, MultiMAEImageProcessor]


def register_all() -> None:
    """Register everything; doing it twice changes nothing."""
    for config_class, classes in MODELS.items():
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        config_class.register_for_auto_class()
        for auto_class, model_class in classes.items():
            auto_class.register(config_class, model_class, exist_ok=True)  # type: ignore[attr-defined]
            model_class.register_for_auto_class(auto_class.__name__)
    for extractor in FEATURE_EXTRACTORS:
        AutoFeatureExtractor.register(extractor, extractor, exist_ok=True)
        extractor.register_for_auto_class()
    for processor in IMAGE_PROCESSORS:
        AutoImageProcessor.register(processor, slow_image_processor_class=processor, exist_ok=True)
        processor.register_for_auto_class()

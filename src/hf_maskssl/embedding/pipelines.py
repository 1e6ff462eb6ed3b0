"""`pipeline("masked-feature-extraction", model=...)`: features of raw rows of any kind, in transformers' own interface."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import AutoModel, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from ..files import JsonObject, JsonView

if TYPE_CHECKING:
    from .encoders import Pooling

TASK = "masked-feature-extraction"


class MaskedFeatureExtractionPipeline(Pipeline):
    """Features of raw rows by an encoder of this package.

    Rows are what the model's kind of data is: an array (channels, steps) for series, a dict of columns or a list of numbers
    for tables, a PIL image, an array or a path for pictures, a waveform or a path for sounds, a text, a list of ids, or
    `{modality: picture}`.

    Args:
        model: Encoder, or a model with a head, whose base model is taken.
        args, kwargs: Arguments of `Pipeline`; of its processors those that the model has.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        # Imported when a pipeline is made: `import transformers.pipelines` registers this class, and should stay quick.
        from ..checkpoint_folders import checkpoint_folder
        from ..data.processors import ImageTextProcessor, load_processor
        from .encoders import load_encoder
        from .in_python import RawRows

        super().__init__(model, *args, **kwargs)
        numeric: Any = self.image_processor or self.feature_extractor
        processor: Any = self.tokenizer if numeric is None else numeric
        if numeric is not None and self.tokenizer is not None:
            processor = ImageTextProcessor(numeric, self.tokenizer)
        if processor is None and model.name_or_path:
            processor = load_processor(checkpoint_folder(model.name_or_path))
        self.encoder = load_encoder(model, processor)
        self.raw = RawRows(self.encoder)

    def _sanitize_parameters(  # type: ignore[override]
        self, tokens: bool | None = None, pooling: "Pooling | None" = None, return_tensors: bool | None = None
    ) -> tuple[JsonObject, JsonObject, JsonObject]:
        """Sort the parameters of a call.

        Args:
            tokens: Whether to give the features of each token.
            pooling: Name of the way in which tokens become one row, as in `hf_maskssl.embed`.
            return_tensors: Whether to give tensors instead of lists.
        """
        forward: JsonObject = {}
        if tokens is not None:
            forward["tokens"] = tokens
        if pooling is not None:
            forward["pooling"] = pooling
        return {}, forward, {} if return_tensors is None else {"return_tensors": return_tensors}

    def preprocess(self, input_: Any, **preprocess_parameters: Any) -> Any:
        """One raw row as a batch of one.

        Raises:
            ValueError: The row does not fit the model.
        """
        return self._collated([self._prepared(input_)])

    def _prepared(self, row: Any) -> JsonView:
        return self.raw.prepared(row)

    def _collated(self, rows: list[JsonView]) -> JsonObject:
        batch = self.raw.collator(rows)
        return {name: value for name, value in batch.items() if name != "index"}

    def _forward(  # type: ignore[override]
        self, input_tensors: Any, tokens: bool = False, pooling: "Pooling" = "auto"
    ) -> dict[str, torch.Tensor]:
        from ..evaluation.features import TokenEncoder, real_tokens

        if not tokens:
            pooled: torch.Tensor = self.encoder.pooled(pooling)(**input_tensors).pooler_output
            return {"features": pooled.float()}
        model = self.encoder.model
        first = model.num_prefix_tokens if isinstance(model, TokenEncoder) else 1
        found = model(**input_tensors).last_hidden_state[:, first:].float()
        is_real = real_tokens(model, input_tensors, found)
        there = torch.ones(found.shape[:2], dtype=torch.bool) if is_real is None else is_real
        return {"features": found, "is_real": there}

    def postprocess(self, model_outputs: Any, return_tensors: bool = False) -> Any:  # type: ignore[override]
        """(D,) numbers of a row, or (tokens, D) of its tokens."""
        found = model_outputs["features"][0]
        if "is_real" in model_outputs:
            found = found[model_outputs["is_real"][0]]
        return found if return_tensors else found.tolist()

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: JsonObject,
        forward_params: JsonObject,
        postprocess_params: JsonObject,
    ) -> Iterator[Any]:
        """Many rows: batches by the package's collators, which know several pictures and checked values."""
        is_sized = isinstance(inputs, list) or hasattr(inputs, "__len__")  # as transformers asks
        rows = (PipelineDataset if is_sized else PipelineIterator)(inputs, self._prepared, preprocess_params)
        loader = DataLoader(rows, num_workers=num_workers, batch_size=batch_size, collate_fn=self._collated)
        outputs = PipelineIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return iter(PipelineIterator(outputs, self.postprocess, postprocess_params))


def register() -> None:
    """Make `pipeline` know the task; a second call changes nothing."""
    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            TASK, pipeline_class=MaskedFeatureExtractionPipeline, pt_model=AutoModel, type="multimodal"
        )

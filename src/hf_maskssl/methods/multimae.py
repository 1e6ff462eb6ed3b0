"""MultiMAE (Bachmann et al. 2022), and MM-MAE, which minimises its worst task (Wang et al. 2023)."""

import dataclasses

from transformers import (
    AutoModel,
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoModelForImageToImage,
    AutoModelForPreTraining,
    AutoModelForSemanticSegmentation,
)

from ..models.configuration_multimae import MultiMAEConfig
from ..models.modeling_multimae import MultiMAEForPretraining, MultiMAEModel
from ..models.modeling_multimae_heads import (
    MultiMAEForDenseRegression,
    MultiMAEForDepthEstimation,
    MultiMAEForImageClassification,
    MultiMAEForSemanticSegmentation,
)
from .example_inputs import aligned_images
from .meanings import Meaning
from .papers import BALANCERS, MAE_BIBTEX, MINIMAX_BIBTEX, MULTIMAE_BIBTEX
from .record import Description, Method

MULTIMAE = Description(
    name="MultiMAE",
    summary="An encoder pre-trained by MultiMAE: of several aligned images of a scene, such as colours, depth and "
    "classes, it sees a few patches, and a decoder for each kind of image predicts all others",
    title="Bachmann et al. 2022",
    url="https://arxiv.org/abs/2204.01678",
    repository="https://github.com/EPFL-VILAB/MultiMAE",
    bibtex=MULTIMAE_BIBTEX,
)
MM_MAE = dataclasses.replace(
    MULTIMAE,
    name="MM-MAE",
    summary="An encoder pre-trained by MM-MAE, a MultiMAE ([Bachmann et al. 2022](https://arxiv.org/abs/2204.01678)) "
    "that minimises its worst task: it predicts the hidden patches of several aligned images of a scene, and the kind "
    "of image that it predicts worst weighs most",
    title="Wang et al. 2023",
    url="https://arxiv.org/abs/2306.12070",
    bibtex=MINIMAX_BIBTEX + MULTIMAE_BIBTEX,
)


def describe(config: MultiMAEConfig) -> Description:
    """MultiMAE with its balancing of tasks, or a baseline of its paper, which sees one modality alone."""
    sources = {modality.source for modality in (*config.inputs(), *config.outputs())}
    if len(sources) == 1 and config.final_norm:  # MultiMAE has none: the weights may be those of another ViT
        return dataclasses.replace(
            MULTIMAE,
            name="ViT",
            summary=f"A ViT of one modality, {sources.pop()}, as the baselines of MultiMAE are",
        )
    if len(sources) == 1:
        return dataclasses.replace(
            MULTIMAE,
            name="MAE",
            summary=f"An encoder pre-trained by masked auto-encoding of one modality, {sources.pop()}: a baseline of "
            "MultiMAE, whose architecture it has",
            bibtex=MAE_BIBTEX + MULTIMAE_BIBTEX,
        )
    if config.task_balancing == "minimax":
        return MM_MAE
    if config.task_balancing not in BALANCERS:
        return MULTIMAE
    title, bibtex = BALANCERS[config.task_balancing]
    return dataclasses.replace(MULTIMAE, name=f"MultiMAE with {title}", bibtex=MULTIMAE_BIBTEX + bibtex)


def weight_meaning(config: MultiMAEConfig, name: str) -> Meaning | None:
    """Projections, class tables, learned positions and predictions of one modality."""
    parts = name.split(".")
    table = config.modality_table()
    if parts[-1].startswith("positions_"):
        return Meaning("positions", grid=table[parts[-1].removeprefix("positions_")].grid(config.position_size))
    if "class_embeddings" in parts or "projections" in parts:
        read = table[parts[parts.index("embeddings") + 2]]
        return Meaning("values", (read.kind, read.output_channels, read.patch_shape))
    if "prediction" in parts:
        output = table[parts[1]]
        standardized = output.loss == "standardized_mse"
        return Meaning(
            "values", (output.source, output.kind, output.output_channels, output.patch_shape, standardized)
        )
    return None


METHOD = Method(
    config_class=MultiMAEConfig,
    model_classes={
        AutoModel: MultiMAEModel,
        AutoModelForPreTraining: MultiMAEForPretraining,
        AutoModelForImageClassification: MultiMAEForImageClassification,
        AutoModelForSemanticSegmentation: MultiMAEForSemanticSegmentation,
        AutoModelForDepthEstimation: MultiMAEForDepthEstimation,
        AutoModelForImageToImage: MultiMAEForDenseRegression,
    },
    describe=describe,
    example_inputs=aligned_images,
    converter="hf_maskssl.hub.conversion.multimae:convert_file",
    weight_meaning=weight_meaning,
)

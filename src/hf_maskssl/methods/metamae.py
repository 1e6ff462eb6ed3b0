"""MetaMAE (Jang et al. 2023)."""

from transformers import (
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from ..models.configuration_metamae import MetaMAEConfig
from ..models.modeling_metamae import (
    MetaMAEForPretraining,
    MetaMAEForSequenceClassification,
    MetaMAEForTokenClassification,
    MetaMAEModel,
)
from .example_inputs import signal_and_tokens
from .meanings import Meaning
from .papers import MAE_BIBTEX, METAMAE_BIBTEX
from .record import Description, Method

METAMAE = Description(
    name="MetaMAE",
    summary="An encoder pre-trained without labels by MetaMAE: masked auto-encoding as meta-learning, in which the "
    "latents of the visible tokens are adapted by a gradient step on the decoder's own loss before they are decoded",
    title="Jang et al. 2023",
    url="https://arxiv.org/abs/2310.16318",
    repository="https://github.com/alinlab/MetaMAE",
    bibtex=METAMAE_BIBTEX,
)
PLAIN_MAE = Description(
    name="MAE",
    summary="An encoder pre-trained without labels by plain masked auto-encoding "
    "([He et al. 2022](https://arxiv.org/abs/2111.06377)): MetaMAE's baseline, without its latent adaptation and "
    "contrastive loss",
    title="Jang et al. 2023",
    url="https://arxiv.org/abs/2310.16318",
    repository="https://github.com/alinlab/MetaMAE",
    bibtex=MAE_BIBTEX + METAMAE_BIBTEX,
)


def describe(config: MetaMAEConfig) -> Description:
    """MetaMAE; without adaptation it is a plain MAE."""
    return PLAIN_MAE if config.num_adaptation_steps == 0 else METAMAE


def weight_meaning(config: MetaMAEConfig, name: str) -> Meaning | None:
    """Projections of patches and the table of words; positions are computed."""
    if name.endswith("token_embeddings.weight"):
        return Meaning("words")
    if "patch_projection." in name or "patch_head." in name:
        return Meaning("values", (config.modality, config.patch_shape, config.num_channels))
    if name.endswith("mask_tokens"):
        return Meaning("values", (config.has_patches, config.has_tokens))
    return None


METHOD = Method(
    config_class=MetaMAEConfig,
    model_classes={
        AutoModel: MetaMAEModel,
        AutoModelForPreTraining: MetaMAEForPretraining,
        AutoModelForSequenceClassification: MetaMAEForSequenceClassification,
        AutoModelForTokenClassification: MetaMAEForTokenClassification,
    },
    describe=describe,
    example_inputs=signal_and_tokens,
    converter="hf_maskssl.hub.conversion.metamae:convert_file",
    weight_meaning=weight_meaning,
)

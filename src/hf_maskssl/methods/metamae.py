"""MetaMAE (Jang et al. 2023)."""

from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
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
from .papers import DABS2_BIBTEX, DABS_BIBTEX, MAE_BIBTEX, METAMAE_BIBTEX
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


def _of_dabs(name: str, summary: str, version: int) -> Description:
    """An objective of DABS (version 1) or of DABS 2.0, which MetaMAE's tables compare with."""
    first = version == 1
    return Description(
        name=name,
        summary=f"An encoder pre-trained without labels by {summary}; a baseline of "
        "[MetaMAE](https://arxiv.org/abs/2310.16318), on its encoder",
        title="DABS, Tamkin et al. 2021" if first else "DABS 2.0, Tamkin et al. 2022",
        url="https://arxiv.org/abs/2111.12062" if first else "https://github.com/alextamkin/dabs",
        repository="https://github.com/alextamkin/dabs",
        bibtex=(DABS_BIBTEX if first else DABS2_BIBTEX) + METAMAE_BIBTEX,
    )


DABS = {
    "emix": _of_dabs(
        "e-Mix", "e-Mix: each sample's embedded tokens are mixed with another's, and the mixture is matched to both", 1
    ),
    "shed": _of_dabs("ShED", "ShED: tokens whose embeddings were shuffled are detected", 1),
    "capri": _of_dabs("Capri", "Capri: the prediction for a masked token is matched to its embedding among others", 2),
    "mae": _of_dabs("DABS MAE", "masked auto-encoding as in DABS: masked tokens are read off by one linear layer", 2),
}


def describe(config: MetaMAEConfig) -> Description:
    """The objective; MetaMAE without adaptation is a plain MAE."""
    method = PLAIN_MAE if config.num_adaptation_steps == 0 else METAMAE
    method = method if config.objective == "metamae" else DABS[config.objective]
    return method.with_guided_masks() if config.masking == "guided" else method


def weight_meaning(config: MetaMAEConfig, name: str) -> Meaning | None:
    """Projections of patches, the table of words, learned positions, and what an objective of DABS predicts."""
    if "category_" in name:
        return Meaning("categories", grid=tuple(config.category_counts or []))
    if name.endswith("token_embeddings.weight"):
        return Meaning("words")
    if "patch_projection." in name or "patch_head." in name:
        return Meaning("values", (config.modality, config.patch_shape, config.num_channels))
    # Rows of the class token, patches and words: never interpolated, and a model of longer texts takes the first rows.
    if name.endswith("learned_positions"):
        return Meaning("places", (config.modality, config.grid_shape))
    if name.startswith("dabs."):
        predicts = (config.modality, config.patch_shape, config.num_channels) if config.objective == "mae" else ()
        return Meaning("values", (config.objective, *predicts))
    if name.endswith("mask_tokens"):
        return Meaning("values", (config.has_patches, config.has_tokens))
    return None


METHOD = Method(
    config_class=MetaMAEConfig,
    model_classes={
        AutoModel: MetaMAEModel,
        AutoModelForPreTraining: MetaMAEForPretraining,
        AutoModelForSequenceClassification: MetaMAEForSequenceClassification,
        AutoModelForImageClassification: MetaMAEForSequenceClassification,
        AutoModelForAudioClassification: MetaMAEForSequenceClassification,
        AutoModelForTokenClassification: MetaMAEForTokenClassification,
    },
    describe=describe,
    example_inputs=signal_and_tokens,
    converter="hf_maskssl.hub.conversion.metamae:convert_file",
    weight_meaning=weight_meaning,
)

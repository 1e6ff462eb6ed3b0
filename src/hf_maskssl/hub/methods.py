"""What cards say about each method: its paper and how to cite it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Method:
    """A method as a card presents it.

    Attributes:
        name: Its name.
        summary: Beginning of a sentence that says what the model is.
        title: Of the paper.
        url: Of the paper.
        repository: Of the authors' code.
        bibtex: Of the paper, and of others it stands on.
    """

    name: str
    summary: str
    title: str
    url: str
    repository: str
    bibtex: str

    @property
    def citation(self) -> str:
        """A Markdown block to copy."""
        return f"```bibtex\n{self.bibtex.strip()}\n```"


METAMAE_BIBTEX = """
@inproceedings{jang2023metamae,
  title = {Modality-Agnostic Self-Supervised Learning with Meta-Learned Masked Auto-Encoder},
  author = {Jang, Huiwon and Tack, Jihoon and Choi, Daewon and Jeong, Jongheon and Shin, Jinwoo},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023},
  url = {https://arxiv.org/abs/2310.16318}
}
"""
MAE_BIBTEX = """
@inproceedings{he2022mae,
  title = {Masked Autoencoders Are Scalable Vision Learners},
  author = {He, Kaiming and Chen, Xinlei and Xie, Saining and Li, Yanghao and Doll{\\'a}r, Piotr and Girshick, Ross},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022},
  url = {https://arxiv.org/abs/2111.06377}
}
"""
SMA_BIBTEX = """
@inproceedings{xie2024sma,
  title = {Self-Guided Masked Autoencoders for Domain-Agnostic Self-Supervised Learning},
  author = {Xie, Johnathan and Lee, Yoonho and Chen, Annie S. and Finn, Chelsea},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  url = {https://arxiv.org/abs/2402.14789}
}
"""
PERCEIVER_IO_BIBTEX = """
@inproceedings{jaegle2022perceiver,
  title = {Perceiver {IO}: A General Architecture for Structured Inputs \\& Outputs},
  author = {Jaegle, Andrew and Borgeaud, Sebastian and Alayrac, Jean-Baptiste and Doersch, Carl and Ionescu, Catalin
    and Ding, David and Koppula, Skanda and Zoran, Daniel and Brock, Andrew and Shelhamer, Evan and H{\\'e}naff, Olivier
    and Botvinick, Matthew M. and Zisserman, Andrew and Vinyals, Oriol and Carreira, Jo{\\~a}o},
  booktitle = {International Conference on Learning Representations},
  year = {2022},
  url = {https://arxiv.org/abs/2107.14795}
}
"""

METAMAE = Method(
    name="MetaMAE",
    summary="An encoder pre-trained without labels by MetaMAE: masked auto-encoding as meta-learning, in which the "
    "latents of the visible tokens are adapted by a gradient step on the decoder's own loss before they are decoded",
    title="Jang et al. 2023",
    url="https://arxiv.org/abs/2310.16318",
    repository="https://github.com/alinlab/MetaMAE",
    bibtex=METAMAE_BIBTEX,
)
PLAIN_MAE = Method(
    name="MAE",
    summary="An encoder pre-trained without labels by plain masked auto-encoding "
    "([He et al. 2022](https://arxiv.org/abs/2111.06377)): MetaMAE's baseline, without its latent adaptation and "
    "contrastive loss",
    title="Jang et al. 2023",
    url="https://arxiv.org/abs/2310.16318",
    repository="https://github.com/alinlab/MetaMAE",
    bibtex=MAE_BIBTEX + METAMAE_BIBTEX,
)

SMA = Method(
    name="SMA",
    summary="An encoder pre-trained without labels by SMA, self-guided masked auto-encoding: the attention of its own "
    "first layer chooses which raw inputs (bytes, letters, values, pixels) are hidden and have to be predicted",
    title="Xie et al. 2024",
    url="https://arxiv.org/abs/2402.14789",
    repository="https://github.com/Johnathan-Xie/sma",
    bibtex=SMA_BIBTEX,
)

# A new method adds its line here: model type -> what cards say.
METHODS = {"metamae": METAMAE, "sma": SMA}


def method_of(config: PreTrainedConfig) -> Method:
    """The method of a configuration; a MetaMAE without adaptation and an SMA without guidance are plain MAEs.

    Raises:
        ValueError: No entry in `METHODS`.
    """
    if config.model_type not in METHODS:
        raise ValueError(f"model_type '{config.model_type}' has no card: add it to METHODS in hub/methods.py.")
    if getattr(config, "num_adaptation_steps", None) == 0:
        return PLAIN_MAE
    return _sma(config) if config.model_type == "sma" else METHODS[config.model_type]


def _sma(config: Any) -> Method:
    """SMA, or the baseline of its paper whose masks do not come from attention."""
    bibtex = SMA.bibtex + (PERCEIVER_IO_BIBTEX if config.is_cross_attention else "")
    if config.is_guided:
        return dataclasses.replace(SMA, bibtex=bibtex)
    hidden = {"random": "single tokens", "word": "whole words", "span": "spans", "patch": "patches"}[config.masking]
    return dataclasses.replace(
        SMA,
        name=f"MAE with {config.masking} masking",
        summary=f"An encoder pre-trained without labels by masked auto-encoding of raw inputs, with {hidden} hidden at "
        "random: a baseline of SMA, whose architecture it has, without masks that its attention chooses",
        bibtex=bibtex,
    )

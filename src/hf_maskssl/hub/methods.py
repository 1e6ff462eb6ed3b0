"""What cards say about each method: its paper and how to cite it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from ..models.configuration_pos_minimax_bert import ANY_WORD, PARTS_OF_SPEECH


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
MULTIMAE_BIBTEX = """
@inproceedings{bachmann2022multimae,
  title = {{MultiMAE}: Multi-modal Multi-task Masked Autoencoders},
  author = {Bachmann, Roman and Mizrahi, David and Atanov, Andrei and Zamir, Amir},
  booktitle = {European Conference on Computer Vision},
  year = {2022},
  url = {https://arxiv.org/abs/2204.01678}
}
"""
MINIMAX_BIBTEX = """
@inproceedings{wang2023taskrobust,
  title = {Task-Robust Pre-Training for Worst-Case Downstream Adaptation},
  author = {Wang, Jianghui and Chen, Yang and Xie, Xingyu and Fang, Cong and Lin, Zhouchen},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023},
  url = {https://arxiv.org/abs/2306.12070}
}
"""
BERT_BIBTEX = """
@inproceedings{devlin2019bert,
  title = {{BERT}: Pre-training of Deep Bidirectional Transformers for Language Understanding},
  author = {Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina},
  booktitle = {Conference of the North {A}merican Chapter of the Association for Computational Linguistics},
  year = {2019},
  url = {https://arxiv.org/abs/1810.04805}
}
"""
UNCERTAINTY_BIBTEX = """
@inproceedings{kendall2018uncertainty,
  title = {Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics},
  author = {Kendall, Alex and Gal, Yarin and Cipolla, Roberto},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2018},
  url = {https://arxiv.org/abs/1705.07115}
}
"""
GRADNORM_BIBTEX = """
@inproceedings{chen2018gradnorm,
  title = {{GradNorm}: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks},
  author = {Chen, Zhao and Badrinarayanan, Vijay and Lee, Chen-Yu and Rabinovich, Andrew},
  booktitle = {International Conference on Machine Learning},
  year = {2018},
  url = {https://arxiv.org/abs/1711.02257}
}
"""
DWA_BIBTEX = """
@inproceedings{liu2019mtan,
  title = {End-to-End Multi-Task Learning with Attention},
  author = {Liu, Shikun and Johns, Edward and Davison, Andrew J.},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2019},
  url = {https://arxiv.org/abs/1803.10704}
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

MULTIMAE = Method(
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

PLAIN_BERT = Method(
    name="BERT",
    summary="A BERT pre-trained by masked language modelling of whole words",
    title="Devlin et al. 2019",
    url="https://arxiv.org/abs/1810.04805",
    repository="https://github.com/google-research/bert",
    bibtex=BERT_BIBTEX,
)
POS_BERT = Method(
    name="PoS-BERT",
    summary="A BERT ([Devlin et al. 2019](https://arxiv.org/abs/1810.04805)) pre-trained by masked language modelling in "
    "which every part of speech is a task",
    title="Wang et al. 2023",
    url="https://arxiv.org/abs/2306.12070",
    repository="https://github.com/google-research/bert",
    bibtex=MINIMAX_BIBTEX + BERT_BIBTEX,
)

# How the losses of tasks may be weighted, other than by minimax: name -> what cards call it, and its paper.
BALANCERS = {
    "uncertainty": ("uncertainty weighting", UNCERTAINTY_BIBTEX),
    "gradnorm": ("GradNorm", GRADNORM_BIBTEX),
    "dwa": ("dynamic weight averaging", DWA_BIBTEX),
}

# A new method adds its line here: model type -> what cards say.
METHODS = {"metamae": METAMAE, "sma": SMA, "multimae": MULTIMAE, "pos_minimax_bert": POS_BERT}


def method_of(config: PreTrainedConfig) -> Method:
    """The method of a configuration; a MetaMAE without adaptation, an SMA without guidance and a MultiMAE of one modality
    are plain MAEs, a PoS-BERT to which all words are one task is a plain BERT.

    Raises:
        ValueError: No entry in `METHODS`.
    """
    if config.model_type not in METHODS:
        raise ValueError(f"model_type '{config.model_type}' has no card: add it to METHODS in hub/methods.py.")
    if getattr(config, "num_adaptation_steps", None) == 0:
        return PLAIN_MAE
    variants = {"sma": _sma, "multimae": _multimae, "pos_minimax_bert": _pos_bert}
    return variants[config.model_type](config) if config.model_type in variants else METHODS[config.model_type]


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


def _multimae(config: Any) -> Method:
    """MultiMAE as its tasks are balanced, or the baseline of its paper that knows one modality alone."""
    sources = {modality.source for modality in (*config.inputs(), *config.outputs())}
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


def _pos_bert(config: Any) -> Method:
    """PoS-BERT as its tasks are balanced, or the masked language modelling that it is compared with."""
    is_plain = config.tasks == [ANY_WORD]
    method = PLAIN_BERT if is_plain else POS_BERT
    summary = method.summary
    if not is_plain and set(config.tasks) != set(PARTS_OF_SPEECH):
        summary = summary.replace("every part of speech", f"every part of speech ({', '.join(config.tasks)})")
    beside, inside = " beside next sentence prediction", " and next sentence prediction another"
    if is_plain:
        beside = inside = " and next sentence prediction"
    summary += {"beside": beside, "inside": inside, "none": ""}[config.next_sentence_prediction]
    method = dataclasses.replace(method, summary=summary)
    return method if len(config.balanced_tasks) == 1 else _balanced(method, config.task_balancing)


def _balanced(method: Method, balancing: str) -> Method:
    """PoS-BERT, or BERT with its two objectives, under a balancing of several tasks."""
    name, summary, bibtex = method.name, method.summary, method.bibtex
    is_plain = name == PLAIN_BERT.name
    if balancing == "minimax":
        summary += "; the task that it does worst weighs most"
        name, bibtex = (f"{name} with minimax", bibtex + MINIMAX_BIBTEX) if is_plain else (name, bibtex)
    elif balancing in BALANCERS:
        title, paper = BALANCERS[balancing]
        name, summary, bibtex = f"{name} with {title}", f"{summary}; its tasks are balanced by {title}", bibtex + paper
    elif not is_plain:
        name, summary = f"{name} without balancing", f"{summary}; all tasks weigh the same"
    return dataclasses.replace(method, name=name, summary=summary, bibtex=bibtex)

"""BERT with parts of speech as tasks, balanced by the minimax rule (Wang et al. 2023)."""

import dataclasses

from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from ..models.configuration_pos_minimax_bert import ANY_WORD, PARTS_OF_SPEECH, PoSMinimaxBertConfig
from ..models.modeling_pos_minimax_bert import (
    PoSMinimaxBertForMaskedLM,
    PoSMinimaxBertForMultipleChoice,
    PoSMinimaxBertForPreTraining,
    PoSMinimaxBertForQuestionAnswering,
    PoSMinimaxBertForSequenceClassification,
    PoSMinimaxBertForTokenClassification,
    PoSMinimaxBertModel,
)
from .example_inputs import sentence_pairs
from .meanings import Meaning
from .papers import BALANCERS, BERT_BIBTEX, MINIMAX_BIBTEX
from .record import Description, Method

PLAIN_BERT = Description(
    name="BERT",
    summary="A BERT pre-trained by masked language modelling of whole words",
    title="Devlin et al. 2019",
    url="https://arxiv.org/abs/1810.04805",
    repository="https://github.com/google-research/bert",
    bibtex=BERT_BIBTEX,
)
POS_BERT = Description(
    name="PoS-BERT",
    summary="A BERT ([Devlin et al. 2019](https://arxiv.org/abs/1810.04805)) pre-trained by masked language modelling in "
    "which every part of speech is a task",
    title="Wang et al. 2023",
    url="https://arxiv.org/abs/2306.12070",
    repository="https://github.com/google-research/bert",
    bibtex=MINIMAX_BIBTEX + BERT_BIBTEX,
)


def describe(config: PoSMinimaxBertConfig) -> Description:
    """PoS-BERT with its balancing of tasks, or the masked language modelling that it is compared with."""
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
    method = method if len(config.balanced_tasks) == 1 else _balanced(method, config.task_balancing)
    return method.with_guided_masks() if config.masking == "guided" else method


def _balanced(method: Description, balancing: str) -> Description:
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


def weight_meaning(config: PoSMinimaxBertConfig, name: str) -> Meaning | None:
    """Learned positions, and the table of words that is read from and predicted with."""
    if name.endswith("position_embeddings.weight"):
        return Meaning("places", (), (config.max_position_embeddings,))
    words = ("word_embeddings.weight", "predictions.bias", "predictions.decoder.weight", "predictions.decoder.bias")
    return Meaning("words") if name.endswith(words) else None


METHOD = Method(
    config_class=PoSMinimaxBertConfig,
    model_classes={
        AutoModel: PoSMinimaxBertModel,
        AutoModelForPreTraining: PoSMinimaxBertForPreTraining,
        AutoModelForMaskedLM: PoSMinimaxBertForMaskedLM,
        AutoModelForSequenceClassification: PoSMinimaxBertForSequenceClassification,
        AutoModelForTokenClassification: PoSMinimaxBertForTokenClassification,
        AutoModelForQuestionAnswering: PoSMinimaxBertForQuestionAnswering,
        AutoModelForMultipleChoice: PoSMinimaxBertForMultipleChoice,
    },
    describe=describe,
    example_inputs=sentence_pairs,
    weight_meaning=weight_meaning,
)

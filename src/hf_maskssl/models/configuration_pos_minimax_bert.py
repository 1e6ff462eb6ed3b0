"""Configuration of PoS-BERT (Wang et al., "Task-Robust Pre-Training for Worst-Case Downstream Adaptation",
https://arxiv.org/abs/2306.12070, section 4.1): BERT whose masked words are tasks by their part of speech."""

from dataclasses import field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import BertConfig

from .field_checks import (
    check_at_least,
    check_heads,
    check_mask_schedule,
    check_positive,
    check_probabilities,
    check_token_id,
)
from .task_balancing import check_task_balancing

# Section 4.1.1: the predicted parts of speech, in this order.
PARTS_OF_SPEECH = (
    "verb",
    "noun",
    "adjective",
    "determiner",
    "adverb",
    "pronoun",
    "preposition",
    "conjunction",
    "interjection",
)
# The one task of plain masked language modelling, for any word.
ANY_WORD = "mlm"
NEXT_SENTENCE = "next_sentence"

_MODELING = "modeling_pos_minimax_bert"
AUTO_MAP = {
    "AutoConfig": "configuration_pos_minimax_bert.PoSMinimaxBertConfig",
    "AutoModel": f"{_MODELING}.PoSMinimaxBertModel",
    "AutoModelForPreTraining": f"{_MODELING}.PoSMinimaxBertForPreTraining",
    "AutoModelForMaskedLM": f"{_MODELING}.PoSMinimaxBertForMaskedLM",
    "AutoModelForSequenceClassification": f"{_MODELING}.PoSMinimaxBertForSequenceClassification",
    "AutoModelForTokenClassification": f"{_MODELING}.PoSMinimaxBertForTokenClassification",
    "AutoModelForQuestionAnswering": f"{_MODELING}.PoSMinimaxBertForQuestionAnswering",
    "AutoModelForMultipleChoice": f"{_MODELING}.PoSMinimaxBertForMultipleChoice",
}


@strict
class PoSMinimaxBertConfig(BertConfig):
    """A `BertConfig` with the tasks of pre-training and the rule that joins their losses.

    The defaults of `BertConfig` are those of the paper's Table 4. A checkpoint of this configuration is one of BERT:
    `BertModel.from_pretrained` and its siblings open it.

    Attributes:
        tasks: Names of the tasks, in the order of the ids that `tasks` gives them in a batch: some of `PARTS_OF_SPEECH`, or
            ["mlm"], plain masked language modelling of any word.
        task_balancing: Rule by which their losses become one, see `models/task_balancing.py`. Losses under two rules cannot
            be compared: minimax's weights add up to 1, those of "none" to the number of tasks that a batch has.
        task_balancing_options: Settings of that method that differ from its defaults (`OPTIONS` there).
        next_sentence_prediction: The second objective of pre-training. "beside": its loss is added to the balanced loss of
            the tasks, with as much weight as all of them together (BERT adds it to a mean over masked words). "inside": it
            is one more task, balanced with them. "none": sequences are single segments.
        masking: Choice of the masked words. "random": those of the data. "guided": in training, as many of every task and length,
            those that the model's first layer attends to (SMA, Xie et al. 2024, Eqs. 3-5; `mask_sampling_pos_minimax_bert.py`);
            in evaluation those of the data.
        num_masked_per_query: Masked pieces for each query of the first layer that "guided" masking draws.
        mask_schedule, mask_schedule_start, mask_schedule_fraction: Way from random to guided masking, over training, as in
            `SMAConfig`; "widen" counts shares of the words of one task and length.

    Raises:
        ValueError: An unknown task, one named twice, or none; options that the balancing method does not have or that have
            no effect; a padding id or sizes that cannot be.
    """

    model_type = "pos_minimax_bert"
    pretraining_data_kind = "masked_text"  # `data.kind` of its pre-training: words masked by their tasks

    tasks: list[str] = field(default_factory=lambda: list(PARTS_OF_SPEECH))
    task_balancing: Literal["none", "minimax", "uncertainty", "gradnorm", "dwa"] = "minimax"
    task_balancing_options: dict[str, Any] | None = None
    next_sentence_prediction: Literal["beside", "inside", "none"] = "beside"
    masking: Literal["random", "guided"] = "random"
    num_masked_per_query: int = 4
    mask_schedule: Literal["none", "mix", "widen"] = "none"
    mask_schedule_start: float | int = 1.0
    mask_schedule_fraction: float | int = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("model_type", None)  # "bert", where a checkpoint of BERT is opened
        # Every class of a checkpoint's code can be reached from it, not only the one that was saved.
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__post_init__(**kwargs)

    @property
    def modality(self) -> str:
        return "tokens"

    @property
    def has_tokens(self) -> bool:
        return True

    @property
    def has_patches(self) -> bool:
        return False

    @property
    def wants_special_tokens(self) -> bool:
        """True: texts and pairs come with the tokenizer's special tokens, [CLS] A [SEP] B [SEP], and `token_type_ids`."""
        return True

    @property
    def wants_words(self) -> bool:
        """Whether masked text says which word a piece belongs to, `words`."""
        return self.masking == "guided"

    @property
    def balanced_tasks(self) -> list[str]:
        """Names of the tasks that the balancing weighs, with next sentence prediction where it is one of them."""
        return [*self.tasks, NEXT_SENTENCE] if self.next_sentence_prediction == "inside" else list(self.tasks)

    @property
    def tasks_beside(self) -> list[str]:
        """Names of the tasks that the balancing does not weigh."""
        return [NEXT_SENTENCE] if self.next_sentence_prediction == "beside" else []

    def validate_tasks(self) -> None:
        unknown = [task for task in self.tasks if task not in PARTS_OF_SPEECH]
        if self.tasks == [ANY_WORD]:
            return
        if not self.tasks or unknown or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(
                f"`tasks` must be different names out of {list(PARTS_OF_SPEECH)}, at least one, or ['{ANY_WORD}'] alone, got "
                f"{self.tasks}."
            )

    def validate_balancing(self) -> None:
        check_task_balancing(self.task_balancing, self.task_balancing_options)

    def validate_masking(self) -> None:
        check_at_least(self, 1, "num_masked_per_query")
        # A group of words has a share of masked ones of its own, which "widen" never goes below.
        check_mask_schedule(self, 0.0)

    def validate_sizes(self) -> None:
        names = ("vocab_size", "max_position_embeddings", "type_vocab_size", "num_hidden_layers", "intermediate_size")
        check_at_least(self, 1, *names)
        check_at_least(self, 0, "initializer_range")
        check_positive(self, "layer_norm_eps")
        check_token_id(self, self.vocab_size, "pad_token_id")
        check_heads(self, "hidden_size", "num_attention_heads")
        if self.next_sentence_prediction != "none" and self.type_vocab_size < 2:
            raise ValueError(
                "`next_sentence_prediction` needs `type_vocab_size` of at least 2, one for each segment, got "
                f"{self.type_vocab_size}: raise it, or set next_sentence_prediction to 'none'."
            )
        if self.is_decoder or self.add_cross_attention:
            raise ValueError(
                "`is_decoder` and `add_cross_attention` must be False, as masked words are predicted from both sides, got "
                f"{self.is_decoder} and {self.add_cross_attention}."
            )
        check_probabilities(self, "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")

"""PoS-BERT: BERT whose masked words are tasks by their part of speech, balanced by a minimax objective (Wang et al.,
"Task-Robust Pre-Training for Worst-Case Downstream Adaptation", https://arxiv.org/abs/2306.12070, section 4.1).

The layers, heads and names of weights are those of transformers' BERT; only the masked words' losses are new. The masked
words and their parts of speech come with the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertPreTrainedModel,
    PreTrainedModel,
)
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    MultipleChoiceModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.models.bert.modeling_bert import (
    BertAttention,
    BertEncoder,
    BertLayer,
    BertOnlyMLMHead,
    BertPreTrainingHeads,
    BertSelfAttention,
)
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .bert_exchange import start_from_bert
from .configuration_pos_minimax_bert import PoSMinimaxBertConfig
from .distributed import with_all_parameters
from .dropout import Dropout
from .guided_masking import AttentionReceived, ChosenQueries, GuidedMasking
from .head_losses import class_loss, sequence_classification_loss, token_classification_loss
from .input_checks import check_attention_mask, check_ids, check_tensors, values_are_readable
from .layers import at_least_float32, padding_mask
from .layers_pos_minimax_bert import (
    PoSMinimaxBertAttention,
    PoSMinimaxBertEncoder,
    PoSMinimaxBertInputLayer,
    PoSMinimaxBertSelfAttention,
)
from .mask_sampling_pos_minimax_bert import MASKS, check_not_guided, guided_text, masked_text, positions_of
from .masked_pieces import IGNORED, MaskedPieces, masked_pieces
from .model_rules import ModelRules
from .task_balancing import BalancingRule, TaskBalancer, TaskPretraining, TaskTotals


@dataclass
class PoSMinimaxBertForMaskedLMOutput(ModelOutput):
    """The result of masked language modelling.

    Attributes:
        loss: Scalar, where there are labels.
        loss_parts: Detached scalars, where there are labels: every task's mean loss over its masked pieces in the whole batch,
            `weight/<task>`, its factor, and `count/<task>`, the number of these pieces.
        logits: (B, N, V), where there are no labels: with them the vocabulary is only projected to at masked pieces.
        hidden_states, attentions: Outputs of BERT's layers, when asked for.
    """

    loss: torch.Tensor | None = None
    loss_parts: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class PoSMinimaxBertForPreTrainingOutput(ModelOutput):
    """The result of masked language modelling and next sentence prediction.

    Attributes:
        loss, loss_parts, hidden_states, attentions: Entries as in masked language modelling; where sentence pairs are labelled,
            the parts of `next_sentence` too.
        prediction_logits: (B, N, V), where there are no labels.
        seq_relationship_logits: (B, 2): the second segment follows the first, or comes from elsewhere.
    """

    loss: torch.Tensor | None = None
    loss_parts: dict[str, torch.Tensor] | None = None
    prediction_logits: torch.Tensor | None = None
    seq_relationship_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class PoSMinimaxBertPreTrainedModel(ModelRules, BertPreTrainedModel):
    """The base of all models here."""

    config: PoSMinimaxBertConfig
    _can_compile_fullgraph = True
    _no_split_modules = ["BertEmbeddings", "BertLayer", "PoSMinimaxBertInputLayer"]
    # A task head that opens a pre-training checkpoint does not use these weights: a warning would be a false alarm.
    _keys_to_ignore_on_load_unexpected = [r"^cls\.", r"^balancer\.", r"^bert\.pooler\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, BalancingRule | GuidedMasking):
            module.reset_state()


class PoSMinimaxBertModel(PoSMinimaxBertPreTrainedModel, BertModel):
    """BERT's encoder. `pooler_output` (B, D) is BERT's: a dense layer and tanh on [CLS].

    Only next sentence prediction trains that layer. Where `next_sentence_prediction` is "none" it keeps its initial weights:
    take the mean of `last_hidden_state` instead.
    """

    # `input_ids` hold the special tokens, whose labels are -100: no prefix has to be cut off.
    num_prefix_tokens = 0

    def __init__(self, config: PoSMinimaxBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config, add_pooling_layer)
        _adapt(self)

    def forward(  # type: ignore[misc]  # `position_ids` are among the keyword arguments too, as in transformers' BERT
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        query_ids: torch.Tensor | None = None,
        chosen: ChosenQueries | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | AttentionReceived:
        """Encode a batch.

        Args:
            input_ids: (B, N) int64.
            attention_mask: (B, N), 1 = real, 0 = padding; None: nothing is padded.
            token_type_ids: (B, N) int64, 0 in the first segment, 1 in the second; None: 0.
            position_ids: (1 or B, N) int64; None: 0 to N - 1.
            inputs_embeds: (B, N, D) instead of `input_ids`.
            query_ids: (B, K) int64: only these places are read of the last layer, the first of which is pooled; None: all.
            chosen: Queries of the first layer: the attention that places receive from them is then all that is computed.

        Returns:
            `last_hidden_state` (B, N, D), or (B, K, D) of `query_ids`; `pooler_output` (B, D).

        Raises:
            ValueError: Neither or both of `input_ids` and `inputs_embeds`; ids or token types of another type, shape or range;
                sequences longer than the position table; or an attention mask of another shape or with rows of padding alone.
        """
        check_tensors({"input_ids": input_ids, "inputs_embeds": inputs_embeds})
        if input_ids is not None:
            check_ids(input_ids, self.config.vocab_size, self.config.max_position_embeddings)
        shape = _shape_of(input_ids, inputs_embeds)
        if attention_mask is not None and attention_mask.dim() == 2:
            check_attention_mask(attention_mask, shape, "token")
        if token_type_ids is not None:
            self._check_token_types(token_type_ids, shape)
        if chosen is not None:
            embedded = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
            is_real = None if attention_mask is None else attention_mask.bool()
            return AttentionReceived(self.encoder.layer[0](embedded, chosen=chosen, is_real=is_real))
        return super().forward(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            query_ids=query_ids,
            **kwargs,
        )

    def _check_token_types(self, token_type_ids: torch.Tensor, shape: tuple[int, ...]) -> None:
        if tuple(token_type_ids.shape) != shape:
            raise ValueError(
                f"`token_type_ids` must have one entry per token, {shape}, got {tuple(token_type_ids.shape)}."
            )
        if values_are_readable(token_type_ids):
            low, high = int(token_type_ids.min()), int(token_type_ids.max())
            if low < 0 or high >= self.config.type_vocab_size:
                raise ValueError(
                    f"`token_type_ids` must lie in [0, type_vocab_size={self.config.type_vocab_size}), got {low} to {high}."
                )

    def _create_attention_masks(
        self,
        attention_mask: torch.Tensor | None,
        encoder_attention_mask: torch.Tensor | None,
        embedding_output: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        past_key_values: Cache | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """BERT's masks, without asking a GPU whether anything is padded."""
        if attention_mask is not None and attention_mask.dim() == 2:
            return padding_mask(self.config, embedding_output, attention_mask), None
        return super()._create_attention_masks(
            attention_mask, encoder_attention_mask, embedding_output, encoder_hidden_states, past_key_values
        )


def _adapt(encoder: BertModel) -> None:
    """Give a BERT encoder and its modules the forward passes of this file.

    The modules stay the same ones: building others would draw every weight a second time.
    """
    kinds: dict[type[nn.Module], type[nn.Module]] = {
        BertModel: PoSMinimaxBertModel,
        BertEncoder: PoSMinimaxBertEncoder,
        BertAttention: PoSMinimaxBertAttention,
        BertSelfAttention: PoSMinimaxBertSelfAttention,
        nn.Dropout: Dropout,
    }
    for module in encoder.modules():
        module.__class__ = kinds.get(type(module), type(module))
    if encoder.config.masking == "guided":
        encoder.encoder.layer[0].__class__ = PoSMinimaxBertInputLayer


def _shape_of(input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> tuple[int, ...]:
    """(B, N) of a batch."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError(
            f"give `input_ids` or `inputs_embeds`, one of the two, got {'neither' if input_ids is None else 'both'}."
        )
    return tuple(input_ids.shape if input_ids is not None else inputs_embeds.shape[:-1])  # type: ignore[union-attr]


class PoSMinimaxBertMaskedModel(TaskPretraining, PoSMinimaxBertPreTrainedModel):
    """The base of the two pre-training models: masked pieces in, one loss per task out.

    The vocabulary is projected to at masked pieces only (the "sparse prediction" of Portes et al. 2023 and of ModernBERT,
    Warner et al. 2024): 0.15 of the head's arithmetic and of its logits' memory.
    """

    _tied_weights_keys = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    _keys_to_ignore_on_load_unexpected = [r"^cls\.seq_relationship\.", r"^balancer\.", r"^bert\.pooler\."]

    _can_compile_fullgraph = False  # shapes depend on how many pieces are masked
    bert: PoSMinimaxBertModel
    cls: BertPreTrainingHeads | BertOnlyMLMHead
    balancer: TaskBalancer

    def __init__(self, config: PoSMinimaxBertConfig) -> None:
        super().__init__(config)
        self.guide = GuidedMasking(config, config.num_attention_heads) if config.masking == "guided" else None

    def get_output_embeddings(self) -> nn.Module:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias

    def compilable_modules(self) -> list[nn.Module]:
        """Modules that `torch.compile` may replace in training: those whose shapes do not depend on the masks."""
        return list(self.bert.encoder.layer)

    def set_training_progress(self, fraction: float) -> None:
        """Move the schedule from random to guided masking: `fraction` of training is done. Called before each step."""
        if self.guide is not None:
            self.guide.set_progress(fraction)

    def reason_against_cuda_graphs(self) -> str:
        return (
            "How many masked pieces it predicts differs from batch to batch, and the CPU must ask the GPU for the number "
            "in every step."
        )

    def warm_start(self, name: str, positions: Literal["same", "drop"]) -> PreTrainedModel:
        """Start from a BERT, heads included (`bert_exchange.start_from_bert`)."""
        return start_from_bert(type(self), self.config, name)

    # gradient accumulation: what one optimiser step's batches must agree on before the first is differentiated

    # Batches have unequal numbers of masked pieces, of each task, and means are over all of them.
    always_measures = True

    def measure_tasks(self, **batch: torch.Tensor | None) -> TaskTotals:
        """The tasks' loss sums of one batch, to be added up over the step and given to `balancer.begin_step`; where the balancing
        needs no losses, counts alone, for which no layer is computed.
        """
        masks = {name: batch.pop(name, None) for name in MASKS}
        sentence_labels = batch.pop("next_sentence_label", None)
        if not self.balancer.needs_losses:
            pieces = self._pieces(batch, masks)
            counts = pieces.is_of_task.sum(0)
            if len(self.balancer.tasks) > len(counts):
                counts = torch.cat([counts, self._sentence_count(sentence_labels, counts)[None]])
            return self.balancer.count(counts)
        batch, pieces = self._guided_pieces(batch, masks)
        outputs, states = self._encode(pieces, batch)
        sums, counts = self._masked_sums(states, pieces)
        if len(self.balancer.tasks) > len(counts):
            sums, counts = self._with_sentences(sums, counts, outputs.pooler_output, sentence_labels)
        return self.balancer.measure(sums, counts, self._shared_weight())

    # Whether [CLS] is read beside masked pieces.
    reads_cls = False

    def _guided_pieces(
        self, inputs: Mapping[str, torch.Tensor | None], masks: Mapping[str, torch.Tensor | None]
    ) -> tuple[dict[str, torch.Tensor | None], MaskedPieces]:
        """The encoder's inputs and the pieces that are scored: the batch's or, in training with masking "guided", those that the
        first layer attends to. Models are compared on the same words.

        `masks` has what `MASKS` names.
        """
        inputs, masks = dict(inputs), dict(masks)
        if self.guide is None:
            check_not_guided(self.config, masks)
        elif self.training:
            text = guided_text(self.guide, self.bert, masked_text(self.config, inputs, masks), inputs, masks)
            inputs["input_ids"], masks["labels"] = text.input_ids, text.labels
            if (places := masks["masked_positions"]) is not None:
                masks["masked_positions"] = positions_of(text.is_masked, places.shape[1])
        return inputs, self._pieces(inputs, masks)

    def _pieces(
        self, inputs: Mapping[str, torch.Tensor | None], masks: Mapping[str, torch.Tensor | None]
    ) -> MaskedPieces:
        shape = _shape_of(inputs.get("input_ids"), inputs.get("inputs_embeds"))
        labels, tasks, places = masks["labels"], masks["tasks"], masks["masked_positions"]
        return masked_pieces(self.config, labels, tasks, places, shape, self.reads_cls)

    def _masked_sums(
        self, states: torch.Tensor, pieces: MaskedPieces
    ) -> tuple[torch.Tensor | list[torch.Tensor], torch.Tensor]:
        """(T,) sums of the tasks' losses in this batch, of the pieces' states (M, D), and (T,) counts of the pieces."""
        counts = pieces.is_of_task.sum(0)
        if self.balancer.takes_gradients:
            # A graph for each task: the T backward passes of GradNorm then cost as much in the head as one over all pieces.
            rows = [is_own.nonzero().flatten() for is_own in pieces.is_of_task.unbind(1)]
            return [self._losses(states[own], pieces.targets[own]).sum() for own in rows], counts
        losses = self._losses(states, pieces.targets)
        return torch.where(pieces.is_of_task, losses[:, None], 0).sum(0), counts

    def _losses(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """(M,) cross entropy, at least in float32, of masked pieces (M, D)."""
        (logits,) = at_least_float32(self.cls.predictions(states))
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")

    def _reach_all(self, loss: torch.Tensor) -> torch.Tensor:
        """`loss`; with untied embeddings plus zero times the head's parameters on several processes (`with_all_parameters`): its
        own bias is not the decoder's then, and nothing reads it."""
        return loss if self.config.tie_word_embeddings else with_all_parameters(loss, self.cls.predictions)

    def _with_sentences(
        self,
        sums: torch.Tensor | list[torch.Tensor],
        counts: torch.Tensor,
        pooled: torch.Tensor | None,
        labels: torch.Tensor | None,
    ) -> tuple[torch.Tensor | list[torch.Tensor], torch.Tensor]:
        """Add next sentence prediction as the last of the tasks; without labelled pairs it is absent."""
        own_sum, own_count = sums[0].new_zeros(()), self._sentence_count(labels, counts)
        if labels is not None and pooled is not None:
            own_sum = self._sentence_sum(pooled, labels)
        counts = torch.cat([counts, own_count[None]])
        return ([*sums, own_sum] if isinstance(sums, list) else torch.cat([sums, own_sum[None]])), counts

    def _sentence_sum(self, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum of the labelled pairs' losses."""
        (logits,) = at_least_float32(cast(BertPreTrainingHeads, self.cls).seq_relationship(pooled))
        return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")

    @staticmethod
    def _sentence_count(labels: torch.Tensor | None, counts: torch.Tensor) -> torch.Tensor:
        return counts.new_zeros(()) if labels is None else (labels != IGNORED).sum()

    def _shared_weight(self) -> torch.Tensor | None:
        return self.weight_to_compare(cast(BertLayer, self.bert.encoder.layer[-1]).output.dense.weight)

    def _encode(
        self,
        pieces: MaskedPieces,
        inputs: Mapping[str, torch.Tensor | None],
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[BaseModelOutputWithPoolingAndCrossAttentions, torch.Tensor]:
        """The encoder's output, and the states (M, D) of the pieces.

        The last layer computes only the rows that are read, unless hidden states or attention weights are asked for.
        """
        places, query_ids = pieces.query_positions, pieces.query_ids
        wants_states = kwargs.get("output_hidden_states", self.config.output_hidden_states)
        if places is None or wants_states or kwargs.get("output_attentions", self.config.output_attentions):
            places, query_ids = pieces.positions, None
        encoded = self.bert(**inputs, query_ids=query_ids, return_dict=True, **kwargs)
        return encoded, encoded[0].flatten(0, 1).index_select(0, places)


class PoSMinimaxBertForPreTraining(PoSMinimaxBertMaskedModel):
    """The paper's two objectives: masked words of each part of speech, and next sentence prediction.

    A plain `Trainer` gives an `eval_loss` where a batch has all of its labels: without `next_sentence_label` set
    `TrainingArguments(label_names=["labels"])`.
    """

    _keys_to_ignore_on_load_unexpected = [r"^balancer\."]
    reads_cls = True
    cls: BertPreTrainingHeads

    def __init__(self, config: PoSMinimaxBertConfig) -> None:
        super().__init__(config)
        self.bert = PoSMinimaxBertModel(config)
        self.cls = BertPreTrainingHeads(config)
        self.balancer = TaskBalancer(
            config.balanced_tasks, config.task_balancing, config.task_balancing_options, config.tasks_beside
        )
        self.post_init()

    @can_return_tuple
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        tasks: torch.Tensor | None = None,
        next_sentence_label: torch.Tensor | None = None,
        masked_positions: torch.Tensor | None = None,
        words: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        query_noise: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> PoSMinimaxBertForPreTrainingOutput:
        """Encode, predict masked pieces, balance their tasks, and judge whether sentences follow each other.

        Args:
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: Inputs of `PoSMinimaxBertModel.forward`.
            labels: (B, N) int64, the original id of each masked piece, -100 elsewhere.
            tasks: (B, N) int64, the place of each piece's task in `config.tasks`; read where there is a label. May be left out
                where there is one task.
            next_sentence_label: (B,) int64, 0 = the second segment follows the first, 1 = it comes from elsewhere, -100 = not
                known. Refused where the configuration has no next sentence prediction.
            masked_positions: (B, K) int64, the places in each row that have a label, ascending, and then -1, as
                `MaskedTextCollator` gives them: with them the CPU need not wait for the GPU. None finds them here.
            words: (B, N) int64, with masking "guided": the number, below N, of each piece's word in its row, below 0 for pieces
                that are never masked. Read in training alone: in evaluation the masks are those of the batch.
            noise, query_noise: (B, N) uniform draws of "guided": of its schedule, and of the queries; drawn here when absent.

        Raises:
            ValueError: The encoder refuses an input; labels, tasks and masked positions of another shape or type; a label of
                no task; words or masked positions that are not those of the labels; sentence labels that nothing reads.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        self._check_sentence_labels(next_sentence_label, labels, inputs)
        loss = loss_parts = logits = None
        if labels is None:
            encoded = self.bert(**inputs, return_dict=True, **kwargs)
            logits = self.cls.predictions(encoded.last_hidden_state)
        else:
            masks = dict(zip(MASKS, (labels, tasks, masked_positions, words, noise, query_noise), strict=True))
            inputs, pieces = self._guided_pieces(inputs, masks)
            encoded, states = self._encode(pieces, inputs, **kwargs)
            loss, loss_parts = self._loss(encoded.pooler_output, states, pieces, next_sentence_label)
        return PoSMinimaxBertForPreTrainingOutput(
            loss=loss,
            loss_parts=loss_parts,
            prediction_logits=logits,
            seq_relationship_logits=self.cls.seq_relationship(encoded.pooler_output),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def _loss(
        self, pooled: torch.Tensor | None, states: torch.Tensor, pieces: MaskedPieces, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        sums, counts = self._masked_sums(states, pieces)
        if len(self.balancer.tasks) > len(counts):
            sums, counts = self._with_sentences(sums, counts, pooled, labels)
        balanced = self.balancer(sums, counts, self._shared_weight())
        loss = self._reach_all(balanced.loss)
        if labels is None:
            assert self.bert.pooler is not None  # `PoSMinimaxBertModel` has one by default
            for module in (self.bert.pooler, self.cls.seq_relationship):
                loss = with_all_parameters(loss, module)
        return loss, self.balancer.loss_parts(balanced)

    def _check_sentence_labels(
        self,
        sentence_labels: torch.Tensor | None,
        labels: torch.Tensor | None,
        inputs: Mapping[str, torch.Tensor | None],
    ) -> None:
        if sentence_labels is None:
            return
        if self.config.next_sentence_prediction == "none":
            raise ValueError(
                "`next_sentence_label` was given, but the configuration's `next_sentence_prediction` is 'none': leave it out, or "
                "set that to 'beside' or 'inside'."
            )
        if labels is None:
            raise ValueError("`next_sentence_label` needs `labels` beside it: the loss is that of both objectives.")
        batch_size, _ = _shape_of(inputs["input_ids"], inputs["inputs_embeds"])
        if tuple(sentence_labels.shape) != (batch_size,) or sentence_labels.dtype != torch.int64:
            raise ValueError(
                f"`next_sentence_label` must be int64, one for each of the {batch_size} sequences, got "
                f"{sentence_labels.dtype} of {tuple(sentence_labels.shape)}."
            )
        if values_are_readable(sentence_labels):
            is_known = (sentence_labels == 0) | (sentence_labels == 1) | (sentence_labels == IGNORED)
            if not is_known.all():
                raise ValueError(
                    f"`next_sentence_label` must be 0, 1 or -100, got {int(sentence_labels[~is_known][0])}."
                )


class PoSMinimaxBertForMaskedLM(PoSMinimaxBertMaskedModel):
    """Masked words of each part of speech alone; without labels, BERT for filling masks."""

    def __init__(self, config: PoSMinimaxBertConfig) -> None:
        super().__init__(config)
        self.bert = PoSMinimaxBertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        # Where next sentence prediction is a task, a checkpoint holds its state: keep it, although it never has a loss here.
        self.balancer = TaskBalancer(config.balanced_tasks, config.task_balancing, config.task_balancing_options)
        self.post_init()

    @can_return_tuple
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        tasks: torch.Tensor | None = None,
        masked_positions: torch.Tensor | None = None,
        words: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        query_noise: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> PoSMinimaxBertForMaskedLMOutput:
        """Encode, and predict masked pieces or, without labels, every piece. Arguments and errors are those of
        `PoSMinimaxBertForPreTraining.forward`."""
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        loss = loss_parts = logits = None
        if labels is None:
            encoded = self.bert(**inputs, return_dict=True, **kwargs)
            logits = self.cls(encoded.last_hidden_state)
        else:
            masks = dict(zip(MASKS, (labels, tasks, masked_positions, words, noise, query_noise), strict=True))
            inputs, pieces = self._guided_pieces(inputs, masks)
            encoded, states = self._encode(pieces, inputs, **kwargs)
            sums, counts = self._masked_sums(states, pieces)
            if len(self.balancer.tasks) > len(counts):
                sums, counts = self._with_sentences(sums, counts, None, None)
            balanced = self.balancer(sums, counts, self._shared_weight())
            loss, loss_parts = self._reach_all(balanced.loss), self.balancer.loss_parts(balanced)
        return PoSMinimaxBertForMaskedLMOutput(
            loss=loss,
            loss_parts=loss_parts,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class PoSMinimaxBertHead(PoSMinimaxBertPreTrainedModel):
    """The base of the task models: transformers' own, with the encoder of this file.

    Their losses are means over what Trainer counts, all processes and accumulated batches.
    """

    bert: BertModel

    def __init__(self, config: PoSMinimaxBertConfig) -> None:
        super().__init__(config)
        _adapt(self.bert)


class PoSMinimaxBertForSequenceClassification(PoSMinimaxBertHead, BertForSequenceClassification):
    """BERT's: a linear layer on the pooled [CLS]."""

    @can_return_tuple
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """`labels`: (B,) class ids, (B,) or (B, 1) values for a regression, (B, num_labels) for several at once, NaN in gaps."""
        inputs = {"position_ids": position_ids, "inputs_embeds": inputs_embeds, "return_dict": True}
        outputs = super().forward(input_ids, attention_mask, token_type_ids, **inputs, **kwargs)
        if labels is not None:
            outputs.loss = sequence_classification_loss(self, outputs.logits, labels, **kwargs)
        return outputs


class PoSMinimaxBertForTokenClassification(PoSMinimaxBertHead, BertForTokenClassification):
    """BERT's: a linear layer on every token."""

    @can_return_tuple
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        """`labels`: (B, N) class ids or values, -100 left out of the loss. Logits are (B, N, num_labels)."""
        inputs = {"position_ids": position_ids, "inputs_embeds": inputs_embeds, "return_dict": True}
        outputs = super().forward(input_ids, attention_mask, token_type_ids, **inputs, **kwargs)
        if labels is not None:
            outputs.loss = token_classification_loss(self, outputs.logits, labels, **kwargs)
        return outputs


class PoSMinimaxBertForQuestionAnswering(PoSMinimaxBertHead, BertForQuestionAnswering):
    """BERT's: the first and the last token of the answer."""

    # Trainer counts no positions, and averages the losses of accumulated batches.
    accepts_loss_kwargs = False


class PoSMinimaxBertForMultipleChoice(PoSMinimaxBertHead, BertForMultipleChoice):
    """BERT's: one score for each choice."""

    @can_return_tuple
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MultipleChoiceModelOutput:
        """`input_ids` and the like are (B, choices, N), `labels` (B,) the right choices. Logits are (B, choices)."""
        inputs = {"position_ids": position_ids, "inputs_embeds": inputs_embeds, "return_dict": True}
        outputs = super().forward(input_ids, attention_mask, token_type_ids, **inputs, **kwargs)
        if labels is not None:
            outputs.loss = class_loss(outputs.logits, labels, **kwargs)
        return outputs

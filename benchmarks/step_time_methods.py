"""What `step_time.py` measures: the methods, their goals, and the models and batches of a training step."""

from dataclasses import dataclass, field
from typing import Any

import torch
from common import RECIPES
from transformers import AutoModelForPreTraining, BertConfig, BertForMaskedLM, PreTrainedConfig

from hf_maskssl.data import build_config
from hf_maskssl.models.modeling_pos_minimax_bert import IGNORED, PoSMinimaxBertForMaskedLM
from hf_maskssl.training import load_pretraining_recipe


@dataclass(frozen=True)
class Method:
    """What of a method is measured.

    Attributes:
        name: also of its results: step_time.json for MetaMAE, step_time_sma.json for SMA.
        shapes: recipe without the method's name -> title.
        variants: name -> title, changes to the recipe.
        baseline: the variant that the others are compared with.
        claim: the variant that has the goal; `goal` and `paper` are its time over the baseline's.
        batch_sizes: device -> shape -> rows in a batch, where it is neither the recipe's nor `CPU_BATCH_SIZE`.
        selection_goal: of a masked model whose choice of masks is timed: the largest share of a step it may take.
        parts: name of the module whose children's share of a step is measured beside the encoder's.
        rest: what takes the time that neither of them does; None does not show it.
        reference: a variant that is another library's model, eager in `parts`; the claim is to be `speed_goal` times as fast,
            in float32 on a CPU.
    """

    name: str
    shapes: dict[str, str]
    variants: dict[str, tuple[str, list[str]]]
    baseline: str
    claim: str
    goal: float
    paper: float | None = None
    batch_sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    selection_goal: float | None = None
    parts: str | None = None
    rest: str | None = None
    reference: str | None = None
    speed_goal: float | None = None

    @property
    def results_name(self) -> str:
        return "step_time" if self.name == "metamae" else f"step_time_{self.name}"

    @property
    def versus(self) -> str:
        return f"{self.variants[self.claim][0]} / {self.variants[self.baseline][0]}"


METHODS = {
    "metamae": Method(
        name="metamae",
        shapes={"pamap2": "PAMAP2", "pfam": "Pfam", "eurosat": "EuroSAT"},
        variants={
            "mae": ("MAE", ["--num_adaptation_steps", "0", "--contrastive_weight", "0.0"]),
            "metamae": ("MetaMAE", []),
            "metamae_first_order": ("first order", ["--first_order", "true"]),
        },
        baseline="mae",
        claim="metamae",
        goal=1.6,
        paper=1.4,  # section 3.3, computational efficiency
    ),
    "sma": Method(
        name="sma",
        shapes={"pfam": "Pfam", "imagenet100": "ImageNet-100"},
        variants={
            # The guided run's ratio: what is compared is the choice of the mask, not how much is encoded.
            "random": ("random", ["--masking", "random"]),
            "guided": ("guided", []),
            "iterative": ("iterative", ["--masking", "iterative"]),
        },
        baseline="random",
        claim="guided",
        goal=1.05,
        batch_sizes={
            "cpu": {"pfam": 4, "imagenet100": 4},
            "cuda": {"pfam": 64, "imagenet100": 32},
        },  # cuda: authors' code
        selection_goal=0.02,  # appendix D: less than 2 % of a step
    ),
    "multimae": Method(
        name="multimae",
        shapes={"imagenet1k": "ImageNet-1K"},
        variants={
            "none": ("none", []),
            "minimax": ("minimax", ["--task_balancing", "minimax"]),
            "uncertainty": ("uncertainty", ["--task_balancing", "uncertainty"]),
            "dwa": ("DWA", ["--task_balancing", "dwa"]),
            "gradnorm": ("GradNorm", ["--task_balancing", "gradnorm"]),
        },
        baseline="none",
        claim="minimax",
        goal=1.02,
        batch_sizes={"cpu": {"imagenet1k": 8}},
        parts="decoders",
    ),
    # BERT-base of the paper's Table 4, which is that of `BertConfig`, without next sentence prediction.
    "pos_bert": Method(
        name="pos_bert",
        shapes={"length128": "length 128", "length512": "length 512"},
        variants={
            "bert": ("BertForMaskedLM", []),
            "none": ("none", []),
            "minimax": ("minimax", []),
            "uncertainty": ("uncertainty", []),
            "dwa": ("DWA", []),
            "gradnorm": ("GradNorm", []),
        },
        baseline="none",
        claim="minimax",
        goal=1.02,
        batch_sizes={"cpu": {"length128": 8, "length512": 2}, "cuda": {"length128": 128, "length512": 32}},
        parts="cls",
        rest="loss and rest",
        reference="bert",
        speed_goal=1.3,
    ),
}
MASKED_SHARE = 0.15
CLS, SEP, MASK, FIRST_WORD = 101, 102, 103, 999  # of BERT's vocabulary


@dataclass
class Trial:
    """A model, its batch, and how it is optimised."""

    model: Any
    batch: dict[str, Any]
    learning_rate: float
    weight_decay: float


def build_trial(method: Method, shape: str, variant: str, batch_size: int) -> Trial:
    """On the CPU; of one shape every variant has the same batch."""
    torch.manual_seed(0)
    if method.name == "pos_bert":
        return build_bert(method, shape, variant, batch_size)
    recipe = load_recipe(method, shape, variant)
    config = build_config(recipe.model)
    model = AutoModelForPreTraining.from_config(config)
    return Trial(model, make_batch(config, batch_size), recipe.training.learning_rate, recipe.training.weight_decay)


def build_bert(method: Method, shape: str, variant: str, batch_size: int) -> Trial:
    """PoS-BERT with the balancing that the variant is called after, or transformers' own BERT."""
    model: Any
    if variant == method.reference:
        model = BertForMaskedLM(BertConfig())
    else:
        config: Any = build_config(
            {"model_type": "pos_minimax_bert", "task_balancing": variant, "next_sentence_prediction": "none"}
        )
        model = PoSMinimaxBertForMaskedLM(config)
    batch = masked_words(model.config, batch_size, int(shape.removeprefix("length")))
    if variant == method.reference:
        del batch["tasks"]
    return Trial(model, batch, learning_rate=2e-4, weight_decay=0.01)


def masked_words(config: PreTrainedConfig, batch_size: int, length: int) -> dict[str, torch.Tensor]:
    """Random pieces between [CLS] and [SEP], equally many masked in every row, of nine tasks at random. Nothing is padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(FIRST_WORD, config.vocab_size, (batch_size, length), generator=generator)
    ids[:, 0], ids[:, -1] = CLS, SEP
    chances = torch.rand(batch_size, length - 2, generator=generator)
    chosen = 1 + chances.topk(round(MASKED_SHARE * (length - 2))).indices
    labels = torch.full_like(ids, IGNORED).scatter(1, chosen, ids.gather(1, chosen))
    tasks = torch.randint(9, ids.shape, generator=generator)
    return {"input_ids": ids.scatter(1, chosen, MASK), "labels": labels, "tasks": tasks}


def load_recipe(method: Method, shape: str, variant: str) -> Any:
    return load_pretraining_recipe(RECIPES / f"{method.name}_{shape}.yaml", method.variants[variant][1])


def random_image(config: PreTrainedConfig, modality: Any, batch_size: int, generator: torch.Generator) -> torch.Tensor:
    size = modality.size(config.native_size)
    if modality.is_categorical:
        return torch.randint(modality.num_classes, (batch_size, *size), generator=generator)
    return torch.randn(batch_size, modality.num_channels, *size, generator=generator)


def make_batch(config: PreTrainedConfig, batch_size: int) -> dict[str, Any]:
    """Random input of the configuration's shape, nothing padded."""
    generator = torch.Generator().manual_seed(0)
    if config.modality == "multimodal":
        return {"inputs": {m.name: random_image(config, m, batch_size, generator) for m in config.inputs()}}
    if config.modality == "tokens":
        ids = torch.randint(config.vocab_size, (batch_size, config.max_position_embeddings), generator=generator)
        return {"input_ids": ids}
    values = torch.randn(batch_size, config.num_channels, *config.signal_shape, generator=generator)
    if config.modality == "series" and getattr(config, "channels_last", False):
        values = values.transpose(1, 2)
    return {"input_values" if config.modality == "series" else "pixel_values": values}

"""Pre-training through Accelerate: recipes, the loop, checkpoints."""

from .pretraining.arguments import PretrainingArguments, PretrainingRecipe, load_pretraining_recipe
from .pretraining.loop import NonFiniteLossError, Pretrainer, RunState, pretrain

__all__ = [
    "NonFiniteLossError",
    "Pretrainer",
    "PretrainingArguments",
    "PretrainingRecipe",
    "RunState",
    "load_pretraining_recipe",
    "pretrain",
]

"""PoS-BERT's pre-training model from a BERT's weights."""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

# Settings that the shapes of BERT's weights do not determine.
SAME_IN_BERT = ("num_attention_heads", "hidden_act", "layer_norm_eps")
SENTENCE_WEIGHTS = ("bert.pooler.", "cls.seq_relationship.")


def start_from_bert(model_class: type[PreTrainedModel], config: PreTrainedConfig, name: str) -> PreTrainedModel:
    """A pre-training model with a BERT's weights, heads included.

    The balancer's memory is new and, without next sentence prediction in the BERT, so are the weights of that task.

    Args:
        model_class: `PoSMinimaxBertForPreTraining`.
        config: Configuration of that class, with the BERT's sizes.
        name: Hub name or folder of a BERT or of another PoS-BERT.

    Raises:
        OSError: There is no model of that name.
        ValueError: The model is no BERT of these sizes.
    """
    saved, own = AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict(), config.to_dict()
    loaded: Any = model_class.from_pretrained(  # transformers' annotation omits the pair
        name, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    start, info = loaded
    new = ("balancer.", *(SENTENCE_WEIGHTS if own["next_sentence_prediction"] == "none" else ()))
    problems = {
        "other settings": [key for key in SAME_IN_BERT if saved.get(key) != own[key]],
        "missing weights": [key for key in info["missing_keys"] if not key.startswith(new)],
        "weights too many": [key for key in info["unexpected_keys"] if not key.startswith(SENTENCE_WEIGHTS)],
        "weights of other shapes": [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]],
    }
    found = ", ".join(f"{what}: {sorted(keys)[:3]}" for what, keys in problems.items() if keys)
    if found:
        raise ValueError(
            f"no BERT of the sizes that the model section gives ({found}): take its sizes, a checkpoint with its pre-training "
            "heads, or, where those of next sentence prediction are missing, model.next_sentence_prediction none."
        )
    return start.train()

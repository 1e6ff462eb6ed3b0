"""Whether a change of the code changes the numbers of claims: three steps of each method on fixed draws.

When a test here fails, results that are committed are no longer those of the code. If the change is meant, raise `revision` in
the claims of the method (benchmarks/claims), which marks their runs as stale, and write the new losses down here.
"""

from typing import Any

import pytest
import torch
from transformers import AutoModelForPreTraining

from hf_maskssl.data import build_config

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "metamae": {
        "model_type": "metamae",
        "modality": "series",
        "series_length": 40,
        "num_channels": 3,
        "patch_size": 4,
        "adaptation_step_size": 5.0,
        **SMALL,
        **DECODER,
    },
    "sma": {
        "model_type": "sma",
        "modality": "tokens",
        "vocab_size": 30,
        "max_position_embeddings": 24,
        "encoder_type": "self_attention",
        "masking": "guided",
        "mask_ratio": 0.3,
        **SMALL,
    },
    "multimae": {
        "model_type": "multimae",
        "modalities": {
            "rgb": {"kind": "continuous", "num_channels": 3, "loss": "mse"},
            "depth": {"kind": "continuous", "num_channels": 1, "loss": "l1"},
        },
        "image_size": 32,
        "patch_size": 8,
        "num_visible_tokens": 8,
        "task_balancing": "minimax",
        **SMALL,
        **DECODER,
    },
    "pos_minimax_bert": {
        "model_type": "pos_minimax_bert",
        "task_balancing": "minimax",
        "next_sentence_prediction": "none",
        "vocab_size": 50,
        "max_position_embeddings": 24,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **SMALL,
    },
}
# Method -> losses of three steps of revision 1 of the claims.
LOSSES: dict[str, list[float]] = {
    "metamae": [3.064615, 2.721106, 1.601142],
    "sma": [3.429979, 3.404941, 3.254576],
    "multimae": [1.680069, 1.755783, 1.682309],
    "pos_minimax_bert": [3.897795, 3.730196, 3.454609],
}


def batch_of(method: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    if method == "metamae":
        return {"input_values": torch.randn(8, 3, 40, generator=generator)}
    if method == "multimae":
        pictures = {
            name: torch.randn(4, channels, 32, 32, generator=generator)
            for name, channels in (("rgb", 3), ("depth", 1))
        }
        return {"inputs": pictures}
    ids = torch.randint(6, 30, (8, 24), generator=generator)
    if method == "sma":
        return {"input_ids": ids}
    is_masked = torch.rand(ids.shape, generator=generator) < 0.3
    tasks = torch.randint(9, ids.shape, generator=generator)
    return {"input_ids": ids.masked_fill(is_masked, 3), "labels": ids.masked_fill(~is_masked, -100), "tasks": tasks}


def losses_of(method: str) -> list[float]:
    torch.manual_seed(0)
    model = AutoModelForPreTraining.from_config(build_config(CONFIGS[method])).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch, losses = batch_of(method), []
    for step in range(3):
        torch.manual_seed(step)
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", list(CONFIGS))
def test_numbers_are_those_of_the_committed_results(method: str) -> None:
    assert losses_of(method) == pytest.approx(LOSSES[method], rel=2e-4), (
        f"{method}: a change of the code changes what its runs give; the head of this file says what to do"
    )

"""Small models with the objectives of DABS, of every modality, with batches and draws. A case is "objective-modality"."""

from typing import Any

import metamae_cases
import torch

from hf_maskssl import MetaMAEConfig, MetaMAEForPretraining

OBJECTIVES = ["emix", "shed", "capri", "mae"]
CASES = [f"{objective}-{case}" for objective in OBJECTIVES for case in metamae_cases.CASES]
CASES = [
    case for case in CASES if not (case.startswith("mae-") and case.endswith("mixed"))
]  # it predicts no categories
# DABS's own encoder, small.
BACKBONE: dict[str, Any] = {
    "position_embeddings": "learned",
    "head_dim": 6,
    "final_norm": False,
    "pool_class_token": True,
}


def small_config(case: str, **changes: Any) -> MetaMAEConfig:
    objective, modality = case.split("-")
    fields = {"objective": objective, "corruption_rate": None if objective == "emix" else 0.4}
    return metamae_cases.small_config(modality, **(fields | changes))


def small_model(case: str, seed: int = 0, **changes: Any) -> MetaMAEForPretraining:
    torch.manual_seed(seed)
    return MetaMAEForPretraining(small_config(case, **changes))


def make_batch(case: str, batch_size: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    return metamae_cases.make_batch(case.split("-")[1], batch_size, seed)


def make_draws(case: str, batch_size: int = 4, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if case.startswith("emix"):
        partners = torch.randperm(batch_size, generator=generator)
        return {"mix_noise": torch.rand(batch_size, generator=generator), "mix_partners": partners}
    return {"noise": torch.rand(batch_size, small_config(case).num_tokens, generator=generator)}

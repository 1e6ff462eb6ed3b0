"""What two processes compute together on gloo, for comparison with one process. Each process runs `work`.

As a program, `two_processes.py FOLDER`, it imports what it needs once and becomes both.
"""

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import balancing_cases
import dabs_cases
import metamae_cases
import multimae_cases
import pos_minimax_bert_cases
import sma_cases
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hf_maskssl.models.distributed import SyncBatchNorm1d, all_gather, all_reduce_sum, global_mean_denominator

BATCH_SIZE = 8
# Name -> the method's cases, one of them, changes of the configuration.
OBJECTIVES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    **{case: (metamae_cases, case, {}) for case in metamae_cases.CASES},
    "guided": (metamae_cases, "padded_tokens", {"masking": "guided", "mask_schedule": "mix"}),
    "guided-holes": (metamae_cases, "holed_image", {"masking": "guided", "num_masked_per_query": 1}),
    "two_steps": (metamae_cases, "image", {"num_adaptation_steps": 2}),
    "first_order": (metamae_cases, "padded_tokens", {"first_order": True}),
    "plain_mae": (metamae_cases, "padded_tokens", {"num_adaptation_steps": 0, "contrastive_weight": 0.0}),
    "linear_decoder": (metamae_cases, "padded_tokens", {"decoder_num_hidden_layers": 0}),
    **{case: (dabs_cases, case, {}) for case in ("emix-series", "emix-padded_tokens")},
    **{f"{name}-padded_tokens": (dabs_cases, f"{name}-padded_tokens", {}) for name in ("shed", "capri", "mae")},
    "capri-batch": (dabs_cases, "capri-padded_tokens", {"capri_negatives": "batch"}),
    "mae-pairs": (dabs_cases, "mae-vision_language", {**dabs_cases.BACKBONE, "dabs_as_released": True}),
    **{
        f"sma-{case}": (sma_cases, case, {})
        for case in ("self-series", "cross-image", *sma_cases.PADDED_CASES, *sma_cases.HOLED_CASES)
    },
    "sma-random": (sma_cases, "padded-self-tokens", {"masking": "random"}),
    "sma-all": (sma_cases, "padded-cross-tokens", {"reconstruct_visible": True}),
    **{f"multimae-{case}": (multimae_cases, case, {}) for case in multimae_cases.CASES},
    **{f"pos-{case}": (pos_minimax_bert_cases, case, {}) for case in pos_minimax_bert_cases.CASES},
}


# e-Mix draws partners among a process's own samples.
PARTNERS = torch.tensor([1, 3, 0, 2])


def share(tensor: Any, rank: int) -> Any:
    """Half of a tensor's rows, or of those of every tensor in a dict."""
    if isinstance(tensor, dict):
        return {name: share(value, rank) for name, value in tensor.items()}
    half = len(tensor) // 2
    return tensor[rank * half : (rank + 1) * half]


def objective_inputs(name: str) -> dict[str, Any]:
    cases, case, _ = OBJECTIVES[name]
    return cases.make_batch(case, BATCH_SIZE) | cases.make_draws(case, BATCH_SIZE)


def unequal(inputs: dict[str, Any]) -> dict[str, Any]:
    """Samples in an order that gives the first half far fewer real tokens than the second."""
    if "presence" in inputs:  # and of one modality none at all
        order = inputs["presence"]["rgb"].long().argsort(stable=True)
        inputs = multimae_cases.rows_of(inputs, order)
        inputs["presence"]["depth"][:4] = True
        inputs["presence"]["rgb"][:4] = False
    if "attention_mask" not in inputs:
        return inputs
    order = inputs["attention_mask"].sum(1).argsort(stable=True)
    return {name: value[order] for name, value in inputs.items()}


def run_objective(name: str, rank: int | None) -> dict[str, torch.Tensor]:
    """Loss, parts, gradients and buffers of a case: of the whole batch, or averaged by DDP over two halves."""
    cases, case, changes = OBJECTIVES[name]
    model = cases.small_model(case, **changes).train()
    inputs = unequal(objective_inputs(name))
    if "mix_partners" in inputs:
        inputs["mix_partners"] = torch.cat([PARTNERS, PARTNERS if rank is not None else PARTNERS + len(PARTNERS)])
    if rank is None:
        outputs = model(**inputs)
    else:
        parallel = DistributedDataParallel(model)  # lives until the backward pass, which its hooks take part in
        outputs = parallel(**{key: share(value, rank) for key, value in inputs.items()})
    outputs.loss.backward()
    found = {"loss": outputs.loss.detach()} | {f"loss_parts.{key}": value for key, value in outputs.loss_parts.items()}
    if rank is not None:
        for value in found.values():
            dist.all_reduce(value)
            value /= 2
    for key, value in model.named_parameters():  # DDP gives zeros to what an objective has no use for
        found[f"gradient.{key}"] = torch.zeros_like(value) if value.grad is None else value.grad
    return found | {f"buffer.{key}": value for key, value in model.named_buffers()}


def collective_inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(6, 4, generator=generator) for name in ("values", "first", "second")}


def run_collectives(rank: int) -> dict[str, torch.Tensor]:
    """Each process has a loss of its own that depends on both processes' values."""
    given = collective_inputs()
    weight = given["first"] if rank == 0 else given["second"]
    found = {}
    values = share(given["values"], rank).clone().requires_grad_()
    gathered = all_gather(values)
    (gathered.sin() * weight).sum().backward()
    found["gathered"], found["gather_gradient"] = gathered.detach(), values.grad
    values = share(given["values"], rank).clone().requires_grad_()
    total = all_reduce_sum(values)
    (total.sin() * share(weight, rank)).sum().backward()
    found["total"], found["reduce_gradient"] = total.detach(), values.grad
    found["denominator"] = global_mean_denominator(torch.tensor([3.0, 8.0][rank]))
    found["denominator_of_nothing"] = global_mean_denominator(torch.tensor(0.0))
    return found


def batch_norm_case(kind: type[nn.BatchNorm1d]) -> tuple[nn.BatchNorm1d, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    norm = kind(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, 3 * torch.randn(8, 3) + 5, torch.randn(8, 3)


def run_batch_norm(rank: int) -> dict[str, torch.Tensor]:
    """Three rows here, five there; training twice, then evaluation."""
    norm, values, weight = batch_norm_case(SyncBatchNorm1d)
    rows = slice(0, 3) if rank == 0 else slice(3, 8)
    mine = values[rows].clone().requires_grad_()
    for _ in range(2):
        output = norm(mine)
    (output.sin() * weight[rows]).sum().backward()
    found = {"output": output.detach(), "gradient": mine.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    found |= {key: value.clone() for key, value in norm.named_buffers()}
    return found | {"evaluated": norm.eval()(values[rows]).detach()}


def run_balancing(rank: int) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """Half of the rows each, in one part or in two, which are measured or only counted first."""
    runs: list[tuple[str, tuple[int, ...], bool]] = [(case, (4,), False) for case in balancing_cases.CASES]
    runs += [("minimax", (1, 3), False), ("gradnorm", (1, 3), False), ("none", (1, 3), True)]
    return [(case, balancing_cases.train(case, parts, rank, counted)) for case, parts, counted in runs]


def work(rank: int, folder: str) -> None:
    """One of the two processes; writes what it found to `folder`/rank.pt."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {
        "collectives": run_collectives(rank),
        "batch_norm": run_batch_norm(rank),
        "balancing": run_balancing(rank),
        "objectives": {name: run_objective(name, rank) for name in OBJECTIVES},
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(rank, sys.argv[1])) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))

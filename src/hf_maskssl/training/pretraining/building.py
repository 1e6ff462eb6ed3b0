"""The parts of a run, built before its first step: accelerator, model, optimiser, schedule."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    parse_flag_from_env,
    set_seed,
)
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForPreTraining, PreTrainedModel, get_scheduler
from transformers.utils import is_torch_tf32_available
from transformers.utils.import_utils import enable_tf32

from ...data.processors import Processor
from ...files import JsonObject
from ...launch import LONGEST_WAIT, check_launch
from ...models.layers import enable_checkpointing
from ...models.pretraining import pretraining_hooks
from ...models.task_balancing import TaskPretraining
from ...recipes import build_config
from .arguments import PretrainingArguments, PretrainingRecipe
from .graphs import check_launch_for_graphs, check_model_for_graphs
from .sharding import choose_units
from .starting import Start


def build_accelerator(args: PretrainingArguments, output_dir: Path) -> Accelerator:
    """The Accelerator, which spreads a run over processes and devices.

    Raises:
        ValueError: A launch, a precision or a tracker that this machine does not offer.
    """
    try:
        accelerator = Accelerator(
            mixed_precision=args.mixed_precision,
            log_with=args.report_to or None,
            kwargs_handlers=[
                # Running statistics are synchronised where they are computed; position tables never change.
                DistributedDataParallelKwargs(broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            ],
            project_dir=str(output_dir),
            # Every `gradient_accumulation_steps` batches are one step, also across the end of an epoch.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=args.gradient_accumulation_steps, sync_with_dataloader=False
            ),
            dataloader_config=DataLoaderConfiguration(
                use_seedable_sampler=True, data_seed=args.seed, non_blocking=args.pin_memory
            ),
            step_scheduler_with_optimizer=False,
        )
    except ValueError as error:
        raise ValueError(
            f"training.report_to={args.report_to} or training.mixed_precision={args.mixed_precision}: {error}"
        ) from error
    check_launch(accelerator.state)
    _refuse_silent_changes(args, accelerator)
    use_tf32(args.tf32, accelerator.device)
    if args.cuda_graphs:
        check_launch_for_graphs(accelerator)
    if accelerator.distributed_type != DistributedType.FSDP:
        # A checkpoint holds the weights once, as save_pretrained writes them.
        accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear())
        accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
    return accelerator


@contextmanager
def accepted_deprecation() -> Iterator[None]:
    """Silence torch's advice to write `broadcast_buffers` in another way, which Accelerate's arguments do not know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        yield


def _refuse_silent_changes(args: PretrainingArguments, accelerator: Accelerator) -> None:
    """Refuse a launch whose settings Accelerate would drop without a warning."""
    device = accelerator.device.type
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and accelerator.distributed_type != DistributedType.FSDP:
        raise ValueError(
            f"the launch asks for FSDP, which Accelerate does not do on the device '{device}': launch without it, as "
            "examples/accelerate/two_cpu_processes.yaml does."
        )
    if accelerator.mixed_precision == "fp16" and device == "cpu":
        raise ValueError("training.mixed_precision 'fp16' needs a GPU, this run is on the CPU: take 'bf16' or 'no'.")
    found = {str(tracker) for tracker in accelerator.log_with}
    absent = [name for name in args.report_to if name not in found and name != "all"]
    if absent:
        raise ValueError(
            f"training.report_to: the package of {', '.join(absent)} is not installed: install it, or leave it out."
        )


def use_tf32(tf32: bool | None, device: torch.device) -> None:
    """Switch TensorFloat-32 on or off for the whole process; `training.tf32`, with the meaning it has in transformers.

    Args:
        tf32: Setting of TensorFloat-32; True switches it on, False off; None leaves torch's.
        device: Device of the run.

    Raises:
        ValueError: `tf32` is true on a device without TensorFloat-32.
    """
    is_available = device.type == "cuda" and is_torch_tf32_available()
    if tf32 and not is_available:
        raise ValueError(
            f"training.tf32: TensorFloat-32 needs an NVIDIA GPU of the Ampere generation or later, this run is on '{device}': "
            "leave it out, or set it to false."
        )
    if tf32 is not None and is_available:
        enable_tf32(tf32)


def build_model(
    recipe: PretrainingRecipe, accelerator: Accelerator, start: Start | None = None, processor: Processor = None
) -> PreTrainedModel:
    """The model of a recipe on the CPU, its weights drawn by `seed`, or what another model gives of them.

    Args:
        recipe: The run.
        accelerator: Processes and devices of the run.
        start: Model that gives weights (`training.init_from`).
        processor: Processor of the data, which knows their words and columns.

    Raises:
        ValueError: A model that cannot be trained as the recipe says.
    """
    args = recipe.training
    set_seed(args.seed)
    model = AutoModelForPreTraining.from_config(build_config(recipe.model))
    if start is not None:
        model = start.give(model, processor)
    hooks = pretraining_hooks(model)
    if accelerator.distributed_type == DistributedType.FSDP:
        reason = hooks.reason_against_fsdp()
        if reason:
            raise ValueError(f"{type(model).__name__} cannot be sharded by FSDP. {reason}")
        if args.gradient_accumulation_steps > 1 and isinstance(model, TaskPretraining):
            raise ValueError(
                f"training.gradient_accumulation_steps={args.gradient_accumulation_steps} under FSDP: "
                f"{type(model).__name__} measures its tasks over all batches of a step outside the forward pass, where "
                "FSDP has not gathered the weights. Raise training.batch_size instead, or train with DDP."
            )
        choose_units(model, accelerator.state.fsdp_plugin)
    else:
        _check_batch_norm(args, model, accelerator.num_processes)
    if args.cuda_graphs:
        check_model_for_graphs(model)
    if args.gradient_checkpointing:
        enable_checkpointing(model)
    if args.torch_compile:
        balancer = model.balancer if isinstance(model, TaskPretraining) else None
        if balancer is not None and balancer.needs_gradients:
            raise ValueError(
                f"training.torch_compile: task_balancing '{balancer.name}' goes back through the layers more than once, "
                "which torch does not do with compiled ones: set one of the two otherwise."
            )
        for module in hooks.compilable_modules():
            module.compile()
    return model


def _check_batch_norm(args: PretrainingArguments, model: PreTrainedModel, num_processes: int) -> None:
    """Refuse batches of one row where a layer normalises over the rows of a batch."""
    if args.batch_size * num_processes > 1:
        return
    names = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    if names:
        raise ValueError(
            f"training.batch_size: expected at least 2, since {type(model).__name__} normalises over the rows of a batch "
            f"(BatchNorm in {names[0]}), got {args.batch_size} on one process."
        )


def build_optimizer(model: PreTrainedModel, args: PretrainingArguments, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over the trained parameters; without `decay_norm_and_bias` in two groups, the second with no weight decay.

    Args:
        model: Model to train.
        args: The recipe's training section.
        device: Device of the parameters during training: on CPU and CUDA one kernel updates all of them.
    """
    groups: list[JsonObject] = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    if not args.decay_norm_and_bias:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        plain = [p for name, p in named if p.ndim < 2 or "token" in name.rsplit(".", 1)[-1]]
        chosen = {id(p) for p in plain}
        groups = [
            {"params": [p for _, p in named if id(p) not in chosen]},
            {"params": plain, "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(
        groups,
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        weight_decay=args.weight_decay,
        fused=device.type in ("cuda", "cpu"),
    )


def build_scheduler(args: PretrainingArguments, optimizer: torch.optim.Optimizer) -> LambdaLR:
    """The learning rate over the run's steps, which begin with `warmup_steps` of a linear rise."""
    return get_scheduler(
        "constant_with_warmup" if args.lr_scheduler_type == "constant" else args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=args.warmup_steps,
        num_training_steps=args.max_steps,
    )

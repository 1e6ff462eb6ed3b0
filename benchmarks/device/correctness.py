"""The methods on a GPU against double precision on the CPU, the authors' vectors, and a resumed run; one JSON line a check.

    python benchmarks/device/correctness.py [--device cuda|cpu] [--seconds 60] [--groups metamae ...] [--output FILE]

Every group has a process of its own, all at once. A line is {"stage", "check", "passed", "value", "bound"}, with `note` where
there is something to say; `passed` is null for what could not be checked here. Bounds: an error in float32 may be `FACTOR`
times that of the CPU's float32 (eager), both against float64 on the CPU, with a floor of some rounding errors. In bf16 the
loss must be within 2 % and the gradient's error within `BF16_FACTOR` times that of the CPU's bf16. Errors of gradients are
those of the whole gradient, |difference| / |gradient| in the 2-norm.
"""

import argparse
import contextlib
import copy
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import RECIPES, ROOT
from records import append
from torch.nn.attention import SDPBackend, sdpa_kernel

FACTOR = 10
FLOORS = {"loss": 1e-6, "gradient": 1e-5}  # float32: 8 and 80 rounding errors
BF16_LOSS = 2e-2  # 5 rounding errors of bf16
BF16_FACTOR = 3
BF16_FLOOR = 2e-2  # of that product
DOUBLE = 1e-9  # of gradients in float64, GPU against CPU
SAME_MASK = 0.99  # of tokens: rounding may turn the order of two nearly equal attention sums
RESUME_STEPS, RESUME_AT = 6, 3
MODEL_GROUPS = ("metamae", "sma", "multimae", "pos_bert")
GROUPS = (*MODEL_GROUPS, "golden", "resume")
NO_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "classifier_dropout")


@dataclass
class Case:
    """A model on the CPU in float32, a batch of it, and all that chance decides."""

    name: str
    model: Any
    batch: dict[str, Any]
    draws: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """What one forward and backward pass gave."""

    loss: float
    gradient: torch.Tensor  # all parameters' in one row, float64 on the CPU
    mask: torch.Tensor | None


@dataclass(frozen=True)
class Way:
    """How a pass is computed.

    Attributes:
        attention: transformers' name of the kernel.
        backend: of sdpa; None lets PyTorch choose.
        compiled: whether the training loop's `torch_compile` applies.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    attention: str = "eager"
    backend: SDPBackend | None = None
    bf16: bool = False
    compiled: bool = False


class Checks:
    """Writes lines; what one check raises does not keep the next from being made."""

    def __init__(self, output: Path, group: str) -> None:
        self.output, self.group = output, group

    def note(self, check: str, passed: bool | None, value: float | None = None, **more: Any) -> None:
        if value is not None and not math.isfinite(value):
            passed, value, more = False, None, {**more, "note": f"the value is {value}"}
        record = {"stage": "correctness", "check": f"{self.group}/{check}", "passed": passed, "value": value, **more}
        append(self.output, record)

    def at_most(self, check: str, value: float, bound: float, **more: Any) -> None:
        self.note(check, value <= bound, value, bound=bound, **more)

    @contextlib.contextmanager
    def attempt(self, check: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the next check is still worth making
            text = f"{type(error).__name__}: {error}"
            is_absent = "No available kernel" in text
            self.note(check, None if is_absent else False, note=text[:1500])


# ---- models and batches


def on(device: str, value: Any, dtype: torch.dtype | None = None) -> Any:
    """A batch on a device, its real numbers in `dtype`."""
    if isinstance(value, dict):
        return {name: on(device, part, dtype) for name, part in value.items()}
    return value.to(device, dtype if value.is_floating_point() else None)


def small_cases(group: str) -> list[Case]:
    """Those of the tests: every modality, padding, lacking modalities, balancing."""
    names = {
        "metamae": ("metamae_cases", ["image", "padded_tokens", "series", "vision_language"]),
        "sma": ("sma_cases", ["self-tokens", "padded-self-series", "cross-image", "padded-cross-tokens"]),
        "multimae": ("multimae_cases", ["lacking", "minimax", "mixed"]),
        "pos_bert": ("pos_minimax_bert_cases", ["minimax-inside", "uncertainty", "gradnorm"]),
    }
    module_name, cases = names[group]
    module = importlib.import_module(module_name)
    return [Case(name, module.small_model(name), module.make_batch(name), module.make_draws(name)) for name in cases]


def paper_case(group: str) -> Case:
    """The paper's model with a few rows, no dropout."""
    from step_time_methods import make_batch, masked_words
    from transformers import AutoModelForPreTraining

    from hf_maskssl.data import build_config
    from hf_maskssl.models.modeling_pos_minimax_bert import PoSMinimaxBertForMaskedLM
    from hf_maskssl.training import load_pretraining_recipe

    recipes = {"metamae": ("metamae_pamap2", 8), "sma": ("sma_pfam", 2), "multimae": ("multimae_imagenet1k", 2)}
    name, rows = recipes.get(group, ("pos_bert_length128", 4))
    if group == "pos_bert":
        settings = {"model_type": "pos_minimax_bert", "task_balancing": "minimax", "next_sentence_prediction": "none"}
    else:
        settings = load_pretraining_recipe(RECIPES / f"{name}.yaml").model
    config: Any = build_config(settings)
    for dropout in NO_DROPOUT:
        if hasattr(config, dropout):
            setattr(config, dropout, 0.0)
    torch.manual_seed(0)
    if group == "pos_bert":
        return Case(name, PoSMinimaxBertForMaskedLM(config), masked_words(config, rows, 128))
    batch, tokens = make_batch(config, rows), config.num_tokens
    generator = torch.Generator().manual_seed(1)
    draws = {"noise": torch.rand(rows, tokens, generator=generator)}
    if group == "metamae":
        draws["nearby_noise"] = torch.rand(rows, tokens, generator=generator)
    if group == "sma":
        chosen = torch.rand(rows, config.num_queries, generator=generator).argsort(1)[:, :4]
        draws["query_mask"] = torch.zeros(rows, config.num_queries, dtype=torch.bool).scatter(1, chosen, True)
    if group == "multimae":
        shares = torch.rand(rows, len(config.inputs()), generator=generator)
        draws |= {
            "proportions": shares / shares.sum(1, keepdim=True),
            "shuffle_noise": torch.rand(rows, tokens, generator=generator),
        }
    return Case(name, AutoModelForPreTraining.from_config(config), batch, draws)


def run(case: Case, way: Way, mask: torch.Tensor | None = None) -> Run:
    """One pass of a copy of the model; `mask` is an SMA's, instead of its own choice."""
    model = copy.deepcopy(case.model).to(way.device, way.dtype).train()
    model.set_attn_implementation(way.attention)
    inputs = on(way.device, case.batch, way.dtype)
    # Draws stay float32: their order decides, and a cast could only lose it.
    inputs |= on(way.device, case.draws) if mask is None else {"is_masked": mask.to(way.device)}
    if way.compiled:
        for module in model.compilable_modules():
            module.compile()
    kernels = contextlib.nullcontext() if way.backend is None else sdpa_kernel(way.backend)
    with kernels:
        with torch.autocast(way.device, torch.bfloat16, enabled=way.bf16):
            output = model(**inputs)
        output.loss.backward()
    zero = torch.zeros(0)
    gradients = [
        (parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
        .detach()
        .cpu()
        .double()
        .flatten()
        for _, parameter in sorted(model.named_parameters())
    ]
    found = getattr(output, "mask", None)
    return Run(
        float(output.loss.detach()),
        torch.cat([zero.double(), *gradients]),
        None if found is None else found.cpu().bool(),
    )


def errors(run: Run, reference: Run) -> dict[str, float]:
    return {
        "loss": abs(run.loss - reference.loss) / abs(reference.loss),
        "gradient": float((run.gradient - reference.gradient).norm() / reference.gradient.norm()),
    }


def check_case(checks: Checks, case: Case, device: str, is_paper: bool) -> None:
    """A model in every way of computing it; the most valuable first, the compiler last."""
    reference, own = None, None
    with checks.attempt(f"{case.name}/reference"):
        reference = run(case, Way(dtype=torch.float64))
        own = {False: errors(run(case, Way()), reference)}
    if reference is None or own is None:
        return
    mask = reference.mask if checks.group == "sma" else None
    ways = {
        "float32/eager": Way(device),
        "float32/sdpa": Way(device, attention="sdpa"),
        "bf16/sdpa": Way(device, attention="sdpa", bf16=True),
        "float64/sdpa": Way(device, torch.float64, attention="sdpa"),
        "bf16/eager": Way(device, bf16=True),
    }
    if device == "cuda":
        ways |= {
            "float32/efficient": Way(device, attention="sdpa", backend=SDPBackend.EFFICIENT_ATTENTION),
            "bf16/flash": Way(device, attention="sdpa", backend=SDPBackend.FLASH_ATTENTION, bf16=True),
            "bf16/efficient": Way(device, attention="sdpa", backend=SDPBackend.EFFICIENT_ATTENTION, bf16=True),
        }
    if is_paper:
        ways |= {
            "float32/compiled": Way(device, attention="sdpa", compiled=True),
            "bf16/compiled": Way(device, attention="sdpa", bf16=True, compiled=True),
        }
    for name, way in ways.items():
        check = f"{case.name}/{name}"
        with checks.attempt(check):
            if way.bf16 and True not in own:
                own[True] = errors(run(case, Way(attention=way.attention, bf16=True), mask), reference)
            found = run(case, way, None if name == "float32/eager" and not is_paper else mask)
            for what, value in errors(found, reference).items():
                cpu = own[way.bf16][what]
                if way.dtype is torch.float64:
                    bound = DOUBLE
                elif way.bf16:
                    bound = BF16_LOSS if what == "loss" else max(BF16_FACTOR * cpu, BF16_FLOOR)
                else:
                    bound = max(FACTOR * cpu, FLOORS[what])
                checks.at_most(f"{check}/{what}", value, bound, cpu=cpu)
    if mask is not None and is_paper:
        with checks.attempt(f"{case.name}/own_mask"):
            drawn = run(case, Way(device)).mask
            assert drawn is not None
            share = float((drawn == mask).double().mean())
            checks.note(f"{case.name}/own_mask", share >= SAME_MASK, share, bound=SAME_MASK)


def check_models(checks: Checks, device: str, with_paper: bool) -> None:
    cases = small_cases(checks.group)
    check_case(checks, cases[0], device, is_paper=False)
    if with_paper:
        with checks.attempt("paper"):
            check_case(checks, paper_case(checks.group), device, is_paper=True)
    for case in cases[1:]:
        check_case(checks, case, device, is_paper=False)


# ---- the authors' vectors


def check_golden(checks: Checks, device: str) -> None:
    """Weights, inputs and draws of the authors' code: their loss and their gradients, on the device."""
    shared = Path(os.environ.get("HF_MASKSSL_SHARED", ROOT.parent / "shared")) / "golden"
    for name in ("metamae_image", "metamae_token", "sma_self", "multimae_pretrain"):
        with checks.attempt(name), tempfile.TemporaryDirectory() as folder:
            if not (shared / f"{name}.safetensors").is_file():
                checks.note(name, None, note=f"{shared} does not hold it")
                continue
            method = name.partition("_")[0]
            golden = read_golden(shared, name)
            tests, model, inputs, gradients = GOLDEN[method](golden, Path(folder))
            model = model.train().to(device)
            output = model(**on(device, inputs))
            output.loss.backward()
            expected = float(golden["loss" if method == "sma" else "total_loss"])
            checks.at_most(f"{name}/loss", abs(float(output.loss.detach()) - expected), tests.VALUES)
            actual = {key: parameter.grad.cpu() for key, parameter in model.named_parameters()}
            worst = max(float((actual[key] - grad).abs().max() / grad.abs().max()) for key, grad in gradients.items())
            checks.at_most(f"{name}/gradient", worst, tests.GRADIENTS)


def read_golden(shared: Path, name: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    case = json.loads((shared / f"{name}.json").read_text(encoding="utf-8"))
    return {**load_file(shared / f"{name}.safetensors"), "case": case}


def golden_metamae(golden: dict[str, Any], folder: Path) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    tests: Any = importlib.import_module("test_conversion")
    checkpoint = tests.save_as_authors(tests.group(golden, "state"), folder / "ckpt-100k.pth")
    tests.conversion.main(["metamae", str(checkpoint), str(folder / "model"), *tests.arguments(golden)])
    model = tests.AutoModelForPreTraining.from_pretrained(folder / "model")
    inputs = {**tests.inputs(model, golden), "noise": golden["draw.0"], "nearby_noise": golden["draw.1"]}
    return tests, model, inputs, tests.conversion_metamae._metamae_state(tests.group(golden, "grad"))


def golden_sma(golden: dict[str, Any], folder: Path) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    tests: Any = importlib.import_module("test_conversion_sma")
    theirs = tests.save_as_authors(folder / "theirs", golden["case"]["config"], tests.group(golden, "state"))
    tests.conversion.main(["sma", str(theirs), str(folder / "model")])
    model = tests.AutoModelForPreTraining.from_pretrained(folder / "model")
    inputs = {**tests.inputs(golden), "query_mask": tests.query_mask(golden)}
    return tests, model, inputs, tests.conversion_sma.rename(tests.group(golden, "grad"))


def golden_multimae(golden: dict[str, Any], folder: Path) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    tests: Any = importlib.import_module("test_multimae_golden")
    torch.save({"model": tests.group(golden, "state")}, folder / "multimae.pth")
    heads = {"num_attention_heads": 4, "decoder_num_attention_heads": 4}
    model = tests.convert_file(folder / "multimae.pth", num_visible_tokens=14, **heads).model
    inputs = {"inputs": tests.group(golden, "input"), **tests.draws(golden)}
    return tests, model, inputs, tests.rename(tests.group(golden, "grad"), model.config)


GOLDEN: dict[str, Callable[..., tuple[Any, Any, dict[str, Any], dict[str, Any]]]] = {
    "metamae": golden_metamae,
    "sma": golden_sma,
    "multimae": golden_multimae,
}

# ---- a resumed run


def check_resume(checks: Checks, device: str) -> None:
    """The weights of a run that went on from a checkpoint are, bit for bit, those of one that was not interrupted."""
    import shutil

    from accelerate.state import AcceleratorState, GradientState

    runs: Any = importlib.import_module("runs")
    dropout = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}
    cases = {
        "metamae": ({"model": dropout}, None),
        "metamae_bf16": ({"model": dropout}, "bf16"),
        "sma": ({"model": runs.SMA_MODEL}, None),
        "metamae_compiled": ({"model": dropout, "torch_compile": True}, None),
    }
    for name, (fields, precision) in cases.items():
        for is_deterministic in (False, True):
            check = f"{name}/{'deterministic' if is_deterministic else 'as_it_is'}"
            with checks.attempt(check), tempfile.TemporaryDirectory() as folder:
                torch.use_deterministic_algorithms(is_deterministic, warn_only=True)
                whole, resumed = Path(folder) / "whole", Path(folder) / "resumed"
                settings: dict[str, Any] = {"max_steps": RESUME_STEPS, "save_steps": RESUME_AT, **fields}
                settings["mixed_precision"] = precision
                for output, is_resumed in ((whole, False), (resumed, True)):
                    AcceleratorState._reset_state(reset_partial_state=True)
                    GradientState._reset_state()
                    if is_resumed:  # as if the run had ended at RESUME_AT
                        shutil.copytree(whole, resumed)
                        shutil.rmtree(resumed / f"checkpoint-{RESUME_STEPS:08d}")
                        (resumed / "model.safetensors").unlink()
                    trainer, _ = runs.train(runs.make_recipe(output, resume=is_resumed, **settings))
                first, second = runs.weights(whole), runs.weights(resumed)
                different = [key for key in first if not torch.equal(first[key], second[key])]
                used = trainer.accelerator.device.type
                note = f"on {used}; different: {', '.join(different)[:300] or 'none'}"
                checks.note(check, not different and used == device, float(len(different)), bound=0, note=note)


# ---- processes


def find_tests() -> None:
    """The checks take their small models, golden vectors and runs from the tests."""
    sys.path += sorted({str(path.parent) for path in (ROOT / "tests").rglob("*.py")})


def run_group(group: str, device: str, output: Path, with_paper: bool) -> None:
    find_tests()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // len(GROUPS)))
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    checks = Checks(output, group)
    began = time.perf_counter()
    if group == "golden":
        check_golden(checks, device)
    elif group == "resume":
        check_resume(checks, device)
    else:
        check_models(checks, device, with_paper)
    checks.note("end", True, note=f"all checks of the group made in {time.perf_counter() - began:.0f} s")


def run_all(options: argparse.Namespace) -> None:
    """Every group in a process; those that are not ready in time are ended, and that is written down."""
    deadline = time.monotonic() + (options.seconds if options.until is None else options.until - time.time())
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    processes = {}
    for group in options.groups:
        words = ["--device", options.device, "--output", str(options.output), "--only", group]
        words += ["--small"] if options.small else []
        processes[group] = subprocess.Popen([sys.executable, __file__, *words], env=environment)
    for group, process in processes.items():
        checks = Checks(options.output, group)
        try:
            if code := process.wait(timeout=max(0.1, deadline - time.monotonic())):
                checks.note("end", False, note=f"its process ended with code {code}")
        except subprocess.TimeoutExpired:
            process.kill()
            checks.note("end", None, note="cut off at the end of the time; the checks above stand")
    summarize(options.output)


def summarize(output: Path) -> None:
    lines = output.read_text(encoding="utf-8").splitlines() if output.is_file() else []
    records = [json.loads(line) for line in lines]
    outcomes = [record["passed"] for record in records]
    print(f"{outcomes.count(True)} passed, {outcomes.count(False)} failed, {outcomes.count(None)} not checked")
    for record in records:
        if not record["passed"]:
            note = str(record.get("note", "")).replace("\n", " ")[:200]
            state = "failed" if record["passed"] is False else "not checked"
            print(f"{state}: {record['check']} {record.get('value')} (bound {record.get('bound')}) {note}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--until", type=float, help="seconds since 1970, instead of --seconds")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "device" / "correctness.jsonl")
    parser.add_argument("--small", action="store_true", help="without the papers' sizes: for a rehearsal")
    parser.add_argument("--only", choices=GROUPS, help="in this process")
    options = parser.parse_args()
    if options.only is not None:
        run_group(options.only, options.device, options.output, not options.small)
    else:
        run_all(options)


if __name__ == "__main__":
    main()

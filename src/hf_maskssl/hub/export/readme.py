"""The card of an export: how to run it without this package, on samples of one's own."""

from pathlib import Path

from transformers import PreTrainedConfig

from ...data.processors import Processor, split_processor
from ...files import JsonObject, JsonView, write_whole
from ...methods.optional_fields import trains_pooler
from ...models.feature_extraction_series import SeriesFeatureExtractor
from ...models.image_processing_array import ArrayImageProcessor
from ...models.standardization import SAMPLE_EPSILON
from .shapes import MASK

CARD = "README.md"
RUNS_WITH = {
    "onnx": "onnxruntime and NumPy alone",
    "torch-export": "torch alone",
    "vit": "transformers alone",
}
SIZES = {"batch": 2, "choices": 3}  # sizes of the card's samples, where they are free


def write_readme(folder: Path, description: JsonObject, config: PreTrainedConfig, processor: Processor) -> None:
    """Write README.md of an export.

    Args:
        folder: Folder of the export.
        description: Content of export.json.
        config: Configuration of the model.
        processor: Processor of the checkpoint.
    """
    text = readme(description, config, processor)
    write_whole(folder / CARD, lambda aside: aside.write_text(text, encoding="utf-8"))


def readme(description: JsonView, config: PreTrainedConfig, processor: Processor) -> str:
    """The text of README.md: what the files are, the code to run them, inputs and outputs."""
    kind = description["format"]
    code = {"onnx": _onnx_code, "torch-export": _torch_code, "vit": _vit_code}[kind](description, config, processor)
    return "\n".join(
        [
            f"# {description['model']}, exported ({kind})",
            "",
            f"The {_words(description['head'])} of `{description['checkpoint']}`. It runs with {RUNS_WITH[kind]}:",
            "",
            "```python",
            *code,
            "```",
            "",
            *_tables(description),
            "",
            f"Checked on inputs of other sizes: at most {description['check']['largest_difference']:.1e} from the model.",
            "`export.json` says all this to programs, and which versions wrote it.",
            "",
        ]
    )


def _onnx_code(description: JsonView, config: PreTrainedConfig, processor: Processor) -> list[str]:
    return _with_imports(
        ["import numpy as np", "import onnxruntime"],
        [
            'session = onnxruntime.InferenceSession("model.onnx")',
            *_input_lines(description, config, processor),
            "found = session.run(None, inputs)",
            "outputs = dict(zip([each.name for each in session.get_outputs()], found))",
            *_output_lines(description, config, "outputs"),
        ],
    )


def _torch_code(description: JsonView, config: PreTrainedConfig, processor: Processor) -> list[str]:
    lines = ["inputs = {name: torch.from_numpy(value) for name, value in inputs.items()}"]
    if any("." in entry["name"] for entry in description["inputs"]):
        lines.append('inputs = {"inputs": {name.partition(".")[2]: value for name, value in inputs.items()}}')
    return _with_imports(
        ["import numpy as np", "import torch"],
        [
            'program = torch.export.load("model.pt2").module()',
            *_input_lines(description, config, processor),
            *lines,
            "with torch.no_grad():",
            "    outputs = {name: value.numpy() for name, value in program(**inputs).items()}",
            *_output_lines(description, config, "outputs"),
        ],
    )


def _vit_code(description: JsonView, config: PreTrainedConfig, processor: Processor) -> list[str]:
    is_metamae = config.model_type == "metamae"
    state = "last_hidden_state" if is_metamae or config.to_dict()["final_norm"] else "hidden_states[-1]"
    pooled = "[:, 1:].mean(1)" if is_metamae else "[:, 0]"
    return _with_imports(
        ["import numpy as np", "import torch", "from transformers import ViTModel"],
        [
            'encoder = ViTModel.from_pretrained(".", add_pooling_layer=False).eval()',
            *_input_lines(description, config, processor),
            'pixel_values = torch.from_numpy(inputs["pixel_values"])',
            "with torch.no_grad():",
            f"    tokens = encoder(pixel_values, output_hidden_states=True).{state}",
            f"features = tokens{pooled}  # (2, {config.hidden_size})",
            "print(features.shape)",
        ],
    )


def _with_imports(imports: list[str], lines: list[str]) -> list[str]:
    """Code with its imports, and export.json where the code reads it."""
    if not any("export[" in line for line in lines):
        return [*imports, "", *lines]
    return ["import json", "", *imports, "", 'export = json.load(open("export.json", encoding="utf-8"))', *lines]


def _input_lines(description: JsonView, config: PreTrainedConfig, processor: Processor) -> list[str]:
    """Lines that make `inputs` of two samples: raw values prepared where that is a line or two, otherwise prepared ones."""
    numeric = split_processor(processor)[0]
    lines: list[str] = []
    entries: list[str] = []
    named = [entry["name"] for entry in description["inputs"]]
    for entry in description["inputs"]:
        name, shape = entry["name"], [SIZES.get(size, size) for size in entry["shape"]]
        if description["length"] is not None:
            shape = [description["length"]["max"] if size == "length" else size for size in shape]
        if name.partition(".")[0] == MASK:
            entries.append(f'    "{name}": {_mask_value(lines, shape)},  # False: missing')
        elif isinstance(numeric, SeriesFeatureExtractor | ArrayImageProcessor) and name in numeric.model_input_names:
            lines += _prepared_lines(numeric, shape, MASK in named)
            entries.append(f'    "{name}": values.astype(np.float32),')
        elif entry["dtype"] == "int64":
            is_mask = name == "attention_mask"
            value = (
                f"np.ones({tuple(shape)}, dtype=np.int64)" if is_mask else f"np.zeros({tuple(shape)}, dtype=np.int64)"
            )
            note = "1: real, 0: padding" if is_mask else _ids_note(name)
            entries.append(f'    "{name}": {value},  # {note}')
        else:
            entries.append(f'    "{name}": np.zeros({tuple(shape)}, dtype=np.float32),  # prepared as in training')
    return [*lines, "inputs = {", *entries, "}"]


def _mask_value(prepared: list[str], shape: list[int]) -> str:
    """Code of a mask: of the prepared values, where lines prepare them, otherwise of ones."""
    return "~np.isnan(values)" if prepared else f"np.ones({tuple(shape)}, dtype=bool)"


def _ids_note(name: str) -> str:
    if name == "token_type_ids":
        return "0: first text, 1: second"
    if name == "input_ids":
        return "your ids; those of a text: tokenizer.json"
    return "your classes"


def _prepared_lines(
    processor: SeriesFeatureExtractor | ArrayImageProcessor, shape: list[int], with_gaps: bool
) -> list[str]:
    """Lines that turn raw samples into `values`, as the processor does; NaN in them is a missing value where there are gaps."""
    series = processor if isinstance(processor, SeriesFeatureExtractor) else None
    is_image, is_last = series is None, series is not None and series.channels_last
    raw = [shape[0], shape[2], shape[1]] if is_last else shape
    axes = "samples, channels, rows, columns" if is_image else "samples, channels, steps"
    lines = [
        f"samples = np.random.default_rng(0).random({tuple(raw)})  # yours: {axes}"
        + (", NaN: missing" if with_gaps else ""),
        'settings = export["preprocessing"]',
        'values = samples * settings["scale"]',
    ]
    if processor.standardize == "sample":
        over, nan = "(2, 3)" if is_image else "2", "nan" if with_gaps else ""
        lines += [
            f"spread = np.{nan}std(values, {over}, keepdims=True) + {SAMPLE_EPSILON}",
            f"values = (values - np.{nan}mean(values, {over}, keepdims=True)) / spread",
        ]
    elif processor.standardize == "dataset" and processor.mean is not None:
        by_feature = series is not None and series.statistics_axis == "feature"
        places = "-1" if by_feature else "(-1, 1, 1)" if is_image else "(-1, 1)"
        lines += [
            f'mean = np.reshape(settings["mean"], {places})',
            f'values = (values - mean) / np.reshape(settings["std"], {places})',
        ]
    return [*lines, "values = values.transpose(0, 2, 1)"] if is_last else lines


def _output_lines(description: JsonView, config: PreTrainedConfig, name: str) -> list[str]:
    head = description["head"]
    outputs = {entry["name"]: entry for entry in description["outputs"]}
    if head == "encoder":
        return _feature_lines(description, config, outputs)
    if "predicted_depth" in outputs:
        return [f'depth = {name}["predicted_depth"]  # in the labels\' unit', "print(depth.shape)"]
    if "reconstruction" in outputs:
        return [f'values = {name}["reconstruction"]  # in the labels\' unit', "print(values.shape)"]
    if "start_logits" in outputs:
        return [
            f'starts, ends = {name}["start_logits"].argmax(-1), {name}["end_logits"].argmax(-1)',
            "print(starts, ends)",
        ]
    logits = f'{name}["logits"]'
    if head == "semantic_segmentation":
        return [f'classes = {logits}.argmax(1)  # export["labels"] names them', "print(classes.shape)"]
    if head in ("sequence_classification", "image_classification"):
        if description["labels"] is None:
            return [f"values = {logits}[:, 0]  # in the labels' unit", "print(values)"]
        return [f'names = [export["labels"][number] for number in {logits}.argmax(-1)]', "print(names)"]
    note = "  # the number of each row's choice" if head == "multiple_choice" else ""
    return [f"chosen = {logits}.argmax(-1){note}", "print(chosen.shape)"]


def _feature_lines(description: JsonView, config: PreTrainedConfig, outputs: JsonView) -> list[str]:
    shown = f"  # (2, {config.hidden_size})"
    if "pooler_output" in outputs and trains_pooler(config):
        return [f'features = outputs["pooler_output"]{shown}', "print(features.shape)"]
    return [
        'is_real = np.asarray(inputs["attention_mask"])[..., None]',
        'features = (outputs["last_hidden_state"] * is_real).sum(1) / is_real.sum(1)' + shown,
        "print(features.shape)",
    ]


def _tables(description: JsonView) -> list[str]:
    """What goes in and comes out."""
    lines = ["| input | type | shape |", "|---|---|---|"]
    for entry in description["inputs"]:
        lines.append(f"| `{entry['name']}` | {entry['dtype']} | {', '.join(map(str, entry['shape']))} |")
    length = description["length"]
    sizes = dict.fromkeys(size for entry in description["inputs"] for size in entry["shape"] if size in SIZES)
    free = " and ".join(f"`{size}`" for size in sizes) + (" is free" if len(sizes) == 1 else " are free")
    if length is not None:
        step = "" if length["multiple_of"] == 1 else f", a multiple of {length['multiple_of']}"
        free = f"`length` is at most {length['max']}{step}; {free}"
    lines += ["", f"{free}."] if sizes else []
    names = ", ".join(f"`{entry['name']}`" for entry in description["outputs"])
    return [*lines, "", f"It gives {names}."]


def _words(head: str) -> str:
    return head if head == "encoder" else f"{head.replace('_', ' ')} model"

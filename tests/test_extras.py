"""The package without its extras: encoders are loaded and give features; what is missing is named with its extra."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import hf_maskssl

EXTRAS = ("sklearn", "scikit_learn", "scipy", "matplotlib", "nltk", "rdkit", "tensorboard", "onnx", "peft", "optuna")
EXTRAS += ("xgboost", "rtdl_revisiting_models", "pytorch_tabnet")
FEATURES = """
import json, sys, torch
from transformers import AutoModel
import hf_maskssl
from hf_maskssl.data import data_arguments, prepare_data
from hf_maskssl.evaluation.features import extract_features

torch.manual_seed(0)
config = hf_maskssl.MetaMAEConfig(
    modality="series", num_channels=1, series_length=6, patch_size=2, hidden_size=8, num_hidden_layers=1,
    num_attention_heads=2, intermediate_size=8, decoder_hidden_size=8, decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2, decoder_intermediate_size=8,
)
hf_maskssl.MetaMAEForPretraining(config).save_pretrained("encoder")
encoder = AutoModel.from_pretrained("encoder").eval()
with open("rows.jsonl", "w") as file:
    file.writelines(json.dumps({"values": [row + step for step in range(6)]}) + "\\n" for row in range(5))
args = data_arguments("json", kind="tabular", data_files="rows.jsonl", input_column="values")
prepared = prepare_data(args, config)
found = extract_features(encoder, prepared.train, prepared.collator)
assert found.values.shape == (5, 8), found.values.shape
print("features of", len(found.values), "rows")
"""


# Statement -> the error that names the missing extra.
MISSING = {
    "import hf_maskssl.training": 'Training needs matplotlib, .*pip install "hf_maskssl\\[train\\]"',
    "import hf_maskssl.evaluation.probe": 'needs scipy, .*pip install "hf_maskssl\\[train\\]"',
    "import hf_maskssl.pictures.masks": 'Drawing needs matplotlib, .*pip install "hf_maskssl\\[train\\]"',
    "from hf_maskssl.data import *; load_splits(data_arguments(kind='image'))": (
        "data.source 'digits' needs sklearn, .*hf_maskssl\\[train\\]"
    ),
    "from hf_maskssl.data.masked_text.pos_tagging import word_spans as w; w('a b')": (
        'needs nltk, .*pip install "hf_maskssl\\[text\\]"'
    ),
    "from hf_maskssl.hub.export.programs import check_packages; check_packages('onnx')": (
        'Exporting to ONNX needs onnx, .*pip install "hf_maskssl\\[export\\]"'
    ),
    "verb('probe')": 'error: .* needs matplotlib, .*pip install "hf_maskssl\\[train\\]"',
    "from hf_maskssl.evaluation.arguments import check_library_models as c; c(['mlp', 'resnet'])": (
        'The baseline resnet needs rtdl_revisiting_models, .*pip install "hf_maskssl\\[baselines\\]"'
    ),
    "from hf_maskssl.data.tables.scaffolds import _rdkit; _rdkit()": "scaffold split needs rdkit, .*\\[chem\\]",
}
REPORT = """
import contextlib, io
from hf_maskssl.commands import main

def verb(name):
    sys.argv = ["hf-maskssl", name, "digits"]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main()
        except SystemExit:
            raise ImportError(said.getvalue())

messages = {}
for statement in STATEMENTS:
    try:
        exec(statement)
        messages[statement] = "nothing was missed"
    except ImportError as error:
        messages[statement] = str(error)
print(json.dumps(messages))
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a process printed that finds every installed package but those of the extras."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("work")
    for name in ("purelib", "platlib"):
        for path in Path(sysconfig.get_path(name)).iterdir():
            is_extra = path.name.lower().startswith(EXTRAS) or path.suffix == ".pth"
            if not is_extra and not (site / path.name).exists():
                (site / path.name).symlink_to(path)
    source = Path(hf_maskssl.__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), str(site)]), "OMP_NUM_THREADS": "1"}
    code = FEATURES + REPORT.replace("STATEMENTS", repr(list(MISSING)))
    command = [sys.executable, "-S", "-c", code]  # -S: without the site-packages of this interpreter
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.splitlines()


def test_an_encoder_gives_features_without_any_extra(printed: list[str]) -> None:
    assert "features of 5 rows" in printed


@pytest.mark.parametrize(
    "statement",
    MISSING,
    ids=["training", "probe", "pictures", "digits", "nltk", "export", "verb", "baselines", "rdkit"],
)
def test_what_is_missing_is_named_with_its_extra(statement: str, printed: list[str]) -> None:
    assert re.search(MISSING[statement], json.loads(printed[-1])[statement])

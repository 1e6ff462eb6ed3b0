"""`hf-maskssl doctor`: what is installed here, and what a report of a fault should say."""

import importlib.metadata
import platform
import re
import textwrap
from pathlib import Path

import huggingface_hub.constants
import torch
from datasets.config import HF_DATASETS_CACHE

from ..scripts import OneLineErrors
from ..version import __version__

REQUIREMENT = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?.*?(?:;.*\bextra\s*==\s*['\"]([\w-]+)['\"].*)?$")
HIDDEN_EXTRAS = ("dev", "docs")
WIDTH = 80


def requirements() -> dict[str, list[str]]:
    """Extra ("" for what every use needs) -> packages that the installed package asks for."""
    found: dict[str, list[str]] = {}
    for text in importlib.metadata.requires("hf-maskssl") or []:
        match = REQUIREMENT.match(text)
        if match and (match[2] or "") not in HIDDEN_EXTRAS and match[1] != "hf-maskssl":
            found.setdefault(match[2] or "", []).append(match[1])
    return found


def installed(package: str) -> str:
    """Version of a package, or that it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def main() -> None:
    """Print versions, device, extras and cache folders."""
    OneLineErrors(
        description="Versions, device, extras found and missing, and cache folders of this machine."
    ).parse_args()
    print(f"hf_maskssl {__version__}, Python {platform.python_version()}\n{platform.platform()}")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        print(f"device: {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory:.0f} GiB each")
    else:
        print(f"device: CPU, {torch.get_num_threads()} threads; torch sees no CUDA GPU")
    for extra, packages in requirements().items():
        title = f"extra [{extra}]" if extra else "needed"
        versions = ", ".join(f"{package} {installed(package)}" for package in packages)
        advice = f'; pip install "hf_maskssl[{extra}]"' if extra and "missing" in versions else ""
        print(textwrap.fill(f"{title}: {versions}{advice}", WIDTH, subsequent_indent="  "))
    for name, folder in (("models", huggingface_hub.constants.HF_HUB_CACHE), ("data sets", HF_DATASETS_CACHE)):
        print(f"cache of {name}: {folder}{'' if Path(folder).exists() else ' (not there yet)'}")

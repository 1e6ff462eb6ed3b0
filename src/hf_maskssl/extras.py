"""Packages that only some uses need, as extras of pyproject.toml; an error names the extra that is missing."""

# Package, as it is imported -> the extra that brings it.
EXTRA_OF = dict.fromkeys(("matplotlib", "scipy", "sklearn"), "train") | {
    "nltk": "text",
    "rdkit": "chem",
    "tensorboard": "trackers",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "peft": "peft",
    "optuna": "search",
    "codecarbon": "energy",
    "umap": "map",
    "gradio": "demo",
    "rtdl_revisiting_models": "baselines",
    "xgboost": "baselines",
    "pytorch_tabnet": "baselines",
    "h5py": "prepare",
    "tifffile": "prepare",
}


def extra_of(error: Exception) -> str | None:
    """The extra whose package an import has not found; None for all other errors."""
    return EXTRA_OF.get((error.name or "").partition(".")[0]) if isinstance(error, ImportError) else None


def missing_extra(use: str, extra: str, error: ImportError) -> ImportError:
    """The error that names the package to install.

    Args:
        use: Beginning of a sentence, which names the use of the package.
        extra: Name of the extra that brings it, such as "train".
        error: Error of the failed import.
    """
    package = (error.name or str(error)).partition(".")[0]
    return ImportError(
        f'{use} needs {package}, which cannot be imported: pip install "hf_maskssl[{extra}]"', name=error.name
    )

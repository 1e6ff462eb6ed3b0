"""Packages that only some uses need, as extras of pyproject.toml; an error names the extra that is missing."""


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

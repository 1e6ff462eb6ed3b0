"""Packages that only some uses need: the extras of pyproject.toml, named where one is missing."""


def missing_extra(use: str, extra: str, error: ImportError) -> ImportError:
    """The error that names what to install.

    Args:
        use: What needs the package, as the beginning of a sentence.
        extra: The extra that brings it, such as "train".
        error: As importing it gave.
    """
    package = (error.name or str(error)).partition(".")[0]
    return ImportError(
        f'{use} needs {package}, which cannot be imported: pip install "hf_maskssl[{extra}]"', name=error.name
    )

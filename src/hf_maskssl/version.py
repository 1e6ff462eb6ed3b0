"""The package's version, apart so that building the package imports nothing else."""

__version__ = "0.2.0"

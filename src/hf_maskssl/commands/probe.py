"""`hf-maskssl probe`: linear and nearest-neighbour probes on the frozen features of saved encoders."""

from ..evaluation.evaluate_checkpoint import main

__all__ = ["main"]

"""Pre-training through Accelerate: recipe, building, the loop, checkpoints."""

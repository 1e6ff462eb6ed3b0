"""Fine-tuning through Trainer: recipe, the runs over seeds and learning rates, scores, results, baselines."""

"""What frozen features are worth: extraction, probes, metrics, intervals and reports."""

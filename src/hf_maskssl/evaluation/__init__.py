"""What frozen features are worth: extraction, probes, metrics, intervals, pictures and reports."""

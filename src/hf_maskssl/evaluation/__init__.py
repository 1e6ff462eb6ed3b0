"""Measuring frozen features: extraction, probes, metrics, intervals and reports."""

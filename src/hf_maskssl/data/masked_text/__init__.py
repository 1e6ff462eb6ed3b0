"""Masked words: parts of speech, sentences and documents, which pieces are masked, rows and batches."""

"""Makers of data sets: pseudo labels for pictures, parts of speech for text; both continue an interrupted run."""

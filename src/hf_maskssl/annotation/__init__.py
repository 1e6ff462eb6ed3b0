"""Makers of data sets: pseudo labels for pictures, parts of speech for text; both resume what was stopped."""

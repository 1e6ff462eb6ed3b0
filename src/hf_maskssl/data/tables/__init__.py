"""Rows and columns: sources that are read, splits, columns, labels, prepared rows and their cache."""

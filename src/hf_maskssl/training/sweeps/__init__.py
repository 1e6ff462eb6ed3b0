"""Sweeps: the runs of a grid or a list of changes to a recipe, with one table and one plot."""

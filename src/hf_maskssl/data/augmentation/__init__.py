"""Augmentation of training pictures: colours and shapes, drawn by row, epoch and seed."""

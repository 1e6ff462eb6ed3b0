"""The papers' data sets, made from the files of their original releases: one record each, one way to prepare them."""

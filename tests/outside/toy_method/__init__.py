"""A method that hf_maskssl does not know: what another package has to write."""

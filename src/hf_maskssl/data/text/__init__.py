"""Text as it is: reading it, tokenizers, packing, and what a tokenizer does not know."""

"""Text in its raw form: reading it, tokenizers, packing, and text unknown to a tokenizer."""

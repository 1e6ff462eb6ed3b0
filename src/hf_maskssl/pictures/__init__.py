"""Pictures: curves, reconstructions, masks, modalities, fine-tuned predictions."""

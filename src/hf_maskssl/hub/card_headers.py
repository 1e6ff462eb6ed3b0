"""The file of a model's card, and the header in front of its text."""

from huggingface_hub import ModelCard, ModelCardData

CARD = "README.md"


def header_of(card: str) -> ModelCardData:
    """The header of a model's card, given its whole text."""
    header = ModelCard(card).data
    assert isinstance(header, ModelCardData)  # declared as the base of the headers of all kinds of card
    return header

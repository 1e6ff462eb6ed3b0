"""The kind "multimodal": a row is several aligned pictures of one scene."""

"""Rows of several aligned pictures of one scene: kind "multimodal"."""

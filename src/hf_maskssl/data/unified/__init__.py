"""The kind "unified": data of several kinds beside each other, for one model (`model_type: unified`)."""

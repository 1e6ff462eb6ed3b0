"""Configuration of the toy method."""

from transformers import PreTrainedConfig

# What a checkpoint says of the code that travels with it: without it only the class that was saved would be found.
AUTO_MAP = {
    "AutoConfig": "configuration_toy.ToyConfig",
    "AutoModel": "modeling_toy.ToyModel",
    "AutoModelForPreTraining": "modeling_toy.ToyForPreTraining",
}


class ToyConfig(PreTrainedConfig):
    """An autoencoder of images of which some pixels are hidden."""

    model_type = "toy"

    def __init__(
        self,
        image_size: list[int] | None = None,
        num_channels: int = 1,
        hidden_size: int = 16,
        mask_ratio: float = 0.5,
        **kwargs: object,
    ) -> None:
        self.image_size = image_size or [8, 8]
        self.num_channels = num_channels
        self.hidden_size = hidden_size
        self.mask_ratio = mask_ratio
        self.modality = "image"
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(**kwargs)

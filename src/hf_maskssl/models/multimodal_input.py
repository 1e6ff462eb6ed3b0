"""A batch of aligned images of several modalities, checked against the configuration and cut into patches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from .configuration_multimae import Modality, MultiMAEConfig
from .input_checks import check_observed_tokens, check_signal, check_tensors, values_are_readable
from .layers import patchify
from .observed_values import fill_missing

Images = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class TokenGrid:
    """The places of a modality's tokens.

    Attributes:
        name: Name of the modality.
        start: Place of its first token, behind the global tokens.
        rows, columns: Shape of the grid of its patches.
    """

    name: str
    start: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class ModalityPatches:
    """A batch that has been checked and cut into patches.

    Attributes:
        patches: Name -> (B, N_name, P) values (channel fastest) or class ids; of inputs and of mere targets.
        grids: The input modalities among them, in the order of their tokens.
        presence: Name -> (B,) bool, of the modalities that a sample may lack; others are always there.
        image_size: Height and width of the images.
        observed: Name -> (B, N_name, P) bool, True = an observed value, of the modalities with missing ones, which are 0.
    """

    patches: dict[str, torch.Tensor]
    grids: list[TokenGrid]
    presence: dict[str, torch.Tensor]
    image_size: tuple[int, int]
    observed: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def sizes(self) -> list[int]:
        """Tokens of each input modality."""
        return [grid.size for grid in self.grids]

    @property
    def batch_size(self) -> int:
        return next(iter(self.patches.values())).shape[0]

    @property
    def device(self) -> torch.device:
        return next(iter(self.patches.values())).device

    def is_present(self) -> torch.Tensor | None:
        """(B, M) bool over the input modalities; None when nobody lacks any."""
        if not any(grid.name in self.presence for grid in self.grids):
            return None
        always = torch.ones(self.batch_size, dtype=torch.bool, device=self.device)
        return torch.stack([self.presence.get(grid.name, always) for grid in self.grids], dim=1)

    def has_values(self, name: str) -> torch.Tensor | None:
        """(B, N_name) bool: the patches of a modality with something observed; None when that is all of them."""
        observed, present = self.observed.get(name), self.presence.get(name)
        if observed is None:
            return None if present is None else present[:, None].expand(-1, self.patches[name].shape[1])
        return observed.any(-1) if present is None else observed.any(-1) & present[:, None]

    def is_real(self) -> torch.Tensor | None:
        """(B, N) bool over the tokens: those that a sample has and of which something was observed; None when that is all."""
        parts = [self.has_values(grid.name) for grid in self.grids]
        if all(part is None for part in parts):
            return None
        shape = self.batch_size
        everything = [torch.ones(shape, grid.size, dtype=torch.bool, device=self.device) for grid in self.grids]
        return torch.cat(
            [whole if part is None else part for part, whole in zip(parts, everything, strict=True)], dim=1
        )


def cut_images(
    config: MultiMAEConfig,
    inputs: Images | None,
    pixel_values: torch.Tensor | None,
    presence: Images | None,
    observed_mask: Images | None = None,
) -> ModalityPatches:
    """Check a batch and cut it into patches; see `MultiMAEModel.forward` for shapes and errors."""
    given = _given(inputs, pixel_values)
    table = {
        modality.name: modality for modality in config.modality_table().values() if modality.source == modality.name
    }
    unknown = [name for name in given if name not in table]
    if unknown or not given:
        raise ValueError(f"`inputs` must be modalities of the configuration, {list(table)}, got {unknown or 'none'}.")
    check_tensors({f"inputs['{name}']" if inputs else "pixel_values": image for name, image in given.items()})
    lacking = _check_presence(given, presence or {})
    _check_observed(given, observed_mask or {}, table)
    patches: dict[str, torch.Tensor] = {}
    observed: dict[str, torch.Tensor] = {}
    sizes: dict[str, tuple[int, int]] = {}
    batch_sizes: dict[str, int] = {}
    for name, modality in table.items():
        if name not in given:
            continue
        image, is_observed = _fill_missing(name, given[name], observed_mask)
        if name in lacking:
            # These values are never used, not even NaN, which would pass through a product with zero.
            blank = config.semantic_loss_ignore_index if modality.is_categorical else 0
            image = image.masked_fill(lacking[name].view(-1, *[1] * (image.dim() - 1)), blank)
        image = _check_image(modality, image, config.semantic_loss_ignore_index)
        sizes[name] = (image.shape[-2] * modality.stride, image.shape[-1] * modality.stride)
        batch_sizes[name] = image.shape[0]
        if any(size < patch or size % patch for size, patch in zip(sizes[name], modality.patch_size, strict=True)):
            raise ValueError(
                f"`inputs['{name}']` must have a height and width that are multiples of {list(modality.patch_shape)}, its "
                f"patches, got {list(image.shape[-2:])}."
            )
        if modality.is_categorical:
            image = image.unsqueeze(1)
        patches[name] = patchify(image, modality.patch_shape)
        if is_observed is not None:
            observed[name] = patchify(is_observed, modality.patch_shape)
    # Compared one by one and not as a set: the symbolic batch size of an exported program has no hash.
    if not (all_equal(sizes.values()) and all_equal(batch_sizes.values())):
        shapes = {name: tuple(given[name].shape) for name in sizes}
        raise ValueError(
            f"`inputs` must be aligned images of one batch: the same size times stride, the same number of samples; got {shapes}."
        )
    image_size = next(iter(sizes.values()))
    grids = _input_grids(config, table, patches, image_size)
    images = ModalityPatches(patches, grids, {name: ~absent for name, absent in lacking.items()}, image_size, observed)
    _check_something_is_there(images)
    return images


def _input_grids(
    config: MultiMAEConfig,
    table: Mapping[str, Modality],
    patches: Mapping[str, torch.Tensor],
    image_size: tuple[int, int],
) -> list[TokenGrid]:
    """The grids of what is encoded, one behind the other; an error where nothing is."""
    grids, start = [], 0
    for name in patches:
        if table[name].is_input:
            grids.append(TokenGrid(name, start, *table[name].grid(image_size)))
            start += grids[-1].size
    if not grids:
        names = [modality.name for modality in config.inputs()]
        raise ValueError(f"`inputs` must hold at least one that is encoded, of {names}, got only {list(patches)}.")
    return grids


def _check_something_is_there(images: ModalityPatches) -> None:
    is_present = images.is_present()
    if is_present is not None and values_are_readable(is_present) and not is_present.any(1).all():
        rows = torch.nonzero(~is_present.any(1)).flatten().tolist()
        raise ValueError(
            f"`presence` leaves rows {rows[:8]} of the batch without any input modality: drop such samples."
        )
    if images.observed and (is_real := images.is_real()) is not None:
        check_observed_tokens(is_real)


def _fill_missing(
    name: str, image: torch.Tensor, observed_mask: Images | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if observed_mask is None or name not in observed_mask:
        return image, None
    filled, is_observed = fill_missing(f"inputs['{name}']", image, observed_mask[name])
    assert filled is not None  # an image was given
    return filled, is_observed


def all_equal(values: Iterable[object]) -> bool:
    first, *others = values
    return all(value == first for value in others)


def _given(inputs: Images | None, pixel_values: torch.Tensor | None) -> dict[str, torch.Tensor]:
    if (inputs is None) == (pixel_values is None):
        raise ValueError(
            "a MultiMAE takes `inputs`, a dict of modalities, or `pixel_values`, which is its rgb: give one."
        )
    if inputs is not None and not isinstance(inputs, Mapping):
        raise ValueError(
            f"`inputs` must be a dict of modalities, name -> tensor, got a {type(inputs).__name__}: images of rgb alone are "
            "`pixel_values`."
        )
    return dict(inputs) if inputs is not None else {"rgb": pixel_values}  # type: ignore[dict-item]


def _check_image(modality: Modality, image: torch.Tensor, ignore_index: int) -> torch.Tensor:
    name = f"inputs['{modality.name}']"
    if not modality.is_categorical:
        return check_signal(name, image, modality.num_channels, ("height", "width"))
    if image.dim() != 3 or image.is_floating_point() or image.dtype == torch.bool:
        raise ValueError(
            f"`{name}` must be integer class ids of the shape (batch, height, width), got {image.dtype} of "
            f"{tuple(image.shape)}."
        )
    image = image.long()
    if values_are_readable(image):
        is_wrong = ((image < 0) | (image >= modality.num_classes)) & (image != ignore_index)
        if is_wrong.any():
            raise ValueError(
                f"`{name}` must hold class ids of 0 to {modality.num_classes - 1}, or {ignore_index} for none, got "
                f"{int(image[is_wrong][0])} in row {int(is_wrong.flatten(1).any(1).nonzero()[0])} of the batch."
            )
    return image


def _check_observed(given: Images, observed_mask: Images, table: Mapping[str, Modality]) -> None:
    for name in observed_mask:
        if name not in given or table[name].is_categorical:
            continuous = [one for one in given if not table[one].is_categorical]
            raise ValueError(
                f"`observed_mask` must be of the given continuous modalities, {continuous}, got '{name}' (class maps mark pixels "
                "without a class by their ignored id)."
            )


def _check_presence(given: Images, presence: Images) -> dict[str, torch.Tensor]:
    """name -> (B,) bool, True = the sample lacks it."""
    lacking = {}
    for name, present in presence.items():
        if name not in given:
            raise ValueError(f"`presence` must be of the given modalities, {list(given)}, got '{name}'.")
        shape = tuple(given[name].shape[:1])
        if tuple(present.shape) != shape:
            raise ValueError(
                f"`presence['{name}']` must have one entry per sample, {shape}, got {tuple(present.shape)}."
            )
        lacking[name] = ~present.to(given[name].device).bool()
    return lacking


def check_ids_keep(ids_keep: torch.Tensor, keep_mask: torch.Tensor | None, images: ModalityPatches) -> None:
    """Refuse tokens chosen by the caller that do not exist.

    Raises:
        ValueError: Another type, shape or range.
    """
    if (
        ids_keep.dim() != 2
        or ids_keep.dtype != torch.int64
        or ids_keep.shape[0] != images.batch_size
        or ids_keep.numel() == 0
    ):
        raise ValueError(
            f"`ids_keep` must be int64 of the shape ({images.batch_size}, tokens), got {ids_keep.dtype} of "
            f"{tuple(ids_keep.shape)}."
        )
    if keep_mask is not None and keep_mask.shape != ids_keep.shape:
        raise ValueError(
            f"`keep_mask` must have the shape of `ids_keep`, {tuple(ids_keep.shape)}, got {tuple(keep_mask.shape)}."
        )
    if values_are_readable(ids_keep) and (int(ids_keep.min()) < 0 or int(ids_keep.max()) >= sum(images.sizes)):
        raise ValueError(
            f"`ids_keep` must lie in 0 to {sum(images.sizes) - 1}, the tokens of {[grid.name for grid in images.grids]}, got "
            f"{int(ids_keep.min())} to {int(ids_keep.max())}."
        )

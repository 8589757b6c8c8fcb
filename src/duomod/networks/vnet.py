"""V-Net as the published reference builds it (METHODS 2.1): a U-shaped network with additive skip connections.

The state-dict keys are the reference's (``block_one.conv.0.weight`` ... ``out_conv.bias``): published checkpoints load.
With ``levels`` below five the same scheme is simply shorter: blocks are numbered through encoder and decoder.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

Norm = Literal["batch", "group", "instance", "none"]

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CONVS_PER_LEVEL = (1, 2, 3, 3, 3)


def norm_layers(kind: Norm, channels: int) -> list[nn.Module]:
    """Return the normalisation layer for ``channels`` as a list of length 0 or 1 (group norm: 16 groups)."""
    if kind == "batch":
        return [nn.BatchNorm3d(channels)]
    if kind == "group":
        return [nn.GroupNorm(16, channels)]
    if kind == "instance":
        return [nn.InstanceNorm3d(channels, affine=True)]
    return []


class Stage(nn.Module):
    """Convolutions, each with normalisation and ReLU; ``conv`` holds them in a row, as in the reference's keys."""

    def __init__(self, convolutions: list[nn.Module], channels: int, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [convolution, *norm_layers(norm, channels), nn.ReLU(inplace=True)]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x))


class VNet(nn.Module):
    """V-Net: (B, in_channels, D, H, W) to logits (B, num_classes, D, H, W).

    Sizes that the encoder cannot halve evenly are zero-padded at the end of each axis and cropped again.

    Args:
        in_channels: Input channels.
        num_classes: Classes, background included.
        filters: Channels of the first stage (32 in the paper: 37,778,192 parameters with 16 classes).
        norm: Normalisation after every convolution.
        dropout_bottleneck: Probability of dropping a whole channel after the deepest stage (reference: 0.5).
        dropout_last: The same after the last stage, before the head (reference: 0.5).
        levels: Resolutions, 2 to 5 (reference: 5).
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 16,
        filters: int = 32,
        norm: Norm = "batch",
        dropout_bottleneck: float = 0.5,
        dropout_last: float = 0.5,
        levels: int = 5,
    ) -> None:
        super().__init__()
        if not 2 <= levels <= 5:
            raise ValueError(f"levels must be between 2 and 5, not {levels}")
        self.levels = levels
        widths = [filters * 2**level for level in range(levels)]

        def convs(level: int, first: int) -> list[nn.Module]:
            ins = [first] + [widths[level]] * (_CONVS_PER_LEVEL[level] - 1)
            return [nn.Conv3d(channels, widths[level], 3, padding=1) for channels in ins]

        for level in range(levels):
            name = f"block_{_NUMBERS[level]}"
            self.add_module(name, Stage(convs(level, widths[level] if level else in_channels), widths[level], norm))
            if level < levels - 1:
                down = nn.Conv3d(widths[level], widths[level + 1], 2, stride=2)
                self.add_module(f"{name}_dw", Stage([down], widths[level + 1], norm))
        for number, level in enumerate(reversed(range(levels - 1)), start=levels):
            up = nn.ConvTranspose3d(widths[level + 1], widths[level], 2, stride=2)
            self.add_module(f"block_{_NUMBERS[number - 1]}_up", Stage([up], widths[level], norm))
            self.add_module(f"block_{_NUMBERS[number]}", Stage(convs(level, widths[level]), widths[level], norm))
        self.dropout_bottleneck = nn.Dropout3d(dropout_bottleneck)
        self.dropout_last = nn.Dropout3d(dropout_last)
        self.out_conv = nn.Conv3d(filters, num_classes, 1)

    @property
    def head(self) -> nn.Module:
        """The 1x1x1 convolution from features to logits."""
        return self.out_conv

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the encoder's maps, from full resolution to the bottleneck (after its dropout)."""
        maps = []
        for level in range(self.levels):
            x = self.get_submodule(f"block_{_NUMBERS[level]}")(x)
            if level < self.levels - 1:
                maps.append(x)
                x = self.get_submodule(f"block_{_NUMBERS[level]}_dw")(x)
        return [*maps, cast(Tensor, self.dropout_bottleneck(x))]

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Return the decoder's features (B, filters, D, H, W), after the last dropout."""
        x = maps[-1]
        for number, level in enumerate(reversed(range(self.levels - 1)), start=self.levels):
            x = self.get_submodule(f"block_{_NUMBERS[number - 1]}_up")(x) + maps[level]
            x = self.get_submodule(f"block_{_NUMBERS[number]}")(x)
        return cast(Tensor, self.dropout_last(x))

    def features(self, x: Tensor) -> Tensor:
        """Return the features the head works on: (B, filters, D, H, W)."""
        size = x.shape[2:]
        step = 2 ** (self.levels - 1)
        padding = [p for length in reversed(size) for p in (0, -length % step)]
        if any(padding):
            x = nn.functional.pad(x, padding)
        features = self.decode(self.encode(x))
        return features[:, :, : size[0], : size[1], : size[2]]

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))


def initialise(network: nn.Module, scheme: Literal["kaiming", "xavier", "default"]) -> nn.Module:
    """Initialise every Conv3d weight (not transposed ones, not biases) as METHODS 1.4 says, and return the network.

    Two networks that start from different schemes disagree, which is what cross pseudo-supervision lives on.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and scheme != "default":
            if scheme == "kaiming":
                nn.init.kaiming_normal_(module.weight)
            else:
                nn.init.xavier_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm3d) and scheme != "default":
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def settings_from_state(state: dict[str, Tensor]) -> dict[str, int | str | float]:
    """Read a V-Net's settings off a state dict, for published checkpoints that carry none.

    Returns:
        ``in_channels``, ``num_classes``, ``filters``, ``levels``, ``norm`` (``batch`` if it has running statistics).

    Raises:
        KeyError: it is not a V-Net's state dict.
    """
    first = state["block_one.conv.0.weight"]
    levels = 1 + sum(key.endswith("_dw.conv.0.weight") for key in state)
    return {
        "in_channels": first.shape[1],
        "filters": first.shape[0],
        "num_classes": state["out_conv.weight"].shape[0],
        "levels": levels,
        "norm": "batch" if "block_one.conv.1.running_mean" in state else "instance",
    }

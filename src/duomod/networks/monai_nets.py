"""Networks that MONAI builds, in the form methods need: ``features``, ``head``, any input size.

MONAI takes seconds to import, so that happens only when one of them is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from duomod.config import NetworkConfig
from duomod.errors import InputError


class SplitNetwork(nn.Module):
    """A body that gives features at full resolution, and a 1x1x1 head: (B, in_channels, D, H, W) to logits.

    Args:
        body: Maps (B, in_channels, D, H, W) to (B, F, D, H, W) for sizes that ``steps`` divide.
        head: The last convolution.
        steps: By what each axis's size must be divisible; other sizes are zero-padded at the end and cropped again.
        dropout: Probability of dropping a whole channel of the features, as in the V-Net.
    """

    def __init__(self, body: nn.Module, head: nn.Module, steps: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.body, self.head, self.steps = body, head, tuple(steps)
        self.dropout_last = nn.Dropout3d(dropout)

    def features(self, x: Tensor) -> Tensor:
        """Return what the head works on: (B, F, D, H, W)."""
        size = x.shape[2:]
        wanted = [length + -length % step for length, step in zip(size, self.steps, strict=True)]
        if wanted == list(self.steps):
            # One voxel at the bottleneck could not be normalised.
            wanted[-1] += self.steps[-1]
        padding = [p for old, new in zip(reversed(size), reversed(wanted), strict=True) for p in (0, new - old)]
        features = self.body(functional.pad(x, padding))[:, :, : size[0], : size[1], : size[2]]
        return cast(Tensor, self.dropout_last(features))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))


def _norm(config: NetworkConfig) -> Any:
    """MONAI's name of the configured normalisation; an empty name is none."""
    names = {
        "batch": "batch",
        "instance": ("instance", {"affine": True}),
        # the V-Net's 16 groups; fewer where there are fewer channels
        "group": ("group", {"num_groups": min(16, config.filters)}),
        "none": "",
    }
    return names[config.norm]


def residual_unet(config: NetworkConfig, in_channels: int, num_classes: int) -> nn.Module:
    """Residual U-Net in the shape of nnU-Net's M preset, built by MONAI's DynUNet.

    One stage more than ``levels``, the last of which halves only height and width; channels double from ``filters`` up
    to ten times as many (32, 64, 128, 256, 320, 320 by default). A DynUNet has one residual block per stage, the preset
    up to six.
    """
    from monai.networks.nets import DynUNet

    stages = config.levels + 1
    strides: list[Any] = [1, *[2] * (stages - 2), (1, 2, 2)]
    body = DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=num_classes,
        kernel_size=[3] * stages,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=[min(config.filters * 2**stage, config.filters * 10) for stage in range(stages)],
        norm_name=_norm(config),
        res_block=True,
    )
    head = body.output_block
    body.output_block = nn.Identity()
    step = 2 ** (config.levels - 1)
    return SplitNetwork(body, head, (step, 2 * step, 2 * step), config.dropout_last)


def segresnet(config: NetworkConfig, in_channels: int, num_classes: int) -> nn.Module:
    """SegResNet (Myronenko, BrainLes 2018) without its autoencoder branch."""
    from monai.networks.nets import SegResNet

    body = SegResNet(
        init_filters=config.filters,
        in_channels=in_channels,
        out_channels=num_classes,
        norm=_norm(config),
        blocks_down=(1, 2, 2, 4, 4)[: config.levels],
        blocks_up=(1,) * (config.levels - 1),
    )
    last = body.conv_final
    # Its end is taken off, so that the features before the head can be had.
    del body.conv_final
    body.use_conv_final = False
    step = 2 ** (config.levels - 1)
    return SplitNetwork(nn.Sequential(body, last[:-1]), last[-1], (step,) * 3, config.dropout_last)


def swin_unetr(config: NetworkConfig, in_channels: int, num_classes: int) -> nn.Module:
    """SwinUNETR (Hatamizadeh et al., BrainLes 2021). Its depth is fixed; 32 filters stand for its usual 48 features.

    Raises:
        InputError: einops, which MONAI needs for this network only, is not installed.
    """
    if find_spec("einops") is None:
        raise InputError("--network swinunetr needs the package einops: pip install einops")
    from monai.networks.nets import SwinUNETR

    body = SwinUNETR(
        in_channels=in_channels,
        out_channels=num_classes,
        feature_size=12 * max(1, round(config.filters / 8)),
        norm_name=_norm(config),
    )
    head = body.out
    body.out = nn.Identity()
    return SplitNetwork(body, head, (32, 32, 32), config.dropout_last)

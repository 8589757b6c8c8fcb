"""Networks whose blocks MONAI makes. It takes seconds to import, so that happens only when one of them is built.

MONAI's modules are run block by block, so that a method can work between encoder, decoder and head.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import cast

from torch import Tensor, nn

from duomod.config import NetworkConfig
from duomod.errors import InputError
from duomod.networks.base import Decoder, Encoder, StagedNetwork, Stages

#: MONAI's form of a normalisation: its name, or its name and arguments; an empty name is none.
_MonaiNorm = str | tuple[str, dict[str, int | bool]]


def _norm(config: NetworkConfig) -> _MonaiNorm:
    names: dict[str, _MonaiNorm] = {
        "batch": "batch",
        "instance": ("instance", {"affine": True}),
        # the V-Net's 16 groups; fewer where there are fewer channels
        "group": ("group", {"num_groups": min(16, config.filters)}),
        "none": "",
    }
    return names[config.norm]


def _add_decoder_facts(owner: Stages, widths: Sequence[int], dropout: float) -> None:
    """What the decoders have in common; ``widths`` are the encoder's."""
    owner.width, owner.stage_widths = widths[0], tuple(reversed(widths[:-1]))
    owner.dropout_last = nn.Dropout3d(dropout)


def _dyn_unet_widths(config: NetworkConfig) -> tuple[int, ...]:
    return tuple(min(config.filters * 2**stage, config.filters * 10) for stage in range(config.levels + 1))


def _dyn_unet(config: NetworkConfig, in_channels: int, num_classes: int) -> nn.Module:
    from monai.networks.nets import DynUNet

    stages = config.levels + 1
    strides: list[int | tuple[int, int, int]] = [1, *[2] * (stages - 2), (1, 2, 2)]
    body: nn.Module = DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=num_classes,
        kernel_size=[3] * stages,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=list(_dyn_unet_widths(config)),
        norm_name=_norm(config),
        res_block=True,
    )
    return body


def _dyn_unet_stages(blocks: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    x, stages = maps[-1], []
    for up, skip in zip(blocks.children(), reversed(maps[:-1]), strict=True):
        x = up(x, skip)
        stages.append(x)
    return stages


class ResidualUNetEncoder(Encoder):
    """The encoder's blocks of a DynUNet, which is ``body``."""

    two_voxels = True

    def __init__(self, config: NetworkConfig, in_channels: int, body: nn.Module) -> None:
        super().__init__()
        step = 2 ** (config.levels - 1)
        self.in_channels, self.stride = in_channels, (step, 2 * step, 2 * step)
        self.widths = _dyn_unet_widths(config)
        self.body = body

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        between = self.body.get_submodule("downsamples").children()
        maps = []
        for block in (self.body.get_submodule("input_block"), *between, self.body.get_submodule("bottleneck")):
            x = block(x)
            maps.append(x)
        return maps


class ResidualUNetDecoder(Stages):
    """The decoder's blocks of a DynUNet."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.upsamples = _dyn_unet(config, 1, 1).get_submodule("upsamples")
        _add_decoder_facts(self, _dyn_unet_widths(config), config.dropout_last)

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return _dyn_unet_stages(self.upsamples, maps)


class ResidualUNet(ResidualUNetEncoder, StagedNetwork):
    """Residual U-Net in the shape of nnU-Net's M preset, built by MONAI's DynUNet.

    One stage more than ``levels``, the last of which halves only height and width; channels double from ``filters`` up
    to ten times as many (32, 64, 128, 256, 320, 320 by default). A DynUNet has one residual block per stage, the preset
    up to six.
    """

    name = "resunet"

    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        body = _dyn_unet(config, in_channels, num_classes)
        super().__init__(config, in_channels, body)
        self.num_classes = num_classes
        self.head = body.get_submodule("output_block")
        body.add_module("output_block", nn.Identity())
        _add_decoder_facts(self, self.widths, config.dropout_last)

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return _dyn_unet_stages(self.body.get_submodule("upsamples"), maps)

    @classmethod
    def encoder_alone(cls, config: NetworkConfig, in_channels: int) -> Encoder:
        body = _dyn_unet(config, in_channels, 1)
        del body.upsamples, body.skip_layers, body.output_block
        return ResidualUNetEncoder(config, in_channels, body)

    @classmethod
    def decoder_alone(cls, config: NetworkConfig) -> Decoder:
        return ResidualUNetDecoder(config)


def _seg_res_net(config: NetworkConfig, in_channels: int, num_classes: int) -> tuple[nn.Module, nn.Sequential]:
    """The blocks, and what follows the last of them: normalisation, activation, head."""
    from monai.networks.nets import SegResNet as MonaiSegResNet

    body: nn.Module = MonaiSegResNet(
        init_filters=config.filters,
        in_channels=in_channels,
        out_channels=num_classes,
        norm=_norm(config),
        blocks_down=(1, 2, 2, 4, 4)[: config.levels],
        blocks_up=(1,) * (config.levels - 1),
    )
    last = body.get_submodule("conv_final")
    assert isinstance(last, nn.Sequential)
    # Its end is taken off, so that the features before the head can be had.
    del body.conv_final
    return body, last


def _seg_res_net_stages(blocks: nn.Module, tail: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    ups, layers = (blocks.get_submodule(name).children() for name in ("up_samples", "up_layers"))
    x, stages = maps[-1], []
    for up, layer, skip in zip(ups, layers, reversed(maps[:-1]), strict=True):
        x = layer(up(x) + skip)
        stages.append(x)
    return [*stages[:-1], tail(stages[-1])]


class SegResNetEncoder(Encoder):
    """The encoder's blocks of MONAI's SegResNet, which are in ``blocks``."""

    two_voxels = True

    def __init__(self, config: NetworkConfig, in_channels: int, blocks: nn.Module) -> None:
        super().__init__()
        self.in_channels, self.stride = in_channels, (2 ** (config.levels - 1),) * 3
        self.widths = tuple(config.filters * 2**level for level in range(config.levels))
        self.body = nn.Sequential(blocks)

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        x = self.body.get_submodule("0.convInit")(x)
        maps = []
        for block in self.body.get_submodule("0.down_layers").children():
            x = block(x)
            maps.append(x)
        return maps


class SegResNetDecoder(Stages):
    """The decoder's blocks of MONAI's SegResNet."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        body, last = _seg_res_net(config, 1, 1)
        self.up_samples, self.up_layers = body.get_submodule("up_samples"), body.get_submodule("up_layers")
        self.tail = last[:-1]
        widths = [config.filters * 2**level for level in range(config.levels)]
        _add_decoder_facts(self, widths, config.dropout_last)

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return _seg_res_net_stages(self, self.tail, maps)


class SegResNet(SegResNetEncoder, StagedNetwork):
    """SegResNet (Myronenko, BrainLes 2018) without its autoencoder branch."""

    name = "segresnet"

    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        blocks, last = _seg_res_net(config, in_channels, num_classes)
        super().__init__(config, in_channels, blocks)
        self.num_classes = num_classes
        self.body.append(last[:-1])
        self.head = last[-1]
        _add_decoder_facts(self, self.widths, config.dropout_last)

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return _seg_res_net_stages(self.body.get_submodule("0"), self.body.get_submodule("1"), maps)

    @classmethod
    def encoder_alone(cls, config: NetworkConfig, in_channels: int) -> Encoder:
        blocks, _ = _seg_res_net(config, in_channels, 1)
        del blocks.up_samples, blocks.up_layers
        return SegResNetEncoder(config, in_channels, blocks)

    @classmethod
    def decoder_alone(cls, config: NetworkConfig) -> Decoder:
        return SegResNetDecoder(config)


class SwinUNETR(StagedNetwork):
    """SwinUNETR (Hatamizadeh et al., BrainLes 2021). Its depth is fixed; 32 filters stand for its usual 48 features.

    Its decoder also has blocks at the encoder's end, so that there is no second decoder to be had.

    Raises:
        InputError: einops, which MONAI needs for this network only, is not installed.
    """

    name = "swinunetr"
    two_voxels = True

    def __init__(self, config: NetworkConfig, in_channels: int, num_classes: int) -> None:
        super().__init__()
        if find_spec("einops") is None:
            raise InputError("--network swinunetr needs the package einops: pip install einops")
        from monai.networks.nets import SwinUNETR as MonaiSwinUNETR

        features = 12 * max(1, round(config.filters / 8))
        self.in_channels, self.num_classes, self.stride = in_channels, num_classes, (32, 32, 32)
        self.widths = tuple(features * factor for factor in (1, 1, 2, 4, 8, 16))
        self.body: nn.Module = MonaiSwinUNETR(
            in_channels=in_channels, out_channels=num_classes, feature_size=features, norm_name=_norm(config)
        )
        self.head = self.body.get_submodule("out")
        self.body.add_module("out", nn.Identity())
        _add_decoder_facts(self, self.widths, config.dropout_last)

    def encode_padded(self, x: Tensor) -> list[Tensor]:
        def block(number: int, y: Tensor) -> Tensor:
            return cast(Tensor, self.body.get_submodule(f"encoder{number}")(y))

        half, quarter, eighth, sixteenth, deepest = self.body.get_submodule("swinViT")(x, True)
        return [block(1, x), block(2, half), block(3, quarter), block(4, eighth), sixteenth, block(10, deepest)]

    def stages(self, maps: Sequence[Tensor]) -> list[Tensor]:
        x, stages = maps[-1], []
        for number, skip in zip((5, 4, 3, 2, 1), reversed(maps[:-1]), strict=True):
            x = self.body.get_submodule(f"decoder{number}")(x, skip)
            stages.append(x)
        return stages

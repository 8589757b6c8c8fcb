"""How a method gets its networks: the one the user chose, in the form the method needs, freshly initialised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar, overload

from torch import nn

from duomod.config import NetworkConfig
from duomod.networks.base import Network
from duomod.networks.registry import build_network

Init = Literal["kaiming", "xavier", "default"]
NetworkT = TypeVar("NetworkT", bound=Network)


@dataclass(frozen=True)
class NetworkBuilder:
    """Builds the network the user chose, with the data's channels and classes.

    Attributes:
        config: The settings of the network.
        in_channels: Channels of the data's images.
        num_classes: Classes of the data, background included.
        kind: A network of the user's, instead of the one that ``config`` names.
    """

    config: NetworkConfig
    in_channels: int
    num_classes: int
    kind: type[Network] | None = None

    @overload
    def __call__(self, init: Init = ..., *, in_channels: int | None = ...) -> Network: ...

    @overload
    def __call__(self, init: Init, form: type[NetworkT], *, in_channels: int | None = ...) -> NetworkT: ...

    def __call__(
        self, init: Init = "default", form: type[Network] = Network, *, in_channels: int | None = None
    ) -> Network:
        """Build one.

        Args:
            init: See :func:`initialise`.
            form: What the method needs of it: ``Network``, or one of the forms in :mod:`duomod.networks`.
            in_channels: Instead of the data's.

        Raises:
            InputError: the network does not have what the form needs.
        """
        channels = self.in_channels if in_channels is None else in_channels
        return initialise(build_network(self.config, channels, self.num_classes, form, self.kind), init)


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def initialise(network: ModuleT, scheme: Init) -> ModuleT:
    """Initialise every Conv3d weight (not transposed ones, not biases), and return the network.

    See docs/methods/README.md, Initialisation.
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

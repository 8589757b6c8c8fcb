"""Number types that several settings share, with their ranges: beyond them lies a typing mistake, or no memory."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

#: Of a generator; 32 bits, as numpy's and torch's oldest ones take.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
#: An edge of a patch.
Voxels = Annotated[int, Field(ge=1, le=4096)]
#: An edge of a voxel, mm.
Spacing = Annotated[float, Field(ge=0.001, le=1000)]
#: Processes, threads or steps at the same time.
AtOnce = Annotated[int, Field(ge=1, le=1024)]
#: Classes with the background.
Classes = Annotated[int, Field(ge=2, le=65_536)]
#: Patches of a batch, channels, and the like.
Many = Annotated[int, Field(ge=1, le=65_536)]
#: Epochs, steps, samples: what merely takes long.
Count = Annotated[int, Field(ge=1, le=10**9)]

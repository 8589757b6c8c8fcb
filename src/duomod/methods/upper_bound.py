"""Upper bound: supervised training with the labels of all training scans, also of those the others use unlabelled."""

from __future__ import annotations

from typing import ClassVar

from duomod.methods.base import MethodInfo
from duomod.methods.supervised import Supervised


class UpperBound(Supervised):
    """L = Lsup(z, y) on every labelled training case of the data set.

    One network, as for the supervised method; the labels that the split hides from the others are used as well.

    See docs/methods/upper_bound.md, Equations.
    """

    info = MethodInfo(
        title="Upper bound",
        paper="Milletari et al., V-Net, 3DV 2016 (network); Dice + cross-entropy on all labels",
        year=2016,
        summary="supervised with all labels: what no method with few labels is expected to pass",
    )
    uses_all_labels: ClassVar[bool] = True

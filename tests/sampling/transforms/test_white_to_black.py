from __future__ import annotations

import torch

from duomod.sampling.transforms.base import PatchInfo
from duomod.sampling.transforms.white_to_black import WhiteToBlack
from duomod.seeding import generator


def test_white_turns_black_and_nothing_else_changes() -> None:
    image = torch.tensor([0.0, 0.5, 0.999, 1.0]).view(1, 1, 1, 4)
    changed = WhiteToBlack().draw(generator(0, "test"), PatchInfo()).change(image)
    torch.testing.assert_close(changed.flatten(), torch.tensor([0.0, 0.5, 0.999, 0.0]))

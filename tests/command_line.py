"""Commands run in this process, as the shell would run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from duomod.cli import main


def duomod(*arguments: str | Path) -> None:
    """Run a command; its exit code must be 0."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0

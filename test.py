"""The original command name: ``python test.py ...`` is ``duomod predict ...``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

if __name__ == "__main__":
    from duomod.cli import main

    main(["predict", *sys.argv[1:]])

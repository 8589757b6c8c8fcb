"""The original command name: ``python preprocess.py ...`` is ``duomod preprocess ...``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

if __name__ == "__main__":
    from duomod.cli import main

    main(["preprocess", *sys.argv[1:]])

"""The original command name: ``python aggregate_results.py ...`` is ``duomod aggregate ...``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

if __name__ == "__main__":
    from duomod.cli import main

    main(["aggregate", *sys.argv[1:]])

"""The original command name: ``python eval_amos.py ...`` is ``duomod evaluate ...``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

if __name__ == "__main__":
    from duomod.cli import main

    main(["evaluate", *sys.argv[1:]])

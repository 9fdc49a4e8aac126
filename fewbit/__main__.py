"""The ``fewbit`` command as ``python -m fewbit``."""

import sys

from fewbit.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())

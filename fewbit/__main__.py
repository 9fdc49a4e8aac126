"""``python -m fewbit`` is the ``fewbit`` command."""

import sys

from fewbit.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m flow`` is the ``fewbit`` command."""

import sys

from flow.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m tools.soak`."""

import sys

from tools.soak._cli import main

if __name__ == "__main__":
    sys.exit(main())

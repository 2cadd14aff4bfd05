"""`python -m tools.simulate`."""

import sys

from tools.simulate._cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m tools.conformance`."""

import sys

from tools.conformance._cli import main

if __name__ == "__main__":
    sys.exit(main())

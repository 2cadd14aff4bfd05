"""`python -m tools.llm_simulator`."""

import sys

from tools.llm_simulator._cli import main

if __name__ == "__main__":
    sys.exit(main())

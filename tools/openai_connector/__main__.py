"""`python -m tools.openai_connector`."""

import sys

from tools.openai_connector.cli import main

if __name__ == "__main__":
    sys.exit(main())

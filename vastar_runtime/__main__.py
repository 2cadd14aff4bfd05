"""`python -m vastar_runtime`."""

import sys

from vastar_runtime.cli import main

sys.exit(main())

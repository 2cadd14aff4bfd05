#!/bin/sh
# Start the connector runtime in the background and wait until it serves.
# The same as `python -m vastar_runtime start`, with the same options (see --help).
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -P -m vastar_runtime start "$@"

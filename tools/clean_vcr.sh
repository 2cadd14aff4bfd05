#!/bin/sh
# Remove the socket and lock that a dead connector runtime left. A live one is left alone:
# end it with `python -m vastar_runtime stop`. Options as of `python -m vastar_runtime clean`.
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -P -m vastar_runtime clean "$@"

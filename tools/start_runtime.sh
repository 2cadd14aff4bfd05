#!/bin/sh
# Start the connector runtime in the background and wait until it serves.
# The same as `python -m vastar_runtime start`, with the same options (see --help).
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd)
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
"$python" -P -c 'import attrs, msgspec, trio' 2>/dev/null || {
    echo "$python lacks what the runtime needs: run 'python3 $root/tools/dev.py setup' or 'pip install $root'" >&2
    exit 1
}
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -P -m vastar_runtime start "$@"

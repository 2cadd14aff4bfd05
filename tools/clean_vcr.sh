#!/bin/sh
# Remove the socket and lock that a dead connector runtime left. A live one is left alone:
# end it with `python -m vastar_runtime stop`. Options as of `python -m vastar_runtime clean`.
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")/.." && pwd)
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
"$python" -P -c 'import attrs, msgspec, trio' 2>/dev/null || {
    echo "$python lacks what the runtime needs: run 'python3 $root/tools/dev.py setup' or 'pip install $root'" >&2
    exit 1
}
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -P -m vastar_runtime clean "$@"

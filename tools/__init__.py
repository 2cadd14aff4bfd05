"""Developer and user tools, run as `python -m tools.NAME` or `python3 tools/dev.py COMMAND`."""

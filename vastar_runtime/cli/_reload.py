"""`reload`: have a runtime read its configuration anew."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from vastar_runtime.cli._target import how_to_start, target_of
from vastar_runtime.cli.control import ControlClient, NotRunningError
from vastar_runtime.cli.exit_codes import ExitCode

__all__ = ["reload"]


def reload(options: argparse.Namespace) -> ExitCode:
    """Print what changed; 0 when the new configuration holds, 3 when no runtime is there.

    Raises:
        RefusedError: it cannot be used, and the old one holds.
        ControlError: the runtime could not be asked.
    """
    address = target_of(options)
    try:
        with ControlClient(address) as client:
            told = client.call("reload")
    except NotRunningError as error:
        print(f"vastar: {error}; {how_to_start(address)}", file=sys.stderr)
        return ExitCode.NOT_RUNNING
    applied, needs_restart = _keys(told, "applied"), _keys(told, "needs_restart")
    print(f"reloaded: {address}" + ("" if applied or needs_restart else ", nothing had changed"))
    for key in applied:
        print(f"  {key}")
    if needs_restart:
        print("changed, but takes effect when the runtime is started anew:")
        for key in needs_restart:
            print(f"  {key}")
    return ExitCode.OK


def _keys(told: dict[str, Any], name: str) -> Sequence[str]:
    return [str(key) for key in told.get(name, ())]

"""`serve`: be the runtime: one process, or a supervisor with its workers, or one of those."""

import argparse
import sys
import time

from vastar_runtime.cli._target import load_from_options
from vastar_runtime.cli.exit_codes import ExitCode
from vastar_runtime.config import ConfigError, RuntimeConfig
from vastar_runtime.late_modules import late_modules

__all__ = ["serve"]


def serve(options: argparse.Namespace) -> int:
    """Serve until told to stop; the exit status.

    Raises:
        AlreadyRunningError: a runtime serves one of the addresses.
        RuntimeFileError: an address cannot be used.
        ConfigError: the configuration cannot be used.
    """
    if options.worker_place is not None:
        return _serve_as_worker(options.worker_place)
    config = load_from_options(options).config
    if config.server.workers != 1:
        from vastar_runtime.workers.supervise import (  # noqa: PLC0415 - only where it is used
            supervise,
            worker_count,
        )

        if worker_count(config.server.workers) > 1:
            code, refusal = supervise(config, lambda: _fresh(options), time.monotonic())
            for line in (refusal or "").splitlines():
                print(f"vastar: {line}", file=sys.stderr)
            return code
    with late_modules():
        from vastar_runtime import logs, server  # noqa: PLC0415 - the event loop is for serve alone

    logs.configure(config.log.level, config.log.format)
    return _status_of(server.run(config, load=lambda: _fresh(options)))


def _fresh(options: argparse.Namespace) -> RuntimeConfig:
    return load_from_options(options).config


def _serve_as_worker(text: str) -> int:
    with late_modules():
        from vastar_runtime import server  # noqa: PLC0415 - as above
        from vastar_runtime.workers.frames import FrameError  # noqa: PLC0415 - as above
        from vastar_runtime.workers.place import WorkerPlace  # noqa: PLC0415 - as above

    try:
        return _status_of(server.run_worker(WorkerPlace.from_text(text)))
    except ConfigError:
        return ExitCode.USAGE  # the supervisor was told, and says it once for all workers
    except (ValueError, OSError, FrameError) as error:
        print(f"vastar: this is not the place of a worker: {error}", file=sys.stderr)
        return ExitCode.USAGE


def _status_of(ending: object) -> ExitCode:
    from vastar_runtime.server import Ending  # noqa: PLC0415 - loaded by now

    # Calls cut by the end of the drain time are what the configuration asked for.
    return ExitCode.FORCED if ending is Ending.FORCED else ExitCode.OK

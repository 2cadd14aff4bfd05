"""Plug-ins as connectors: found by entry point, run in threads, kept from harming anybody else.

Shape: a plug-in is loaded with its first call, in a thread, since importing is running code of
others too. Each has its own bounded set of threads. Whoever waits for one of them leaves at its
deadline, and the thread is left behind; it counts until it returns, so a plug-in that blocks for
ever runs out of its own threads and refuses, while everybody else goes on; the log names it. Where
it raised is told in the log; its caller reads the plug-in's name and the kind of the error. Neither
reads the error's words, which may quote what a call holds, unless it is a `PluginError`.
"""

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from vastar_client.wire.codec import one_buffer
from vastar_client.wire.enums import Disposition, ErrorClass
from vastar_runtime.calls import Call
from vastar_runtime.connectors.interface import (
    ENTRY_POINT_GROUP,
    BlockingConnector,
    PluginAnswer,
    PluginCall,
    PluginError,
)
from vastar_runtime.logs import get_logger
from vastar_runtime.outcomes import Failure, FailureKind, Outcome, Reply, too_large

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["PluginConnector", "UnknownPlugin", "find_plugins"]

_KINDS: Final[Mapping[ErrorClass, FailureKind]] = {
    ErrorClass.TRANSIENT: FailureKind.UPSTREAM,
    ErrorClass.PERMANENT: FailureKind.UPSTREAM_PERMANENT,
    ErrorClass.RATE_LIMITED: FailureKind.RATE_LIMITED,
    ErrorClass.TIMEOUT: FailureKind.TIMEOUT,
    ErrorClass.INVALID_REQUEST: FailureKind.INVALID_REQUEST,
}
_FRAME_ROOM_BYTES: Final = 1024
"""What the rest of an answer's frame takes at most, beside the payload."""

_MOST_CAUSES: Final = 5

_log = get_logger(__name__)


class UnknownPlugin(LookupError):  # noqa: N818 - it is the plug-in that is unknown
    """No installed package offers a connector of that name."""


def find_plugins(
    names: Iterable[str], threads: int, found: "Iterable[EntryPoint] | None" = None
) -> dict[str, "PluginConnector"]:
    """The connectors of those names; nothing of theirs is imported yet.

    Args:
        names: of entry points.
        threads: calls that each may run at once.
        found: the entry points there are, by default the installed ones.

    Raises:
        UnknownPlugin: there is none of a name.
    """
    names = tuple(names)
    if not names:
        return {}
    from importlib.metadata import entry_points  # noqa: PLC0415 - 10 ms that few daemons need

    offered = entry_points(group=ENTRY_POINT_GROUP) if found is None else found
    by_name = {each.name: each for each in offered}
    plugins = {}
    for name in names:
        if name not in by_name:
            known = ", ".join(sorted(by_name)) or "none"
            raise UnknownPlugin(f"no installed package offers connector {name}; offered: {known}")
        plugins[name] = PluginConnector(name, by_name[name].load, threads)
    return plugins


class PluginConnector:
    """One plug-in.

    Args:
        name: of its connector.
        load: gives what makes it; runs in a thread, once.
        threads: calls that it may run at once.
    """

    can_stream = False

    def __init__(self, name: str, load: Callable[[], Any], threads: int) -> None:
        self._name = name
        self._load = load
        self._threads = trio.CapacityLimiter(threads)
        self._loading = trio.Lock()
        self._plugin: BlockingConnector | Failure | None = None

    async def execute(self, call: Call) -> Outcome:
        """Have a thread answer `call`. Raises nothing but cancellation."""
        call.origin = f"plugin:{self._name}"
        if self._threads.available_tokens <= 0:
            await trio.lowlevel.checkpoint()
            words = f"all {self._threads.total_tokens:g} threads of connector {self._name} are busy"
            return Failure(FailureKind.OVERLOADED, words, refused_by="plugin:threads")
        plugin = self._plugin or await self._loaded()
        if isinstance(plugin, Failure):
            return plugin
        over = False
        request = call.request
        asked = PluginCall(
            operation=request.operation,
            payload=b"" if request.payload is None else bytes(one_buffer(request.payload)),
            tenant_id=request.tenant_id,
            workspace_id=request.workspace_id or "",
            trace_id=request.trace_id or "",
            idempotency_key=request.idempotency_key,
            payload_format=request.payload_format,
            time_left_s=call.deadline.expires_at_s - trio.current_time(),
            is_over=lambda: over,
        )
        call.attempts += 1
        call.progress.request_begun = True
        try:
            answer = await self._run(_guarded, plugin.execute, asked)
        except trio.Cancelled:
            _log.warning(
                "a plug-in goes on after its call's end",
                plugin=self._name,
                operation=request.operation[:100],
                busy_threads=self._threads.borrowed_tokens,
                threads=self._threads.total_tokens,
            )
            raise
        finally:
            over = True
        return self._outcome(call, answer)

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        return await trio.to_thread.run_sync(
            function, *args, abandon_on_cancel=True, limiter=self._threads
        )

    async def _loaded(self) -> BlockingConnector | Failure:
        async with self._loading:
            if self._plugin is None:
                made = await self._run(_guarded, lambda: self._load()())  # noqa: PLW0108 - loading raises too
                if isinstance(made, BaseException):
                    _log.error("a plug-in cannot be loaded", plugin=self._name, exc_info=made)
                    self._plugin = self._broken(f"cannot be loaded ({type(made).__name__})")
                elif not isinstance(made, BlockingConnector) or inspect.iscoroutinefunction(
                    made.execute
                ):
                    self._plugin = self._broken("has no plain method execute(call)")
                else:
                    self._plugin = made
        return self._plugin

    def _broken(self, words: str) -> Failure:
        return Failure(
            FailureKind.UPSTREAM_PERMANENT,
            f"connector {self._name} {words}: a plug-in's fault, see the log",
            disposition=Disposition.NOT_SENT,
        )

    def _outcome(self, call: Call, answer: object) -> Outcome:
        match answer:
            case PluginAnswer(payload=bytes(payload)) if payload:
                if len(payload) + _FRAME_ROOM_BYTES > call.max_answer_bytes:
                    return too_large(call.max_answer_bytes)
                call.progress.completed = True
                call.received_bytes = len(payload)
                return Reply(payload, answer.payload_format)
            case PluginError():
                return Failure(
                    _KINDS[answer.error_class],
                    answer.message,
                    retry_after_ms=answer.retry_after_ms,
                    disposition=answer.disposition,
                )
            case BaseException():
                _log.error("a plug-in raised", plugin=self._name, traceback=_place_of(answer))
                what = f"raised {type(answer).__name__}"
            case _:
                _log.error(
                    "a plug-in gave no answer", plugin=self._name, kind=type(answer).__name__
                )
                what = "gave no PluginAnswer with a payload"
        words = f"connector {self._name} {what}: a plug-in's fault, see the log"
        return Failure(FailureKind.UPSTREAM_PERMANENT, words)


def _place_of(error: BaseException) -> str:
    """Where an error was raised, and of what types it and those before it are; not their words."""
    kinds: list[str] = []
    at: BaseException | None = error
    while at is not None and len(kinds) < _MOST_CAUSES:
        kinds.append(type(at).__name__)
        at = at.__cause__ or at.__context__
    return "".join(traceback.format_tb(error.__traceback__)) + " from ".join(kinds)


def _guarded(function: Callable[..., object], *args: object) -> object:
    """What `function` gives or raises: nothing may be raised into the runtime, SystemExit least."""
    try:
        return function(*args)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the plug-in's
        return error

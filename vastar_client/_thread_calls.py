"""A unary call of a thread: lined up in the loop thread, answered through a lock, without a task.

Shape: the thread makes the message, leaves the call with the loop thread and waits in a lock of the
call's own, which a KeyboardInterrupt can interrupt. The loop thread writes it down as an entry of
the connection; its reader releases the lock; everything that is made of the answer is made in the
calling thread again. There is no task, no cancel scope and no timer for it: the waiting thread
minds the time, since it can wait in the lock for so long and no longer.

Where a call cannot begin at once, for want of a connection or of a slot, a task of its own makes it
(`Link.exchange`), with all that such a wait can end in.
"""

import threading
from typing import TYPE_CHECKING

import trio

from vastar_client._calls import Outgoing
from vastar_client._entries import UnaryEntry
from vastar_client._link import Link, stuck
from vastar_client._loop_thread import LoopThread, lost
from vastar_client._payload import succeeded
from vastar_client._streams import GRACE_S
from vastar_client.wire import ExecuteResponse

if TYPE_CHECKING:
    from vastar_client._session import Session

__all__ = ["ThreadCall"]


class ThreadCall(UnaryEntry):
    """One call, made by `wait` in one thread.

    Args:
        loop: the loop thread, in which `link` lives.
        link: the way to the runtime.
        outgoing: a call whose body is in its message.
    """

    __slots__ = (
        "_is_cancelled",
        "_is_expired",
        "_is_settled",
        "_link",
        "_lock",
        "_loop",
        "_scope",
        "_session",
        "_timeout_s",
    )

    def __init__(self, loop: LoopThread, link: Link, outgoing: Outgoing) -> None:
        assert outgoing.source is None, "a body in pieces needs a task that feeds it"
        assert outgoing.timeout_s is not None, "only a stream may go without"
        super().__init__(outgoing.message)
        self._loop = loop
        self._link = link
        self._timeout_s = outgoing.timeout_s
        self._session: Session | None = None
        self._scope: trio.CancelScope | None = None
        self._is_cancelled = False
        self._is_expired = False
        self._is_settled = False
        self._lock = threading.Lock()
        self._lock.acquire()  # released by `wake`, acquired again by `wait`

    def wait(self) -> ExecuteResponse:
        """Make the call; its successful answer. Whatever interrupts the wait cancels the call.

        Raises:
            ConnectorException: it failed.
        """
        acquire = self._lock.acquire
        has_ended = False
        try:
            self._loop.post(self)
            if not acquire(timeout=min(self._timeout_s + GRACE_S, threading.TIMEOUT_MAX)):
                self._loop.call_soon(self._expire)
                acquire()
            has_ended = True
        finally:
            if not has_ended:
                self._loop.call_soon(self._cancel)
        if self.error is not None:
            raise self.error
        assert self.answer is not None, "there is one or the other"
        return succeeded(self.answer)

    # All below runs in the loop thread.

    def begin(self) -> "Session | None":
        """Begin it; the connection that it is lined up on, which is to be pushed."""
        self._loop.under_way.add(self)
        if self._is_cancelled or self._is_expired:
            self.settle(lost() if self._is_cancelled else stuck(self, self._timeout_s))
            return None
        session = self._session = self._link.begin(self)
        if session is None:
            self._loop.start_soon(self._exchange)
        return session

    def wake(self) -> None:
        """Let the waiting thread go on; the first time counts."""
        if not self._is_settled:
            self._is_settled = True
            self._loop.under_way.discard(self)
            self._lock.release()

    def settle(self, error: Exception) -> None:
        """As `fail`, unless it has ended already."""
        if not self._is_settled:
            self.fail(error)

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._session is not None:
            self._give_up(lost())
        elif self._scope is not None:
            self._scope.cancel()

    def _expire(self) -> None:
        """Its time is over. A task that makes it minds the time itself.

        It may not have begun yet: Trio does not say in which order it calls what was left with it.
        """
        self._is_expired = True
        self._give_up(stuck(self, self._timeout_s))

    def _give_up(self, error: Exception) -> None:
        if self._session is not None and not self._is_settled:
            self._session.withdraw(self)
            self.fail(error)

    async def _exchange(self) -> None:
        """Make it in a task. Only Trio's own Cancelled leaves this."""
        try:
            with trio.CancelScope() as self._scope:
                if self._is_cancelled:
                    self._scope.cancel()
                try:
                    self.finish(await self._link.exchange(self.message, self._timeout_s))
                except Exception as error:  # noqa: BLE001  # it is raised in the waiting thread
                    self.fail(error)
        finally:
            self.settle(lost())

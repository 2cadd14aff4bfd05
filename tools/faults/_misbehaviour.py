"""A misbehaviour of an upstream as a value: what it does, and what a runtime has to make of it."""

import attrs

from tools.faults._steps import Step
from vastar_client.wire import Disposition, ErrorClass

__all__ = ["Expected", "Misbehaviour", "fails", "passes"]


@attrs.frozen
class Expected:
    """What a call to such an upstream is answered, when it is made once and not tried again.

    Attributes:
        error_class: of the answer.
        message: a pattern (`re.search`) that the error message, or a success's body, must fit.
        dispositions: those that are true; several where it is chance which byte came first.
        status_code: of a success.
        reusable: whether the connection may serve the next call: where it may not, the runtime must
            open another.
    """

    error_class: ErrorClass
    message: str
    dispositions: tuple[Disposition, ...]
    status_code: int | None = None
    reusable: bool = False


@attrs.frozen
class Misbehaviour:
    """One thing that upstreams do and should not, or may and should be borne.

    Attributes:
        name: `room-what`, unique.
        about: what is wrong with it, in a sentence.
        steps: what the upstream does on each connection.
        expected: what the runtime has to make of it.
        method, body_bytes: of the call that meets it.
        timeout_ms: of that call; short where the upstream only stops.
        idle_s: the connection is left alone for so long behind the answer: the lie shows then.
    """

    name: str
    about: str
    steps: tuple[Step, ...]
    expected: Expected
    method: str = "GET"
    body_bytes: int = 0
    timeout_ms: int = 5_000
    idle_s: float = 0.0


def fails(
    message: str,
    *dispositions: Disposition,
    error_class: ErrorClass = ErrorClass.TRANSIENT,
) -> Expected:
    """The call fails; by default Transient, once bytes of a response had come."""
    return Expected(error_class, message, dispositions or (Disposition.RESPONSE_STARTED,))


def passes(body: str = "^ok$", *, status_code: int = 200, reusable: bool = False) -> Expected:
    """The call is answered, whatever the upstream did."""
    return Expected(
        ErrorClass.SUCCESS, body, (Disposition.COMPLETED,), status_code, reusable=reusable
    )

"""What the result of one attempt means: is it to be tried again, and what does it say of whom?

One place, because the same result answers three questions (retry, breaker, quota) and the answers
must not contradict each other. The breakers are two. That of the host (per origin, shared by all
tenants) asks whether anybody can be reached there: connect, DNS and TLS failures and resets count
against it, and any HTTP answer is a success, whatever it says. That of the tenant asks whether the
tenant is served: 5xx, timeouts and broken answers count. So no tenant can shut a host for the
others with requests that fail. For the same reason a certificate that *this* tenant's settings do
not trust, or a proxy of its own, counts for the tenant only, and 429, which speaks of a credential,
fails the probe of the tenant's breaker but not that of the host's.

What is retried (RFC 9110, section 9.2.2, and DEFAULTS.md): any transient fault of an idempotent
method, or of any method under an `Idempotency-Key`. Others only where the upstream has certainly
not acted: not sent, refused by the protocol (REFUSED_STREAM, GOAWAY), 429, 503 with Retry-After.
"""

from enum import Enum, IntEnum, auto
from typing import Final

import attrs

from vastar_runtime.policy.breaker import Evidence

__all__ = [
    "IDEMPOTENT_METHODS",
    "RETRIED_STATUSES",
    "AttemptResult",
    "Fault",
    "Meaning",
    "Reached",
    "Retry",
    "classify",
]

IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""As written: methods are case-sensitive, and one that is not known may do anything."""

RETRIED_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})

_FIRST_STATUS: Final = 100
_FIRST_ERROR: Final = 400
_FIRST_SERVER_ERROR: Final = 500
_TOO_MANY_REQUESTS: Final = 429
_NOT_IMPLEMENTED: Final = 501
_UNAVAILABLE: Final = 503


class Reached(IntEnum):
    """How far an attempt got; the numbers are those of the wire's `Disposition`."""

    UNKNOWN = 0
    NOT_SENT = 1
    SENT_NO_RESPONSE = 2
    RESPONSE_STARTED = 3
    COMPLETED = 4


class Fault(Enum):
    """Why an attempt brought no whole answer. A limit on connecting that ran out is `CONNECT`."""

    LOOKUP = auto()
    CONNECT = auto()
    TLS = auto()
    PROXY = auto()
    """The way there, this tenant's own, ends before the upstream."""
    UNTRUSTED = auto()
    """The certificate is not one that this tenant's settings trust: the same again next time."""
    RESET = auto()
    """The connection ended under the request."""
    GARBLED = auto()
    """What came is not HTTP."""
    REFUSED_STREAM = auto()
    """The upstream said that it did not begin: REFUSED_STREAM, or beyond a GOAWAY."""
    ATTEMPT_TIMEOUT = auto()
    """The limit on one attempt, ours, ran out."""
    CALLER_LIMIT = auto()
    """The caller's own limit ran out."""
    CANCELLED = auto()
    LOCAL_REFUSAL = auto()
    """One of our own policies refused."""
    LOCAL_ERROR = auto()
    """A bad request, or a bug of ours: nothing that the upstream did."""


class Retry(Enum):
    """Whether another attempt may help, and how patient it has to be."""

    NEVER = auto()
    TRANSIENT = auto()
    THROTTLED = auto()


@attrs.frozen
class AttemptResult:
    """How one attempt ended.

    Attributes:
        status: of the response, 0 where there was none.
        fault: what went wrong besides; None where the response is whole, as far as was read.
        retry_after_s: what this answer, and no other, asked for (`retry_after.parse`).
    """

    status: int = 0
    fault: Fault | None = None
    reached: Reached = Reached.COMPLETED
    retry_after_s: float | None = None


@attrs.frozen
class Meaning:
    """What a result means.

    Attributes:
        retry: whether the call may be tried again, as far as this result tells.
        host: evidence for the breaker of the origin.
        tenant: evidence for the breaker of the tenant at that origin.
        cools_down: the credential was throttled.
        is_clean: an answer that shows the upstream well; earns retry quota.
    """

    retry: Retry
    host: Evidence
    tenant: Evidence
    cools_down: bool = False
    is_clean: bool = False


_FINE: Final = Meaning(Retry.NEVER, Evidence.SUCCESS, Evidence.SUCCESS, is_clean=True)

_FAULT_EVIDENCE: Final = {
    Fault.LOOKUP: (Evidence.NO_ANSWER, Evidence.NONE),
    Fault.CONNECT: (Evidence.NO_ANSWER, Evidence.NONE),
    Fault.TLS: (Evidence.NO_ANSWER, Evidence.NONE),
    Fault.PROXY: (Evidence.NONE, Evidence.NO_ANSWER),
    Fault.UNTRUSTED: (Evidence.NONE, Evidence.NO_ANSWER),
    Fault.RESET: (Evidence.NO_ANSWER, Evidence.NONE),
    Fault.GARBLED: (Evidence.NONE, Evidence.NO_ANSWER),
    Fault.REFUSED_STREAM: (Evidence.NONE, Evidence.NONE),
    Fault.ATTEMPT_TIMEOUT: (Evidence.NONE, Evidence.NO_ANSWER),
    Fault.CALLER_LIMIT: (Evidence.NONE, Evidence.NONE),
    Fault.CANCELLED: (Evidence.NONE, Evidence.NONE),
    Fault.LOCAL_REFUSAL: (Evidence.NONE, Evidence.NONE),
    Fault.LOCAL_ERROR: (Evidence.NONE, Evidence.NONE),
}
"""For the host, for the tenant; without an answer, see `_once_answered`."""

_TRANSIENT_FAULTS: Final = frozenset(
    {
        Fault.LOOKUP,
        Fault.CONNECT,
        Fault.PROXY,
        Fault.TLS,
        Fault.RESET,
        Fault.GARBLED,
        Fault.REFUSED_STREAM,
        Fault.ATTEMPT_TIMEOUT,
    }
)


def classify(method: str, result: AttemptResult, *, has_idempotency_key: bool) -> Meaning:
    """What `result` means for a request of `method`.

    Args:
        method: as it was sent.
        result: of one attempt.
        has_idempotency_key: the caller gave one, so that saying it twice is safe.
    """
    status, fault = result.status, result.fault
    if fault is None and _FIRST_STATUS <= status < _FIRST_ERROR:
        return _FINE
    assert status or fault, "an attempt ended with neither an answer nor a fault"
    host, tenant = _status_evidence(status) if fault is None else _fault_evidence(fault, result)
    return Meaning(
        _retry(method, result, has_idempotency_key),
        host,
        tenant,
        cools_down=status == _TOO_MANY_REQUESTS,
    )


def _retry(method: str, result: AttemptResult, has_idempotency_key: bool) -> Retry:
    status, fault = result.status, result.fault
    is_transient = fault in _TRANSIENT_FAULTS if fault else status in RETRIED_STATUSES
    if not is_transient:
        return Retry.NEVER
    is_certainly_not_done = (
        result.reached is Reached.NOT_SENT
        or fault is Fault.REFUSED_STREAM
        or status == _TOO_MANY_REQUESTS
        or (status == _UNAVAILABLE and result.retry_after_s is not None)
    )
    if not (method in IDEMPOTENT_METHODS or has_idempotency_key or is_certainly_not_done):
        return Retry.NEVER
    return Retry.THROTTLED if status == _TOO_MANY_REQUESTS else Retry.TRANSIENT


def _status_evidence(status: int) -> tuple[Evidence, Evidence]:
    """Of a whole answer that is an error."""
    if status == _TOO_MANY_REQUESTS:
        return Evidence.SUCCESS, Evidence.THROTTLED
    if status < _FIRST_SERVER_ERROR or status == _NOT_IMPLEMENTED:
        return Evidence.SUCCESS, Evidence.ANSWERED
    return Evidence.SUCCESS, Evidence.FAILURE


def _fault_evidence(fault: Fault, result: AttemptResult) -> tuple[Evidence, Evidence]:
    host, tenant = _FAULT_EVIDENCE[fault]
    if result.status or result.reached >= Reached.RESPONSE_STARTED:
        return _once_answered(host), _once_answered(tenant)
    return host, tenant


def _once_answered(evidence: Evidence) -> Evidence:
    """What broke off after the head of an answer is a failure, but no silence."""
    return Evidence.FAILURE if evidence is Evidence.NO_ANSWER else evidence

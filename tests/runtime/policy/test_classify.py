"""What results mean: the whole table, method by status or fault by how far it got by key."""

from itertools import product

import pytest

from vastar_client.wire.enums import Disposition
from vastar_runtime.policy.breaker import Evidence
from vastar_runtime.policy.classify import AttemptResult, Fault, Meaning, Reached, Retry, classify

IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]
OTHERS = ["POST", "PATCH", "CONNECT", "get", "PROPFIND", ""]
STATUSES = [*range(100, 600), 600, 999]
TRANSIENT_STATUSES = [408, 429, 500, 502, 503, 504]
TRANSIENT_FAULTS = [
    Fault.LOOKUP,
    Fault.CONNECT,
    Fault.PROXY,
    Fault.TLS,
    Fault.RESET,
    Fault.GARBLED,
    Fault.REFUSED_STREAM,
    Fault.ATTEMPT_TIMEOUT,
]
LASTING_FAULTS = [
    Fault.UNTRUSTED,
    Fault.CALLER_LIMIT,
    Fault.CANCELLED,
    Fault.LOCAL_REFUSAL,
    Fault.LOCAL_ERROR,
]
NOT_EVIDENCE = [
    Fault.REFUSED_STREAM,
    Fault.CALLER_LIMIT,
    Fault.CANCELLED,
    Fault.LOCAL_REFUSAL,
    Fault.LOCAL_ERROR,
]


def meaning(method: str = "GET", key: bool = False, **result: object) -> Meaning:
    return classify(method, AttemptResult(**result), has_idempotency_key=key)


def test_every_fault_is_in_the_table():
    assert {*TRANSIENT_FAULTS, *LASTING_FAULTS} == set(Fault)


def test_reached_counts_as_the_wire_does():
    assert {each.name: each.value for each in Reached} == {
        each.name: each.value for each in Disposition
    }


@pytest.mark.parametrize("method", IDEMPOTENT + OTHERS)
def test_what_is_retried_of_statuses(method: str):
    for status, reached, key, hint_s in product(STATUSES, Reached, [False, True], [None, 1.0]):
        found = meaning(method, key, status=status, reached=reached, retry_after_s=hint_s).retry
        certain = reached is Reached.NOT_SENT or status == 429 or (status == 503 and hint_s)
        if status not in TRANSIENT_STATUSES:
            expected = Retry.NEVER
        elif method in IDEMPOTENT or key or certain:
            expected = Retry.THROTTLED if status == 429 else Retry.TRANSIENT
        else:
            expected = Retry.NEVER
        assert found is expected, (status, reached, key, hint_s)


@pytest.mark.parametrize("method", IDEMPOTENT + OTHERS)
def test_what_is_retried_of_faults(method: str):
    for fault, reached, key in product(Fault, Reached, [False, True]):
        found = meaning(method, key, fault=fault, reached=reached).retry
        certain = reached is Reached.NOT_SENT or fault is Fault.REFUSED_STREAM
        is_retried = fault in TRANSIENT_FAULTS and (method in IDEMPOTENT or key or certain)
        assert found is (Retry.TRANSIENT if is_retried else Retry.NEVER), (fault, reached, key)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_evidence_of_whole_answers(method: str):
    for status in STATUSES:
        found = meaning(method, status=status)
        assert found.host is Evidence.SUCCESS, "any answer shows that the host is there"
        if status < 400:
            tenant = Evidence.SUCCESS
        elif status == 429:
            tenant = Evidence.THROTTLED
        elif status < 500 or status == 501:
            tenant = Evidence.ANSWERED
        else:
            tenant = Evidence.FAILURE
        assert found.tenant is tenant, status
        assert found.is_clean is (status < 400)
        assert found.cools_down is (status == 429)


@pytest.mark.parametrize(
    ("fault", "host", "tenant"),
    [
        (Fault.LOOKUP, Evidence.NO_ANSWER, Evidence.NONE),
        (Fault.CONNECT, Evidence.NO_ANSWER, Evidence.NONE),
        (Fault.TLS, Evidence.NO_ANSWER, Evidence.NONE),
        (Fault.RESET, Evidence.NO_ANSWER, Evidence.NONE),
        (Fault.PROXY, Evidence.NONE, Evidence.NO_ANSWER),
        (Fault.UNTRUSTED, Evidence.NONE, Evidence.NO_ANSWER),
        (Fault.GARBLED, Evidence.NONE, Evidence.NO_ANSWER),
        (Fault.ATTEMPT_TIMEOUT, Evidence.NONE, Evidence.NO_ANSWER),
        *((fault, Evidence.NONE, Evidence.NONE) for fault in NOT_EVIDENCE),
    ],
)
def test_evidence_of_faults(fault: Fault, host: Evidence, tenant: Evidence):
    for reached in (Reached.UNKNOWN, Reached.NOT_SENT, Reached.SENT_NO_RESPONSE):
        found = meaning(fault=fault, reached=reached)
        assert (found.host, found.tenant) == (host, tenant)
        assert not found.is_clean
        assert not found.cools_down


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize(
    "answer", [{"status": 200}, {"reached": Reached.RESPONSE_STARTED}, {"status": 429}]
)
def test_what_breaks_off_after_the_head_is_no_silence(fault: Fault, answer: dict[str, object]):
    silent = meaning(fault=fault, reached=Reached.SENT_NO_RESPONSE)
    found = meaning(fault=fault, **answer)
    for before, after in ((silent.host, found.host), (silent.tenant, found.tenant)):
        expected = Evidence.FAILURE if before is Evidence.NO_ANSWER else before
        assert after is expected
    assert not found.is_clean
    assert found.cools_down is (answer.get("status") == 429)


def test_an_attempt_without_an_end_is_a_bug_of_ours():
    with pytest.raises(AssertionError, match="neither"):
        meaning()

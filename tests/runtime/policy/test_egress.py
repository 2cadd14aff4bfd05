"""Names and addresses against rules: what outranks what, and what nothing outranks."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastar_runtime.policy import egress
from vastar_runtime.policy.egress import EgressRefusal, EgressRules, EgressSettings, rules_of_named
from vastar_runtime.policy.modes import Mode

METADATA = "169.254.169.254"


def rules(**settings: object) -> EgressRules:
    return EgressRules(EgressSettings(**settings))  # type: ignore[arg-type]


def rule_of(refusal: EgressRefusal | None) -> str | None:
    return None if refusal is None else refusal.rule


def of_name(made: EgressRules, host: str, scheme: str = "https", port: int = 443) -> str | None:
    return rule_of(made.refusal_of_name((scheme, host, port)))


def of_address(made: EgressRules, text: str) -> str | None:
    return rule_of(made.refusal_of_address(text))


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["api.test", "localhost", "10.0.0.1", "::1", "0.0.0.0"])
def test_by_default_everything_may_be_reached(host: str) -> None:
    assert of_name(rules(), host) is None


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("api.test", ["api.test", "api.test."], ["x.api.test", "test", "api.test.x", "xapi.test"]),
        ("*.test", ["api.test", "a.b.test", "a.test."], ["test", "test.x", "xtest"]),
        ("*", ["api.test", "10.0.0.1", "::1"], []),
        ("10.0.0.1", ["10.0.0.1"], ["10.0.0.2", "x.10.0.0.1.test"]),
        ("*.0.1", [], ["10.0.0.1"]),
        ("2606:4700::1", ["2606:4700::1"], ["2606:4700::2"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    allowing, denying = rules(allow_hosts=(pattern,)), rules(deny_hosts=(pattern,))
    for host in fits:
        assert of_name(allowing, host) is None, host
        assert of_name(denying, host) == "deny_hosts", host
    for host in fits_not:
        assert of_name(allowing, host) == "allow_hosts", host
        assert of_name(denying, host) is None, host


def test_what_is_denied_is_denied_whatever_is_allowed() -> None:
    made = rules(allow_hosts=("*.test",), deny_hosts=("secret.test",))
    assert of_name(made, "api.test") is None
    assert of_name(made, "secret.test") == "deny_hosts"
    assert of_name(made, "other.example") == "allow_hosts"


def test_ports_and_schemes() -> None:
    made = rules(allow_ports=(443,), schemes=("https",))
    assert of_name(made, "api.test") is None
    assert of_name(made, "api.test", port=8443) == "allow_ports"
    assert of_name(made, "api.test", scheme="http") == "schemes"


def test_a_host_that_is_an_address_is_judged_as_one_too() -> None:
    made = rules(public_only=True)
    assert of_name(made, "10.0.0.1") == "private"
    assert of_name(made, "::ffff:a00:1") == "private"
    assert of_name(made, "8.8.8.8") is None
    assert of_name(rules(public_only=True, allow_hosts=("10.0.0.1",)), "10.0.0.1") == "private"


@pytest.mark.parametrize(
    "host",
    [
        *(METADATA, "::ffff:a9fe:a9fe", "metadata.google.internal", "metadata.google.internal."),
        *("metadata", "metadata.", "instance-data"),
    ],
)
@pytest.mark.parametrize(
    "made",
    [
        rules(),
        rules(mode=Mode.OFF),
        rules(mode=Mode.OBSERVE),
        rules(allow_hosts=("*",), allow_ranges=("0.0.0.0/0", "::/0")),
    ],
)
def test_metadata_is_never_reached_by_name(made: EgressRules, host: str) -> None:
    refusal = made.refusal_of_name(("http", host, 80))
    assert refusal is not None
    assert (refusal.rule, refusal.always) == ("metadata", True)


def test_off_asks_no_other_rule() -> None:
    made = rules(mode=Mode.OFF, public_only=True, deny_hosts=("*",), deny_ranges=("0.0.0.0/0",))
    assert of_name(made, "127.0.0.1") is None
    assert of_address(made, "127.0.0.1") is None
    assert of_address(made, "nonsense") is None
    assert made.refusal_of_own_address("8.8.8.8") is None


def test_observe_judges_as_enforce_does() -> None:
    made = rules(mode=Mode.OBSERVE, deny_hosts=("*",))
    refusal = made.refusal_of_name(("https", "api.test", 443))
    assert refusal is not None
    assert not refusal.always


def test_verdicts_are_kept_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_MOST_VERDICTS", 3)
    made = rules(deny_hosts=("bad.test",))
    for _ in range(2):
        for host in ("a.test", "b.test", "bad.test", "d.test", "e.test"):
            assert (of_name(made, host) is None) is (host != "bad.test")
            assert len(made._verdicts) <= 3
    first = made.refusal_of_name(("https", "bad.test", 443))
    assert made.refusal_of_name(("https", "bad.test", 443)) is first


def test_words_for_the_caller() -> None:
    made = rules(
        public_only=True,
        deny_hosts=("*.corp",),
        deny_ranges=("8.8.0.0/16",),
        allow_ports=(443,),
    )
    for origin, words in (
        (("https", "a.corp", 443), 'rule deny_hosts: the host fits "*.corp", which is denied'),
        (("https", "a.test", 444), "rule allow_ports: port 444 is not allowed"),
        (("https", "10.0.0.1", 443), "rule private: the address is not one of the Internet"),
        (("https", "8.8.8.8", 443), "rule deny_ranges: the address is denied"),
    ):
        refusal = made.refusal_of_name(origin)
        assert refusal is not None
        assert refusal.reason == words


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["8.8.8.8", "127.0.0.1", "::1", "fe80::1%eth0", "nonsense"])
def test_by_default_every_address_may_be_connected_to(text: str) -> None:
    assert of_address(rules(), text) is None


def test_public_addresses_alone() -> None:
    made = rules(public_only=True)
    assert of_address(made, "8.8.8.8") is None
    assert of_address(made, "64:ff9b::10.0.0.1") == "nat64:private"
    assert of_address(made, "nonsense") == "unreadable"


def test_ranges_that_are_allowed_outrank_all_but_metadata() -> None:
    made = rules(
        public_only=True,
        allow_ranges=("10.1.0.0/16", "169.254.0.0/16", "64:ff9b::/96"),
        deny_ranges=("10.0.0.0/8", "8.8.8.0/24"),
    )
    assert of_address(made, "10.1.2.3") is None
    assert of_address(made, "::ffff:10.1.2.3") is None
    assert of_address(made, "169.254.7.7") is None
    assert of_address(made, "64:ff9b::127.0.0.1") is None, "the operator said so"
    assert of_address(made, "10.2.0.1") == "deny_ranges"
    assert of_address(made, "8.8.8.8") == "deny_ranges"
    assert of_address(made, "2002:a02:1::1") == "deny_ranges"
    assert of_address(made, "2002:a01:1::1") == "deny_ranges", "not the range that is allowed"
    assert of_address(made, METADATA) == "metadata"
    assert of_address(made, f"64:ff9b::{METADATA}") == "metadata"


def test_own_addresses() -> None:
    assert rule_of(rules().refusal_of_own_address("8.8.8.8")) is None
    made = rules(public_only=True, allow_ranges=("8.8.8.0/24",))
    assert rule_of(made.refusal_of_own_address("9.9.9.9")) == "own"
    assert rule_of(made.refusal_of_own_address("nonsense")) == "own"
    assert made.refusal_of_own_address("8.8.8.8") is None
    assert (made.asks_whose, rules().asks_whose) == (True, False)


@given(st.ip_addresses())
def test_no_rule_lets_more_addresses_out_than_none(address: object) -> None:
    text = str(address)
    for settings in (
        EgressSettings(public_only=True),
        EgressSettings(deny_ranges=("0.0.0.0/1", "::/1")),
    ):
        strict, lax = EgressRules(settings), EgressRules(attrs.evolve(settings, mode=Mode.OFF))
        if of_address(strict, text) is None:
            assert of_address(lax, text) is None


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no range of addresses"):
        rules(allow_ranges=("10.0.0.0/99",))


def test_rules_are_equal_where_their_settings_are() -> None:
    assert rules(deny_hosts=("a",)) == rules(deny_hosts=("a",))
    assert hash(rules(deny_hosts=("a",))) == hash(rules(deny_hosts=("a",)))
    assert rules(deny_hosts=("a",)) != rules(deny_hosts=("b",))


def test_the_site_that_a_header_names_is_judged_as_a_name_is() -> None:
    rules = EgressRules(EgressSettings(deny_hosts=("bad.test",), public_only=True))
    origin = ("https", "good.test", 443)
    verdicts = {
        host: refusal and refusal.rule
        for host in (
            b"good.test",
            b"GOOD.test:443",
            b"other.test",
            b"Bad.test.:1",
            b"[::1]",
            b"a b",
        )
        for refusal in [rules.refusal_of_site(origin, host)]
    }
    assert verdicts == {
        b"good.test": None,
        b"GOOD.test:443": None,
        b"other.test": None,
        b"Bad.test.:1": "deny_hosts",
        b"[::1]": "loopback",
        b"a b": "host_header",
    }
    assert rules.judges_names
    assert EgressRules(EgressSettings(allow_hosts=("good.test",))).judges_names
    assert not EgressRules(EgressSettings(mode=Mode.OFF, deny_hosts=("bad.test",))).judges_names
    assert not EgressRules().judges_names


def test_of_servers_that_the_configuration_names_only_what_is_denied_is_refused():
    rules = EgressRules(
        EgressSettings(
            public_only=True,
            allow_hosts=("api.test",),
            deny_hosts=("*.bad.test",),
            allow_ports=(443,),
            schemes=("https",),
            deny_ranges=("10.0.0.0/8",),
            allow_ranges=("10.1.0.0/16",),
        )
    )
    named = rules_of_named(rules)
    assert named is rules_of_named(rules)

    def refused(host: str) -> str | None:
        found = named.refusal_of_name(("postgres", host, 5432))
        return None if found is None else found.rule

    hosts = ("db.test", "127.0.0.1", "10.1.2.3", "x.bad.test", "10.2.0.1", "169.254.169.254")
    assert [refused(host) for host in hosts] == [
        *(None, None, None),
        *("deny_hosts", "deny_ranges", "metadata"),
    ]
    assert named.refusal_of_address("127.0.0.1") is None
    assert not named.asks_whose

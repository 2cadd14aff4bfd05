"""Where a call may go: by the name that it gives, and by each address that the name stands for.

The order is that of Smokescreen: names first, then every address that the name was looked up to,
and the connection goes to an address that was judged, never to a second look-up. Of addresses,
ranges that are allowed outrank those that are denied, and both outrank the tables. Nothing outranks
that cloud metadata is never reached: not a range, not `Mode.OFF`.

Decisions only: who asks does the look-up, the counting and the refusing. The verdict on a name is
kept, as a connector calls the same few origins again and again; how many rules there are does not
matter for the time that takes, nor for the first time.
"""

import re
from functools import lru_cache
from typing import Final

import attrs

from vastar_runtime.policy.addresses import (
    Range,
    inside_rule,
    is_metadata,
    parse_address,
    parse_range,
    within,
)
from vastar_runtime.policy.modes import Mode

__all__ = ["EgressRefusal", "EgressRules", "EgressSettings", "rules_of_named"]

_MOST_VERDICTS: Final = 4096
"""Of one set of rules; callers choose the names, so beyond it all are forgotten."""

_METADATA_NAMES: Final = frozenset(
    {
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
    }
)
"""Names of cloud metadata: their addresses are refused anyway, but a proxy may look them up."""


_SITE: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(?::[0-9]*)?")
"""What a Host header may say (RFC 9110, 7.2), without what no name of the Internet has."""


@attrs.frozen
class EgressSettings:
    """What a call may reach.

    Attributes:
        mode: of all rules but those about metadata.
        public_only: of addresses, those of the Internet alone; not this host's own.
        allow_hosts: where any is given, only what fits one of them; a name, `*.NAME` for all names
            below it, an address, or `*`. Lower case, as a URL's host is after parsing.
        deny_hosts: not what fits one of these, whatever is allowed.
        allow_ports: where any is given, only these.
        schemes: only these.
        allow_ranges: addresses that may be reached, whatever else is denied (`10.1.0.0/16`).
        deny_ranges: addresses that may not, where they are not allowed.
    """

    mode: Mode = Mode.ENFORCE
    public_only: bool = False
    allow_hosts: tuple[str, ...] = ()
    deny_hosts: tuple[str, ...] = ()
    allow_ports: tuple[int, ...] = ()
    schemes: tuple[str, ...] = ("http", "https")
    allow_ranges: tuple[str, ...] = ()
    deny_ranges: tuple[str, ...] = ()


@attrs.frozen
class EgressRefusal:
    """Why a call may not go there.

    Attributes:
        rule: which rule refuses: a key of the configuration, or what the address is
            (`private`, `nat64:loopback`, `metadata`, `own`).
        reason: for the caller; of an address that a name was looked up to it tells no more than
            what it is, as names of inside networks are nobody's business.
        always: whatever the mode.
    """

    rule: str
    reason: str
    always: bool = False


_METADATA: Final = EgressRefusal(
    "metadata", "rule metadata: cloud metadata is never reached", always=True
)


@attrs.frozen
class EgressRules:
    """Settings, made ready to judge by. Equal where its settings are.

    Raises:
        ValueError: a range is none.
    """

    settings: EgressSettings = EgressSettings()
    _allowed: "_Hosts" = attrs.field(init=False, repr=False, eq=False)
    _denied: "_Hosts" = attrs.field(init=False, repr=False, eq=False)
    _allow_ranges: tuple[Range, ...] = attrs.field(init=False, repr=False, eq=False)
    _deny_ranges: tuple[Range, ...] = attrs.field(init=False, repr=False, eq=False)
    _verdicts: dict[tuple[str, str, int], EgressRefusal | None] = attrs.field(
        init=False, repr=False, eq=False, factory=dict
    )

    @_allowed.default
    def _hosts_allowed(self) -> "_Hosts":
        return _Hosts.of(self.settings.allow_hosts)

    @_denied.default
    def _hosts_denied(self) -> "_Hosts":
        return _Hosts.of(self.settings.deny_hosts)

    @_allow_ranges.default
    def _ranges_allowed(self) -> tuple[Range, ...]:
        return tuple(map(_range, self.settings.allow_ranges))

    @_deny_ranges.default
    def _ranges_denied(self) -> tuple[Range, ...]:
        return tuple(map(_range, self.settings.deny_ranges))

    def refusal_of_name(self, origin: tuple[str, str, int]) -> EgressRefusal | None:
        """Why a call may not go to an origin, as far as its name tells; None: it may.

        Args:
            origin: scheme, host and port; the host in lower case, an address as a URL writes it.
        """
        try:
            return self._verdicts[origin]
        except KeyError:
            verdict = self._judge(*origin)
        if len(self._verdicts) >= _MOST_VERDICTS:
            self._verdicts.clear()
        self._verdicts[origin] = verdict
        return verdict

    def refusal_of_site(self, origin: tuple[str, str, int], host: bytes) -> EgressRefusal | None:
        """Why a request to an origin may not ask for the site that its Host header names.

        One front serves many sites, of which it gives the one that the header names: so where
        there are rules about names (`judges_names`) they hold for that name too.

        Args:
            origin: as in `refusal_of_name`, which has been asked.
            host: the header's value.
        """
        found = _SITE.fullmatch(host)
        if found is None:
            return _of_name("host_header", "the Host header names no site")
        scheme, own, port = origin
        name = found[1].decode().lower().strip("[]")
        return None if name == own else self.refusal_of_name((scheme, name, port))

    @property
    def judges_names(self) -> bool:
        """Whether there are rules about names, beside those about metadata."""
        settings = self.settings
        return bool(settings.allow_hosts or settings.deny_hosts) and settings.mode is not Mode.OFF

    def refusal_of_address(self, text: str) -> EgressRefusal | None:
        """Why no call may go to an address; None: it may.

        Args:
            text: as a look-up gives it. What is no address cannot be judged, and is none of the
                Internet.
        """
        settings, number = self.settings, parse_address(text)
        if number is None:
            is_wanted = settings.public_only and settings.mode is not Mode.OFF
            return _of_address("unreadable", "cannot be read") if is_wanted else None
        if is_metadata(number):
            return _METADATA
        if settings.mode is Mode.OFF or self._allows(number):
            return None
        if within(number, self._deny_ranges):
            return _of_address("deny_ranges", "is denied")
        rule = inside_rule(number) if settings.public_only else None
        return None if rule is None else _of_address(rule, "is not one of the Internet")

    def refusal_of_own_address(self, text: str) -> EgressRefusal | None:
        """Why no call may go to an address of this very host."""
        number = parse_address(text)
        if not self.asks_whose or (number is not None and self._allows(number)):
            return None
        return _of_address("own", "is the runtime's own host")

    @property
    def asks_whose(self) -> bool:
        """Whether it matters that an address is this host's own."""
        return self.settings.public_only and self.settings.mode is not Mode.OFF

    def _allows(self, number: int) -> bool:
        """Whether an address is in a range that is allowed; not what it may lead to."""
        return any(first <= number <= last for first, last in self._allow_ranges)

    def _judge(self, scheme: str, host: str, port: int) -> EgressRefusal | None:
        settings = self.settings
        name = host.rstrip(".")  # an absolute name is the same name
        if name in _METADATA_NAMES:
            return _METADATA
        address = parse_address(host)
        if address is not None and is_metadata(address):
            return _METADATA
        if settings.mode is Mode.OFF:
            return None
        if scheme not in settings.schemes:
            return _of_name("schemes", f"{scheme} is not allowed")
        if settings.allow_ports and port not in settings.allow_ports:
            return _of_name("allow_ports", f"port {port} is not allowed")
        pattern = self._denied.find(name, is_address=address is not None)
        if pattern is not None:
            return _of_name("deny_hosts", f'the host fits "{pattern}", which is denied')
        is_listed = self._allowed.find(name, is_address=address is not None) is not None
        if settings.allow_hosts and not is_listed:
            return _of_name("allow_hosts", "the host is none of those that are allowed")
        return None if address is None else self.refusal_of_address(host)


@lru_cache(maxsize=256)
def rules_of_named(rules: EgressRules) -> EgressRules:
    """What is left of rules for a server that the configuration names, and no caller.

    Naming it is to allow it: what is meant to be reached (`allow_hosts`, `allow_ports`, `schemes`,
    `public_only`) says nothing of it. What is denied in so many words stays denied, and metadata.
    """
    settings = attrs.evolve(
        rules.settings, public_only=False, allow_hosts=(), allow_ports=(), schemes=("postgres",)
    )
    return EgressRules(settings)


@attrs.frozen
class _Hosts:
    """Patterns of hosts; looking one up takes as long as the host has labels."""

    exact: frozenset[str]
    below: frozenset[str]
    has_any: bool

    @classmethod
    def of(cls, patterns: tuple[str, ...]) -> "_Hosts":
        return cls(
            frozenset(each for each in patterns if not each.startswith("*")),
            frozenset(each[2:] for each in patterns if each.startswith("*.")),
            "*" in patterns,
        )

    def find(self, name: str, *, is_address: bool) -> str | None:
        """The pattern that `name` fits."""
        if name in self.exact:
            return name
        rest = "" if is_address else name.partition(".")[2]
        while rest:
            if rest in self.below:
                return f"*.{rest}"
            rest = rest.partition(".")[2]
        return "*" if self.has_any else None


def _range(text: str) -> Range:
    found = parse_range(text)
    if found is None:
        raise ValueError(f"{text} is no range of addresses")
    return found


def _of_name(rule: str, words: str) -> EgressRefusal:
    return EgressRefusal(rule, f"rule {rule}: {words}")


def _of_address(rule: str, words: str) -> EgressRefusal:
    return EgressRefusal(rule, f"rule {rule}: the address {words}")

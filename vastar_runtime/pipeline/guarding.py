"""The egress guard at work: it judges names before a request, and addresses before a connection.

Shape: no layer, because it has two ends that lie on both sides of all layers. A lease asks about
the name before anything else is done for a request, so that a refused one costs nothing and leaves
no trace at any machine. The transport asks about each address that it is about to connect to, and
about a proxy's own; it connects to what was judged and looks up nothing twice. Each request asks
anew, so a redirect is a request like any other; a pooled connection leads where its address was
judged. Servers that the configuration names, those of data sources, are judged at the same two
ends, by what is left of the rules for them (`rules_of_named`).

Every refusal is counted by its gate, and told to the audit log with the address, which the caller
is not told.
"""

from collections.abc import Callable
from typing import Final

from vastar_runtime.audit import audit
from vastar_runtime.calls import Call
from vastar_runtime.pipeline.machines import Machines
from vastar_runtime.pipeline.policies import Gates
from vastar_runtime.policy.egress import (
    EgressRefusal,
    EgressRules,
    EgressSettings,
    rules_of_named,
)
from vastar_runtime.policy.modes import Mode
from vastar_runtime.policy.verdicts import Refused
from vastar_runtime.policy.verdicts import Scope as Whose
from vastar_runtime.transport import (
    HttpTransport,
    LocalFault,
    Network,
    Origin,
    Scope,
    TransportSettings,
    is_own_address,
)
from vastar_runtime.transport.messages import UpstreamRequest, header_values

__all__ = ["POLICY", "EgressGuard", "Forbidden"]

POLICY: Final = "egress_guard"
_OF_PROXIES: Final = EgressRules(EgressSettings(mode=Mode.OFF))
"""Who writes the configuration chooses the proxies: only cloud metadata is none."""


class Forbidden(LocalFault):
    """An address that no connection may be made to.

    Attributes:
        refused: what is said of it.
        rule: which rule refuses.
        address: of the upstream or of the proxy.
    """

    def __init__(self, refusal: EgressRefusal, address: str) -> None:
        super().__init__(refusal.reason)
        self.refused = _refused(refusal)
        self.rule = refusal.rule
        self.address = address


class EgressGuard:
    """The guard of one runtime.

    Args:
        machines: whose book has the rules.
        gates: where verdicts are counted.
        is_own_address: whether an address is one of this host's.
    """

    def __init__(
        self,
        machines: Machines,
        gates: Gates,
        is_own_address: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._machines = machines
        self._gates = gates
        self._is_own_address = is_own_address

    @classmethod
    def before(
        cls,
        settings: TransportSettings,
        network: Network | None,
        machines: Machines,
        gates: Gates,
    ) -> "tuple[EgressGuard, HttpTransport]":
        """A guard, and a transport that asks it; of this host's own network where none is given.

        A network that is given has the addresses that its `is_own_address` knows, if it has one.
        """
        own = is_own_address if network is None else getattr(network, "is_own_address", None)
        guard = cls(machines, gates) if own is None else cls(machines, gates, own)
        transport = HttpTransport(
            settings,
            network,
            check_address=guard.check_address,
            check_proxy_address=guard.check_proxy_address,
        )
        return guard, transport

    def refuses(self, call: Call, rules: EgressRules, origin: Origin) -> Refused | None:
        """Why `call` may not go to `origin`, as far as its name tells; None: it may."""
        refusal = rules.refusal_of_name(origin)
        if refusal is None:
            self._gates.of(POLICY, rules.settings.mode).apply(None)
            return None
        return self._judged(call, rules, origin, refusal)

    def refuses_site(
        self, call: Call, rules: EgressRules, request: UpstreamRequest
    ) -> Refused | None:
        """Why `request` may not ask for the site that its Host header names; None: it may.

        For rules that judge names (`EgressRules.judges_names`), after `refuses`.
        """
        for host in header_values([*request.headers], b"host"):
            refusal = rules.refusal_of_site(request.origin, host)
            if refusal is not None:
                return self._judged(call, rules, request.origin, refusal)
        return None

    def _judged(
        self, call: Call, rules: EgressRules, origin: Origin, refusal: EgressRefusal
    ) -> Refused | None:
        """Count a refusal and tell it; what the caller is told, if it takes effect."""
        is_enforced = self._counts(rules, refusal)
        audit(
            "egress_refused" if is_enforced else "egress_observed",
            caller=call.caller,
            tenant=call.request.tenant_id,
            workspace=call.request.workspace_id,
            origin=str(origin),
            rule=refusal.rule,
            trace_id=call.request.trace_id,
        )
        return _refused(refusal) if is_enforced else None

    def check_address(self, scope: Scope, origin: Origin, ip: str) -> None:
        """Judge an address that `origin` was looked up to.

        Raises:
            Forbidden: no connection may be made to it.
        """
        tenant, workspace = scope
        rules = self._machines.book.of(tenant, workspace, str(origin)).egress
        self._check(rules, scope, origin, ip)

    def check_named_address(self, tenant: str, server: Origin, ip: str) -> None:
        """Judge an address that a server of the configuration was looked up to.

        Raises:
            Forbidden: no connection may be made to it.
        """
        rules = rules_of_named(self._machines.book.of(tenant, None, str(server)).egress)
        self._check(rules, (tenant, ""), server, ip)

    def _check(self, rules: EgressRules, scope: Scope, origin: Origin, ip: str) -> None:
        tenant, workspace = scope
        refusal = rules.refusal_of_address(ip)
        if refusal is None and rules.asks_whose and self._is_own_address(ip):
            refusal = rules.refusal_of_own_address(ip)
        if refusal is None:
            return
        if ip == origin.host and not (refusal.always or rules.settings.mode is Mode.ENFORCE):
            return  # told and counted when the name was judged
        if self._counts(rules, refusal):
            raise Forbidden(refusal, ip)
        audit(
            "egress_observed",
            tenant=tenant,
            workspace=workspace or None,
            origin=str(origin),
            rule=refusal.rule,
            address=ip,
        )

    def check_proxy_address(self, scope: Scope, ip: str) -> None:  # noqa: ARG002 - all are alike
        """Judge an address that a proxy's name was looked up to.

        Raises:
            Forbidden: no connection may be made to it.
        """
        refusal = _OF_PROXIES.refusal_of_address(ip)
        if refusal is not None and self._counts(_OF_PROXIES, refusal):
            raise Forbidden(refusal, ip)

    def tell(self, call: Call, forbidden: Forbidden) -> None:
        """`forbidden` ended an attempt of `call`: say so in the audit log."""
        audit(
            "egress_refused",
            caller=call.caller,
            tenant=call.request.tenant_id,
            workspace=call.request.workspace_id,
            origin=call.origin,
            rule=forbidden.rule,
            address=forbidden.address,
            trace_id=call.request.trace_id,
        )

    def _counts(self, rules: EgressRules, refusal: EgressRefusal) -> bool:
        """Count a refusal; whether it takes effect."""
        mode = Mode.ENFORCE if refusal.always else rules.settings.mode
        return self._gates.of(POLICY, mode).apply(refusal) is not None


def _refused(refusal: EgressRefusal) -> Refused:
    whose = Whose.RUNTIME if refusal.always else Whose.TENANT
    return Refused(POLICY, whose, None, refusal.reason)

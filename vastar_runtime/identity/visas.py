"""Which tenants a caller may name.

Shape: one `Identity` of the runtime holds the rules; each connection has a `Visa`, which remembers
what it was told for each tenant, so that a call on a warm connection costs one dictionary lookup.
The rules have a generation: a reload or a changed token file begins another, and every visa forgets
what it knew. So a token that is taken out of its file is worth nothing within seconds, also on
connections that showed it before; calls under way are not cut.

The rules: where no tenant says who may use it, whoever can open the socket may name any. Once one
does, a tenant with rules is for those whom they name (by user, group, certificate or token, any of
them), and every other one is for the runtime's own user alone.
"""

import os
from collections.abc import Mapping
from typing import Final

import attrs
import trio

from vastar_client.wire import ExecuteRequest
from vastar_runtime.audit import audit
from vastar_runtime.calls import Caller
from vastar_runtime.config import RuntimeConfig
from vastar_runtime.logs import get_logger
from vastar_runtime.outcomes import Failure, FailureKind
from vastar_runtime.token_file import MAX_TOKEN_CHARS, TokenFile, TokenFileError, token_hash

__all__ = ["NOT_ALLOWED", "Identity", "Visa"]

NOT_ALLOWED: Final = Failure(
    FailureKind.INVALID_REQUEST,
    "not allowed: this caller may not use the tenant that the request names",
    refused_by="identity:tenant",
)

_CONTROL: Final = "vastar"
"""The connector for the runtime's own user and root, whatever the tenant."""
_ROOT_UID: Final = 0

_MAX_KNOWN: Final = 256
_MAX_TOKENS: Final = 16
"""Tokens that one connection may have shown: one for each tenant that it serves."""
_MAX_WRONG_TOKENS: Final = 20
_LOOK_AGAIN_S: Final = 2.0
_BEARER: Final = "bearer "

_log = get_logger(__name__)


@attrs.frozen
class _Rule:
    """Who may use a tenant."""

    uids: frozenset[int]
    gids: frozenset[int]
    subjects: frozenset[str]
    tokens: TokenFile | None

    def admits(self, caller: Caller, hashes: list[bytes]) -> bool:
        return (
            (caller.uid is not None and caller.uid in self.uids)
            or not self.gids.isdisjoint(caller.groups)
            or not self.subjects.isdisjoint(caller.subjects)
            or (self.tokens is not None and any(map(self.tokens.has, hashes)))
        )


class Identity:
    """The rules of a configuration.

    Args:
        config: with the tenants.

    Attributes:
        generation: changes with the rules.
        in_force: whether any tenant says who may use it.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        self.generation = 0
        self.in_force = False
        self._rules: Mapping[str, _Rule] = {}
        self._files: tuple[TokenFile, ...] = ()
        self._bad: set[str] = set()
        self._changed = trio.Event()
        self.configure(config)

    def configure(self, config: RuntimeConfig) -> None:
        """Take up the rules of another configuration."""
        self._rules = {
            name: _Rule(
                frozenset(tenant.allow_uids),
                frozenset(tenant.allow_gids),
                frozenset(subject.lower() for subject in tenant.allow_subjects),
                None if tenant.token_file is None else TokenFile(tenant.token_file),
            )
            for name, tenant in config.tenants.items()
            if tenant.has_identity
        }
        self.in_force = bool(self._rules)
        self._files = tuple(rule.tokens for rule in self._rules.values() if rule.tokens is not None)
        self._bad = set()
        self.look()
        self.generation += 1
        self._changed.set()
        self._changed = trio.Event()

    def look(self) -> None:
        """Read the token files that have changed. One that cannot be used admits nobody."""
        for file in self._files:
            try:
                changed = file.refresh()
            except TokenFileError as error:
                if file.path not in self._bad:
                    self._bad.add(file.path)
                    self.generation += 1
                    _log.error("token file refused", path=file.path, reason=str(error))
                    audit("token_file_refused", path=file.path, reason=str(error))
            else:
                self._bad.discard(file.path)
                self.generation += changed

    async def run(self) -> None:
        """Look after the token files, for ever."""
        while True:
            with trio.move_on_after(_LOOK_AGAIN_S if self._files else float("inf")):
                await self._changed.wait()
            self.look()

    def visa(self, caller: Caller) -> "Visa":
        """What a connection asks."""
        return Visa(self, caller)

    def allows(self, caller: Caller, tenant: str, hashes: list[bytes]) -> bool:
        """Whether `caller`, who has shown tokens of these hashes, may use `tenant`."""
        rule = self._rules.get(tenant)
        if rule is not None:
            return rule.admits(caller, hashes)
        return not self.in_force or caller.uid == os.geteuid()

    def knows(self, digest: bytes) -> bool:
        """Whether the token of this hash is good for any tenant."""
        found = False
        for file in self._files:
            found |= file.has(digest)
        return found


class Visa:
    """What one connection may do; see `Identity`.

    Attributes:
        caller: at the other end.
    """

    __slots__ = ("_everybody", "_generation", "_identity", "_known", "_shown", "_wrong", "caller")

    def __init__(self, identity: Identity, caller: Caller) -> None:
        self._identity = identity
        self._generation = -1
        self._everybody = False
        self._known: dict[tuple[str, bytes] | str, bool] = {}
        self._shown: list[bytes] = []
        self._wrong = 0
        self.caller = caller

    @property
    def is_stranger(self) -> bool:
        """Whether nothing is known of the caller, who has to say something."""
        caller = self.caller
        return (
            self._identity.in_force and caller.uid is None and not (caller.subjects or self._shown)
        )

    def admits(self, request: ExecuteRequest) -> bool:
        """Whether the caller may use the tenant that `request` names; told to the audit if not."""
        if self._generation != self._identity.generation:
            self._forget()
        return self._everybody or self._known.get(request.tenant_id, False) or self._decide(request)

    def _forget(self) -> None:
        self._generation = self._identity.generation
        self._everybody = not self._identity.in_force
        self._known.clear()

    def _decide(self, request: ExecuteRequest) -> bool:
        """The same where it is not known yet, or was not allowed by the connection alone."""
        caller, tenant = self.caller, request.tenant_id
        if request.connector_name == _CONTROL and caller.uid in {_ROOT_UID, os.geteuid()}:
            return True
        if tenant not in self._known:
            self._remember(tenant, self._identity.allows(caller, tenant, self._shown))
        token = _bearer(request)
        allowed = self._known.get(tenant, False)
        if not allowed and token is not None:
            digest = token_hash(token)  # no token is kept
            if (tenant, digest) not in self._known:
                self._remember((tenant, digest), self._identity.allows(caller, tenant, [digest]))
            allowed = self._known[tenant, digest]
        if not allowed:
            _audit_refusal(caller, request)
        return allowed

    def _remember(self, key: tuple[str, bytes] | str, allowed: bool) -> None:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[key] = allowed

    def show(self, token: str | None) -> bool:
        """Take a token for the rest of the connection; whether it is good for anything.

        Where nobody is asked who they are, any token is fine.
        """
        if not self._identity.in_force:
            return True
        if token and len(token) <= MAX_TOKEN_CHARS:
            digest = token_hash(token)
            if self._identity.knows(digest):
                if digest not in self._shown:
                    self._shown = [*self._shown[1 - _MAX_TOKENS :], digest]
                    self._known.clear()
                return True
        self._wrong += 1
        audit("token_refused", caller=self.caller, rule="identity:token", reason="unknown token")
        return False

    @property
    def is_guessing(self) -> bool:
        """Whether the caller has shown too many tokens that are no good."""
        return self._wrong >= _MAX_WRONG_TOKENS


def _bearer(request: ExecuteRequest) -> str | None:
    for name, value in request.headers or ():
        if name.lower() == "authorization" and value[: len(_BEARER)].lower() == _BEARER:
            token = value[len(_BEARER) :].strip()
            return token if 0 < len(token) <= MAX_TOKEN_CHARS else None
    return None


def _audit_refusal(caller: Caller, request: ExecuteRequest) -> None:
    audit(
        "tenant_refused",
        caller=caller,
        tenant=request.tenant_id,
        workspace=request.workspace_id,
        connector=request.connector_name,
        trace_id=request.trace_id,
        rule=NOT_ALLOWED.refused_by,
        reason=NOT_ALLOWED.message,
    )

"""Credentials that the runtime adds to calls, so that callers need not have them.

Above the connectors: what they hand down gets its key here, and what they are given back holds
none. See `book` for what is configured, `injecting` for what keeps a key at its own origin.
"""

from vastar_runtime.credentials.book import CredentialBook, unusable_secrets
from vastar_runtime.credentials.tokens import TokenFetcher
from vastar_runtime.credentials.upstreams import CredentialedUpstreams

__all__ = ["CredentialBook", "CredentialedUpstreams", "TokenFetcher", "unusable_secrets"]

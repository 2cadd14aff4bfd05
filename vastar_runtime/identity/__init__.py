"""Who calls, and on whose behalf they may: visas, tokens, doors, TLS of callers."""

from vastar_runtime.identity.doors import Doors, name_of
from vastar_runtime.identity.guests import Guest
from vastar_runtime.identity.secure import TlsError, caller_context, greet
from vastar_runtime.identity.visas import Identity, Visa

__all__ = ["Doors", "Guest", "Identity", "TlsError", "Visa", "caller_context", "greet", "name_of"]

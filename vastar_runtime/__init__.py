"""The Vastar connector runtime: one local daemon that makes a host's outgoing calls."""

from vastar_runtime._version import __version__

__all__ = ["__version__"]

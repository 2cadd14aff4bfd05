"""The one exception of this connector's own: what the caller asked for cannot be sent."""

__all__ = ["InvalidCall"]


class InvalidCall(Exception):  # noqa: N818 - it becomes an InvalidRequest answer, not a crash
    """The payload names the wrong part and what would be right. Never holds secrets."""

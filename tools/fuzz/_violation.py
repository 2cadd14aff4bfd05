"""What a judge raises when a rule of the protocol does not hold."""

__all__ = ["Violation"]


class Violation(Exception):  # noqa: N818 - it is no error of this program
    """A runtime broke a rule.

    Attributes:
        rule: its name; a smaller list of steps shows the same fault when it breaks the same rule.
        what: what was seen.
    """

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
        self.what = what

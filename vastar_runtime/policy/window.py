"""Calls and failures of the last while: exact counts, in buckets that are forgotten whole.

The current bucket is two numbers, the older ones a short list that holds only those in which
something ended: counting is a comparison and a few additions, an idle window is empty without
anybody sweeping it, and a key that saw one call pays for one bucket, not for ten. A window of
30 s in 10 buckets covers the last 27 to 30 s.
"""

import attrs

__all__ = ["RollingWindow"]


@attrs.define
class RollingWindow:
    """Counts over `buckets` slices of `bucket_s` each; `calls` and `failures` as last counted."""

    bucket_s: float
    buckets: int
    calls: int = 0
    failures: int = 0
    _number: int = 0
    _ends_s: float = 0.0
    _bucket_calls: int = 0
    _bucket_failures: int = 0
    _older: list[tuple[int, int, int]] | None = None

    def count_success(self, now_s: float) -> None:
        """One more call."""
        if now_s >= self._ends_s:
            self._roll(now_s)
        self.calls += 1
        self._bucket_calls += 1

    def count_failure(self, now_s: float) -> None:
        """One more call, and it failed."""
        self.count_success(now_s)
        self.failures += 1
        self._bucket_failures += 1

    def count_successes(self, now_s: float, calls: int) -> None:
        """So many more calls at once."""
        if now_s >= self._ends_s:
            self._roll(now_s)
        self.calls += calls
        self._bucket_calls += calls

    def totals(self, now_s: float) -> tuple[int, int]:
        """Calls and failures as of `now_s`; looking changes nothing."""
        kept = self._kept(self._number_at(now_s))
        return sum(calls for _, calls, _ in kept), sum(failures for _, _, failures in kept)

    def rows(self, now_s: float) -> list[tuple[int, int, int]]:
        """What it holds: number of the bucket, calls and failures in it, the oldest first."""
        return self._kept(self._number_at(now_s))

    @classmethod
    def of_rows(
        cls, bucket_s: float, buckets: int, rows: list[tuple[int, int, int]], now_s: float
    ) -> "RollingWindow":
        """The window that gave `rows`, at that time or later."""
        number = int(now_s // bucket_s)
        if rows:
            number = max(number, rows[-1][0])
        kept = [row for row in rows if row[0] > number - buckets]
        calls, failures = sum(row[1] for row in kept), sum(row[2] for row in kept)
        newest = kept.pop() if kept and kept[-1][0] == number else (number, 0, 0)
        return cls(
            bucket_s, buckets, calls, failures, number, (number + 1) * bucket_s, *newest[1:],
            kept or None,
        )  # fmt: skip

    def _number_at(self, now_s: float) -> int:
        return max(self._number, int(now_s // self.bucket_s))

    def _kept(self, number: int) -> list[tuple[int, int, int]]:
        """The buckets with something in them that still count when `number` is current."""
        current = (self._number, self._bucket_calls, self._bucket_failures)
        first = number - self.buckets + 1
        return [
            bucket for bucket in (*(self._older or ()), current) if bucket[0] >= first and bucket[1]
        ]

    def _roll(self, now_s: float) -> None:
        number = self._number_at(now_s)
        kept = self._kept(number)
        self.calls = sum(calls for _, calls, _ in kept)
        self.failures = sum(failures for _, _, failures in kept)
        self._older = kept or None
        self._number, self._ends_s = number, (number + 1) * self.bucket_s
        self._bucket_calls = self._bucket_failures = 0

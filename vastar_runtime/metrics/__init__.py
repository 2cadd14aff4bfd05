"""What happens, in numbers for Prometheus: counted as it happens, or read when somebody asks."""

from vastar_runtime.metrics.labels import OTHER
from vastar_runtime.metrics.meters import CONTENT_TYPE, SERIES_CAP, Meters
from vastar_runtime.metrics.scraper import Scraper
from vastar_runtime.metrics.snapshot import (
    BreakerRow,
    DatabaseRow,
    LimiterRow,
    PoolRow,
    QuotaRow,
    Snapshot,
    VerdictRow,
    listed,
)

__all__ = [
    "CONTENT_TYPE",
    "OTHER",
    "SERIES_CAP",
    "BreakerRow",
    "DatabaseRow",
    "LimiterRow",
    "Meters",
    "PoolRow",
    "QuotaRow",
    "Scraper",
    "Snapshot",
    "VerdictRow",
    "listed",
]

"""How latencies are told: p50, p95 and p99. No thread."""

from __future__ import annotations

from collections.abc import Sequence

TOLD = (50, 95, 99)


def percentiles(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """{"p50", "p95", "p99"}, each a value that was measured: the smallest that so many percent are not above."""
    ordered = sorted(values)
    return {f"p{p}": round(ordered[max(0, -(-len(ordered) * p // 100) - 1)], digits) for p in TOLD}

"""The largest number that holds. No thread."""

from __future__ import annotations

from collections.abc import Callable


def most(holds: Callable[[int], bool], limit: int) -> int:
    """The largest n of 1 … `limit` for which `holds(n)`, where what holds for n holds for fewer; 0 if not even 1 does.

    Doubles until one does not hold, then bisects: never asks for the same n twice, and 2 log2(n) + 2 times at most.
    """
    good, bad = 0, limit + 1
    while good < limit and bad > limit:
        n = min(max(1, 2 * good), limit)
        if holds(n):
            good = n
        else:
            bad = n
    while bad - good > 1:
        n = (good + bad) // 2
        if holds(n):
            good = n
        else:
            bad = n
    return good

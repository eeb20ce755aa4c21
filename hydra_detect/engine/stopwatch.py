"""Time booked on heads, and on what they share."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds between marks, each booked on a head's place, or on None for what is shared.

    Args:
        heads: How many there are.

    """

    def __init__(self, heads: int) -> None:
        self.shared = 0.0
        self.heads = [0.0] * heads
        self._last = time.perf_counter()

    def mark(self, place: int | None) -> None:
        """Book the time since the last mark."""
        now = time.perf_counter()
        if place is None:
            self.shared += now - self._last
        else:
            self.heads[place] += now - self._last
        self._last = now

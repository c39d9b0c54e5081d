"""Who wants what: the XPUB socket's subscription messages, kept as the set of topics that have a subscriber."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable

from streamseg import wire

_SETTLE_S = 0.05  # a client's subscriptions are separate messages: wait until none has come for so long
_SETTLE_LIMIT_S = 1.0


class Subscriptions:
    """Fed by the publisher thread, read by any.

    Only prefixes of topics that can exist are kept, so that a hostile client cannot make it grow.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = sorted(topics)
        self._prefixes: set[str] = set()
        self._wanted: frozenset[str] = frozenset()  # replaced as a whole: readers take no lock
        self._changed = threading.Condition()
        self._closed = False

    def feed(self, message: bytes) -> str | None:
        """Take one message of the XPUB socket in; returns the prefix if it subscribes to anything that exists."""
        if message[:1] not in (b"\x00", b"\x01"):
            return None  # not a subscription: a client may send anything upstream
        try:
            prefix = message[1:].decode()
        except UnicodeDecodeError:
            return None
        if message[0] == 0:
            self._prefixes.discard(prefix)
        elif self._exists(prefix):
            self._prefixes.add(prefix)
        else:
            return None
        with self._changed:
            self._wanted = frozenset(topic for topic in self._topics if topic.startswith(tuple(self._prefixes)))
            self._changed.notify_all()
        return prefix if message[0] == 1 else None

    def _exists(self, prefix: str) -> bool:
        index = bisect_left(self._topics, prefix)
        return index < len(self._topics) and self._topics[index].startswith(prefix)

    def wants(self, topic: str) -> bool:
        return topic in self._wanted

    def __len__(self) -> int:
        return len(self._prefixes)

    def wait(self, timeout_s: float) -> bool:
        """Wait until something other than the heartbeat is subscribed to, and no more comes at once."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or bool(self._wanted - {wire.HEARTBEAT}), timeout_s):
                return False
            limit = time.monotonic() + _SETTLE_LIMIT_S
            while not self._closed and time.monotonic() < limit and self._changed.wait(_SETTLE_S):
                pass
            return not self._closed

    def close(self) -> None:
        """Wake up whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

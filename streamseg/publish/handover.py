"""A bounded line between threads that blocks the giver when full, and fails both sides when a stage has died."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from streamseg.errors import StageError

T = TypeVar("T")


class Handover(Generic[T]):
    """Any thread may `put`, `refuse`, `close` and `fail`; one thread takes."""

    def __init__(self, capacity: int, wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called after a `put` into the empty line and after `close`, for a taker that waits on a socket."""
        self._capacity = capacity
        self._wake = wake
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._refusing = self._closed = False
        self._failure: StageError | None = None

    def put(self, item: T) -> None:
        """Waits for room. Raises StageError when nothing more is taken, or the taker has died."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._capacity or self._refusing)
            if self._failure is not None:
                raise self._failure
            if self._refusing:
                raise StageError("publisher", RuntimeError("it is closed"))
            self._items.append(item)
            self._changed.notify_all()
            if len(self._items) == 1:
                self._wake()

    def take(self, *, wait: bool) -> T | None:
        """The oldest item. None: nothing there now; with `wait`: closed, and nothing will come any more."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._items or self._closed)
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()

    @property
    def finished(self) -> bool:
        """Closed, and everything taken."""
        with self._changed:
            return self._closed and not self._items

    def __len__(self) -> int:
        return len(self._items)

    def refuse(self) -> None:
        """No more is put, and whoever waits for room is told so. The taker goes on until `close`."""
        with self._changed:
            self._refusing = True
            self._changed.notify_all()

    def close(self) -> None:
        """No more is put; what is there can still be taken."""
        with self._changed:
            self._refusing = self._closed = True
            self._changed.notify_all()
            self._wake()

    def fail(self, failure: StageError) -> None:
        """Close it, forget what waits, and raise `failure` in every giver."""
        with self._changed:
            self._failure = failure
            self._items.clear()
        self.close()

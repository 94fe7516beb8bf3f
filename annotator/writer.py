"""One thread that writes. Knows transactions; knows nothing of tables.

SQLite has one writer at a time in any case. A queue in front of it means that nobody waits for a lock,
and `begin immediate` that a transaction never finds out half-way that it cannot write.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Connection(Protocol):
    def execute(self, sql: str, /) -> Any: ...
    def close(self) -> None: ...
    @property
    def in_transaction(self) -> bool: ...


class Writer:
    """Runs changes one after the other, each in its own transaction, on a connection of its own."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._opened: Future[None] = Future()
        self._closed = False
        self._thread = threading.Thread(target=self._run, args=(connect,), name="writer", daemon=True)
        self._thread.start()
        self._opened.result()

    def write(self, change: Callable[[], T]) -> T:
        """Run `change` in a transaction and return what it returns, once that is safely on disk."""
        if self._closed:
            raise RuntimeError("The project is closed. Open it again.")
        future: Future[T] = Future()
        self._queue.put((change, future))
        return future.result()

    def close(self) -> None:
        """Finish what is queued, then close the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _run(self, connect: Callable[[], Connection]) -> None:
        try:
            connection = connect()
        except BaseException as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        while (item := self._queue.get()) is not None:
            change, future = item
            try:
                future.set_result(_in_transaction(connection, change))
            except BaseException as error:
                future.set_exception(error)
        connection.close()


def _in_transaction(connection: Connection, change: Callable[[], T]) -> T:
    connection.execute("begin immediate")
    try:
        value = change()
        connection.execute("commit")
        return value
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise

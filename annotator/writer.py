"""One thread that writes. Knows transactions; knows nothing of tables.

SQLite has one writer at a time in any case. A queue in front of it means that nobody waits for a lock,
and `begin immediate` that a transaction never finds out half-way that it cannot write.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """Nothing is written any more: somebody closed it meanwhile."""


class Connection(Protocol):
    def execute(self, sql: str, /) -> Any: ...
    def close(self) -> None: ...
    @property
    def in_transaction(self) -> bool: ...


class Writer:
    """Runs changes one after the other, each in its own transaction, on a connection of its own."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._connection = self._thread.submit(connect).result()

    def write(self, change: Callable[[], T]) -> T:
        """Run `change` in a transaction and return what it returns, once that is safely on disk."""
        try:
            written = self._thread.submit(_in_transaction, self._connection, change)
        except RuntimeError as error:
            raise Closed from error
        return written.result()

    def close(self) -> None:
        """Finish what is queued, then close the connection."""
        self._thread.shutdown()
        self._connection.close()


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

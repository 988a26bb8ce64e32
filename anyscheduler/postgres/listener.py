"""Listening for what other processes announce, on a connection of its own.

Knows: LISTEN, psycopg. Must not know: the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from anyscheduler.logs import get_logger
from anyscheduler.threaded import announced

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

logger = get_logger(__name__)

_PROBE: Final = "probe"
_PROBES: Final = 2
_PROBE_SECONDS: Final = 4.0


class PostgresListener:
    """A connection that has said LISTEN."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    def open(
        cls, connect: Callable[[], psycopg.Connection[Any]], channel: str, tell: Callable[[str], None]
    ) -> PostgresListener | None:
        """Connects; returns None if notifications do not arrive, which is then logged.

        Behind a pooler that gives a session another server process for each transaction LISTEN succeeds and nothing
        ever arrives. So it is tried out.

        Args:
            connect: Returns a new connection.
            channel: The name of the channel.
            tell: Notifies the channel, through another connection.
        """
        connection = connect()
        listener = cls(connection)
        try:
            connection.execute(f'LISTEN "{channel}"'.encode())
            for _ in range(_PROBES):
                tell(_PROBE)
                if listener._hears_probe():
                    return listener
        except BaseException:
            listener.close()
            raise
        listener.close()
        logger.warning(
            "PostgreSQL's notifications do not arrive (pgbouncer in transaction mode?): what other processes schedule "
            "is found by polling, up to one poll_interval late"
        )
        return None

    def _hears_probe(self) -> bool:
        # Others may come before it, and are dropped: whoever begins to listen looks at the store first anyway.
        return any(notice.payload == _PROBE for notice in self._connection.notifies(timeout=_PROBE_SECONDS))

    def fileno(self) -> int:
        """See `threaded.Listener`."""
        return self._connection.fileno()

    def drain(self) -> list[int]:
        """See `threaded.Listener`."""
        return announced(self._received())

    def close(self) -> None:
        """See `threaded.Listener`."""
        self._connection.close()

    def _received(self) -> list[str]:
        self._connection.pgconn.consume_input()
        texts = []
        while (notice := self._connection.pgconn.notifies()) is not None:
            texts.append(notice.extra.decode("utf-8", "replace"))
        return texts

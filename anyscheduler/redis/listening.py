"""The connection on which a namespace's announcements arrive.

Knows: one connection that is subscribed. Must not know: event loops, what an announcement is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyscheduler.redis.connections import socket_of
from anyscheduler.threaded import announced

if TYPE_CHECKING:
    import redis


class RedisListener:
    """See `threaded.Listener`. Not redis-py's `PubSub`, which connects anew by itself: what was missed must be known.

    Args:
        connection: A connection that is used for nothing else.
        channel: The channel to subscribe to.
    """

    def __init__(self, connection: redis.Connection, channel: bytes) -> None:
        self._connection = connection
        try:
            connection.send_command("SUBSCRIBE", channel)
            connection.read_response()
            sock = socket_of(connection)
            assert sock is not None
            self._fileno = sock.fileno()
        except BaseException:
            connection.disconnect()
            raise

    def fileno(self) -> int:
        """Returns the socket to wait for."""
        return self._fileno

    def drain(self) -> list[int]:
        """Returns the instants that arrived since the last call, without waiting.

        Raises:
            redis.RedisError: The connection is gone.
        """
        texts: list[str] = []
        # Until redis-py has nothing left: what TLS has deciphered already, the socket would not show.
        while self._connection.can_read(timeout=0):
            _, _, text = self._connection.read_response()
            texts.append(text.decode("utf-8", "replace"))
        return announced(texts)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.disconnect()

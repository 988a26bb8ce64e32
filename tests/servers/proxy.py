"""A TCP proxy between an app and its server, which shows the app what networks and connection poolers do.

Knows: connections, TLS, how messages of the PostgreSQL protocol are framed. Must not know: what is said over them.
"""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import trustme

from tests.servers.process import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

T = TypeVar("T")

_HANG_UP_SECONDS = 2.0
_CHUNK = 65_536


class Proxy:
    """Forwards connections from a port of 127.0.0.1 to a server, from its creation until it is closed.

    Attributes:
        port: Where it listens. It stays the same.
    """

    def __init__(
        self, host: str, port: int, *, without_notifications: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        """Starts to listen.

        Args:
            host: Where the server is. It need not run yet.
            port: Its port.
            without_notifications: The server is PostgreSQL, and no NOTIFY reaches a client, although LISTEN succeeds:
                what pgbouncer does in its transaction mode.
            tls: Clients have to speak TLS to the proxy, which talks to the server in the clear. PostgreSQL's clients
                have to do so from the first byte on (`sslnegotiation=direct`).
        """
        self._server = (host, port)
        self._new_filter: Callable[[], Callable[[bytes], bytes]] = (
            _NotificationFilter if without_notifications else lambda: bytes
        )
        self._tls = tls
        self._listener: asyncio.Server | None = None
        self._former: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self.port = free_port()
        self.accept()

    def url(self, server_url: str) -> str:
        """Returns the URL of the server with the proxy in its place."""
        parts = urlsplit(server_url)
        user, at, _ = parts.netloc.rpartition("@")
        scheme = "rediss" if self._tls and parts.scheme == "redis" else parts.scheme
        return parts._replace(scheme=scheme, netloc=f"{user}{at}{HOST}:{self.port}").geturl()

    def cut(self) -> None:
        """Closes every connection; new ones are accepted as before."""
        self._run(self._cut())

    def refuse(self) -> None:
        """Refuses new connections; those that exist stay."""
        self._run(self._refuse())

    def accept(self) -> None:
        """Accepts new connections again."""
        self._run(self._accept())

    def hold(self) -> None:
        """Forwards nothing any more, though connections stay open and new ones are accepted: a network that hangs."""
        self._run(self._set_flowing(flowing=False))

    def release(self) -> None:
        """Forwards what was held back, and everything from now on."""
        self._run(self._set_flowing(flowing=True))

    def close(self) -> None:
        """Closes every connection, and ends."""
        self.refuse()
        self.cut()
        self._run(self._wait_for_handshakes())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._tls is not None:
            # Of a handshake that a client has broken off asyncio may leave a transport that nobody closes.
            self._former.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, action: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(action, self._loop).result()

    async def _accept(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, HOST, self.port, ssl=self._tls)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._former.append(self._listener)
            self._listener = None

    async def _wait_for_handshakes(self) -> None:
        """Waits for connections that were not served: a client that refuses a certificate takes a while to hang up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_HANG_UP_SECONDS):
                for listener in self._former:
                    # Before Python 3.12 `wait_closed` does not wait.
                    while getattr(listener, "_active_count", 0):
                        await asyncio.sleep(0.01)
                    await listener.wait_closed()

    async def _set_flowing(self, *, flowing: bool) -> None:
        if flowing:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def _cut(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._connections.add(this)
        writers = [to_client]
        try:
            # What was cut has ended as well; asyncio would report a connection whose task was cancelled.
            with suppress(OSError, asyncio.CancelledError):
                from_server, to_server = await asyncio.open_connection(*self._server)
                writers.append(to_server)
                await _until_one_ends(
                    self._forward(from_client, to_server, bytes),
                    self._forward(from_server, to_client, self._new_filter()),
                )
                for writer in writers:
                    writer.close()
                for writer in writers:
                    await writer.wait_closed()
        finally:
            for writer in writers:
                writer.transport.abort()
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
            self._connections.discard(this)

    async def _forward(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, change: Callable[[bytes], bytes]
    ) -> None:
        with suppress(OSError):  # a connection that broke has ended
            while True:
                data = await source.read(_CHUNK)
                await self._flowing.wait()  # the end of a connection is held back as well
                if not data:
                    return
                target.write(change(data))
                await target.drain()


async def _until_one_ends(*directions: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _NotificationFilter:
    """Takes what a PostgreSQL server sends on one connection, and gives it back without NotificationResponse."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_framed = False

    def __call__(self, data: bytes) -> bytes:
        data = self._rest + data
        kept = []
        # Whether encryption is possible is answered with one bare byte, before the first message.
        if not self._is_framed and data[:1] in {b"S", b"N", b"G"}:
            kept.append(data[:1])
            data = data[1:]
        while len(data) >= 5:
            self._is_framed = True
            end = 1 + int.from_bytes(data[1:5], "big")  # the length counts itself, but not the type before it
            if len(data) < end:
                break
            if data[:1] != b"A":
                kept.append(data[:end])
            data = data[end:]
        self._rest = data
        return b"".join(kept)


def new_certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Returns what a server on 127.0.0.1 proves itself with, and the file of the authority that clients have to trust.

    The server also agrees to speak PostgreSQL, which clients of it ask for (ALPN).
    """
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["postgresql"])
    authority.issue_cert(HOST, "localhost").configure_cert(context)
    path = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, path

"""Connections to one server, to a primary that Sentinels name, or to the nodes of a cluster.

Knows: redis-py's pools and connections, which errors mean what. Must not know: keys, rows, what commands do.

Commands are written to a connection together, and then their replies are read: one round trip. Nothing is ever repeated
that may have been carried out: a repeated claim would lease rows that nobody knows of. Repeating is up to the engine.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis.cluster import RedisCluster

Argument: TypeAlias = str | bytes | int

ERRORS: Final = (redis.RedisError, redis.exceptions.RedisClusterException, OSError, UnicodeEncodeError)
"""What calls raise: errors of redis-py, and of keys that are no UTF-8."""

_OF_A_NODE: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.SlotNotCoveredError,
    OSError,
)
"""What says that a slot may be served by another node by now."""

_IN_A_SCRIPT: Final = re.compile(
    r"Error running script \(call to f_[0-9a-f]+\): |@user_script: ?[0-9]+: -?| script: [0-9a-f]+, on @user_script:.*"
)


class AbortedError(redis.ConnectionError):
    """The call was given up by whoever waited for it: it must not go on with another node."""


class Command(NamedTuple):
    """A command and where it goes.

    Attributes:
        route: One of its keys; all of them are in one slot.
        arguments: Its name and what follows.
    """

    route: bytes
    arguments: Sequence[Argument]


class Script:
    """A Lua file of this package."""

    _texts: Final[dict[Argument, str]] = {}

    def __init__(self, name: str) -> None:
        # Redis has no modules for scripts.
        text = "".join(files(__package__).joinpath(part).read_text(encoding="utf-8") for part in ("row.lua", name))
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._texts[self._digest] = text

    def command(self, keys: Sequence[bytes], *arguments: Argument) -> Command:
        """Returns the command that runs it; it is routed by the first key."""
        return Command(keys[0], ("EVALSHA", self._digest, len(keys), *keys, *arguments))

    @classmethod
    def in_full(cls, command: Command) -> Command:
        """Returns the same command with the text of the script, for a server that does not have it."""
        name, digest, *rest = command.arguments
        if name != "EVALSHA":
            return command
        return Command(command.route, ("EVAL", cls._texts[digest], *rest))


class Connections(Protocol):
    """Where commands go."""

    spread: bool
    """Whether keys of different hash tags may be on different nodes."""

    def run(self, commands: Sequence[Command], *, partly: bool = False) -> list[Any]:
        """Returns the reply to each; raises the first error, the others having been carried out all the same.

        Args:
            commands: They may be carried out in any order.
            partly: An error stands in the place of the reply, and one is raised only if nothing else stands anywhere.
        """
        ...

    def connect(self) -> redis.Connection:
        """Returns a connection of its own, to any node."""
        ...

    def abort(self, thread: int) -> None:
        """Cuts the connection that a thread is using, so that its call fails at once."""
        ...

    def close(self) -> None:
        """Closes all of them."""
        ...


class InUse:
    """Which connection each thread is using."""

    def __init__(self) -> None:
        self._connections: dict[int, redis.Connection] = {}
        self._aborted: set[int] = set()

    def on_connect(self, connection: redis.Connection) -> None:
        """Greets the server on a new connection; a hung one may be long in answering that, too."""
        self.add(connection)
        connection.on_connect()

    def add(self, connection: redis.Connection) -> None:
        """Notes that this thread uses it."""
        self._connections[threading.get_ident()] = connection

    def remove(self) -> None:
        """Notes that this thread uses none any more."""
        self._connections.pop(threading.get_ident(), None)

    def was_aborted(self) -> bool:
        """Tells whether the call of this thread was aborted since the last time that was asked."""
        thread = threading.get_ident()
        is_aborted = thread in self._aborted
        self._aborted.discard(thread)
        return is_aborted

    def abort(self, thread: int) -> None:
        """See `Connections.abort`."""
        connection = self._connections.get(thread)
        if connection is None:
            return
        self._aborted.add(thread)
        sock = socket_of(connection)
        if sock is not None:
            # Not `disconnect()`, which takes away what the other thread is reading into.
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def socket_of(connection: redis.Connection) -> socket.socket | None:
    """Returns the socket of a connection; redis-py has no public name for it."""
    found: socket.socket | None = connection._sock  # noqa: SLF001
    return found


def explain(error: Exception) -> str:
    """Returns what an error says, without where in a script it was met and without the innards of redis-py."""
    text = _IN_A_SCRIPT.sub("", str(error))
    return text.partition(" : <redis.")[0]


def is_read_only(error: Exception) -> bool:
    """Tells whether the server is a replica; what a script meets comes as an error of the script, in some versions."""
    return isinstance(error, redis.exceptions.ReadOnlyError) or "READONLY" in str(error)


class Server:
    """One server, or one service that Sentinels know the primary of."""

    spread = False

    def __init__(self, pool: redis.ConnectionPool, in_use: InUse) -> None:
        self._pool = pool
        self._in_use = in_use

    def run(self, commands: Sequence[Command], *, partly: bool = False) -> list[Any]:
        """See `Connections.run`."""
        return _checked(exchange(self._pool, self._in_use, commands), partly=partly)

    def connect(self) -> redis.Connection:
        """See `Connections.connect`."""
        return connect(self._pool, self._in_use)

    def abort(self, thread: int) -> None:
        """See `Connections.abort`."""
        self._in_use.abort(thread)

    def close(self) -> None:
        """See `Connections.close`."""
        self._pool.disconnect()


class Cluster:
    """The nodes of a cluster. redis-py knows which key is where; its pipeline would repeat what was carried out."""

    spread = True

    def __init__(self, client: RedisCluster, in_use: InUse) -> None:
        self._client = client
        self._in_use = in_use
        self._is_outdated = False

    def run(self, commands: Sequence[Command], *, partly: bool = False) -> list[Any]:
        """See `Connections.run`. There is one round trip for each node that is concerned, one after the other."""
        try:
            return _checked(self._run(commands), partly=partly)
        finally:
            self._in_use.remove()

    def _run(self, commands: Sequence[Command]) -> list[Any]:
        if self._is_outdated:
            self._client.nodes_manager.initialize()
            self._is_outdated = False
        replies: list[Any] = [None] * len(commands)
        for pool, places in self._by_node(commands, replies).items():
            for place, reply in zip(places, self._exchange(pool, [commands[o] for o in places]), strict=True):
                replies[place] = reply
        for place, reply in enumerate(replies):
            if isinstance(reply, redis.exceptions.AskError | redis.exceptions.TryAgainError):
                replies[place] = self._follow(commands[place])
        if any(isinstance(reply, _OF_A_NODE) for reply in replies):
            self._is_outdated = True
        return replies

    def _by_node(self, commands: Sequence[Command], replies: list[Any]) -> dict[redis.ConnectionPool, list[int]]:
        """Returns the places of the commands for each node; for a command that no node serves, the error is set."""
        found: dict[redis.ConnectionPool, list[int]] = {}
        for place, command in enumerate(commands):
            try:
                node = self._client.get_node_from_key(command.route)
            except redis.exceptions.SlotNotCoveredError as error:
                replies[place] = error
            else:
                found.setdefault(self._client.get_redis_connection(node).connection_pool, []).append(place)
        return found

    def _exchange(self, pool: redis.ConnectionPool, commands: Sequence[Command]) -> list[Any]:
        """Does the same as `exchange`; a node that is gone holds up none of the others."""
        try:
            return exchange(pool, self._in_use, commands)
        except _OF_A_NODE as error:
            if self._in_use.was_aborted():
                raise AbortedError(str(error)) from error
            return [error] * len(commands)

    def _follow(self, command: Command) -> Any:
        """Has redis-py's client run what was not carried out because its slot moves: MOVED is an ASK to it, too."""
        try:
            return self._client.execute_command(*Script.in_full(command).arguments)
        except ERRORS as error:
            if self._in_use.was_aborted():
                raise AbortedError(str(error)) from error
            return error

    def connect(self) -> redis.Connection:
        """See `Connections.connect`."""
        node = self._client.get_random_node()
        return connect(self._client.get_redis_connection(node).connection_pool, self._in_use)

    def abort(self, thread: int) -> None:
        """See `Connections.abort`."""
        self._in_use.abort(thread)

    def close(self) -> None:
        """See `Connections.close`."""
        self._client.close()


def _checked(replies: list[Any], *, partly: bool) -> list[Any]:
    errors = [reply for reply in replies if isinstance(reply, Exception)]
    if errors and not (partly and len(errors) < len(replies)):
        raise errors[0]
    return replies


def exchange(pool: redis.ConnectionPool, in_use: InUse, commands: Sequence[Command]) -> list[Any]:
    """Returns the reply to each command, or the error that the server answered with, in one round trip."""
    if not commands:
        return []
    with _borrowed(pool, in_use) as connection:
        replies = _replies(connection, commands)
        unknown = [place for place, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if unknown:
            again = _replies(connection, [Script.in_full(commands[place]) for place in unknown])
            for place, reply in zip(unknown, again, strict=True):
                replies[place] = reply
        if any(isinstance(reply, Exception) and is_read_only(reply) for reply in replies):
            # A primary that was demoted: whoever connects anew may be led to the one that took over.
            connection.disconnect()
        return replies


def connect(pool: redis.ConnectionPool, in_use: InUse) -> redis.Connection:
    """Returns a connection like those of the pool, which is not one of them."""
    connection: redis.Connection = pool.connection_class(**pool.connection_kwargs)
    try:
        connection.connect()
    finally:
        in_use.remove()
    return connection


@contextmanager
def _borrowed(pool: redis.ConnectionPool, in_use: InUse) -> Iterator[redis.Connection]:
    try:
        connection = pool.get_connection()
        try:
            in_use.add(connection)
            yield connection
        except BaseException:
            # There may be replies on the way that nobody would read.
            connection.disconnect()
            raise
        finally:
            pool.release(connection)
    finally:
        in_use.remove()


def _replies(connection: redis.Connection, commands: Sequence[Command]) -> list[Any]:
    # In one piece: the server would begin with a part of it, and redis-py cuts it at long arguments.
    packed = b"".join(connection.pack_commands([command.arguments for command in commands]))
    connection.send_packed_command([packed])
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(connection.read_response(disconnect_on_error=True))
        except redis.ResponseError as error:
            replies.append(error)
    return replies

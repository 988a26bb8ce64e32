"""Opening a namespace: which kind of server it is, whether it can be used, and what its owner should know.

Knows: connections, INFO, which errors pass and which do not. Must not know: the event loop, schedules.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from anyscheduler.errors import ConfigurationError
from anyscheduler.logs import get_logger, in_one_line
from anyscheduler.redis.connections import Cluster, Command, Connections, InUse, Server, explain, is_read_only
from anyscheduler.redis.database import RedisDatabase
from anyscheduler.redis.keyspace import FORMAT, Keyspace

if TYPE_CHECKING:
    from anyscheduler.redis.address import Address

logger = get_logger(__name__)

_OLDEST: Final = (6, 2)
_NO_ROUTE: Final = b""

_PASSES: Final = (
    redis.exceptions.ClusterDownError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.TryAgainError,
)
# What redis-py has no class for, and what a script met and passed on.
_CODES_THAT_PASS: Final = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "OOM")
_FORBIDDEN: Final = ("NOPERM", "no permissions to", "can't run this command", "can't access at least one of the keys")
_TLS: Final = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "[SSL")


def open_database(address: Address, namespace: str, *, timeout: float, max_connections: int) -> RedisDatabase:
    """Returns the namespace, ready for use.

    Args:
        address: Where it is.
        namespace: Its name.
        timeout: How many seconds a connection waits for an answer.
        max_connections: How many connections there are at most, to each node.

    Raises:
        ConfigurationError: The server can be reached, and cannot be used.
        redis.RedisError: It may be that it can be used later.
    """
    connections: Connections | None = None
    try:
        connections, information = _connect(address, timeout, max_connections)
        keyspace = Keyspace(namespace)
        _check_format(connections, keyspace)
        database = RedisDatabase(connections, keyspace)
        database.try_out()
        # What is left of the index, if it was damaged, would otherwise be listed as all there is.
        database.mend()
    except BaseException as error:
        if connections is not None:
            connections.close()
        reason = _why_for_good(error) if isinstance(error, Exception) else None
        if reason is not None:
            raise ConfigurationError(f"redis_url={address.shown!r} cannot be used: {reason}") from error
        raise
    _advise(connections, keyspace, information)
    return database


def _connect(address: Address, timeout: float, max_connections: int) -> tuple[Connections, dict[str, str]]:
    in_use = InUse()
    common: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "encoding": "utf-8",
        "decode_responses": False,
        "client_name": "anyscheduler",
    }
    own = {**address.options, **common}
    if address.sentinels:
        sentinel_options = {**common, **address.sentinel_options}
        sentinel = Sentinel(address.sentinels, sentinel_kwargs=sentinel_options)
        client = sentinel.master_for(
            address.service, max_connections=max_connections, redis_connect_func=in_use.on_connect, **own
        )
        pool = client.connection_pool
    else:
        pool = redis.BlockingConnectionPool(
            max_connections=max_connections, timeout=timeout, redis_connect_func=in_use.on_connect, **own
        )
    server = Server(pool, in_use)
    try:
        information = _information(server)
        _check_server(information)
        if information.get("cluster_enabled") != "1":
            return server, information
    except BaseException:
        server.close()
        raise
    server.close()
    own.pop("db", None)  # it is 0: a cluster refuses all others
    if "path" in own:
        raise ConfigurationError("it is a node of a Redis Cluster, and a Unix socket leads to none of the others")
    if issubclass(own.pop("connection_class"), redis.SSLConnection):
        own["ssl"] = True
    try:
        cluster = RedisCluster(
            max_connections=max_connections, redis_connect_func=in_use.add, require_full_coverage=False, **own
        )
    except redis.exceptions.RedisClusterException as error:
        if "mode is not enabled" in str(error):  # INFO says that it is: redis-py takes a missing right for that
            raise ConfigurationError("the user lacks a right (cluster|slots)") from error
        raise
    return Cluster(cluster, in_use), information


def _information(server: Server) -> dict[str, str]:
    """Returns what INFO says; nothing if the user may not ask, who will find out in other ways."""
    try:
        [reply] = server.run([Command(_NO_ROUTE, ("INFO",))])
    except redis.exceptions.NoPermissionError:
        return {}
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: text for name, _, text in lines}


def _check_server(information: dict[str, str]) -> None:
    version = information.get("redis_version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < _OLDEST:
        raise ConfigurationError(f"its version is {version}, and 6.2 is the oldest that will do")
    if information.get("role") == "slave" and information.get("cluster_enabled") != "1":
        raise ConfigurationError("it is a read-only replica; name the primary, or Sentinels that know which one it is")


def _check_format(connections: Connections, keyspace: Keyspace) -> None:
    name = keyspace.format
    _, found = connections.run([Command(name, ("SET", name, FORMAT, "NX")), Command(name, ("GET", name))])
    if found != FORMAT:
        raise ConfigurationError(
            f"what is stored there has format {_shown(found)}, and this version of anyscheduler knows "
            f"{_shown(FORMAT)} only: "
            "update it, or use another redis_namespace"
        )


def _shown(number: bytes | None) -> str:
    return in_one_line((number or b"").decode("utf-8", "replace"))


def _why_for_good(error: Exception) -> str | None:
    """Returns why waiting would not help; None if it may."""
    text = in_one_line(explain(error))
    if isinstance(error, ConfigurationError):
        return text
    if isinstance(error, redis.AuthenticationError):
        return f"it does not accept the user name and password ({text})"
    if any(part in text for part in _FORBIDDEN) or isinstance(error, redis.exceptions.NoPermissionError):
        return f"the user lacks a right ({text}); the documentation lists those that are needed"
    if is_read_only(error):
        return "it is a read-only replica; name the primary, or Sentinels that know which one it is"
    if any(part in text for part in _TLS):
        return f"TLS failed ({text})"
    passes = isinstance(error, _PASSES) or any(code in text for code in _CODES_THAT_PASS)
    return text if isinstance(error, redis.ResponseError) and not passes else None


def _advise(connections: Connections, keyspace: Keyspace, information: dict[str, str]) -> None:
    """Says what may lose schedules one day. Schedules never expire, so `volatile-` policies leave them alone."""
    policy = information.get("maxmemory_policy", "")
    if policy.startswith("allkeys-"):
        limit = "once a maxmemory is set" if information.get("maxmemory") == "0" else "when memory runs short"
        logger.warning(
            "Redis may throw schedules away %s: set maxmemory-policy to noeviction (it is %s)", limit, policy
        )
    if information.get("aof_enabled") == "0":
        with suppress(redis.RedisError):
            [(_, points)] = connections.run([Command(keyspace.format, ("CONFIG", "GET", "save"))])
            if not points:
                logger.info("Redis keeps nothing when it restarts: neither appendonly nor save is set")

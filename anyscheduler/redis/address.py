"""The option `redis_url`: which server it names, and how it is shown to people.

Knows: URLs, and what redis-py makes of them. Must not know: servers, rows.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import redis
from redis.connection import parse_url

from anyscheduler import options

_SENTINEL: Final = "redis+sentinel"
_SCHEMES: Final = ("redis", "rediss", "unix", _SENTINEL)
_ALLOWED: Final = (
    "redis://[user:password@]host[:port][/db], the same with rediss:// for TLS, unix:///path?db=0, or "
    "redis+sentinel://[user:password@]host:port,host:port/service[/db]; percent-encode what is special in a password"
)
_IN_QUERY: Final = (
    "db",
    "username",
    "password",
    "client_name",
    "protocol",
    "socket_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "retry_on_timeout",
    "health_check_interval",
    "ssl_keyfile",
    "ssl_certfile",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_ca_data",
    "ssl_check_hostname",
    "ssl_password",
    "ssl_min_version",
    "ssl_ciphers",
)
"""The connection options that a text can express. redis-py takes any argument of its classes there, also one that has
to be an object, and a host or port, which it then ignores."""
_OF_A_SENTINEL: Final = "sentinel_"
_SENTINEL_PORT: Final = 26379
_LAST_PORT: Final = 65_535
_ALLOWED_DATABASE: Final = "the database is a number, as in redis://host/0; percent-encode a / in the password"
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{1,5}))?")


class Address(NamedTuple):
    """A server, or a service that Sentinels know.

    Attributes:
        shown: The URL made anew from what was understood of it, without password and options.
        options: What redis-py's connections are made with.
        sentinels: Host and port of each Sentinel; empty for a server.
        service: What the Sentinels call it; "" for a server.
        sentinel_options: What connections to the Sentinels are made with.
    """

    shown: str
    options: dict[str, Any]
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_options: dict[str, Any] = {}  # noqa: RUF012  # nobody changes it


def parse(url: object) -> Address:
    """Returns what a URL says.

    Raises:
        ConfigurationError: It is malformed. The error shows only its scheme: any part of what was not understood may be
            a part of a password.
    """
    if not isinstance(url, str):
        options.refuse("redis_url", url, _ALLOWED)
    scheme = url.partition("://")[0].lower()
    if "://" not in url or scheme not in _SCHEMES or not url.isprintable():
        _refuse(url, _ALLOWED)
    if "#" in url or not _is_query(url.partition("?")[2]):
        # A password that was not encoded, and would be cut off there.
        _refuse(url, f"what follows a ? is name=value, and there is no #; {_ALLOWED}")
    names = [name for name, _ in parse_qsl(url.partition("?")[2])]
    if scheme == _SENTINEL:
        names = [name.removeprefix(_OF_A_SENTINEL) for name in names]
    if not set(names) <= set(_IN_QUERY):
        _refuse(url, f"what may follow a ? is {', '.join(_IN_QUERY)}")
    return _sentinels(url) if scheme == _SENTINEL else _server(url)


def _server(url: str) -> Address:
    found: dict[str, Any] = {}
    # The text of an error may quote a part of the URL, so none goes along with the refusal, not even as its context.
    with suppress(ValueError):
        split = urlsplit(url)
        hosts = split.hostname, split.port
        found = parse_url(url)
    if not found:
        _refuse(url, _ALLOWED)
    is_unix = split.scheme == "unix"
    if is_unix and ("\0" in found.get("path", "") or not found.get("path")):
        _refuse(url, "it names no socket, as in unix:///run/redis/redis.sock")
    if not is_unix:
        if not hosts[0] or hosts[1] == 0:
            _refuse(url, "it names no host, or port 0; " + _ALLOWED)
        if not _is_host(found["host"]):
            _refuse(url, "its host has a blank, a slash or a control character in it; " + _ALLOWED)
        if "db" not in dict(parse_qsl(split.query)):
            found["db"] = _database(url, split.path)
        found["socket_keepalive"] = True
    if found.get("db", 0) < 0:
        _refuse(url, _ALLOWED_DATABASE)
    found.setdefault("connection_class", redis.Connection)
    if split.scheme == "rediss" and found.get("ssl_cert_reqs") != "none":
        # Before its version 6, redis-py would take the certificate of any other host for this one's.
        found.setdefault("ssl_check_hostname", True)
    _check_options(url, found)
    if is_unix:
        place = f"{quote(found['path'])}?db={found.get('db', 0)}"
    else:
        place = f"{_place(found['host'], hosts[1])}/{found['db']}"
    return Address(_shown(split.scheme, found, place), found)


def _sentinels(url: str) -> Address:
    """Reads the form that redis-py does not know: several hosts, and the name of the service."""
    rest, _, query = url.partition("://")[2].partition("?")
    credentials, _, places = rest.rpartition("@")
    authority, _, path = places.partition("/")
    service, _, database = path.partition("/")
    hosts = [_HOST.fullmatch(host) for host in authority.split(",")]
    if not service or not all(hosts):
        _refuse(url, _ALLOWED)
    sentinels = tuple((host[1].strip("[]"), int(host[2] or _SENTINEL_PORT)) for host in hosts if host)
    if not all(0 < port <= _LAST_PORT for _, port in sentinels):
        _refuse(url, f"a port is from 1 to {_LAST_PORT}")
    found: dict[str, Any] = {"db": _database(url, database), "socket_keepalive": True}
    user, _, password = credentials.partition(":")
    found |= {name: unquote(text) for name, text in (("username", user), ("password", password)) if text}
    own: dict[str, Any] = {}
    of_query: dict[str, Any] = {}
    with suppress(ValueError):
        of_query = parse_url(f"redis://h?{query}")
    if not of_query:
        _refuse(url, "an option after the ? has a value that it cannot have")
    for name, text in of_query.items():
        if name.startswith(_OF_A_SENTINEL):
            own[name.removeprefix(_OF_A_SENTINEL)] = text
        elif name != "host":
            found[name] = text
    if found["db"] < 0:
        _refuse(url, _ALLOWED_DATABASE)
    _check_options(url, found | {"connection_class": redis.Connection})
    _check_options(url, own | {"connection_class": redis.Connection})
    places = ",".join(_place(*sentinel) for sentinel in sentinels)
    return Address(
        _shown(_SENTINEL, found, f"{places}/{service}/{found['db']}"), found, sentinels, unquote(service), own
    )


def _is_host(text: str) -> bool:
    return text.isprintable() and not re.search(r"[\s/@]", text)


def _is_query(text: str) -> bool:
    try:
        return not text or bool(parse_qsl(text, strict_parsing=True))
    except ValueError:
        return False


def _shown(scheme: str, found: dict[str, Any], place: str) -> str:
    """Returns a URL with the user name, and with `:***` if there is a password."""
    credentials = quote(found.get("username") or "", safe="") + (":***" if found.get("password") else "")
    return f"{scheme}://{credentials}{credentials and '@'}{place}"


def _place(host: str, port: int | None) -> str:
    return (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")


def _database(url: str, path: str) -> int:
    text = unquote(path).strip("/")
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", text):
        _refuse(url, _ALLOWED_DATABASE)
    return int(text)


def _check_options(url: str, found: dict[str, Any]) -> None:
    """Has redis-py look at the options of the query, which otherwise it does at the first call."""
    arguments = dict(found)
    connection_class = arguments.pop("connection_class")
    with suppress(TypeError, ValueError, redis.RedisError):
        connection_class(**arguments)
        return
    _refuse(url, "an option after the ? has a value that it cannot have, or belongs to rediss:// only")


def _refuse(url: str, allowed: str) -> NoReturn:
    scheme, separator, _ = url.partition("://")
    is_scheme = separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme)
    options.refuse("redis_url", f"{scheme}://..." if is_scheme else "...", allowed)

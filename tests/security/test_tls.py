"""That a server is encrypted to is not enough: it has to be the right one, by its authority and by its name."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trustme

from anyscheduler import ConfigurationError, Scheduler
from anyscheduler.redis.address import parse
from tests.servers.process import HOST
from tests.servers.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Endpoint(NamedTuple):
    """A server that speaks TLS, and the file of the authority that signed its certificate."""

    url: str
    authority: Path


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: TLS is the drivers' affair."""
    return "asyncio"


@contextmanager
def encrypted(url: str, directory: Path, *names: str) -> Iterator[Endpoint]:
    """Speaks TLS for a server that does not, with a certificate for `names`."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["postgresql"])
    authority.issue_cert(*names).configure_cert(context)
    path = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    address = url.rpartition("@")[2].partition("/")[0]
    host, _, port = address.partition(":")
    with Proxy(host, int(port), tls=context) as proxy:
        yield Endpoint(proxy.url(url), path)


async def start(kind: str, url: str) -> None:
    """Opens the store and closes it again."""
    options: dict[str, Any] = {f"{kind}_url": url}
    async with Scheduler(**options).create():
        pass


def trusting(kind: str, endpoint: Endpoint, authority: Path, **other: str) -> str:
    """Returns the URL that the page on security tells to use, with options of one's own."""
    if kind == "postgres":
        # The proxy begins with TLS, where a server of PostgreSQL would be asked for it first.
        query = {"sslmode": "verify-full", "sslrootcert": str(authority), "sslnegotiation": "direct"}
    else:
        query = {"ssl_ca_certs": str(authority)}
    separator = "&" if "?" in endpoint.url else "?"
    return endpoint.url + separator + "&".join(f"{name}={value}" for name, value in {**query, **other}.items())


@pytest.fixture(params=["postgres", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{kind}_url"))


@pytest.mark.anyio
async def test_the_right_server_is_connected_to(kind: str, url: str, tmp_path: Path) -> None:
    with encrypted(url, tmp_path, HOST) as endpoint:
        await start(kind, trusting(kind, endpoint, endpoint.authority))


@pytest.mark.anyio
async def test_the_certificate_of_another_authority_is_refused_at_the_start(
    kind: str, url: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "authority.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with encrypted(url, tmp_path, HOST) as endpoint:
        with pytest.raises(ConfigurationError, match=r"certificate verify failed") as refused:
            await start(kind, trusting(kind, endpoint, other))
        assert "canary" not in str(refused.value)


@pytest.mark.anyio
async def test_the_certificate_of_another_host_is_refused_at_the_start(kind: str, url: str, tmp_path: Path) -> None:
    with encrypted(url, tmp_path, "elsewhere.example") as endpoint:
        with pytest.raises(ConfigurationError, match=r"IP address mismatch|does not match host name") as refused:
            await start(kind, trusting(kind, endpoint, endpoint.authority))
        assert "canary" not in str(refused.value)


@pytest.mark.anyio
async def test_who_asks_for_no_check_gets_none(kind: str, url: str, tmp_path: Path) -> None:
    unchecked = {"sslmode": "require", "sslrootcert": ""} if kind == "postgres" else {"ssl_cert_reqs": "none"}
    with encrypted(url, tmp_path, "elsewhere.example") as endpoint:
        await start(kind, trusting(kind, endpoint, endpoint.authority, **unchecked))


@pytest.mark.parametrize(
    ("query", "checked"),
    [
        ("", True),
        ("?ssl_cert_reqs=required", True),
        ("?ssl_check_hostname=false", False),
        ("?ssl_cert_reqs=none", None),
    ],
)
def test_the_host_is_checked_unless_the_url_says_otherwise_whatever_the_driver_takes_for_granted(
    query: str, checked: bool | None
) -> None:
    assert parse(f"rediss://host{query}").options.get("ssl_check_hostname") is checked
    assert "ssl_check_hostname" not in parse("redis://host").options

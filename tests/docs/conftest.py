"""The servers that pages and examples are run against, where their readers name servers of their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from redis import Redis

from tests.servers.redis import start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.redis import RedisServer


@pytest.fixture
def stores(postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets POSTGRES_URL and REDIS_URL to stores that are empty, and empties them at the end."""
    schema = f"docs_{os.getpid()}"
    with psycopg.connect(postgres_url, autocommit=True) as connection, Redis.from_url(redis_url) as redis:
        connection.execute(f"CREATE SCHEMA {schema}".encode())
        separator = "&" if "?" in postgres_url else "?"
        monkeypatch.setenv("POSTGRES_URL", f"{postgres_url}{separator}options={quote(f'-csearch_path={schema}')}")
        monkeypatch.setenv("REDIS_URL", redis_url)
        before = set(redis.scan_iter())
        try:
            yield
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())
            for key in set(redis.scan_iter()) - before:
                redis.delete(key)


@pytest.fixture(scope="module")
def redis_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server whose settings and users may be changed."""
    with start_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server

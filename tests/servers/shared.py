"""The servers that a whole run of the suite shares, started when somebody first asks for one.

Knows: which servers the environment names instead. Must not know: who uses them; they keep apart by names of their own.

For fixtures and for code outside of tests alike: `ANYSCHEDULER_TEST_POSTGRES_URL` and `ANYSCHEDULER_TEST_REDIS_URL`
select servers that run already.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from tests.servers.postgres import start_postgres
from tests.servers.redis import start_redis

_DIRECTORY = Path(tempfile.gettempdir())

_servers = ExitStack()
atexit.register(_servers.close)


@cache
def postgres_url() -> str:
    """Returns the URL of a PostgreSQL database; it trades safety against a loss of power for speed."""
    given = os.environ.get("ANYSCHEDULER_TEST_POSTGRES_URL")
    if given:
        return given
    return _servers.enter_context(start_postgres(_DIRECTORY, fsync="off", full_page_writes="off")).url


@cache
def redis_url() -> str:
    """Returns the URL of a Redis server that keeps nothing on disk."""
    given = os.environ.get("ANYSCHEDULER_TEST_REDIS_URL")
    if given:
        return given
    return _servers.enter_context(start_redis(_DIRECTORY, appendonly="no")).url

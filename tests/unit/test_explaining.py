"""What drivers say, as it stands in log lines."""

from __future__ import annotations

import pytest
import redis
from psycopg import OperationalError

from anyscheduler.errors import ConfigurationError
from anyscheduler.postgres.database import explain as explain_postgres
from anyscheduler.redis.connections import explain as explain_redis
from anyscheduler.runner import _check_installed


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            (
                "Error running script (call to f_e250cd5e): @user_script:123: @user_script: 123: "
                "The user executing the script can't run this command or subcommand"
            ),
            "The user executing the script can't run this command or subcommand",
        ),
        (
            "Error running script (call to f_0fb356ab): @user_script:192: @user_script: 192: -OOM command not allowed",
            "OOM command not allowed",
        ),
        (
            "WRONGTYPE Operation against a key script: 0fb356ab, on @user_script:192.",
            "WRONGTYPE Operation against a key",
        ),
        (
            "No master found for 'svc' : <redis.client.Redis(<redis.connection.ConnectionPool(password=secret)>)>",
            "No master found for 'svc'",
        ),
        ("Connection closed by server.", "Connection closed by server."),
    ],
)
def test_an_error_of_redis_is_told_without_the_script_and_the_client(said: str, told: str) -> None:
    assert explain_redis(redis.ResponseError(said)) == told


def test_an_error_of_libpq_is_told_without_its_advice() -> None:
    said = 'connection to server at "h", port 1 failed: refused\n\tIs the server running on that host?\nanother\n'

    assert explain_postgres(OperationalError(said)) == 'connection to server at "h", port 1 failed: refused; another'


def test_an_event_loop_that_is_not_installed_is_named_with_the_extra_that_brings_it() -> None:
    _check_installed("asyncio")
    with pytest.raises(
        ConfigurationError, match=r'absent_loop is not installed: pip install "anyscheduler\[absent_loop\]"'
    ):
        _check_installed("absent_loop")

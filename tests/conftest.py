"""What all tests share: the event loops that tests marked with `anyio` run on, and one server of each kind."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.canary import Canary, leaks
from tests.servers import shared

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# A machine that is busy with something else is no failure of what is tested.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

_LOOPS: list[Any] = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
if importlib.util.find_spec("uvloop") is not None:  # it does not exist for every platform
    _LOOPS.insert(1, pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(params=_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop of a test: asyncio, uvloop and trio, one after the other."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(autouse=True)
def canary() -> Iterator[None]:
    """Fails a test in which a password was logged, at whatever level the test has set."""
    bird = Canary()
    logging.getLogger().addHandler(bird)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(bird)
    assert bird.leaks == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fails a test that has written a password, by itself or by a program whose output is its own."""
    report = yield
    written = [line for name, text in report.sections if " log " not in name for line in text.splitlines()]
    if report.passed and (told := leaks(written)):
        report.outcome = "failed"
        report.longrepr = "\n".join(("a password was written:", *told))
    return report


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A database that the whole session shares: whoever needs to be alone takes a table name of its own."""
    return shared.postgres_url()


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis server that the whole session shares: whoever needs to be alone takes a namespace of its own."""
    return shared.redis_url()

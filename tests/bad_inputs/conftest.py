"""Bad input: what it gets, and that it leaves nothing behind.

"Refused" is a ConfigurationError where the input is given, with the option, the value cut to 80 characters, and what is
allowed. Each group of inputs has its file here, or is tested with what it belongs to:

- crons, intervals, single instants, which of them go together: `test_schedules.py`
- time zones, and that no file is opened for one: `test_zones.py`
- names of tasks and instances, page tokens: `test_names.py`; that no two meet: also `conformance/test_repository.py`
- arguments: `test_arguments.py`
- options of apps, tasks and instances, misspelt ones, leases, modes, limits: `test_options.py`
- bodies, fixtures, middlewares: `test_bodies.py`; fixtures that raise: `loop/test_fixtures.py` and
  `process/test_failures.py`
- rows that are damaged, of a newer version, or of an unknown task: `test_rows.py` on every store; what becomes of them
  over minutes: `loop/test_corrupt_rows.py`, `loop/test_corrupt_states.py`; bytes and types that are no row:
  `test_fuzzed_files.py`, `conformance/test_redis.py`
- URLs, tables, namespaces: `test_addresses.py`; what only a server can refuse (passwords, rights, versions, standbys):
  `conformance/test_postgres_opening.py` and `conformance/test_redis_opening.py`; files: `conformance/test_sqlite.py`
- files that others lock, disks that are full, servers that go away: `process/test_store_trouble.py` and
  `process/test_store_faults.py`
- the command line: `test_command_line.py`
- `run` twice or too late, unscheduling and scheduling itself while it runs: `test_moments.py`
- clocks that jump: `loop/test_clock.py`, `loop/test_store_time.py`, `process/test_store_time.py`
- a million overdue: `process/test_overdue.py`, `loop/test_capacity.py`, and `conformance/test_postgres_cost.py`
- text that nobody thought of: `test_fuzzing.py`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from anyscheduler import Scheduler
from tests.conformance.stores import STORES, Store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bad_inputs.refusals import NewApp


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: whichever it is, input is refused before it is asked."""
    return "asyncio"


@pytest.fixture(params=STORES, ids=lambda store: store.name)
def new_app(request: pytest.FixtureRequest, tmp_path: Path) -> NewApp:
    """Apps on an empty place of every store."""
    store: Store = request.param
    place = store.new_place(tmp_path)
    return lambda: Scheduler(repository_factory=place)

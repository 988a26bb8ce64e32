"""Servers that restart, vanish, refuse, freeze; workers that are killed: what is due is executed all the same, once."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
import pytest

from tests.process.ledger import (
    SECOND,
    Entry,
    assert_none_doubled,
    assert_none_early,
    assert_none_skipped,
    assert_nothing_is_leased,
    assert_repeated_after_its_lease_only,
    of_event,
    starts_by_occurrence,
)
from tests.process.programs import LOOPS
from tests.process.workers import Store, Workers, on_each
from tests.servers.postgres import PostgresServer, start_postgres
from tests.servers.process import HOST, free_port
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, client, start_redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from anyscheduler.lease import Row
    from tests.process.programs import Program

AnyServer: TypeAlias = PostgresServer | RedisServer
Fault: TypeAlias = "Callable[[AnyServer], AbstractContextManager[None]]"

GONE = "the store failed while"
BACK = "the store is back after"
# What workers say of a result that another one's overtook, and the driver's pool under DEBUG, is not about the fault.
NOISE = r"late result was refused|not started, it was|psycopg\.pool"
MOST_CONNECTIONS = 20
AWAY_SECONDS = 10


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, AnyServer]]:
    """A server of each kind that loses nothing it has confirmed, and has few connections to give."""
    directory = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        yield {
            "postgres": stack.enter_context(start_postgres(directory, max_connections=str(MOST_CONNECTIONS))),
            "redis": stack.enter_context(start_redis(directory, appendfsync="always")),
        }


@pytest.fixture
def stores(servers: dict[str, AnyServer]) -> list[Store]:
    """A new place in the store of each server."""
    return [Store.postgres(servers["postgres"].url), Store.redis(servers["redis"].url)]


# Leases are longer than a fault and the wait for another attempt after it: so nothing may be executed twice. No worker
# can take all that is due at a time, so that each has something to do at any moment.
LOAD = """
app = Scheduler(**STORE, concurrency_limit=10)
lease = timedelta(seconds=float(os.environ["LEASE"]))
every = {"interval": timedelta(milliseconds=500), "lease_duration": lease}

async def work(context):
    record("begins", context)
    await anyio.sleep(0.05)
    record("ends", context)

for number in range(15):
    app.task(**every, name=f"least {number}")(work)
    app.task(**every, execution_mode=ExecutionMode.AT_MOST_ONCE, name=f"most {number}")(work)
"""
TASKS = 30


def now() -> int:
    return time.time_ns() // 1000


def under_load(workers: Workers, lease_seconds: int) -> list[Program]:
    """Starts a worker on each event loop; one of them logs everything."""
    group = [
        workers.start(LOAD, loop, LEASE=str(lease_seconds), LOG_LEVEL="DEBUG" if loop == "trio" else "INFO")
        for loop in LOOPS
    ]
    until_each_has_run_since(workers, 0, group)
    return group


def until_each_has_run_since(workers: Workers, instant: int, group: list[Program]) -> None:
    """Waits until each task has ended in an occurrence that was due after an instant, and each worker runs again."""
    pids = {program.pid for program in group}

    def have_run(ledger: list[Entry]) -> bool:
        recent = [entry for entry in of_event("ends", ledger) if entry.scheduled_at > instant]
        return len({entry.task for entry in recent}) == TASKS and {entry.pid for entry in recent} == pids

    workers.until(have_run, "each task and each worker runs again")


def assert_told_once(program: Program, *, faults: int = 1, besides: str = NOISE) -> None:
    """It said that the store was gone, and that it is back, in turns, for each of so many faults; and nothing else."""
    lines = [line for line in program.matching("WARNING") if not re.search(besides, line)]
    kinds = [GONE if GONE in line else BACK if BACK in line else line for line in lines]
    assert kinds == [GONE, BACK] * faults


def stop(workers: Workers, group: list[Program]) -> None:
    for program in group:
        program.send(signal.SIGTERM)
    assert [program.ends(troubled=True) for program in group] == [0] * len(group)
    assert [line for program in group for line in program.matching("Traceback|CRITICAL|ERROR ")] == []


def assert_nothing_was_lost_or_doubled(workers: Workers) -> None:
    ledger, rows = workers.ledger(), workers.store.rows()
    assert len(rows) == TASKS
    assert_none_early(ledger)
    assert_none_doubled(ledger)
    # An occurrence that is executed at most once may be lost with the reply to its claim.
    at_least_once: dict[str, Row] = {key: row for key, row in rows.items() if row.task.startswith("least")}
    assert_none_skipped(ledger, at_least_once, SECOND // 2)
    assert_nothing_is_leased(rows)


def test_a_server_that_restarts_crashes_and_is_gone_for_a_while_is_waited_for(
    servers: dict[str, AnyServer], stores: list[Store], tmp_path: Path
) -> None:
    def scenario(workers: Workers) -> None:
        server = servers[workers.store.kind]
        group = under_load(workers, 30)
        server.restart()
        until_each_has_run_since(workers, now(), group)
        server.kill()
        server.start()
        until_each_has_run_since(workers, now(), group)
        told_before = [len(program.matching(GONE)) for program in group]
        server.stop()
        for program, before in zip(group, told_before, strict=True):
            program.until(GONE, times=before + 1)
        time.sleep(AWAY_SECONDS)
        server.start()
        until_each_has_run_since(workers, now(), group)
        stop(workers, group)
        for program, before in zip(group, told_before, strict=True):
            # A restart may be over before anybody has asked the server for anything.
            assert before <= 2
            assert_told_once(program, faults=before + 1)
        assert_nothing_was_lost_or_doubled(workers)

    on_each(stores, tmp_path, scenario)


def test_connections_that_are_cut_under_load_are_made_again(servers: dict[str, AnyServer], tmp_path: Path) -> None:
    with ExitStack() as stack:
        proxies = {kind: stack.enter_context(Proxy(HOST, server.port)) for kind, server in servers.items()}

        def scenario(workers: Workers) -> None:
            group = under_load(workers, 10)
            for _ in range(10):
                proxies[workers.store.kind].cut()
                time.sleep(0.2)
            until_each_has_run_since(workers, now(), group)
            stop(workers, group)
            for program in group:
                # A connection that listened and was cut may be cut again while it is made anew.
                assert_told_once(program, faults=len(program.matching(GONE)), besides=f"{NOISE}|cannot listen")
            assert_nothing_was_lost_or_doubled(workers)

        urls = {kind: proxy.url(servers[kind].url) for kind, proxy in proxies.items()}
        on_each([Store.postgres(urls["postgres"]), Store.redis(urls["redis"])], tmp_path, scenario)


@contextmanager
def read_only(server: AnyServer) -> Iterator[None]:
    """Makes a primary read-only."""
    if isinstance(server, PostgresServer):
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
            try:
                yield
            finally:
                connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
                connection.execute("SELECT pg_reload_conf()")
    else:
        with client(server) as redis:
            # Of a server that does not exist, so that it keeps what it has.
            redis.replicaof(HOST, free_port())
            try:
                yield
            finally:
                redis.replicaof("NO", "ONE")


@contextmanager
def out_of_connections(server: AnyServer) -> Iterator[None]:
    """Closes all connections of a server, and gives nobody another one."""
    with ExitStack() as stack:
        if isinstance(server, PostgresServer):
            own = stack.enter_context(psycopg.connect(server.url, autocommit=True))
            others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            held: list[psycopg.Connection[Any]] = []
            # Whoever is faster than this gets one, and loses it again.
            while len(held) < MOST_CONNECTIONS - 1:
                own.execute(f"SELECT pg_terminate_backend(pid) {others} AND application_name <> 'held'")
                try:
                    while True:
                        held.append(stack.enter_context(psycopg.connect(server.url, application_name="held")))
                except psycopg.OperationalError:
                    continue
        else:
            redis = stack.enter_context(client(server))
            most = redis.config_get("maxclients")["maxclients"]
            redis.config_set("maxclients", 1)
            stack.callback(redis.config_set, "maxclients", most)
            redis.execute_command("CLIENT KILL SKIPME yes")
        yield


NO_ROOM = """
CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE disk_full; END';
DO $$ DECLARE name text; BEGIN FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON %I EXECUTE FUNCTION no_room()', name);
END LOOP; END $$"""


@contextmanager
def full(server: AnyServer) -> Iterator[None]:
    """Has no room: Redis in memory, and PostgreSQL on its disk, or so it says."""
    with ExitStack() as stack:
        if isinstance(server, PostgresServer):
            connection = stack.enter_context(psycopg.connect(server.url, autocommit=True))
            connection.execute(NO_ROOM)
            stack.callback(connection.execute, "DROP FUNCTION no_room CASCADE")
        else:
            redis = stack.enter_context(client(server))
            redis.config_set("maxmemory", 1)
            stack.callback(redis.config_set, "maxmemory", 0)
        yield


@pytest.mark.parametrize("fault", [read_only, out_of_connections, full])
def test_a_server_that_refuses_for_a_while_is_waited_for(
    servers: dict[str, AnyServer], stores: list[Store], tmp_path: Path, fault: Fault
) -> None:
    def scenario(workers: Workers) -> None:
        group = under_load(workers, 10)
        with fault(servers[workers.store.kind]):
            for program in group:
                program.until(GONE)
            time.sleep(1)
        until_each_has_run_since(workers, now(), group)
        stop(workers, group)
        for program in group:
            assert_told_once(program)
        assert_nothing_was_lost_or_doubled(workers)

    on_each(stores, tmp_path, scenario)


SLOW = """
app = Scheduler(**STORE, concurrency_limit=10)
every = {"interval": timedelta(seconds=1), "lease_duration": timedelta(seconds=2)}

async def work(context):
    record("begins", context)
    await anyio.sleep(0.5)
    record("ends", context)

for number in range(15):
    app.task(**every, name=f"least {number}")(work)
    app.task(**every, execution_mode=ExecutionMode.AT_MOST_ONCE, name=f"most {number}")(work)
"""
SLOW_LEASE = 2 * SECOND


def kill_in_mid_body(workers: Workers, victim: Program) -> None:
    def unfinished(ledger: list[Entry]) -> int:
        balance = Counter({"begins": 0, "ends": 0})
        balance.update(entry.event for entry in ledger if entry.pid == victim.pid and entry.task.startswith("least"))
        return balance["begins"] - balance["ends"]

    workers.until(lambda ledger: unfinished(ledger) > 0, "it executes something")
    victim.send(signal.SIGKILL)
    assert victim.ends(troubled=True) == -signal.SIGKILL


def test_what_killed_workers_were_executing_is_finished_by_others_after_its_lease_unless_it_runs_at_most_once(
    stores: list[Store], tmp_path: Path
) -> None:
    def scenario(workers: Workers) -> None:
        group = workers.start_group(SLOW, 3)
        until_each_has_run_since(workers, 0, group)
        for victim in group[:2]:
            kill_in_mid_body(workers, victim)
        cut_off_at = now()
        survivors = [group[2], workers.start(SLOW)]
        until_each_has_run_since(workers, cut_off_at, survivors)
        stop(workers, survivors)

        ledger, rows = workers.ledger(), workers.store.rows()
        at_least_once = {key: row for key, row in rows.items() if row.task.startswith("least")}
        victims = {program.pid for program in group[:2]}
        assert_none_early(ledger)
        assert_repeated_after_its_lease_only(ledger, SLOW_LEASE)
        repeated = {
            (task, at): starts for (task, at), starts in starts_by_occurrence(ledger).items() if len(starts) > 1
        }
        assert repeated
        for (task, _), starts in repeated.items():
            assert task.startswith("least")
            assert {start.pid for start in starts[:-1]} <= victims
            assert starts[-1].pid not in victims
        assert_none_skipped(ledger, at_least_once, SECOND)
        assert_nothing_is_leased(rows)

    on_each([Store.sqlite(tmp_path / "schedule.db"), *stores], tmp_path, scenario)


TIMEOUT_SECONDS = 2
HARD_STOP_SECONDS = 7

IDLE = """
app = Scheduler(**STORE)

@app.dynamic_task()
async def never(context):
    raise NotImplementedError
"""

# Half of them end while the server is frozen, so that their results cannot be written; the others do not end.
BUSY = """
app = Scheduler(**STORE)

async def short(context):
    record("begins", context)
    await anyio.sleep(1)
    record("ends", context)

async def endless(context):
    record("begins", context)
    await anyio.sleep(600)

for number in range(5):
    app.task(interval=timedelta(seconds=1), name=f"short {os.getpid()} {number}")(short)
    app.task(interval=timedelta(seconds=1), name=f"endless {os.getpid()} {number}")(endless)
"""


def test_a_frozen_server_keeps_no_worker_from_ending(
    servers: dict[str, AnyServer], stores: list[Store], tmp_path: Path
) -> None:
    def scenario(workers: Workers) -> None:
        idle = workers.start_group(IDLE, COMMAND_TIMEOUT=str(TIMEOUT_SECONDS), LOG_LEVEL="DEBUG")
        for program in idle:
            program.until(r"running 1 task on")
        busy = workers.start_group(BUSY, COMMAND_TIMEOUT=str(TIMEOUT_SECONDS))
        pids = {program.pid for program in busy}
        workers.until(
            lambda ledger: all(sum(entry.pid == pid for entry in ledger) >= 10 for pid in pids), "all have begun"
        )
        frozen_at = now()
        server = servers[workers.store.kind]
        server.freeze()
        try:
            time.sleep(1)  # Each of them now waits for an answer.
            for program in [*idle, *busy]:
                program.send(signal.SIGINT)
            began = time.monotonic()
            assert [program.ends(troubled=True) for program in idle] == [0] * len(idle)
            assert time.monotonic() - began < TIMEOUT_SECONDS + HARD_STOP_SECONDS
            workers.until(
                lambda ledger: (
                    {entry.pid for entry in of_event("ends", ledger) if entry.claimed_at < frozen_at < entry.at} == pids
                ),
                "all have a result that cannot be written",
            )
            for program in busy:
                assert program.matching("stopping gracefully")
                program.send(signal.SIGINT)
            began = time.monotonic()
            assert [program.ends(troubled=True) for program in busy] == [130] * len(busy)
            assert time.monotonic() - began < HARD_STOP_SECONDS
        finally:
            server.thaw()

    on_each(stores, tmp_path, scenario)

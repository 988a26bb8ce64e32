"""The Redis store on a cluster of three nodes, where each partition lies in a slot of its own."""

from __future__ import annotations

import random
import select
import threading
import time
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from anyscheduler.errors import ConfigurationError
from anyscheduler.lease import Change
from anyscheduler.redis import redis_repository
from anyscheduler.redis.connections import ERRORS, AbortedError
from anyscheduler.repository import ClaimRequest
from tests.conformance.redis_scene import LEASE, NEVER_DUE, RIGHTS, claim, due_row, insert, keys_of, opened
from tests.conformance.stores import free_row, stored_rows
from tests.conformance.stores import insert as insert_into
from tests.servers.process import HOST, QUOTED_PASSWORD, wait_until
from tests.servers.redis import RedisServer, client, start_redis_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anyscheduler.redis.connections import Command, Connections
    from anyscheduler.redis.database import RedisDatabase

PARTITIONS = [f"job%p{number}" for number in range(12)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with start_redis_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def database(nodes: list[RedisServer]) -> Iterator[RedisDatabase]:
    for node in nodes:
        with client(node) as redis:
            redis.flushall()
    with opened(random.choice(nodes).url) as database:
        yield database


def on_each(nodes: list[RedisServer], command: str, *arguments: Any) -> list[Any]:
    """Returns what each node answers."""
    answers = []
    for node in nodes:
        with client(node) as redis:
            answers.append(redis.execute_command(command, *arguments))
    return answers


def test_partitions_spread_over_the_nodes_and_all_operations_work_across(
    database: RedisDatabase, nodes: list[RedisServer]
) -> None:
    rows = [due_row(f"{task}:{number}") for task in PARTITIONS for number in range(5)]
    insert(database, *rows, due_row("single"))

    assert all(number > 10 for number in on_each(nodes, "DBSIZE"))
    assert sorted(database.tasks()) == sorted([*PARTITIONS, "single"])
    assert database.read([row.key for row in rows]) == {row.key: row for row in rows}
    for task in PARTITIONS:
        assert [row.key for row in database.page(task, f"{task}:1", 2)] == [f"{task}:2", f"{task}:3"]

    claimed = claim(database, "single", *PARTITIONS, limit=1_000)
    assert sorted(keys_of(claimed)) == sorted(row.key for row in [*rows, due_row("single")])
    assert {row.claimable_at for row in claimed.rows} == {claimed.now + LEASE} == {claimed.next_claimable}
    changes = [Change(row.key, "t1" if number % 2 else "wrong", None) for number, row in enumerate(claimed.rows)]
    assert database.write(changes) == [bool(number % 2) for number in range(len(changes))]
    kept = claimed.rows[::2]
    assert database.read([row.key for row in claimed.rows]) == {row.key: row for row in kept}


def test_a_claim_from_many_nodes_keeps_to_its_limit_and_none_is_claimed_twice(database: RedisDatabase) -> None:
    insert(database, *(due_row(f"{task}:{number}") for task in PARTITIONS for number in range(5)))
    found: list[str] = []
    for turn in range(9):
        claimed = claim(database, *PARTITIONS, limit=7, token=f"t{turn}")
        found += keys_of(claimed)
        assert len(claimed.rows) == (7 if turn < 8 else 4)
        assert claimed.next_claimable is not None
        assert (claimed.next_claimable <= claimed.now) == (turn < 8)
    assert len(set(found)) == 60


def test_when_to_look_again_is_the_earliest_of_all_nodes(database: RedisDatabase) -> None:
    insert(database, *(due_row(f"{task}:x", NEVER_DUE + number) for number, task in enumerate(PARTITIONS)))
    assert claim(database, *PARTITIONS).next_claimable == NEVER_DUE
    assert claim(database, *reversed(PARTITIONS[3:]), "unknown").next_claimable == NEVER_DUE + 3
    assert claim(database, "unknown").next_claimable is None


def test_the_given_instant_counts_on_all_nodes(database: RedisDatabase) -> None:
    insert(database, *(due_row(f"{task}:x", number) for number, task in enumerate(PARTITIONS)))
    claimed = database.claim([ClaimRequest(task, 10) for task in PARTITIONS], 100, 5, "t1")
    assert sorted(keys_of(claimed)) == sorted(f"{task}:x" for task in PARTITIONS[:6])
    assert (claimed.now, claimed.next_claimable) == (5, 6)


def test_a_clock_that_was_set_ahead_is_believed_up_to_the_given_instant_on_all_nodes(database: RedisDatabase) -> None:
    shown = database.time()
    insert(database, *(due_row(f"{task}:x", number) for number, task in enumerate(PARTITIONS)))
    claimed = database.claim([ClaimRequest(task, 10) for task in PARTITIONS], 100, None, "t1", 5)
    assert sorted(keys_of(claimed)) == sorted(f"{task}:x" for task in PARTITIONS[:6])
    assert {row.claimable_at for row in claimed.rows} == {15}
    assert claimed.next_claimable == 6
    assert claimed.now >= shown


def test_what_is_announced_on_one_node_is_heard_on_all(database: RedisDatabase, nodes: list[RedisServer]) -> None:
    for number, node in enumerate(nodes):
        with opened(node.url) as other:
            listener = other.listener()
            assert listener is not None
            with closing(listener):
                database.write([Change(f"a:{number}", None, due_row(f"a:{number}", number))], announce=True)
                heard: list[int] = []
                while number not in heard:  # the one before may still be on its way from node to node
                    assert select.select([listener], [], [], 10)[0]
                    heard += listener.drain()


def test_nodes_that_forgot_their_scripts_are_told_them_again(database: RedisDatabase, nodes: list[RedisServer]) -> None:
    on_each(nodes, "SCRIPT FLUSH")
    insert(database, *(due_row(f"{task}:x") for task in PARTITIONS))
    on_each(nodes, "SCRIPT FLUSH")
    assert len(claim(database, *PARTITIONS).rows) == len(PARTITIONS)


def test_a_damaged_index_is_mended_on_each_node(database: RedisDatabase, nodes: list[RedisServer]) -> None:
    insert(database, *(due_row(f"{task}:x") for task in PARTITIONS), due_row("single"))
    for node in nodes:
        with client(node) as redis:
            doomed = [name for name in redis.scan_iter() if b":due:" in name or name.endswith(b":keys")]
            for name in doomed:
                redis.delete(name)
    with opened(nodes[0].url) as again:
        assert len(claim(again, *PARTITIONS, "single").rows) == len(PARTITIONS) + 1
        assert [row.key for row in again.page(PARTITIONS[0], "", 9)] == [f"{PARTITIONS[0]}:x"]


def test_a_slot_that_moves_is_followed(database: RedisDatabase, nodes: list[RedisServer]) -> None:
    insert(database, *(due_row(f"{task}:x") for task in PARTITIONS))
    with client(nodes[0]) as first:
        slots = {int(first.execute_command("CLUSTER KEYSLOT", f"{{anyscheduler:job%25p{n}}}:rows")) for n in range(12)}
        ids = [redis_id.decode() for redis_id in on_each(nodes, "CLUSTER MYID")]
        slot = min(slots)  # on the first node: the slots are shared out evenly, in order
        names = first.execute_command("CLUSTER GETKEYSINSLOT", slot, 100)
    with client(nodes[0]) as source, client(nodes[1]) as target:
        target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        for name in names:
            dumped = source.dump(name)
            target.execute_command("ASKING")
            target.restore(name, 0, dumped)
            source.delete(name)
        half_way = claim(database, *PARTITIONS, limit=1)
        assert len(half_way.rows) == 1
        for redis in (target, source):
            redis.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
    rest = claim(database, *PARTITIONS, token="t2")
    assert len({*keys_of(half_way), *keys_of(rest)}) == len(PARTITIONS)
    assert database.write([Change(row.key, row.token, None) for row in [*half_way.rows, *rest.rows]]) == [True] * 12
    with client(nodes[0]) as source, client(nodes[1]) as target:
        for redis in (target, source):
            redis.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[0])
        source.execute_command("CLUSTER BUMPEPOCH")  # the third node believes it, too


class FailingFromTheThird:
    """The connections of a database, which break down when they are used for the third time."""

    spread = True

    def __init__(self, connections: Connections, error: Exception) -> None:
        self._connections = connections
        self._error = error
        self._runs = 0

    def run(self, commands: Sequence[Command], *, partly: bool = False) -> list[Any]:
        self._runs += 1
        if self._runs >= 3:
            raise self._error
        return self._connections.run(commands, partly=partly)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connections, name)


def test_what_was_claimed_before_a_node_failed_is_known_to_the_caller(database: RedisDatabase) -> None:
    insert(database, *(due_row(f"{task}:x") for task in PARTITIONS))
    claim(database, "unknown")
    reliable = database._connections
    database._connections = FailingFromTheThird(reliable, RedisConnectionError("gone"))

    claimed = claim(database, *PARTITIONS)

    database._connections = reliable
    [row] = claimed.rows
    assert database.read([row.key]) == {row.key: row}
    assert claimed.next_claimable == row.claimable_at, "whoever claims does not run against the wall at once"
    assert len(claim(database, *PARTITIONS, token="t2").rows) == len(PARTITIONS) - 1


def test_a_claim_that_was_given_up_goes_on_with_no_other_node(database: RedisDatabase) -> None:
    insert(database, *(due_row(f"{task}:x") for task in PARTITIONS))
    claim(database, "unknown")
    database._connections = FailingFromTheThird(database._connections, AbortedError("gone"))
    with pytest.raises(AbortedError):
        claim(database, *PARTITIONS)


def test_a_call_that_hangs_at_one_node_and_is_cut_goes_on_with_no_other_node(
    database: RedisDatabase, nodes: list[RedisServer]
) -> None:
    insert(database, *(due_row(f"{task}:x") for task in PARTITIONS))
    failed: list[BaseException] = []

    def call() -> None:
        try:
            claim(database, *PARTITIONS, token="lost")
        except ERRORS as error:
            failed.append(error)

    nodes[0].freeze()
    thread = threading.Thread(target=call)
    thread.start()
    while thread.is_alive():
        assert thread.ident is not None
        database.abort(thread.ident)
        thread.join(0.05)
    nodes[0].thaw()
    assert [type(error) for error in failed] == [AbortedError]
    keys = [f"{task}:x" for task in PARTITIONS]
    assert {row.token for row in database.read(keys).values()} == {"t0"}


@contextmanager
def one_node_gone(database: RedisDatabase, nodes: list[RedisServer], gone: RedisServer) -> Iterator[None]:
    """Stops a node, and starts it again at the end; the others are told to go on without it."""
    on_each(nodes, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    gone.stop()
    try:
        yield
    finally:
        gone.start()
        _until_complete(nodes)
    wait_until(lambda: _answers(database), "the store has noticed")


def _answers(database: RedisDatabase) -> bool:
    try:
        database.tasks()
    except ERRORS:
        return False
    return True


def home(database: RedisDatabase, nodes: list[RedisServer], task: str) -> RedisServer:
    """Returns the node that a task lies on."""
    with client(nodes[0]) as redis:
        slot = redis.execute_command("CLUSTER KEYSLOT", database._keyspace.shard(task).rows)
        found = [entry[2][1] for entry in redis.execute_command("CLUSTER SLOTS") if entry[0] <= slot <= entry[1]]
    [node] = [node for node in nodes if node.port in found]
    return node


@pytest.mark.parametrize("with_the_ordinary_tasks", [False, True])
def test_a_node_that_is_gone_holds_up_what_lies_on_it_and_nothing_else(
    database: RedisDatabase,
    nodes: list[RedisServer],
    caplog: pytest.LogCaptureFixture,
    with_the_ordinary_tasks: bool,
) -> None:
    main = home(database, nodes, "a")
    gone = main if with_the_ordinary_tasks else next(node for node in nodes if node is not main)
    waiting = [task for task in PARTITIONS if home(database, nodes, task) is gone]
    others = [task for task in PARTITIONS if task not in waiting]
    insert(database, *(due_row(f"{task}:{number}") for task in PARTITIONS for number in range(2)))
    with one_node_gone(database, nodes, gone):
        for turn in range(3):
            claimed = claim(database, *PARTITIONS, token=f"t{turn}")
            assert sorted(keys_of(claimed)) == ([] if turn else sorted(f"{o}:{n}" for o in others for n in range(2)))
            assert claimed.now == pytest.approx(time.time() * 1e6, abs=60e6)
        changes = [Change(f"{task}:0", "t0", due_row(f"{task}:0", token="t9")) for task in PARTITIONS]
        assert database.write(changes) == [None if task in waiting else True for task in PARTITIONS]
        with pytest.raises(ERRORS):
            database.write([Change(f"{waiting[0]}:0", "t0", None)])
        with pytest.raises(ERRORS):
            claim(database, "a") if with_the_ordinary_tasks else database.read([f"{waiting[0]}:0"])
        [warning] = caplog.records
        assert "some of the nodes of the Redis Cluster cannot be reached" in warning.message
    assert sorted(keys_of(claim(database, *waiting))) == sorted(f"{task}:{n}" for task in waiting for n in range(2))
    assert [record.message for record in caplog.records[1:]] == ["all nodes of the Redis Cluster answer again"]


def test_a_new_partition_waits_for_the_list_of_partitions_and_no_other_change_does(
    database: RedisDatabase, nodes: list[RedisServer]
) -> None:
    gone = home(database, nodes, "a")  # the list of partitions lies there, too
    here = [task for task in PARTITIONS if home(database, nodes, task) is not gone]
    insert(database, due_row(f"{here[0]}:x"))
    with opened(nodes[0].url) as other, one_node_gone(database, nodes, gone):
        update = Change(f"{here[0]}:x", "t0", due_row(f"{here[0]}:x", token="t1"))
        new = Change(f"{here[1]}:x", None, due_row(f"{here[1]}:x"))
        assert other.write([new, update]) == [None, True]
        with pytest.raises(ERRORS):
            other.write([new])
        assert other.read([f"{here[1]}:x"]) == {}
    assert database.write([new]) == [True]
    assert sorted(database.tasks()) == sorted(here[:2])


def test_a_slot_that_nobody_served_for_a_while_is_found_again(
    database: RedisDatabase, nodes: list[RedisServer]
) -> None:
    on_each(nodes, "CONFIG", "SET", "cluster-require-full-coverage", "no")
    task, other = PARTITIONS[:2]
    insert(database, due_row(f"{task}:x"), due_row(f"{other}:x"))
    with client(nodes[0]) as redis:
        slot = redis.execute_command("CLUSTER KEYSLOT", database._keyspace.shard(task).rows)
    owner = home(database, nodes, task)
    on_each(nodes, "CLUSTER DELSLOTS", slot)
    for _ in range(2):  # the first call finds out, and what the next one learns of the slots has a gap
        with pytest.raises(ERRORS):
            database.read([f"{task}:x"])
        assert set(database.read([f"{other}:x"])) == {f"{other}:x"}
    with client(owner) as redis:
        redis.execute_command("CLUSTER ADDSLOTS", slot)
    _until_complete(nodes)
    wait_until(lambda: _answers(database), "the store has noticed")
    assert set(database.read([f"{task}:x"])) == {f"{task}:x"}


def _until_complete(nodes: list[RedisServer]) -> None:
    wait_until(
        lambda: all(answer["cluster_slots_ok"] == "16384" for answer in on_each(nodes, "CLUSTER INFO")),
        "the cluster is back",
    )


def test_few_rights_are_enough(database: RedisDatabase, nodes: list[RedisServer]) -> None:
    granted = ["~{anyscheduler}:*", "~{anyscheduler:*", "resetchannels", "&{anyscheduler}:claimable", *RIGHTS]
    granted = [right for right in granted if right not in {"+select", "+config|get"}]
    on_each(nodes, "ACL", "SETUSER", "app", "reset", "on", ">p", *granted)
    url = f"redis://app:p@{HOST}:{nodes[0].port}"
    with opened(url) as limited:
        insert(limited, *(due_row(f"{task}:x") for task in PARTITIONS))
        assert len(claim(limited, *PARTITIONS).rows) == len(PARTITIONS)
        assert sorted(limited.tasks()) == sorted(PARTITIONS)
    for missing in ("+cluster|slots", "+zadd"):
        fewer = [right for right in granted if right != missing]
        on_each(nodes, "ACL", "SETUSER", "app", "reset", "on", ">p", *fewer)
        with pytest.raises(ConfigurationError, match="lacks a right"), opened(url):
            pass


def test_a_database_other_than_the_first_is_refused(nodes: list[RedisServer]) -> None:
    with (
        pytest.raises(ConfigurationError, match="cluster mode"),
        opened(f"redis://:{QUOTED_PASSWORD}@{HOST}:{nodes[0].port}/1"),
    ):
        pass


def test_a_unix_socket_is_refused(nodes: list[RedisServer]) -> None:
    with (
        pytest.raises(ConfigurationError, match="a Unix socket leads to none of the others"),
        opened(f"unix://:{QUOTED_PASSWORD}@{nodes[0].unix_path}"),
    ):
        pass


@pytest.mark.anyio
async def test_an_app_uses_a_cluster_like_any_other_store(nodes: list[RedisServer]) -> None:
    place = partial(redis_repository, redis_url=nodes[1].url, redis_namespace=f"app{random.random()}")
    rows = [free_row(f"{task}:x") for task in PARTITIONS]
    async with place() as first, place() as second:
        await insert_into(first, *rows)
        assert sorted(await stored_rows(second, *PARTITIONS)) == sorted(rows)
        claimed = await second.claim([ClaimRequest(task, LEASE) for task in PARTITIONS], 100, None, "t1")
        assert len(claimed.rows) == len(rows)
        assert await first.write([Change(row.key, "t1", None) for row in claimed.rows]) == [True] * len(rows)
        assert await first.tasks() == []

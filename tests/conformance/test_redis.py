"""What only the Redis store has: an index that may be damaged, scripts that may be forgotten, names of keys."""

from __future__ import annotations

import json
import select
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import redis as driver

from anyscheduler import Context, Scheduler, lease
from anyscheduler.clock import LAST_MICROS
from anyscheduler.lease import Change, Row
from anyscheduler.redis.connections import ERRORS
from anyscheduler.redis.keyspace import decode_row, encode_row
from anyscheduler.redis.mending import _INTERVAL_SECONDS
from anyscheduler.repository import ClaimRequest
from tests.conformance.redis_scene import LEASE, NEVER_DUE, calls, claim, due_row, insert, keys_of, opened
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer, client, start_redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyscheduler.redis.database import RedisDatabase

ROWS, KEYS, TASKS = ("{anyscheduler}:" + name for name in ("rows", "keys", "tasks"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with start_redis(tmp_path_factory.mktemp("redis"), appendonly="no") as started:
        yield started


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Any]:
    """Somebody with redis-cli; the server is empty."""
    with client(server) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def database(redis: Any, server: RedisServer) -> Iterator[RedisDatabase]:
    with opened(server.url) as database:
        claim(database, "unknown")  # the first one compares index and rows, the next a minute later
        yield database


def after_a_minute(database: RedisDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the time come for comparing index and rows."""
    at = time.monotonic() + _INTERVAL_SECONDS
    monkeypatch.setattr("anyscheduler.redis.mending.time.monotonic", lambda: at)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("a", "a:b"),
        ("a", "a}"),
        ("a", "{a}"),
        ("a", "a}:rows"),
        ("a", "a:c%p3"),
        ("a", "a:c%25p3"),
        ("a:b", "a%3Ab"),
        ("a*", "ab"),
        ("a?", "ab"),
        ("[ab]", "a"),
        ("\u00e9", "e\u0301"),
        ("A", "a"),
        ("a", "a "),
    ],
)
def test_a_namespace_inside_another_shares_nothing_with_it(
    redis: Any, server: RedisServer, outer: str, inner: str
) -> None:
    row, part = due_row("c"), due_row("c%p3:1")
    with opened(server.url, outer) as first:
        insert(first, row, part)
        of_the_first = set(redis.keys())
        with opened(server.url, inner) as second:
            assert second.tasks() == []
            assert second.read(["c", "c%p3:1"]) == {}
            assert second.page("c", "", 9) == second.page("c%p3", "", 9) == []
            assert claim(second, "c", "c%p3").rows == []
            before = {key: redis.dump(key) for key in of_the_first}
            insert(second, row, part)
            claim(second, "c", "c%p3")
            second.write([Change("c", "t1", None), Change("c%p3:1", "t1", None)])
            assert {key: redis.dump(key) for key in of_the_first} == before
        assert first.read(["c", "c%p3:1"]) == {"c": row, "c%p3:1": part}
        of_the_second = set(redis.keys()) - of_the_first
        assert of_the_second, "it has a format at least"


def test_every_key_of_a_namespace_begins_with_its_name_in_the_hash_tag(database: RedisDatabase, redis: Any) -> None:
    insert(database, due_row("a"), due_row("a:x{y}:z"), due_row("b%p12:{}"))
    names = redis.keys()
    assert {name.partition(b"}")[0] for name in names} == {b"{anyscheduler", b"{anyscheduler:b%25p12"}


def test_a_row_is_json_that_people_can_read(database: RedisDatabase, redis: Any) -> None:
    insert(database, Row("a:1", "a", 5, 7, "t0.waiting", '{"v":1}', '{"last":3}'))
    assert json.loads(redis.hget(ROWS, "a:1")) == [7, "t0.waiting", 5, '{"last":3}', '{"v":1}']


@pytest.mark.parametrize(
    "token", ["", " ", "a,b", '"', '","', "\\", "\\u0020", "]", "\u00e9\U0001f600", "\n", "\0", "%"]
)
def test_any_text_can_be_a_token(database: RedisDatabase, token: str) -> None:
    row = due_row("a", token=token)
    insert(database, row)
    assert database.read(["a"]) == {"a": row}
    assert database.write([Change("a", "x" + token, None)]) == [False]
    assert [found.token for found in claim(database, "a", token=token + "2").rows] == [token + "2"]
    assert database.write([Change("a", token, None), Change("a", token + "2", None)][:1]) == [False]
    assert database.write([Change("a", token + "2", None)]) == [True]


# --- scripts and connections ------------------------------------------------------------------------------------------


def test_a_server_that_forgot_its_scripts_is_told_them_again(database: RedisDatabase, redis: Any) -> None:
    for turn in range(3):
        redis.script_flush()
        insert(database, due_row(f"a:{turn}"))
        redis.script_flush()
        assert keys_of(claim(database, "a", token=f"t{turn}")) == [f"a:{turn}"]


def test_the_first_call_after_a_restart_finds_the_server_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    with start_redis(tmp_path_factory.mktemp("restarted")) as server, opened(server.url) as database:
        insert(database, due_row("a"))
        server.restart()
        assert keys_of(claim(database, "a")) == ["a"]
        server.restart()
        assert database.write([Change("a", "t1", None)]) == [True]


def test_a_call_without_an_answer_is_not_repeated_and_its_late_answer_taken_for_no_other(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with start_redis(tmp_path_factory.mktemp("slow")) as server, opened(server.url, timeout=0.3) as database:
        insert(database, due_row("a:1"), due_row("a:2"), due_row("b"))
        claim(database, "unknown")
        with client(server) as redis:
            redis.config_resetstat()
            server.freeze()
            with pytest.raises(ERRORS):
                claim(database, "a", limit=1, token="lost")
            server.thaw()
            assert keys_of(claim(database, "b", token="kept")) == ["b"]
            assert calls(redis)["evalsha"] == 2
        assert [database.read([key])[key].token for key in ("a:1", "a:2", "b")] == ["lost", "t0", "kept"]


def test_a_call_that_hangs_is_cut_by_another_thread(tmp_path_factory: pytest.TempPathFactory) -> None:
    with start_redis(tmp_path_factory.mktemp("frozen")) as server, opened(server.url, timeout=60.0) as database:
        failed: list[BaseException] = []

        def call() -> None:
            try:
                claim(database, "a")
            except ERRORS as error:
                failed.append(error)

        server.freeze()
        thread = threading.Thread(target=call)
        thread.start()
        while thread.is_alive():
            assert thread.ident is not None
            database.abort(thread.ident)
            thread.join(0.05)
        server.thaw()
        assert [type(error) for error in failed] == [driver.ConnectionError]
        assert claim(database, "a").rows == []


def test_aborting_a_thread_that_does_nothing_does_nothing(database: RedisDatabase) -> None:
    database.abort(threading.get_ident())
    assert claim(database, "a").rows == []


def test_a_primary_that_was_demoted_is_left_and_looked_for_again(database: RedisDatabase, redis: Any) -> None:
    insert(database, due_row("a"))
    redis.replicaof("127.0.0.1", 1)
    with pytest.raises(ERRORS, match=r"read only|READONLY"):
        claim(database, "a")
    wait_until(lambda: len(redis.client_list()) == 1, "the store has closed its own")
    redis.replicaof("NO", "ONE")
    assert keys_of(claim(database, "a")) == ["a"]


def test_connections_carry_a_name_and_are_not_more_than_allowed(redis: Any, server: RedisServer) -> None:
    with opened(server.url, max_connections=2) as database:
        threads = [threading.Thread(target=claim, args=(database, "a")) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = [entry["name"] for entry in redis.client_list() if entry["name"]]
    assert names in (["anyscheduler"], ["anyscheduler"] * 2)
    wait_until(lambda: not any(entry["name"] for entry in redis.client_list()), "the server has seen them go")


# --- the server's clock -----------------------------------------------------------------------------------------------


def test_the_servers_clock_decides_when_no_instant_is_given(database: RedisDatabase, redis: Any) -> None:
    def server_time() -> int:
        seconds, micros = redis.time()
        return int(seconds) * 1_000_000 + int(micros)

    before = server_time()
    insert(database, due_row("a", before), due_row("b", before + 3600 * 1_000_000))
    claimed = claim(database, "a", "b")
    after = server_time()

    assert keys_of(claimed) == ["a"]
    assert before <= claimed.now <= after
    assert claimed.rows[0].claimable_at == claimed.now + LEASE == claimed.next_claimable
    assert before <= database.time() <= server_time()


def test_a_clock_that_was_set_ahead_is_believed_up_to_the_given_instant(database: RedisDatabase) -> None:
    shown = database.time()
    past, later = shown - 3600 * 1_000_000, shown + 3600 * 1_000_000
    insert(database, due_row("a:1", past), due_row("a:2", past + 1), due_row("b", past))

    claimed = database.claim([ClaimRequest("a", LEASE)], 100, None, "t1", past)
    assert [(row.key, row.claimable_at) for row in claimed.rows] == [("a:1", past + LEASE)]
    assert claimed.next_claimable == past + 1
    assert claimed.now >= shown

    claimed = database.claim([ClaimRequest("b", LEASE)], 100, None, "t1", later)
    assert [row.claimable_at for row in claimed.rows] == [claimed.now + LEASE]
    assert claimed.now < later


@pytest.mark.parametrize("instant", [2**53 - 1, 2**53, 2**53 + 1, 2**57 + 7, LAST_MICROS - 1])
def test_an_instant_beyond_what_scores_can_hold_is_kept_exactly_and_never_claimed_early(
    database: RedisDatabase, instant: int
) -> None:
    row = due_row("a", instant)
    insert(database, row)
    assert database.read(["a"]) == {"a": row}
    for early in (1, 2, 16, 31, 33):
        assert claim(database, "a", now=instant - early) == ([], instant, instant - early)
    [claimed] = claim(database, "a", now=instant + 100).rows
    assert claimed == row._replace(claimable_at=instant + 100 + LEASE, token="t1")
    assert database.read(["a"]) == {"a": claimed}


# --- a damaged index --------------------------------------------------------------------------------------------------


def test_an_entry_without_its_row_is_removed_and_takes_nobodys_place(database: RedisDatabase, redis: Any) -> None:
    insert(database, *(due_row(f"a:{number:03}", number) for number in range(200)), due_row("b"))
    redis.hdel(ROWS, *(f"a:{number:03}" for number in range(150)))

    assert keys_of(claim(database, "a", "b", limit=5)) == ["a:150", "b", "a:151", "a:152", "a:153"]
    assert keys_of(claim(database, "a", limit=100)) == [f"a:{number}" for number in range(154, 200)]
    assert redis.zcard("{anyscheduler}:due:a") == 50
    assert redis.zcard(KEYS) == 51


@pytest.mark.parametrize("ghosts", [1, 2, 300])
def test_entries_without_rows_of_one_task_take_no_place_from_another(
    database: RedisDatabase, redis: Any, ghosts: int
) -> None:
    insert(database, due_row("b"), due_row("c"), *(due_row(f"d:{number}") for number in range(2)))
    redis.zadd("{anyscheduler}:due:a", {f"a:{number}": number for number in range(ghosts)})

    claimed = claim(database, "a", "b", "c", "d", limit=2)

    assert keys_of(claimed) == ["b", "c"]
    assert claimed.next_claimable == 0


def test_many_entries_without_rows_are_removed_in_several_calls(database: RedisDatabase, redis: Any) -> None:
    insert(database, *(due_row(f"a:{number:05}", number) for number in range(5_000)))
    redis.hdel(ROWS, *(f"a:{number:05}" for number in range(4_999)))

    found: list[str] = []
    for _ in range(10):
        claimed = claim(database, "a", limit=10)
        found += keys_of(claimed)
        if found:
            break
        assert claimed.next_claimable is not None
        assert claimed.next_claimable <= claimed.now, "whoever claims looks again at once"
    assert found == ["a:04999"]


def test_a_row_that_is_listed_too_early_is_not_claimed_before_its_lease_ends(
    database: RedisDatabase, redis: Any
) -> None:
    insert(database, due_row("a"))
    claimed = claim(database, "a")
    redis.zadd("{anyscheduler}:due:a", {"a": 0})

    again = claim(database, "a", token="t2")

    assert again.rows == []
    assert again.next_claimable == claimed.rows[0].claimable_at
    assert redis.zscore("{anyscheduler}:due:a", "a") == claimed.rows[0].claimable_at


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda redis: redis.delete("{anyscheduler}:due:a"), id="the order of a task was evicted"),
        pytest.param(lambda redis: redis.delete(KEYS), id="the order for listing was evicted"),
        pytest.param(lambda redis: redis.delete(TASKS), id="the list of tasks was evicted"),
        pytest.param(
            lambda redis: redis.delete(KEYS, TASKS, "{anyscheduler}:due:a", "{anyscheduler}:due:b"),
            id="all was evicted",
        ),
        pytest.param(lambda redis: redis.zrem("{anyscheduler}:due:a", "a:0007"), id="one entry is missing"),
        pytest.param(lambda redis: redis.zrem(KEYS, "a:0007"), id="one entry is missing for listing"),
        pytest.param(lambda redis: redis.zadd("{anyscheduler}:due:a", {"a:gone": NEVER_DUE}), id="one is too much"),
        pytest.param(lambda redis: redis.zadd(KEYS, {"a:gone": 0}), id="one is too much for listing"),
        pytest.param(lambda redis: redis.zadd("{anyscheduler}:due:a", {"b": 0}), id="one is that of another task"),
    ],
)
@pytest.mark.parametrize("reopened", [True, False], ids=["found when it is opened", "found while it runs"])
def test_an_index_that_was_damaged_is_made_anew(  # noqa: PLR0917  # fixtures, and two parameters
    database: RedisDatabase,
    redis: Any,
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Any], object],
    reopened: bool,
) -> None:
    rows = [due_row(f"a:{number:04}", number) for number in range(1_200)]
    insert(database, *rows, due_row("b"))
    damage(redis)

    if reopened:
        with opened(server.url) as again:
            claimed = claim(again, "a", "b", limit=2_000)
    else:
        after_a_minute(database, monkeypatch)
        claimed = claim(database, "a", "b", limit=2_000)

    assert sorted(keys_of(claimed)) == sorted(row.key for row in [*rows, due_row("b")])
    assert sorted(database.tasks()) == ["a", "b"]
    assert [row.key for row in database.page("a", "", 2_000)] == [row.key for row in rows]
    assert redis.zcard(KEYS) == redis.hlen(ROWS) == 1_201
    assert redis.zcard("{anyscheduler}:due:a") == 1_200
    [warning] = caplog.records
    assert "the index in Redis did not agree with the rows" in warning.message


def test_an_index_in_order_is_compared_without_being_read(
    database: RedisDatabase, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(database, *(due_row(f"a:{number}", NEVER_DUE) for number in range(100)))
    after_a_minute(database, monkeypatch)
    redis.config_resetstat()
    claim(database, "a")
    counted = calls(redis)
    assert counted["evalsha"] == 2
    assert not counted.keys() & {"hscan", "zscan", "hgetall"}


def test_mending_a_large_index_goes_in_steps_between_claims(
    database: RedisDatabase, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(database, due_row("b"), *(due_row(f"a:{number}") for number in range(5_000)))
    redis.delete("{anyscheduler}:due:a")
    seconds = iter(range(1_000, 10_000_000, 10))  # each look at the clock is ten seconds later
    monkeypatch.setattr("anyscheduler.redis.mending.time.monotonic", lambda: time.time() + next(seconds))

    assert keys_of(claim(database, "a", "b", limit=1)) != []
    assert 0 < redis.zcard("{anyscheduler}:due:a") < 5_000
    for _ in range(100):
        claim(database, "b")
    assert redis.zcard("{anyscheduler}:due:a") == 5_000


@pytest.mark.parametrize("name", ["{anyscheduler}:due:a", KEYS, TASKS])
def test_a_key_of_the_index_that_holds_something_else_holds_up_no_other_task_and_is_made_anew(
    database: RedisDatabase, redis: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    insert(database, due_row("a:1"), due_row("b:1"))
    redis.set(name, "something else")

    assert keys_of(claim(database, "a", "b")) == (["b:1"] if name.endswith("a") else ["a:1", "b:1"])
    changes = [Change(key, None, due_row(key)) for key in ("a:2", "b:2")]
    assert database.write([*changes, Change("b:1", "t1", None)]) == [True] * 3
    assert "b:2" in keys_of(claim(database, "a", "b", token="t2"))

    after_a_minute(database, monkeypatch)
    claim(database, "a", "b", limit=0)
    assert sorted(database.tasks()) == ["a", "b"]
    assert [row.key for task in "ab" for row in database.page(task, "", 9)] == ["a:1", "a:2", "b:2"]
    assert sorted(keys_of(claim(database, "a", "b", now=NEVER_DUE))) == ["a:1", "a:2", "b:2"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["{anyscheduler}:due:a", KEYS, TASKS])
def test_a_namespace_with_something_else_in_its_index_can_be_opened(
    database: RedisDatabase, redis: Any, server: RedisServer, name: str
) -> None:
    insert(database, due_row("a:1"), due_row("b:1"))
    redis.set(name, "something else")
    with opened(server.url) as again:
        assert sorted(keys_of(claim(again, "a", "b"))) == ["a:1", "b:1"]
        assert sorted(again.tasks()) == ["a", "b"]


def test_a_right_that_the_index_needs_is_missed_aloud(database: RedisDatabase, redis: Any) -> None:
    insert(database, due_row("a"))
    redis.execute_command("ACL", "SETUSER", "default", "-zadd")
    try:
        with pytest.raises(ERRORS, match=r"no permissions|can't run this command"):
            insert(database, due_row("b"))
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "+zadd")


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300", "-1e300"])
@pytest.mark.parametrize("key", ["a:row", "a:damaged", "a:ghost"])
def test_a_score_that_is_no_instant_is_never_when_to_look_again_and_is_corrected(
    database: RedisDatabase, redis: Any, monkeypatch: pytest.MonkeyPatch, key: str, score: str
) -> None:
    if key != "a:ghost":
        insert(database, due_row(key, NEVER_DUE))
    if key == "a:damaged":
        redis.hset(ROWS, key, "nothing")
    redis.zadd("{anyscheduler}:due:a", {key: score})

    seen = claim(database, "a", limit=0).next_claimable
    assert seen is None if score[0] != "-" else seen is not None and -(10**19) <= seen < 0

    after_a_minute(database, monkeypatch)
    claimed = claim(database, "a")
    assert keys_of(claimed) == (["a:damaged"] if key == "a:damaged" else [])
    assert (
        claimed.next_claimable
        == {
            "a:row": NEVER_DUE,
            "a:damaged": claimed.now + LEASE,
            "a:ghost": None,
        }[key]
    )


# --- a damaged row ----------------------------------------------------------------------------------------------------

DAMAGED = [
    b"",
    b"nothing",
    b"null",
    b"{}",
    b"[]",
    b'[5,"t0"',
    b'[5,"t0",5,"","{}"',
    b'[5,"t0",5,""]',
    b'[5,"t0",5,"","{}","more"]',
    b'[5,"t0","5","",""]',
    b'[true,"t0",5,"",""]',
    b'[5.5,"t0",5,"",""]',
    b'["5","t0",5,"",""]',
    b'[5,5,5,"",""]',
    b'[5,"t,0",5,"",""] trailing',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b"[" + b"9" * 5_000 + b',"t0",5,"",""]',
    b'","',
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_what_is_no_row_comes_out_as_a_damaged_one_and_can_be_put_aside(
    database: RedisDatabase, redis: Any, text: bytes
) -> None:
    insert(database, due_row("a:1"), due_row("a:2"), due_row("a:3", 7))
    redis.hset(ROWS, "a:2", text)
    assert set(database.read(["a:1", "a:2", "a:3"])) == {"a:1", "a:2", "a:3"}
    assert [row.key for row in database.page("a", "", 9)] == ["a:1", "a:2", "a:3"]

    claimed = claim(database, "a")

    assert keys_of(claimed) == ["a:1", "a:2", "a:3"]
    damaged = claimed.rows[1]
    with pytest.raises(ValueError, match=r".+"):
        lease.decode_state(damaged.state)
    assert damaged.token == "t1"
    assert database.write([lease.release(damaged, claimed.now + 60_000_000, "t2")]) == [True]
    assert claim(database, "a", token="t3").rows == []
    again = claim(database, "a", now=claimed.now + 60_000_001, token="t4").rows[1]
    assert (again.key, again.token) == ("a:2", "t4")
    with pytest.raises(ValueError, match=r".+"):
        lease.decode_state(again.state)
    assert redis.hexists(ROWS, "a:2")


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_what_is_no_row_can_be_removed_by_whoever_wants_to(database: RedisDatabase, redis: Any, text: bytes) -> None:
    insert(database, due_row("a"))
    redis.hset(ROWS, "a", text)
    [claimed] = claim(database, "a").rows
    assert database.write([Change("a", claimed.token, None)]) == [True]
    assert database.tasks() == []
    assert redis.keys("*due*") == []


@pytest.mark.parametrize("token", [b"", b"\xff", b"a,b", b"\\", b"]"])
def test_a_row_with_a_damaged_token_is_as_good_as_new_once_it_is_claimed(
    database: RedisDatabase, redis: Any, token: bytes
) -> None:
    insert(database, due_row("a"))
    redis.hset(ROWS, "a", b'[5,"%b",5,"{}","[]"]' % token)
    assert list(database.read(["a"])) == ["a"]
    claimed = claim(database, "a")
    assert claimed.rows == [Row("a", "a", 5, claimed.now + LEASE, "t1", "[]", "{}")]
    assert database.read(["a"]) == {"a": claimed.rows[0]}


def test_a_key_that_is_no_utf_8_holds_up_no_other_one(database: RedisDatabase, redis: Any) -> None:
    insert(database, due_row("a:1"), due_row("a:3"))
    redis.hset(ROWS, b"a:2\xff", b"nothing")
    redis.zadd(KEYS, {b"a:2\xff": 0})
    redis.zadd("{anyscheduler}:due:a", {b"a:2\xff": 0})

    claimed = claim(database, "a")

    assert len(claimed.rows) == 3
    assert [row.key for row in database.page("a", "", 9)] == keys_of(claimed)
    assert [row.key for row in database.page("a", claimed.rows[1].key, 9)] == ["a:3"]
    assert all(database.write([Change(row.key, "t1", None) for row in claimed.rows]))
    assert redis.keys("*:due:*") == []


@pytest.mark.parametrize(
    "row", [Row("a", "a", -5, 7, "", "\ud800", "\x00\x7f"), Row("a", "a", 0, 1 - 10**19, "t", "", "")]
)
def test_a_row_comes_back_as_it_was_written(row: Row) -> None:
    assert decode_row("a", encode_row(row).encode()) == row


@pytest.mark.parametrize(
    "text",
    [
        b'[5, "t0", 5, "", "{}"]',
        b'[ 5,"t0",5,"","{}"]',
        b' [5,"t0",5,"","{}"]',
        b'[5,"t\\u0030",5,"","{}"]',
        b'[5,"t\\u00e9\\u0030",5,"","{}"]',
        b'[5,"t\\u00E9",5,"","{}"]',
        b'[5,"\xc3\xa9",5,"","{}"]',
        b'[5,"\\n",5,"","{}"]',
        b'[5,"t0" ,5,"","{}"]',
        b'[10000000000000000000,"t0",5,"","{}"]',
        b'[-10000000000000000000,"t0",5,"","{}"]',
        b'[0005,"t0",5,"","{}"]',
        b'[5e0,"t0",5,"","{}"]',
        b'[5,"t0",50000000000000000000,"","{}"]',
        b'[5,"t0", 5 ,"","{}"]',
        b'[5,"\\u00e9\\ud83d\\ude00",5,"","{}"]',
        *DAMAGED,
    ],
)
def test_whoever_reads_a_row_can_replace_it_however_it_was_written(
    database: RedisDatabase, redis: Any, text: bytes
) -> None:
    insert(database, due_row("a"))
    redis.hset(ROWS, "a", text)
    found = database.read(["a"])["a"]
    assert database.write([Change("a", found.token + "x", None)]) == [False]
    assert database.write([Change("a", found.token, found._replace(claimable_at=7, token="t1"))]) == [True]
    assert database.write([Change("a", "t1", None)]) == [True]


@pytest.mark.parametrize("claimable_at", [10**19 - 1, 1 - 10**19])
def test_a_row_with_the_last_instant_there_is_can_be_replaced(database: RedisDatabase, claimable_at: int) -> None:
    row = due_row("a", claimable_at)
    insert(database, row)
    assert database.read(["a"]) == {"a": row}
    assert database.write([Change("a", "t0", None)]) == [True]


# --- costs ------------------------------------------------------------------------------------------------------------


def test_a_poll_costs_the_same_whatever_waits_and_however_much_is_due(database: RedisDatabase, redis: Any) -> None:
    def cost(count: int, due_at: int, *tasks: str) -> dict[str, int]:
        redis.flushdb()
        insert(database, *(due_row(f"a:{number}", due_at) for number in range(count)), due_row("b", due_at))
        redis.config_resetstat()
        claimed = claim(database, *tasks, limit=50)
        assert len(claimed.rows) == (0 if due_at == NEVER_DUE else 50)
        found = calls(redis)
        del found["config|resetstat" if "config|resetstat" in found else "config"]
        return found

    assert cost(100_000, NEVER_DUE, "a", "b") == cost(100, NEVER_DUE, "a", "b")
    assert cost(100_000, 0, "a", "b") == cost(100, 0, "a", "b")
    few = cost(100_000, 0, "a", "b")
    assert few["evalsha"] == 1
    assert sum(few.values()) < 20


def test_a_batch_is_written_in_a_handful_of_commands(database: RedisDatabase, redis: Any) -> None:
    rows = [due_row(f"a:{number}") for number in range(500)]
    redis.config_resetstat()
    insert(database, *rows)
    assert database.write([lease.commit(row, NEVER_DUE, "t1") for row in rows]) == [True] * 500
    assert sum(calls(redis).values()) < 20


# --- announcements ----------------------------------------------------------------------------------------------------


def test_what_one_process_announces_another_one_hears(database: RedisDatabase, server: RedisServer, redis: Any) -> None:
    with opened(server.url) as other, opened(server.url, "another") as stranger:
        listener, foreign = other.listener(), stranger.listener()
        assert listener is not None
        assert foreign is not None
        with closing(listener), closing(foreign):
            assert listener.drain() == []
            insert(database, due_row("a:0"))  # not announced
            changes = [Change(f"a:{at}", None, due_row(f"a:{at}", at)) for at in (30, 20, 40)]
            database.write([*changes, Change("a:0", "wrong", due_row("a:0", 5))], announce=True)
            database.write([Change("a:30", "wrong", None), Change("a:40", "t0", None)], announce=True)
            database.write([Change("b", None, due_row("b", 2**60 + 1))], announce=True)
            redis.publish("{anyscheduler}:claimable", "nonsense")
            database.write([Change("c", None, due_row("c", -7))], announce=True)
            heard: list[int] = []
            while len(heard) < 3:
                assert select.select([listener], [], [], 10)[0]
                heard += listener.drain()
            assert heard == [20, 2**60 + 1, -7]
            assert foreign.drain() == []


def test_a_listener_that_was_cut_off_raises_what_its_store_declares(database: RedisDatabase, redis: Any) -> None:
    listener = database.listener()
    assert listener is not None
    with closing(listener):
        redis.client_kill_filter(_type="pubsub")
        assert select.select([listener], [], [], 10)[0]
        with pytest.raises(database.errors):
            listener.drain()


# --- partitions on one server -----------------------------------------------------------------------------------------


def test_partitions_and_other_tasks_are_claimed_and_written_in_one_call_each(
    database: RedisDatabase, redis: Any
) -> None:
    rows = [due_row(f"a%p{number}:x", number) for number in range(20)] + [due_row("b", 3)]
    insert(database, *rows)
    redis.config_resetstat()

    claimed = database.claim([ClaimRequest(row.task, LEASE) for row in rows], 100, 1_000, "t1")
    assert keys_of(claimed) == [row.key for row in rows]
    assert database.write([Change(row.key, "t1", None) for row in claimed.rows[:5]]) == [True] * 5
    assert calls(redis)["evalsha"] == 2
    assert sorted(database.tasks()) == sorted({row.task for row in rows[5:]})
    assert [row.key for row in database.page("a%p7", "", 9)] == ["a%p7:x"]


def test_partitions_are_found_again_when_the_list_of_them_was_evicted(
    database: RedisDatabase, redis: Any, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(database, due_row("a%p1:x", NEVER_DUE))
    redis.delete("{anyscheduler}:shards")
    after_a_minute(database, monkeypatch)
    claim(database, "a%p1")
    with opened(server.url) as other:
        assert other.tasks() == ["a%p1"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_row_of_another_task_where_the_limit_stops_a_claim_is_its_own_affair(
    server: RedisServer, redis: Any, backend: str
) -> None:
    app = Scheduler(redis_url=server.url, batch_size=10, concurrency_limit=10)
    executed: list[str] = []

    @app.dynamic_task(lease_duration=timedelta(minutes=5))
    async def a(context: Context) -> None:
        executed.append(context.task.name)
        if len(executed) == 25:
            context.app_context.shutdown()

    async def main() -> None:
        async with app.create() as app_context, anyio.create_task_group() as group:
            await group.start(app_context.run)
            first = datetime.now(UTC) + timedelta(seconds=0.5)
            for number in range(25):
                at = first if number < 9 else first + timedelta(microseconds=2)
                await app_context.schedule_task(a, f"{number:02}", execute_at=at)
            redis.hset(ROWS, "b:x", redis.hget(ROWS, "a:09"))
            redis.zadd("{anyscheduler}:due:a", {"b:x": redis.zscore("{anyscheduler}:due:a", "a:08") + 1})

    async def limited() -> None:
        with anyio.fail_after(30):
            await main()

    anyio.run(limited, backend=backend)

    assert sorted(executed) == [f"{number:02}" for number in range(25)]

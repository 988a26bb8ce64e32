"""Rows in a store that nobody should have put there: set aside, reported, listed, never deleted; on every store.

What becomes of such a row over minutes is told in virtual time by `loop/test_corrupt_rows.py`.
"""

from __future__ import annotations

import json
import math
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from anyscheduler import Context, Scheduler
from anyscheduler.lease import Change, Row, decode_state
from anyscheduler.spec import load_spec
from tests.bad_inputs.refusals import body, label
from tests.conformance.stores import STORES, Store, insert, stored_rows
from tests.loop.damage import GOOD, HUGE, SPECS, STATES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyscheduler.repository import Repository

PAST = 1_000_000

ENDLESS = 10**30
BAD_TRIGGERS: dict[str, tuple[Any, ...]] = {
    "interval": (0, -1, 999, 1.5, "5", None, True, [], {}, ENDLESS, -ENDLESS, 2**63, 36_525 * 86_400_000_000 + 1),
    "execute_at": (1.5, "5", None, True, False, [], {}, ENDLESS, -ENDLESS, 2**63, -(2**63)),
    "schedule": (5, None, [], {}, True, "", "* * * *", "61 * * * *", "0 0 31 2 *", "R * * * *", "* " * 200),
}
BAD_TIMEZONES: tuple[Any, ...] = (
    5,
    True,
    [],
    {},
    "",
    "Mars/Base",
    "/etc/passwd",
    "UTC+25",
    "x" * 300,
    "\0",
    "\ud800",
)
BAD_OPTIONS: dict[str, tuple[Any, ...]] = {
    "lease_duration": (0, -1, 1.5, "60", None, True, [], ENDLESS, -ENDLESS, 2**63),
    "failure_mode": (0, None, "", "UNLOCK", "retry", ["none"], {}, True),
    "execution_mode": (0, None, "", "twice", ["at_most_once"], {}, True),
    "heartbeat": (0, 1, None, "true", [], {}),
    "fast_forward": (0, 1, None, "true", [], {}),
    "args": (0, None, "", [], "{}", True, [["a", 1]]),
}
BAD_SPECS = {
    **SPECS,
    **{
        f"{option}={value!r}"[:60]: json.dumps({"v": 1, option: value})
        for option, values in BAD_TRIGGERS.items()
        for value in values
    },
    **{
        f"timezone={value!r}"[:60]: json.dumps({"v": 1, "schedule": "* * * * *", "timezone": value})
        for value in BAD_TIMEZONES
    },
    **{
        f"{option}={value!r}"[:60]: json.dumps({"v": 1, "interval": 5_000_000, option: value})
        for option, values in BAD_OPTIONS.items()
        for value in values
    },
    **{
        f"version {version}": json.dumps({"v": version, "interval": 5_000_000})
        for version in (0, 2, 1.0, 1.5, True, "1", None, [1], {"v": 1}, math.nan, ENDLESS)
    },
    "two versions": '{"v":1,"v":2,"interval":5000000}',
    "an interval of 5.0": '{"v":1,"interval":5000000.0}',
    "an interval of 5e6": '{"v":1,"interval":5e6}',
    "an interval of NaN": '{"v":1,"interval":NaN}',
    "an endless interval": '{"v":1,"interval":' + "9" * 5_000 + "}",
    "an instant of 1e15": '{"v":1,"execute_at":1e15}',
    "an instant of infinity": '{"v":1,"execute_at":Infinity}',
    "interval and instant": '{"v":1,"interval":5000000,"execute_at":5}',
    "cron and interval": '{"v":1,"interval":5000000,"schedule":"* * * * *"}',
    "an endless cron": '{"v":1,"schedule":"' + "*" * 300 + '"}',
    "a cron of an emoji": '{"v":1,"schedule":"* * * * \U0001f600"}',
    "a zone above": '{"v":1,"schedule":"* * * * *","timezone":"../../etc/passwd"}',
    "a lease of a year too much": '{"v":1,"interval":5000000,"lease_duration":99999999999999}',
    "a number": "5",
    "a text": '"v"',
    "a byte order mark": "\ufeff" + GOOD,
    "something behind": GOOD + " x",
    "two objects": GOOD + GOOD,
    "single quotes": GOOD.replace('"', "'"),
    "YAML": "v: 1\ninterval: 5000000",
    "XML": "<spec/>",
    "a pickle": "\u20ac\x04\u2022\x11.",
    "an endless blank": " " * 100_000,
    "half an escape": '{"v":1,"interval":5000000,"args":{"a":"\\ud8',
    "deep arguments": '{"v":1,"interval":5000000,"args":{"a":' + "[" * 100_000 + "]" * 100_000 + "}}",
}
BAD_STATES = {
    **STATES,
    "null": "null",
    "a number": "5",
    "an instant of 1.0": '{"last":1.0}',
    "an instant of true": '{"last":true}',
    "an instant of NaN": '{"last":NaN}',
    "an instant of null": '{"last":null}',
    "an absurd instant": '{"last":' + str(HUGE) + "}",
    "an endless instant": '{"last":' + "9" * 5_000 + "}",
    "a fingerprint of null": '{"fingerprint":null}',
    "a list of fingerprints": '{"fingerprint":["x"]}',
    "two instants": '{"last":1,"last":"x"}',
    "cut off": '{"last":1',
    "something behind": "{} {}",
    "an emoji": "\U0001f600",
}
BAD_INSTANTS = (-HUGE, -(10**17), 10**18, HUGE)


# --- read by themselves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", BAD_SPECS.values(), ids=BAD_SPECS)
def test_a_bad_spec_is_a_value_error_and_nothing_else(text: str) -> None:
    task = Scheduler().dynamic_task()(body)
    with pytest.raises(ValueError, match=r"."):
        load_spec(task, "body:x", text)


def test_a_spec_of_bytes_is_a_value_error_as_well() -> None:
    task = Scheduler().dynamic_task()(body)
    with pytest.raises(ValueError, match="it is not text"):
        load_spec(task, "body:x", b"\xff\xfe")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", BAD_STATES.values(), ids=BAD_STATES)
def test_a_bad_state_is_a_value_error_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_state(text)


# --- in a store, under a running app ----------------------------------------------------------------------------------


class Scene:
    """A place in a store, an app that runs on it, and what it ran."""

    def __init__(self, store: Store, directory: Path) -> None:
        self.place = store.new_place(directory)
        self.repository: Repository | None = None
        # One repository for the app and for whoever smuggles: what is in memory is nobody else's.
        self.app = Scheduler(repository_factory=self._same, poll_interval=timedelta(milliseconds=50))
        self.ran: list[str] = []

        @self.app.dynamic_task(name="task")
        async def task(context: Context) -> None:
            self.ran.append(context.task.name)

        @self.app.task(name="static", interval=timedelta(milliseconds=100))
        async def static(context: Context) -> None:
            self.ran.append("static")

        self.task = task
        self.static = static

    @asynccontextmanager
    async def opened(self, *rows: Row) -> AsyncIterator[Repository]:
        async with self.place() as self.repository:
            for row in rows:
                await insert(self.repository, row)
            yield self.repository

    @asynccontextmanager
    async def _same(self) -> AsyncIterator[Repository]:
        assert self.repository is not None
        yield self.repository

    async def run_until(self, runs: int, *names: str) -> None:
        """Runs the app until the static task ran so often, and the named instances have run."""
        async with self.app.create() as app_context, anyio.create_task_group() as group:
            group.start_soon(app_context.run)
            with anyio.fail_after(30):
                while self.ran.count("static") < runs or not set(names) <= set(self.ran):
                    await anyio.sleep(0.01)
            app_context.shutdown()


@pytest.fixture(params=STORES, ids=lambda store: store.name)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    return Scene(request.param, tmp_path)


def smuggled(name: str, spec: str = GOOD, state: str = "", due_at: int = PAST) -> Row:
    return Row(f"task:{name}", "task", due_at, min(due_at, PAST), "0", spec, state)


def contents(rows: list[Row]) -> dict[str, tuple[int, str, str]]:
    """Returns what a claim and a release leave as it is."""
    return {row.key: (row.due_at, row.spec, row.state) for row in rows}


@pytest.mark.anyio
async def test_bad_rows_are_set_aside_reported_listed_and_never_deleted_on_every_store(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [
        *(smuggled(f"spec {name}", spec=spec) for name, spec in BAD_SPECS.items()),
        *(smuggled(f"state {name}", state=state) for name, state in BAD_STATES.items()),
        *(smuggled(f"due {at}", due_at=at) for at in BAD_INSTANTS),
        Row("task", "task", PAST, PAST, "0", "", ""),  # as of a static task
        Row("static:x", "static", PAST, PAST, "0", GOOD, ""),  # an instance of what is static now
    ]
    good = smuggled("good", spec='{"v":1,"execute_at":5}')
    async with scene.opened(*bad, good) as repository:
        await scene.run_until(5, "good")
        rows = await stored_rows(repository, "task", "static")
        async with scene.app.create() as app_context:
            page = await app_context.list_tasks(scene.task, 1_000)
            for state in page.tasks:
                await app_context.get_task(scene.task, state.task.name)
    assert set(scene.ran) == {"static", "good"}
    assert contents([row for row in rows if row.key != "static"]) == contents(bad)
    assert [state.task.name for state in page.tasks if state.error is None] == []
    assert len(page.tasks) == len(bad) - 1
    reported = [record.getMessage() for record in caplog.records if "set aside for a minute" in record.getMessage()]
    assert len(reported) == len(bad)
    assert all(line.isprintable() for line in reported)


@pytest.mark.anyio
async def test_rows_of_a_newer_version_or_of_an_unknown_task_are_left_as_they_are_on_every_store(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    others = [
        Row(f"{task}:x", task, PAST, PAST, "0", spec, state)
        for task, spec, state in (
            ("task@2", '{"v":2}', ""),
            ("gone", GOOD, ""),
            ("Task", GOOD, ""),
            ("task ", "{", "{"),
            ("task%p0", GOOD, ""),
            ("\U0001f600", "\u05d0", "\u202e"),
        )
    ]
    async with scene.opened(*others) as repository:
        await scene.run_until(3)
        assert sorted(await stored_rows(repository, *(row.task for row in others))) == sorted(others)
    warned = [record.getMessage() for record in caplog.records if "does not define" in record.getMessage()]
    assert len(warned) == 1
    assert all(name in warned[0] for name in ("task@2", "gone", "task%p0"))
    assert warned[0].isprintable()


@pytest.mark.anyio
async def test_bad_rows_of_static_tasks_keep_no_app_from_starting_on_every_store(scene: Scene) -> None:
    for name in BAD_STATES:

        @scene.app.task(name=name, interval=timedelta(milliseconds=50))
        async def damaged(context: Context) -> None:
            scene.ran.append("damaged")

    bad = [Row(name, name, PAST, PAST, "0", "", state) for name, state in BAD_STATES.items()]
    async with scene.opened(*bad) as repository:
        await scene.run_until(3)
        assert contents(await stored_rows(repository, *BAD_STATES)) == contents(bad)
    assert set(scene.ran) == {"static"}


@pytest.mark.anyio
async def test_registering_anew_heals_a_bad_row_and_unscheduling_removes_it_on_every_store(scene: Scene) -> None:
    bad = [smuggled(f"spec {name}", spec=spec) for name, spec in BAD_SPECS.items()]
    bad += [smuggled(f"state {name}", state=state) for name, state in BAD_STATES.items()]
    async with scene.opened(*bad) as repository, scene.app.create() as app_context:
        for row in bad:
            await app_context.schedule_task(scene.task, row.key.partition(":")[2], schedule="@daily")
        healed = (await app_context.list_tasks(scene.task, 1_000)).tasks
        assert [state.error for state in healed] == [None] * len(bad)
        stored = await stored_rows(repository, "task")
        spoilt = [row._replace(spec="{", state="{") for row in stored]
        assert all(await repository.write([Change(row.key, row.token, row) for row in spoilt]))
        for row in bad:
            await app_context.unschedule_task(scene.task, row.key.partition(":")[2])
        assert await stored_rows(repository, "task") == []


@pytest.mark.parametrize("hostile", ["func", "body", "task", "name", "__class__", "py/object", "$type", "!!python"])
def test_nothing_in_a_row_selects_code(hostile: str) -> None:
    task = Scheduler().dynamic_task()(body)
    spec = json.dumps({"v": 1, "interval": 5_000_000, hostile: "os.system"})
    loaded: Any = load_spec(task, "body:x", spec)
    assert (loaded.func, loaded.name, loaded.extra_args) == (body, "x", {}), label(hostile)

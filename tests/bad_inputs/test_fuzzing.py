"""Text that nobody thought of: on the command line, as crons, as time zones, in stored rows.

The default run takes a few hundred examples, always the same ones. `ANYSCHEDULER_FUZZ_EXAMPLES` is another number of
them, drawn anew each time, for which a test may need more than the usual five minutes:

    ANYSCHEDULER_FUZZ_EXAMPLES=20000 pytest -o faulthandler_timeout=0 tests/bad_inputs/test_fuzzing.py
"""

from __future__ import annotations

import json
import os
import sys
import time
import zoneinfo
from contextlib import suppress
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from anyscheduler import ConfigurationError, FailureMode, Scheduler
from anyscheduler.cli import main
from anyscheduler.clock import LAST_MICROS
from anyscheduler.lease import Row, decode_state
from anyscheduler.spec import dump_spec, load_spec
from anyscheduler.testing import run_virtual
from anyscheduler.trigger import cron, first_due, next_due
from anyscheduler.zones import offset_at, resolve
from tests.bad_inputs.refusals import body
from tests.conformance.stores import insert
from tests.loop.damage import Scene
from tests.loop.scene import Backend, micros, running

_WANTED: Final = int(os.environ.get("ANYSCHEDULER_FUZZ_EXAMPLES", "0"))


def fuzzed(examples: int) -> settings:
    """Returns how much to try: so many examples by default."""
    return settings(
        max_examples=_WANTED or examples,
        derandomize=not _WANTED,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# --- crons ------------------------------------------------------------------------------------------------------------

FIELD_CHARACTERS = "0123456789*/-,#lLwWhHrR?() @"
fields = st.one_of(
    st.sampled_from(
        ["*", "0", "?", "*/7", "1-5", "5-1", "L", "15W", "mon#2", "L5", "H", "H/3", "H(1-3)", "jan", "2099"]
    ),
    st.integers(-1, 100).map(str),
    st.builds("{}-{}/{}".format, st.integers(0, 60), st.integers(0, 60), st.integers(0, 61)),
    st.lists(st.integers(0, 60).map(str), min_size=1, max_size=4).map(",".join),
    st.text(FIELD_CHARACTERS, min_size=1, max_size=6),
)
crons = st.one_of(
    st.lists(fields, min_size=4, max_size=8).map(" ".join),
    st.text(FIELD_CHARACTERS + "monfebsu", max_size=40),
    st.text(max_size=40),
)
instants = st.integers(0, LAST_MICROS)


@given(crons, instants, st.sampled_from([None, "Europe/Dublin", "Australia/Lord_Howe", "UTC+12"]))
@fuzzed(400)
def test_any_text_is_refused_or_is_a_cron_that_goes_on_strictly_in_bounds_and_soon(
    text: str, start: int, zone: str | None
) -> None:
    started = time.perf_counter()
    try:
        trigger = cron(text, zone, "task")
    except ConfigurationError as error:
        told = str(error)
    else:
        told = ""
        before, due = start, first_due(trigger, start)
        for _ in range(5):
            if due is None:
                break
            assert before < due <= LAST_MICROS
            assert due % 1_000_000 == 0
            before, due = due, next_due(trigger, due, due, fast_forward=False)
    assert told.isprintable()
    assert time.perf_counter() - started < 5


# --- time zones -------------------------------------------------------------------------------------------------------

real_names = st.sampled_from(sorted(zoneinfo.available_timezones()))
after_the_hours = ["", ":30", ":60", "30", ".5", "EDT", "EDT4", "EDT,M3.2.0,M11.1.0", "EDT,J60,J300/3", "EDT,0,365",
                   "EDT,M3.5.6/30,M10.5.0/-1"]  # fmt: skip
offsets = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["UTC", "GMT", "EST", "a", ""]),
    st.sampled_from(["+", "-", ""]),
    st.integers(0, 30),
    st.sampled_from(after_the_hours),
)
mutated = st.builds(
    lambda name, at, text: name[: at % (len(name) + 1)] + text + name[at % (len(name) + 1) + len(text) // 2 :],
    st.one_of(real_names, offsets),
    st.integers(0, 40),
    st.text("../\\:%~ 0123456789+-,MJ\0\n", min_size=1, max_size=3) | st.text(min_size=1, max_size=2),
)
parts = ["..", ".", "/", "etc", "passwd", "localtime", "Europe", "Dublin", "\0", ":", "dev", "x1"]
paths = st.lists(st.sampled_from(parts), min_size=1, max_size=6).map("/".join)
zones = st.one_of(offsets, mutated, paths, st.text(max_size=30), st.text("UTCGMESD0123456789+-:,./MJ", max_size=20))

_opened: list[str] | None = None


def _note_files(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


@pytest.fixture(scope="module")
def watched() -> None:
    """Every file that is opened from now on is noted; what was hooked on cannot be taken off."""
    sys.addaudithook(_note_files)
    for name in ("Europe/Dublin", "UTC+5", "No/Zone"):  # loads the modules that are needed
        with suppress(ConfigurationError):
            resolve(name)


@given(zones)
@example("localtime")
@fuzzed(500)
@pytest.mark.usefixtures("watched")
def test_any_text_is_refused_or_is_a_zone_and_no_file_outside_of_the_zone_data_is_opened(name: str) -> None:
    global _opened  # noqa: PLW0603  # the hook stays for good, and has nowhere else to look
    _opened = []
    zone: tzinfo | None = None
    told = ""
    try:
        zone = resolve(name)
    except ConfigurationError as error:
        told = str(error)
    finally:
        opened, _opened = _opened, None
    assert told.isprintable()
    if zone is not None:
        for second in (-(2**40), 0, 1_700_000_000, 2**40):
            assert abs(offset_at(zone, second)) < 86_400
    data = (*zoneinfo.TZPATH, str(Path(zoneinfo.__file__).parent), "tzdata")
    assert [path for path in opened if not any(place in path for place in data)] == []
    assert [path for path in opened if ".." in path] == []


# --- the command line -------------------------------------------------------------------------------------------------

known = ["run", "--help", "-h", "--version", "--", "--backend", "trio", "asyncio", "--backend=trio", "--uvloop",
         "--verbose", "--log-level", "DEBUG", "--shutdown-timeout", "--shutdown-timeout=1", "5", "nan", "program:app",
         "program:number", "program", "program.py:app", "broken:app", "lazy:app", "\0", ""]  # fmt: skip
options = st.sampled_from(["backend", "log-level", "shutdown-timeout", "verbose"])
arguments = st.one_of(
    st.sampled_from(known),
    st.text("-=:./ab\0\n\u202e", max_size=12),
    st.text(max_size=12),
    st.builds("{}:{}".format, st.text(max_size=8), st.text(max_size=8)),
    st.builds("--{}={}".format, options, st.text(max_size=8)),
)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with programs; the app among them ends at once."""
    (tmp_path / "program.py").write_text(
        "from anyscheduler import Scheduler\nnumber = 5\n"
        "class App(Scheduler):\n"
        "    def create(self): raise OSError('not today')\n"
        "app = App()\n",
        encoding="utf-8",
    )
    (tmp_path / "broken.py").write_text("1 / 0", encoding="utf-8")
    (tmp_path / "lazy.py").write_text("def __getattr__(name): raise ValueError(name)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr("anyscheduler.runner.configure_logging", lambda _level: None)


@given(st.lists(arguments, max_size=6) | st.lists(arguments, max_size=4).map(lambda more: ["run", *more]))
@fuzzed(300)
@pytest.mark.usefixtures("modules")
def test_any_command_line_ends_with_an_exit_code_and_without_a_traceback(command: list[str]) -> None:
    path = [*sys.path]
    result = CliRunner().invoke(main, command)
    sys.path[:] = path
    assert isinstance(result.exception, SystemExit | None)
    assert result.exit_code in {0, 1, 2}
    assert "--verbose" in command or "Traceback" not in result.output


# --- stored rows ------------------------------------------------------------------------------------------------------

numbers = st.integers() | st.sampled_from([0, -1, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30]) | st.floats()
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=4), values, max_size=3),
    max_leaves=5,
)
OPTIONS = (
    "schedule",
    "timezone",
    "fast_forward",
    "failure_mode",
    "execution_mode",
    "lease_duration",
    "heartbeat",
    "args",
    "v",
)
good_parts = st.sampled_from(
    ({"v": 1}, {"v": 1, "interval": 5_000_000}, {"v": 1, "execute_at": 5}, {"v": 1, "schedule": "0 12 * * *"})
)
objects = st.builds(
    lambda damage, good: {**damage, **good},
    st.fixed_dictionaries({}, optional=dict.fromkeys((*OPTIONS, "interval", "execute_at"), json_values)),
    good_parts,
)
cut = st.builds(
    lambda text, start, end: text[start : len(text) - end],
    objects.map(json.dumps),
    st.integers(0, 9),
    st.integers(0, 9),
)
doubled = st.builds(
    lambda one, other: one[:-1] + "," + other[1:],
    objects.map(json.dumps),
    st.dictionaries(st.sampled_from(OPTIONS), json_values, min_size=1).map(json.dumps),
)
nasty = st.builds(
    lambda text, times: text * times,
    st.sampled_from(["[", "{", '{"v":', "9", '"', "\\", "\ufeff"]),
    st.integers(0, 5_000),
)
specs = st.one_of(objects.map(json.dumps), cut, doubled, nasty, json_values.map(json.dumps), st.text(max_size=40))
states = st.one_of(
    st.just(""),
    st.fixed_dictionaries({}, optional={"fingerprint": json_values, "last": json_values}).map(json.dumps),
    json_values.map(json.dumps),
    nasty,
    st.text(max_size=20),
    st.binary(max_size=20).map(lambda some: some.decode("latin-1")),
)
# None of a few decades ago: to run all that was missed since then, in no virtual time, takes for ever in real time.
stored_instants = st.one_of(
    st.integers(-(2**63), -(10**17)),
    st.integers(micros(0), micros(10)),
    st.just(micros(5)),
    st.integers(10**17, 2**63 - 1),
)


@given(specs)
@fuzzed(500)
def test_any_spec_is_an_instance_that_can_be_stored_again_or_a_value_error(spec: str) -> None:
    task = Scheduler().dynamic_task()(body)
    try:
        loaded = load_spec(task, "body:x", spec)
    except ValueError:
        return
    assert loaded.func is body
    assert loaded.lease_micros > 0
    assert loaded.execute_at is None or loaded.execute_at.tzinfo is UTC
    assert loaded.zone is not None
    assert load_spec(task, "body:x", dump_spec(task, loaded)).trigger == loaded.trigger


@given(states)
@fuzzed(300)
def test_any_state_is_one_or_a_value_error(text: str) -> None:
    try:
        state = decode_state(text)
    except ValueError:
        return
    assert isinstance(state.fingerprint, str)
    assert type(state.last) is int


class Rows:
    """An app with a dynamic and a static task in virtual time, on a store with whatever rows there are."""

    def __init__(self, rows: list[tuple[str, str, int]], *, fails: bool) -> None:
        # A body that never fails commits what it ran, and one that always does has it tried again.
        self.scene = Scene(failure_mode=FailureMode.UNLOCK if fails else FailureMode.NONE)
        self.rows = [
            Row(
                f"hello:{'fails' if fails else 'works'} {number}",
                "hello",
                due_at,
                min(due_at, micros(5)),
                "0",
                spec,
                state,
            )
            for number, (spec, state, due_at) in enumerate(rows)
        ]

    async def run(self) -> None:
        await insert(self.scene.repository.inner, *self.rows)
        async with running(self.scene.app) as app_context:
            await anyio.sleep(31)
            page = await app_context.list_tasks(self.scene.hello, 100)
        assert self.scene.others == [10, 20, 30], "no row delays another task"
        bad = {state.task.name for state in page.tasks if state.error is not None}
        kept = await self.scene.repository.keys()
        for row in self.rows:
            name = row.key.partition(":")[2]
            assert row.key in kept or name in self.scene.bodies, "what did not run is not deleted"
            if name in bad and name not in self.scene.bodies:
                stored = await self.scene.repository.row(row.key)
                assert (stored.due_at, stored.spec, stored.state) == (row.due_at, row.spec, row.state)


@given(
    st.lists(st.tuples(specs, states, stored_instants), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from(["asyncio", "trio"]),
)
@fuzzed(60)
def test_whatever_rows_there_are_the_loop_goes_on_and_none_is_lost(
    rows: list[tuple[str, str, int]], fails: bool, backend: Backend
) -> None:
    async def run() -> None:
        await Rows(rows, fails=fails).run()

    run_virtual(run, backend=backend)

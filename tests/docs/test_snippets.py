"""Every snippet of README and of the pages in docs/ is executed or checked.

The Python snippets of a page share one namespace, in their order, as the reader's file would. Each snippet is executed;
then

1. each static task of an app that the snippet has defined or extended is run once in virtual time, and has to succeed;
2. a `main()` that the snippet has defined is run for a moment, in virtual time too where its app is in memory, and for
   real where it is in a SQLite file or on a server; POSTGRES_URL and REDIS_URL are then those of real ones;
3. what stands under `if __name__ == "__main__":` is run for a moment; `app.main()` is left to test_examples.py, which
   runs it as a program;
4. a block marked `output` between the snippet and the next one has to be what it printed.

What is written in SQL, or for redis-cli, is carried out in between; what belongs into a file has to be that file in
examples/.

A comment before a snippet, `<!-- snippet: ... -->`, makes it an exception. There are these, and no others:

    asyncio only, REASON    it is left out on trio
    trio only, REASON       it is left out on asyncio
    warns CATEGORY          executing it gives this warning
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import sys
import tomllib
import types
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio
import psycopg
import pytest

import anyscheduler
from anyscheduler import Scheduler, cli, trigger
from anyscheduler.memory import memory_repository
from anyscheduler.testing import VirtualClock, run_virtual
from anyscheduler.trigger import IntervalTrigger
from tests.servers.redis import client
from tests.simulation import __main__ as simulation
from tests.soak import __main__ as soak

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

    from anyscheduler import Task
    from tests.servers.redis import RedisServer

Backend: TypeAlias = Literal["asyncio", "trio"]

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
FILES = {"ini", "yaml", "dockerfile"}
KINDS = {"python", "sh", "sql", "redis", "text", "output", "{eval-rst}", "{toctree}", *FILES}
START = datetime(2026, 3, 1, 12, tzinfo=UTC)

_BLOCK = re.compile(
    r"(?:^<!-- snippet: (?P<mark>[^\n]*) -->\n)?^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    kind: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("text")) + 1, found["kind"], found["mark"] or "", found["text"])
        for found in _BLOCK.finditer(text)
    ]


def blocks_of_kind(kind: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for page in PAGES for block in blocks(page) if block.kind == kind]


@pytest.fixture
def page_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """The namespace of one page, as a module that is not the main one; in an empty directory."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    sys.modules["page"] = module
    yield module
    del sys.modules["page"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_block_that_is_left_unchecked(page: str) -> None:
    fences = re.findall(r"^```\S+$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)

    found = blocks(page)

    assert len(fences) == len(found)
    assert {block.kind for block in found} <= KINDS
    for block in found:
        assert re.fullmatch(r"|(asyncio|trio) only, .+|warns \w+", block.mark), f"{block}: unknown mark {block.mark!r}"


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.kind == "python" for block in blocks(page))])
def test_the_python_snippets_of_a_page_do_what_it_says(
    page: str,
    backend: Backend,
    *,
    page_module: types.ModuleType,
    redis_of_its_own: RedisServer,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO", logger="anyscheduler")
    found = blocks(page)
    for number, block in enumerate(found):
        if block.kind == "sql":
            execute_sql(block)
        elif block.kind == "redis":
            execute_redis(block, redis_of_its_own)
        if block.kind != "python":
            continue
        only = re.match(r"(asyncio|trio) only", block.mark)
        if only and only[1] != backend:
            continue
        known = tasks_of_apps(page_module)
        capsys.readouterr()

        expected = printed_by(found[number + 1 :])
        execute(block, page_module)
        # A snippet that says what it prints and does not stop by itself needs no longer than this to print it.
        if "async def main()" in block.text:
            run_main(page_module, backend, seconds=6 if expected else 0.5)
        printed = capsys.readouterr().out
        run_as_program(block, page_module)

        if expected is not None:
            assert printed == expected, str(block)
        for app, tasks in tasks_of_apps(page_module).items():
            for task in tasks:
                if task not in known.get(app, ()):
                    run_once(app, task, backend, caplog)


def printed_by(following: list[Block]) -> str | None:
    """Returns the block marked `output` that stands before the next snippet, if there is one."""
    for block in following:
        if block.kind == "output":
            return block.text
        if block.kind == "python":
            return None
    return None


def execute(block: Block, module: types.ModuleType) -> None:
    # Blank lines before it, so that a traceback names the line of the page.
    code = compile("\n" * (block.line - 1) + block.text, block.page, "exec", dont_inherit=True)
    warned = re.fullmatch(r"warns (\w+)", block.mark)
    with pytest.warns(getattr(anyscheduler, warned[1])) if warned else nullcontext():
        exec(code, module.__dict__)  # noqa: S102  # our own page


def execute_sql(block: Block) -> None:
    """Executes SQL where the apps of the page have their tables, and undoes what it did."""
    with psycopg.connect(os.environ["POSTGRES_URL"]) as connection:
        if "CREATE TABLE" in block.text:  # the apps have created it already
            connection.execute("DROP TABLE anyscheduler CASCADE")
        connection.execute(block.text.encode())
        connection.rollback()


def execute_redis(block: Block, server: RedisServer) -> None:
    with client(server) as redis:
        for line in block.text.splitlines():
            redis.execute_command(*shlex.split(line))


def tasks_of_apps(module: types.ModuleType) -> dict[Scheduler, list[Task]]:
    apps = [value for value in vars(module).values() if isinstance(value, Scheduler)]
    return {app: [task for task in app._tasks.values() if task.is_static] for app in apps}


def run_main(module: types.ModuleType, backend: Backend, seconds: float) -> None:
    """Runs the `main()` that a snippet has defined, until it ends or so many seconds, real or virtual, have passed."""
    main = vars(module)["main"]
    in_memory = all(app._factory is memory_repository for app in tasks_of_apps(module))

    async def for_a_while() -> None:
        with anyio.move_on_after(seconds):
            await main()

    if in_memory:
        run_virtual(for_a_while, backend=backend)
    else:
        anyio.run(for_a_while, backend=backend)


def run_as_program(block: Block, module: types.ModuleType) -> None:
    """Executes what a snippet does when it is the main program, and cancels its `main()` soon."""
    guards = [node for node in ast.parse(block.text).body if isinstance(node, ast.If)]
    main = vars(module).get("main")
    if not guards or "app.main()" in block.text:
        return
    assert [ast.unparse(guard.test) for guard in guards] == ["__name__ == '__main__'"]
    assert main is not None

    async def briefly() -> None:
        with anyio.move_on_after(0.2):
            await main()

    module.__dict__["main"] = briefly
    try:
        exec(compile(ast.Module(guards[0].body, []), block.page, "exec"), module.__dict__)  # noqa: S102  # our own page
    finally:
        module.__dict__["main"] = main


def run_once(app: Scheduler, task: Task, backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """Runs an app in memory, around the first occurrence of one of its static tasks."""
    assert task.trigger is not None
    due = trigger.first_due(task.trigger, int(START.timestamp() * 1e6))
    assert due is not None
    # A cron is due where it says, an interval one interval after the start.
    wait = task.trigger.microseconds / 1e6 if isinstance(task.trigger, IntervalTrigger) else 1.0
    begin = datetime.fromtimestamp(due / 1e6, UTC) - timedelta(seconds=wait)
    others = [other for other in app._tasks.values() if other.is_static and other is not task]
    own = app._factory, app._store_options, app._clock, app._poll_interval

    async def occurrence() -> None:
        app._factory, app._store_options = memory_repository, {}
        app._clock = clock = VirtualClock(begin)
        # Virtual time does not wait for threads. There the clock is set ahead instead, once the app runs.
        is_virtual = inspect.iscoroutinefunction(task.func)
        app._poll_interval = timedelta(hours=1) if is_virtual else timedelta(milliseconds=20)
        async with app.create() as app_context, anyio.create_task_group() as group:
            await group.start(app_context.run)
            if is_virtual:
                await anyio.sleep(wait + 1)
            else:
                clock.ahead = timedelta(seconds=wait)
                await anyio.sleep(0.1)
            app_context.shutdown()

    caplog.clear()
    for other in others:
        other.enabled = False
    try:
        if inspect.iscoroutinefunction(task.func):
            run_virtual(occurrence, backend=backend)
        else:
            anyio.run(occurrence, backend=backend)
    finally:
        app._factory, app._store_options, app._clock, app._poll_interval = own
        for other in others:
            other.enabled = True
    assert f"{task}: succeeded" in caplog.text, f"{task} did not run"


@pytest.mark.parametrize("block", [block for kind in sorted(FILES) for block in blocks_of_kind(kind)])
def test_a_file_that_a_page_shows_is_one_of_the_examples(block: Block) -> None:
    assert any(
        block.text in path.read_text(encoding="utf-8") for path in (ROOT / "examples").rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("block", blocks_of_kind("sh"))
def test_the_commands_of_a_shell_snippet_exist(block: Block) -> None:
    files = {match for block in blocks(block.page) for match in re.findall(r"`(\w+\.py)`", page_text(block.page))}

    for line in block.text.splitlines():
        for command in line.split("&&"):
            words = shlex.split(command)
            check_command(words[sum("=" in word for word in words[:1]) :], files)


def page_text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def check_command(words: list[str], files: set[str]) -> None:
    """Checks one command by what it is; one that is not known here is an error.

    Args:
        words: The command.
        files: The names of the files that the page lets its reader write.
    """
    match [Path(words[0]).name, *words[1:]]:
        case ["python3", "-m", "venv", _]:
            return
        case ["pip", "install", *packages]:
            check_packages([package for package in packages if package != "-e"])
        case ["python", "-m", "pytest"]:
            return
        case ["python", "-m", "tests.soak", *arguments]:
            soak.parse(arguments)
        case ["python", "-m", "tests.simulation", *arguments]:
            simulation.parse(arguments)
        case ["python", "-m", package]:
            assert (ROOT / package.replace(".", "/") / "__main__.py").exists()
        case ["python", file]:
            assert file in files or (ROOT / file).exists()
        case ["docker", "compose", "-f", file, "--profile", profile, "up", "--build"]:
            assert f"profiles: [{profile}]" in page_text(file)
        case ["anyscheduler", "run", *arguments]:
            parse(cli.main.commands["run"], arguments, files)
        case _:
            pytest.fail(f"nothing here checks the command {shlex.join(words)!r}")


def check_packages(packages: list[str]) -> None:
    project = tomllib.loads(page_text("pyproject.toml"))["project"]
    assert packages
    for package in packages:
        found = re.fullmatch(r"\.(?:\[([a-z,]+)\])?", package)
        assert found, f"{package!r} is not this project"
        assert set((found[1] or "test").split(",")) <= set(project["optional-dependencies"])


def parse(command: click.Command, arguments: list[str], files: set[str]) -> None:
    """Lets click read the arguments, and checks that the module exists."""
    if arguments == ["--help"]:
        return
    with command.make_context("run", arguments) as context:
        module, _, app = context.params["target"].partition(":")
        path = Path(*module.split(".")).with_suffix(".py")
        assert app == "app"
        assert str(path) in files or (ROOT / path).exists()


_LOG_CALL = re.compile(r"logger\.(?:info|warning|error|critical)\(\s*((?:\"[^\"]*\"\s*)+)")
_PLACEHOLDER = re.compile(r"%(?:s|d|\.\df)")
_TELLING = 7
"""How many characters a quoted line must have in common with a log line, apart from what is filled in."""


def logged_lines() -> Iterator[str]:
    """Yields what each log line of the package looks like, whole or cut off behind a phrase, as a pattern."""
    for source in sorted((ROOT / "anyscheduler").rglob("*.py")):
        for call in _LOG_CALL.finditer(source.read_text(encoding="utf-8")):
            pieces = _PLACEHOLDER.split("".join(re.findall(r'"([^"]*)"', call[1])))
            for number, piece in enumerate(pieces):
                for phrase in (piece, piece.partition(" (")[0], piece.rstrip(": (")):
                    literals = [*pieces[:number], phrase]
                    if len("".join(literals)) >= _TELLING:
                        yield ".+".join(map(re.escape, literals))


def quoted_log_lines() -> Iterator[str]:
    table = page_text("docs/guarantees.md").partition("## It did not run: why?")[2]
    for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE):
        yield row.strip("`")
    for page in PAGES:
        for block in blocks(page):
            if block.kind == "text":
                yield from re.findall(r" anyscheduler\.[\w.]+: (.*)", block.text)


@pytest.mark.parametrize("line", sorted(set(quoted_log_lines())))
def test_a_log_line_that_the_docs_quote_is_one_that_the_package_logs(line: str) -> None:
    assert any(re.fullmatch(pattern, line) for pattern in logged_lines())


def test_the_design_page_names_every_file_of_the_package_and_no_other() -> None:
    table = page_text("docs/design.md").partition("## The files")[2].partition("\n## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)}

    package = ROOT / "anyscheduler"
    stores = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == {path.name for path in package.glob("*.py")} | stores


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_the_links_of_a_page_lead_to_files_and_headings_that_exist(page: str) -> None:
    text = page_text(page)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, heading = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", found).lower().replace(" ", "-") for found in headings}, target

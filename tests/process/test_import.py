"""What `import anyscheduler` brings along: nothing that a program may not need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.process.programs import Programs


def test_importing_the_package_imports_no_event_loop_no_driver_of_an_extra_and_no_command_line(
    programs: Programs,
) -> None:
    # The prelude of every program imports the package.
    source = """
for name in ("asyncio", "click", "psycopg", "psycopg_pool", "redis", "trio", "uvloop"):
    if name in sys.modules:
        tell(name)
tell("done")
"""
    program = programs.script(source)
    assert program.ends() == 0
    assert program.told == ["done"]

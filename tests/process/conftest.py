"""What the process tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.process.programs import LOOPS, Programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Starts programs in `tmp_path`, and kills what is left of them."""
    started = Programs(tmp_path)
    try:
        yield started
    finally:
        started.clean_up()


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options of the command that select each event loop, one after the other."""
    return LOOPS[request.param]

"""A minute of the soak on each store: nothing that an app does to its users may show, whatever is done to the app.

`python -m tests.soak` runs longer ones, and says what was broken when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.soak.driver import soak
from tests.soak.report import report_on

if TYPE_CHECKING:
    from pathlib import Path


SEEDS = (7, 8, 9)
"""The second and the third are for a machine on which a run was not hard enough to say something."""


@pytest.mark.parametrize(("store", "loop"), [("sqlite", "asyncio"), ("redis", "trio"), ("postgres", "asyncio")])
def test_whatever_is_broken_for_a_minute_no_promise_is(store: str, loop: str, tmp_path: Path) -> None:
    missing: list[str] = []
    for seed in SEEDS:
        directory = tmp_path / f"run-{seed}"
        soak(directory, store=store, loop=loop, seconds=60, seed=seed)
        report = report_on(directory)
        assert not report.violations, f"the logs are in {directory}\n{report}"
        missing = report.missing
        if not missing:
            return
    pytest.fail(f"no run was hard enough: {missing}; the logs are in {tmp_path}")

"""A minute of the soak on each store: nothing that an app does to its users may show, whatever is done to the app.

`python -m tests.soak` runs longer ones, and says what was broken when.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.soak.driver import soak
from tests.soak.report import report_on

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

LOOPS = {"sqlite": "asyncio", "redis": "trio", "postgres": "asyncio"}

FIRST_SEED = 7
FURTHER_SEEDS = (8, 9)
"""For a machine on which a run was not hard enough to say something."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[subprocess.Popen[str], Path]]]:
    """Runs all three at the same time: each takes a third of a processor and a minute and a half."""
    started: dict[str, tuple[subprocess.Popen[str], Path]] = {}
    try:
        for store, loop in LOOPS.items():
            directory = tmp_path_factory.mktemp(store) / f"run-{FIRST_SEED}"
            asked = ["--store", store, "--loop", loop, "--seed", str(FIRST_SEED), "--keep", str(directory)]
            with (directory.parent / "stderr").open("w") as stderr:
                started[store] = (
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.soak", *asked],
                        cwd=ROOT,
                        stdout=subprocess.DEVNULL,
                        stderr=stderr,
                        text=True,
                    ),
                    directory,
                )
        yield started
    finally:
        for process, _ in started.values():
            process.terminate()
        for process, _ in started.values():
            process.wait()


@pytest.mark.parametrize("store", LOOPS)
def test_whatever_is_broken_for_a_minute_no_promise_is(
    store: str, runs: dict[str, tuple[subprocess.Popen[str], Path]], tmp_path: Path
) -> None:
    process, directory = runs[store]
    code = process.wait()
    # A run that was not carried out has left nothing to report on.
    assert (directory / "facts.json").exists(), f"exit {code}: {(directory.parent / 'stderr').read_text()}"
    report = report_on(directory)
    for seed in FURTHER_SEEDS:
        assert not report.violations, f"the logs are in {directory}\n{report}"
        if not report.missing:
            return
        directory = tmp_path / f"run-{seed}"
        soak(directory, store=store, loop=LOOPS[store], seconds=60, seed=seed)
        report = report_on(directory)
    assert not report.violations, f"the logs are in {directory}\n{report}"
    assert not report.missing, f"no run was hard enough: {report.missing}; the logs are in {directory}"

"""Every store against one model of the contract: whatever is done to both, in whatever order, they answer alike.

The default run takes a minute at most. `ANYSCHEDULER_MODEL_EXAMPLES` is how many sequences of fifty operations there
are to be instead, for each store on each event loop; how many operations that were is printed then:

    ANYSCHEDULER_MODEL_EXAMPLES=2000 pytest -s -o faulthandler_timeout=0 tests/conformance/test_state_machine.py
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from anyscheduler import threaded
from tests.conformance.machine import HeldAgainstTheModel, Place, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conformance.stores import Store

_WANTED: Final = int(os.environ.get("ANYSCHEDULER_MODEL_EXAMPLES", "0"))


@pytest.fixture
def portal(anyio_backend: tuple[str, dict[str, Any]]) -> Iterator[BlockingPortal]:
    backend, options = anyio_backend
    with start_blocking_portal(backend, options) as started:
        yield started


@pytest.fixture
def place(portal: BlockingPortal, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    # A call that was cut because the machine is busy might be carried out after everybody has looked.
    monkeypatch.setattr(threaded, "_GRACE_SECONDS", 30)
    with portal.wrap_async_context_manager(opened(portal, store, tmp_path)) as found:
        yield found


def test_a_store_answers_like_the_model_whatever_is_done_to_both(place: Place) -> None:
    run_state_machine_as_test(
        lambda: HeldAgainstTheModel(place),  # type: ignore[arg-type]  # a function is documented to do as well
        settings=settings(
            # The same in each run of the suite; asked for more, it takes new ones.
            max_examples=_WANTED or 12,
            derandomize=not _WANTED,
            stateful_step_count=50,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    if _WANTED:
        print(f"{place.store.name}: {place.steps:,} operations")
    assert place.steps > 100

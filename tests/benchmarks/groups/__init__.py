"""Who is compared with whom, and what has to be reached.

Knows: the groups by the names that select them. What is in one stands in the files beside this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.groups import draining, starting, storing, timing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.comparison import Group
    from tests.benchmarks.groups.setting import Setting

GROUPS: dict[str, Callable[[Setting], Group]] = {
    "drain": draining.drains,
    "recurring": draining.recurring,
    "sizes": draining.sizes,
    "workers": draining.workers,
    "registering": storing.registering,
    "idle": storing.idling,
    "churn": storing.churning,
    "lateness": timing.lateness,
    "wake-up": timing.wake_up,
    "keep-up": timing.keep_up,
    "start": starting.starts,
    "memory": starting.memory,
    "import": starting.imports,
}
"""All groups, by the name that selects one. All but `import` measure on stores."""

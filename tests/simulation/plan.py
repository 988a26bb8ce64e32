"""What a seed decides before the run begins."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.simulation.load import STATIC


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        seed: What all of this comes from.
        instances: How many processes run at a time.
        seconds: For how long faults happen, in the store's time.
        lease: The length of a lease, in seconds.
        poll_interval: In seconds.
        concurrency_limit: Of each process.
        batch_size: Of each process.
        tasks: The static tasks.
        pause: Seconds between two things that the users of a process ask for, on average.
        faults: How probably the network does something to a request.
        patience: After how many seconds a process gives a request up.
        life: After how many seconds a process ends, on average.
        hold_back: How probably a task that is ready waits for the next round, each time.
        store_has_clock: Whether the store's clock decides what is due; the machines' clocks are then off.
    """

    seed: int
    instances: int
    seconds: float
    lease: float
    poll_interval: float
    concurrency_limit: int
    batch_size: int
    tasks: frozenset[str]
    pause: float
    faults: float
    patience: float
    life: float
    hold_back: float
    store_has_clock: bool

    @classmethod
    def of(cls, seed: int) -> Plan:
        """Returns the plan of a seed."""
        draw = random.Random(f"plan {seed}")
        return cls(
            seed=seed,
            instances=draw.randint(2, 5),
            seconds=draw.uniform(5, 15),
            lease=draw.uniform(2, 5),
            poll_interval=draw.choice((0.2, 1.0, 3.0)),
            concurrency_limit=draw.choice((1, 2, 4, 20)),
            batch_size=draw.choice((1, 3, 100)),
            tasks=frozenset(draw.sample([kind.name for kind in STATIC], 5)),
            pause=draw.choice((0.5, 2.0, 10.0)),
            faults=draw.choice((0.0, 0.02, 0.1, 0.3)),
            patience=draw.choice((0.5, 2.0, 6.0)),
            life=draw.choice((3.0, 8.0, 30.0)),
            hold_back=draw.choice((0.0, 0.0, 0.1, 0.4)),
            store_has_clock=draw.random() < 0.8,
        )

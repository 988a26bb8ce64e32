"""What the groups share: the names, the stores to measure on, and where the systems are.

Knows: the systems. Must not know: measurements or targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks import peers
from tests.benchmarks.measurements import System, ours
from tests.benchmarks.programs import Program

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from tests.benchmarks.stores import Store, Stores

OURS, PYNCETTE, APSCHEDULER = "anyscheduler", "pyncette", "APScheduler 3"
BACKENDS = ("asyncio", "trio")
SERVERS: Collection[Store] = ("postgres", "redis")
"""The stores that processes on several machines can share."""
FOUR_WORKERS, SHARED = [ours(backend) for backend in BACKENDS * 2], "four workers: 2 asyncio, 2 trio"


@dataclass(frozen=True)
class Setting:
    """What all measurements share.

    Attributes:
        stores: Gives empty stores.
        chosen: The stores to measure on.
        python: The interpreter of this package.
        peers_directory: Where the environments of the peers are.
        bytecode: A directory for bytecode.
        rounds: How often each case is measured.
        is_quick: Whether short measurements will do.
    """

    stores: Stores
    chosen: Collection[Store]
    python: str
    peers_directory: Path
    bytecode: str
    rounds: int
    is_quick: bool

    def peer(self, name: str, *settings: str) -> System:
        """Returns a peer as it is measured; makes its environment if it has none yet."""
        return System(self._python_of(name), f"drive_{name}", settings)

    def peer_program(self, name: str) -> Program:
        """Returns the program of a peer; makes its environment if it has none yet."""
        return Program(self._python_of(name), name, self.bytecode)

    @property
    def program(self) -> Program:
        """The program of this package."""
        return Program(self.python, "anyscheduler", self.bytecode)

    def _python_of(self, peer: str) -> str:
        return str(peers.python(self.peers_directory, peer))

"""The contract of `repository.py` once more, as a dictionary, with nothing in mind but to be evident."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyscheduler.lease import Change, Row
    from anyscheduler.repository import ClaimRequest


class Model:
    """A store without a place: what it holds, and what each operation has to answer.

    Attributes:
        rows: What is stored, by key.
    """

    def __init__(self, rows: dict[str, Row] | None = None) -> None:
        self.rows = dict(rows or {})

    def claim(self, wanted: Sequence[ClaimRequest], limit: int, now: int, token: str) -> tuple[list[Row], int | None]:
        """Leases due rows; returns them, and when to look again."""
        eligible = [
            sorted(
                (row for row in self.rows.values() if row.task == request.task and row.claimable_at <= now),
                key=lambda row: (row.claimable_at, row.key),
            )
            for request in wanted
        ]
        turns = [
            (turn, place, row._replace(claimable_at=now + request.lease, token=token))
            for place, (request, queue) in enumerate(zip(wanted, eligible, strict=True))
            for turn, row in enumerate(queue)
        ]
        claimed = [row for _, _, row in sorted(turns)[:limit]]
        self.rows.update((row.key, row) for row in claimed)
        tasks = {request.task for request in wanted}
        return claimed, min((row.claimable_at for row in self.rows.values() if row.task in tasks), default=None)

    def write(self, changes: Sequence[Change]) -> list[bool]:
        """Applies each change whose token is the stored one; returns which did."""
        applied = [change.expected == self.token(change.key) for change in changes]
        for change, applies in zip(changes, applied, strict=True):
            if applies and change.row is not None:
                self.rows[change.key] = change.row
            elif applies:
                del self.rows[change.key]
        return applied

    def token(self, key: str) -> str | None:
        """Returns the fence of a row, or None if there is none."""
        return self.rows[key].token if key in self.rows else None

    def page(self, task: str, after: str, limit: int) -> list[Row]:
        """Returns the rows of a task behind a key."""
        keys = sorted(row.key for row in self.rows.values() if row.task == task and row.key > after)
        return [self.rows[key] for key in keys[:limit]]

    def tasks(self) -> set[str]:
        """Returns the tasks that have rows."""
        return {row.task for row in self.rows.values()}


def announced(changes: Sequence[Change], applied: Sequence[bool]) -> list[int]:
    """Returns what a write tells those who listen: the earliest instant that was applied, if any was."""
    instants = [
        change.row.claimable_at
        for change, applies in zip(changes, applied, strict=True)
        if applies and change.row is not None
    ]
    return [min(instants)] if instants else []

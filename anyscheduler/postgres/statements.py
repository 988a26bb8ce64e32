"""The statements that claim and write, each of them one round trip and one transaction.

Knows: SQL, the columns. Must not know: connections, Python values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyscheduler.lease import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLUMNS: Final = ", ".join(Row._fields)
NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""What the clock of the server shows, in microseconds since the epoch."""


def write_statement(table: str, parts: Sequence[str], *, announce: bool) -> str:
    """Returns the statement that applies changes of the kinds in `parts`.

    It gives a key and true for each that applied, a key and null for each whose row somebody else has locked.
    """
    steps = [_STEPS[part].format(table=table) for part in parts]
    steps.append(f"applied AS ({_union(f'SELECT * FROM {part}' for part in parts)})")
    guarded = [part for part in parts if part != "new"]
    results = ["SELECT key, true FROM applied"]
    if guarded:
        expected = _union(
            f"SELECT * FROM unnest(%({part}_key)s::text[], %({part}_expected)s::text[])" for part in guarded
        )
        results.append(_LOCKED.format(table=table, expected=expected))
    result = _union(results)
    if announce:
        steps.append(_TOLD)
        # Referred to, because a step that nobody asks for is not carried out.
        result = f"SELECT * FROM ({result}) AS result WHERE (SELECT count(*) FROM told) >= 0"
    return f"WITH {', '.join(steps)} {result}"  # the name is checked and quoted, the rest is ours


def _union(selects: Iterable[str]) -> str:
    return " UNION ALL ".join(selects)


# Rows that somebody else has locked are left alone: waiting for one of them would hold up all the others. Those that
# are locked here are found again by their ctid, which costs less than by key.
_STEPS: Final = {
    "gone": """
        gone_locked AS MATERIALIZED (
            SELECT stored.ctid AS tid
            FROM unnest(%(gone_key)s::text[], %(gone_expected)s::text[]) AS change(key, expected)
            JOIN {table} AS stored ON stored.key = change.key AND stored.token = change.expected
            FOR UPDATE OF stored SKIP LOCKED
        ),
        gone AS (
            DELETE FROM {table} AS stored USING gone_locked WHERE stored.ctid = gone_locked.tid
            RETURNING stored.key, NULL::bigint AS claimable_at
        )""",
    "changed": """
        changed_locked AS MATERIALIZED (
            SELECT stored.ctid AS tid, change.*
            FROM unnest(
                %(changed_expected)s::text[], %(changed_key)s::text[], %(changed_due_at)s::bigint[],
                %(changed_claimable_at)s::bigint[], %(changed_token)s::text[], %(changed_spec)s::text[],
                %(changed_state)s::text[]
            ) AS change(expected, key, due_at, claimable_at, token, spec, state)
            JOIN {table} AS stored ON stored.key = change.key AND stored.token = change.expected
            FOR UPDATE OF stored SKIP LOCKED
        ),
        changed AS (
            UPDATE {table} AS stored SET
                due_at = change.due_at, claimable_at = change.claimable_at,
                token = change.token, spec = change.spec, state = change.state
            FROM changed_locked AS change WHERE stored.ctid = change.tid
            RETURNING stored.key, stored.claimable_at
        )""",
    "new": """
        new AS (
            INSERT INTO {table} (key, task, due_at, claimable_at, token, spec, state)
            SELECT * FROM unnest(
                %(new_key)s::text[], %(new_task)s::text[], %(new_due_at)s::bigint[],
                %(new_claimable_at)s::bigint[], %(new_token)s::text[], %(new_spec)s::text[], %(new_state)s::text[]
            )
            ON CONFLICT (key) DO NOTHING
            RETURNING key, claimable_at
        )""",
}

_LOCKED: Final = """
    SELECT stored.key, NULL FROM ({expected}) AS change(key, expected)
    JOIN {table} AS stored ON stored.key = change.key AND stored.token = change.expected
    WHERE (SELECT count(*) FROM applied) < %(count)s AND stored.key NOT IN (SELECT key FROM applied)
"""

_TOLD: Final = """
    told AS MATERIALIZED (
        SELECT pg_notify(%(channel)s, min(claimable_at)::text) FROM applied HAVING min(claimable_at) IS NOT NULL
    )"""

# What `lease.later_token` does, with the one that was drawn and the one that is stored.
_LATER: Final = """
    CASE
        WHEN left(stored.token, 15) COLLATE "C" < left(%(token)s::text, 15) THEN %(token)s
        WHEN stored.token !~ '^[0-9a-f]{{15}}' OR %(token)s::text !~ '^[0-9a-f]{{15}}' THEN %(token)s
        ELSE lpad(to_hex(('x' || left(stored.token, 15))::bit(60)::bigint + 1), 15, '0') || substr(%(token)s::text, 16)
    END"""

# In the names below: `place` is the index of a request, `turn` the how manyth row of its task a row is.
#
# request    each requested task that has rows, with the earliest of them
# due        those of them with rows that are due, and how many to look at of each: an even share and one more
# looked_at  the rows that are looked at, by the index only, and the one behind them, due or not
# candidate  those of them that are due
# chosen     the first ones in the order of fairness; more than needed where other processes take some at this moment
# locked     as many as may be claimed and nobody else is taking. A row that another process changed since the
#            statement began is left out, because it is claimable later; if it is not, by `claimed`, which does not
#            find it at its ctid any more
# claimed    the rows under their lease
#
# Rows are found again by their ctid, one by one, which costs less than by key. The sum in `locked` keeps the planner
# from reading all that is due once more, by the index.
CLAIM: Final = f"""
    WITH clock AS MATERIALIZED (
        SELECT coalesce(%(now)s::bigint, least(shown, %(not_after)s::bigint)) AS now,
            coalesce(%(now)s::bigint, shown) AS shown
        FROM (SELECT {NOW} AS shown) AS server
    ),
    request AS MATERIALIZED (
        SELECT given.task, given.lease, given.place, head.claimable_at AS head
        FROM unnest(%(tasks)s::text[], %(leases)s::bigint[]) WITH ORDINALITY AS given(task, lease, place)
        CROSS JOIN LATERAL (
            SELECT claimable_at FROM {{table}} AS stored
            WHERE stored.task = given.task ORDER BY claimable_at LIMIT 1
        ) AS head
    ),
    due AS MATERIALIZED (
        SELECT task, lease, place, head, 1 + greatest(
            ceil(%(limit)s::float * CASE WHEN %(generous)s THEN 4 ELSE 1 END / count(*) OVER ()),
            CASE WHEN %(generous)s THEN %(limit)s ELSE 0 END
        )::bigint AS share
        FROM request WHERE head <= (SELECT now FROM clock)
    ),
    looked_at AS MATERIALIZED (
        SELECT waiting.tid, waiting.claimable_at, due.lease, due.place, due.share,
            row_number() OVER (PARTITION BY due.place ORDER BY waiting.claimable_at, waiting.key) AS turn
        FROM due CROSS JOIN LATERAL (
            SELECT stored.ctid AS tid, key, claimable_at FROM {{table}} AS stored
            WHERE stored.task = due.task ORDER BY claimable_at, key LIMIT due.share + 1
        ) AS waiting
    ),
    candidate AS MATERIALIZED (
        SELECT * FROM looked_at WHERE turn <= share AND claimable_at <= (SELECT now FROM clock)
    ),
    chosen AS MATERIALIZED (
        SELECT tid, lease, place, turn FROM candidate
        ORDER BY turn, place LIMIT %(limit)s * CASE WHEN %(generous)s THEN 4 ELSE 1 END
    ),
    locked AS MATERIALIZED (
        SELECT stored.ctid AS tid, chosen.lease, chosen.place, chosen.turn
        FROM {{table}} AS stored JOIN chosen ON stored.ctid = chosen.tid
        WHERE stored.claimable_at + 0 <= (SELECT now FROM clock)
        ORDER BY chosen.turn, chosen.place LIMIT %(limit)s FOR UPDATE OF stored SKIP LOCKED
    ),
    claimed AS (
        UPDATE {{table}} AS stored SET claimable_at = clock.now + locked.lease, token = {_LATER}
        FROM locked CROSS JOIN clock
        WHERE stored.ctid = locked.tid
        RETURNING {", ".join("stored." + name for name in Row._fields)}, locked.turn, locked.place
    ),
    left_behind AS (
        SELECT claimable_at FROM looked_at WHERE tid NOT IN (SELECT tid FROM locked)
    )
    (
        SELECT {COLUMNS}, turn, place, NULL::bigint, NULL::bigint, NULL::bigint, NULL::boolean FROM claimed
        ORDER BY turn, place
    )
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        least(
            (SELECT min(head) FROM request WHERE head > clock.now),
            (SELECT min(clock.now + lease) FROM locked),
            (SELECT min(claimable_at) FROM left_behind)
        ),
        clock.now, clock.shown,
        EXISTS (SELECT FROM candidate WHERE turn = share) OR (SELECT count(*) FROM candidate) > %(limit)s
    FROM clock
"""

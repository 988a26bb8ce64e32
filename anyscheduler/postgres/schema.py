"""The table: its name, its making by any number of processes at once, and what has to be true of it before it is used.

Knows: SQL, the catalog of PostgreSQL. Must not know: what the columns mean.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg import IsolationLevel, errors

from anyscheduler.errors import ConfigurationError

if TYPE_CHECKING:
    import psycopg

_OLDEST: Final = 130_000
_NAME: Final = re.compile(r"(?:([A-Za-z_][A-Za-z0-9_]{0,62})\.)?([A-Za-z_][A-Za-z0-9_]{0,47})")

_CREATING: Final = 0x616E79736368  # "anysch"

NAMES_ALLOWED: Final = (
    "letters, digits and underscores, at most 48; before it, if wanted, the name of a schema and a dot"
)


class Names(NamedTuple):
    """A table as it is called in statements; every part is quoted, so that any word and case will do.

    Attributes:
        schema: Its schema, quoted, with a dot behind it; "" for the first one in the search path.
        plain: Its name without the schema, not quoted.
    """

    schema: str
    plain: str

    @property
    def quoted(self) -> str:
        """The table."""
        return f'{self.schema}"{self.plain}"'

    @property
    def view(self) -> str:
        """The view that shows times as timestamps."""
        return f'{self.schema}"{self.plain}_times"'


class Table(NamedTuple):
    """A table that exists.

    Attributes:
        quoted: Its name in statements.
        channel: Where its changes are announced; told apart by the table's identity, so that two tables of one name in
            two schemas have one each.
    """

    quoted: str
    channel: str


def parse_name(name: object) -> Names | None:
    """Returns the names that belong to `postgres_table_name`, None if it is not allowed."""
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        return None
    schema, plain = match.groups()
    return Names(f'"{schema}".' if schema else "", plain)


def prepare(connection: psycopg.Connection[Any], names: Names, *, skip_create: bool) -> Table:
    """Returns the table, made if it is missing and `skip_create` does not forbid it.

    Raises:
        ConfigurationError: The server, the database or the table cannot be used, for the reason that it tells.
        psycopg.Error: The server failed.
    """
    # Where another level is the default, this would not see what another process has just created.
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    _check_server(connection)
    oid = _find(connection, names)
    if oid is None:
        if skip_create:
            raise ConfigurationError(
                f"there is no table {names.quoted}, and postgres_skip_table_create=True forbids to create it; "
                f"create it with:\n{definition(names)}"
            )
        _create(connection, names)
        oid = _find(connection, names)
    _check_table(connection, names)
    return Table(names.quoted, f"anyscheduler_{oid}")


def definition(names: Names) -> str:
    """Returns the statements that make the table, its index and its view, to be run in one transaction."""
    return f"""
CREATE TABLE {names.quoted} (
    key text COLLATE "C" PRIMARY KEY,
    task text COLLATE "C" NOT NULL,
    due_at bigint NOT NULL,
    claimable_at bigint NOT NULL,
    token text NOT NULL,
    spec text NOT NULL,
    state text NOT NULL
) WITH (
    -- Each execution writes its row twice. Room in the page for the next version, and a vacuum that comes early and
    -- does not pause, keep the table as small as its rows.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX ON {names.quoted} (task, claimable_at, key) WITH (fillfactor = 80);
CREATE VIEW {names.view} AS SELECT
    key, task,
    {_timestamp("due_at")},
    {_timestamp("claimable_at")},
    claimable_at > due_at AND token NOT LIKE '%.waiting'
        AND claimable_at > extract(epoch FROM clock_timestamp()) * 1000000 AS leased,
    token, spec, state
FROM {names.quoted};
COMMENT ON TABLE {names.quoted} IS 'anyscheduler, version 1; times are microseconds since 1970 in UTC';
"""  # noqa: S608  # the names are checked and quoted


def _timestamp(column: str) -> str:
    # Guarded, so that one damaged row does not make the view fail for all of them: years 1 to 9999. In two parts, since
    # an interval is multiplied in floating point.
    return (
        f"CASE WHEN {column} BETWEEN -62135596800000000 AND 253402300799999999\n"
        f"        THEN timestamptz 'epoch' + {column} / 1000000 * interval '1 second'\n"
        f"            + {column} % 1000000 * interval '1 microsecond' END AS {column}"
    )


def _check_server(connection: psycopg.Connection[Any]) -> None:
    found = connection.execute(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), "
        "current_setting('server_encoding'), pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', "
        "current_setting('default_transaction_isolation'), pg_backend_pid()"
    ).fetchone()
    assert found is not None
    number, version, encoding, is_standby, is_read_only, isolation, process = found
    if number < _OLDEST:
        raise ConfigurationError(f"the server is PostgreSQL {version}; 13 is the oldest that will do")
    if is_standby or is_read_only:
        kind = "a standby" if is_standby else "read-only"
        raise ConfigurationError(f"the server is {kind}; schedules have to be written, so give the URL of the primary")
    if isolation != "read committed" and process != connection.info.backend_pid:
        # On its own connections the app sets what it needs; behind a pooler it must not.
        raise ConfigurationError(
            f"default_transaction_isolation is {isolation!r}; behind a pooler it has to be 'read committed', as by "
            f"ALTER ROLE {connection.info.user} SET default_transaction_isolation = 'read committed'"
        )
    if encoding != "UTF8":
        raise ConfigurationError(f"the encoding of the database is {encoding}; it has to be UTF8")


def _find(connection: psycopg.Connection[Any], names: Names) -> int | None:
    # Through the catalog: to_regclass alone would go by what this session remembers, also of what was missing.
    found = connection.execute(
        "SELECT oid::bigint FROM pg_class WHERE oid = to_regclass(%s)", (names.quoted,)
    ).fetchone()
    return None if found is None else int(found[0])


def _create(connection: psycopg.Connection[Any], names: Names) -> None:
    with connection.transaction():
        # CREATE does not wait for a transaction that is just creating the same, and then fails. The number is anybody's
        # choice, and the same for all tables: one may be called by its schema here and without it there.
        connection.execute(f"SELECT pg_advisory_xact_lock({_CREATING})".encode())
        if _find(connection, names) is not None:
            return
        try:
            connection.execute(definition(names).encode())
        except (errors.InsufficientPrivilege, errors.InvalidSchemaName, errors.DuplicateTable) as error:
            raise ConfigurationError(
                f"user {connection.info.user!r} finds no table {names.quoted} and cannot create it: "
                f"{error.diag.message_primary}"
            ) from error


def _check_table(connection: psycopg.Connection[Any], names: Names) -> None:
    needed = ("SELECT", "INSERT", "UPDATE", "DELETE")
    given = connection.execute(
        "SELECT " + ", ".join(f"has_table_privilege(%(table)s, '{right}')" for right in needed), {"table": names.quoted}
    ).fetchone()
    assert given is not None
    missing = [right for right, has in zip(needed, given, strict=True) if not has]
    if missing:
        raise ConfigurationError(
            f"user {connection.info.user!r} may not {' or '.join(missing)} on table {names.quoted}; "
            f"GRANT {', '.join(needed)} ON {names.quoted} TO it"
        )
    columns = {"key": "text", "task": "text", "token": "text", "spec": "text", "state": "text"}
    columns |= {"due_at": "bigint", "claimable_at": "bigint"}
    found = connection.execute(
        """
        SELECT attname, format_type(atttypid, NULL), relkind = 'r',
            attname NOT IN ('key', 'task') OR attcollation = '"C"'::regcollation OR collname = 'C',
            EXISTS (
                SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisunique AND indisvalid AND indpred IS NULL
                AND indnkeyatts = 1 AND indkey[0] = (
                    SELECT attnum FROM pg_attribute AS own WHERE own.attrelid = pg_class.oid AND own.attname = 'key'
                )
            )
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        LEFT JOIN pg_collation ON pg_collation.oid = attcollation
        WHERE pg_class.oid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
        """,
        (names.quoted,),
    ).fetchall()
    is_sound = all(is_table and is_bytewise and has_key for _, _, is_table, is_bytewise, has_key in found)
    types = {name: kind for name, kind, *_ in found if name in columns}
    if not is_sound or types != columns:
        wrong = sorted(name for name, kind in columns.items() if types.get(name) != kind)
        difference = (
            f"columns that are missing or of another type: {', '.join(wrong)}"
            if wrong
            else ("it is no ordinary table, its text is not compared by bytes, or its key is not unique")
        )
        raise ConfigurationError(
            f"{names.quoted} is not a table as anyscheduler makes it ({difference}); give another postgres_table_name"
        )

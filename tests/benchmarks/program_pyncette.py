"""The same program as `program_anyscheduler.py`, for pyncette, in the environment of the peers."""

from __future__ import annotations

import os
import pkgutil
import sys
import time
from datetime import timedelta
from typing import Any

_REPOSITORIES = {
    "memory": ("pyncette.sqlite:sqlite_repository", "sqlite_database"),
    "sqlite": ("pyncette.sqlite:sqlite_repository", "sqlite_database"),
    "postgres": ("pyncette.postgres:postgres_repository", "postgres_url"),
    "redis": ("pyncette.redis:redis_repository", "redis_url"),
}

store, seconds = sys.argv[1:]
repository, option = _REPOSITORIES[store]
url = os.environ["ANYSCHEDULER_BENCHMARK_URL"] or ":memory:"
app: Any = pkgutil.resolve_name("pyncette:Pyncette")(
    repository_factory=pkgutil.resolve_name(repository), **{option: url}
)


@app.task(interval=timedelta(seconds=float(seconds)))  # type: ignore[untyped-decorator]
async def first(context: Any) -> None:
    print(time.time(), flush=True)
    context.app_context.shutdown()


if __name__ == "__main__":
    app.main()

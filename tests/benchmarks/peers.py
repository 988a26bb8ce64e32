"""The environments of the peers: made once, kept in the user's cache, and made anew when they would be other ones.

Each has its own, as it would be installed by itself: what one brings along (arq: hiredis) makes another one faster.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

# What they drive the store with, and the event loop that they are tuned with, counts as much as they do.
REQUIREMENTS = {
    "pyncette": ("pyncette[postgres,redis]==1.1.0", "asyncpg==0.32.0", "redis==8.1.0"),
    "apscheduler": ("APScheduler==3.11.3",),
    "pgqueuer": ("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
    "arq": ("arq==0.28.0", "redis[hiredis]==5.3.1", "uvloop==0.23.0"),
    "saq": ("saq==0.26.4", "typing_extensions==4.16.0", "redis[hiredis]==7.4.1", "uvloop==0.23.0"),
}


def default_directory() -> Path:
    """Returns where the environments are kept unless the command line says otherwise; a place for each Python."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "anyscheduler-benchmarks", platform.python_version())


def python(environments: Path, peer: str) -> Path:
    """Returns the interpreter of a peer's environment, which is made first if it is missing or was made for others.

    Raises:
        CalledProcessError: pip failed; what it said is on standard error.
    """
    directory = environments / peer
    interpreter = directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    made_for = directory / "made-for.txt"
    wanted = "\n".join([sys.version, *REQUIREMENTS[peer]])
    if interpreter.exists() and made_for.exists() and made_for.read_text(encoding="utf-8") == wanted:
        return interpreter
    if directory.exists() and any(directory.iterdir()) and not made_for.exists():
        raise SystemExit(f"{directory} is there and was not made by this benchmark; give another --peers-dir")
    print(f"making the environment of {peer} in {directory}", file=sys.stderr)
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[peer]]
    try:
        subprocess.run(install, check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError:
        shutil.rmtree(directory, ignore_errors=True)  # half an environment would be refused the next time
        raise
    made_for.write_text(wanted, encoding="utf-8")
    return interpreter

"""The environment of the peers: made once, kept in the user's cache, and made anew when it would be another one."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = ("pyncette==1.1.0", "APScheduler==3.11.*")


def default_directory() -> Path:
    """Returns where the environment is kept unless the command line says otherwise; one for each Python."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "anyscheduler-benchmarks", f"peers-{platform.python_version()}")


def python(directory: Path) -> Path:
    """Returns the interpreter of the environment, which is made first if it is missing or was made for others.

    Raises:
        CalledProcessError: pip failed; what it said is on standard error.
    """
    interpreter = directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    made_for = directory / "made-for.txt"
    wanted = "\n".join([sys.version, *REQUIREMENTS])
    if interpreter.exists() and made_for.exists() and made_for.read_text(encoding="utf-8") == wanted:
        return interpreter
    if directory.exists() and any(directory.iterdir()) and not made_for.exists():
        raise SystemExit(f"{directory} is there and was not made by this benchmark; give another --peers-dir")
    print(f"making the environment of the peers in {directory}", file=sys.stderr)
    shutil.rmtree(directory, ignore_errors=True)
    venv.create(directory, with_pip=True)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
    try:
        subprocess.run(install, check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError:
        shutil.rmtree(directory, ignore_errors=True)  # half an environment would be refused the next time
        raise
    made_for.write_text(wanted, encoding="utf-8")
    return interpreter

"""What a process takes: resident memory, and processor time together with the processes that it started.

Read from /proc, as Linux has it; elsewhere there is none, and the columns stay empty. Runs in the environment of
whoever is measured, so it needs nothing but the standard library.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")
_PPID, _TIMES = 1, slice(11, 15)
"""Where the fields lie behind the name of the command, which may hold blanks; see proc_pid_stat(5)."""


def resident_mebibytes(pid: int | None = None) -> float | None:
    """Returns what of a process lies in memory now, MiB, shared pages included; None where /proc does not tell."""
    try:
        lines = (_PROC / str(pid or os.getpid()) / "status").read_text().splitlines()
    except FileNotFoundError:
        return None
    return next((int(line.split()[1]) / 1_024 for line in lines if line.startswith("VmRSS:")), None)


def family_cpu_seconds(pid: int) -> float | None:
    """Returns the processor time (user and system) of a process and of all below it; None where there is no /proc.

    It includes those that have ended: whoever waits for a process inherits its time. It is right to 10 ms.
    """
    stats = _stats()
    family = {pid}
    while grown := {child for child, fields in stats.items() if int(fields[_PPID]) in family} - family:
        family |= grown
    ticks = [sum(map(int, stats[member][_TIMES])) for member in family if member in stats]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def _stats() -> dict[int, list[str]]:
    found = {}
    for entry in _PROC.glob("[0-9]*"):
        try:
            text = (entry / "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        found[int(entry.name)] = text.rpartition(")")[2].split()
    return found

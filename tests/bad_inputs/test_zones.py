"""Time zones that there are not, and names that would choose a file: refused, and no file is opened for them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import zoneinfo
from datetime import UTC
from pathlib import Path

import pytest

from anyscheduler.zones import offset_at, resolve
from tests.bad_inputs.refusals import label, refused_wherever_it_is_given

BAD_NAMES: list[object] = [
    # Bad input.
    "/etc/passwd",
    "../x",
    ":x",
    "Eur\0ope",
    "Mars/Base",
    "UTC+25",
    "A" * 300,
    # Not a string of a useful length.
    5,
    b"UTC",
    ["UTC"],
    "",
    "A" * 256,
    "A" * 255,
    # Paths.
    "/usr/share/zoneinfo/Europe/Dublin",
    ":Europe/Dublin",
    ":/etc/passwd",
    "Europe/../../../../etc/passwd",
    "Europe/..",
    "./Europe/Dublin",
    "Europe//Dublin",
    "Europe/",
    "Europe\\Dublin",
    "C:\\zones\\x1",
    "~/zone",
    # Directories and other files of the zone data.
    "Europe",
    "America/Argentina",
    "zone.tab",
    "tzdata.zi",
    "leapseconds",
    "__pycache__",
    "__init__.py",
    # Characters.
    " ",
    "Europe/Dublin\n",
    "\tUTC",
    "UTC\x7f",
    "UTC\u2028",
    "UTC\ud800",
    "Europe/Dubl\u0456n",
    "UTC+\u0661\u0662",
    # Neither a key nor a rule.
    "Europe/Dubln",
    "Europe/Dubln2",
    "5",
    "+5",
    "UTC+",
    "UTC+x5",
    "UTC+123",
    "UTC+12345",
    "EST5EDT,M3.2.0",
    "EST5EDT,M13.1.0,M11.1.0",
    "EST5EDT,J999,J2",
    "EST5EDT,4,0,6,7200,10,0,26,7200,3600",
    "EST5EDT" + ",M3.2.0" * 30,
    # An offset of a day or more, for good or for two days a year.
    "UTC+24",
    "UTC-24",
    "UTC+2400",
    "XXX99",
    "AAA0BBB25,J10,J12",
    # As many again: blanks, upper and lower case, other slashes and dots,
    "UTC ",
    " UTC",
    "Europe/Dublin ",
    "Europe / Dublin",
    "europe/dublin",
    "utc",
    "Z",
    "Europe\u2024Dublin",
    "Europe\uff0fDublin",
    "Europe\u2215Dublin",
    "\uff0e\uff0e/x",
    "%2e%2e/x",
    "Europe%2fDublin",
    # files, devices, and what shells and templates make of a text,
    "file:///etc/localtime",
    "leap-seconds.list",
    "iso3166.tab",
    "CON",
    "Europe/CON",
    "a/" * 120 + "b",
    "~root",
    "$TZ",
    "`id`",
    "UTC;ls",
    "{}",
    "Europe/*",
    "Europe/Dublin#",
    "\u202eUTC",
    "UTC+5\ud800",
    # offsets that dateutil would take for other ones,
    "+01:00",
    "UTC+1.5",
    "UTC+1:60",
    "UTC+5:4",
    "UTC 5",
    "UTC + 5",
    "UTC++5",
    "UTC+-5",
    "UTC+\u00b2",
    "UTC+23:59:59",
    "ABC" + "9" * 200,
    # rules that dateutil would take for other ones,
    "<+03>-3",
    "<a1>5",
    "EST5;EDT",
    "EST5EDT;",
    "EST5EDT,,",
    "EST5EDT,M3.6.0,M11.1.0",
    "EST5EDT,M3.2.7,M11.1.0",
    "EST5EDT,M0.1.0,M11.1.0",
    "EST5EDT,M3.2.0/-1,M11.1.0",
    "EST5EDT,J0,J1",
    "EST5EDT,J366,J1",
    "ABC5DEF6GHI",
    # and what is no text.
    UTC,
    True,
    1.5,
    math.nan,
    [],
    {},
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=label)
def test_a_bad_timezone_is_refused_with_what_is_allowed(name: object) -> None:
    given = {"schedule": "0 12 * * *", "timezone": name}
    refused_wherever_it_is_given(given, f"timezone={repr(name)[:70]}", "'Europe/Dublin'", "'UTC+12'", "never a path")


@pytest.mark.parametrize("name", ["US/Eastern", "Factory", "GMT0", "GMT+0", "UTC0", "UTC+00:00", "EST", "a1"])
def test_an_odd_name_that_gettz_knows_is_a_zone(name: str) -> None:
    assert abs(offset_at(resolve(name), 0)) < 86_400


OPENS_OF = """
import os, sys
from anyscheduler.errors import ConfigurationError
from anyscheduler.zones import resolve

for name in ("Europe/Dublin", "UTC+5", "No/Zone", "Nowhere", "Europe"):  # loads the modules that are needed
    try:
        resolve(name)
    except ConfigurationError:
        pass
seen = []
sys.addaudithook(lambda event, arguments: seen.append(str(arguments[0])) if event == "open" else None)
for name in eval(sys.argv[1]):
    try:
        resolve(name)
    except ConfigurationError:
        pass
    else:
        seen.append(f"accepted {name!r}")
print(*seen, sep="\\n")
"""


def opened_by(names: list[object]) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", OPENS_OF, ascii(names)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    return [line for line in run.stdout.split("\n") if line]


def test_no_file_is_opened_for_a_name_that_could_choose_one() -> None:
    hostile: list[object] = ["/etc/passwd", "../x", ":x", "Eur\0ope", "Mars/Base", "UTC+25", "A" * 300]
    hostile += [":/etc/passwd", "Europe/../../../etc/passwd", "C:\\x1", "Europe/..", "~/x", "x.txt", "/dev/stdin"]
    hostile += ["..", ".", "//host/x", "\\\\host\\x"]
    assert opened_by(hostile) == []


def test_no_bad_name_opens_a_file_outside_the_zone_data() -> None:
    data = tuple(zoneinfo.TZPATH)
    for path in opened_by([name for name in BAD_NAMES if isinstance(name, str)]):
        assert path.startswith(data) or "/tzdata" in path, path

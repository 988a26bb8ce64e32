"""An app on a store into which damaged rows are smuggled, and the damage."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from anyscheduler.lease import Change, Row
from tests.loop.scene import Stopwatch, WatchedRepository, micros, shared, virtual_app

if TYPE_CHECKING:
    from anyscheduler import Context, Scheduler

HUGE = 2**62
GOOD = '{"v":1,"interval":5000000}'

SPECS = {
    "empty": "",
    "broken JSON": '{"v":1,"inter',
    "a list": "[]",
    "null": "null",
    "no trigger": '{"v":1}',
    "no version": '{"interval":5000000}',
    "a newer version": '{"v":2,"interval":5000000}',
    "a text as version": '{"v":"1","interval":5000000}',
    "an interval of text": '{"v":1,"interval":"5s"}',
    "an interval of zero": '{"v":1,"interval":0}',
    "a negative interval": '{"v":1,"interval":-5}',
    "an interval beyond everything": '{"v":1,"interval":1' + "0" * 40 + "}",
    "a cron of numbers": '{"v":1,"schedule":5}',
    "a cron that is none": '{"v":1,"schedule":"every now and then"}',
    "a zone that is none": '{"v":1,"schedule":"* * * * *","timezone":"Mars/Base"}',
    "a zone that is a path": '{"v":1,"schedule":"* * * * *","timezone":"/etc/passwd"}',
    "a zone of the wrong type": '{"v":1,"schedule":"* * * * *","timezone":[]}',
    "an instant of text": '{"v":1,"execute_at":"tomorrow"}',
    "an absurd instant": '{"v":1,"execute_at":' + str(HUGE) + "}",
    "args of a list": '{"v":1,"interval":5000000,"args":[1]}',
    "an unknown failure mode": '{"v":1,"interval":5000000,"failure_mode":"explode"}',
    "a lease of text": '{"v":1,"interval":5000000,"lease_duration":"long"}',
    "a negative lease": '{"v":1,"interval":5000000,"lease_duration":-1}',
    "a flag that is none": '{"v":1,"interval":5000000,"fast_forward":1}',
    "nested too deep": "[" * 100_000,
}

STATES = {
    "broken JSON": "{",
    "a list": "[]",
    "text": "nothing",
    "a field of the wrong type": '{"last":"soon"}',
    "another field of the wrong type": '{"fingerprint":5}',
    "nested too deep": "[" * 100_000,
}


class Scene:
    """An app with one dynamic task that works and one static one, on a store into which rows are smuggled."""

    def __init__(self, **options: object) -> None:
        self.repository = WatchedRepository()
        self.app: Scheduler = virtual_app(repository_factory=shared(self.repository))
        self.bodies: list[str] = []
        self.others: list[float] = []
        now = Stopwatch()

        @self.app.dynamic_task(**options)
        async def hello(context: Context) -> None:
            self.bodies.append(context.task.name)
            if "fails" in context.task.name:
                raise OSError("no luck")

        @self.app.task(interval=timedelta(seconds=10))
        async def other(context: Context) -> None:
            self.others.append(now())

        self.hello = hello

    async def smuggle(
        self, key: str, *, task: str = "hello", due: int = micros(5), spec: str = GOOD, state: str = ""
    ) -> Row:
        row = Row(key, task, due, min(due, micros(5)), "0", spec, state)
        assert await self.repository.inner.write([Change(key, None, row)]) == [True]
        return row

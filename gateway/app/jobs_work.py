"""The steps of the jobs process, each at its own pace, and the change of all of them in mid-course.

A reload puts other steps in the place of those of the same name, between two of their rounds; what
is new begins, what is gone ends. Nothing that is under way is cut off. What the steps do is not
known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from gateway.jobs.service import Step, Waits, run_forever, stop_between_steps
from gateway.ports.tasks import spawn


class _Place:
    """Fulfils jobs.service.Step with whichever step has its place now."""

    def __init__(self, step: Step) -> None:
        self.name, self.now = step.name, step
        self.turn = asyncio.Lock()
        self.task: asyncio.Task[None] | None = None

    async def step(self) -> float:
        return await self.now.step()


class Work:
    """All steps. `failed` is set when one ended by itself. `step_s`: who is to end and takes longer
    for a round is cut off. `waits`: see `run_forever`."""

    def __init__(self, steps: Sequence[Step], step_s: float, waits: Waits) -> None:
        self._places = {step.name: _Place(step) for step in steps}
        self._step_s, self._waits = step_s, waits
        self.failed = asyncio.Event()

    @property
    def steps(self) -> list[Step]:
        """Those of now."""
        return [place.now for place in self._places.values()]

    def start(self) -> None:
        """Begin all."""
        for place in self._places.values():
            self._begin(place)

    async def take(self, steps: Sequence[Step]) -> None:
        """Go on with these."""
        gone = dict(self._places)
        for step in steps:
            if gone.pop(step.name, None) is not None:
                self._places[step.name].now = step
            else:
                self._places[step.name] = _Place(step)
                self._begin(self._places[step.name])
        for name, place in gone.items():
            del self._places[name]
            await self._end(place)
            self._waits(name, None)

    async def states(self) -> Mapping[str, str]:
        """Each by name: ok, or failed; none before the start."""
        tasks = {name: place.task for name, place in self._places.items()}
        return {name: "failed" if task.done() else "ok" for name, task in tasks.items() if task}

    async def stop(self) -> None:
        """End all, between two rounds where that is soon."""
        await asyncio.gather(*(self._end(place) for place in self._places.values()))

    def _begin(self, place: _Place) -> None:
        place.task = spawn(run_forever(place, place.turn, self._waits), place.name)
        place.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.failed.set()

    async def _end(self, place: _Place) -> None:
        if place.task is not None:
            await stop_between_steps(place.task, place.turn, self._step_s)

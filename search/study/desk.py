"""Where the workers of a trial and its caller meet, and what clears up after them: Ray actors.

They import no torch: each is a process that must start at once.
"""

import asyncio
from typing import Any

import ray
from ray.actor import exit_actor
from ray.exceptions import RayActorError
from ray.util.placement_group import PlacementGroup, remove_placement_group

LOOK = 0.5  # seconds between looks at a worker


class Desk:
    """Hands what the first worker says to the caller, and lets it go on once that has answered."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._answers: asyncio.Queue[None] = asyncio.Queue()

    async def say(self, what: Any) -> None:
        """For the worker: returns with the caller's answer."""
        await self._said.put(what)
        await self._answers.get()

    async def hear(self) -> Any:
        """For the caller: the next thing said."""
        return await self._said.get()

    async def answer(self) -> None:
        """For the caller: the worker may go on."""
        await self._answers.put(None)


class Guard:
    """Frees the workers' placement group once the first worker is gone, and is gone itself.

    Where a trial's caller is killed, Ray ends its workers, but keeps their placement group, and so
    their CPUs and GPUs, until the whole study ends. Ray Train's own cleaner asks the dashboard
    whether the trial lives; without a dashboard it cleans up nothing and stays for ever.
    """

    async def watch(self, worker: Any, group: PlacementGroup) -> None:
        """Returns never: it ends its own process."""
        try:
            while True:
                await worker.__ray_ready__.remote()
                await asyncio.sleep(LOOK)
        except RayActorError:
            remove_placement_group(group)
        exit_actor()  # type: ignore[no-untyped-call]


def open_desk() -> Any:
    """A desk that ends with the process that opens it."""
    return ray.remote(num_cpus=0)(Desk).remote()


def set_guard(worker: Any, group: PlacementGroup) -> None:
    """Have a placement group freed when a worker ends, whoever else ends first."""
    guard: Any = ray.remote(num_cpus=0)(Guard).options(lifetime="detached").remote()
    guard.watch.remote(worker, group)

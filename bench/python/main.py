"""The handlers that `npm run bench` calls."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import synapse


@synapse.handler
def main(payload):
    return payload


@synapse.handler
async def async_main(payload):
    return payload


@synapse.handler
def echo(n: int, name: str) -> dict:
    return {"n": n, "name": name}


@synapse.handler
def items(count: int):
    for n in range(count):
        yield {"n": n}


@synapse.handler
async def async_items(count: int):
    for n in range(count):
        yield {"n": n}


@synapse.handler
def consume(rows: Iterator[dict]) -> int:
    return sum(1 for _ in rows)


@synapse.handler
async def async_consume(rows: AsyncIterator[dict]) -> int:
    count = 0
    async for _ in rows:
        count += 1
    return count


@synapse.handler
def host_calls(count: int) -> float:
    """Seconds that so many calls of the host take, one at a time."""
    begun = time.perf_counter()
    for n in range(count):
        synapse.host.call_sync("echo", n=n)
    return time.perf_counter() - begun


@synapse.handler
async def async_host_calls(count: int, at_once: int) -> float:
    """The same, so many at once."""

    async def some(share: int) -> None:
        for n in range(share):
            await synapse.host.call("echo", n=n)

    begun = time.perf_counter()
    await asyncio.gather(*(some(count // at_once) for _ in range(at_once)))
    return time.perf_counter() - begun

"""The client for asyncio (line 21 of JSockD: there was none)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from synapse import javascript
from synapse.javascript._async_client import _Calls

PATIENCE = 30.0


def run(body: Callable[[javascript.AsyncClient], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        async with javascript.AsyncClient(**{"threads": 1, **options}) as client:
            return await asyncio.wait_for(body(client), PATIENCE)

    return asyncio.run(main())


def test_jsockd_21_commands_of_tasks_run_at_once_and_each_gets_its_value() -> None:
    async def body(client: javascript.AsyncClient) -> Any:
        together = asyncio.Barrier(2) if hasattr(asyncio, "Barrier") else None

        async def meet(message: Any) -> Any:
            if together is not None:
                await together.wait()
            return message

        query = "(m, p) => JSockD.sendMessage(p) * 10"
        return await asyncio.gather(*(client.run(query, n, meet) for n in range(4)))

    assert run(body, threads=2) == [0, 10, 20, 30]


def test_handlers_of_both_kinds_run_on_the_loop() -> None:
    async def body(client: javascript.AsyncClient) -> None:
        loops: list[Any] = []

        def plain(message: Any) -> Any:
            loops.append(asyncio.get_running_loop())
            return message + 1

        async def waiting(message: Any) -> Any:
            await asyncio.sleep(0)
            return plain(message)

        query = "(m, p) => JSockD.sendMessage(p)"
        assert await client.run(query, 1, plain) == 2
        assert await client.run(query, 1, waiting) == 2
        assert await client.run_raw(query, "1", lambda message: message + "0") == "10"
        assert loops == [asyncio.get_running_loop()] * 2

    run(body)


def test_what_a_handler_raises_is_raised() -> None:
    async def body(client: javascript.AsyncClient) -> None:
        async def fail(message: Any) -> Any:
            raise LookupError("no such thing")

        with pytest.raises(LookupError, match="no such thing"):
            await client.run("() => JSockD.sendMessage(1)", None, fail)
        assert await client.run("() => 1") == 1

    run(body)


def test_a_task_that_times_out_stops_its_javascript() -> None:
    async def body(client: javascript.AsyncClient) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.run("() => { for (;;); }", timeout=None), 0.2)
        # There is one thread: it is free again.
        assert await client.run("() => 1") == 1

    run(body)


def test_a_task_that_is_cancelled_stops_its_handler_too() -> None:
    async def body(client: javascript.AsyncClient) -> None:
        is_asked, is_stopped = asyncio.Event(), asyncio.Event()

        async def wait(message: Any) -> Any:
            is_asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                is_stopped.set()

        task = asyncio.create_task(client.run("() => JSockD.sendMessage(1)", None, wait))
        await is_asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await is_stopped.wait()
        assert await client.run("() => 1") == 1

    run(body)


def test_a_handler_that_begins_as_its_task_is_cancelled_is_stopped() -> None:
    async def main() -> None:
        calls = _Calls(lambda _message: asyncio.Event().wait(), 5)
        calls.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.to_thread(calls.call, 1)

    asyncio.run(main())


def test_a_handler_that_waits_for_its_own_thread_ends() -> None:
    async def body(client: javascript.AsyncClient) -> None:
        async def nest(message: Any) -> Any:
            return await client.run("() => 1")

        with pytest.raises(TimeoutError, match="did not answer within 0"):
            await client.run("() => JSockD.sendMessage(1)", None, nest)
        assert await client.run("() => 1") == 1

    run(body, message_timeout=0.3)


def test_a_task_that_is_cancelled_while_it_waits_for_a_thread_never_runs() -> None:
    async def body(client: javascript.AsyncClient) -> None:
        is_asked, go_on = asyncio.Event(), asyncio.Event()

        async def wait(message: Any) -> Any:
            is_asked.set()
            await go_on.wait()

        first = asyncio.create_task(client.run("() => JSockD.sendMessage(1)", None, wait))
        await is_asked.wait()
        second = asyncio.create_task(client.run("() => { globalThis.ran = true; return 1 }"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go_on.set()
        assert await first is None
        assert await client.run("() => globalThis.ran ?? false") is False

    run(body)


def test_results_are_typed_and_threads_have_figures() -> None:
    async def body(client: javascript.AsyncClient) -> None:
        assert await client.run("() => [1]", returns=list[int]) == [1]
        with pytest.raises(TypeError, match="the value"):
            await client.run("() => [1]", returns=str)
        await client.reset()
        assert (await client.stats())[0].replaced == 1

    run(body)


def test_what_javascript_throws_and_what_runs_too_long_are_errors() -> None:
    async def body(client: javascript.AsyncClient) -> None:
        with pytest.raises(javascript.JavaScriptError, match="TypeError: no") as caught:
            await client.run("() => { throw Object.assign(new TypeError('no'), { code: 7 }) }")
        assert (caught.value.name, caught.value.message) == ("TypeError", "no")
        assert caught.value.properties == {"code": 7}
        with pytest.raises(javascript.JavaScriptTimeout):
            await client.run("() => { for (;;); }", timeout=0.1)

    run(body)


def test_a_client_starts_with_its_first_command_once_and_ends() -> None:
    async def main() -> None:
        client = javascript.AsyncClient(threads=1)
        assert client.process is None
        assert await asyncio.gather(*(client.run("() => 1") for _ in range(3))) == [1, 1, 1]
        process = client.process
        await client.close()
        await client.close()
        assert process is not None and process.returncode == 0
        with pytest.raises(javascript.Closed):
            await client.run("() => 1")

    asyncio.run(main())


def test_the_loop_goes_on_while_javascript_runs() -> None:
    async def body(client: javascript.AsyncClient) -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        with pytest.raises(javascript.JavaScriptTimeout):
            await client.run("() => { for (;;); }", timeout=0.3)
        ticking.cancel()
        assert ticks > 3

    run(body)


def test_threads_of_python_share_a_client() -> None:
    with javascript.Client(threads=2) as client:
        values: list[int] = []
        threads = [
            threading.Thread(target=lambda n=n: values.append(client.run("(m, p) => p", n)))
            for n in range(20)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(end - time.monotonic())
        assert sorted(values) == list(range(20))

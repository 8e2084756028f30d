"""Python that asks TypeScript: for values, for streams, from tasks and from threads."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypedDict

import synapse


class User(TypedDict):
    id: int
    name: str


class NoSuchUser(synapse.HostError):
    """The typed failure of `lookupUser`: its tag is the name of the class."""

    id: int


class Users(Protocol):
    """The host functions, for type checkers and editors."""

    async def lookupUser(self, *, id: int) -> User: ...

    def userIds(self) -> AsyncIterator[int]: ...


users = synapse.host.typed(Users)


@synapse.handler
async def greet(ids: list[int]) -> list[str]:
    """Asks for all of them at once."""

    async def greeting(id: int) -> str:
        try:
            user = await users.lookupUser(id=id)
        except NoSuchUser as error:
            return f"nobody has the number {error.id}"
        return f"hello {user['name']}"

    return await asyncio.gather(*map(greeting, ids))


@synapse.handler
async def roster() -> list[str]:
    """Reads a stream of the host."""
    return [(await users.lookupUser(id=id))["name"] async for id in users.userIds()]


@synapse.handler
def initials(ids: list[int]) -> str:
    """Asks from threads, in the blocking form."""

    def initial(id: int) -> str:
        return synapse.host.call_sync("lookupUser", id=id)["name"][0]

    with ThreadPoolExecutor(max_workers=4) as pool:
        return "".join(pool.map(initial, ids))


@synapse.handler
async def strict(id: int) -> User:
    """Lets the failure through: it crosses back as it came."""
    return await users.lookupUser(id=id)

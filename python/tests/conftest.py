from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from wire import Worker, write


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fewer",
        action="store_true",
        help="fewer cases: for the other versions of Python, when one has all of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    # The sources, which Node runs as they are: what is tested needs no build.
    server = Path(__file__).parents[2] / "src/internal/javascript/main.ts"
    os.environ.setdefault("SYNAPSE_JAVASCRIPT_SERVER", str(server))
    settings.register_profile("all", deadline=None)
    settings.register_profile("fewer", deadline=None, max_examples=10)
    settings.load_profile("fewer" if config.getoption("fewer") else "all")


# What starts processes.
_STARTERS = {"start", "launch", "kept", "run", "client", "init", "fake", "serve"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the cases of a test that starts processes, the first and the last are enough to see that
    it holds under another version.
    """
    if not config.getoption("fewer"):
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if _STARTERS.intersection(getattr(item, "fixturenames", ())):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = {id(item) for each in cases.values() for item in each[1:-1]}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if id(item) not in left_out]


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """How many random cases there are, where all of them are so many."""
    share = 10 if request.config.getoption("fewer") else 1
    return lambda count: max(1, count // share)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start a worker for the source of a module."""
    workers: list[Worker] = []

    def start(source: str, *, welcome: dict[str, int] | None = None, **options: Any) -> Worker:
        write(tmp_path, source)
        worker = Worker(tmp_path, **options)
        workers.append(worker)
        worker.welcome(**(welcome or {}))
        return worker

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Lend a worker to one test after the other, for as long as each leaves it at rest.

    To start one takes longer than most tests do.
    """
    workers: dict[tuple[Any, ...], Worker] = {}

    @contextmanager
    def lend(source: str, welcome: dict[str, int], **options: Any) -> Iterator[Worker]:
        key = (source, *sorted(welcome.items()), repr(options))
        worker = workers.pop(key, None)
        if worker is None:
            directory = tmp_path_factory.mktemp("kept")
            write(directory, source)
            worker = Worker(directory, **options)
            worker.welcome(**welcome)
        yield worker
        if worker.is_at_rest():
            workers[key] = worker
        else:
            worker.close()

    yield lend
    for worker in workers.values():
        worker.close()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start a worker without the handshake, in a directory that the test has filled."""
    workers: list[Worker] = []

    def launch(entrypoint: str = "main", **options: Any) -> Worker:
        worker = Worker(tmp_path, entrypoint, **options)
        workers.append(worker)
        return worker

    yield launch
    for worker in workers:
        worker.close()


@pytest.fixture(params=["msgspec", "msgpack", "python"])
def codec(request: pytest.FixtureRequest) -> Any:
    """Each codec in turn: what a value becomes does not depend on which is there."""
    from synapse import _codec

    return _codec.choose(request.param)

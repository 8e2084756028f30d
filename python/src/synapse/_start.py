"""From the command line to a serving worker."""

from __future__ import annotations

import _thread
import importlib
import importlib.util
import logging
import os
import re
import socket
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final, NamedTuple, NoReturn

from synapse import _codec, _cstdio, _errors, _handlers, _life, _members, _replace, _setup, _sources
from synapse._channel import Channel
from synapse._codec import Codec
from synapse._frames import HELLO, PROTOCOL_VERSION, make_frame
from synapse._handlers import Handler
from synapse._lifecycle import Lifecycle
from synapse._logs import Output
from synapse._memory import Memory, claim_files
from synapse._version import VERSION
from synapse._worker import Worker

_MODULE_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SWITCH_SECONDS: Final = 0.001
_CONTRACT: Final = "--contract"
_PROTOCOL: Final = "--protocol"


def run(arguments: list[str]) -> NoReturn:
    """Be a worker for the module that the first argument names; the process ends here.

    With the argument `--contract` after it, `Hello` carries the contract of the module. With
    `--protocol NAME`, the first argument is the path of a script that speaks that protocol.
    """
    _life.claim_descriptors()
    _life.tie_to_host()
    _life.watch_crashes()
    _life.on_interrupt()
    _life.restore_signals_in_child()
    asked = _asked(arguments)
    channel = _channel()
    memory = _memory(channel)
    broken: list[str] = []
    codec = _codec.choose(broken=broken)
    setup, early = _setup.receive(channel, codec) if _setup.is_announced() else (None, [])
    output = Output(codec)
    output.redirect()
    if broken:
        logging.getLogger("synapse").warning(
            "%s: using the codec `%s`", ", ".join(broken), codec.name
        )
    _life.close_in_child(lambda: _leave_to_parent(channel, output))
    _cstdio.line_buffer_stdout()
    # A handler that computes holds up the threads that answer cancels by as much.
    sys.setswitchinterval(_SWITCH_SECONDS)
    _add_module_directory(os.getcwd())
    _sources.watch_over(os.getcwd())
    lifecycle = Lifecycle()

    def open_worker(handlers: Mapping[str, Handler]) -> Worker:
        worker = Worker(channel, codec, handlers, output, lifecycle, memory)
        worker.count()
        return worker

    def greet(worker: Worker, hello: dict[str, Any]) -> None:
        channel.send(make_frame(HELLO, 0, codec.encode(hello)))
        output.sender.open(channel)
        _replace.attach(worker.drain)

    try:
        if setup is not None:
            setup.apply()
        if asked.protocol is not None:
            from synapse._script import Script

            script = Script(asked.protocol, asked.entrypoint, codec, output)
            worker = open_worker(script.adapter.handlers)

            def begin() -> None:
                greet(worker, _hello(codec, worker.handlers))
                _thread.start_new_thread(worker.serve, (early,))

            script.run(worker, begin)
        module = load(asked.entrypoint, os.getcwd())
        _members.check_all_claimed()
        _prepare(codec)
        lifecycle.start(module)
        # What a hook has registered.
        _prepare(codec)
    except BaseException as error:
        _fail(channel, codec, output, error)
    if any(handler.is_async for handler in _handlers.registry.values()):
        # Before `Hello`, so that the first call does not wait for it.
        importlib.import_module("synapse._loop")
    output.adopt_logging()
    worker = open_worker(_handlers.registry)
    _life.on_terminate(worker.drain.go_away)
    hello = _hello(codec, _handlers.registry)
    if asked.with_contract:
        hello["contract"] = _contract(codec, os.getcwd())
    greet(worker, hello)
    worker.serve(early)
    raise AssertionError("a worker serves until its process ends")


def _refuse(why: str) -> NoReturn:
    print(f"synapse: {why}", file=sys.stderr, flush=True)
    _life.leave_at_once(_life.EXIT_BAD_START)


class _Asked(NamedTuple):
    entrypoint: str
    #: The one that the script speaks, where there is one instead of a module.
    protocol: str | None
    with_contract: bool


def _asked(arguments: list[str]) -> _Asked:
    entrypoint, *options = arguments or [""]
    with_contract = _CONTRACT in options
    if with_contract:
        options.remove(_CONTRACT)
    protocol = None
    if len(options) == 2 and options[0] == _PROTOCOL:
        _, protocol = options
        options = []
    if not entrypoint or options:
        _refuse(
            f"expected one argument, the name of a module, and {_CONTRACT} if that is wanted; or "
            f"the path of a script, and {_PROTOCOL} with the name of what it speaks"
        )
    if protocol is not None:
        from synapse._script import PROTOCOLS

        if protocol not in PROTOCOLS:
            _refuse(f"{protocol!r} is no protocol of scripts: there is {', '.join(PROTOCOLS)}")
    elif _MODULE_NAME.fullmatch(entrypoint) is None:
        _refuse(f"{entrypoint!r} is not the name of a module")
    return _Asked(entrypoint, protocol, with_contract)


def _channel() -> Channel:
    try:
        return Channel(socket.socket(fileno=_life.CHANNEL_FD))
    except OSError:
        _refuse(f"descriptor {_life.CHANNEL_FD} is not a socket: workers are started by their host")


def _memory(channel: Channel) -> Memory:
    try:
        return Memory(channel, claim_files())
    except ValueError as error:
        _refuse(str(error))


def _leave_to_parent(channel: Channel, output: Output) -> int:
    output.sender.close()
    return channel.detach()


def _add_module_directory(directory: str) -> None:
    """Put the module's directory behind the standard library, whose modules it must not replace,
    before the rest.
    """
    for index, entry in enumerate(sys.path):
        if "site-packages" in entry or "dist-packages" in entry:
            sys.path.insert(index, directory)
            return
    # It takes long to import, and hardly any interpreter has packages elsewhere.
    import sysconfig

    paths = sysconfig.get_paths()
    packages = [paths[each] for each in ("purelib", "platlib") if paths[each] in sys.path]
    sys.path.insert(min(map(sys.path.index, packages), default=len(sys.path)), directory)


def load(entrypoint: str, directory: str) -> ModuleType:
    """Import the module of the user.

    A module at the top is loaded from its file, so that one named like a module of the standard
    library is found; it is not put in that one's place then, but known by a private name.
    """
    name = entrypoint.partition(".")[0]
    if name == "synapse":
        raise ImportError("a module cannot be called `synapse`: that is the name of the runtime")
    if "." in entrypoint:
        return importlib.import_module(entrypoint)
    for file in (f"{name}.py", os.path.join(name, "__init__.py")):
        path = os.path.join(directory, file)
        if os.path.isfile(path):
            break
    else:
        return importlib.import_module(name)
    package = [os.path.dirname(path)] if file.endswith("__init__.py") else None
    if name in sys.stdlib_module_names or name in sys.modules:
        # What looks itself up in `sys.modules`, as dataclasses do, must not find the other one.
        name = f"_synapse_{name}"
    spec = importlib.util.spec_from_file_location(
        name, path, loader=_sources.Loader(name, path), submodule_search_locations=package
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _prepare(codec: Codec) -> None:
    for handler in _handlers.registry.values():
        if not hasattr(handler, "bind"):
            handler.prepare(codec)


def _fail(channel: Channel, codec: Codec, output: Output, error: BaseException) -> NoReturn:
    hello = {**_hello(codec, _handlers.registry), "failure": _errors.describe(error)}
    channel.send(make_frame(HELLO, 0, codec.encode(hello)))
    output.adopt_logging()
    output.sender.open(channel)
    _life.end(1)


def _hello(codec: Codec, handlers: Mapping[str, Handler]) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL_VERSION,
        "runtime": VERSION,
        "python": sys.version.split()[0],
        "implementation": sys.implementation.name,
        "pid": os.getpid(),
        "codec": codec.name,
        "methods": list(map(_described, handlers.values())),
        "contract": None,
    }


def _contract(codec: Codec, directory: str) -> dict[str, Any] | None:
    # Only a worker that is asked for it needs what makes it.
    from synapse._contract import describe

    try:
        contract = describe(_handlers.registry.values(), directory)
        codec.encode(contract)
    except Exception:
        logging.getLogger("synapse").exception("the handlers cannot be described")
        return None
    return contract


def _described(handler: Handler) -> dict[str, Any]:
    described = {"name": handler.name, "stream": handler.is_stream, "async": handler.is_async}
    return described if handler.cancel == "cooperative" else described | {"cancel": handler.cancel}

"""`synapse.Server`: functions of a plain Python program, called over a network."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import ipaddress
import os
import secrets
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, NoReturn, TypeVar, overload

from synapse import _background, _codec, _discovery, _life
from synapse._channel import Channel
from synapse._codec import Codec
from synapse._declared import Error
from synapse._endpoints import Endpoint
from synapse._frames import DEFAULT_MAX_FRAME_SIZE, PROTOCOL_VERSION, WELCOME
from synapse._gateway import SLACK, Gateway, Settings, close_in_child
from synapse._handlers import Cancel, checked_name, declared, unwrapped
from synapse._hooks import check_function, check_parameters, name_of
from synapse._lifecycle import Lifecycle
from synapse._logs import Output
from synapse._memory import Memory
from synapse._oserror import reason_of
from synapse._tls import TLS
from synapse._version import VERSION
from synapse._worker import Worker

F = TypeVar("F", bound=Callable[..., Any])
Protocol = Literal["synapse", "p2p", "p2p-0"]

_PROTOCOLS: Final = ("synapse", "p2p", "p2p-0")
_BACKLOG: Final = 128
_SWITCH_SECONDS: Final = 0.001
# How long the last answers have to leave, once the worker is done.
_FINISHING_SECONDS: Final = 0.8
# All clients together; each has its own limit.
_MAX_OPEN_CALLS: Final = 1 << 20

LOGO: Final = """\
███████╗██╗   ██╗███╗   ██╗ █████╗ ██████╗ ███████╗███████╗
██╔════╝╚██╗ ██╔╝████╗  ██║██╔══██╗██╔══██╗██╔════╝██╔════╝
███████╗ ╚████╔╝ ██╔██╗ ██║███████║██████╔╝███████╗█████╗
╚════██║  ╚██╔╝  ██║╚██╗██║██╔══██║██╔═══╝ ╚════██║██╔══╝
███████║   ██║   ██║ ╚████║██║  ██║██║     ███████║███████╗
╚══════╝   ╚═╝   ╚═╝  ╚═══╝╚═╝  ╚═╝╚═╝     ╚══════╝╚══════╝
"""


class Server:
    """Serves functions of this program over TCP: to `Synapse.connect` and to `synapse.Client`.

    All calls of all clients run in this process, as those of a worker do: asynchronous endpoints
    side by side, plain ones `concurrency` at a time on the main thread or in threads. Streams,
    cancellation, deadlines, progress, `synapse.context()` and `synapse.host`, which is whoever
    made the call, are there as in a worker.

    Args:
        namespace: What clients on this machine find the server by.
        address: Where to listen. The default is reached from this machine alone.
        port: The port; 0: a free one. Default: `SYNAPSE_PORT`, or 9999.
        token: What clients have to know. Default: `SYNAPSE_TOKEN`, or else a new one, which is
            written where clients of this user find it. `False`: none, for loopback addresses only.
        tls: The certificates of the server; with a `ca`, those of clients are asked for too.
            Default: none.
        protocols: What is spoken, of `"synapse"`, `"p2p"` and `"p2p-0"`. The two wires of
            synapse-p2p know neither tokens nor TLS: they need a loopback address and no TLS.
        concurrency: How many plain endpoints run at once.
        max_frame_size: Bytes of the largest message in either direction.
        max_open_calls: How many calls one client may have open at once.
        max_connections: How many connections there may be at once.
        handshake_timeout: The seconds a client has to say who it is.
        grace: The seconds that open calls have when the server is stopped.

    Raises:
        ValueError: An option cannot be what it is. TypeError: The same, for its type.

    Example:
        >>> import synapse
        >>> app = synapse.Server(namespace="example", port=0)
        >>> @app.endpoint
        ... async def add(a: int, b: int) -> int:
        ...     return a + b
    """

    def __init__(
        self,
        *,
        namespace: str | None = None,
        address: str = "127.0.0.1",
        port: int | str | None = None,
        token: str | Literal[False] | None = None,
        tls: TLS | ssl.SSLContext | None = None,
        protocols: Sequence[Protocol] = ("synapse",),
        concurrency: int = 1,
        max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
        max_open_calls: int = 1024,
        max_connections: int = 1024,
        handshake_timeout: float = 2.0,
        grace: float = 2.0,
    ) -> None:
        self.namespace = _checked_namespace(namespace)
        self.address = address
        self.port = _checked_port(port)
        self._protocols = _checked_protocols(protocols)
        self._token = _checked_token(token)
        self._tls = tls.server_context() if isinstance(tls, TLS) else tls
        numbers = {
            "concurrency": (concurrency, 1),
            "max_frame_size": (max_frame_size, 4096),
            "max_open_calls": (max_open_calls, 1),
            "max_connections": (max_connections, 1),
        }
        for name, (value, least) in numbers.items():
            if type(value) is not int or value < least:
                raise ValueError(f"`{name}` is a whole number of at least {least}, not {value!r}")
        self._concurrency = concurrency
        self._max_frame_size = max_frame_size
        self._max_open_calls = max_open_calls
        self._max_connections = max_connections
        self._handshake_timeout = handshake_timeout
        self._grace = grace
        self._endpoints: dict[str, Endpoint] = {}
        self._background: list[_background.Repeated] = []
        self._check_open()

    def _check_open(self) -> None:
        if _is_loopback(self.address):
            return
        if self._token is False:
            raise ValueError(
                f"a server without a token can be called by whoever reaches it: {self.address} is "
                "no loopback address, leave `token` out or give one"
            )
        old = [each for each in self._protocols if each != "synapse"]
        if old:
            raise ValueError(
                f"the protocol {old[0]!r} knows no token: it needs a loopback address, which "
                f"{self.address} is not"
            )

    @overload
    def endpoint(self, function: F, /) -> F: ...

    @overload
    def endpoint(
        self,
        name: str | None = None,
        /,
        *,
        raises: type[Error] | Iterable[type[Error]] = (),
        cancel: Cancel = "cooperative",
        stream: bool = False,
    ) -> Callable[[F], F]: ...

    def endpoint(
        self,
        function: Any = None,
        /,
        *,
        raises: Any = (),
        cancel: Cancel = "cooperative",
        stream: bool = False,
    ) -> Any:
        """Let clients call a function: bare, `@app.endpoint("name")`, or with options.

        It is what `synapse.handler` makes of a function, with two differences. Clients that call
        by position, as `synapse.Client` and those of synapse-p2p do, may. And parameters called
        `rpc` and `node`, or `**kwargs`, are given the call, with its `endpoint` and `args`, and
        who makes it, with an `identifier`, an `ip` and a `port`.

        Args:
            function: The function, or the name to call it by.
            raises: The declared errors, as for `synapse.handler`.
            cancel: What becomes of a call that was given up, as there.
            stream: Whether what the function returns is streamed, as there.

        Raises:
            TypeError: It is no function, or its parameters cannot be filled.
            ValueError: The name is none, or belongs to another endpoint.
        """

        def decorate(decorated: F) -> F:
            check_function(decorated, "app.endpoint")
            given = function if isinstance(function, str) else None
            name = checked_name(given or getattr(unwrapped(decorated), "__name__", None), decorated)
            if name in self._endpoints:
                raise ValueError(f"two endpoints are called `{name}`")
            of = declared(raises, name)
            self._endpoints[name] = Endpoint(decorated, name, of, cancel, stream)
            return decorated

        return decorate if function is None or isinstance(function, str) else decorate(function)

    def background(self, seconds: float) -> Callable[[F], F]:
        """Call a function again and again while the server runs.

        The first run begins after `seconds`, each other one `seconds` after the end of the one
        before. What a run raises is logged, and the next one comes as ever.

        Raises:
            TypeError: `seconds` is no number, or the function takes arguments. ValueError: It is
            not more than 0.
        """
        interval = _background.checked_interval(seconds)

        def decorate(function: F) -> F:
            check_function(function, "app.background")
            name = name_of(function)
            check_parameters(function, "app.background", name)
            each = _background.Repeated(function, name, interval, waits_first=True)
            self._background.append(each)
            return function

        return decorate

    def run(self) -> NoReturn:
        """Serve until Ctrl-C, SIGTERM or a `synapse.replace_me()`; the process ends then.

        Open calls have the `grace`; functions of `synapse.on_stop` and `atexit` run. It says on
        stdout where it listens and what there is.

        Raises:
            RuntimeError: This is not the main thread. OSError: The address cannot be had.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a server runs on the main thread of its program")
        codec = _codec.choose()
        for each in self._endpoints.values():
            each.prepare(codec)
        _background.registry.extend(self._background)
        lifecycle = Lifecycle()
        output = Output(codec)
        lifecycle.start(sys.modules["__main__"])
        listener = self._bind()
        self.port = listener.getsockname()[1]
        token, token_file = self._find_token()
        ours, theirs = socket.socketpair()
        close_in_child(ours, theirs, listener)
        if any(each.is_async for each in self._endpoints.values()):
            importlib.import_module("synapse._loop")
        sys.setswitchinterval(_SWITCH_SECONDS)
        gateway = Gateway(self._settings(codec, token), theirs)
        channel = Channel(ours)
        worker = Worker(channel, codec, self._endpoints, output, lifecycle, Memory(channel, 0))
        worker.count()
        _life.on_stop(lambda: gateway.stop(self._grace))
        gateway.start(listener)
        self._publish(token_file)
        # The last thing that a worker does is what is registered so.
        atexit.register(_finish, gateway, ours)
        self._print_banner(token_file)
        worker.serve([(WELCOME, 0, b"", bytearray(codec.encode(self._welcome())))])
        raise AssertionError("a worker serves until its process ends")

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        try:
            return socket.create_server((self.address, self.port), family=family, backlog=_BACKLOG)
        except OSError as error:
            why = f"cannot listen on {self.address}:{self.port}: {reason_of(error)}"
            raise OSError(error.errno, why) from None

    def _settings(self, codec: Codec, token: str | None) -> Settings:
        return Settings(
            codec=codec,
            handlers=self._endpoints,
            namespace=self.namespace,
            token=token,
            protocols=self._protocols,
            tls=self._tls,
            max_frame_size=self._max_frame_size,
            max_open_calls=self._max_open_calls,
            max_connections=self._max_connections,
            handshake_seconds=self._handshake_timeout,
        )

    def _welcome(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL_VERSION,
            "maxFrameSize": self._max_frame_size + SLACK,
            "concurrency": self._concurrency,
            "maxOpenCalls": _MAX_OPEN_CALLS,
            "evaluate": False,
        }

    def _find_token(self) -> tuple[str | None, str | None]:
        """The token, and the file that it has been written to."""
        if self._token is False or "synapse" not in self._protocols:
            return None, None
        token = (
            self._token or os.environ.get("SYNAPSE_TOKEN", "").strip() or secrets.token_urlsafe(32)
        )
        path = str(_discovery.write_token(token, self.port))
        atexit.register(_remove, path)
        return token, path

    def _publish(self, token_file: str | None) -> None:
        anywhere = self.address in ("", "0.0.0.0", "::")
        path = _discovery.publish(
            _discovery.Found(
                namespace=self.namespace,
                pid=os.getpid(),
                host="127.0.0.1" if anywhere else self.address,
                port=self.port,
                token=token_file,
                tls=self._tls is not None,
                protocols=self._protocols,
            )
        )
        atexit.register(_remove, str(path))

    def _print_banner(self, token_file: str | None) -> None:
        lines = [LOGO, f"⚡ synapse v{VERSION}", ""]
        if self.namespace is not None:
            lines += [f"Publishing endpoints to namespace {self.namespace}", ""]
        lines += [f"Listening on {self.address}:{self.port}"]
        if token_file is not None:
            lines += [f"Token in {token_file}"]
        if self._tls is None and not _is_loopback(self.address):
            lines += ["Not encrypted: give the server `tls` on networks that others use"]
        lines += ["", "Registered Endpoints:", *(f"- {name}" for name in self._endpoints)]
        if self._background:
            tasks = (f"- {each.name} ({each.seconds:g}s)" for each in self._background)
            lines += ["", "Background Tasks:", *tasks]
        print("\n".join(lines), flush=True)


def _finish(gateway: Gateway, channel: socket.socket) -> None:
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_WR)
    gateway.finish(_FINISHING_SECONDS)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _checked_namespace(namespace: Any) -> str | None:
    if namespace is None or (isinstance(namespace, str) and namespace.strip()):
        return namespace
    raise ValueError(f"a namespace is a text such as 'example.service', not {namespace!r}")


def _checked_port(port: Any) -> int:
    given = os.environ.get("SYNAPSE_PORT", _discovery.DEFAULT_PORT) if port is None else port
    try:
        number = int(given)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < 65536 or isinstance(given, (bool, float)):
        raise ValueError(f"a port is a number from 0 to 65535, not {given!r}")
    return number


def _checked_protocols(protocols: Any) -> tuple[str, ...]:
    chosen = tuple(protocols) if not isinstance(protocols, str) else (protocols,)
    unknown = [each for each in chosen if each not in _PROTOCOLS]
    if unknown or not chosen:
        raise ValueError(
            f"`protocols` is a list of {', '.join(map(repr, _PROTOCOLS))}, not {protocols!r}"
        )
    return chosen


def _checked_token(token: Any) -> str | Literal[False] | None:
    if token is None or token is False:
        return token
    if not isinstance(token, str) or not token.strip():
        raise ValueError("a token is a text that is not empty, or False for none")
    return token


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False

"""The names of JSockD's Python client, over `synapse.javascript`: a program moves by its import.

    from synapse.javascript.jsockd import DefaultConfig, init_jsockd_client_via_auto_download

Nothing is downloaded, and no `jsockd` is started: Node runs the JavaScript.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from synapse._version import VERSION as JSOCKD_VERSION
from synapse.javascript._client import Client
from synapse.javascript._connection import Command
from synapse.javascript._errors import JavaScriptError, NodeError, RestartLimit
from synapse.javascript._logs import LogRecord

__all__ = [
    "JSOCKD_VERSION",
    "Config",
    "DefaultConfig",
    "JSockDClient",
    "JSockDClientError",
    "JSockDJSException",
    "RawResponse",
    "Response",
    "init_jsockd_client",
    "init_jsockd_client_via_auto_download",
]

T = TypeVar("T")
Logger = Callable[["datetime | None", str, str], None]

#: What JSockD lets a command run when it is not told otherwise.
_DEFAULT_RUNTIME_US: Final = 250_000
_MAX_COMMAND: Final = 1024 * 1024
#: What JSockD says where it has no exception to show.
_TEXTS: Final = {
    "compile": "error compiling command",
    "param": "JSON input parse error",
    "unserializable": "unserializable return value",
    "serialize": "error attempting to JSON serialize return value",
}


class JSockDClientError(Exception):
    """The server does not start, is gone, did not answer in time, or a message handler failed."""


class JSockDJSException(JSockDClientError):
    """JavaScript threw; `result_json` is what the server says of it."""

    def __init__(self, result_json: str) -> None:
        super().__init__("JavaScript exception")
        self.result_json = result_json


@dataclass(slots=True)
class Config:
    """The options of a client; `DefaultConfig` makes one. Times are in microseconds."""

    #: How many commands run at once.
    NThreads: int
    #: A JavaScript module, signed or not, that functions get as their first parameter.
    BytecodeModuleFile: str = ""
    #: The public key of the module's signer, in hexadecimal; with it, the module must be signed.
    BytecodeModulePublicKey: str = ""
    #: The source map of the module.
    SourceMap: str = ""
    #: After how long without a command a thread gives up its runtime; 0 for never.
    MaxIdleTimeUs: int = 0
    #: How long JavaScript may run in a command; 0 for 250 ms.
    MaxCommandRuntimeUs: int = 0
    #: How long starting, connecting, a whole command and the end may take.
    TimeoutUs: int = 15_000_000
    #: Whether a server of another version is taken.
    SkipJSockDVersionCheck: bool = False
    #: Gets each record of the log: its time, its level and its text.
    Logger: Logger | None = None
    #: How often a server that ended by itself is started again within a minute; 0 for never.
    MaxRestartsPerMinute: int = 1
    #: Is put before the texts of the server itself, not of JavaScript.
    LogPrefix: str = ""


def _print(timestamp: datetime | None, level: str, message: str) -> None:
    print(f"[jsockd] {message}")


def DefaultConfig() -> Config:
    """The options that JSockD's client has by default."""
    return Config(NThreads=os.cpu_count() or 1, Logger=_print)


@dataclass(slots=True)
class RawResponse:
    """How a command ended, as JSON."""

    Exception: bool
    ResultJson: str


@dataclass(slots=True)
class Response(Generic[T]):
    """How a command ended; `Result` is `None` when it threw."""

    Exception: bool
    Result: T
    RawResponse: RawResponse


class JSockDClient:
    """A client, as `init_jsockd_client` makes it."""

    def __init__(self, client: Client, config: Config) -> None:
        self._client = client
        self._timeout = config.TimeoutUs / 1e6
        self._runtime = (config.MaxCommandRuntimeUs or _DEFAULT_RUNTIME_US) / 1e6
        self._closing = threading.Lock()
        self._is_closed = False
        self._fatal: BaseException | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of the server."""
        return self._client.process

    def get_jsockd_process(self) -> subprocess.Popen[bytes]:
        """The process of the server."""
        return self._client.process

    def run(
        self,
        query: str,
        param: Any = None,
        message_handler: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Run a function `(m, p) => …` and return its value.

        Raises:
            JSockDJSException: JavaScript threw.
            JSockDClientError: It was not run, or not to its end.
        """
        response = self._send(query, param, message_handler)
        if response.Exception:
            raise JSockDJSException(response.RawResponse.ResultJson)
        return response.Result

    def run_raw(
        self,
        query: str,
        json_param: str,
        message_handler: Callable[[str], str] | None = None,
    ) -> str:
        """Like `run`, with JSON as text."""
        response = self.send_raw_command(query, json_param, message_handler)
        if response.Exception:
            raise JSockDJSException(response.ResultJson)
        return response.ResultJson

    def send_command(
        self,
        query: str,
        json_param: Any,
        message_handler: Callable[[Any], Any] | None = None,
    ) -> Response[Any]:
        """Like `run`, and an exception of JavaScript is a response."""
        return self._send(query, json_param, message_handler)

    def send_command_with_message_handler(
        self, query: str, json_param: Any, message_handler: Callable[[Any], Any]
    ) -> Response[Any]:
        """Like `send_command`."""
        return self._send(query, json_param, message_handler)

    def send_raw_command(
        self,
        query: str,
        json_param: str,
        message_handler: Callable[[str], str] | None = None,
    ) -> RawResponse:
        """Like `run_raw`, and an exception of JavaScript is a response."""
        failures: list[BaseException] = []

        def handle(message: bytes) -> bytes:
            try:
                if message_handler is None:
                    raise JSockDClientError("no message handler")
                answer = message_handler(message.decode())
                json.loads(answer)
                return answer.encode()
            except Exception as error:
                failures.append(error)
                raise

        source, param = query.encode(), json_param.encode()
        if len(source) + len(param) > _MAX_COMMAND:
            return RawResponse(True, json.dumps("jsockd command was too long"))
        command = Command(query, param, "json", handle, self._runtime, self._timeout, self._timeout)
        try:
            result = self._client.execute(command).decode()
            self._fatal = None
            return RawResponse(False, result)
        except JavaScriptError as error:
            return RawResponse(True, _result_json(error))
        except Exception as error:
            if failures and error is failures[-1]:
                raise JSockDClientError(f"message handler error: {error}") from error
            if isinstance(error, NodeError):
                self._fatal = error if isinstance(error, RestartLimit) else None
                raise JSockDClientError(str(error)) from error
            raise

    def _send(
        self, query: str, param: Any, message_handler: Callable[[Any], Any] | None
    ) -> Response[Any]:
        def handle(message: str) -> str:
            assert message_handler is not None
            return json.dumps(message_handler(json.loads(message)), separators=(",", ":"))

        raw = self.send_raw_command(
            query,
            json.dumps(param, separators=(",", ":")),
            None if message_handler is None else handle,
        )
        return Response(raw.Exception, None if raw.Exception else json.loads(raw.ResultJson), raw)

    def close(self) -> None:
        """End the server; a second call does nothing.

        Raises:
            JSockDClientError: The server had ended by itself, and could not be started again.
        """
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        self._client.close()
        if self._fatal is not None:
            raise JSockDClientError(str(self._fatal)) from self._fatal


def init_jsockd_client(config: Config, jsockd_exec: str = "") -> JSockDClient:
    """Start a server.

    Args:
        config: Its options.
        jsockd_exec: Node's executable, or a server program that Node runs; anything else, such as
            the path of a `jsockd`, is not used, and Node is looked for.

    Raises:
        JSockDClientError: It does not start.
    """
    if config.NThreads <= 0:
        raise JSockDClientError("NThreads must be greater than zero.")
    name = Path(jsockd_exec).name
    try:
        client = Client(
            threads=config.NThreads,
            module=config.BytecodeModuleFile or None,
            public_key=config.BytecodeModulePublicKey or None,
            source_map=config.SourceMap or None,
            start_timeout=config.TimeoutUs / 1e6,
            stop_timeout=config.TimeoutUs / 1e6,
            idle_timeout=config.MaxIdleTimeUs / 1e6,
            max_restarts_per_minute=config.MaxRestartsPerMinute,
            node=jsockd_exec if name.removesuffix(".exe") in ("node", "nodejs") else None,
            server=jsockd_exec if name.endswith((".js", ".mjs", ".ts")) else None,
            check_version=not config.SkipJSockDVersionCheck,
            on_log=_to_on_log(config),
            log_prefix=config.LogPrefix,
        )
    except (NodeError, ValueError) as error:
        raise JSockDClientError(str(error)) from error
    return JSockDClient(client, config)


def init_jsockd_client_via_auto_download(config: Config) -> JSockDClient:
    """Start a server with the Node that is found; nothing is downloaded.

    Raises:
        JSockDClientError: There is no Node, or the server does not start.
    """
    return init_jsockd_client(config)


def _to_on_log(config: Config) -> Callable[[LogRecord], None]:
    def on_log(record: LogRecord) -> None:
        if config.Logger is None:
            return
        is_console = record.source.startswith("console.")
        message = f"<{record.source}>: {record.message}" if is_console else record.message
        config.Logger(record.time, record.level.upper(), message)

    return on_log


def _result_json(error: JavaScriptError) -> str:
    text = _TEXTS.get(error.kind)
    return error.result_json if text is None else json.dumps(text)

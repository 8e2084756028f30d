"""What the host says before a worker imports its module: secrets, and limits."""

from __future__ import annotations

import os
import sys
from typing import Any, Final, NamedTuple

from synapse._channel import Channel
from synapse._codec import Codec, DecodeIssue
from synapse._faults import leave_broken
from synapse._frames import SETUP, Frame, ProtocolBroken

_VARIABLE: Final = "SYNAPSE_SETUP"
_WHOLE_NUMBERS: Final = {
    "addressSpace": "memoryMiB",
    "cpuSeconds": "cpuTime",
    "openFiles": "openFiles",
}


class Setup(NamedTuple):
    env: dict[str, str]
    limits: dict[str, Any]

    def apply(self) -> None:
        """Put the secrets into the environment, and set the limits.

        Raises:
            RuntimeError: A limit cannot be set; the message names the option.
            ValueError: A secret cannot be in an environment.
        """
        # The first one counts what the rest needs.
        if "cgroup" in self.limits:
            _join(self.limits["cgroup"])
        for name in _WHOLE_NUMBERS:
            if name in self.limits:
                _limit(name, self.limits[name])
        for name, value in self.env.items():
            try:
                os.environ[name] = value
            except ValueError as error:
                raise ValueError(f"the variable {name!r} cannot be set: {error}") from None


def is_announced() -> bool:
    """Whether a `Setup` is to come. The module does not see what told so."""
    return os.environ.pop(_VARIABLE, "") == "1"


def receive(channel: Channel, codec: Codec) -> tuple[Setup, list[Frame]]:
    """Wait for the `Setup`, and return what came with it; the process ends when something else
    comes, or nothing.
    """
    on_host_gone = channel.on_host_gone
    channel.on_host_gone = _end_of_file
    try:
        frames: list[Frame] = []
        while not frames:
            frames = channel.read()
        kind, _, _, payload = frames[0]
        if kind != SETUP:
            raise ProtocolBroken(f"its first frame is of kind {kind} and no Setup")
        return _parse(codec, payload), frames[1:]
    except ProtocolBroken as error:
        leave_broken(error)
    finally:
        channel.on_host_gone = on_host_gone


def _end_of_file() -> None:
    leave_broken(ProtocolBroken("it said that a Setup comes, and its stream has ended"))


def _parse(codec: Codec, payload: Any) -> Setup:
    try:
        setup = codec.decode(payload)
    except DecodeIssue:
        # No more than that: there are secrets in it.
        raise ProtocolBroken("a Setup that does not decode") from None
    if not isinstance(setup, dict):
        raise ProtocolBroken("a Setup that is no map")
    env, limits = (_map(setup, key) for key in ("env", "limits"))
    if not all(isinstance(each, str) for pair in env.items() for each in pair):
        raise ProtocolBroken("a Setup whose `env` is not text")
    for name, value in limits.items():
        if name == "cgroup" and isinstance(value, str):
            continue
        if name not in _WHOLE_NUMBERS or type(value) is not int or value < 1:
            raise ProtocolBroken(f"a Setup with a limit that is none: `{name}`")
    return Setup(env, limits)


def _map(setup: dict[Any, Any], key: str) -> dict[Any, Any]:
    value = setup.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ProtocolBroken(f"a Setup whose `{key}` is no map")
    return value


def _join(group: str) -> None:
    try:
        with open(os.path.join(group, "cgroup.procs"), "w") as file:
            # Whoever writes it.
            file.write("0")
    except OSError as error:
        raise RuntimeError(
            f"limits.memoryMiB: the worker cannot join its control group {group}: {error}"
        ) from None


def _limit(name: str, value: int) -> None:
    try:
        import resource

        if name == "addressSpace":
            if sys.platform == "darwin":
                raise OSError("macOS does not keep to it")
            resource.setrlimit(resource.RLIMIT_AS, (value, value))
        elif name == "cpuSeconds":
            # A second before the kernel kills the process, it sends the signal that says why.
            resource.setrlimit(resource.RLIMIT_CPU, (value, value + 1))
        else:
            resource.setrlimit(resource.RLIMIT_NOFILE, (value, value))
    except (ImportError, OSError, OverflowError, ValueError) as error:
        raise RuntimeError(
            f"limits.{_WHOLE_NUMBERS[name]}: a limit of {value} cannot be set: {error}"
        ) from None

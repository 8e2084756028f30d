"""Values as JSON, with what JSON has no words for as objects with a `$synapse` key: bytes, integers
beyond 2^53, dates, and the numbers that are not finite. `values.ts` is the other side.
"""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import datetime
from typing import Any, Final

from synapse._encode import EncodeIssue, plain
from synapse._msgpack import TIMESTAMP, Extension, from_timestamp

_TAG: Final = "$synapse"
#: What may need a walk: a whole number of many digits, or what looks like a tag.
_RARE: Final = re.compile(r"(?<![\d.])\d{16,}(?![\d.eE])|\"\$synapse\"")
_LARGEST_SAFE: Final = (1 << 53) - 1


def encode(value: Any) -> bytes:
    """The JSON of a value.

    Raises:
        EncodeIssue: There is no way to carry it.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if _RARE.search(text) is None:
            return text.encode()
    except (TypeError, ValueError, RecursionError):
        # Not as it is: walking the value finds another form of it, or where the fault is.
        pass
    try:
        walked = _tag(plain(value), "$")
    except RecursionError:
        raise EncodeIssue("$", "nested too deep, or within itself") from None
    return json.dumps(walked, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def decode(text: bytes | str) -> Any:
    """The value of a JSON text that the server wrote."""
    tag = _TAG if isinstance(text, str) else _TAG.encode()
    return json.loads(text, object_hook=_untag) if tag in text else json.loads(text)  # type: ignore[operator]


def _tag(value: Any, path: str) -> Any:
    kind = type(value)
    if kind is dict:
        if _TAG in value:
            return {
                _TAG: "map",
                "value": [[k, _tag(v, f"{path}.{k}")] for k, v in value.items()],
            }
        return {_key(k, path): _tag(v, f"{path}.{k}") for k, v in value.items()}
    if kind is list:
        return [_tag(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if kind is int and not -_LARGEST_SAFE <= value <= _LARGEST_SAFE:
        return _tagged("int", str(value))
    if kind is float and not math.isfinite(value):
        return _tagged("float", _NAMES.get(value, "NaN"))
    if kind is bytes:
        return _tagged("bytes", base64.b64encode(value).decode())
    if kind is Extension:
        if value.code == TIMESTAMP:
            return _tagged("date", from_timestamp(bytes(value.data)).isoformat())
        raise EncodeIssue(path, "an array or a table: make a list or bytes of it")
    return value


_NAMES: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}


def _key(key: Any, path: str) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, (bool, int, float)):
        return json.dumps(key)
    raise EncodeIssue(path, f"cannot carry a `{type(key).__qualname__}` as a key")


def _tagged(kind: str, value: str) -> dict[str, str]:
    return {_TAG: kind, "value": value}


def _untag(value: dict[str, Any]) -> Any:
    if _TAG not in value:
        return value
    kind, carried = value[_TAG], value["value"]
    if kind == "bytes":
        return base64.b64decode(carried)
    if kind == "int":
        return int(carried)
    if kind == "float":
        return float(carried.replace("Infinity", "inf"))
    if kind == "date":
        return datetime.fromisoformat(carried.replace("Z", "+00:00"))
    if kind == "map":
        return {_hashable(key): item for key, item in carried}
    raise ValueError(f"a value of the unknown kind {kind!r}")


def _hashable(key: Any) -> Any:
    if isinstance(key, list):
        return tuple(_hashable(item) for item in key)
    return json.dumps(key) if isinstance(key, dict) else key

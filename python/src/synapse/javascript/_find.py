"""Where Node is, and the program that it runs here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from synapse.javascript._errors import NodeNotFound

_SERVER: Final = Path("dist/internal/javascript/main.js")
_PACKAGE: Final = Path("node_modules/effect-synapse")
#: The `node` package of npm, which brings a Node of a fixed version.
_NODE_PACKAGE: Final = Path("node_modules/node/bin")
# `python/src/synapse/javascript/_find.py` lies in the npm package, beside `dist`.
_NPM_PACKAGE: Final = Path(__file__).resolve().parents[4]


def find_server(server: str | os.PathLike[str] | None = None) -> Path:
    """The server program: the one that is named, the one of `SYNAPSE_JAVASCRIPT_SERVER`, that of
    the npm package this file lies in, or of an `effect-synapse` that is installed in the working
    directory or above it.

    Raises:
        NodeNotFound: It is in none of these places.
    """
    named = server or os.environ.get("SYNAPSE_JAVASCRIPT_SERVER")
    if named:
        path = Path(named).absolute()
        if path.is_file():
            return path
        raise NodeNotFound(f"there is no server at {path}")
    places = [_NPM_PACKAGE / _SERVER, *(above / _PACKAGE / _SERVER for above in _upwards())]
    for place in places:
        if place.is_file():
            return place
    raise NodeNotFound(
        "the server of synapse.javascript is not here: it is part of the npm package"
        " `effect-synapse`, which this Python package does not lie in. Run `npm install"
        " effect-synapse` in this directory or above it, or name the server with server=… or"
        f" SYNAPSE_JAVASCRIPT_SERVER (it is {_SERVER} of the package); looked at "
        + ", ".join(map(str, places))
    )


def find_node(node: str | os.PathLike[str] | None, server: Path) -> Path:
    """Node: the one that is named, that of `SYNAPSE_NODE`, the npm package `node` beside the server
    or the working directory, or the one on the path.

    Raises:
        NodeNotFound: It is in none of these places.
    """
    named = node or os.environ.get("SYNAPSE_NODE")
    if named:
        found = shutil.which(named)
        if found is not None:
            return Path(found).absolute()
        raise NodeNotFound(f"there is no executable file {os.fspath(named)}")
    for above in (*server.parents, *_upwards()):
        packaged = shutil.which("node", path=os.fspath(above / _NODE_PACKAGE))
        if packaged is not None:
            return Path(packaged)
    found = shutil.which("node")
    if found is not None:
        return Path(found).absolute()
    raise NodeNotFound(
        "Node is not on the path: install Node 22.19 or later, or its npm package with `npm"
        " install node`, or name it with node=… or SYNAPSE_NODE"
    )


def _upwards() -> Iterator[Path]:
    here = Path.cwd()
    yield here
    yield from here.parents

"""Keys and signatures of modules, which Node makes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from synapse.javascript._errors import NodeError
from synapse.javascript._find import find_node, find_server


def generate_keys(
    prefix: str | os.PathLike[str], *, node: str | os.PathLike[str] | None = None
) -> tuple[Path, Path]:
    """Make a pair of ed25519 keys, in hexadecimal, as `prefix.pubkey` and `prefix.privkey`; returns
    their paths.

    Raises:
        NodeError: Node does not do it; the message says why.
    """
    _run(node, "keys", os.fspath(prefix))
    return Path(f"{os.fspath(prefix)}.pubkey"), Path(f"{os.fspath(prefix)}.privkey")


def sign(
    module: str | os.PathLike[str],
    out: str | os.PathLike[str],
    private_key: str | os.PathLike[str],
    *,
    node: str | os.PathLike[str] | None = None,
) -> None:
    """Write a module with its signature, for `Client(module=out, public_key=…)`.

    Args:
        module: An ECMAScript module that imports nothing but modules of Node: bundle it first.
        out: Where the signed module goes.
        private_key: The file of the private key.
        node: Node's executable, where it is not found by itself.

    Raises:
        NodeError: Node does not do it; the message says why.
    """
    _run(node, "sign", os.fspath(module), os.fspath(out), os.fspath(private_key))


def _run(node: str | os.PathLike[str] | None, *args: str) -> None:
    server = find_server()
    done = subprocess.run(
        [find_node(node, server), server, *args], capture_output=True, encoding="utf-8"
    )
    if done.returncode != 0:
        raise NodeError(done.stderr.strip())

"""How two peers that meet over a network make sure of each other, before the first frame.

Either side proves that it knows the token without sending it: an impostor learns nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Final

MAGIC: Final = b"SYNAPSE"
VERSION: Final = 1
NONCE_SIZE: Final = 32
PROOF_SIZE: Final = 32
#: Of the first message of either side: the magic, one byte, a nonce.
GREETING_SIZE: Final = len(MAGIC) + 1 + NONCE_SIZE
#: Of what the server says to a proof: whether it holds, and its own proof.
VERDICT_SIZE: Final = 1 + PROOF_SIZE

# The byte of the server's greeting.
OPEN: Final = 0
TOKEN: Final = 1
OTHER_VERSION: Final = 255

REFUSED: Final = bytes(VERDICT_SIZE)


def make_nonce() -> bytes:
    return os.urandom(NONCE_SIZE)


def greeting(byte: int, nonce: bytes) -> bytes:
    return MAGIC + bytes((byte,)) + nonce


def parse_greeting(data: bytes) -> tuple[int, bytes] | None:
    """The byte and the nonce of a greeting; `None` where it is none."""
    if len(data) != GREETING_SIZE or not data.startswith(MAGIC):
        return None
    return data[len(MAGIC)], data[len(MAGIC) + 1 :]


def client_proof(token: str, client_nonce: bytes, server_nonce: bytes) -> bytes:
    return _proof(token, b"client", client_nonce, server_nonce)


def server_proof(token: str, client_nonce: bytes, server_nonce: bytes) -> bytes:
    return _proof(token, b"server", client_nonce, server_nonce)


def _proof(token: str, role: bytes, client_nonce: bytes, server_nonce: bytes) -> bytes:
    return hmac.digest(token.encode(), role + client_nonce + server_nonce, hashlib.sha256)


def holds(proof: bytes, expected: bytes) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(proof, expected)

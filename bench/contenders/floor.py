"""The other end of the floor: bytes come back as they came, by blocking calls, with nothing decoded.

`floor.py echo`: whatever one read gives is one write. `floor.py frames N`, the Nth of several: all whole frames of one
read are one write; a frame is a length of four bytes and as many bytes. `floor.py whole SIZE`: messages of one size, read into one buffer.
"""

import os
import socket
import sys
from struct import Struct

CHANNEL = 3


def echo() -> None:
    while chunk := os.read(CHANNEL, 65536):
        os.write(CHANNEL, chunk)


def frames() -> None:
    channel = socket.socket(fileno=CHANNEL)
    length = Struct("<I").unpack_from
    rest = b""
    while chunk := os.read(CHANNEL, 262144):
        data = rest + chunk if rest else chunk
        end = 0
        while end + 4 <= len(data):
            following = end + 4 + length(data, end)[0]
            if following > len(data):
                break
            end = following
        if end > 0:
            channel.sendall(memoryview(data)[:end])
        rest = data[end:]


def whole(size: int) -> None:
    channel = socket.socket(fileno=CHANNEL)
    message = memoryview(bytearray(size))
    while True:
        start = 0
        while start < size:
            count = channel.recv_into(message[start:])
            if count == 0:
                return
            start += count
        channel.sendall(message)


match sys.argv[1:]:
    case ["echo"]:
        echo()
    case ["frames", _]:
        frames()
    case ["whole", size]:
        whole(int(size))

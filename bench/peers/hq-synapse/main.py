"""The template that hq-synapse's users copy: a length of four bytes, little-endian, and MessagePack, by turns."""

import struct
import sys

import msgpack


def main() -> None:
    while True:
        length_data = sys.stdin.buffer.read(4)
        if not length_data:
            return
        payload_size = int.from_bytes(length_data, byteorder="little")
        send_message(echo(msgpack.unpackb(sys.stdin.buffer.read(payload_size))))


def echo(payload):
    # An array travels as its bytes; the handler has it as numbers.
    if isinstance(payload, dict) and "array" in payload:
        return {"array": bytes(memoryview(payload["array"]).cast("d"))}
    return payload


def send_message(message) -> None:
    payload = msgpack.packb(message)
    sys.stdout.buffer.write(struct.pack("<I", len(payload)) + payload)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

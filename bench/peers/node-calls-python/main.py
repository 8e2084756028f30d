"""Runs inside Node. Arrays arrive as bytes, and leave as bytes."""


def echo(value):
    return value


def array(data):
    return bytes(memoryview(data).cast("d"))

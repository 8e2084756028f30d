"""What pythonia imports. Only strings and whole numbers come back as values, so bytes travel as base64."""

import base64


def echo(value):
    return value


def from_base64(text):
    return base64.b64encode(base64.b64decode(text)).decode("ascii")

"""The version of the runtime, which the host compares with its own."""

from typing import Final

VERSION: Final = "0.1.0"

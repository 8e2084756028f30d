"""Arrays of numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import synapse


@dataclass
class Embedding:
    model: str
    vector: npt.NDArray[np.float32]


@synapse.handler
def any_array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array


@synapse.handler
def floats(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return array


@synapse.handler
def vector(array: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return array


@synapse.handler
def longs(array: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return array


@synapse.handler
def mask(array: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return array


@synapse.handler
def image(
    array: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]],
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return array


@synapse.handler
def embedding(embedding: Embedding) -> Embedding:
    return embedding

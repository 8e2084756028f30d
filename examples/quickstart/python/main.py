"""Recognises handwritten digits: scans of 8 by 8 pixels that come with scikit-learn."""

from dataclasses import dataclass

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import synapse

# Runs once, while the worker starts. The model then stays in memory for every call.
digits = load_digits()
train_scans, held_out_scans, train_labels, held_out_labels = train_test_split(
    digits.data, digits.target, test_size=0.25, random_state=7, stratify=digits.target
)
model = SVC(gamma=0.001, probability=False).fit(train_scans, train_labels)
print(f"trained on {len(train_scans)} scans")


@dataclass
class Scan:
    pixels: list[float]
    label: int


class WrongSize(synapse.Error):
    """A scan has 8 by 8 pixels."""

    expected: int
    got: int


@synapse.handler
def held_out(count: int) -> list[Scan]:
    """The first scans that the model has not seen."""
    pairs = zip(held_out_scans[:count], held_out_labels[:count], strict=True)
    return [Scan(pixels=pixels.tolist(), label=int(label)) for pixels, label in pairs]


@synapse.handler(raises=[WrongSize])
def recognise(pixels: list[float]) -> int:
    """The digit that a scan shows, its pixels row by row from 0 (white) to 16 (black)."""
    if len(pixels) != 64:
        raise WrongSize(expected=64, got=len(pixels))
    return int(model.predict([pixels])[0])


@synapse.handler
def accuracy() -> float:
    """The share of held-out scans that the model recognises."""
    return float(model.score(held_out_scans, held_out_labels))

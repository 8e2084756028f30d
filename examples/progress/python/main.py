"""Work that takes a while, says how far it is, and stops when nobody waits for it any more."""

import math
import time

import synapse


@synapse.service
class Trainer:
    """Its instance lives with the worker: what it has learned is there in the next call."""

    def __init__(self) -> None:
        self.epochs = 0

    @synapse.on_start
    def load(self) -> None:
        """Runs before the worker takes calls: the place to load a model."""
        self.loss = 1.0

    @synapse.handler
    def train(self, epochs: int) -> float:
        context = synapse.context()
        for epoch in range(epochs):
            if context.cancelled:
                print(f"stopped after {epoch} epochs")
                break
            time.sleep(0.02)
            self.epochs += 1
            self.loss = math.exp(-self.epochs / 10)
            context.progress({"epoch": epoch + 1, "loss": self.loss})
        return self.loss

    @synapse.handler
    def trained(self) -> int:
        return self.epochs

    @synapse.on_stop
    def save(self) -> None:
        print(f"saved after {self.epochs} epochs")

"""A session that stays in Python while TypeScript holds it."""

import statistics

import synapse


class Sample:
    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[float] = []

    def add(self, values: list[float]) -> int:
        self.values += values
        return len(self.values)

    def describe(self) -> str:
        return f"{self.name}: mean {statistics.mean(self.values):.2f}, deviation {statistics.stdev(self.values):.2f}"


@synapse.handler
def sample(name: str) -> synapse.Handle:
    return synapse.Handle(Sample(name), close=lambda: print(f"{name} is gone"))

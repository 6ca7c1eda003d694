"""The vectors that the simulator answers: made up, of length one, and the same for the same text."""

import hashlib
from math import sqrt
from random import Random


def embedding(text: str, dimensions: int) -> list[float]:
    """A vector of `dimensions` numbers."""
    source = Random(hashlib.sha256(text.encode()).digest())
    numbers = [source.gauss(0, 1) for _ in range(dimensions)]
    length = sqrt(sum(number * number for number in numbers))
    return [round(number / length, 8) for number in numbers]

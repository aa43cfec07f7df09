"""The fuzzing targets on their seeds, on mutated seeds, and on random inputs; no fuzzer is needed."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest
from fuzz import TARGETS

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
ROUNDS = 150


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str) -> None:
    module = importlib.import_module(f"fuzz.{target}")
    seeds = sorted((CORPUS / target).iterdir())
    assert seeds
    for seed in seeds:
        module.run(seed.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_seeds(target: str) -> None:
    module = importlib.import_module(f"fuzz.{target}")
    number = random.randrange(1 << 32)
    print(f"seed of the random numbers: {number}")
    rng = random.Random(number)
    seeds = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    for _ in range(ROUNDS):
        data = bytearray(rng.choice(seeds) if rng.random() < 0.8 else rng.randbytes(rng.randrange(200)))
        for _ in range(rng.randrange(4)):
            if data:
                at = rng.randrange(len(data))
                data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        print(f"input: {bytes(data)!r}")
        module.run(bytes(data))

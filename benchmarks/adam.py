"""Time of one step of Adam over an encoder's parameters: ours, torch's per parameter, and the same in plain operations.

    python -m benchmarks.adam [--rounds 60]

One thread; the three take turns, 100 steps each a round, and the median round counts. A ratio is the time by that of
`DenseAdam`. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from learner.model.optimizers import BETAS, EPSILON, DenseAdam

SHAPES = [(64, 64)] * 13 + [(64,)] * 20 + [(50, 64)]
RATE = 1e-3
STEPS = 100


def ours(parameters: list[Tensor], gradients: list[Tensor]) -> Callable[[], None]:
    adam = DenseAdam(parameters)
    return lambda: adam.step(adam.gradient(gradients), RATE)


def per_parameter(parameters: list[Tensor], gradients: list[Tensor]) -> Callable[[], None]:
    adam = torch.optim.Adam(parameters, lr=RATE, betas=BETAS, eps=EPSILON, fused=True)

    def step() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        adam.step()

    return step


def in_operations(parameters: list[Tensor], gradients: list[Tensor]) -> Callable[[], None]:
    flat = torch.cat([one.detach().reshape(-1) for one in parameters])
    first, second, steps = torch.zeros_like(flat), torch.zeros_like(flat), 0

    def step() -> None:
        nonlocal steps
        steps += 1
        gradient = torch.cat([one.reshape(-1) for one in gradients])
        first.lerp_(gradient, 1 - BETAS[0])
        second.lerp_(gradient.square(), 1 - BETAS[1])
        scale = (second / (1 - BETAS[1] ** steps)).sqrt_().add_(EPSILON)
        flat.addcdiv_(first, scale, value=-RATE / (1 - BETAS[0] ** steps))

    return step


def seconds(step: Callable[[], None]) -> float:
    began = time.thread_time()
    for _ in range(STEPS):
        step()
    return (time.thread_time() - began) / STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) for shape in SHAPES]
    makers = {"DenseAdam": ours, "torch.optim.Adam(fused=True)": per_parameter, "in six operations": in_operations}
    steps = {name: make([torch.zeros(shape) for shape in SHAPES], gradients) for name, make in makers.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            taken[name].append(seconds(step))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    report = {name: round(median / medians["DenseAdam"], 2) for name, median in medians.items()}
    for name, ratio in report.items():
        print(f"{name:30} {medians[name] * 1e6:7.0f} us a step  {ratio:5.2f} of DenseAdam")
    print(json.dumps(report))


if __name__ == "__main__":
    main()

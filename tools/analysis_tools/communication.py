"""Estimate what the processes of a training exchange in a step, and what each of them keeps.

    python tools/analysis_tools/communication.py configs/mt_bdd_baseline.py --gpus 8 --bandwidth 25GB/s

The sizes are those of the config's own model and optimizer, in single precision, which mixed precision does not change.
The traffic is what each GPU sends (and receives) by ring algorithms. The time is that traffic at the given bandwidth,
without latency and without what overlaps with the computation: a bound to compare with the measured time of a step.
"""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mtadapt.engine import CfgOptions, load_config
from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.registry import MODELS, OPTIMIZERS

#: Bytes of a parameter, a gradient and each value that an optimizer keeps for it.
BYTES = 4
UNITS = {"GB/s": 1e9, "MB/s": 1e6, "Gbit/s": 1.25e8, "Mbit/s": 1.25e5}


class Sizes(NamedTuple):
    """Numbers of elements of a model.

    Attributes:
        parameters: all of them.
        trainable: those that get gradients.
        states: values that the optimizer keeps for a trainable parameter, 2 for Adam.
        accumulate: iterations of one update.
    """

    parameters: int
    trainable: int
    states: int
    accumulate: int


class Estimate(NamedTuple):
    """Of one strategy, in bytes.

    Attributes:
        traffic: sent by each GPU in an iteration, the mean over an accumulation window.
        kept: parameters, gradients and states of the optimizer on each GPU, between two steps.
    """

    traffic: float
    kept: float


def estimate(sizes: Sizes, gpus: int) -> dict[str, Estimate]:
    """Traffic and memory of the strategies.

    A ring all-reduce of ``n`` bytes over ``p`` GPUs is a reduce-scatter and an all-gather, in each of which a GPU sends
    ``(p - 1) / p * n``.

    - DDP reduces the gradients of the trainable parameters once an update.
    - ZeRO-2 scatters the sums of the gradients every iteration and gathers the new parameters once an update.
    - FSDP (``FULL_SHARD``) gathers all parameters for the forward pass and again for the backward pass, and scatters
      the sums of the gradients once an update. Its root part stays gathered in between, and shards without a trainable
      parameter send no gradients, so this is the most that it sends.
    - FSDP (``SHARD_GRAD_OP``) gathers the parameters once an update.

    Args:
        sizes: of the model.
        gpus: number of processes.

    Reference:
        Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms, JPDC 2009; Rajbhandari et al., ZeRO, SC 2020.
    """
    ring = (gpus - 1) / gpus * BYTES
    gradients, weights, window = ring * sizes.trainable, ring * sizes.parameters, sizes.accumulate
    frozen = BYTES * (sizes.parameters - sizes.trainable)
    one, state = BYTES * sizes.trainable, BYTES * sizes.trainable * sizes.states
    sharded = (frozen + 2 * one + state) / gpus
    return {
        "DDP": Estimate(2 * gradients / window, frozen + 2 * one + state),
        "DeepSpeed ZeRO-2": Estimate(gradients + gradients / window, frozen + one + (one + state) / gpus),
        "FSDP SHARD_GRAD_OP": Estimate(2 * weights / window, sharded),
        "FSDP FULL_SHARD": Estimate(2 * weights + weights / window, sharded),
    }


def measure(config: Config) -> Sizes:
    """Count the parameters of a config's model and what its optimizer keeps for one.

    Raises:
        MTAdaptError: when the model or the optimizer cannot be built.
    """
    init_default_scope(config.get("default_scope") or "mtadapt")
    try:
        model = MODELS.build(config.model)
        parameter = torch.nn.Parameter(torch.zeros(4, 4))
        optimizer = OPTIMIZERS.build(dict(config.optim_wrapper.optimizer, params=[parameter]))
    except (KeyError, TypeError, AttributeError) as error:
        raise MTAdaptError(f"{config.filename}: {error}; give a config that can be trained") from error
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = sum(torch.is_tensor(value) and value.shape == (4, 4) for value in optimizer.state[parameter].values())
    return Sizes(
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        states,
        config.optim_wrapper.get("accumulative_counts", 1),
    )


def table(sizes: Sizes, gpus: int, bandwidth: float) -> str:
    """Markdown table, a row for each strategy.

    Args:
        sizes: of the model.
        gpus: number of processes.
        bandwidth: bytes a second that each GPU can send.
    """
    rows = ["| strategy | traffic per GPU and iteration | time | kept on each GPU |", "|---|---|---|---|"]
    for name, (traffic, kept) in estimate(sizes, gpus).items():
        rows.append(
            f"| {name} | {traffic / 1e6:,.1f} MB | {1e3 * traffic / bandwidth:,.1f} ms | {kept / 1e6:,.1f} MB |"
        )
    return "\n".join(rows)


def parse_bandwidth(text: str) -> float:
    """Bytes a second of e.g. ``25GB/s`` or ``100Gbit/s``.

    Raises:
        MTAdaptError: when it is neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(GB/s|MB/s|Gbit/s|Mbit/s)", text)
    if match is None or not float(match[1]):
        raise MTAdaptError(f"--bandwidth {text}: write a number and one of {', '.join(UNITS)}, e.g. 25GB/s")
    return float(match[1]) * UNITS[match[2]]


def main() -> None:
    """Print the sizes and the table."""
    parser = argparse.ArgumentParser(description="Estimate the communication of a training step")
    parser.add_argument("config", help="config file")
    parser.add_argument("--gpus", type=int, default=8, help="number of processes")
    parser.add_argument("--bandwidth", default="25GB/s", help="what each GPU can send, e.g. 25GB/s or 100Gbit/s")
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions, help="override settings of the config")
    args = parser.parse_args()
    if args.gpus < 1:
        raise MTAdaptError(f"--gpus {args.gpus}: give 1 or more")
    bandwidth = parse_bandwidth(args.bandwidth)
    sizes = measure(load_config(args.config, args.cfg_options))
    print(
        f"{args.config}: {sizes.parameters:,} parameters ({BYTES * sizes.parameters / 1e6:,.1f} MB), of them "
        f"{sizes.trainable:,} trainable; {sizes.states} states of the optimizer each; update every "
        f"{sizes.accumulate} iteration{'s' * (sizes.accumulate > 1)}; {args.gpus} GPUs, {args.bandwidth}"
    )
    print(table(sizes, args.gpus, bandwidth))


if __name__ == "__main__":
    with one_line_errors():
        main()

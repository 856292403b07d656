"""The estimate of the communication: by hand, against what torch really sends, and in the docs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel

from mtadapt.engine import load_config
from mtadapt.errors import MTAdaptError
from tests.command_line import ROOT, last_line, run

sys.path.insert(0, str(ROOT / "tools/analysis_tools"))


def test_by_hand():
    import communication

    sizes = communication.Sizes(parameters=1000, trainable=800, states=2, accumulate=4)
    found = communication.estimate(sizes, gpus=8)
    # Seven eighths of 4 bytes: 2800 bytes for the trainable parameters, 3500 for all.
    assert found["DDP"] == (2 * 2800 / 4, 4 * (200 + 800 * 4))
    assert found["DeepSpeed ZeRO-2"] == (2800 + 2800 / 4, 4 * (200 + 800) + 4 * 800 * 3 / 8)
    assert found["FSDP SHARD_GRAD_OP"] == (2 * 3500 / 4, 4 * (200 + 800 * 4) / 8)
    assert found["FSDP FULL_SHARD"] == (2 * 3500 + 3500 / 4, 4 * (200 + 800 * 4) / 8)
    assert all(traffic == 0 for traffic, _ in communication.estimate(sizes, gpus=1).values())
    rows = communication.table(sizes, gpus=8, bandwidth=1e6).splitlines()
    assert rows[2] == "| DDP | 0.0 MB | 1.4 ms | 0.0 MB |"


@pytest.mark.parametrize(("text", "value"), [("25GB/s", 25e9), ("100Gbit/s", 12.5e9), ("1.5 MB/s", 1.5e6)])
def test_bandwidth(text: str, value: float):
    import communication

    assert communication.parse_bandwidth(text) == value
    with pytest.raises(MTAdaptError, match=r"--bandwidth 3 GiB: write a number and one of GB/s"):
        communication.parse_bandwidth("3 GiB")


def _model() -> nn.Module:
    # Sizes that two processes share without padding.
    return nn.Sequential(nn.Linear(16, 32), nn.Sequential(nn.Linear(32, 32), nn.ReLU()), nn.Linear(32, 2))


def _count(rank: int, folder: str) -> None:
    """Bytes that go into the collectives of one step, for DDP and two kinds of FSDP."""
    torch.manual_seed(0)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    counted: dict[str, int] = {}
    ddp = DistributedDataParallel(_model())

    def hook(state, bucket):  # torch compares annotations with types, which here are strings
        counted["ddp"] = counted.get("ddp", 0) + bucket.buffer().nbytes
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    ddp.register_comm_hook(None, hook)
    ddp(torch.ones(2, 16)).sum().backward()
    gather, scatter = dist.all_gather, dist.reduce_scatter_tensor
    for strategy in ("FULL_SHARD", "SHARD_GRAD_OP"):
        counted[strategy] = 0

        def counting_gather(parts: list[Tensor], *args: object, key: str = strategy, **more: object) -> object:
            counted[key] += sum(part.nbytes for part in parts)
            return gather(parts, *args, **more)

        def counting_scatter(part: Tensor, whole: Tensor, *args: object, key: str = strategy, **more: object) -> object:
            counted[key] += whole.nbytes
            return scatter(part, whole, *args, **more)

        # On a CPU torch gathers into a list.
        dist.all_gather, dist.reduce_scatter_tensor = counting_gather, counting_scatter
        sharded = FullyShardedDataParallel(
            _model(),
            device_id=torch.device("cpu"),
            use_orig_params=True,
            sharding_strategy=ShardingStrategy[strategy],
            auto_wrap_policy=ModuleWrapPolicy({nn.Sequential}),
        )
        sharded(torch.ones(2, 16)).sum().backward()
        dist.all_gather, dist.reduce_scatter_tensor = gather, scatter
    if rank == 0:
        torch.save(counted, f"{folder}/counted.pth")
    dist.destroy_process_group()


def test_is_what_torch_sends(tmp_path: Path):
    import communication

    mp.spawn(_count, args=(str(tmp_path),), nprocs=2)
    counted = torch.load(tmp_path / "counted.pth")
    size = sum(parameter.numel() for parameter in _model().parameters())
    inner = sum(parameter.numel() for parameter in _model()[1].parameters())
    found = communication.estimate(communication.Sizes(size, size, 0, 1), gpus=2)
    # Of n bytes in an all-reduce a ring of two sends n, of an all-gather or a reduce-scatter half.
    assert counted["ddp"] == found["DDP"].traffic
    assert counted["SHARD_GRAD_OP"] / 2 == found["FSDP SHARD_GRAD_OP"].traffic
    # The root is not gathered a second time.
    assert counted["FULL_SHARD"] / 2 == found["FSDP FULL_SHARD"].traffic - 4 * (size - inner) / 2


@pytest.mark.parametrize("name", ["mt_bdd_baseline", "het_in1k_coco_ade20k_r50", "het_in1k_coco_ade20k_swin-t"])
def test_numbers_in_the_docs(name: str):
    import communication

    sizes = communication.measure(load_config(str(ROOT / f"configs/{name}.py")))
    page = (ROOT / "docs/scaling.md").read_text()
    assert f"`{name}`: {sizes.parameters:,} parameters" in page
    for row in communication.table(sizes, 8, 25e9).splitlines():
        assert row in page, row


def test_command_line(tmp_path: Path):
    tool = ROOT / "tools/analysis_tools/communication.py"
    config = ROOT / "configs/mt_synthetic_baseline.py"
    options = ["--gpus=2", "--bandwidth=10Gbit/s", "--cfg-options", "optim_wrapper.accumulative_counts=2"]
    printed = run(tool, config, *options, cwd=tmp_path)
    assert "5,373,656 parameters (21.5 MB), of them 5,373,656 trainable; 2 states of the optimizer each" in printed
    assert "update every 2 iterations; 2 GPUs, 10Gbit/s" in printed
    assert "| DDP | 10.7 MB | 8.6 ms | 86.0 MB |" in printed
    printed = run(tool, config, "--gpus=0", cwd=tmp_path, code=2)
    assert last_line(printed) == "error: --gpus 0: give 1 or more"

"""Two processes give the numbers of one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.dataset import DefaultSampler

from mtadapt.errors import MTAdaptError

from .samples import CONFIG, evaluate, mixed_samples

COUNT = 13  # odd: the sampler repeats the first image on the second process
CLASH = {"sem_seg": [CONFIG["sem_seg"], CONFIG["sem_seg"]]}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)  # as in a data loader's worker: the pool of threads does not survive a fork
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    samples = mixed_samples(COUNT)
    mine = [samples[i] for i in DefaultSampler(samples, shuffle=False)]
    found = {
        "paths": [one.img_path for one in mine],
        "cpu": evaluate(mine, collect_device="cpu", collect_dir=f"{folder}/parts"),
        "gpu": evaluate(mine, batch=2, collect_device="gpu"),
    }
    try:
        evaluate(mine, CLASH, collect_device="gpu")
    except (MTAdaptError, RuntimeError) as error:
        found["error"] = str(error)
    Path(folder, f"{rank}.json").write_text(json.dumps(found, default=float))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("two_processes")
    mp.start_processes(worker, (str(folder),), nprocs=2, start_method="fork")  # spares both the imports
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_the_sampler_repeats_an_image(found):
    paths = found[0]["paths"] + found[1]["paths"]
    assert len(paths) == COUNT + 1 and len(set(paths)) == COUNT


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("rank", [0, 1])
def test_numbers_of_one_process(found, device, rank):
    expected = {name: float(value) for name, value in evaluate(mixed_samples(COUNT)).items()}
    got = found[rank][device]
    assert got == expected
    assert len(got) == 23 and not np.isnan(list(got.values())).any()


def test_every_process_stops_when_the_first_fails(found):
    assert found[0]["error"].startswith("two metrics of task 'sem_seg'")
    assert found[1]["error"].startswith("evaluation failed on the first process: MTAdaptError: two metrics of task")

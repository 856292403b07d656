from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from mtadapt.datasets.samplers import heterogeneous_batch_sampler as module
from mtadapt.datasets.samplers.counter_rng import key_of, permute, uniform
from mtadapt.datasets.samplers.schedule import Turns, source_shares, split_batch
from mtadapt.errors import MTAdaptError
from tests.test_datasets.sources import sampler

SIZES = dict(in1k=50, coco=23, ade20k=11)


def take(batches, count):
    return list(itertools.islice(batches, count))


def on_rank(monkeypatch, rank, world_size, *args, **kwargs):
    monkeypatch.setattr(module, "get_dist_info", lambda: (rank, world_size))
    return sampler(*args, **kwargs)


@pytest.mark.parametrize("size", [1, 2, 3, 17, 1024, 1025, 4099, 65536])
def test_permutation_holds_every_value_once(size):
    assert np.array_equal(np.sort(permute(key_of(size), size, np.arange(size))), np.arange(size))


@pytest.mark.parametrize(("size", "bins"), [(4, 24), (5, 120)])
def test_small_permutations_are_equally_likely(size, bins):
    found = Counter(tuple(permute(key_of(seed), size, np.arange(size))) for seed in range(100 * bins))
    assert len(found) == bins
    assert chisquare(list(found.values())).pvalue > 1e-3


def test_large_permutations_spread_evenly():
    """First places of many permutations, and neighbours in one: both are uniform."""
    first = np.array([permute(key_of(seed), 5000, np.array([0]))[0] for seed in range(4000)])
    assert chisquare(np.bincount(first // 500, minlength=10)).pvalue > 1e-3
    steps = np.diff(permute(key_of(1), 5000, np.arange(5000))) % 5000
    assert chisquare(np.bincount(steps // 500, minlength=10)).pvalue > 1e-3


def test_uniform_numbers_are_uniform():
    values = np.array([uniform(key_of(3), position) for position in range(5000)])
    assert chisquare(np.bincount((values * 20).astype(int), minlength=20)).pvalue > 1e-3


def test_alternate_draws_one_source_a_step_by_weights():
    weights = dict(in1k=15, coco=10, ade20k=5)
    batches = take(iter(sampler(SIZES, dict(in1k=6, coco=2, ade20k=2), weights=weights)), 3000)
    names = [next(iter({draw.source for draw in batch})) for batch in batches]
    assert all(len({draw.source for draw in batch}) == 1 for batch in batches)
    assert {len(batch) for batch, name in zip(batches, names, strict=True) if name == 0} == {6}
    assert chisquare(np.bincount(names), [1500, 1000, 500]).pvalue > 1e-3


def test_every_pass_of_a_source_holds_each_sample_once_in_another_order():
    draws = [draw for batch in take(iter(sampler(dict(a=23), 5)), 14) for draw in batch]
    passes = [[draw.sample for draw in draws[start : start + 23]] for start in (0, 23, 46)]
    assert all(sorted(one) == list(range(23)) for one in passes)
    assert passes[0] != passes[1] != passes[2]
    assert len({draw.seed for draw in draws}) == len(draws)


@pytest.mark.parametrize("settings", [dict(mode="alternate"), dict(mode="mixed", batch_size=14)])
def test_ranks_share_the_source_and_not_the_samples(monkeypatch, settings):
    """Two processes with half the batch draw together what one process draws with the whole batch."""
    one = {**dict(batch_size=dict(in1k=8, coco=4, ade20k=2)), **settings}
    half = {**one, "batch_size": dict(in1k=4, coco=2, ade20k=1) if one["mode"] == "alternate" else 7}
    if one["mode"] == "mixed":
        one["weights"] = half["weights"] = dict(in1k=4, coco=2, ade20k=1)
    whole = take(iter(sampler(SIZES, **one)), 60)
    ranks = [take(iter(on_rank(monkeypatch, rank, 2, SIZES, **half)), 60) for rank in (0, 1)]
    for together, first, second in zip(whole, *ranks, strict=True):
        assert [draw.source for draw in first] == [draw.source for draw in second]
        assert sorted(first + second) == sorted(together)
        assert not {(draw.source, draw.seed) for draw in first} & {(draw.source, draw.seed) for draw in second}


def test_mixed_holds_the_quota_of_every_source():
    batches = take(iter(sampler(SIZES, dict(in1k=3, coco=2, ade20k=1), mode="mixed")), 40)
    assert all([draw.source for draw in batch] == [2, 1, 1, 0, 0, 0] for batch in batches)


def test_accumulate_repeats_a_source_and_counts_the_parts():
    one = sampler(SIZES, 2, weights=dict(in1k=1, coco=1, ade20k=1), accumulate=dict(coco=3))
    parts = [(batch[0].source, batch[0].accumulation) for batch in take(iter(one), 400)]
    turns = 0
    while parts:
        source, (part, count) = parts[0]
        assert (part, count) == (0, 3 if source == 1 else 1)
        assert parts[:count] == [(source, (number, count)) for number in range(len(parts[:count]))]
        parts = parts[count:]
        turns += 1
    assert turns > 200


def test_shares_of_the_schedules():
    sizes = dict(a=900, b=100)
    assert source_shares(sizes, "proportional", None, 1) == pytest.approx(dict(a=0.9, b=0.1))
    assert source_shares(sizes, "temperature", None, 2) == pytest.approx(dict(a=0.75, b=0.25))
    assert source_shares(sizes, "round_robin", None, 1) == dict(a=0.5, b=0.5)
    assert source_shares(sizes, "fixed", dict(b=3, a=1), 1) == dict(a=0.25, b=0.75)
    assert [Turns(dict(a=0.5, b=0.5), True, 0).source(turn) for turn in range(4)] == [0, 1, 0, 1]
    assert split_batch(10, dict(a=0.55, b=0.45)) == dict(a=6, b=4)
    assert split_batch(7, dict(a=1 / 3, b=1 / 3, c=1 / 3)) == dict(a=3, b=2, c=2)


def test_wide_and_high_images_are_in_different_batches():
    """Of 64 batches at most one holds both, and every sample is drawn once a pass."""
    high = np.random.default_rng(0).random(1000) < 0.3
    grouped = sampler(dict(a=1000), 4, groups=dict(a=lambda indices: high[indices].astype(np.int8)))
    batches = take(iter(grouped), 250)
    mixed = [len({bool(high[draw.sample]) for draw in batch}) == 2 for batch in batches]
    assert sum(mixed) <= math.ceil(250 / 64)
    # 32 passes are 125 windows of 64 batches.
    counts = Counter(draw.sample for batch in take(iter(grouped), 125 * 64) for draw in batch)
    assert set(counts) == set(range(1000)) and set(counts.values()) == {32}
    first = [bool(high[batch[0].sample]) for batch in batches]
    assert 20 < sum(first) < 130 and first != sorted(first)
    ungrouped = sampler(dict(a=1000), 4, group_by_aspect_ratio=False, groups=dict(a=lambda indices: high[indices]))
    batches = take(iter(ungrouped), 250)
    assert sum(len({bool(high[draw.sample]) for draw in batch}) == 2 for batch in batches) > 100


@pytest.mark.parametrize("steps", [0, 1, 7, 250])
@pytest.mark.parametrize(
    "settings", [dict(weights=dict(in1k=3, coco=2, ade20k=1), accumulate=dict(coco=3)), dict(mode="mixed")]
)
def test_state_takes_up_where_it_was(steps, settings):
    batch_size = dict(in1k=6, coco=2, ade20k=2)
    first = sampler(SIZES, batch_size, **settings)
    expected = take(iter(first), steps + 30)[steps:]
    for _ in range(steps):
        first.advance()
    assert take(iter(first), 30) == expected
    second = sampler(SIZES, batch_size, seed=5, **settings)
    second.load_state_dict(first.state_dict())
    assert take(iter(second), 30) == expected


def test_state_is_known_by_source_names():
    """Another order of the sources, one less and one more: those that stay go on behind what was drawn."""
    first = sampler(SIZES, 4, schedule="round_robin")
    drawn = Counter()
    for batch in take(iter(first), 9):
        drawn.update((("in1k", "coco", "ade20k")[draw.source], draw.sample) for draw in batch)
        first.advance()
    second = sampler(dict(new=5, coco=23, in1k=50), 4, schedule="round_robin")
    second.load_state_dict(first.state_dict())
    for batch in take(iter(second), 6):
        drawn.update((("new", "coco", "in1k")[draw.source], draw.sample) for draw in batch)
    coco = [sample for name, sample in drawn if name == "coco"]
    assert len(coco) == len(set(coco)) == 20
    assert second.state_dict()["draws"] == dict(new=0, coco=12, in1k=12)


def test_resume_with_other_processes_says_so_and_repeats_nothing(monkeypatch):
    said = []
    monkeypatch.setattr(module, "print_log", lambda text, **kwargs: said.append(text))
    first = sampler(dict(a=40), 4)
    before = [draw.sample for batch in take(iter(first), 4) for draw in batch]
    for _ in range(4):
        first.advance()
    after = []
    for rank in (0, 1):
        second = on_rank(monkeypatch, rank, 2, dict(a=40), 4)
        second.load_state_dict(first.state_dict())
        after += [draw.sample for batch in take(iter(second), 3) for draw in batch]
    assert sorted(before + after) == list(range(40))
    assert all("changed sources or processes: processes 1 -> 2. Every source goes on" in text for text in said)
    assert len(said) == 2


@pytest.mark.parametrize("settings", [dict(mode="mixed"), dict(weights=dict(in1k=3, coco=2, ade20k=1))])
def test_the_order_in_which_sources_are_listed_changes_nothing(settings):
    """MMEngine sorts the keys of a config that it writes."""
    batch_size = dict(in1k=3, coco=2, ade20k=1)
    listed = [dict(SIZES), dict(sorted(SIZES.items()))]
    streams = []
    for sizes in listed:
        names = list(sizes)
        batches = take(iter(sampler(sizes, batch_size, **settings)), 50)
        streams.append([[(names[draw.source], *draw[1:]) for draw in batch] for batch in batches])
    assert listed[0].keys() == listed[1].keys() and [*listed[0]] != [*listed[1]]
    assert streams[0] == streams[1]


def test_processes_with_other_data_are_refused(monkeypatch):
    monkeypatch.setattr(module, "all_gather_object", lambda sizes: [sizes, {**sizes, "coco": 22}])
    with pytest.raises(MTAdaptError, match=r"source 'coco' has 23 samples here and 22 on process 1; give all machines"):
        sampler(SIZES, 4)


def test_groups_of_a_small_source_keep_its_passes():
    high = np.arange(100) % 3 == 0
    grouped = sampler(dict(a=100), 4, groups=dict(a=lambda indices: high[indices].astype(np.int8)))
    assert sorted(draw.sample for batch in take(iter(grouped), 25) for draw in batch) == list(range(100))


def test_resume_with_another_number_of_samples_is_refused():
    state = sampler(SIZES, 4).state_dict()
    with pytest.raises(
        MTAdaptError, match=r"source 'coco' has 24 samples, and had 23 .* start a new run with load_from"
    ):
        sampler({**SIZES, "coco": 24}, 4).load_state_dict(state)


def test_memory_is_flat_for_100_million_samples():
    """Neither the index nor the steps take memory, and resuming far in takes no time."""
    sizes = dict(a=10**8, b=3 * 10**7)
    tracemalloc.start()
    one = sampler(sizes, 64)
    batches = iter(one)
    take(batches, 10)
    base = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(2000):
        next(batches)
    current, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert current - base < 200_000
    assert peak < 3_000_000
    start = time.perf_counter()
    far = sampler(sizes, 64)
    state = one.state_dict()
    far.load_state_dict({**state, "turn": 10**9, "draws": dict(a=6 * 10**10, b=2 * 10**10)})
    assert all(0 <= draw.sample < [*sizes.values()][draw.source] for draw in next(iter(far)))
    assert time.perf_counter() - start < 2


def test_length_is_a_pass_on_average():
    assert len(sampler(dict(a=100, b=100), 10, weights=dict(a=1, b=1))) == 20
    assert len(sampler(dict(a=100, b=100), dict(a=6, b=4), mode="mixed")) == 20


@pytest.mark.parametrize(
    ("batch_size", "settings", "message"),
    [
        (4, dict(weights=dict(in1k=1, coco=-1, ade20k=1)), r"source 'coco': weight -1; write a finite number above 0"),
        (4, dict(weights=dict(in1k=1, coco=math.nan, ade20k=1)), r"source 'coco': weight nan"),
        (4, dict(weights=dict(in1k=1, coco=0, ade20k=1)), r"source 'coco': weight 0; .* leave the source out"),
        (4, dict(weights=dict(in1k=1, coco=1)), r"source 'ade20k' is missing in weights"),
        (4, dict(weights=dict(in1k=1, coco=1, ade20k=1, lvis=1)), r"weights names the unknown source 'lvis'"),
        (
            4,
            dict(mode="mixed", weights=dict(in1k=10, coco=1, ade20k=1)),
            r"source 'ade20k': its share 0.0833 .* rounds to 0",
        ),
        (dict(in1k=4, coco=0, ade20k=1), dict(mode="mixed"), r"source 'coco': batch_size=0; write a whole number"),
        (dict(in1k=4, coco=1), dict(), r"source 'ade20k' is missing in batch_size"),
        (0, dict(), r"source 'ade20k': batch_size=0"),
        (4, dict(weights=[1, 2, 3]), r"weights=\[1, 2, 3\]; write weights=dict\(ade20k=...\)"),
        (4, dict(weights=dict(in1k=True, coco=1, ade20k=1)), r"source 'in1k': weight True"),
        (4, dict(mode="both"), r"mode='both'; known: alternate, mixed"),
        (4, dict(schedule="linear"), r"schedule='linear'; known: fixed, proportional, temperature, round_robin"),
        (4, dict(schedule="fixed"), r"schedule='fixed', weights=None; write weights"),
        (4, dict(schedule="round_robin", weights=dict(in1k=1, coco=1, ade20k=1)), r"leave weights out"),
        (4, dict(schedule="temperature", temperature=0), r"temperature=0; write a number above 0"),
        (dict(in1k=1, coco=1, ade20k=1), dict(mode="mixed", schedule="proportional"), r"batch_size gives the quotas"),
        (4, dict(mode="mixed", accumulate=dict(coco=2)), r"accumulate is for mode='alternate'"),
        (4, dict(accumulate=dict(coco=0)), r"source 'coco': accumulate=0"),
    ],
)
def test_bad_settings_name_the_source(batch_size, settings, message):
    with pytest.raises(MTAdaptError, match=message):
        sampler(SIZES, batch_size, **settings)


def test_another_dataset_is_refused():
    class Loader:
        dataset, seed = [1, 2], 0

    with pytest.raises(MTAdaptError, match="the dataset is a list; write a HeterogeneousDataset"):
        module.HeterogeneousBatchSampler(Loader(), 2)

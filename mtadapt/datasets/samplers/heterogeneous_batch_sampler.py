"""Batches from several sources: which source, which samples and which randomness, on every process alike."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mtadapt.datasets.heterogeneous import Draw, HeterogeneousDataset
from mtadapt.datasets.samplers.schedule import Turns, check_names, source_shares, split_batch
from mtadapt.datasets.samplers.source_order import SourceOrder
from mtadapt.errors import MTAdaptError
from mtadapt.registry import DATA_SAMPLERS

MODES = ("alternate", "mixed")


@dataclass
class _Position:
    """How far the training has come.

    Attributes:
        turn: turns of the schedule that are over.
        part: batches of the running turn that are over.
        draws: of each source, samples drawn by all processes together.
    """

    turn: int
    part: int
    draws: list[int]


class _Share(NamedTuple):
    """One source's place in one batch: its position among the names, and its draws over all processes."""

    source: int
    start: int
    draws: int


@DATA_SAMPLERS.register_module()
class HeterogeneousBatchSampler(Sampler):
    """Endless batches of a :class:`~mtadapt.datasets.HeterogeneousDataset`.

    ``alternate`` fills a batch from one source, in an order that the schedule decides; ``mixed`` fills every batch with
    the same quota of each source. Every process has the same source in the same step, and their samples do not overlap.
    Each source is shuffled anew whenever all its samples have been drawn.

    Everything is a function of the seed and of how many samples have been drawn: nothing is stored for steps or
    samples, and :meth:`load_state_dict` takes up at any point at once. Use it with ``IterBasedTrainLoop``.

    Args:
        sampler: what MMEngine builds from the loader's ``sampler``; its ``dataset`` and ``seed`` are used.
        batch_size: samples a process. In ``alternate`` for all sources or source name to number; in ``mixed`` the
            whole batch, which is split by the schedule, or source name to quota.
        mode: ``alternate`` or ``mixed``.
        schedule: ``fixed``, ``proportional``, ``temperature`` or ``round_robin``, see
            :func:`~mtadapt.datasets.samplers.schedule.source_shares`. None is ``fixed`` with ``weights`` and
            ``proportional`` without.
        weights: source name to weight.
        temperature: of the schedule ``temperature``.
        accumulate: source name to the number of batches that follow each other for one update, in ``alternate``;
            goes with ``SourceAccumulationOptimWrapper``.
        group_by_aspect_ratio: put wide and high images into different batches where the source knows its image sizes.

    Raises:
        MTAdaptError: for settings that do not fit the sources, naming the source.

    Reference:
        Weighted draws of one source a step: Chen et al., An Efficient General-Purpose Modular Vision Model via
        Multi-Task Heterogeneous Training (arXiv 2306.17165). Temperature: Arivazhagan et al. (arXiv 1907.05019).
    """

    def __init__(
        self,
        sampler: Any,
        batch_size: int | Mapping[str, int],
        mode: str = "alternate",
        schedule: str | None = None,
        weights: Mapping[str, float] | None = None,
        temperature: float = 2.0,
        accumulate: Mapping[str, int] | None = None,
        group_by_aspect_ratio: bool = True,
    ) -> None:
        dataset = sampler.dataset
        if not hasattr(dataset, "sizes"):
            raise MTAdaptError(
                f"HeterogeneousBatchSampler: the dataset is a {type(dataset).__name__}; write a HeterogeneousDataset"
            )
        if mode not in MODES:
            raise MTAdaptError(f"HeterogeneousBatchSampler: mode={mode!r}; known: {', '.join(MODES)}")
        # DistSamplerSeedHook looks for it in every batch sampler.
        self.sampler = sampler
        self.dataset: HeterogeneousDataset = dataset
        self.mode = mode
        self.seed = int(sampler.seed)
        self.rank, self.world_size = get_dist_info()
        #: By name, so that the order in which a config lists the sources changes nothing.
        self.sizes = {name: dataset.sizes[name] for name in sorted(dataset.sizes)}
        _check_equal_sizes(self.sizes)
        quotas = mode == "mixed" and isinstance(batch_size, Mapping)
        if quotas and (schedule or weights):
            raise MTAdaptError("HeterogeneousBatchSampler: batch_size gives the quotas; leave schedule and weights out")
        self.schedule = schedule or ("fixed" if weights is not None else "proportional")
        self.shares = source_shares(self.sizes, self.schedule, weights, temperature)
        self.batch_sizes = self._batch_sizes(batch_size)
        self.accumulate = self._accumulate(accumulate)
        self._group_by_aspect_ratio = group_by_aspect_ratio
        self._position = _Position(0, 0, [0] * len(self.sizes))
        self._make_orders()

    def _batch_sizes(self, given: int | Mapping[str, int]) -> dict[str, int]:
        if isinstance(given, Mapping):
            check_names("batch_size", given, self.sizes)
            sizes = {name: given[name] for name in self.sizes}
        elif self.mode == "mixed":
            _check_count("batch_size", given)
            sizes = split_batch(given, self.shares)
        else:
            sizes = dict.fromkeys(self.sizes, given)
        for name, size in sizes.items():
            _check_count(f"source {name!r}: batch_size", size)
        return sizes

    def _accumulate(self, given: Mapping[str, int] | None) -> dict[str, int]:
        if given is None:
            return dict.fromkeys(self.sizes, 1)
        if self.mode == "mixed":
            raise MTAdaptError(
                "HeterogeneousBatchSampler: accumulate is for mode='alternate'; "
                "with mode='mixed' use optim_wrapper.accumulative_counts"
            )
        counts = {**dict.fromkeys(self.sizes, 1), **given}
        check_names("accumulate", counts, self.sizes)
        for name, count in counts.items():
            _check_count(f"source {name!r}: accumulate", count)
        return counts

    def _make_orders(self) -> None:
        self._turns = Turns(self.shares, self.schedule == "round_robin", self.seed)
        positions = {name: position for position, name in enumerate(self.dataset.sizes)}
        self._positions = [positions[name] for name in self.sizes]
        self._orders = [
            SourceOrder(
                name,
                size,
                self.seed,
                self.batch_sizes[name] * self.world_size,
                self.dataset.aspect_ratio_groups(name) if self._group_by_aspect_ratio else None,
            )
            for name, size in self.sizes.items()
        ]

    def __len__(self) -> int:
        """Batches in which all processes draw as many samples as the sources have, on average."""
        parts = self.shares if self.mode == "alternate" else dict.fromkeys(self.sizes, 1.0)
        batch = sum(parts[name] * size for name, size in self.batch_sizes.items())
        return math.ceil(sum(self.sizes.values()) / (batch * self.world_size))

    def __iter__(self) -> Iterator[list[Draw]]:
        position = copy.deepcopy(self._position)
        while True:
            accumulation, shares = self._step(position)
            yield [draw for share in shares for draw in self._draws(share, accumulation)]

    def advance(self) -> None:
        """Count one batch as trained on. Iterators that exist are not moved: workers load ahead of the training."""
        self._step(self._position)

    def _step(self, position: _Position) -> tuple[tuple[int, int], list[_Share]]:
        """Move ``position`` behind the next batch; return what part of how many its turn is, and its sources."""
        if self.mode == "mixed":
            sources, parts = range(len(self.sizes)), 1
        else:
            source = self._turns.source(position.turn)
            sources, parts = range(source, source + 1), [*self.accumulate.values()][source]
        accumulation = (position.part, parts)
        shares = []
        for source in sources:
            count = [*self.batch_sizes.values()][source] * self.world_size
            shares.append(_Share(source, position.draws[source], count))
            position.draws[source] += count
        position.part += 1
        if position.part >= parts:
            position.turn, position.part = position.turn + 1, 0
        return accumulation, shares

    def _draws(self, share: _Share, accumulation: tuple[int, int]) -> list[Draw]:
        own = share.draws // self.world_size
        indices, seeds = self._orders[share.source].draws(share.start + self.rank * own, own)
        pairs = zip(indices.tolist(), seeds.tolist(), strict=True)
        return [Draw(self._positions[share.source], index, seed, accumulation) for index, seed in pairs]

    def state_dict(self) -> dict:
        """How far the training has come, by source name, and what the order depends on."""
        names = list(self.sizes)
        return dict(
            turn=self._position.turn,
            part=self._position.part,
            draws=dict(zip(names, self._position.draws, strict=True)),
            seed=self.seed,
            sizes=dict(self.sizes),
            settings=self._settings(),
        )

    def _settings(self) -> dict:
        """What may change at a resume, with a message."""
        return dict(
            processes=self.world_size,
            mode=self.mode,
            schedule=self.schedule,
            shares={name: round(share, 9) for name, share in self.shares.items()},
            batch_size=dict(self.batch_sizes),
            accumulate=dict(self.accumulate),
            group_by_aspect_ratio=self._group_by_aspect_ratio,
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was written.

        Sources are known by their names. Another number of processes, other batch sizes or weights, new and missing
        sources are accepted with a warning: the samples that were drawn stay drawn.

        Raises:
            MTAdaptError: when a source has another number of samples, because its order would be another one.
        """
        for name, size in state["sizes"].items():
            if self.sizes.get(name, size) != size:
                raise MTAdaptError(
                    f"source {name!r} has {self.sizes[name]} samples, and had {size} when the checkpoint was written; "
                    f"resume with the same data, or start a new run with load_from"
                )
        before = state["settings"]
        changes = [
            f"{key} {before.get(key)} -> {now}" for key, now in self._settings().items() if before.get(key) != now
        ]
        if changes:
            print_log(
                f"Resuming with changed sources or processes: {'; '.join(changes)}. Every source goes on behind the "
                f"samples that were drawn; the training is another one than without the interruption.",
                logger="current",
                level=logging.WARNING,
            )
        if self.seed != state["seed"]:
            print_log(f"Order of samples: seed {state['seed']} of the checkpoint, not {self.seed}", logger="current")
            self.seed = state["seed"]
            self._make_orders()
        draws = [state["draws"].get(name, 0) for name in self.sizes]
        self._position = _Position(state["turn"], 0 if changes else state["part"], draws)
        if changes:
            self._start_whole_windows()

    def _start_whole_windows(self) -> None:
        """Skip to the next window where samples are arranged in windows that depend on the batch."""
        for source, order in enumerate(self._orders):
            if order.grouped:
                drawn = self._position.draws[source]
                self._position.draws[source] = -(-drawn // order.window) * order.window


def _check_equal_sizes(sizes: Mapping[str, int]) -> None:
    """Refuse processes that found different data, whose orders would not fit together."""
    for rank, others in enumerate(all_gather_object(dict(sizes))):
        for name in {**sizes, **others}:
            if sizes.get(name, 0) != others.get(name, 0):
                raise MTAdaptError(
                    f"source {name!r} has {sizes.get(name, 0)} samples here and {others.get(name, 0)} on process "
                    f"{rank}; give all machines the same data and config"
                )


def _check_count(setting: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise MTAdaptError(f"{setting}={value!r}; write a whole number of at least 1")

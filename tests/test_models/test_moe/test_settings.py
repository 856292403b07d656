"""Tests of the settings of experts."""

from __future__ import annotations

import pytest

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe import LayerExperts, plan_experts


def test_every_block():
    assert plan_experts("mlp_experts", dict(num_experts=8, top_k=2), 3) == [LayerExperts((8,), 2)] * 3


def test_no_experts():
    assert plan_experts("mlp_experts", None, 2) == [None, None]


def test_every_second_block_and_an_entry_a_layer():
    given = dict(num_experts=[8, [8, 2]], top_k=2, every=2)
    assert plan_experts("mlp_experts", given, 4) == [None, LayerExperts((8,), 2), None, LayerExperts((8, 2), 2)]
    given["offset"] = 0
    assert plan_experts("mlp_experts", given, 4)[::2] == [LayerExperts((8,), 2), LayerExperts((8, 2), 2)]


def test_experts_that_a_task_sees():
    experts = LayerExperts((8, 2, 1), 4)
    assert (experts.num_experts, experts.visible(1), experts.visible(2)) == (11, 8, 10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(num_experts=3, top_k=4), "top_k=4 of num_experts=3"),
        (dict(num_experts=[8, 2], top_k=4, every=2), "top_k=4 of num_experts=2"),
        (dict(num_experts=[8, 8]), "an entry for each of the 4 layers"),
        (dict(num_experts="8"), "write a number"),
        (dict(num_experts=0), "write a number"),
        (dict(num_experts=[[8, -1], 8, 8, 8]), r"entry \(8, -1\)"),
        (dict(num_experts=8, top_k=0), "top_k=0"),
        (dict(num_experts=8, every=0), "every=0"),
        (dict(num_experts=8, offset=4), "below the 4 blocks"),
        (dict(top_k=2), "write num_experts"),
        (8, "write dict"),
        (dict(num_experts=8, k=2), "write num_experts and, if need be, top_k, every, offset"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(MTAdaptError, match=f"mlp_experts.*{message}"):
        plan_experts("mlp_experts", given, 4)

"""Random numbers and permutations as functions of a key and a position: nothing is stored or replayed."""

from __future__ import annotations

import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 8
#: Up to this size a permutation sorts random numbers: a Feistel network over few bits cannot make all permutations.
_SORTED_SIZE = 1024


def mix(values: np.ndarray | np.uint64) -> np.ndarray:
    """Hash 64-bit integers to 64-bit integers, the finaliser of SplitMix64.

    Reference: Steele, Lea, Flood: Fast splittable pseudorandom number generators (OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        mixed = np.asarray(values, np.uint64) + _GOLDEN
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def key_of(*parts: int | str) -> np.uint64:
    """One 64-bit key of several integers and names; the order of the parts counts."""
    key = np.uint64(0)
    for part in parts:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part % 2**64
        key = np.uint64(mix(mix(key) ^ np.uint64(number)))
    return key


def numbers(key: np.uint64, positions: np.ndarray) -> np.ndarray:
    """A random 64-bit integer for every position.

    Args:
        key: what tells this sequence from others.
        positions: ``(n,)`` integers.

    Returns:
        ``(n,)`` uint64.
    """
    return mix(mix(np.asarray(positions, np.uint64)) ^ key)


def uniform(key: np.uint64, position: int) -> float:
    """A random number in [0, 1), the one at ``position`` of the sequence of ``key``."""
    return float(numbers(key, np.array([position]))[0] >> np.uint64(11)) / 2**53


def permute(key: np.uint64, size: int, positions: np.ndarray) -> np.ndarray:
    """Values at some positions of a random permutation of ``range(size)``, without computing the others.

    A Feistel network over the next even number of bits, walked until the value is below ``size``. Memory and time are
    those of ``positions``, for any size.

    Args:
        key: which permutation.
        size: number of elements.
        positions: ``(n,)`` integers from 0 to ``size - 1``.

    Returns:
        ``(n,)`` int64, different for different positions.

    Reference: Black, Rogaway: Ciphers with arbitrary finite domains (CT-RSA 2002), cycle walking.
    """
    if size <= _SORTED_SIZE:
        return np.argsort(numbers(key, np.arange(size)), kind="stable")[positions]
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    round_keys = mix(key ^ mix(np.arange(_ROUNDS, dtype=np.uint64)))

    def encrypt(values: np.ndarray) -> np.ndarray:
        left, right = values >> half, values & mask
        for round_key in round_keys:
            left, right = right, left ^ (mix(right ^ round_key) & mask)
        return (left << half) | right

    values = encrypt(np.asarray(positions, np.uint64))
    while (outside := values >= size).any():
        values[outside] = encrypt(values[outside])
    return values.astype(np.int64)

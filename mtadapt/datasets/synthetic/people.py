"""Pedestrians and riders: a skeleton of joints in space, clothed with round limbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mtadapt.datasets.synthetic.camera import NEAR
from mtadapt.datasets.synthetic.pen import TOWARDS, Pen
from mtadapt.datasets.synthetic.solid import Pose
from mtadapt.datasets.synthetic.thing import Thing

LIMB_SCALE = 9.0  # painted pixels in a metre below which a person is painted without arms
SKIN = np.array([[170, 195, 232], [140, 170, 215], [95, 130, 180], [60, 88, 130], [40, 58, 88]], float)
HAIR = np.array([[28, 26, 26], [34, 44, 62], [60, 96, 130], [110, 112, 116], [40, 60, 92]], float)
# Ours: clothes are mostly dull, some are bright.
CLOTHES = np.array(
    [[40, 38, 38], [70, 66, 62], [110, 70, 40], [120, 112, 108], [60, 64, 84], [200, 200, 202], [44, 40, 150],
     [150, 90, 40], [60, 120, 70], [60, 170, 220], [130, 60, 120], [170, 140, 60]],
    float,
)  # fmt: skip
TROUSERS = np.array([[48, 42, 40], [92, 64, 44], [110, 80, 52], [70, 84, 98], [36, 35, 36], [120, 130, 140]], float)


@dataclass(frozen=True)
class Clothes:
    """Colours of one person, and what the person carries."""

    skin: np.ndarray
    hair: np.ndarray
    top: np.ndarray
    legs: np.ndarray
    shoes: np.ndarray
    bag: np.ndarray | None = None
    umbrella: np.ndarray | None = None
    helmet: np.ndarray | None = None
    skirt: bool = False


@dataclass(frozen=True)
class Skeleton:
    """Joints in metres (right, up, forward); pairs are left and right."""

    hips: np.ndarray
    knees: np.ndarray
    feet: np.ndarray
    shoulders: np.ndarray
    elbows: np.ndarray
    hands: np.ndarray
    head: np.ndarray
    build: float = 1.0


def random_clothes(rng: np.random.Generator, rain: bool, helmet: bool = False) -> Clothes:
    """Draw the looks of a person."""
    pick = lambda table: table[rng.integers(len(table))] * rng.uniform(0.85, 1.15)  # noqa: E731
    skin, hair, top, legs = pick(SKIN), pick(HAIR), pick(CLOTHES), pick(TROUSERS)
    bag = pick(CLOTHES) * 0.8 if rng.random() < 0.3 else None
    umbrella = pick(CLOTHES) if rain and rng.random() < 0.45 else None
    hat = pick(CLOTHES) if helmet and rng.random() < 0.8 else None
    return Clothes(skin, hair, top, legs, np.array([36.0, 36, 40]), bag, umbrella, hat, bool(rng.random() < 0.18))


def walking(rng: np.random.Generator, height: float) -> Skeleton:
    """The skeleton of a person on foot, standing or in some phase of a step."""
    step = 0.0 if rng.random() < 0.25 else float(np.sin(rng.uniform(0, 2 * np.pi)))
    build = float(rng.uniform(0.9, 1.2))
    pair = lambda x, y, z: np.array([[-x, y, z], [x, y, -z]])  # noqa: E731
    hips = pair(0.048, 0.50, 0.0)
    knees = pair(0.052, 0.275, 0.09 * step) + [0, 0, 0.025 * abs(step)]
    feet = pair(0.052, 0.03, 0.145 * step)
    feet[1 if step > 0 else 0, 1] += 0.035 * abs(step)
    shoulders = pair(0.1 * build, 0.795, 0.0)
    elbows = pair(0.125 * build, 0.635, -0.06 * step) + [0, 0, -0.015]
    hands = pair(0.125 * build, 0.485, -0.13 * step) + [0, 0, 0.02]
    head = np.array([0.0, 0.925, 0.015])
    hips, knees, feet, shoulders, elbows, hands, head = (
        joint * height for joint in (hips, knees, feet, shoulders, elbows, hands, head)
    )
    return Skeleton(hips, knees, feet, shoulders, elbows, hands, head, build * height / 1.75)


def riding(rng: np.random.Generator, motorcycle: bool) -> Skeleton:
    """The skeleton of a person who sits on a bicycle or a motorcycle."""
    pair = lambda x, y, z: np.array([[-x, y, z], [x, y, z]])  # noqa: E731
    if motorcycle:
        joints = (pair(0.1, 0.86, -0.28), pair(0.2, 0.72, 0.14), pair(0.2, 0.32, -0.08), pair(0.2, 1.36, -0.06),
                  pair(0.33, 1.14, 0.14), pair(0.32, 1.02, 0.42), np.array([0, 1.6, 0.03]))  # fmt: skip
        return Skeleton(*joints, build=1.1)
    turn = rng.uniform(0, 2 * np.pi)
    pedal = np.array([[-0.1, 0.3 + 0.16 * np.sin(turn), 0.05 + 0.16 * np.cos(turn)],
                      [0.1, 0.3 - 0.16 * np.sin(turn), 0.05 - 0.16 * np.cos(turn)]])  # fmt: skip
    knees = np.array([[-0.11, 0.5 + 0.55 * pedal[0, 1], 0.24], [0.11, 0.5 + 0.55 * pedal[1, 1], 0.24]])
    joints = (pair(0.09, 0.97, -0.2), knees, pedal, pair(0.18, 1.43, 0.1), pair(0.24, 1.2, 0.28),
              pair(0.23, 1.06, 0.46), np.array([0, 1.66, 0.18]))  # fmt: skip
    return Skeleton(*joints)


def draw_person(pen: Pen, pose: Pose, skeleton: Skeleton, clothes: Clothes) -> None:
    """Paint a person: limbs of the far side, body and head, limbs of the near side."""
    bones = np.concatenate([skeleton.hips, skeleton.knees, skeleton.feet, skeleton.shoulders, skeleton.elbows,
                            skeleton.hands, skeleton.head[None]])  # fmt: skip
    world = pose.to_world(bones)
    hips, knees, feet, shoulders, elbows, hands = (world[2 * i : 2 * i + 2] for i in range(6))
    head, build = world[12], skeleton.build
    here = pen.camera.position
    back_to_us = bool(np.cos(pose.yaw) > 0)
    left_is_far = np.linalg.norm(shoulders[0] - here) > np.linalg.norm(shoulders[1] - here)
    far, near = (0, 1) if left_is_far else (1, 0)

    def limb(a: np.ndarray, b: np.ndarray, thick: float, thin: float, color: np.ndarray) -> None:
        pen.round_shape(np.stack([a, b]), (thick * build, thin * build), color)

    def arm(side: int) -> None:
        limb(shoulders[side], elbows[side], 0.058, 0.048, clothes.top * 0.92)
        limb(elbows[side], hands[side], 0.046, 0.038, clothes.top * 0.88)
        limb(hands[side], hands[side] + [0, -0.03, 0], 0.042, 0.036, clothes.skin)

    def leg(side: int, shade: float) -> None:
        limb(hips[side], knees[side], 0.088, 0.068, clothes.legs * shade)
        limb(knees[side], feet[side], 0.064, 0.046, clothes.legs * shade)
        toe = feet[side] + (pose.to_world(np.array([[0, 0, 0.12]]))[0] - pose.to_world(np.zeros((1, 3)))[0])
        limb(feet[side], toe, 0.05, 0.04, clothes.shoes)

    if pen.scale_at(head) * build < LIMB_SCALE:  # a few pixels high: legs, body and head will do
        limb(hips[far], feet[far], 0.08, 0.06, clothes.legs * 0.82)
        limb(hips[near], feet[near], 0.08, 0.06, clothes.legs)
        _torso(pen, hips, shoulders, clothes, build)
        limb(head - [0, 0.05, 0], head, 0.09, 0.1, clothes.hair if back_to_us else clothes.skin)
        return
    arm(far)
    leg(far, 0.82)
    leg(near, 1.0)
    _torso(pen, hips, shoulders, clothes, build)
    if clothes.bag is not None and np.cos(pose.yaw) > -0.5:
        back = (shoulders.mean(axis=0) * 0.6 + hips.mean(axis=0) * 0.4) - _forward(pose) * 0.13
        limb(back + [0, 0.12, 0], back - [0, 0.13, 0], 0.13, 0.14, clothes.bag)
    neck = shoulders.mean(axis=0)
    limb(neck, head, 0.05, 0.05, clothes.skin * 0.9)
    _head(pen, pose, head, build, clothes)
    arm(near)
    if clothes.umbrella is not None:
        _umbrella(pen, hands[near], head, clothes.umbrella)


def _forward(pose: Pose) -> np.ndarray:
    return np.array([np.sin(pose.yaw), 0.0, np.cos(pose.yaw)])


def _torso(pen: Pen, hips: np.ndarray, shoulders: np.ndarray, clothes: Clothes, build: float) -> None:
    joints = np.concatenate([hips, shoulders])
    pixels, depths = pen.camera.points(joints)
    if depths.min() < NEAR:
        return
    radii = np.array([0.105, 0.105, 0.075, 0.075]) * build * pen.camera.focal / depths
    ring = np.column_stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)])
    cloud = (pixels[:, None] + ring * radii[:, None, None]).reshape(-1, 2)
    if clothes.skirt:
        below = pixels[:2] + np.array([0.0, 2.2 * radii[0]])
        cloud = np.concatenate([cloud, below + [[-1.5 * radii[0], 0]], below + [[1.5 * radii[0], 0]]])
    outline = cv2.convexHull(cloud.astype(np.float32))[:, 0].astype(float)
    pen.outline(outline, clothes.top, float(joints[0, 0]), float(depths.mean()), TOWARDS)


def _head(pen: Pen, pose: Pose, head: np.ndarray, build: float, clothes: Clothes) -> None:
    """Face and hair, or a helmet; from behind one sees only hair."""
    up = np.array([0.0, 0.03 * build, 0.0])
    cover = clothes.helmet if clothes.helmet is not None else clothes.hair
    radius = 0.105 * build if clothes.helmet is None else 0.13 * build
    towards = -_forward(pose)[2]  # 1 looks at the camera
    pen.round_shape(np.stack([head - up, head + up]), (radius * 0.9, radius), cover)
    if towards > -0.5:
        aside = _forward(pose) * 0.035 * build
        face = head + aside - up * 1.2
        pen.round_shape(np.stack([face - up * 0.6, face + up * 0.4]), (0.066 * build, 0.078 * build), clothes.skin)


def _umbrella(pen: Pen, hand: np.ndarray, head: np.ndarray, color: np.ndarray) -> None:
    top = head + [0.05, 0.42, 0]
    pen.line(np.stack([hand, top]), 0.03, np.array([60.0, 60, 60]))
    turn = np.linspace(0, np.pi, 10)
    rim = np.column_stack([np.cos(turn) * 0.55, np.sin(turn) * 0.32 - 0.22, np.zeros(10)])
    pen.faces([top + rim], color)


class Pedestrian(Thing):
    """A person on foot; ``yaw`` is the way he walks."""

    shadow_strength = 0.7

    def __init__(self, rng: np.random.Generator, pose: Pose, rain: bool = False) -> None:
        height = float(rng.uniform(1.05, 1.35) if rng.random() < 0.1 else rng.normal(1.71, 0.08))
        super().__init__(pose, (0.5, height, 0.4), ("pedestrian",))
        self.skeleton = walking(rng, height)
        self.clothes = random_clothes(rng, rain)

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the person."""
        pen.begin(owners[0])
        draw_person(pen, self.pose, self.skeleton, self.clothes)

"""The 18 points of the livestock skeleton on a drawn animal, from the build that makes its solid.

Names and order are those of published cattle data, which is labelled from the side: there is one `eye`, one `ear`, one
`F` (elbow) and one `B` (stifle). Here they are those of the side that faces the camera, so that a mirrored picture has
them in place, and the left and right legs alone change their names.

- `mouth`: the front of the muzzle below the nostrils, on the midline. `eye`; `ear`: the middle of the ear.
- `neck`: the crest of the neck, behind the head. `body1` to `body4`: the midline of the back at the shoulder (withers),
  behind the chest, at the hips and at the root of the tail.
- `fl1`, `fr1`: the wrist of the left and the right fore leg; `fl2`, `fr2`: the toe. `bl`, `br`: hock and toe behind.
"""

from __future__ import annotations

import numpy as np

from .animals import Animal, pose
from .build import Joints
from .solids import Array, Camera

POINTS = ("mouth", "eye", "ear", "neck", "body1", "body2", "body3", "body4", "F", "fl1", "fl2", "fr1", "fr2", "B",
          "bl1", "bl2", "br1", "br2")
SIDED = ("eye", "ear", "F", "B")  # named once for an animal that has two


def animal_points(animal: Animal, camera: Camera) -> Array:
    """The places (18, 3), in metres of the world, of `POINTS` on an animal; the camera chooses the side of `SIDED`.

    >>> from .animals import random_animal
    >>> pig = random_animal("pig", 3.0, 4.0, [0], 1.0, np.random.default_rng(0))
    >>> animal_points(pig, Camera(np.zeros(3), np.eye(3), focal=100.0, width=200, height=100)).shape
    (18, 3)
    """
    return facing_points(pose(animal)[1], camera)[0]


def facing_points(joints: Joints, camera: Camera) -> tuple[Array, Array]:
    """The places (18, 3) of `POINTS` among the named points of a body, and their depths (18,) under the skin; metres.

    Of a pair the one nearer to the camera is taken. Eyes and ears mirror each other in one plane, the middle of the
    head, so their near ones are always of the same side; so are those of elbow and stifle.
    """
    far = dict(zip(joints.names, np.linalg.norm(joints.places - camera.position, axis=1), strict=True))
    names = [min((f"left {name}", f"right {name}"), key=far.__getitem__) if name in SIDED else name for name in POINTS]
    rows = [joints.names.index(name) for name in names]
    return joints.places[rows], joints.depths[rows]

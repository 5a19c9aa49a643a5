"""Simple solids in millimetres, and the abdomen as a table of them.

Positions are those of a mean adult: x to the patient's right, y to the front, z upwards, the origin in the middle of
the trunk at the height of the left kidney's hilum. Signed distances are approximate, negative inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Point = tuple[float, float, float]


def _column(point: Point) -> Volume:
    """(3, 1, 1, 1), to meet positions."""
    return np.array(point, np.float32).reshape(3, 1, 1, 1)


@dataclass(frozen=True)
class Ellipsoid:
    """centre and radii in mm."""

    centre: Point
    radii: Point

    def distance(self, at: Volume) -> Volume:
        """(3, *grid) millimetres to (*grid) signed distance."""
        centre, radii = (_column(part) for part in (self.centre, self.radii))
        return np.asarray((np.sqrt((((at - centre) / radii) ** 2).sum(axis=0)) - 1) * min(self.radii), np.float32)


@dataclass(frozen=True)
class Tube:
    """A path of round sections: points in mm, and the radius at each."""

    points: tuple[Point, ...]
    radii: tuple[float, ...]

    def distance(self, at: Volume) -> Volume:
        """(3, *grid) millimetres to (*grid) signed distance, of the nearest stretch."""
        nearest = np.full(at.shape[1:], np.inf, np.float32)
        path = list(zip(self.points, self.radii, strict=True))
        for (start, wide), (end, thin) in pairwise(path):
            along = np.subtract(end, start).astype(np.float32)
            offset = at - _column(start)
            share = np.clip(np.tensordot(along, offset, 1) / np.float32(along @ along), 0, 1)
            offset -= along.reshape(3, 1, 1, 1) * share
            radius = np.float32(wide) + share * np.float32(thin - wide)
            np.minimum(nearest, np.sqrt((offset**2).sum(axis=0)) - radius, out=nearest)
        return nearest


Solid = Ellipsoid | Tube


def union(parts: Sequence[Solid], at: Volume) -> Volume:
    """Signed distance of the parts together."""
    return np.asarray(np.minimum.reduce([part.distance(at) for part in parts]), np.float32)


# In the order they are drawn: what comes later lies over what comes before.
ORGANS: dict[str, tuple[Solid, ...]] = {
    "liver": (Ellipsoid((72, 10, 52), (74, 72, 62)), Ellipsoid((12, 48, 62), (58, 34, 34))),
    "stomach": (
        Ellipsoid((-58, 22, 52), (40, 38, 44)),
        Tube(((-62, 32, 40), (-48, 52, 0), (-5, 55, -12), (28, 44, -2)), (30, 26, 20, 13)),
    ),
    "spleen": (Ellipsoid((-108, -32, 42), (26, 44, 48)),),
    "right kidney": (Tube(((60, -42, 12), (66, -42, -12), (72, -38, -40)), (24, 27, 23)),),
    "left kidney": (Tube(((-60, -44, 26), (-65, -43, 2), (-70, -39, -26)), (24, 27, 23)),),
    "pancreas": (Tube(((36, 18, -26), (32, 24, -6), (4, 26, 6), (-34, 10, 14), (-78, -14, 30)), (15, 15, 10, 11, 10)),),
    "gallbladder": (Tube(((58, 48, -22), (50, 36, 4)), (17, 9)),),
    "portal and splenic veins": (
        Tube(((52, 10, 42), (22, 8, 14), (12, 6, 6), (-40, -4, 18), (-88, -26, 34)), (7, 8, 8, 6.5, 6)),
        Tube(((12, 6, 6), (8, 10, -24)), (6, 6)),
    ),
    "inferior vena cava": (Tube(((24, -6, 130), (24, -10, 50), (20, -16, -150)), (13, 12, 11)),),
    "aorta": (Tube(((-16, -18, 130), (-10, -18, 20), (-6, -18, -88)), (13, 11.5, 9.5)),),
    "esophagus": (Tube(((-10, 2, 130), (-14, 6, 88), (-34, 12, 66)), (10, 9.5, 9)),),
    "right adrenal gland": (
        Tube(((34, -30, 36), (31, -26, 52)), (6, 4.5)),
        Tube(((31, -26, 52), (40, -36, 30)), (4.5, 4)),
    ),
    "left adrenal gland": (
        Tube(((-34, -26, 32), (-33, -24, 50)), (6, 4.5)),
        Tube(((-33, -24, 50), (-43, -34, 28)), (4.5, 4)),
    ),
}

LUNGS = (Ellipsoid((84, -8, 138), (62, 78, 84)), Ellipsoid((-84, -8, 142), (60, 78, 74)))
VERTEBRAE = (Tube(((0, -52, 160), (0, -46, -20), (0, -52, -190)), (20, 22, 24)),)
ARCHES = (Tube(((0, -90, 160), (0, -86, -190)), (9, 9)),)
CANAL = (Tube(((0, -74, 160), (0, -72, -190)), (8, 8)),)
MUSCLES = (
    Tube(((34, -84, 160), (36, -82, -190)), (19, 21)),
    Tube(((-34, -84, 160), (-36, -82, -190)), (19, 21)),
    Tube(((28, -46, 10), (38, -42, -60), (52, -36, -190)), (8, 17, 24)),
    Tube(((-28, -46, 10), (-38, -42, -60), (-52, -36, -190)), (8, 17, 24)),
)
# As dense as pancreas and stomach, and without a label.
BOWEL = (
    Tube(((32, 42, -4), (52, 22, -10), (54, 14, -42), (12, 2, -52), (-22, 10, -44)), (12, 12, 12, 11, 11)),
    Tube(((100, -4, -20), (102, 0, -150)), (20, 24)),
    Tube(((-108, -10, -2), (-106, 0, -150)), (15, 17)),
    Tube(((96, 30, -30), (30, 66, -52), (-40, 66, -42), (-100, 14, -2)), (17, 17, 17, 15)),
)

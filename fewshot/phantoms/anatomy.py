"""A drawn abdomen: organs, bones and distractors as implicit shapes in millimetres, and points that they determine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Field = np.ndarray
"""float32 [X, Y, Z], one value per voxel."""

Point = tuple[float, float, float]

ORGANS: dict[str, int] = {"liver": 1, "spleen": 2, "kidney_right": 3, "kidney_left": 4, "spine": 5}
"""The labelled organs and their values; everything else in the body is a distractor."""

LANDMARKS = (
    "portal_vein",
    "kidney_right_top",
    "kidney_left_top",
    "renal_pelvis_right",
    "renal_pelvis_left",
)
"""Points of the anatomy: where the liver's vessels meet, and of either kidney the tip of its upper pole and the middle
of the pelvis, by which vessels enter; the two kidneys are mirror images of each other."""

AIR, LUNG, FAT, WATER, MUSCLE = -1000.0, -830.0, -105.0, 12.0, 58.0


@dataclass(frozen=True)
class Habitus:
    """What differs from patient to patient besides organ shapes, in mm and HU.

    Attributes:
        fat: thickness of the subcutaneous fat.
        enhancement: contrast agent, HU added to well perfused tissue; liver, spleen and kidneys share it.
        gas: share of the bowel that holds gas.
    """

    fat: float
    enhancement: float
    gas: float


class Canvas:
    """HU and labels that are painted shape by shape, later shapes over earlier ones, and landmarks.

    Attributes:
        landmarks: name -> its place in the body's own frame, mm.

    Args:
        points: RAS+ coordinates of every voxel in the body's own frame, mm, [3, X, Y, Z].
        edge: width of the soft transition at an organ's surface, mm (partial volume).
        rng: source of all variation.
    """

    def __init__(self, points: Field, *, edge: float, rng: np.random.Generator) -> None:
        self.x, self.y, self.z = points
        self.edge = edge
        self.rng = rng
        self.hu = np.full(points.shape[1:], AIR, dtype=np.float32)
        self.labels = np.zeros(points.shape[1:], dtype=np.uint16)
        self.landmarks: dict[str, Point] = {}

    def paint(self, distance: Field, hu: float | Field, label: int | None = 0) -> None:
        """Fill the inside of a shape (negative distance, mm); label None leaves the labels as they are."""
        cover = np.clip(0.5 - distance / self.edge, 0, 1)
        self.hu += cover * (hu - self.hu)
        if label is not None:
            self.labels[distance < 0] = label

    def ellipsoid(self, centre: Point, radii: Point, *, tilt: float = 0, lean: float = 0) -> Field:
        """Approximate distance to an ellipsoid, turned about z by `tilt` and about y by `lean` (degrees)."""
        x, y, z = self.x - centre[0], self.y - centre[1], self.z - centre[2]
        cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        x, y = cos * x + sin * y, cos * y - sin * x
        cos, sin = np.cos(np.radians(lean)), np.sin(np.radians(lean))
        x, z = cos * x + sin * z, cos * z - sin * x
        a, b, c = radii
        k0 = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
        k1 = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2)
        return np.asarray(k0 * (k0 - 1) / np.maximum(k1, 1e-6), dtype=np.float32)

    @staticmethod
    def apex(centre: Point, radii: Point, *, tilt: float = 0, lean: float = 0) -> Point:
        """The end of the third axis of the ellipsoid with these parameters, towards the head."""
        aside = -np.sin(np.radians(lean)) * radii[2]
        turn = np.radians(tilt)
        shift = (np.cos(turn) * aside, np.sin(turn) * aside, np.cos(np.radians(lean)) * radii[2])
        x, y, z = np.add(centre, shift)
        return float(x), float(y), float(z)

    def tube(self, start: Point, end: Point, radius: float) -> Field:
        """Distance to a straight tube with round ends."""
        axis = np.subtract(end, start)
        x, y, z = self.x - start[0], self.y - start[1], self.z - start[2]
        t = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) / float(axis @ axis), 0, 1)
        gap = (x - t * axis[0]) ** 2 + (y - t * axis[1]) ** 2 + (z - t * axis[2]) ** 2
        return np.asarray(np.sqrt(gap) - radius, dtype=np.float32)

    def torso(self, half_width: float, half_depth: float) -> Field:
        """Distance to the body's outline, a rounded box in every axial slice with a slight waist."""
        waist = 1 - 0.05 * np.exp(-(((self.z + 60) / 60) ** 2))
        x, y = np.abs(self.x) / (half_width * waist), np.abs(self.y) / (half_depth * waist)
        return np.asarray(((x**2.5 + y**2.5) ** 0.4 - 1) * min(half_width, half_depth), dtype=np.float32)

    def texture(self, size: float, amplitude: float) -> Field:
        """Smooth random texture: waves of about `size` mm, standard deviation `amplitude`."""
        total = np.zeros_like(self.hu)
        waves = 8
        for _ in range(waves):
            direction = self.rng.normal(size=3)
            direction *= 2 * np.pi / (size * self.rng.uniform(0.7, 1.4) * np.linalg.norm(direction))
            phase = self.x * direction[0] + self.y * direction[1] + self.z * direction[2]
            total += np.sin(phase + self.rng.uniform(0, 2 * np.pi))
        return np.asarray(total * amplitude * np.sqrt(2 / waves), dtype=np.float32)

    def near(self, centre: Point, by: float) -> Point:
        """A point moved at random by up to `by` mm along each axis."""
        x, y, z = np.add(centre, self.rng.uniform(-by, by, 3))
        return float(x), float(y), float(z)

    def about(self, radii: Point, share: float = 0.1) -> Point:
        """Radii changed at random by up to the given share."""
        a, b, c = np.multiply(radii, self.rng.uniform(1 - share, 1 + share, 3))
        return float(a), float(b), float(c)


def draw_body(canvas: Canvas, habitus: Habitus) -> None:
    """Paint one patient on an empty canvas, from the skin inwards."""
    couch = np.abs(canvas.y + 128 - canvas.x**2 / 900) - 3
    canvas.paint(np.maximum(couch, np.abs(canvas.x) - 140), -600)
    skin = canvas.torso(146, 115)
    wall = skin + habitus.fat
    cavity = wall + 13
    canvas.paint(skin, 5)
    canvas.paint(skin + 3.5, FAT + canvas.texture(40, 6))
    canvas.paint(wall, MUSCLE - 12 + canvas.texture(12, 14))
    canvas.paint(cavity, FAT + canvas.texture(15, 14))
    dome = _lungs(canvas, cavity)
    _muscles(canvas)
    _vessels(canvas, habitus)
    _gut(canvas, habitus, cavity, dome)
    _liver_and_spleen(canvas, habitus, cavity, dome)
    _kidneys(canvas, habitus)
    _ribs(canvas, wall)
    _spine(canvas)


def _lungs(canvas: Canvas, cavity: Field) -> Field:
    """Paint lung bases and heart above the diaphragm; returns the distance to the space below it."""
    right = canvas.ellipsoid(canvas.near((62, 0, -45), 4), (92, 104, 142))
    left = canvas.ellipsoid(canvas.near((-62, 0, -45), 4), (92, 104, 134))
    dome = np.minimum(right, left)
    canvas.paint(np.maximum(np.maximum(cavity + 2, -dome), 15 - canvas.z), LUNG + canvas.texture(14, 45))
    canvas.paint(np.maximum(canvas.ellipsoid((0, -32, 110), (36, 34, 60)), 70 - canvas.z), 20)
    canvas.paint(np.maximum(canvas.ellipsoid(canvas.near((-22, 38, 122), 5), (56, 42, 34)), -dome - 6), 120)
    return dome


def _muscles(canvas: Canvas) -> None:
    fibre = MUSCLE + canvas.texture(10, 9)
    for side in (1, -1):
        canvas.paint(canvas.ellipsoid((side * 33, -84, 0), (30, 19, 400)), fibre)
        canvas.paint(canvas.ellipsoid((side * 36, -40, -95), (17, 20, 92), lean=side * -8), fibre)


def _vessels(canvas: Canvas, habitus: Habitus) -> None:
    aorta, cava = canvas.near((-13, -14, 0), 3), canvas.near((23, -13, 0), 3)
    blood = 95 + habitus.enhancement
    canvas.paint(canvas.tube((aorta[0], aorta[1], -150), (aorta[0] - 4, aorta[1] - 6, 150), 11), blood + 15)
    canvas.paint(canvas.tube((cava[0], cava[1], -150), (cava[0] + 3, cava[1] + 12, 105), 12), blood - 15)


def _gut(canvas: Canvas, habitus: Habitus, cavity: Field, dome: Field) -> None:
    """Paint stomach, pancreas, colon and bowel loops: the same HU as the organs in places, other places."""
    rng = canvas.rng
    room = np.maximum(cavity + 2, dome + 4)
    wall = 62 + 0.5 * habitus.enhancement
    canvas.paint(canvas.tube(canvas.near((28, 12, 8), 5), canvas.near((-62, -8, 38), 6), 10), wall + 12)
    centre = canvas.near((-58, 38, 52), 7)
    stomach = np.maximum(canvas.ellipsoid(centre, canvas.about((42, 34, 44), 0.15), tilt=-20), room)
    canvas.paint(stomach, wall)
    canvas.paint(stomach + 5, 28 + canvas.texture(14, 16))
    canvas.paint(np.maximum(stomach + 5, centre[1] + 14 - canvas.y), AIR + 20)
    stool = 10 + canvas.texture(13, 55)
    for side, front in ((1, 18.0), (-1, 2.0)):
        top, low = (
            canvas.near((side * 96, front, -25 if side > 0 else 15), 5),
            canvas.near((side * 92, front, -150), 5),
        )
        colon = np.maximum(canvas.tube(top, low, rng.uniform(17, 22)), room)
        canvas.paint(colon, wall)
        canvas.paint(colon + 4, stool)
        canvas.paint(np.maximum(colon + 4, canvas.texture(45, 10) + front + 12 - canvas.y), AIR + 40)
    for _ in range(20):
        start = (rng.uniform(-70, 72), rng.uniform(2, 72), rng.uniform(-130, -12))
        end = np.add(start, rng.normal(size=3) * (28, 16, 16))
        loop = np.maximum(canvas.tube(start, (end[0], end[1], end[2]), rng.uniform(10, 15)), room)
        canvas.paint(loop, wall + rng.uniform(-8, 25))
        if rng.random() < habitus.gas:
            canvas.paint(np.maximum(loop + 4, start[1] + 2 - canvas.y), AIR + 60)
        else:
            canvas.paint(loop + 4, rng.uniform(5, 75))


def _liver_and_spleen(canvas: Canvas, habitus: Habitus, cavity: Field, dome: Field) -> None:
    rng = canvas.rng
    room = np.maximum(cavity + 1, dome + 2)
    right = canvas.ellipsoid(
        canvas.near((74, 8, 34), 6), canvas.about((66, 82, 84)), tilt=rng.uniform(-10, 10)
    )
    left = canvas.ellipsoid(canvas.near((0, 56, 56), 7), canvas.about((72, 33, 44), 0.15), tilt=12, lean=-14)
    visceral = canvas.ellipsoid(canvas.near((20, -40, -28), 5), canvas.about((62, 66, 62)))
    liver = np.maximum(np.maximum(np.minimum(right, left), -visceral), room)
    tissue = 68 + 0.6 * habitus.enhancement + rng.uniform(-6, 6)
    canvas.paint(liver, tissue + canvas.texture(9, 7), ORGANS["liver"])
    portal = canvas.near((34, 8, 44), 4)
    canvas.landmarks["portal_vein"] = portal
    for _ in range(7):
        end = np.add(portal, rng.normal(size=3) * (38, 30, 30))
        branch = canvas.tube(portal, (end[0], end[1], end[2]), rng.uniform(2.5, 4.5))
        canvas.paint(np.maximum(branch, liver + 5), tissue + 34, None)
    canvas.paint(
        canvas.ellipsoid(canvas.near((44, 44, -6), 6), canvas.about((14, 15, 25), 0.25), lean=12), WATER
    )

    centre = canvas.near((-92, -36, 56), 6)
    body = canvas.ellipsoid(centre, canvas.about((38, 50, 56), 0.12), tilt=rng.uniform(10, 25), lean=8)
    hilum = canvas.ellipsoid((centre[0] + 44, centre[1] + 16, centre[2] - 8), (30, 32, 38))
    spleen = np.maximum(np.maximum(body, -hilum), room)
    canvas.paint(spleen, tissue + rng.uniform(2, 16) + canvas.texture(22, 5), ORGANS["spleen"])


def _kidneys(canvas: Canvas, habitus: Habitus) -> None:
    rng = canvas.rng
    for side, which, height in ((1, "right", -22.0), (-1, "left", -4.0)):
        name = f"kidney_{which}"
        centre = canvas.near((side * 63, -42, height), 6)
        turn = side * rng.uniform(25, 45)
        radii = canvas.about((26, 31, 54))
        lean = side * rng.uniform(6, 14)
        kidney = canvas.ellipsoid(centre, radii, tilt=turn, lean=lean)
        canvas.landmarks[f"{name}_top"] = canvas.apex(centre, radii, tilt=turn, lean=lean)
        pelvis = (centre[0] - side * 15, centre[1] + 9, centre[2])
        canvas.landmarks[f"renal_pelvis_{which}"] = pelvis
        sinus = canvas.ellipsoid(pelvis, (17, 9, 20), tilt=turn)
        cortex = 82 + 0.85 * habitus.enhancement
        canvas.paint(kidney - 5, FAT)
        canvas.paint(kidney, cortex + 22, ORGANS[name])
        canvas.paint(kidney + 8, cortex - 12 + canvas.texture(11, 13), ORGANS[name])
        canvas.paint(sinus, -45)
        canvas.paint(sinus + 5, WATER)


def _ribs(canvas: Canvas, wall: Field) -> None:
    """Paint ribs: tubes in the chest wall that fall towards the front, above the waist only."""
    fall = canvas.z + 0.45 * canvas.y + canvas.rng.uniform(-12, 12)
    along = np.abs((fall + 4000) % 31 - 15.5) * 0.9
    rib = np.asarray(np.hypot(wall + 9, along) - 5.5, dtype=np.float32)
    cartilage = np.maximum(65 - canvas.y, np.abs(canvas.x) - 75)
    rib = np.maximum(np.maximum(rib, -8 - fall), -cartilage)
    canvas.paint(rib, 420, None)
    canvas.paint(rib + 3, 190, None)


def _spine(canvas: Canvas) -> None:
    """Paint vertebrae with cortex, discs, arch and processes; the canal is left out of the label."""
    rng = canvas.rng
    value = ORGANS["spine"]
    pitch, phase = rng.uniform(32, 37), rng.uniform(0, 35)
    level = np.abs((canvas.z + phase + 4000) % pitch - pitch / 2)
    depth = canvas.y + 50 - 6 * np.cos((canvas.z + 60) / 70)
    bulk = rng.uniform(0.93, 1.07)
    column = (np.hypot(canvas.x / 24, depth / 18) - bulk) * 20
    between = level - (pitch / 2 - 4)
    marrow = 160 + rng.uniform(-25, 25) + canvas.texture(8, 18)
    canvas.paint(column, 88, value)
    vertebra = np.maximum(column - 1.5, between)
    canvas.paint(vertebra, 290, value)
    canvas.paint(vertebra + 3.5, marrow, value)
    canal = np.hypot(canvas.x, (depth + 26) * 1.1) - 9
    arch = np.maximum(canal - 6, level - 12)
    spinous = np.maximum(np.maximum(np.abs(canvas.x) - 4.5, np.abs(depth + 44) - 11), level - 9)
    transverse = np.maximum(np.maximum(np.abs(canvas.x) - 40, np.abs(depth + 25) - 4.5), level - 6)
    for part in (arch, spinous, transverse):
        canvas.paint(part, 240, value)
        canvas.paint(part + 3.5, marrow - 30, value)
    canvas.paint(canal, 25)

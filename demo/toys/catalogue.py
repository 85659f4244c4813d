"""The families of toys, with their frequencies."""

from __future__ import annotations

from collections.abc import Callable

from demo.toys import (
    abstract,
    aircraft,
    animals,
    buildings,
    creatures,
    household,
    nature,
    things,
    vehicles,
    vessels,
)
from demo.toys.toy_builder import ToyBuilder

FAMILIES: dict[str, tuple[float, Callable[[ToyBuilder], None]]] = {
    "assembly": (8.0, abstract.assembly),
    "carved": (4.0, abstract.carved),
    "superquadrics": (4.0, abstract.superquadrics),
    "letters": (4.0, abstract.lettering),
    "plates": (3.0, abstract.plates),
    "vase": (4.0, vessels.vase),
    "bottle": (3.0, vessels.bottle),
    "cup": (4.0, vessels.cup),
    "bell": (1.5, vessels.bell),
    "chess": (2.5, vessels.chess_piece),
    "top": (2.0, vessels.spinning_top),
    "chair": (4.5, household.chair),
    "table": (3.0, household.table),
    "stool": (2.0, household.stool),
    "shelf": (2.5, household.shelf),
    "sofa": (3.0, household.sofa),
    "bed": (2.5, household.bed),
    "lamp": (2.5, household.lamp),
    "clock": (2.0, household.grandfather_clock),
    "car": (6.0, vehicles.car),
    "truck": (3.5, vehicles.truck),
    "train": (2.5, vehicles.train),
    "boat": (3.0, vehicles.boat),
    "aeroplane": (3.5, aircraft.aeroplane),
    "rocket": (2.5, aircraft.rocket),
    "house": (4.0, buildings.house),
    "castle": (3.0, buildings.castle),
    "blocks": (3.5, buildings.blocks),
    "snowman": (2.0, creatures.snowman),
    "robot": (4.0, creatures.robot),
    "person": (3.0, creatures.person),
    "animal": (6.0, animals.animal),
    "bird": (3.5, animals.bird),
    "fish": (3.0, animals.fish),
    "tree": (3.0, nature.tree),
    "mushroom": (2.5, nature.mushroom),
    "cake": (3.0, things.cake),
    "fruit": (2.5, nature.fruit),
    "hat": (3.0, things.hat),
    "tool": (2.5, things.tool),
    "gadget": (4.0, things.gadget),
}
"""Family -> relative frequency, and the function that adds its parts to a `ToyBuilder`.

Order and frequencies decide which toy a seed gives: do not change them."""

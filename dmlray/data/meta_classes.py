"""DREML's random map of classes onto meta-classes."""

import math
from random import Random


def deal(classes: int, meta_classes: int, random: Random) -> list[int]:
    """The meta-class of each class, sizes differing by at most one: (C,).

    Source: leftthomas/DREML utils.py and littleredxh/DREML Utils.py, draw for draw.
    """
    hands: list[int] = []
    for _ in range(math.ceil(classes / meta_classes)):
        hand = list(range(meta_classes))
        random.shuffle(hand)
        hands += hand
    hands = hands[:classes]
    random.shuffle(hands)
    return hands

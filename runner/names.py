"""Names for containers that were given none: two words, and a number once they repeat."""

from __future__ import annotations

import os
from collections.abc import Iterator

_FIRST = """
agile amber bold brave breezy bright brisk calm candid clever cosmic crisp deft eager early fair fleet fond
fresh gentle glad golden happy hardy honest jolly keen kind light lively loyal lucid lucky merry mild neat
nimble noble patient polite proud quick quiet rapid ready robust serene sharp silent smooth snug solid stable
steady sunny swift tidy trusty vivid warm wise witty young zesty
"""
_SECOND = """
alder aspen badger beaver birch bison cedar condor crane curlew dolphin dove eagle egret elk falcon fern finch
fox gannet gecko hare hawk hazel heron ibex ibis iris jay juniper kestrel kite lark lemur lily linden lynx
magpie maple marten mole newt oak oriole osprey otter owl panda pine plover puffin quail raven robin salmon seal
sparrow stork swan tern thrush wren willow yew
"""


def random_names() -> Iterator[str]:
    """Yield names without end, plain ones and numbered ones in turn."""
    firsts, seconds = _FIRST.split(), _SECOND.split()
    while True:
        first, second, number = os.urandom(3)
        name = f"{firsts[first % len(firsts)]}_{seconds[second % len(seconds)]}"
        yield name
        yield f"{name}{number}"

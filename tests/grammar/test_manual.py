"""The manual describes what the grammar takes, all of it and nothing else."""

from __future__ import annotations

from grammar.flags import FLAGS
from grammar.manual import INSTRUCTIONS, MOUNT_KEYS, MOUNT_TYPE_KEYS, MOUNT_TYPES
from grammar.mount import ALIASES, KEYS, TYPES, parse_mount
from grammar.node import SHAPES


def test_every_instruction_has_a_page() -> None:
    """Instructions and their flags are those that are parsed."""
    assert set(INSTRUCTIONS) == set(SHAPES)
    assert {name: set(page.flags) for name, page in INSTRUCTIONS.items() if page.flags} == {
        name: set(flags) for name, flags in FLAGS.items()
    }


def test_values_tell_switches_apart() -> None:
    """A flag without a description of its value is a switch, and the other way round."""
    for name, flags in FLAGS.items():
        for flag, kind in flags.items():
            assert (INSTRUCTIONS[name].flags[flag].value == "") == (kind == "switch"), flag


def test_every_key_of_a_mount_is_described() -> None:
    """Keys and types are those that are parsed; aliases need no words of their own."""
    assert set(MOUNT_TYPES) == set(TYPES)
    assert {ALIASES.get(key, key) for key in KEYS} == set(MOUNT_KEYS)


def test_what_is_offered_is_taken() -> None:
    """Every key that is offered for a type of mount is one that the type has."""
    samples = {"sharing": "locked", "mode": "0755", "uid": "0", "gid": "0", "size": "1m", "target": "/x"}
    for kind, keys in MOUNT_TYPE_KEYS.items():
        for key in keys:
            value = f"={samples.get(key, 'true')}" if MOUNT_KEYS[key].value else ""
            parse_mount(f"type={kind}{'' if key in ('id', 'target') else ',target=/x'},{key}{value}")

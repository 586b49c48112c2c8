"""The difference between two texts as edits of the first, so that an editor keeps cursors and folds elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher


def differences(before: str, after: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, text): what to put between two offsets of `before` to get `after`, in order, whole lines."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    starts = [0]
    for line in old:
        starts.append(starts[-1] + len(line))
    for tag, first, last, new_first, new_last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            yield starts[first], starts[last], "".join(new[new_first:new_last])

"""The directories behind `RUN --mount=type=cache`: found by id, shared as asked for, kept between builds.

They are no part of any layer or key; what is in them is the steps' own business.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from builder.ops import CacheMount
from builder.turns import turn
from layerstore import Store

_MOST_PRIVATE = 1000


def _never() -> bool:
    return False


class CacheMounts(NamedTuple):
    """All cache mounts of one store.

    `namespace` is BUILDKIT_CACHE_MOUNT_NS: it keeps projects apart. `canceled` ends waiting.
    """

    store: Store
    namespace: str = ""
    canceled: Callable[[], bool] = _never

    @contextlib.contextmanager
    def hold(self, mount: CacheMount, *, seed: str, fill: Callable[[Path], None]) -> Iterator[Path]:
        """Yield the directory for `mount`, made on first use: owned and permitted as it says, then `fill` makes it the
        seed's copy.

        `seed` identifies the seed's content: another seed, owner or mode is another cache. `shared` shares it with all
        who do, `locked` waits for its turn, `private` takes a directory that nobody uses.
        """
        identity = "\0".join((self.namespace, mount.id, seed, oct(mount.mode), str(mount.uid), str(mount.gid)))
        name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
        root = self.store.root / "cache-mounts"
        os.makedirs(root, mode=0o711, exist_ok=True)
        with contextlib.ExitStack() as held:
            match mount.sharing:
                case "private":
                    path = self._private(root, name, held)
                case "locked":
                    held.enter_context(turn(self.store, f"cache-mount-{name}", self.canceled))
                    path = root / name
                case _:
                    held.enter_context(turn(self.store, f"cache-mount-{name}", self.canceled, shared=True))
                    path = root / name
            self._create(path, mount, fill)
            yield path

    def sweep(self) -> int:
        """Remove every cache that no step uses now; return how many."""
        root = self.store.root / "cache-mounts"
        removed = 0
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            with contextlib.ExitStack() as held:
                if self.store.try_lock(f"cache-mount-{path.name}", held):
                    import shutil  # noqa: PLC0415 - only for cleaning up

                    shutil.rmtree(path)
                    removed += 1
        return removed

    def _private(self, root: Path, name: str, held: contextlib.ExitStack) -> Path:
        for number in range(_MOST_PRIVATE):
            label = name if number == 0 else f"{name}-{number}"
            if self.store.try_lock(f"cache-mount-{label}", held):
                return root / label
        raise AssertionError("BUG: a thousand steps use one private cache")

    def _create(self, path: Path, mount: CacheMount, fill: Callable[[Path], None]) -> None:
        if path.is_dir():
            return
        # Made aside and renamed, so that nobody sees a half-filled cache; two makers at once: the second's is dropped.
        fresh = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        os.mkdir(fresh, 0o700)
        os.chown(fresh, mount.uid, mount.gid)
        os.chmod(fresh, mount.mode)
        fill(fresh)
        try:
            os.rename(fresh, path)
        except OSError:
            if not path.is_dir():
                raise
            import shutil  # noqa: PLC0415 - a rare race

            shutil.rmtree(fresh)

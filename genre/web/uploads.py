"""What uploads may take: how many are received at once, and how much of the page's uploads is kept."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

LEAST_BYTES = 1 << 16  # that a file counts as: many small ones would fill a disk, too


class Uploads:
    """The uploads that are under way; one for the interface and the page together, on one event loop."""

    def __init__(self, most: int) -> None:
        """Allow `most` at once."""
        self._most = most
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return self.count >= self._most

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count one for as long as it takes."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


class Kept:
    """A folder of uploads that are kept for a while, within a budget: the oldest go first."""

    def __init__(self, folder: Path, max_bytes: int, keep_s: float) -> None:
        """Keep what is in a folder of folders.

        Parameters
        ----------
        folder : Path
        max_bytes : int
            Of all files together; a file counts as at least `LEAST_BYTES`.
        keep_s : float
            Seconds after which a file goes in any case.
        """
        self._folder, self._max_bytes, self._keep_s = folder, max_bytes, keep_s

    def make_room(self, n_bytes: int = 0) -> None:
        """Remove what is too old, then the oldest until `n_bytes` more fit into the budget."""
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) + n_bytes - self._max_bytes
        oldest_s = time.time() - self._keep_s
        for changed_s, size, path in files:
            if excess <= 0 and changed_s > oldest_s:
                break
            with contextlib.suppress(OSError):  # somebody else has removed it
                path.unlink()
            excess -= size
        self._remove_empty_folders(oldest_s)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when a file was last written or moved, the bytes that it counts as, and its path."""
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    status = path.lstat()
                    yield status.st_ctime, max(status.st_size, LEAST_BYTES), path

    def _remove_empty_folders(self, oldest_s: float) -> None:
        for folder in self._folder.glob("*"):
            with contextlib.suppress(OSError):  # it is a file, or not empty
                if folder.stat().st_mtime < oldest_s:  # a younger one may be waiting for its file
                    folder.rmdir()

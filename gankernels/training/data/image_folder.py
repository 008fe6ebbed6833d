"""Which files of a folder are images to train on, and what was left out and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gankernels._extras import require

__all__ = ["Listing", "find_images", "suffixes"]

# Pillow opens these too, and they are no pictures to train on: documents, fonts' and films' containers.
_NOT_PICTURES = frozenset((".pdf", ".mpg", ".mpeg", ".hdf", ".h5", ".grib", ".bufr"))


def suffixes() -> frozenset[str]:
    """The endings of all image files that Pillow reads."""
    image = require("PIL.Image")
    image.init()
    found = image.registered_extensions()
    return frozenset(s for s, kind in found.items() if kind in image.OPEN) - _NOT_PICTURES


@dataclass
class Listing:
    """The images below a folder.

    Args:
        root: The folder.
        images: Their paths, sorted.
        skipped: How many files or folders were left out, by reason.
        empty: The folders right below the root that hold no image.
    """

    root: Path
    images: list[Path]
    skipped: Counter[str] = field(default_factory=Counter)
    empty: tuple[str, ...] = ()

    def classes(self) -> tuple[str, ...]:
        """The top subfolders; none where an image lies in no subfolder."""
        if any(path.parent == self.root for path in self.images):
            return ()
        return tuple(sorted({self.top(path) for path in self.images}))

    def top(self, path: Path) -> str:
        """The first folder below the root on the way to ``path``."""
        return path.relative_to(self.root).parts[0]

    def summary(self) -> str:
        """One line: images, classes with their counts or why there are none, and what was skipped."""
        text = f"{self.root}: {len(self.images):,} images"
        counts = Counter(self.top(path) for path in self.images)
        if classes := self.classes():
            named = ", ".join(f"{name} {counts[name]:,}" for name in classes)
            text += f" in {len(classes)} classes ({named})"
        elif loose := sum(path.parent == self.root for path in self.images):
            folders = sorted({self.top(path) for path in self.images if path.parent != self.root})
            if folders:
                text += f"; no classes, as {loose:,} lie loose beside {', '.join(folders)}"
        if self.empty:
            text += f"; no images in {', '.join(self.empty)}"
        if self.skipped:
            text += "; skipped " + ", ".join(
                f"{n} {why}" for why, n in sorted(self.skipped.items())
            )
        return text


def find_images(root: Path) -> Listing:
    """List the images below ``root``: through links, but not into what is hidden.

    Hidden is every file and folder below the root whose name begins with a dot: checkpoints of
    notebooks, thumbnails, version control, wastebaskets.

    Raises:
        ValueError: A ring of links, or no image at all.
    """
    wanted = suffixes()
    listing = Listing(root, [])
    for path in _walk(root, (), listing.skipped):
        if path.suffix.lower() in wanted:
            listing.images.append(path)
        else:
            listing.skipped[f"files ending in {path.suffix or 'nothing'}"] += 1
    listing.images.sort()
    used = {listing.top(path) for path in listing.images}
    folders = (e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
    listing.empty = tuple(sorted(name for name in folders if name not in used))
    if not listing.images:
        raise ValueError(
            f"{root}: no images; expected files ending in {' '.join(sorted(wanted))}"
            + (f" (skipped {dict(listing.skipped)})" if listing.skipped else "")
        )
    return listing


def _walk(
    folder: Path, above: tuple[tuple[int, int], ...], skipped: Counter[str]
) -> Iterator[Path]:
    """The files below ``folder``; ``above`` are the folders on the way to it."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise ValueError(f"{folder}: links lead round in a ring; remove the one that leads back")
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith("."):
            skipped["hidden"] += 1
        elif entry.is_dir():
            yield from _walk(path, (*above, here), skipped)
        elif entry.is_file():
            yield path
        else:
            skipped["links to nothing" if entry.is_symlink() else "neither file nor folder"] += 1

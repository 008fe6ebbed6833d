"""What shows how far a run has come."""

from __future__ import annotations

from typing import Any

from gankernels._extras import require


def bar_of(run: str, steps: int, done: int) -> Any:
    """tqdm's, of so many steps of which some are done."""
    return require("tqdm").tqdm(
        total=steps, initial=done, desc=run, unit="step", dynamic_ncols=True, mininterval=0.5
    )


class Silent:
    """A progress bar that shows nothing and needs no package."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self) -> None:
        pass

    def set_postfix(self, *_: object, **__: object) -> None:
        pass

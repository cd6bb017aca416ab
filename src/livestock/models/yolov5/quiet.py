"""yolov5 without its announcements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import compat


@contextmanager
def quiet() -> Iterator[None]:
    """yolov5 announces each model it builds and the fusing of layers."""
    compat.apply()
    from yolov5.utils.general import LOGGER

    level = LOGGER.level
    LOGGER.setLevel("WARNING")
    try:
        yield
    finally:
        LOGGER.setLevel(level)

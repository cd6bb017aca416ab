"""From candidates, every box a model proposes, to the boxes that stay: suppression, fusion, their thresholds."""

from .suppression import suppress
from .sweep import sweep

__all__ = ["suppress", "sweep"]

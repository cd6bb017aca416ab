"""Names of model families to their code, which is imported when it is asked for."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from ..exceptions import BadData
from .base import Family

FAMILIES = {
    "yolov5": ".yolov5.family:YoloV5",
    "retinanet": ".retinanet:RetinaNetFamily",
    "dfine": ".dfine:DFineFamily",
}


@cache
def get_family(name: str) -> Family:
    """The family of this name.

    Raises BadData for a name that is not known, ImportError that says what to install for a family whose library is
    not there.
    """
    if name not in FAMILIES:
        raise BadData(f"model family {name!r}: expected one of {', '.join(FAMILIES)}")
    module, attribute = FAMILIES[name].split(":")
    family: Family = getattr(import_module(module, __package__), attribute)()
    return family

"""Names of model families to their code, which is imported when it is asked for."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from ..exceptions import BadData
from .base import Family

FAMILIES = {
    "yolov5": ".yolov5.family:YoloV5",
    "retinanet": ".retinanet:RetinaNetFamily",
    "ssd": ".ssd:SsdFamily",
    "tood": ".tood:ToodFamily",
    "yolox": ".yolox:YoloxFamily",
    "dfine": ".dfine:DFineFamily",
    "rfdetr": ".rfdetr:RfDetrFamily",
    "heatmap": ".heatmap:HeatMapFamily",
    "topdown": ".topdown:TopDownFamily",
    "yolo_pose": ".yolo_pose:YoloPoseFamily",
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


def find_start(family: str, weights: str, directory: Path) -> Path | None:
    """The file of start weights for a path or an official name, which is downloaded into `directory` when online.

    None where `weights` is one of the family's sizes: such a network starts from random weights.
    Raises BadData that says what to do for a file that is not there and cannot be downloaded.
    """
    if Path(weights).is_file():
        return Path(weights)
    known = get_family(family)
    if weights in known.sizes:
        return None
    for name in FAMILIES:
        if not Path(weights).suffix and weights in _find_sizes(name):  # an official name imports no other family
            raise BadData(f"weights {weights!r}: expected those of the family {family}, or one of its sizes "
                          f"{', '.join(known.sizes)}; found a size of {name}: add --family {name}")
    return known.find_pretrained(weights, directory)


def _find_sizes(name: str) -> tuple[str, ...]:
    """The sizes of a family; none of one whose library is not installed, which nobody asks for by mistake."""
    try:
        return tuple(get_family(name).sizes)
    except ImportError:
        return ()

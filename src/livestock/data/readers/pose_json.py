"""One JSON an image with `bboxes`, xyxy, and `keypoints`, a list of `[x, y, visible]` for each, as in torchvision."""

from __future__ import annotations

from typing import Any

from ...config import Competition
from ...exceptions import BadData
from . import clean
from .points import ONE_IS_SEEN, RawPoint, only_label
from .tree import File
from .values import number, read_json, short


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """One JSON an image, found by its path; its objects are of the skeleton's only class, their points in its order.

    Where no visibility in the data is 2 they are flags, and 1 counts as seen; otherwise they are COCO's. Raises BadData
    for an object with another number of points than the skeleton has.
    """
    label = only_label(source, competition)
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    for file, row in clean.match_labels(source, source.with_suffix(".json")):
        try:
            boxes += _read(file, row.image_id, label)
            known.add(row.image_id)
        except (ValueError, KeyError, TypeError) as error:
            source.report.add(clean.UNREADABLE_LABEL, file.place, row.image_id, f"{type(error).__name__}: {error}")
    seen = {number(point.visible) for box in boxes for point in box.points or () if _is_text_or_number(point.visible)}
    if competition.skeleton is not None and 1 in seen and 2 not in seen:
        source.report.add(ONE_IS_SEEN, str(source.root), "", "they are taken as flags")
        boxes = [box._replace(points=tuple(map(_from_flag, box.points or ()))) for box in boxes]
    return clean.Labels(known, boxes)


def is_pose(content: Any) -> bool:
    """Whether a JSON has lists of boxes and of keypoints.

    >>> is_pose({"bboxes": [], "keypoints": []}), is_pose({"images": []})
    (True, False)
    """
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("bboxes", "keypoints"))


def _read(file: File, image_id: str, label: str) -> list[clean.RawBox]:
    """The objects of one JSON. Raises BadData, KeyError or TypeError for what is none of this format."""
    content = read_json(file.read())
    corners, points = content["bboxes"], content["keypoints"]
    if not is_pose(content) or len(corners) != len(points):
        raise BadData(f"expected a list of bboxes and one of the keypoints of each, found {short(corners)} and "
                      f"{short(points)}")
    return [clean.RawBox(file.place, image_id, label, tuple(map(number, box)) if isinstance(box, list) else (box,),
                         tuple(map(_point, own)))
            for box, own in zip(corners, points, strict=True)]


def _point(value: Any) -> RawPoint:
    """A point of a list. Raises BadData for what is not x, y and visibility."""
    if not isinstance(value, list) or len(value) != 3:
        raise BadData(f"expected x, y and visibility of each keypoint, found {short(value)}")
    x, y, visible = map(number, value)
    is_none = not isinstance(visible, bool) and visible == 0 and (x, y) == (0, 0)
    return RawPoint(None, None, None, 0) if is_none else RawPoint(None, x, y, visible)


def _is_text_or_number(value: Any) -> bool:
    return isinstance(value, str | float | int) and not isinstance(value, bool)


def _from_flag(point: RawPoint) -> RawPoint:
    return point._replace(visible=2) if _is_text_or_number(point.visible) and number(point.visible) == 1 else point

"""COCO: a JSON with `images`, `annotations` and `categories`, and the pictures in folders or zips beside it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from ...config import Competition, FoundPoints
from ...exceptions import BadData
from . import clean
from .coco_points import points_by_category, points_of
from .entries import Finder, picture_path
from .masks import outline_box
from .points import ODD_POINTS, RawPoint, move
from .tree import File
from .values import identifier, is_number, is_true, number, read_json, short

OF_TEST = "of a test image"  # stands for a reason where boxes are passed over without a line of their own


class _Match(NamedTuple):
    """The image of an entry, why its boxes are left out if they are, and what brings them to the image's size."""

    image_id: str
    reason: str | None
    change: clean.Change | None = None


def find_labels(source: clean.Source, competition: Competition) -> clean.Labels:
    """Every JSON that has COCO's keys; an entry belongs to the picture of its path, else to the only one of its name.

    `bbox` is `xywh` in pixels; without one it is the box around the segmentation. Boxes with `iscrowd` surround groups
    and are left out, unless a file marks all of its objects so, as exports of masks do. Of the entries of one picture
    the first counts, over all files. Raises BadData naming all where an entry could be of several pictures.

    Keypoints are named by their category, or where it names none they are the skeleton's in its order. An annotation's
    `area` is not read: exports write that of the box, or none, and OKS takes .53 of the box (see `evaluation.oks`,
    which takes true areas by `box_id` from whoever has them); nor is `num_keypoints`, which may be missing.
    """
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    lists = [(file, content) for file in source.with_suffix(".json")
             if (content := _read_json(file, source.report)) is not None]
    names = [(file, [name for image in content["images"] if (name := _file_name(image))]) for file, content in lists]
    for (file, content), found in zip(lists, Finder(source).find_all(names), strict=True):
        matched = _match_images(file, content, found, source, known)
        boxes += _raw_boxes(file, content, matched, source, asks=competition.skeleton is not None)
    return clean.Labels(known, boxes)


def is_coco(content: Any) -> bool:
    """Whether a JSON has COCO's lists.

    >>> is_coco({"images": [], "annotations": [], "categories": []}), is_coco([])
    (True, False)
    """
    return isinstance(content, dict) and all(isinstance(content.get(key), list)
                                             for key in ("images", "annotations", "categories"))


def _read_json(file: File, report: clean.Report) -> dict[str, Any] | None:
    """A file's content if it is COCO's; other JSON files, results for instance, are noted."""
    try:
        content = read_json(file.read())
        for key in ("images", "annotations", "categories"):
            if not isinstance(content[key], list):
                raise BadData(f"expected a list of {key}, found {short(content[key])}")
        _category_names(content)
    except (ValueError, KeyError, TypeError) as error:
        report.add(clean.UNREADABLE_LABEL, file.place, "", f"{type(error).__name__}: {error}")
        return None
    return content


def _category_names(content: dict[str, Any]) -> dict[Any, str]:
    """Category id to name. Raises BadData for an id of two names."""
    names: dict[Any, str] = {}
    for category in content["categories"]:
        if isinstance(category, dict) and (key := identifier(category.get("id"))) is not None:
            name = str(category.get("name"))
            if names.setdefault(key, name) != name:
                raise BadData(f"category id {key!r} of two names, {names[key]!r} and {name!r}")
    return names


def _match_images(
    file: File, content: dict[str, Any], found: dict[str, str | None], source: clean.Source, known: set[str]
) -> dict[Any, _Match]:
    """By the id of each entry its picture, which `found` has by name; pictures with a label go into `known`.

    What is left out is noted.
    """
    entries = [(image, _image_id(image), _file_name(image)) for image in content["images"]]
    names_of: dict[Any, set[str | None]] = defaultdict(set)
    for _, key, name in entries:
        names_of[key].add(name)
    rows = {row.image_id: row for row in source.images.itertuples()}
    matched: dict[Any, _Match] = {}
    for image, key, name in entries:
        if key is None or name is None:
            source.report.add(clean.UNREADABLE_LABEL, file.place, "", f"image without id or file_name: {short(image)}")
            continue
        image_id = found[name] or name
        reason = _why_not(found[name] if found[name] in rows else None, len(names_of[key]), source.test, known)
        if reason == OF_TEST:
            source.n_test_labels += 1
            matched.setdefault(key, _Match(image_id, OF_TEST))
            continue
        change = None
        if reason is None:
            change = clean.fit_to_image((image.get("width"), image.get("height")), rows[image_id], file.place,
                                        source.report)
            reason = clean.OTHER_SIZE if change is None else None
        else:
            source.report.add(reason, file.place, image_id, f"image id {key!r}")
        matched.setdefault(key, _Match(image_id, reason, change))
        if reason is None:
            known.add(image_id)
    return matched


def _why_not(image_id: str | None, n_names: int, test: frozenset[str], known: set[str]) -> str | None:
    if n_names > 1:
        return clean.SHARED_ID
    if image_id is None:
        return clean.NO_IMAGE
    if image_id in test:
        return OF_TEST
    return clean.DUPLICATE_LABEL if image_id in known else None


def _raw_boxes(
    file: File, content: dict[str, Any], matched: dict[Any, _Match], source: clean.Source, *, asks: bool
) -> list[clean.RawBox]:
    """Boxes as xyxy; an annotation without an image or a readable box is noted, and so are odd points if it `asks`."""
    names, boxes, n_outlines, report = _category_names(content), [], 0, source.report
    points = points_by_category(content["categories"])
    source.points |= {names[key]: found for key, found in points.items() if names[key] not in source.points}
    objects = [found for found in content["annotations"] if isinstance(found, dict)]
    all_crowd = bool(objects) and all(is_true(found.get("iscrowd")) for found in objects) and any(
        found.get("segmentation") for found in objects)
    for found in content["annotations"]:
        annotation = found if isinstance(found, dict) else {}
        match = matched.get(identifier(annotation.get("image_id")), _Match("", clean.NO_IMAGE))
        if match.reason == OF_TEST:
            continue
        if match.reason is not None or match.change is None:
            report.add(match.reason or clean.NO_IMAGE, file.place, match.image_id, f"annotation {short(found)}")
        elif is_true(annotation.get("iscrowd")) and not all_crowd:
            report.add(clean.CROWD, file.place, match.image_id, short(annotation.get("bbox")))
        else:
            category, corners = identifier(annotation.get("category_id")), _corners(annotation.get("bbox"))
            if not _has_area(corners) and (outline := outline_box(annotation.get("segmentation"))) is not None:
                corners, n_outlines = outline, n_outlines + 1
            source_name = names.get(category, f"category_id {short(annotation.get('category_id'))}")
            box = clean.RawBox(file.place, match.image_id, source_name, match.change(corners))
            own = _points(annotation, points.get(category), box, report if asks else None)
            boxes.append(box._replace(points=move(own, match.change)))
    if n_outlines:
        report.add(clean.OUTLINE, file.place, "", f"{n_outlines} of {len(objects)} objects")
    if all_crowd:
        report.add(clean.ALL_CROWD, file.place, "", f"{len(objects)} objects")
    return boxes


def _points(
    annotation: dict[str, Any], found: FoundPoints | None, box: clean.RawBox, report: clean.Report | None
) -> tuple[RawPoint, ...] | None:
    """The points of a box; None for what cannot be read, which is noted where there is a report."""
    try:
        return points_of(annotation, found)
    except ValueError as error:
        if report is not None:
            report.add(ODD_POINTS, box.file, box.image_id, f"{box.source_name}: {error}")
        return None


def _has_area(corners: tuple[Any, ...]) -> bool:
    """False for no box at all and for one of a width or height of 0, which some exporters write beside a mask."""
    return len(corners) == 4 and all(map(is_number, corners)) and corners[0] != corners[2] and corners[1] != corners[3]


def _corners(bbox: Any) -> tuple[Any, ...]:
    """xyxy of an xywh, or what was found where it is no four numbers, for `clean_boxes` to note."""
    values = tuple(map(number, bbox)) if isinstance(bbox, list) else (bbox,)
    if len(values) != 4 or not all(is_number(value) for value in values):
        return values
    x, y, width, height = values
    return x, y, x + width, y + height


def _image_id(image: Any) -> int | str | None:
    return identifier(image.get("id")) if isinstance(image, dict) else None


def _file_name(image: Any) -> str | None:
    return picture_path(image.get("file_name")) if isinstance(image, dict) else None

"""COCO: a JSON with `images`, `annotations` and `categories`, and the pictures in folders or zips beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..archives import normalise, split_name
from ..config import Competition
from . import clean
from .masks import outline_box
from .tree import File, part_name, part_of
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
    the first counts, over all files. Raises ValueError naming all where an entry could be of several pictures.
    """
    known: set[str] = set()
    boxes: list[clean.RawBox] = []
    finder = _Finder(source.images["image_id"])
    for file in source.with_suffix(".json"):
        if (content := _read_json(file, source.report)) is not None:
            matched = _match_images(file, content, finder, source, known)
            boxes += _raw_boxes(file, content, matched, source.report)
    return clean.Labels(known, boxes)


def is_coco(content: Any) -> bool:
    """Whether a JSON has COCO's lists."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list)
                                             for key in ("images", "annotations", "categories"))


def _read_json(file: File, report: clean.Report) -> dict[str, Any] | None:
    """A file's content if it is COCO's; other JSON files, results for instance, are noted."""
    try:
        content = read_json(file.read())
        for key in ("images", "annotations", "categories"):
            if not isinstance(content[key], list):
                raise ValueError(f"expected a list of {key}, found {short(content[key])}")
        _category_names(content)
    except (ValueError, KeyError, TypeError) as error:
        report.add(clean.UNREADABLE_LABEL, file.place, "", f"{type(error).__name__}: {error}")
        return None
    return content


def _category_names(content: dict[str, Any]) -> dict[Any, str]:
    """Category id to name. Raises ValueError for an id of two names."""
    names: dict[Any, str] = {}
    for category in content["categories"]:
        if isinstance(category, dict) and (key := identifier(category.get("id"))) is not None:
            name = str(category.get("name"))
            if names.setdefault(key, name) != name:
                raise ValueError(f"category id {key!r} of two names, {names[key]!r} and {name!r}")
    return names


class _Finder:
    """Finds the picture that a `file_name` means."""

    def __init__(self, image_ids: Sequence[str]) -> None:
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for image_id in image_ids:
            self._by_name[image_id.rpartition("/")[2]].append(image_id)

    def by_path(self, name: str, file: File) -> str | None:
        """The picture whose path ends as `name` does, the nearest to `file`; None for none.

        Raises ValueError naming them if several are equally near.
        """
        return self._choose([image_id for image_id in self._same_name(name)
                             if f"/{image_id}".endswith(f"/{name}")], name, file)

    def by_name(self, name: str, file: File, taken: set[str]) -> str | None:
        """The only picture of this name, wherever it lies, that no other entry has by its path; else as `by_path`."""
        return self._choose([image_id for image_id in self._same_name(name) if image_id not in taken], name, file)

    def _same_name(self, name: str) -> list[str]:
        return self._by_name.get(name.rpartition("/")[2], [])

    @staticmethod
    def _choose(found: list[str], name: str, file: File) -> str | None:
        if len(found) < 2:
            return found[0] if found else None
        folder, stem = file.path.rpartition("/")[0], split_name(file.path)[1]
        parts = {part_name(word) for word in stem.replace("-", "_").replace(".", "_").split("_")} - {""}
        of_part = [image_id for image_id in found if part_of(image_id) in parts]
        exact = [image_id for image_id in found if image_id == (f"{folder}/{name}" if folder else name)]
        depth = {image_id: _n_shared(folder, image_id) for image_id in found}
        nearest = [image_id for image_id in found if depth[image_id] == max(depth.values())]
        for chosen in (exact, of_part, nearest):
            if len(chosen) == 1:
                return chosen[0]
        raise ValueError(f"{file.place}: expected file_name {name!r} to mean one picture, found {len(found)}: "
                         f"{', '.join(found[:4])}; give the path in file_name")


def _n_shared(folder: str, path: str) -> int:
    """How many folders two paths have in common from the top."""
    first, second = folder.split("/") if folder else [], path.split("/")[:-1]
    return next((n for n, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
                min(len(first), len(second)))


def _match_images(
    file: File, content: dict[str, Any], finder: _Finder, source: clean.Source, known: set[str]
) -> dict[Any, _Match]:
    """By the id of each entry its picture; pictures with a label go into `known`. What is left out is noted."""
    entries = [(image, _image_id(image), _file_name(image)) for image in content["images"]]
    names_of: dict[Any, set[str | None]] = defaultdict(set)
    for _, key, name in entries:
        names_of[key].add(name)
    found = {name: finder.by_path(name, file) for _, _, name in entries if name is not None}
    taken = {image_id for image_id in found.values() if image_id is not None}
    found |= {name: finder.by_name(name, file, taken) for name, image_id in found.items() if image_id is None}
    rows = {row.image_id: row for row in source.images.itertuples()}
    matched: dict[Any, _Match] = {}
    for image, key, name in entries:
        if key is None or name is None:
            source.report.add(clean.UNREADABLE_LABEL, file.place, "", f"image without id or file_name: {short(image)}")
            continue
        image_id = found[name] or name
        reason = _why_not(found[name], len(names_of[key]), source.test, known)
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
    file: File, content: dict[str, Any], matched: dict[Any, _Match], report: clean.Report
) -> list[clean.RawBox]:
    """Boxes as xyxy; an annotation without an image or a readable box is noted."""
    names, boxes, n_outlines = _category_names(content), [], 0
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
            category, corners = annotation.get("category_id"), _corners(annotation.get("bbox"))
            if not annotation.get("bbox") and (outline := outline_box(annotation.get("segmentation"))) is not None:
                corners, n_outlines = outline, n_outlines + 1
            source_name = names.get(identifier(category), f"category_id {short(category)}")
            boxes.append(clean.RawBox(file.place, match.image_id, source_name, match.change(corners)))
    if n_outlines:
        report.add(clean.OUTLINE, file.place, "", f"{n_outlines} of {len(objects)} objects")
    if all_crowd:
        report.add(clean.ALL_CROWD, file.place, "", f"{len(objects)} objects")
    return boxes


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
    """The picture's path as its files are spelt: NFC, "/" between folders, no `.`, `..`, drive or address before."""
    name = image.get("file_name") if isinstance(image, dict) else None
    if not isinstance(name, str):
        return None
    path = normalise(unquote(name) if "%" in name else name).replace("\\", "/").rpartition("://")[2]
    names = [part for part in PurePosixPath(path).parts if part not in ("/", ".", "..") and not part.endswith(":")]
    return "/".join(names) or None

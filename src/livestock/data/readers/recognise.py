"""Which reader a data folder needs, by looking at its files."""

from __future__ import annotations

import json
from collections.abc import Callable

from ...exceptions import BadData
from ..archives import split_name
from . import cat_faces, clean, coco, dlc, open_images, points_list, pose_json, yolo
from .tree import File
from .values import read_json

N_LOOKED_AT = 20  # label files of a kind that are opened
FOREIGN = {  # formats that are not read, by what gives them away: in a file's name, and what to do
    "_annotations.createml.json": "CreateML", "_annotations.csv": "a CSV of boxes (RetinaNet, Keras)",
    ".tfrecord": "TFRecord", ".mat": "MATLAB", ".rec": "RecordIO",
}


def recognise(source: clean.Source) -> tuple[str, str]:
    """The name of the reader for these files, and in words why.

    Raises BadData that lists what was looked for and found where no format is recognised, or more than one.
    """
    found = {name: why for name, look in SILVER_VIEWS.items() if (why := look(source))}
    if len(found) > 1:  # a list of sizes looks like one of points
        found.pop("points_list", None)
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        words = "; ".join(f"{name}: {why}" for name, why in found.items())
        raise BadData(f"{source.root}: labels of {len(found)} formats ({words}); say which with --reader")
    raise BadData(f"{source.root}: no label format recognised among {len(source.files):,} files, "
                  f"{len(source.images):,} of them images; looked for {LOOKED_FOR}{_foreign(source)}")


def _foreign(source: clean.Source) -> str:
    names = {words for file in source.files for end, words in FOREIGN.items() if file.path.lower().endswith(end)}
    for file in source.with_suffix(".json")[:N_LOOKED_AT]:
        content = _json(file)
        if isinstance(content, dict) and "shapes" in content and "imagePath" in content:
            names.add("LabelMe")
        if isinstance(content, list) and content and isinstance(content[0], dict) and "annotations" in content[0]:
            names.add("Label Studio's own JSON")
    advice = "which is not read: export it as COCO, YOLO or Pascal VOC"
    return f". Found {', '.join(sorted(names))}, {advice}" if names else ""


def _looks_yolo(source: clean.Source) -> str:
    stems = {split_name(image_id)[1] for image_id in source.images["image_id"]}
    files = [file for file in yolo.label_files(source) if split_name(file.path)[1] in stems]
    if not files or not any(yolo.is_label(file) for file in files[:N_LOOKED_AT]):
        return ""
    return f"{len(files):,} text files named like images, with lines of a class and at least four numbers"


def _looks_voc(source: clean.Source) -> str:
    files = source.with_suffix(".xml")
    n = sum(b"<annotation" in (content := file.read()) and b"<annotations" not in content
            for file in files[:N_LOOKED_AT])
    return f"{len(files):,} XML files with <annotation>" if n else ""


def _looks_coco(source: clean.Source) -> str:
    names = [file.path for file in source.with_suffix(".json")[:N_LOOKED_AT] if coco.is_coco(_json(file))]
    return f"lists of images, annotations and categories in {', '.join(names[:3])}" if names else ""


def _looks_aihub(source: clean.Source) -> str:
    files = source.with_suffix(".json")
    n = sum(isinstance(content := _json(file), dict) and "label_info" in content for file in files[:N_LOOKED_AT])
    return f"{len(files):,} JSON files with `label_info`" if n else ""


def _looks_open_images(source: clean.Source) -> str:
    for file in source.with_suffix(".csv"):
        header = file.read()[:2000].decode("utf-8-sig", "replace").splitlines()[:1]
        if header and set(open_images.COLUMNS) <= set(header[0].split(",")) and open_images.BOXES_MARK in (
                file.path.lower()):
            return f"the columns {','.join(open_images.COLUMNS)} in {file.path}"
    return ""


def _looks_cat_faces(source: clean.Source) -> str:
    files = source.with_suffix(cat_faces.SUFFIX)
    is_label = any(cat_faces.is_label(file) for file in files[:N_LOOKED_AT])
    return f"{len(files):,} files *{cat_faces.SUFFIX} of points" if is_label else ""


def _looks_dlc(source: clean.Source) -> str:
    tables = [file.path for file in dlc.table_files(source) if file.path.lower().endswith(".h5") or dlc.is_dlc(file)]
    return f"tables of scorer, bodyparts and coords in {', '.join(tables[:3])}" if tables else ""


def _looks_points_list(source: clean.Source) -> str:
    lists = [file.path for file in points_list.list_files(source)]
    return f"lines of a picture and a point in {', '.join(lists[:3])}" if lists else ""


def _looks_pose_json(source: clean.Source) -> str:
    files = source.with_suffix(".json")
    is_pose = any(b'"bboxes"' in file.read() and pose_json.is_pose(_json(file)) for file in files[:N_LOOKED_AT])
    return f"{len(files):,} JSON files with `bboxes` and `keypoints`" if is_pose else ""


def _json(file: File) -> object:
    try:
        return read_json(file.read())
    except (ValueError, json.JSONDecodeError):  # the reader says what is wrong with it
        return None


def _looks_cvat(source: clean.Source) -> str:
    names = [file.path for file in source.with_suffix(".xml")[:N_LOOKED_AT] if b"<annotations>" in file.read()[:1000]]
    return f"<annotations> in {', '.join(names[:3])}" if names else ""


SILVER_VIEWS: dict[str, Callable[[clean.Source], str]] = {
    "aihub": _looks_aihub, "cat_faces": _looks_cat_faces, "coco": _looks_coco, "cvat": _looks_cvat, "dlc": _looks_dlc,
    "open_images": _looks_open_images, "points_list": _looks_points_list, "pose_json": _looks_pose_json,
    "voc": _looks_voc, "yolo": _looks_yolo,
}
LOOKED_FOR = ("aihub (one JSON an image with `label_info`), coco (a JSON with images, annotations and categories), "
              "cvat (an XML with <annotations>), voc "
              "(one XML an image with <annotation>), yolo (one .txt an image), open_images (a table *bbox*.csv), dlc "
              "(CollectedData*.csv of DeepLabCut), cat_faces (one .cat an image), pose_json (one JSON an image with "
              "bboxes and keypoints), points_list (lines of a picture's name and a point)")

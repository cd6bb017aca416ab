"""Bad labels of AI Hub's and of COCO's format, each with what is to come of it."""

from __future__ import annotations

import json
from typing import Any

from corpus import BOX, DEEP, HUGE, JPEG, Case, aihub, aihub_json, coco, coco_json, jpeg

from livestock.data.readers import clean


def _with_box(text: str) -> str:
    return aihub_json(f'[{{"id": 0, "category_id": 1, "bbox": {text}}}]')


BAD_BOXES: list[tuple[str, str, str, list[Any] | None]] = [  # what, xyxy as JSON, reason, what is kept
    ("corners in the wrong order, x", "[50, 12, 10, 24]", clean.SWAPPED, None),
    ("corners in the wrong order, y", "[10, 24, 50, 12]", clean.SWAPPED, None),
    ("no area", "[10, 12, 10, 24]", clean.NO_AREA, None),
    ("outside", "[200, 12, 300, 24]", clean.OUTSIDE, None),
    ("left of the picture", "[-30, 12, -10, 24]", clean.OUTSIDE, None),
    ("partly outside", "[-5, 12, 500, 24]", clean.CLIPPED, [[0, 12, 100, 24]]),
    ("as large as floats are", "[10, 12, 1e308, 1e308]", clean.CLIPPED, [[10, 12, 100, 60]]),
    ("larger than floats are", f"[10, 12, {HUGE}, 24]", clean.NOT_A_NUMBER, None),
    ("larger than floats are, as a fraction", "[10, 12, 1e999, 24]", clean.NOT_A_NUMBER, None),
    ("NaN", "[10, 12, NaN, 24]", clean.NOT_A_NUMBER, None),
    ("Infinity", "[10, 12, Infinity, 24]", clean.NOT_A_NUMBER, None),
    ("a number as text", '[10, 12, "50", 24]', "", [[10, 12, 50, 24]]),
    ("a text for a number", '[10, 12, "fifty", 24]', clean.NOT_A_NUMBER, None),
    ("true for a number", "[10, 12, true, 24]", clean.NOT_A_NUMBER, None),
    ("null for a number", "[10, 12, null, 24]", clean.NOT_A_NUMBER, None),
    ("a list for a number", "[10, 12, [50], 24]", clean.NOT_A_NUMBER, None),
    ("deep lists for a number", f"[10, 12, {'[' * 300}{']' * 300}, 24]", clean.NOT_A_NUMBER, None),
    ("three numbers", "[10, 12, 50]", clean.NOT_A_NUMBER, None),
    ("five numbers", "[10, 12, 50, 24, 1]", clean.NOT_A_NUMBER, None),
    ("a text for a box", '"abcd"', clean.NOT_A_NUMBER, None),
]
AIHUB = [
    *(aihub(name, _with_box(box), reason, boxes=kept) for name, box, reason, kept in BAD_BOXES),
    aihub("a number for a box", _with_box("4"), clean.UNREADABLE_LABEL, "TypeError"),
    aihub("a key twice", aihub_json().replace('"categories"', '"annotations": [], "categories"'),
          clean.UNREADABLE_LABEL, "key 'annotations' occurs twice"),
    aihub("the box twice in one object", aihub_json().replace('"bbox"', '"bbox": [1, 2, 3, 4], "bbox"'),
          clean.UNREADABLE_LABEL, "key 'bbox' occurs twice"),
    aihub("no label_info", "{}", clean.UNREADABLE_LABEL, "KeyError: 'label_info'"),
    aihub("a list for the whole", "[]", clean.UNREADABLE_LABEL, "list indices"),
    aihub("null for the whole", "null", clean.UNREADABLE_LABEL, "NoneType"),
    aihub("an object for the annotations", aihub_json("{}"), clean.UNREADABLE_LABEL, "expected a list of annotations"),
    aihub("a text for the annotations", aihub_json('""'), clean.UNREADABLE_LABEL, "expected a list of annotations"),
    aihub("null for the annotations", aihub_json("null"), clean.UNREADABLE_LABEL, "expected a list of annotations"),
    aihub("no box in an annotation", aihub_json('[{"id": 0}]'), clean.UNREADABLE_LABEL, "KeyError: 'bbox'"),
    aihub("no image", aihub_json(image="null"), clean.UNREADABLE_LABEL, "NoneType"),
    aihub("a list for an id", aihub_json().replace('"category_id": 1', '"category_id": [1]'), boxes=[BOX]),
    aihub("no annotations", aihub_json("[]")),
    aihub("nested deeply", "[" * DEEP + "]" * DEEP, clean.UNREADABLE_LABEL, "nested too deeply"),
    aihub("a trailing comma", aihub_json().replace("}]}}", "},]}}"), clean.UNREADABLE_LABEL, "JSONDecodeError"),
    aihub("cut off", aihub_json()[:60], clean.UNREADABLE_LABEL, "JSONDecodeError"),
    aihub("no bytes", "", clean.UNREADABLE_LABEL, "JSONDecodeError"),
    aihub("a byte order mark", aihub_json().encode("utf-8-sig"), boxes=[BOX]),
    aihub("UTF-16", aihub_json().encode("utf-16"), boxes=[BOX]),
    aihub("UTF-16 without its mark", aihub_json().encode("utf-16-le"), boxes=[BOX]),
    aihub("cp949", aihub_json().replace("lying", "눕기").encode("cp949"), clean.UNREADABLE_LABEL, "UnicodeDecodeError"),
    aihub("another size", aihub_json(image='{"width": 60, "height": 100}'), clean.OTHER_SIZE, "60 x 100", kept=False),
    aihub("a size of text", aihub_json(image='{"width": "100", "height": "60"}'), boxes=[BOX]),
    aihub("no size", aihub_json(image='{"width": 0, "height": null}'), boxes=[BOX]),
    aihub("twice the size", aihub_json(image='{"width": 200, "height": 120}'), clean.SCALED, "200 x 120",
          [[5, 6, 25, 12]]),
    aihub("a size that is huge", aihub_json(image=f'{{"width": {HUGE}, "height": 60}}'), clean.OTHER_SIZE, "1000",
          kept=False),
    aihub("a negative size", aihub_json(image='{"width": -100, "height": 60}'), clean.OTHER_SIZE, "-100", kept=False),
]

PACKED = "Tc0<`10dT5"  # the mask before it
NO_BOX = ("a.jpg", "a.jpg", clean.EMPTY, "")
NOT_LABELLED = ("a.jpg", "a.jpg", clean.NO_LABEL, "")


def _unreadable(name: str, label: str | bytes, words: str) -> Case:
    return coco(name, label, ("l.json", "", clean.UNREADABLE_LABEL, words), NOT_LABELLED, kept=False)


def _annotation(**changes: Any) -> str:
    return json.dumps([{"image_id": 7, "category_id": 1, "bbox": [10, 12, 40, 12]} | changes])


def _entry(**changes: Any) -> dict[str, Any]:
    return {"id": 7, "file_name": "a.jpg", "width": 100, "height": 60} | changes


def _shared() -> Case:
    images = json.dumps([_entry(), _entry(file_name="b.jpg")])
    lines = [("l.json", name, clean.SHARED_ID, "image id 7") for name in ("a.jpg", "b.jpg")]
    unlabelled = [(name, name, clean.NO_LABEL, "") for name in ("a.jpg", "b.jpg")]
    annotation = ("l.json", "a.jpg", clean.SHARED_ID, "annotation")
    return coco("one id of two images", coco_json(images=images), *lines, annotation, *unlabelled, kept=False,
                **{"b.jpg": JPEG})


COCO = [
    coco("as it should be", coco_json(), boxes=[BOX]),
    _shared(),
    coco("one image twice, the boxes of the second", coco_json(images=json.dumps([_entry(), _entry(id=8)]),
         annotations=json.dumps(json.loads(_annotation()) + json.loads(_annotation(image_id=8)))),
         ("l.json", "a.jpg", clean.DUPLICATE_LABEL, "image id 8"),
         ("l.json", "a.jpg", clean.DUPLICATE_LABEL, "annotation"), boxes=[BOX]),
    coco("a second file of the same images", coco_json(), ("m.json", "a.jpg", clean.DUPLICATE_LABEL, "image id 7"),
         ("m.json", "a.jpg", clean.DUPLICATE_LABEL, "annotation"), boxes=[BOX], **{"m.json": coco_json().encode()}),
    coco("an unknown category", coco_json(_annotation(category_id=9)),
         ("l.json", "a.jpg", clean.UNKNOWN_CLASS, "category_id 9")),
    coco("a category that is no id", coco_json(_annotation(category_id=[1])),
         ("l.json", "a.jpg", clean.UNKNOWN_CLASS, "category_id [1]")),
    coco("true for a category", coco_json(_annotation(category_id=True)),
         ("l.json", "a.jpg", clean.UNKNOWN_CLASS, "category_id True")),
    coco("a class name for a category", coco_json(_annotation(category_id="cow")),
         ("l.json", "a.jpg", clean.UNKNOWN_CLASS, "category_id 'cow'")),
    _unreadable("a category of two names", coco_json(categories='[{"id": 1, "name": "cow"}, {"id": 1, "name": "pig"}]'),
                "category id 1 of two names, 'cow' and 'pig'"),
    coco("an annotation of no image", coco_json(_annotation(image_id=8)),
         ("l.json", "", clean.NO_IMAGE, "'image_id': 8"), NO_BOX),
    coco("an annotation of a list", coco_json(_annotation(image_id=[7])),
         ("l.json", "", clean.NO_IMAGE, "'image_id': [7]"), NO_BOX),
    coco("true for an image", coco_json(_annotation(image_id=True), images=json.dumps([_entry(id=1)])),
         ("l.json", "", clean.NO_IMAGE, "'image_id': True"), NO_BOX),
    coco("null for an image on both sides", coco_json(_annotation(image_id=None), images=json.dumps([_entry(id=None)])),
         ("l.json", "", clean.UNREADABLE_LABEL, "image without id"), ("l.json", "", clean.NO_IMAGE, "None"),
         NOT_LABELLED, kept=False),
    coco("an annotation that is null", coco_json("[null]"), ("l.json", "", clean.NO_IMAGE, "annotation None"), NO_BOX),
    coco("an image that is a text", coco_json("[]", images='["a.jpg"]'),
         ("l.json", "", clean.UNREADABLE_LABEL, "image without id or file_name: 'a.jpg'"), NOT_LABELLED, kept=False),
    coco("an image that is not there", coco_json("[]", images=json.dumps([_entry(), _entry(id=8, file_name="b.jpg")])),
         ("l.json", "b.jpg", clean.NO_IMAGE, "image id 8"), NO_BOX),
    coco("a group", coco_json(_annotation(iscrowd=1)), ("l.json", "a.jpg", clean.CROWD, "[10, 12, 40, 12]"), NO_BOX),
    coco("no box", coco_json('[{"image_id": 7, "category_id": 1}]'), ("l.json", "a.jpg", clean.NOT_A_NUMBER, "[None]")),
    coco("a negative width", coco_json(_annotation(bbox=[50, 12, -40, 12])),
         ("l.json", "a.jpg", clean.SWAPPED, "[50, 12, 10, 24]")),
    coco("a width that overflows", coco_json(_annotation(bbox=[1e308, 12, 1e308, 12])),
         ("l.json", "a.jpg", clean.NOT_A_NUMBER, "inf")),
    coco("deep lists for a box", coco_json().replace("[10, 12, 40, 12]", "[" * 300 + "]" * 300),
         ("l.json", "a.jpg", clean.NOT_A_NUMBER, "...")),
    coco("a whole number that no float holds", coco_json().replace("12]", f"{HUGE}]"),
         ("l.json", "a.jpg", clean.NOT_A_NUMBER, "1000")),
    coco("another size", coco_json(images=json.dumps([_entry(width=50)])),
         ("l.json", "a.jpg", clean.OTHER_SIZE, "label 50 x 60, image 100 x 60"),
         ("l.json", "a.jpg", clean.OTHER_SIZE, "annotation"), kept=False),
    coco("twice the size", coco_json(images=json.dumps([_entry(width=200, height=120)])),
         ("l.json", "a.jpg", clean.SCALED, "label 200 x 120"), boxes=[[5, 6, 25, 12]]),
    coco("an image turned by its EXIF, labelled as it is stored", coco_json(),
         ("l.json", "a.jpg", clean.TURNED, "label 100 x 60, image 60 x 100"), size=(60, 100),
         boxes=[[36, 10, 48, 50]], **{"a.jpg": jpeg(orientation=6)}),
    coco("numbers as texts", coco_json('[{"image_id": "7", "category_id": "1", "bbox": ["10", "12", "40", "12"], '
         '"iscrowd": "0"}]', categories='[{"id": "1", "name": "cow"}]'), boxes=[BOX]),
    coco("a group in text", coco_json(_annotation(iscrowd="1")), ("l.json", "a.jpg", clean.CROWD, "[10, 12, 40, 12]"),
         NO_BOX),
    coco("a polygon without a box", coco_json(_annotation(bbox=[], segmentation=[[10, 12, 50, 12, 50, 24]])),
         ("l.json", "", clean.OUTLINE, "1 of 1"), boxes=[BOX]),
    coco("a mask without a box", coco_json(_annotation(bbox=None, segmentation={
         "counts": [10 * 60 + 12, 12, 48, 12, 100 * 60 - 684], "size": [60, 100]})),
         ("l.json", "", clean.OUTLINE, "1 of 1"), boxes=[[10, 12, 12, 24]]),
    coco("a packed mask without a box", coco_json(_annotation(bbox=None, segmentation={
         "counts": PACKED, "size": [60, 100]})), ("l.json", "", clean.OUTLINE, "1 of 1"), boxes=[[10, 12, 12, 24]]),
    coco("a mask beyond the picture", coco_json(_annotation(bbox=None, segmentation={
         "counts": [10, 10**9], "size": [60, 100]})), ("l.json", "a.jpg", clean.NOT_A_NUMBER, "[None]")),
    coco("masks that are all marked as groups", coco_json(_annotation(iscrowd=1, segmentation={
         "counts": [0, 10], "size": [60, 100]})), ("l.json", "", clean.ALL_CROWD, "1 objects"), boxes=[BOX]),
    coco("a path that is another folder's", coco_json(images=json.dumps([_entry(file_name="/home/me/x/a.jpg")])),
         boxes=[BOX]),
    coco("an address for a name", coco_json(images=json.dumps([_entry(file_name="https://x.y/up%20load/a.jpg")])),
         boxes=[BOX]),
    coco("a name in Windows' spelling", coco_json(images=json.dumps([_entry(file_name="train\\a.jpg")])), boxes=[BOX]),
    coco("half a surrogate", coco_json(_annotation(category_id="\ud800")),
         ("l.json", "a.jpg", clean.UNKNOWN_CLASS, r"category_id '\ud800'")),
    coco("half a surrogate for a class", coco_json(categories='[{"id": 1, "name": "\\ud800"}]'),
         ("l.json", "a.jpg", clean.UNKNOWN_CLASS, r"\ud800")),
    coco("UTF-16", coco_json().encode("utf-16"), boxes=[BOX]),
    _unreadable("nested deeply", "[" * DEEP, "nested too deeply"),
    _unreadable("a key twice", coco_json()[:-1] + ', "images": []}', "key 'images' occurs twice"),
    _unreadable("a list", "[]", "TypeError"),
    _unreadable("no categories", '{"images": [], "annotations": []}', "KeyError: 'categories'"),
    _unreadable("null for annotations", coco_json("null"), "expected a list of annotations, found None"),
]

"""Bad inputs of every label format, each with what is to come of it; `corpus_images.py` has the pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zipfile import ZipFile

import numpy as np
from PIL import Image

from livestock.readers import clean


@dataclass(frozen=True)
class Case:
    """Files below a folder, read by a reader, and what comes of them.

    Either `refused`, words of the ValueError, or the tables: `images` by name with width and height, `boxes` as
    `[image_id, label, x_min, y_min, x_max, y_max]`, and `left_out` as `(file, image_id, reason, words of the detail)`.
    """

    name: str
    reader: str
    files: dict[str, bytes]
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    boxes: list[list[Any]] = field(default_factory=list)
    left_out: list[tuple[str, str, str, str]] = field(default_factory=list)
    refused: str = ""


def jpeg(width: int = 100, height: int = 60) -> bytes:
    """A black picture."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(content, "JPEG")
    return content.getvalue()


JPEG = jpeg()
SIZE = {"a.jpg": (100, 60)}
COW = "livestock_cow_a"  # the class of AI Hub's pictures stands in their name
COW_SIZE = {f"{COW}.jpg": (100, 60)}
BOX = [10, 12, 50, 24]
DEEP = 100_000
HUGE = "1" + "0" * 400  # a whole number that no float holds


def aihub_json(annotations: str = '[{"id": 0, "category_id": 1, "bbox": [10, 12, 50, 24]}]',
               image: str = '{"width": 100, "height": 60}') -> str:
    """A label as AI Hub writes it."""
    categories = '[{"id": 1, "name": "lying"}]'
    return f'{{"label_info": {{"image": {image}, "categories": {categories}, "annotations": {annotations}}}}}'


def coco_json(annotations: str = '[{"image_id": 7, "category_id": 1, "bbox": [10, 12, 40, 12]}]',
              images: str = '[{"id": 7, "file_name": "a.jpg", "width": 100, "height": 60}]',
              categories: str = '[{"id": 1, "name": "cow"}]') -> str:
    """A small COCO file."""
    return f'{{"images": {images}, "annotations": {annotations}, "categories": {categories}}}'


def voc_xml(boxes: str = "<bndbox><xmin>11</xmin><ymin>13</ymin><xmax>50</xmax><ymax>24</ymax></bndbox>",
            size: str = "<size><width>100</width><height>60</height></size>") -> str:
    """A VOC label of one object."""
    return f"<annotation>{size}<object><name>cow</name>{boxes}</object></annotation>"


CSV_HEADER = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf"
CSV_ROW = "a,cow,0.1,0.5,0.2,0.4,0"


def aihub(name: str, label: str | bytes, reason: str = "", words: str = "", boxes: list[Any] | None = None,
          kept: bool | None = None) -> Case:
    """One picture and its JSON; `kept` is whether the picture is, by default where the label can be read."""
    kept = reason != clean.UNREADABLE_LABEL if kept is None else kept
    return _one("aihub", name, f"{COW}.json", label, f"{COW}.jpg", reason, words, boxes, kept)


def coco(name: str, label: str | bytes, *left_out: tuple[str, str, str, str], kept: bool = True,
         boxes: list[Any] | None = None, **files: bytes) -> Case:
    """One picture, its JSON, and other files."""
    images = SIZE if kept else {}
    content = {"a.jpg": JPEG, "l.json": _bytes(label), **files}
    return Case(f"coco: {name}", "coco", content, images, [["a.jpg", "cow", *box] for box in boxes or []], [*left_out])


def voc(name: str, label: str | bytes, reason: str = "", words: str = "", boxes: list[Any] | None = None) -> Case:
    """One picture and its XML."""
    kept = reason != clean.UNREADABLE_LABEL
    return _one("voc", name, "a.xml", label, "a.jpg", reason, words, boxes, kept)


def yolo(name: str, label: str | bytes, reason: str = "", words: str = "", boxes: list[Any] | None = None) -> Case:
    """One picture and its text file of one line."""
    case = _one("yolo", name, "a.txt", label, "a.jpg", reason, words, boxes, kept=True)
    box_lines = [(f"{file}:1", image_id, why, words) for file, image_id, why, words in case.left_out[:1]]
    case.left_out[:1] = box_lines
    return case


def open_images(name: str, table: str, reason: str = "", words: str = "", boxes: list[Any] | None = None,
                refused: str = "") -> Case:
    """One picture and its table of one row."""
    left_out = [("t-bbox.csv:2", "a.jpg", reason, words)] if reason else []
    if not boxes and not refused and reason not in BOX_REASONS:
        left_out.append(("a.jpg", "a.jpg", clean.EMPTY, ""))
    rows = [["a.jpg", "cow", *box] for box in boxes or []]
    images = {} if refused else SIZE
    files = {"a.jpg": JPEG, "t-bbox.csv": table.encode()}
    return Case(f"open_images: {name}", "open_images", files, images, rows, left_out, refused)


def _one(reader: str, name: str, file: str, label: str | bytes, image_id: str, reason: str, words: str,
         boxes: list[Any] | None, kept: bool) -> Case:
    left_out = [(file, image_id, reason, words)] if reason else []
    if not kept and reader != "aihub":
        left_out.append((image_id, image_id, clean.NO_LABEL, ""))
    if kept and not boxes and reader in ("voc", "yolo") and reason not in BOX_REASONS:
        left_out.append((image_id, image_id, clean.EMPTY, ""))
    rows = [[image_id, "cow", *box] for box in boxes or []]
    files = {image_id: JPEG, file: _bytes(label)}
    return Case(f"{reader}: {name}", reader, files, {image_id: (100, 60)} if kept else {}, rows, left_out)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


BOX_REASONS = {clean.NOT_A_NUMBER, clean.SWAPPED, clean.NO_AREA, clean.OUTSIDE, clean.CLIPPED, clean.UNKNOWN_CLASS}


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
    ("a text for a number", '[10, 12, "50", 24]', clean.NOT_A_NUMBER, None),
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
          clean.UNREADABLE_LABEL, "key 'annotations' stands twice"),
    aihub("the box twice in one object", aihub_json().replace('"bbox"', '"bbox": [1, 2, 3, 4], "bbox"'),
          clean.UNREADABLE_LABEL, "key 'bbox' stands twice"),
    aihub("no label_info", "{}", clean.UNREADABLE_LABEL, "KeyError: 'label_info'"),
    aihub("a list for the whole", "[]", clean.UNREADABLE_LABEL, "list indices"),
    aihub("null for the whole", "null", clean.UNREADABLE_LABEL, "NoneType"),
    aihub("an object for the annotations", aihub_json("{}"), clean.UNREADABLE_LABEL, "expected a list of annotations"),
    aihub("a text for the annotations", aihub_json('""'), clean.UNREADABLE_LABEL, "expected a list of annotations"),
    aihub("null for the annotations", aihub_json("null"), clean.UNREADABLE_LABEL, "expected a list of annotations"),
    aihub("no box in an annotation", aihub_json('[{"id": 0}]'), clean.UNREADABLE_LABEL, "KeyError: 'bbox'"),
    aihub("no image", aihub_json(image="null"), clean.UNREADABLE_LABEL, "NoneType"),
    aihub("a list for an id", aihub_json().replace('"category_id": 1', '"category_id": [1]'), boxes=[BOX]),
    aihub("no annotations", aihub_json("[]"), clean.EMPTY),
    aihub("nested deeply", "[" * DEEP + "]" * DEEP, clean.UNREADABLE_LABEL, "nested too deeply"),
    aihub("a trailing comma", aihub_json().replace("}]}}", "},]}}"), clean.UNREADABLE_LABEL, "JSONDecodeError"),
    aihub("cut off", aihub_json()[:60], clean.UNREADABLE_LABEL, "JSONDecodeError"),
    aihub("no bytes", "", clean.UNREADABLE_LABEL, "JSONDecodeError"),
    aihub("a byte order mark", aihub_json().encode("utf-8-sig"), boxes=[BOX]),
    aihub("UTF-16", aihub_json().encode("utf-16"), boxes=[BOX]),
    aihub("UTF-16 without its mark", aihub_json().encode("utf-16-le"), boxes=[BOX]),
    aihub("cp949", aihub_json().replace("lying", "눕기").encode("cp949"), clean.UNREADABLE_LABEL, "UnicodeDecodeError"),
    aihub("another size", aihub_json(image='{"width": 60, "height": 100}'), clean.OTHER_SIZE, "(60, 100)", [BOX]),
    aihub("a size of text", aihub_json(image='{"width": "100", "height": 60}'), clean.OTHER_SIZE, "('100', 60)", [BOX]),
    aihub("a size that is huge", aihub_json(image=f'{{"width": {HUGE}, "height": 60}}'), clean.OTHER_SIZE, "1000",
          [BOX]),
]

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
         ("l.json", "a.jpg", clean.OTHER_SIZE, "label (50, 60), image (100, 60)"), boxes=[BOX]),
    coco("a name in Windows' spelling", coco_json(images=json.dumps([_entry(file_name="train\\a.jpg")])), boxes=[BOX]),
    coco("half a surrogate", coco_json(_annotation(category_id="\ud800")),
         ("l.json", "a.jpg", clean.UNKNOWN_CLASS, r"category_id '\ud800'")),
    coco("UTF-16", coco_json().encode("utf-16"), boxes=[BOX]),
    _unreadable("nested deeply", "[" * DEEP, "nested too deeply"),
    _unreadable("a key twice", coco_json()[:-1] + ', "images": []}', "key 'images' stands twice"),
    _unreadable("a list", "[]", "TypeError"),
    _unreadable("no categories", '{"images": [], "annotations": []}', "KeyError: 'categories'"),
    _unreadable("null for annotations", coco_json("null"), "expected a list of annotations, found None"),
]

LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
VOC = [
    voc("as it should be", voc_xml(), boxes=[BOX]),
    voc("cut off", voc_xml()[:50], clean.UNREADABLE_LABEL, "ParseError"),
    voc("no bytes", "", clean.UNREADABLE_LABEL, "ParseError"),
    voc("entities", LAUGHS + voc_xml(), clean.UNREADABLE_LABEL, "DTDForbidden"),
    voc("entities in UTF-16", ('<?xml version="1.0" encoding="utf-16"?>' + LAUGHS + voc_xml()).encode("utf-16"),
        clean.UNREADABLE_LABEL, "DTDForbidden"),
    voc("UTF-16", ('<?xml version="1.0" encoding="utf-16"?>' + voc_xml()).encode("utf-16"), boxes=[BOX]),
    voc("an encoding that is not known", '<?xml version="1.0" encoding="klingon"?>' + voc_xml(),
        clean.UNREADABLE_LABEL, "klingon"),
    voc("a byte order mark", voc_xml().encode("utf-8-sig"), boxes=[BOX]),
    voc("a web page", "<html></html>", clean.UNREADABLE_LABEL, "expected <annotation>, found <html>"),
    voc("nested deeply", voc_xml(size="<a>" * DEEP + "</a>" * DEEP), clean.OTHER_SIZE, "label (None, None)", [BOX]),
    voc("no object", "<annotation/>", clean.OTHER_SIZE, "label (None, None)"),
    voc("no size", voc_xml(size=""), clean.OTHER_SIZE, "label (None, None)", [BOX]),
    voc("another size", voc_xml(size="<size><width>9</width><height>60</height></size>"), clean.OTHER_SIZE,
        "label (9.0, 60.0), image (100, 60)", [BOX]),
    voc("no box", voc_xml(""), clean.NOT_A_NUMBER, "cow [None]"),
    voc("two boxes in one object", voc_xml(voc_xml().split("</name>")[1].split("</object>")[0] * 2), boxes=[BOX, BOX]),
    voc("two objects", voc_xml().replace("</object>", "</object>" + voc_xml().split("</size>")[1][:-13]),
        boxes=[BOX, BOX]),
    voc("a corner that is not there", voc_xml().replace("<xmax>50</xmax>", ""), clean.NOT_A_NUMBER, "None"),
    voc("a corner of text", voc_xml().replace("50", "fifty"), clean.NOT_A_NUMBER, "'fifty'"),
    voc("NaN", voc_xml().replace("50", "nan"), clean.NOT_A_NUMBER, "nan"),
    voc("corners in the wrong order", voc_xml().replace("50", "5"), clean.SWAPPED, "[10.0, 12.0, 5.0, 24.0]"),
    voc("as large as floats are", voc_xml().replace("50", "1e308"), clean.CLIPPED, boxes=[[10, 12, 100, 24]]),
    voc("no class", voc_xml().replace("<name>cow</name>", ""), clean.UNKNOWN_CLASS, ""),
]

YOLO = [
    yolo("as it should be", "1 0.3 0.3 0.4 0.2\n", boxes=[BOX]),
    yolo("a class out of range", "2 0.3 0.3 0.4 0.2", clean.UNKNOWN_CLASS, "2"),
    yolo("a negative class", "-1 0.3 0.3 0.4 0.2", clean.UNKNOWN_CLASS, "-1"),
    yolo("four columns", "1 0.3 0.3 0.4", clean.NOT_A_NUMBER, "[0.3, 0.3, 0.4]"),
    yolo("six columns", "1 0.3 0.3 0.4 0.2 0.9", clean.NOT_A_NUMBER, "0.9"),
    yolo("commas for blanks", "1,0.3,0.3,0.4,0.2", clean.NOT_A_NUMBER, "[]"),
    yolo("a fraction above 1", "1 1.5 0.3 0.4 0.2", clean.OUTSIDE, ""),
    yolo("a fraction a little above 1", "1 0.9 0.3 0.4 0.2", clean.CLIPPED, boxes=[[70, 12, 100, 24]]),
    yolo("pixels for fractions", "1 30 18 40 12", clean.OUTSIDE, ""),
    yolo("a negative width", "1 0.3 0.3 -0.4 0.2", clean.SWAPPED, ""),
    yolo("NaN", "1 nan 0.3 0.4 0.2", clean.NOT_A_NUMBER, "nan"),
    yolo("infinity", "1 inf 0.3 0.4 0.2", clean.NOT_A_NUMBER, "inf"),
    yolo("as large as floats are", "1 1e308 0.3 1e308 0.2", clean.NOT_A_NUMBER, "inf"),
    yolo("UTF-16", "1 0.3 0.3 0.4 0.2".encode("utf-16-le"), clean.NOT_A_NUMBER, ""),
    yolo("a byte order mark", "1 0.3 0.3 0.4 0.2".encode("utf-8-sig"), boxes=[BOX]),
    Case("yolo: no line", "yolo", {"a.jpg": JPEG, "a.txt": b"\n \n"}, SIZE, [], [("a.jpg", "a.jpg", clean.EMPTY, "")]),
]

HEADER = CSV_HEADER + "\n"
OPEN_IMAGES = [
    open_images("as it should be", HEADER + CSV_ROW, boxes=[BOX]),
    open_images("no header", CSV_ROW + "\n" + CSV_ROW, refused=r"t-bbox\.csv: .* 'ImageID' is missing"),
    open_images("a column is missing", CSV_HEADER.replace(",YMax", ""), refused=r"t-bbox\.csv: .* 'YMax' is missing"),
    open_images("a column twice", HEADER.replace("XMax", "XMax,XMax") + CSV_ROW.replace("0.5", "0.5,0.6"),
                refused=r"t-bbox\.csv: .* 'XMax' is there twice"),
    open_images("no bytes", "", refused=r"t-bbox\.csv: expected a CSV: No columns"),
    open_images("a row too long", f"{HEADER}{CSV_ROW},9", refused=r"t-bbox\.csv: expected 7 fields a row"),
    open_images("a later row too long", f"{HEADER}{CSV_ROW}\n{CSV_ROW},9",
                refused=r"t-bbox\.csv: expected a CSV: .* Expected 7 fields in line 3, saw 8"),
    open_images("a row cut short", HEADER + "a,cow,0.1,0.5,0.2,0.", clean.UNREADABLE_ROW, "a,cow,0.1,0.5,0.2,0.,"),
    open_images("a text for a number", HEADER + CSV_ROW.replace("0.5", "half"), clean.NOT_A_NUMBER, "'half'"),
    open_images("NaN", HEADER + CSV_ROW.replace("0.5", "nan"), clean.NOT_A_NUMBER, "nan"),
    open_images("as large as floats are", HEADER + CSV_ROW.replace("0.5", "1e308"), clean.NOT_A_NUMBER, "inf"),
    open_images("a stray quote", HEADER + CSV_ROW.replace("cow", '"cow'), clean.UNKNOWN_CLASS, '"cow'),
    open_images("a group", f"{HEADER}{CSV_ROW[:-1]}1", clean.CROWD, "cow"),
    open_images("a class that is not there", HEADER + CSV_ROW.replace("cow", ""), clean.UNKNOWN_CLASS, ""),
]


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip of these files."""
    content = io.BytesIO()
    with ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


PAIR = {f"{COW}.jpg": JPEG, f"{COW}.json": aihub_json().encode()}
COW_BOX = [[f"{COW}.jpg", "cow", *BOX]]
YOLO_PAIR = {"a.jpg": JPEG, "a.txt": b"1 0.3 0.3 0.4 0.2"}
YOLO_BOX = [["a.jpg", "cow", *BOX]]


def _folder(name: str, reader: str, files: dict[str, bytes], *left_out: tuple[str, str, str, str]) -> Case:
    """A pair that is right, and other files."""
    if reader == "aihub":
        return Case(f"files: {name}", reader, PAIR | files, COW_SIZE, COW_BOX, [*left_out])
    return Case(f"files: {name}", reader, YOLO_PAIR | files, SIZE, YOLO_BOX, [*left_out])


FILES = [
    _folder("an image without label", "aihub", {"b.jpg": JPEG}, ("b.jpg", "b.jpg", clean.NO_LABEL, "")),
    _folder("a label without image", "aihub", {"b.json": b"{}"}, ("b.json", "b", clean.NO_IMAGE, "")),
    _folder("a GIF", "aihub", {"b.gif": b"GIF"}, ("b.gif", "b.gif", clean.OTHER_FORMAT, "")),
    _folder("a HEIC picture", "yolo", {"b.HEIC": b"x"}, ("b.HEIC", "b.HEIC", clean.OTHER_FORMAT, "")),
    _folder("a tar", "aihub", {"b.tar": b"x"}, ("b.tar", "", clean.NESTED, "")),
    _folder("a zip in a zip", "aihub", {"z.zip": zipped({"in.zip": zipped(PAIR)})},
            ("z.zip/in.zip", "", clean.NESTED, "")),
    _folder("pictures in a zip and beside it", "aihub", {"z.zip": zipped(PAIR)},
            (f"{COW}.jpg", f"{COW}.jpg", clean.DUPLICATE, ""), (f"{COW}.json", COW, clean.DUPLICATE_LABEL, "")),
    _folder("two YOLO labels of one picture", "yolo", {"b/a.txt": b"0 0.5 0.5 0.5 0.5"},
            ("b/a.txt", "a", clean.DUPLICATE_LABEL, "")),
    Case("files: two VOC labels of one picture", "voc", {"a.jpg": JPEG, "a.xml": voc_xml().encode(), "b/a.xml": b""},
         SIZE, YOLO_BOX, [("b/a.xml", "a", clean.DUPLICATE_LABEL, "")]),
    Case("files: two tables of one picture", "open_images",
         {"a.jpg": JPEG, **dict.fromkeys(("1-bbox.csv", "2-bbox.csv"), (HEADER + CSV_ROW).encode())},
         SIZE, YOLO_BOX, [("2-bbox.csv:2", "a.jpg", clean.DUPLICATE_LABEL, "cow")]),
    _folder("class names", "yolo", {"classes.txt": b"\xef\xbb\xbfpig\ncattle\n"}),
    *(Case(f"files: {name}", "yolo", YOLO_PAIR | files, refused=refused) for name, files, refused in [
        ("class names in cp949", {"classes.txt": "돼지\n소".encode("cp949")}, r"classes\.txt: expected .* in UTF-8"),
        ("two files of class names", {"classes.txt": b"pig\ncow", "b/classes.txt": b"cow\npig"},
         r"classes\.txt: expected the classes of .*b/classes\.txt, .*'cow'.* found .*'pig'"),
        ("class names that are no YAML", {"data.yaml": b"names: [pig"}, r"data\.yaml: expected `names`"),
        ("no class names", {"data.yaml": b"nc: 2"}, r"data\.yaml: expected `names`.*'names'"),
        ("a list for class names' file", {"data.yaml": b"[pig, cow]"}, r"data\.yaml: expected `names`"),
        ("a text for class names", {"data.yaml": b"names: pig"}, r"data\.yaml: expected `names`.*found 'pig'"),
        ("a number for class names", {"data.yaml": b"names: 2"}, r"data\.yaml: expected `names`.*iterable"),
        ("lists that laugh", {"data.yaml": b"a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]"},
         r"data\.yaml: expected `names`.*found"),
        ("class names nested deeply", {"data.yaml": b"names: " + b"[" * 5000}, r"data\.yaml: expected `names`"),
    ]),
]
CASES: list[Case] = [*AIHUB, *COCO, *VOC, *YOLO, *OPEN_IMAGES, *FILES]
Make = Callable[[], bytes]

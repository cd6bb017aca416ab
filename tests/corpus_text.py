"""Bad labels of VOC's, YOLO's and Open Images' format, and folders of what does not belong together."""

from __future__ import annotations

from typing import Any

from corpus import (
    BOX,
    COW,
    COW_SIZE,
    CSV_HEADER,
    CSV_ROW,
    DEEP,
    JPEG,
    NAMES,
    SIZE,
    Case,
    aihub_json,
    jpeg,
    open_images,
    voc,
    voc_xml,
    yolo,
    zipped,
)

from livestock.data.readers import clean

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
    voc("nested deeply", voc_xml(size="<a>" * DEEP + "</a>" * DEEP), boxes=[BOX]),
    voc("no object", "<annotation/>"),
    voc("no size", voc_xml(size=""), boxes=[BOX]),
    voc("a size of 0", voc_xml(size="<size><width>0</width><height>0</height></size>"), boxes=[BOX]),
    voc("a polygon", voc_xml("<polygon><x1>11</x1><y1>13</y1><x2>50</x2><y2>13</y2><x3>50</x3><y3>24</y3></polygon>"),
        clean.OUTLINE, "1 of 1", [BOX]),
    voc("a polygon of points", voc_xml("<polygon><pt><x>11</x><y>13</y></pt><pt><x>50</x><y>13</y></pt><pt><x>9</x>"
        "<y>24</y></pt></polygon>"), clean.OUTLINE, "1 of 1", [[8, 12, 50, 24]]),
    voc("a turned box", voc_xml("<robndbox><cx>30</cx><cy>20</cy><w>20</w><h>10</h><angle>0</angle></robndbox>"),
        clean.OUTLINE, "1 of 1", [[20, 15, 40, 25]]),
    voc("a polygon of two points", voc_xml("<polygon><x1>11</x1><y1>13</y1><x2>50</x2><y2>13</y2></polygon>"),
        clean.NOT_A_NUMBER, "cow [None]"),
    voc("another size", voc_xml(size="<size><width>9</width><height>60</height></size>"), clean.OTHER_SIZE,
        "label 9.0 x 60.0, image 100 x 60"),
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
    yolo("four columns", "1 0.3 0.3 0.4", clean.ODD_LINE, "[0.3, 0.3, 0.4]"),
    yolo("six columns", "1 0.3 0.3 0.4 0.2 0.9", clean.ODD_LINE, "0.9"),
    yolo("commas for blanks", "1,0.3,0.3,0.4,0.2", clean.ODD_LINE, "[]"),
    yolo("a fraction above 1", "1 1.5 0.3 0.4 0.2", clean.OUTSIDE, ""),
    yolo("a fraction a little above 1", "1 0.9 0.3 0.4 0.2", clean.CLIPPED, boxes=[[70, 12, 100, 24]]),
    yolo("pixels for fractions", "1 30 18 40 12", clean.PIXELS, ""),
    yolo("a negative width", "1 0.3 0.3 -0.4 0.2", clean.SWAPPED, ""),
    yolo("NaN", "1 nan 0.3 0.4 0.2", clean.NOT_A_NUMBER, "nan"),
    yolo("infinity", "1 inf 0.3 0.4 0.2", clean.NOT_A_NUMBER, "inf"),
    yolo("as large as floats are", "1 1e308 0.3 1e308 0.2", clean.PIXELS, "1e+308"),
    yolo("UTF-16", "1 0.3 0.3 0.4 0.2".encode("utf-16-le"), clean.NOT_A_NUMBER, ""),
    yolo("a byte order mark", "1 0.3 0.3 0.4 0.2".encode("utf-8-sig"), boxes=[BOX]),
    Case("yolo: no line", "yolo", {"a.jpg": JPEG, "a.txt": b"\n \n"} | NAMES, SIZE, [],
         [("a.jpg", "a.jpg", clean.EMPTY, "")]),
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


PAIR = {f"{COW}.jpg": JPEG, f"{COW}.json": aihub_json().encode()}
OTHER = jpeg(50, 40)
COW_BOX = [[f"{COW}.jpg", "cow", *BOX]]
YOLO_PAIR = {"a.jpg": JPEG, "a.txt": b"1 0.3 0.3 0.4 0.2"} | NAMES
YOLO_BOX = [["a.jpg", "cow", *BOX]]


def _folder(name: str, reader: str, files: dict[str, bytes], *left_out: tuple[str, str, str, str],
            more: dict[str, tuple[int, int]] | None = None, boxes: list[list[Any]] | None = None) -> Case:
    """A pair that is right, and other files, of which come `more` images and their `boxes`."""
    pair, images, rows = (PAIR, COW_SIZE, COW_BOX) if reader == "aihub" else (YOLO_PAIR, SIZE, YOLO_BOX)
    return Case(f"files: {name}", reader, pair | files, images | (more or {}), rows + (boxes or []), [*left_out])


FILES = [
    _folder("an image without label", "aihub", {"b.jpg": JPEG}, ("b.jpg", "b.jpg", clean.NO_LABEL, "")),
    _folder("a label without image", "aihub", {"b.json": b"{}"}, ("b.json", "b", clean.NO_IMAGE, "")),
    _folder("a GIF", "aihub", {"b.gif": b"GIF"}, ("b.gif", "b.gif", clean.OTHER_FORMAT, "")),
    _folder("a HEIC picture", "yolo", {"b.HEIC": b"x"}, ("b.HEIC", "b.HEIC", clean.OTHER_FORMAT, "")),
    _folder("a tar", "aihub", {"b.tar": b"x"}, ("b.tar", "", clean.NESTED, "")),
    _folder("a zip in a zip", "aihub", {"z.zip": zipped({"in.zip": zipped(PAIR)})},
            ("z.zip/in.zip", "", clean.NESTED, "")),
    _folder("what is in a zip lies beside it too", "aihub", {"z.zip": zipped(PAIR)},
            ("z.zip", "", clean.UNPACKED, "")),
    _folder("what is in a zip lies in a folder of its name", "yolo",
            {"z.zip": zipped({"b.jpg": OTHER}), "z/b.jpg": OTHER, "z/b.txt": b""},
            ("z.zip", "", clean.UNPACKED, ""), ("z/b.jpg", "z/b.jpg", clean.EMPTY, ""),
            more={"z/b.jpg": (50, 40)}),
    _folder("two YOLO labels of one picture", "yolo", {"b/a.txt": b"0 0.5 0.5 0.5 0.5"},
            ("b/a.txt", "a.jpg", clean.DUPLICATE_LABEL, "its label is ")),
    Case("files: a zip in capitals", "aihub", {"Z.ZIP": zipped(PAIR)}, COW_SIZE, COW_BOX),
    Case("files: pictures in capitals", "yolo", {"Z.ZIP": zipped({"a.JPG": JPEG}), "a.txt": YOLO_PAIR["a.txt"]} | NAMES,
         {"a.JPG": (100, 60)}, [["a.JPG", "cow", *BOX]]),
    Case("files: two VOC labels of one picture", "voc", {"a.jpg": JPEG, "a.xml": voc_xml().encode(), "b/a.xml": b""},
         SIZE, YOLO_BOX, [("b/a.xml", "a.jpg", clean.DUPLICATE_LABEL, "its label is ")]),
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

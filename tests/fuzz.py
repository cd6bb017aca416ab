"""Valid files of every label format, damaged at random: only ValueErrors that name the folder, and nothing lost.

`python tests/fuzz.py aihub 10000 0` tries 10,000 damaged folders; what fails is printed with its number, and
`make_case(kind, seed, number)` makes that folder's files again. A kind is a reader, or one with keypoints.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

import numpy as np
from corpus import CSV_HEADER, HUGE, zipped
from corpus_images import PICTURES as ODD
from corpus_images import encode, halves

from livestock.config import REPOSITORY, Competition, Keypoint, Skeleton, read_competition
from livestock.data import pictures
from livestock.data.archives import IMAGE_SUFFIXES, read_image
from livestock.data.readers import READERS, Reading, cat_faces, clean, points_list, tree
from livestock.tables import check_boxes, check_images, check_keypoints

COMPETITION = read_competition(REPOSITORY / "competition.yaml")


def _asks(*names: str) -> Competition:
    """The competition with these keypoints of cows."""
    skeleton = Skeleton(tuple(Keypoint("cow", name, index) for index, name in enumerate(names)))
    return replace(COMPETITION, skeleton=skeleton)


READER_OF = {"coco keypoints": "coco", "yolo pose": "yolo"}  # kinds that are no reader's own name
COMPETITIONS = {"coco keypoints": _asks("nose", "tail"), "yolo pose": _asks("nose", "tail"),
                "dlc": _asks("nose", "tail"), "cat_faces": _asks(*cat_faces.NAMES), "points_list": _asks("nose"),
                "pose_json": _asks("nose", "tail")}
NAMES = ["livestock_cow_1.jpg", "livestock_pig_2.png", "livestock_cow_돼지.jpg"]
PICTURES = dict(zip(NAMES, [encode(halves(32, 24)), encode(halves(24, 32), "PNG"), encode(halves(32, 24), "JPEG", 6)],
                    strict=True))
STORED = dict(zip(NAMES, [(32, 24), (24, 32), (32, 24)], strict=True))  # the last is turned by its EXIF
SMALL = [picture.content for picture in ODD if 0 < len(picture.content) < 20_000]
BOXES = [[2, 3, 12, 15], [0, 0, 24, 24], [-4, 5, 90, 20], [7, 7, 7, 9]]  # one is clipped, one has no area
WEIRD = [b"null", b"true", b"NaN", b"-Infinity", b"1e308", b"-1e308", b"1e999", HUGE.encode(), b"-1", b"0", b"1.5",
         b'"7"', b'""', b"[]", b"{}", b"[" * 500 + b"]" * 500, b"[" * 5000, b'"\\ud800"', b"\xff", b"\0", b"nan", b"",
         b",", b"\n", b"\r", b'"', b"'", b"<", b"</object>", b"<object>", b"&lt;", b"&x;", b"\xef\xbb\xbf", b" "]
PATTERNS = {"aihub": "*.json", "coco": "*.json", "voc": "*.xml", "yolo": "*.txt", "open_images": "*bbox*.csv",
            "cvat": "*.xml", "dlc": "*.csv", "cat_faces": "*.cat", "points_list": "*.txt", "pose_json": "*.json"}
LOST_BOX = [*clean.LOST, clean.UNKNOWN_CLASS]
LOST_FILE = [clean.UNREADABLE_LABEL, clean.NO_IMAGE, clean.DUPLICATE_LABEL]
Files = dict[str, bytes]


def _aihub() -> Files:
    def label(name: str) -> bytes:
        annotations = [{"id": i, "category_id": 1, "bbox": box} for i, box in enumerate(BOXES)]
        width, height = STORED[name]
        info = {"image": {"width": width, "height": height}, "categories": [{"id": 1, "name": "lying"}]}
        return json.dumps({"label_info": info | {"annotations": annotations}}).encode()
    return {f"{name[:-4]}.json": label(name) for name in NAMES}


def _coco() -> Files:
    images = [{"id": i, "file_name": name, "width": STORED[name][0], "height": STORED[name][1]}
              for i, name in enumerate(NAMES)]
    annotations = [{"image_id": i % 3, "category_id": 1 + i % 2, "iscrowd": int(i == 5), "bbox": BOXES[i % 4]}
                   for i in range(8)]
    categories = [{"id": 1, "name": "pig"}, {"id": 2, "name": "cow"}]
    return {"l.json": json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()}


def _voc() -> Files:
    corners = ["xmin", "ymin", "xmax", "ymax"]
    boxes = ["".join(f"<{k}>{v}</{k}>" for k, v in zip(corners, box, strict=True)) for box in BOXES]
    objects = [f"<object><name>cow</name><bndbox>{box}</bndbox></object>" for box in boxes]
    sizes = {name: f"<size><width>{width}</width><height>{height}</height></size>"
             for name, (width, height) in STORED.items()}
    return {f"{name[:-4]}.xml": f"<annotation>{sizes[name]}{''.join(objects)}</annotation>".encode() for name in NAMES}


def _yolo() -> Files:
    lines = "0 0.5 0.5 0.2 0.2\n1 0.1 0.9 0.5 0.5\n7 0.2 0.2 0.1 0.1\n"
    return {f"{name[:-4]}.txt": lines.encode() for name in NAMES} | {"classes.txt": b"pig\ncow\n"}


def _open_images() -> Files:
    rows = [f"{name[:-4]},/m/c,0.1,0.{5 + i},0.2,0.4,{int(i == 2)}" for name in [*NAMES, "gone.jpg"] for i in range(3)]
    return {"t-bbox.csv": "\n".join([CSV_HEADER, *rows, ""]).encode(), "class-descriptions.csv": b"/m/c,Cattle\n"}


def _cvat() -> Files:
    boxes = "".join('<box label="cow" xtl="{}" ytl="{}" xbr="{}" ybr="{}"/>'.format(*box) for box in BOXES)
    images = "".join(f'<image name="{name}" width="{width}" height="{height}">{boxes}</image>'
                     for name, (width, height) in STORED.items())
    return {"annotations.xml": f"<annotations>{images}</annotations>".encode()}


def _coco_keypoints() -> Files:
    content = json.loads(_coco()["l.json"])
    for index, annotation in enumerate(content["annotations"]):
        annotation["keypoints"] = [3, 4, 2, 0, 0, 0] if index % 4 < 2 else [5, 500, 1, 6.5, 7, 2]  # one is outside
    for category in content["categories"]:
        category["keypoints"] = ["nose", "tail"]
    return {"l.json": json.dumps(content).encode()}


def _yolo_pose() -> Files:
    lines = "0 0.5 0.5 0.2 0.2 0 0 0 0 0 0\n1 0.1 0.9 0.5 0.5 0.2 0.3 2 0.4 1.5 1\n"
    return {f"{name[:-4]}.txt": lines.encode() for name in NAMES} | {
        "data.yaml": b"names: [pig, cow]\nkpt_shape: [2, 3]\n"}


def _dlc() -> Files:
    rows = [f"{name},3,4.5,{5 * i or ''},{900 if i else ''}" for i, name in enumerate([*NAMES, "gone.jpg"])]
    head = ["scorer,me,me,me,me", "bodyparts,nose,nose,tail,tail", "coords,x,y,x,y"]
    return {"CollectedData_me.csv": "\n".join([*head, *rows, ""]).encode()}


def _cat_faces() -> Files:
    return {f"{name}.cat": b"9 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 -3 20 " for name in NAMES}


def _points_list() -> Files:
    rows = [f'{name},"({3 * i}, 4)"' for i, name in enumerate([*NAMES, "gone.jpg"])]
    return {"noses.txt": "\n".join([*rows, ""]).encode()}


def _pose_json() -> Files:
    content = {"bboxes": BOXES, "keypoints": [[[3, 4, 1], [0, 0, 0]], [[5, 6.5, 1], [500, 8, 1]]] * 2}
    return {f"{name[:-4]}.json": json.dumps(content).encode() for name in NAMES}


BASES: dict[str, Callable[[], Files]] = {
    "aihub": _aihub, "coco": _coco, "voc": _voc, "yolo": _yolo, "open_images": _open_images,
    "cvat": _cvat, "coco keypoints": _coco_keypoints, "yolo pose": _yolo_pose, "dlc": _dlc, "cat_faces": _cat_faces,
    "points_list": _points_list, "pose_json": _pose_json,
}


def fuzz(reader: str, n_cases: int, seed: int) -> Counter[str]:
    """Reads `n_cases` damaged folders; how many were read, refused, and how many lines each reason got.

    Raises AssertionError naming the case for another error than ValueError, and for a picture or box that is lost.
    """
    counts: Counter[str] = Counter()
    for number in range(n_cases):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on broken EXIF
            for name, content in make_case(reader, seed, number).items():
                (Path(folder) / name).parent.mkdir(exist_ok=True)
                (Path(folder) / name).write_bytes(content)
            try:
                counts.update(_try(reader, Path(folder)))
            except Exception as error:
                raise AssertionError(f"{reader}, seed {seed}, case {number}: {error!r}") from error
    return counts


def fuzz_pictures(n_cases: int, seed: int) -> Counter[str]:
    """Measures and decodes `n_cases` damaged pictures of all formats: the sizes agree, or one of `pictures.ERRORS`."""
    counts: Counter[str] = Counter()
    for number in range(n_cases):
        rng = np.random.default_rng([seed, number])
        files = {"a.jpg": SMALL[rng.integers(len(SMALL))]}
        _damage(files, rng, "a.jpg")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                counts[_try_picture(files.get("a.jpg", b""))] += 1
            except Exception as error:
                raise AssertionError(f"picture, seed {seed}, case {number}: {error!r}") from error
    return counts


def _try_picture(content: bytes) -> str:
    try:
        width, height = pictures.measure(io.BytesIO(content))
    except pictures.ERRORS:
        return "refused"
    if width * height > 5_000_000:
        return "too large to try here"
    try:
        assert pictures.decode(io.BytesIO(content)).shape == (height, width, 3)
    except pictures.ERRORS:
        return "measured, not decoded"
    return "decoded"


def make_case(reader: str, seed: int, number: int) -> Files:
    """The files of one damaged folder, the same each time."""
    rng = np.random.default_rng([seed, number])
    files = PICTURES | BASES[reader]()
    for _ in range(rng.integers(1, 4)):
        _damage(files, rng)
    if rng.random() < 0.3:  # pictures in a zip; AI Hub's labels too
        packed = {name: files.pop(name) for name in list(files) if _is_picture(name) or reader == "aihub"}
        files["z.zip"] = zipped(packed)
        if rng.random() < 0.5:
            _damage(files, rng, "z.zip")
    return files


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _damage(files: Files, rng: np.random.Generator, name: str = "") -> None:
    labels = [key for key in files if not _is_picture(key)]
    name = name or str(rng.choice(labels if labels and rng.random() < 0.8 else list(files)))
    content, kind = files[name], int(rng.integers(0, 9))
    place, end = sorted(int(x) for x in rng.integers(0, len(content) + 1, 2))
    end = min(end, place + 60)
    if kind == 0:
        files[name] = content[:place]
    elif kind == 1:
        files[name] = content[:place] + rng.bytes(int(rng.integers(1, 5))) + content[place + int(rng.integers(0, 4)) :]
    elif kind == 2:
        files[name] = content[:end] + content[place:]  # a part twice
    elif kind == 3:
        files[name] = content[:place] + content[end:]
    elif kind == 4 and rng.random() < 0.3:
        del files[name]
    elif kind == 5:
        files[f"more/{Path(name).name}"] = content
    elif kind == 6 and rng.random() < 0.3:
        files[name] = content.decode(errors="replace").encode("utf-16")
    else:
        files[name] = _replace_token(content, rng)


def _replace_token(content: bytes, rng: np.random.Generator) -> bytes:
    """A number, word, string or bracket of a text replaced, or given another's place."""
    tokens = [found.span() for found in re.finditer(rb'[-\w.]+|"[^"]*"|[\[\]{}<>:,/]', content)]
    if not tokens:
        return WEIRD[rng.integers(len(WEIRD))]
    (start, end), (other, other_end) = (tokens[int(rng.integers(len(tokens)))] for _ in range(2))
    new = content[other:other_end] if rng.random() < 0.3 else WEIRD[rng.integers(len(WEIRD))]
    return content[:start] + new + content[end:]


def _try(kind: str, folder: Path) -> Counter[str]:
    reader, competition = READER_OF.get(kind, kind), COMPETITIONS.get(kind, COMPETITION)
    try:
        reading = READERS[reader](folder, competition)
    except ValueError as error:
        assert str(folder) in str(error), f"an error that names no file: {error}"
        return Counter(["refused"])
    check_images(reading.images)
    check_boxes(reading.boxes, reading.images, competition.labels)
    if competition.skeleton is not None:
        check_keypoints(reading.keypoints, reading.boxes, reading.images, competition.skeleton)
    n_points = [0 if competition.skeleton is None else len(competition.skeleton.names(label))
                for label in reading.boxes["label"]]
    assert len(reading.keypoints) == sum(n_points)  # a row a point of each box, labelled or not
    for table in reading:
        table.to_parquet(io.BytesIO())
    _check_pictures(reading, folder)
    _check_labels(reader, reading, folder)
    counts = Counter(reading.left_out["reason"]) + Counter({
        "read": 1, "boxes": len(reading.boxes), "labelled points": int((reading.keypoints["visible"] > 0).sum())})
    for row in reading.images.itertuples():
        try:
            assert read_image(row.archive, row.member).shape == (row.height, row.width, 3)
        except ValueError as error:
            assert f"{row.archive}: {row.member}" in str(error)
            counts["read but not decoded"] += 1
    return counts


def _check_pictures(reading: Reading, folder: Path) -> None:
    """Every picture is in the table or in the report."""
    there = {str(path) for path in folder.rglob("*") if _is_picture(path.name)}
    for path in folder.rglob("*.zip"):
        try:
            there |= {f"{path}/{name}" for name in ZipFile(path).namelist() if _is_picture(name)}
        except BadZipFile as error:
            raise AssertionError("a broken zip was passed over") from error
    found = {f"{row.archive}/{row.member}" for row in reading.images.itertuples()} | set(reading.left_out["file"])
    unusable = reading.left_out["reason"].isin([clean.UNREADABLE_LABEL, clean.OTHER_SIZE])
    unlabelled = {name.rpartition("/")[2] for name in reading.left_out.loc[unusable, "image_id"]}
    lost = {name for name in there - found if name.rpartition("/")[2] not in unlabelled}
    unpacked = reading.left_out.loc[reading.left_out["reason"] == clean.UNPACKED, "file"]
    lost = {name for name in lost if not name.startswith(tuple(f"{path}/" for path in unpacked))}
    assert not lost, f"lost pictures: {lost}"


def _check_labels(reader: str, reading: Reading, folder: Path) -> None:
    """Boxes, and lines about boxes, are as many as a plain count of the files' says."""
    lines = reading.left_out
    whole = lines[lines["reason"].isin(LOST_FILE if reader == "coco" else [*LOST_FILE, clean.OTHER_SIZE])
                  & ~lines["detail"].str.match(r"annotation |image |\d+ boxes")]
    gone = set(whole["file"])
    contents = [get() for name, get in _labels(reader, folder) if name not in gone]
    expected = sum(COUNTS[reader](content) for content in contents)
    elsewhere = lines["detail"].str.extract(r"^(\d+) boxes of pictures")[0].dropna().astype(int).sum()
    is_row = lines["reason"].isin([clean.DUPLICATE_LABEL, clean.NO_IMAGE]) & lines["file"].str.contains(
        r"\.(?:csv|txt):\d+$")
    n_lines = int((lines["reason"].isin(LOST_BOX) | lines["detail"].str.startswith("annotation ") | is_row).sum())
    found = len(reading.boxes) + n_lines + int(elsewhere)
    if reader == "cvat" and lines["reason"].isin([clean.OTHER_SIZE, clean.NO_IMAGE, clean.DUPLICATE_LABEL]).any():
        assert found <= expected  # the boxes of an image that is left out have its line alone
        return
    assert found == expected, f"{expected} boxes in the files, {len(reading.boxes)} kept and {n_lines} reported"
    if reader == "coco":
        n_entries = sum(len(json.loads(content)["images"]) for content in contents)
        is_entry = lines["detail"].str.startswith("image ") | (
            lines["reason"].eq(clean.OTHER_SIZE) & lines["detail"].str.startswith("label ")) | (
            lines["reason"] == clean.NOTHING_LEFT)
        assert n_entries == len(reading.images) + int(is_entry.sum())


def _labels(reader: str, folder: Path) -> list[tuple[str, Callable[[], bytes]]]:
    """Label files by the name that a report gives them, and what reads them."""
    files = [(str(path), path.read_bytes) for path in folder.rglob(PATTERNS[reader]) if path.name != "classes.txt"]
    if reader == "points_list":  # other texts are no lists
        files = [(name, get) for name, get in files
                 if points_list.is_list(tree.File("", str(Path(name).parent), Path(name).name))]
    if reader == "aihub":
        for path in folder.rglob("*.zip"):
            archive = ZipFile(path)
            names = [name for name in archive.namelist() if Path(name).suffix.lower() == ".json"]
            files += [(f"{path}/{name}", partial(archive.read, name)) for name in names]
    return files


def _count_objects(content: bytes) -> int:
    objects = ElementTree.fromstring(content).iter("object")  # noqa: S314 - made here
    return sum(max(len(found.findall("bndbox")), 1) for found in objects)


def _count_rows(content: bytes) -> int:
    return sum(bool(row) for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


def _count_list(content: bytes) -> int:
    """The lines of a list; a first one without a picture's name and without a digit is its header."""
    first = next(filter(None, csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))))
    is_line = _is_picture(first[0].strip()) or any(letter.isdigit() for letter in "".join(first))
    return _count_rows(content) - (not is_line)


COUNTS: dict[str, Callable[[bytes], int]] = {
    "dlc": lambda content: _count_rows(content) - 3,
    "cat_faces": lambda content: 1,
    "points_list": _count_list,
    "pose_json": lambda content: len(json.loads(content)["bboxes"]),
    "aihub": lambda content: len(json.loads(content)["label_info"]["annotations"]),
    "coco": lambda content: len(json.loads(content)["annotations"]),
    "voc": _count_objects,
    "yolo": lambda content: sum(bool(line.strip()) for line in content.decode("utf-8-sig", "replace").splitlines()),
    "cvat": lambda content: sum(shape.tag in ("box", "polygon") for image in ElementTree.fromstring(  # noqa: S314
        content).iter("image") for shape in image),
    "open_images": lambda content: sum(bool(row.strip(b" \t")) for row in re.split(rb"\r\n|\r|\n", content)) - 1,
}

if __name__ == "__main__":
    for key, count in sorted(fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).items()):
        print(f"{count:8,} {key}")

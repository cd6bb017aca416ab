"""The submission: `answer.csv` written, read and checked, and the weights file's size.

A file has one row a box, `ImageID,LabelName,Conf,XMin,XMax,YMin,YMax` (truth has no `Conf`), with corners
divided by the image's own width and height. Tables read here keep the file's units and its row order, on
which the competition's scorer depends.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ..config import Competition
from ..exceptions import BadData
from ..tables import BOX_COLUMNS, BOX_DTYPES, XYXY, by_falling_confidence, new_box_ids

ANSWER_COLUMNS = ["ImageID", "LabelName", "Conf", "XMin", "XMax", "YMin", "YMax"]
TRUTH_COLUMNS = [name for name in ANSWER_COLUMNS if name != "Conf"]
CORNERS = ["XMin", "YMin", "XMax", "YMax"]  # in the order of xyxy
BOX_NAMES = {"ImageID": "image_id", "LabelName": "label", "Conf": "confidence"}
BOX_NAMES |= dict(zip(CORNERS, XYXY, strict=True))
NAMINGS: dict[str, Callable[[str], str]] = {  # the values of `Competition.answer_name`
    "name": lambda image_id: PurePosixPath(image_id).name,
    "stem": lambda image_id: PurePosixPath(image_id).stem,
    "path": lambda image_id: image_id,
}
NO_BOX = ("no box at all: a model that sees nothing, or thresholds that nothing passes; where that is meant, say so "
          "with --allow-empty (allow_empty=True)")


def answer_names(images: pd.DataFrame, answer_name: str = "name") -> pd.Series:
    """What an answer calls each image: a text by `image_id`, as `Competition.answer_name` says.

    Raises BadData that shows both paths if two images would have one name.

    >>> answer_names(pd.DataFrame({"image_id": ["test/cam0/1.jpg"]}), "stem").to_dict()
    {'test/cam0/1.jpg': '1'}
    """
    names = _all_names(images, answer_name)
    if clashes := _clashes(names):
        raise BadData(clashes[0])
    return names


def _all_names(images: pd.DataFrame, answer_name: str) -> pd.Series:
    """As `answer_names`, but a name may be there twice."""
    if answer_name not in NAMINGS:
        raise ValueError(f"answer_name: expected one of {list(NAMINGS)}, found {answer_name!r}")
    image_ids = images["image_id"].astype(str).to_numpy(object)
    return pd.Series([NAMINGS[answer_name](image_id) for image_id in image_ids], index=image_ids, dtype=object)


def _clashes(names: pd.Series) -> list[str]:
    """One sentence on the first two images of one name; none if all differ."""
    if not (twice := names.duplicated(keep=False)).any():
        return []
    name = names[twice].iloc[0]
    first, second = names.index[(names == name).to_numpy()][:2]
    n_names = names[twice].nunique()
    more = f" (and {n_names - 1} more such names)" if n_names > 1 else ""
    return [f"two test images would both be called {name!r} in the answer, {first} and {second}{more}: it cannot tell "
            "them apart; if the competition names images by their path, write `answer_name: path` into its file"]


def read_answer(path: Path) -> pd.DataFrame:
    """The boxes of an answer, in the file's units and row order.

    Raises BadData that names file and line: empty file, wrong separator, a missing or unknown column,
    something that is not a finite number, swapped corners, a row that is there twice.
    """
    return from_rows(_read_sound_rows(path, ANSWER_COLUMNS))


def read_truth(path: Path) -> pd.DataFrame:
    """The boxes of a truth file, an answer without `Conf`; raises as `read_answer`, and if there are none."""
    rows = _read_sound_rows(path, TRUTH_COLUMNS)
    if rows.empty:
        raise BadData(f"{path}: expected at least one box below the header, found none")
    return from_rows(rows)


def from_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """A boxes table from a frame with a file's columns; rows keep their order, missing names become "nan"."""
    boxes = rows.rename(columns=BOX_NAMES).reset_index(drop=True)
    for name in ["image_id", "label"]:
        boxes[name] = boxes[name].to_numpy(object).astype(str)  # as `map_boxes` reads numbers and gaps
    boxes["source"] = source = "model" if "confidence" in boxes else "gold"
    boxes["box_id"] = new_box_ids(boxes["image_id"], source)
    return boxes.assign(confidence=boxes.get("confidence", 1.0))[BOX_COLUMNS].astype(BOX_DTYPES)


def to_rows(
    boxes: pd.DataFrame, images: pd.DataFrame, *, pixels: bool = False, answer_name: str = "name"
) -> pd.DataFrame:
    """A file's rows, by image and falling confidence; the index is the line each will have in the file.

    Raises BadData if two of the images would have one name in the answer, see `answer_names`.
    """
    boxes, names = by_falling_confidence(boxes), answer_names(images, answer_name)
    rows = boxes.rename(columns={box: file for file, box in BOX_NAMES.items()})[ANSWER_COLUMNS].copy()
    if not pixels:
        rows[CORNERS] = rows[CORNERS].to_numpy() / _sizes(rows, images)
    rows["ImageID"] = rows["ImageID"].map(names).fillna(rows["ImageID"])  # a strange image keeps its own
    return rows.set_index(np.arange(len(rows)) + 2)


def write_answer(
    boxes: pd.DataFrame,
    images: pd.DataFrame,
    path: Path,
    *,
    pixels: bool = False,
    boxless: Collection[str] = (),
    labels: Collection[str] | None = None,
    answer_name: str = "name",
    allow_empty: bool = False,
) -> Path:
    """Writes the boxes of the test `images`, whole or not at all; `pixels` leaves corners in pixels.

    `boxless` names the images that truly have no candidate; `labels`, if given, the classes that may occur;
    `answer_name` is the competition's. Raises BadData where `check_answer` would complain: say, at an image that has
    no row and is not boxless, and without `allow_empty` at an answer without any box.
    """
    rows = to_rows(boxes, images, pixels=pixels, answer_name=answer_name)
    _refuse(path, find_faults(rows, images, labels, pixels=pixels, boxless=boxless, answer_name=answer_name,
                              allow_empty=allow_empty))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(beside, "w", encoding="utf-8", newline="") as file:
        rows.to_csv(file, index=False, lineterminator="\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    return path


def check_answer(
    answer_path: Path,
    *,
    images: pd.DataFrame,
    competition: Competition,
    weights: Sequence[Path] = (),
    pixels: bool = False,
    boxless: Collection[str] = (),
    allow_empty: bool = False,
) -> list[str]:
    """What is wrong with a submission, in words, each naming a line or image; an empty list if nothing is.

    `images` is the test set's images table; it needs `image_id`, and `width, height` if in
    `pixels`. `boxless` are image ids, or what the answer calls those images.
    """
    faults = []
    try:
        rows = _read_lines(answer_path, ANSWER_COLUMNS)
        faults += find_faults(rows, images, competition.labels, pixels=pixels, boxless=boxless,
                              answer_name=competition.answer_name, allow_empty=allow_empty)
    except ValueError as error:
        faults.append(str(error))
    try:
        check_weights(weights, competition.weight_limit_bytes)
    except ValueError as error:
        faults.append(str(error))
    return faults


def check_weights(paths: Sequence[Path], limit_bytes: int) -> int:
    """Returns the bytes of the files that inference loads, all together. Raises ValueError if one is missing, or for
    a sum over the limit.
    """
    if missing := [path for path in paths if not path.is_file()]:
        raise ValueError(f"{missing[0]}: expected the weights file, found no such file")
    if (size := sum(path.stat().st_size for path in paths)) > limit_bytes:
        raise ValueError(
            f"{', '.join(map(str, paths))}: {size / 1e6:.1f} MB ({size:,} bytes) is over the limit of "
            f"{limit_bytes / 1e6:g} MB; save in half precision without optimizer and EMA, submit fewer models, or "
            "train a smaller one"
        )
    return size


def find_faults(
    rows: pd.DataFrame,
    images: pd.DataFrame,
    labels: Collection[str] | None,
    *,
    pixels: bool = False,
    boxless: Collection[str] = (),
    answer_name: str = "name",
    allow_empty: bool = False,
) -> list[str]:
    """Everything wrong with an answer's rows (index: line in the file), one sentence a kind of fault."""
    names = _all_names(images, answer_name)
    general = [*_column_faults(rows), *_clashes(names)] + ([NO_BOX] if rows.empty and not allow_empty else [])
    same = {**{NAMINGS["name"](image_id): name for image_id, name in names.items()}, **names}
    boxless = {same.get(image_id, image_id) for image_id in boxless}
    named = images.assign(image_id=names.to_numpy()).drop_duplicates("image_id")
    numbers = _as_numbers(rows)
    corners = numbers[CORNERS].to_numpy() / (_sizes(rows, named) if pixels else 1)
    outside = ((corners < 0) | (corners > 1 + 1e-6)).any(axis=1)
    known = rows["LabelName"] if labels is None else labels
    bounds = "its image" if pixels else "[0, 1], to which corners are divided by width and height"
    if not pixels and np.count_nonzero((corners > 2).any(axis=1)) > len(rows) / 2:
        bounds += " (these look like pixels)"
    divided = numbers[CORNERS].ge(0).all(axis=1) & numbers[CORNERS].le(1).all(axis=1)
    strange, unknown = (_first(rows[column], among) for column, among in
                        (("ImageID", named["image_id"]), ("LabelName", known)))
    hint = _nearly(strange, named["image_id"]) or _other_naming(strange, images, answer_name)
    rules = [
        (~rows["ImageID"].isin([*named["image_id"], ""]), f"not one of the test images{hint}"),
        (~rows["LabelName"].isin([*known, ""]), f"unknown class {{LabelName}}{_nearly(unknown, known)}"),
        (divided & (pixels and divided.sum() > len(rows) / 2),
         f"{_CORNERS_FOUND} lies within one pixel: these look divided by width and height; check without --pixels"),
        (outside, f"{_CORNERS_FOUND} reaches outside {bounds}"),
        ((corners[:, :2] == corners[:, 2:]).any(axis=1), f"{_CORNERS_FOUND} has no area"),
        ((numbers["Conf"] < 0) | (numbers["Conf"] > 1), "confidence {Conf} is outside [0, 1]"),
        (
            numbers.groupby(rows["ImageID"], sort=False)["Conf"].diff() > 0,
            "confidence {Conf} comes after a lower one of the same image; the competition's scorer matches "
            "boxes in file order, so this costs score",
        ),
    ]
    faults = [fault for wrong, words in rules for fault in _report(rows, wrong, words)]
    return [*general, *faults, *_row_faults(rows, numbers), *_missing(rows, named, boxless)]


def _first(found: pd.Series, known: Collection[str]) -> str:
    """The first text that is not among the known ones, "" if there is none."""
    return next((str(text) for text in found[~found.isin([*known, ""])]), "")


def differs_little(found: str, known: Collection[str]) -> str:
    """In which words a text differs from a known one that the eye takes for the same; "" if it is another.

    >>> differs_little("Cow", ["pig", "cow"])
    "'Cow' and 'cow' differ in upper and lower case"
    """
    if not found or found in set(known):
        return ""
    if found.strip() in set(known):
        return f"{found!r} has a blank before or after it"
    folded = {str(name).casefold(): str(name) for name in known}
    if (same := folded.get(found.strip().casefold())) is not None:
        return f"{found!r} and {same!r} differ in upper and lower case"
    return ""


def _nearly(found: str, known: Collection[str]) -> str:
    """The same behind a colon."""
    return f": {hint}" if (hint := differs_little(found, known)) else ""


def _other_naming(found: str, images: pd.DataFrame, answer_name: str) -> str:
    """What to say where images are called otherwise than `Competition.answer_name` asks for."""
    if not found:
        return ""
    for other, naming in NAMINGS.items():
        if found in {naming(str(image_id)) for image_id in images["image_id"]}:
            return f": this is an image's {other}, where the competition's `answer_name` asks for its {answer_name}"
    ends = (str(image_id) for image_id in images["image_id"] if answer_name == "path")
    if nearest := next((end for end in ends if f"/{end}".endswith(f"/{found}") or f"/{found}".endswith(f"/{end}")), ""):
        return f": its path begins elsewhere than that of {nearest!r}, which begins at the data folder"
    return ""


def _column_faults(rows: pd.DataFrame) -> list[str]:
    if list(rows) == ANSWER_COLUMNS:
        return []
    return [f"line 1: expected columns in the order {','.join(ANSWER_COLUMNS)}, found {','.join(rows)}"]


_CORNERS_FOUND = "box XMin {XMin}, XMax {XMax}, YMin {YMin}, YMax {YMax}"


def _row_faults(rows: pd.DataFrame, numbers: pd.DataFrame) -> list[str]:
    """What is wrong with rows whatever they are compared with."""
    swapped = (numbers["XMin"] > numbers["XMax"]) | (numbers["YMin"] > numbers["YMax"])
    rules = [((rows[name] == ""), f"{name} is empty") for name in ["ImageID", "LabelName"]]
    for name in numbers:
        rules.append((numbers[name].isna(), f"{name}: expected a finite number, found '{{{name}}}'"))
    rules.append((swapped, f"{_CORNERS_FOUND} has swapped corners; the order is XMin, XMax, YMin, YMax"))
    rules.append((rows.assign(**numbers).duplicated(), "repeats an earlier row"))
    return [fault for wrong, words in rules for fault in _report(rows, wrong, words)]


def _report(rows: pd.DataFrame, wrong: pd.Series | np.ndarray, words: str) -> list[str]:
    """One sentence on the first wrong row and how many more there are; none if none is wrong."""
    if not (n_wrong := int(np.count_nonzero(wrong))):
        return []
    first = rows[np.asarray(wrong)].iloc[0]
    more = f" (and {n_wrong - 1} more such rows)" if n_wrong > 1 else ""
    # not `format`, for the words may hold a name with braces
    words = re.sub(r"\{(\w+)\}", lambda found: str(first.get(found[1], found[0])), words)
    return [f"line {first.name} ({first['ImageID']}): {words}{more}"]


def _missing(rows: pd.DataFrame, images: pd.DataFrame, boxless: Collection[str]) -> list[str]:
    missing = sorted(set(images["image_id"]) - set(rows["ImageID"]) - set(boxless))
    if not missing:
        return []
    names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    counts = f"{len(missing)} of {len(images)} test images"
    return [f"{counts} have no row and are not known to be without a box: {names}"]


def _refuse(path: Path, faults: list[str]) -> None:
    if faults:
        more = f"; and {len(faults) - 1} other kinds of fault" if len(faults) > 1 else ""
        raise BadData(f"{path}: {faults[0]}{more}")


def _read_sound_rows(path: Path, columns: list[str]) -> pd.DataFrame:
    rows = _read_lines(path, columns)
    numbers = _as_numbers(rows)
    _refuse(path, _row_faults(rows, numbers))
    return rows.assign(**numbers)


def _as_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of numbers, NaN where the text is not a number."""
    numeric = [name for name in rows if name not in ("ImageID", "LabelName")]
    numbers = rows[numeric].apply(pd.to_numeric, errors="coerce").astype(float)
    return numbers.replace([np.inf, -np.inf], np.nan)


def _sizes(rows: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    """Width, height, width, height of each row's image, `(N, 4)`; NaN for an image that is not there."""
    found = images.set_index("image_id")[["width", "height"]].reindex(rows["ImageID"])
    return np.tile(found.to_numpy(float), 2)


def _read_lines(path: Path, columns: list[str]) -> pd.DataFrame:
    return read_fields(path, lambda header: _check_header(path, header, columns))


def read_fields(path: Path, check_header: Callable[[list[str]], None]) -> pd.DataFrame:
    """A CSV's fields as text; the index is the line of each row. `check_header` raises for columns that do not do.

    Raises BadData naming file and line for what is no CSV in UTF-8, and for a row of another length.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            lines = dict((reader.line_num, row) for row in reader if row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadData(f"{path}: expected a CSV file in UTF-8, found {error}") from error
    check_header(header)
    for line, row in lines.items():
        if len(row) != len(header):
            raise BadData(f"{path}: line {line}: expected {len(header)} fields, found {len(row)}: {row}")
    return pd.DataFrame(list(lines.values()), index=list(lines), columns=header, dtype=object)


def _check_header(path: Path, header: list[str], columns: list[str]) -> None:
    expected = ",".join(columns)
    if not header:
        raise BadData(f"{path}: line 1: expected the columns {expected}, found an empty file")
    if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise BadData(f"{path}: line 1: expected commas between columns, found {other!r}")
    for name in header:
        if name not in columns and (hint := _nearly(name, columns)):
            raise BadData(f"{path}: line 1: a column is misspelt{hint}; expected {expected}")
    for what, names in [("missing", set(columns) - set(header)), ("unknown", set(header) - set(columns))]:
        if names:
            raise BadData(f"{path}: line 1: {what} column {sorted(names)[0]!r}; expected {expected}")
    if len(header) != len(columns):
        raise BadData(f"{path}: line 1: a column is there twice; expected {expected}")

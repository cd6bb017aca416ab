"""Tables are made, numbered, checked and kept: a box is known by its `box_id` wherever it goes."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from livestock.config import Keypoint, Skeleton
from livestock.exceptions import BadData
from livestock.tables import (
    BOX_COLUMNS,
    BOX_DTYPES,
    IMAGE_COLUMNS,
    KEYPOINT_COLUMNS,
    check_boxes,
    check_images,
    check_keypoints,
    first_box_id,
    ids,
    make_boxes,
    make_images,
    make_keypoints,
    new_box_ids,
    read_table,
    write_table,
)

IMAGES = make_images([{"image_id": name, "archive": "", "member": name, "width": 200, "height": 100}
                      for name in ("a.jpg", "b.jpg")])
SKELETON = Skeleton((Keypoint("pig", "snout", 0), Keypoint("pig", "tail", 1), Keypoint("cow", "nose", 0)))


def box(image_id: str = "a.jpg", label: str = "pig", x_min: float = 10.0, **columns: object) -> dict:
    return {"image_id": image_id, "label": label, "x_min": x_min, "y_min": 10.0, "x_max": x_min + 40, "y_max": 50.0,
            **columns}


BOXES = make_boxes([box(), box(x_min=60.0), box("b.jpg", "cow")])
FIRST, _, COW = BOXES["box_id"]


def point(box_id: int = FIRST, keypoint: str = "snout", image_id: str = "a.jpg", **columns: object) -> dict:
    return {"box_id": box_id, "image_id": image_id, "keypoint": keypoint, "x": 12.5, "y": 20.0, **columns}


# ---------------------------------------------------------------- numbers of boxes


def test_a_box_is_numbered_within_its_image() -> None:
    """The second box of an image follows the first, wherever it stands in the table."""
    found = new_box_ids(["b.jpg", "a.jpg", "b.jpg", "b.jpg"], "gold")
    first = first_box_id("b.jpg", "gold")
    assert found.tolist() == [first, first_box_id("a.jpg", "gold"), first + 1, first + 2]
    assert found.dtype == np.int64


def test_the_same_data_have_the_same_ids_everywhere() -> None:
    """The number is in the code of no machine: written down here, it must come out again."""
    assert first_box_id("a/1.jpg", "gold") == 1792425863388643253
    assert make_boxes([box("a/1.jpg")])["box_id"].tolist() == [1792425863388643253]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=3), max_size=30), st.text(max_size=5), st.text(max_size=5))
def test_ids_differ_within_and_between_tables(image_ids: list[str], origin: str, other: str) -> None:
    found = [new_box_ids(image_ids, name) for name in {origin, other}]
    assert len(np.unique(np.concatenate(found))) == sum(map(len, found))
    assert all((numbers >= 0).all() for numbers in found)


def test_the_examples_are_right() -> None:
    assert doctest.testmod(ids).failed == 0


def test_no_rows_have_no_ids() -> None:
    assert new_box_ids([], "gold").dtype == np.int64
    assert make_boxes([])["box_id"].dtype == np.int64


def test_sources_and_origins_have_ids_of_their_own() -> None:
    tables = [make_boxes([box()]), make_boxes([box(source="silver")]), make_boxes([box(source="model")]),
              make_boxes([box(source="model")], "plain"), make_boxes([box(source="model")], "flipped")]
    assert pd.concat(tables)["box_id"].is_unique
    mixed = make_boxes([box(), box(source="model")])
    assert mixed["box_id"].tolist() == [tables[0]["box_id"].item(), tables[2]["box_id"].item()]


def test_ids_that_are_given_stay() -> None:
    given_ids = make_boxes([box("b.jpg", box_id=2**62 + 1), box("a.jpg", box_id=5)])
    assert given_ids["box_id"].tolist() == [5, 2**62 + 1]
    again = make_boxes(pd.concat([BOXES.iloc[2:], BOXES.iloc[:2]]))
    pd.testing.assert_frame_equal(again, BOXES)


def test_tables_with_and_without_ids_are_not_mixed() -> None:
    """pandas makes floats of a column with gaps, in which two large numbers may become one."""
    with pytest.raises(ValueError, match="box_id: row 1: expected a number, as other rows have one, found none"):
        make_boxes([box(box_id=3), box()])
    with pytest.raises(ValueError, match="box_id: row 1: expected a number"):
        make_boxes(pd.concat([BOXES.iloc[:1], BOXES.iloc[:1].drop(columns="box_id")]))
    with pytest.raises(ValueError, match=r"box_id: row 0: expected a whole number, found 3\.0"):
        make_boxes([box(box_id=3.0)])


# ---------------------------------------------------------------- checks


def test_sound_tables_pass() -> None:
    assert check_images(IMAGES) is IMAGES
    assert check_boxes(BOXES, IMAGES, ["pig", "cow"]) is BOXES
    check_boxes(BOXES.iloc[:0], IMAGES, ["pig", "cow"])
    check_images(IMAGES.iloc[:0])
    assert list(IMAGES) == IMAGE_COLUMNS and list(BOXES) == BOX_COLUMNS


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": [0, 200]}, "farm: row 0 (a.jpg): column 'width': expected greater_than_or_equal_to(1), found 0"),
        ({"image_id": ["a.jpg", "a.jpg"]},
         "farm: row 1 (a.jpg): column 'image_id': expected each value once, found "
         "'a.jpg', which row 0 has"),
        ({"fold": [-2, 0]}, "row 0 (a.jpg): column 'fold': expected greater_than_or_equal_to(-1), found -2"),
        ({"height": [1.5, 2]}, "farm: column 'height': expected dtype('int64'), found float64"),
        ({"camera": 1}, "farm: column 'camera': expected only ['image_id', "),
    ],
)
def test_a_faulty_images_table_is_refused_by_row(change: dict, words: str) -> None:
    with pytest.raises(BadData) as refused:
        check_images(IMAGES.assign(**change), "farm")
    assert words in str(refused.value)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"box_id": [1, 2, 1]}, "farm: row 2 (b.jpg): column 'box_id': expected each value once, found 1, which row 0"),
        ({"box_id": [1, -2, 3]}, "row 1 (a.jpg): column 'box_id': expected greater_than_or_equal_to(0), found -2"),
        ({"box_id": [1.0, 2, 3]}, "column 'box_id': expected dtype('int64'), found float64"),
        ({"image_id": ["a.jpg", "c.jpg", "b.jpg"]},
         "row 1 (c.jpg): column 'image_id': expected an image of the images "
         "table, found 'c.jpg'"),
        ({"label": ["pig", "cow", "hen"]},
         "row 2 (b.jpg): column 'label': expected one of ['pig', 'cow'], found 'hen'"),
        ({"source": ["gold", "gold", "silber"]},
         "row 2 (b.jpg): column 'source': expected isin(['gold', 'silver', "
         "'model']), found 'silber'"),
        ({"confidence": [1, 1, 1.5]}, "row 2 (b.jpg): column 'confidence': expected in_range(0, 1), found 1.5"),
        ({"x_min": [10, np.nan, 10]}, "row 1 (a.jpg): column 'x_min': expected not_nullable, found nan"),
        ({"x_min": [10, 200, 10.0]}, "row 1 (a.jpg): expected x_min < x_max <= width"),
        ({"y_max": [50, 100.5, 50]}, "row 1 (a.jpg): expected x_min < x_max <= width"),
        ({"label": ["pig", 3, "cow"]}, "column 'label': expected"),
    ],
)
def test_a_faulty_boxes_table_is_refused_by_row(change: dict, words: str) -> None:
    with pytest.raises(BadData) as refused:
        check_boxes(BOXES.assign(**change), IMAGES, ["pig", "cow"], "farm")
    assert words in str(refused.value)
    assert str(refused.value).startswith("farm: ")


def test_a_table_without_ids_is_refused() -> None:
    with pytest.raises(BadData, match="boxes: column 'box_id': expected it, found only"):
        check_boxes(BOXES.drop(columns="box_id"), IMAGES, ["pig", "cow"])


def test_rows_are_counted_from_the_top_whatever_the_index() -> None:
    shifted = BOXES.assign(confidence=[1, 1, 2.0]).set_index(pd.Index([7, 8, 9]))
    with pytest.raises(BadData, match=r"row 2 \(b\.jpg\)"):
        check_boxes(shifted, IMAGES, ["pig", "cow"])


# ---------------------------------------------------------------- keypoints


def test_keypoints_are_seen_where_they_have_a_place() -> None:
    found = make_keypoints([point(), point(keypoint="tail", x=None, y=None), point(COW, "nose", "b.jpg", visible=1)])
    assert list(found) == KEYPOINT_COLUMNS
    assert found["visible"].tolist() == [2, 0, 1]
    assert found["confidence"].tolist() == [1, 1, 1] and set(found["source"]) == {"gold"}
    assert found["box_id"].tolist() == [FIRST, FIRST, COW]  # not rounded by the gaps in other columns
    check_keypoints(found, BOXES, IMAGES, SKELETON)
    check_keypoints(found.iloc[:0], BOXES, IMAGES, SKELETON)
    check_keypoints(make_keypoints([]), BOXES, IMAGES, SKELETON)


def test_a_point_that_is_not_labelled_has_no_place() -> None:
    """COCO writes (0, 0) with visibility 0."""
    found = make_keypoints([point(x=0, y=0, visible=0)])
    assert found[["x", "y"]].isna().all(axis=None)


def test_a_point_needs_the_number_of_its_box() -> None:
    with pytest.raises(ValueError, match="box_id: row 0: expected a whole number, found nan"):
        make_keypoints([{"image_id": "a.jpg", "keypoint": "snout", "x": 1, "y": 1}])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"box_id": [FIRST, 7]}, "farm: row 1 (a.jpg): column 'box_id': expected the number of a box, found 7"),
        ({"image_id": ["a.jpg", "b.jpg"]},
         "row 1 (b.jpg): column 'image_id': expected its box's, 'a.jpg', found 'b.jpg'"),
        ({"keypoint": ["snout", "nose"]},
         "row 1 (a.jpg): column 'keypoint': expected one of ['snout', 'tail'], which the "
         "skeleton has for 'pig', found 'nose'"),
        ({"keypoint": ["snout", "snout"]},
         "row 1 (a.jpg): column 'keypoint': expected each once for a box, found 'snout'"),
        ({"visible": [2, 0]}, "row 1 (a.jpg): columns 'x', 'y': expected NaN where visible is 0 and numbers elsewhere"),
        ({"x": [12.5, np.nan]},
         "row 1 (a.jpg): columns 'x', 'y': expected NaN where visible is 0 and numbers elsewhere"),
        ({"y": [np.nan, 5.0]}, "row 0 (a.jpg): columns 'x', 'y': expected NaN where visible is 0"),
        ({"x": [12.5, 200.5]},
         "row 1 (a.jpg): columns 'x', 'y': expected x <= width and y <= height, found [200.5, 20.0] "
         "in an image of [200, 100]"),
        ({"x": [-1.0, 5]}, "row 0 (a.jpg): column 'x': expected greater_than_or_equal_to(0), found -1.0"),
        ({"visible": [2, 3]}, "row 1 (a.jpg): column 'visible': expected isin([0, 1, 2]), found 3"),
        ({"confidence": [2.0, 1]}, "row 0 (a.jpg): column 'confidence': expected in_range(0, 1), found 2.0"),
    ],
)
def test_a_faulty_keypoints_table_is_refused_by_row(change: dict, words: str) -> None:
    sound = make_keypoints([point(), point(keypoint="tail")])
    with pytest.raises(BadData) as refused:
        check_keypoints(sound.assign(**change), BOXES, IMAGES, SKELETON, "farm")
    assert words in str(refused.value)


# ---------------------------------------------------------------- files


def test_ids_survive_a_file_and_take_hardly_any_room(tmp_path: Path) -> None:
    boxes = make_boxes(pd.DataFrame([box()] * 5000).assign(source="model"), "plain")
    found = read_table(write_table(boxes, tmp_path / "boxes.parquet"))
    pd.testing.assert_frame_equal(found, boxes)
    column = parquet.ParquetFile(tmp_path / "boxes.parquet").metadata.row_group(0).column(0)
    assert column.path_in_schema == "box_id" and column.total_compressed_size < 5000


def test_a_table_in_chunks_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livestock.tables.parquet.CHUNK", 2)
    found = read_table(write_table(BOXES, tmp_path / "boxes.parquet"))
    pd.testing.assert_frame_equal(found, BOXES)
    expected = pd.DataFrame(columns=list(BOX_DTYPES)).astype(BOX_DTYPES)  # pandas 3 has a type of its own for texts
    assert found.dtypes.to_dict() == expected.dtypes.to_dict()


def test_schemas_are_imported_only_where_a_table_is_checked() -> None:
    """pandera takes half a second, which `livestock --help` and figures need not pay."""
    code = "import sys, livestock.tables, livestock.cli; sys.exit('pandera' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own code

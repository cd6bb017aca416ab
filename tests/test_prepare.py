"""A picture on a network's input, and the way back of its boxes."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.data.pictures import fit
from livestock.geometry import affine, invert, map_boxes
from livestock.models.base import Resize
from livestock.models.prepare import place, prepare

RULES = list(get_args(Resize))
sides, strides = st.integers(12, 300), st.sampled_from([1, 8, 32, 64])


@settings(max_examples=60, deadline=None)
@given(width=sides, height=sides, imgsz=st.integers(32, 260), stride=strides)
def test_letterbox_centres_the_fitted_picture_on_grey(width: int, height: int, imgsz: int, stride: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    fitted = fit(picture, imgsz)
    rows, columns = (-(-n // stride) * stride - n for n in fitted.shape[:2])
    expected = np.pad(fitted, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)),
                      constant_values=114)
    found, matrix = prepare(picture, imgsz, stride, "letterbox")
    assert (found == expected).all() and found.flags.c_contiguous
    scale = [fitted.shape[1] / width, fitted.shape[0] / height]
    assert (matrix == affine(scale=scale, shift=(columns // 2, rows // 2))).all()


def test_the_other_rules() -> None:
    picture = np.full((50, 100, 3), 7, np.uint8)
    found, matrix = prepare(picture, 64, 48, "top_left")
    assert found.shape == (48, 96, 3) and (found[:32, :64] == 7).all()
    assert (found[32:] == 114).all() and (found[:, 64:] == 114).all() and matrix.tolist() == [[.64, 0, 0], [0, .64, 0]]
    found, matrix = prepare(picture, 64, 32, "stretch")
    assert found.shape == (64, 64, 3) and (found == 7).all() and matrix.tolist() == [[.64, 0, 0], [0, 1.28, 0]]


@pytest.mark.parametrize(("resize", "offset"), [("letterbox", (0, 24)), ("top_left", (0, 0))])
def test_a_square_canvas(resize: Resize, offset: tuple[int, int]) -> None:
    assert place(100, 50, 96, 64, resize, square=True) == ((96, 48), (offset[0] + 16 * (resize == "letterbox"),
                                                                      40 * (resize == "letterbox")), (128, 128))
    assert prepare(np.zeros((50, 100, 3), np.uint8), 96, 64, resize, square=True)[0].shape == (128, 128, 3)


@pytest.mark.parametrize("resize", RULES)
@settings(max_examples=50, deadline=None)
@given(width=sides, height=sides, imgsz=st.integers(32, 260), stride=strides, square=st.booleans(), data=st.data())
def test_a_box_is_where_its_pixels_are_and_comes_back(
    resize: Resize, width: int, height: int, imgsz: int, stride: int, square: bool, data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    right, bottom = data.draw(st.integers(x + 6, width)), data.draw(st.integers(y + 6, height))
    picture = np.zeros((height, width, 3), np.uint8)
    picture[y:bottom, x:right] = (0, 0, 255)
    canvas, matrix = prepare(picture, imgsz, stride, resize, square=square)
    assert canvas.shape[0] % stride == canvas.shape[1] % stride == 0
    box = np.array([[x, y, right, bottom]], float)
    mapped = map_boxes(box, matrix)
    np.testing.assert_allclose(map_boxes(mapped, invert(matrix)), box, atol=1e-9)
    blue = (canvas[..., 2] > 127) & (canvas[..., 0] < 60)  # grey is neither blue nor black
    columns, rows = (np.arange(n) + 0.5 for n in canvas.shape[1::-1])
    left, top, right_end, bottom_end = mapped[0]
    margin = max(1.0, matrix[0, 0], matrix[1, 1])  # px over which an edge is smeared
    within = np.ix_((rows > top + margin) & (rows < bottom_end - margin),
                    (columns > left + margin) & (columns < right_end - margin))
    assert blue[within].all()
    beyond = np.ones(blue.shape, bool)
    beyond[np.ix_((rows > top - margin) & (rows < bottom_end + margin),
                  (columns > left - margin) & (columns < right_end + margin))] = False
    assert not blue[beyond].any()


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="resize: expected one of letterbox, stretch, top_left, found 'crop'"):
        prepare(np.zeros((4, 4, 3), np.uint8), 32, 32, "crop")  # type: ignore[arg-type]

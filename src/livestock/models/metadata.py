"""What ONNX and TorchScript files say of their model: one JSON object below the key `METADATA`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from ..exceptions import UnsafeWeights
from .base import ONE_STAGE, Crop, Resize

METADATA = "livestock"
KEYPOINTS = ("points", "flips", "owners", "crop")  # what the architecture says of keypoints, see `poses`
OPTIONAL = {"architecture"}  # of networks of keypoints alone
MOST_POINTS = 1_000
MOST_STRIDE, MOST_IMGSZ = 1024, 1 << 14  # pixels


@dataclass(frozen=True)
class Metadata:
    """The fields of `LoadedModel` that a file carries.

    Files of the first version say `labels` and `stride` alone, and are all of yolov5; `has_centres` marks them: their
    output is `(B, N, 5 + C)`: cx, cy, w, h, objectness and classes, in place of `(B, N, 4 + C)`: xyxy and scores.

    Files of networks of keypoints say their `KEYPOINTS`, too, as `architecture`; their output is `(B, N, 4 + C + 3 K)`:
    behind the scores x, y and confidence of each point.
    """

    labels: list[str]
    stride: int
    family: str = "yolov5"
    resize: Resize = "letterbox"
    imgsz: int | None = None
    needs_nms: bool = True
    has_fixed_size: bool = False
    has_centres: bool = False
    architecture: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_points(self) -> int:
        """Of each object."""
        return len(self.architecture.get("points", ()))

    @property
    def n_columns(self) -> int:
        """Of the output, the last dimension."""
        return (5 if self.has_centres else 4) + len(self.labels) + 3 * self.n_points


def write_metadata(metadata: Metadata) -> str:
    """The JSON that `read_metadata` reads."""
    left_out = {"has_centres"} | (set() if metadata.architecture else OPTIONAL)
    return json.dumps({name: value for name, value in asdict(metadata).items() if name not in left_out})


def read_metadata(text: str | bytes, path: Path) -> Metadata:
    """What a file of ours says of its model. Raises UnsafeWeights naming the file and what is not as expected.

    >>> read_metadata('{"labels": ["pig"], "stride": 32}', Path("old.onnx")).has_centres
    True
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnsafeWeights(_expected(path, text)) from error
    if not isinstance(content, dict) or not {"labels", "stride"} <= content.keys():
        raise UnsafeWeights(_expected(path, text))
    if set(content) == {"labels", "stride"}:
        content["has_centres"] = True
    elif content.keys() - OPTIONAL != (expected := Metadata.__dataclass_fields__.keys() - {"has_centres"} - OPTIONAL):
        raise UnsafeWeights(f"{path}: metadata {METADATA!r}: expected the keys {sorted(expected)}, found "
                            f"{str(sorted(content))[:200]}")
    for key, (is_right, what) in CHECKS.items():
        if key in content and not is_right(content[key]):
            raise UnsafeWeights(f"{path}: metadata {METADATA!r}: expected {what}, found {key} = "
                                f"{str(content[key])[:80]}")
    found = Metadata(**content)
    if found.n_points and not are_owners(found.architecture["owners"], found.n_points, len(found.labels)):
        raise UnsafeWeights(f"{path}: metadata {METADATA!r}: expected owners that are ids of {len(found.labels)} "
                            f"labels, found {str(found.architecture['owners'])[:80]}")
    return found


def _expected(path: Path, text: str | bytes) -> str:
    return (f"{path}: expected metadata {METADATA!r} with labels and stride, as `export.export_onnx` writes it, found "
            f"{text[:80]!r}")


def _is_labels(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(label, str) for label in value)


def _is_pixels(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_of_keypoints(value: Any) -> bool:
    """Whether it says what is needed of keypoints: different names, each one's mirror image or none, a known crop."""
    if not isinstance(value, dict) or set(value) != set(KEYPOINTS) or not _is_labels(value["points"]):
        return False
    points = value["points"]
    return (1 <= len(points) == len(set(points)) <= MOST_POINTS and value["crop"] in (*get_args(Crop), ONE_STAGE)
            and are_flips(value["flips"], len(points)))


def are_flips(value: Any, n_points: int) -> bool:
    """Whether these are the indexes of the mirror images of so many points, each leading back; or none at all."""
    return isinstance(value, list | tuple) and all(type(flip) is int for flip in value) and (
        not value or sorted(value) == list(range(n_points)) and all(value[value[k]] == k for k in value))


def are_owners(value: Any, n_points: int, n_labels: int) -> bool:
    """Whether these are the ids of classes that have each of so many points; or none, where all classes have all."""
    return isinstance(value, list | tuple) and len(value) in (0, n_points) and all(
        isinstance(own, list | tuple) and own and all(type(number) is int and 0 <= number < n_labels for number in own)
        and len(set(own)) == len(own) for own in value)


CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "labels": (_is_labels, "a list of labels"),
    "stride": (lambda value: _is_pixels(value, MOST_STRIDE), f"a stride of 1 to {MOST_STRIDE} pixels"),
    "family": (lambda value: isinstance(value, str), "the name of a family"),
    "resize": (lambda value: value in get_args(Resize), f"one of {get_args(Resize)}"),
    "imgsz": (lambda value: value is None or _is_pixels(value, MOST_IMGSZ), f"a size of 1 to {MOST_IMGSZ} pixels"),
    "needs_nms": (lambda value: isinstance(value, bool), "true or false"),
    "has_fixed_size": (lambda value: isinstance(value, bool), "true or false"),
    "architecture": (_is_of_keypoints, f"{', '.join(KEYPOINTS)} of keypoints"),
}

"""Every box a model sees, before suppression: one forward pass holds the answer to all thresholds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from .data.archives import read_image
from .exceptions import BadData
from .files.cores import count_cores
from .files.memory import keep_blocks
from .files.progress import progress_bar
from .geometry import clip_xyxy, compose, invert, map_boxes, map_points, mirror_affine
from .models.base import ONE_STAGE, Predictions, Resize
from .models.labels import LabelOf, check_labels
from .models.loaded import LoadedModel, is_gpu, threads
from .models.prepare import prepare
from .tables import BOX_COLUMNS, BOX_DTYPES, XYXY, first_box_id, list_points, make_boxes, make_keypoints

Keep = Callable[[pd.DataFrame], pd.DataFrame]  # the boxes of whole images to those of them that stay
KEPT_AT_ONCE = 250_000  # boxes that `Keep` gets, or a few more
GPU_BATCH, MOST_WORKERS = 16, 8
CONF_FLOOR, MAX_PER_IMAGE = 0.001, 30_000  # what is kept of an image: by confidence, and at most


@dataclass(frozen=True)
class Candidates:
    """`boxes` as a boxes table of source `model`; `n_cut` counts boxes that `max_per_image` cut, by image_id.

    `seconds` for all images, from reading the first to the last box, without loading the model. `keypoints` is the
    keypoints table of these boxes where the model finds points too.
    """

    boxes: pd.DataFrame
    n_cut: pd.Series
    seconds: float
    keypoints: pd.DataFrame | None = None


def find_candidates(
    model: LoadedModel,
    images: pd.DataFrame,
    labels: list[str],
    *,
    imgsz: int,
    flip: bool = False,
    conf_floor: float = CONF_FLOOR,
    max_per_image: int = MAX_PER_IMAGE,
    batch: int | None = None,
    keep: Keep | None = None,
    label_of: LabelOf | None = None,
    origin: str = "",
) -> Candidates:
    """Every box and class above `conf_floor` in every image of an images table, in pixels of the original image.

    `model` is of `models.forward.load_for_inference`, or of `wrap_model`. So many images of one size go through it at
    once as `batch` says: without it 16 on a GPU, and on a CPU one, whose data stay in its caches.

    A box whose two classes both pass the floor gives two rows. Boxes are clipped to the image; one that has no area
    left lay wholly outside and is dropped; `keep` says which boxes of some whole images stay, so that those of many
    images fit into memory. `labels` is the class order of the model, whose own names may be synonyms that `label_of`
    knows. With `flip` the model sees mirrored images; the boxes are those of the images as they are.

    `origin` goes into the numbers of the boxes (see `tables.ids`): candidates that are to be concatenated need one
    each. By default it is the weights' path, `imgsz` and `flip`. A box has the same number whatever `keep` drops.

    A model that finds objects and their keypoints at once gives the points of a box's class, clipped to the image. Of
    boxes that `keep` dropped there are none: with thousands of boxes an image it is needed for them.

    Raises ValueError if the model's classes are not `labels` in that order, see `labels.check_labels`, and BadData for
    a model that finds keypoints of objects in boxes: it knows of no box; and for a flip without mirror images.
    """
    if model.architecture.get("crop", ONE_STAGE) != ONE_STAGE:
        raise BadData(f"{model.path}: expected weights that find boxes, found {model.family}, which finds keypoints of "
                      "objects; use `livestock predict --weights`, or `livestock.poses.find_poses`")
    check_labels(model.labels, labels, model.path, label_of)
    if flip and "points" in model.architecture and not model.architecture["flips"]:
        raise BadData(f"{model.path}: flip: expected mirror images of its keypoints, found none: its skeleton has no "
                      "`flip`, so a mirrored object would have them on the wrong side")
    keep_blocks()
    look = _Look(imgsz, flip, conf_floor, max_per_image, len(labels), model.architecture.get("flips", ()))
    chunks = _same_size_chunks(images, batch or (GPU_BATCH if is_gpu(model.device) else 1))
    tables = _Tables(labels, origin or f"{model.path} {imgsz} {flip}", model.architecture, keep)
    n_cut = pd.Series(0, index=images["image_id"], name="n_cut")
    started = time.perf_counter()
    with progress_bar("candidates", unit="image", total=len(images)) as bar, closing(
            _see_ahead(model, chunks, look)) as ahead:
        for found in ahead:
            for boxes, n in found:
                n_cut[boxes.image_id] = n
                tables.add(boxes)
            tables.thin_out()
            bar.update(len(found))
        table, points = tables.finish()
    return Candidates(table, n_cut, time.perf_counter() - started, points)


class _Tables:
    """What is found, made a table of when so many boxes wait that `keep` should choose among them."""

    def __init__(self, labels: list[str], origin: str, architecture: Mapping[str, Any], keep: Keep | None) -> None:
        self.labels, self.origin, self.architecture, self.keep = labels, origin, architecture, keep
        self.waiting: list[_Boxes] = []
        self.n_waiting = 0  # boxes
        self.kept: list[pd.DataFrame] = []
        self.points: list[pd.DataFrame] = []  # of what is kept

    def add(self, boxes: _Boxes) -> None:
        self.waiting.append(boxes)
        self.n_waiting += len(boxes.confidence)

    def thin_out(self) -> None:
        """Makes a table of what waits if that is much and `keep` makes it less."""
        if self.keep and self.n_waiting >= KEPT_AT_ONCE:
            self._make()

    def finish(self) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """All boxes, sorted by image, and their keypoints where the model finds any."""
        self.waiting.sort(key=lambda boxes: boxes.image_id)
        self._make()
        table = self.kept[0]  # copies of millions of boxes would fill the memory
        if self.keep:
            table = pd.concat(self.kept).sort_values("image_id", kind="stable", ignore_index=True)
        return table, make_keypoints(pd.concat(self.points, ignore_index=True)) if self.points else None

    def _make(self) -> None:
        table = _to_table(self.waiting, self.labels, self.origin)
        self.kept.append(self.keep(table) if self.keep else table)
        if "points" in self.architecture:
            self.points.append(_to_points(self.waiting, self.kept[-1], table["box_id"], self.architecture, self.labels))
        self.waiting, self.n_waiting = [], 0


class _Look(NamedTuple):
    """How images are predicted and which boxes are kept; the options of `find_candidates`."""

    imgsz: int
    flip: bool
    conf_floor: float
    max_per_image: int
    n_labels: int
    flips: Sequence[int]


def _see_ahead(model: LoadedModel, chunks: list[pd.DataFrame], look: _Look
               ) -> Generator[list[tuple[_Boxes, int]], None, None]:
    """What `_see` returns of each chunk, in order, computed by workers that are a few chunks ahead.

    They share a CPU by the picture: of two threads at one picture each waits for the other in every layer. A model
    that is not parallel is run by one worker at a time, and the others read images meanwhile.
    """
    n_threads = model.n_threads or torch.get_num_threads()
    n_workers = min(model.n_threads or max(n_threads, 2), MOST_WORKERS)
    n_each = n_threads // n_workers or 1
    turn: Any = nullcontext()
    if not model.is_parallel:
        n_workers, n_each, turn = min(max(count_cores(), 2), MOST_WORKERS), n_threads, Lock()
    waiting: deque[Future] = deque()
    with threads(None), ThreadPoolExecutor(n_workers, initializer=torch.set_num_threads, initargs=(n_each,)) as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_see, model, chunk, look, turn))
                if len(waiting) > 2 * n_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # after an error the pool would compute them all before it says so
                future.cancel()


def _see(model: LoadedModel, chunk: pd.DataFrame, look: _Look, turn: Any) -> list[tuple[_Boxes, int]]:
    """Each image's boxes and how many were cut, of images of one size; the network runs when it is their `turn`."""
    pictures, matrix = _read_pictures(chunk, look.imgsz, model.stride, model.resize)
    with turn:  # a GPU holds one batch at a time
        tensor = to_tensor(pictures, model.device, torch.channels_last)
        found = _select_rows(model.compute(tensor.flip(3) if look.flip else tensor), look.conf_floor)
    back = invert(matrix)
    if look.flip:  # first the mirror image of the network's input, then back to the image
        back = compose(back, mirror_affine(tensor.shape[3]))
    return [_read_rows(rows, image, look, back) for rows, image in zip(found, chunk.itertuples(), strict=True)]


def _select_rows(found: Predictions, conf_floor: float) -> list[np.ndarray]:
    """Each image's rows `(n, 4 + C + 3 K)`, box, scores and points, of any score above the floor, on the CPU."""
    image, row = (found.scores.amax(dim=2) > conf_floor).nonzero(as_tuple=True)
    ends = torch.bincount(image, minlength=len(found.scores)).cumsum(0).cpu().numpy()
    points = [] if found.keypoints is None else [found.keypoints[image, row].flatten(1)]
    rows = torch.cat([found.boxes[image, row], found.scores[image, row], *points], dim=1)
    return np.split(rows.cpu().numpy(), ends[:-1])


def picture_batches(
    images: pd.DataFrame, imgsz: int, stride: int, batch: int, resize: Resize = "letterbox"
) -> Iterator[tuple[pd.DataFrame, list[np.ndarray]]]:
    """Images of one size go together, so that a batch needs no more padding than an image; see `models.prepare`."""
    for chunk in _same_size_chunks(images, batch):
        yield chunk, _read_pictures(chunk, imgsz, stride, resize)[0]


def _same_size_chunks(images: pd.DataFrame, batch: int) -> list[pd.DataFrame]:
    return [
        same_size.iloc[start : start + batch]
        for _, same_size in images.groupby(["width", "height"], sort=True)
        for start in range(0, len(same_size), batch)
    ]


def _read_pictures(
    chunk: pd.DataFrame, imgsz: int, stride: int, resize: Resize
) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures as the network takes them, of images of one size, and the map `(2, 3)` that all of them went through."""
    prepared = [prepare(read_image(archive, member), imgsz, stride, resize)
                for archive, member in zip(chunk["archive"], chunk["member"], strict=True)]
    return [picture for picture, _ in prepared], prepared[0][1]


def to_tensor(
    pictures: list[np.ndarray], device: str = "cpu", memory_format: torch.memory_format = torch.contiguous_format
) -> torch.Tensor:
    """Pictures `(H, W, 3)` of one size, RGB in 0..255, as float32 `(B, 3, H, W)` in 0..1.

    >>> to_tensor([np.full((2, 4, 3), 255, np.uint8)]).shape
    torch.Size([1, 3, 2, 4])
    """
    stacked = torch.from_numpy(np.stack(pictures))
    if is_gpu(device):
        stacked = stacked.pin_memory()  # this thread need not wait for the copy
    moved = stacked.to(device, non_blocking=True).permute(0, 3, 1, 2)
    return moved.to(torch.float32, memory_format=memory_format).div_(255)


class _Boxes(NamedTuple):
    """An image's boxes: `(N, 4)` xyxy pixels of the original image, `(N,)` class numbers and confidences.

    `place` is each box's among all that the model sees in the image, `(N,)`; `points` `(N, K, 3)` are its keypoints, x,
    y and confidence.
    """

    image_id: str
    corners: np.ndarray
    class_ids: np.ndarray
    confidence: np.ndarray
    place: np.ndarray
    points: np.ndarray

    def take(self, rows: Any) -> _Boxes:
        return _Boxes(self.image_id, *(values[rows] for values in self[1:]))


def _read_rows(rows: np.ndarray, image: Any, look: _Look, back: np.ndarray) -> tuple[_Boxes, int]:
    """One image's boxes from rows of `_select_rows`; how many were cut. `back` maps them to the image."""
    scores, points = rows[:, 4 : 4 + look.n_labels], rows[:, 4 + look.n_labels :]
    box_index, class_id = np.nonzero(scores > look.conf_floor)
    confidence = scores[box_index, class_id]
    order = np.argsort(-confidence, kind="stable")[: look.max_per_image]
    n_cut = len(confidence) - len(order)
    corners = clip_xyxy(map_boxes(rows[box_index[order], :4], back), image.width, image.height)
    has_area = (corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])
    own = points[box_index[order]].reshape(len(order), points.shape[1] // 3, 3)
    if own.size:
        own = own[:, list(look.flips)] if look.flip else own
        places = map_points(own[..., :2], back).clip(0, [image.width, image.height])
        own = np.concatenate([places, own[..., 2:]], axis=-1)
    return _Boxes(image.image_id, corners.astype(np.float32), class_id[order].astype(np.int16), confidence[order],
                  np.arange(len(order), dtype=np.int32), own.astype(np.float32)).take(has_area), n_cut


def _to_table(found: list[_Boxes], labels: list[str], origin: str) -> pd.DataFrame:
    """A boxes table, made at once: of millions of boxes, a table an image and copies of it would fill the memory."""
    if not found:
        return make_boxes([])
    n_boxes = [len(boxes.confidence) for boxes in found]
    corners = np.concatenate([boxes.corners for boxes in found])
    columns = dict(zip(XYXY, corners.T, strict=True))
    columns["box_id"] = np.concatenate([first_box_id(boxes.image_id, origin) + boxes.place.astype(np.int64)
                                        for boxes in found])
    columns["image_id"] = np.repeat(np.array([boxes.image_id for boxes in found], object), n_boxes)
    columns["label"] = np.array(labels, object)[np.concatenate([boxes.class_ids for boxes in found])]
    columns["confidence"] = np.concatenate([boxes.confidence for boxes in found])
    table = pd.DataFrame({**columns, "source": "model"}, columns=BOX_COLUMNS)
    return table.astype({name: dtype for name, dtype in BOX_DTYPES.items() if table[name].dtype != np.dtype(object)})


def _to_points(
    found: list[_Boxes], kept: pd.DataFrame, box_ids: pd.Series, architecture: Mapping[str, Any], labels: list[str]
) -> pd.DataFrame:
    """The keypoints of the boxes that were kept; `box_ids` are the numbers of all that were found, in their order."""
    row = pd.Series(np.arange(len(box_ids)), index=box_ids.to_numpy()).loc[kept["box_id"]].to_numpy()
    every = np.concatenate([boxes.points for boxes in found]) if found else np.zeros((0, 0, 3))
    return list_points(kept, every[row], architecture["points"], labels, architecture["owners"])

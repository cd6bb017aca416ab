"""Archives as AI Hub gives them, of as many small images as the original had, drawn for the benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import cv2
import numpy as np

N_COWS, N_PIGS, N_TEST, BOXES_AN_IMAGE = 12_152, 4_303, 2_100, 5.2  # the original's, but for the test images
SIZE = 192, 108
CAMERA_FRAMES = 40  # of one barn, one after the other, alike but for the animals and noise
KOREAN = {"cow": "소", "pig": "돼지"}


def draw_archives(directory: Path, n_images: int = N_COWS + N_PIGS, n_test: int = N_TEST, seed: int = 0) -> None:
    """Writes `train/` and `test/` in AI Hub's layout, three quarters cows; a folder that is there is kept."""
    if directory.exists():
        return
    rng = np.random.default_rng(seed)
    beside = directory.with_name(f"{directory.name}.part")
    for part, n_part in (("train", n_images), ("test", n_test)):
        folder = beside / part
        folder.mkdir(parents=True, exist_ok=True)
        n_cows = round(n_part * N_COWS / (N_COWS + N_PIGS))
        for label, n_own in (("cow", n_cows), ("pig", n_part - n_cows)):
            with ZipFile(folder / f"[원천]{KOREAN[label]}_bbox.zip", "w", ZIP_STORED) as pictures, ZipFile(
                    folder / f"[라벨]{KOREAN[label]}_bbox.zip", "w", ZIP_DEFLATED) as labels:
                for number in range(n_own):
                    if number % CAMERA_FRAMES == 0:
                        barn = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), SIZE)
                    name = f"livestock_{label}_bbox_{part}_{number:06d}"
                    boxes = draw_boxes(rng)
                    pictures.writestr(f"{name}.jpg", draw_picture(barn, boxes, rng))
                    if part == "train":
                        labels.writestr(f"{name}.json", write_label(boxes))
    beside.rename(directory)


def draw_boxes(rng: np.random.Generator) -> np.ndarray:
    """Some boxes, `(N, 4)` xyxy in whole pixels."""
    n = rng.poisson(BOXES_AN_IMAGE)
    size = np.column_stack([rng.integers(12, 50, n), rng.integers(10, 40, n)])
    start = (rng.random((n, 2)) * (np.array(SIZE) - size)).astype(int)
    return np.hstack([start, start + size])


def draw_picture(barn: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> bytes:
    """The barn with its animals as flat patches and a little noise, as JPEG."""
    picture = barn.copy()
    for x_min, y_min, x_max, y_max in boxes:
        picture[y_min:y_max, x_min:x_max] = rng.integers(0, 255, 3)
    noise = rng.integers(0, 12, picture.shape, np.uint8)
    return cv2.imencode(".jpg", cv2.add(picture, noise))[1].tobytes()


def write_label(boxes: np.ndarray) -> str:
    """AI Hub's JSON, with the keys that nobody needs too."""
    annotations = [{"id": number, "category_id": 1, "bbox": box, "keypoints": [], "segmentation": [], "iscrowd": 0}
                   for number, box in enumerate(boxes.tolist())]
    info = {"image": {"width": SIZE[0], "height": SIZE[1], "weather": "맑음", "camera": 3},
            "categories": [{"id": 1, "name": "서있기"}, {"id": 2, "name": "누워있기"}], "annotations": annotations}
    return json.dumps({"label_info": info}, ensure_ascii=False)


if __name__ == "__main__":
    draw_archives(Path(sys.argv[1]), *map(int, sys.argv[2:3]))

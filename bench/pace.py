"""Images a second from files to suppressed boxes: each family here against the library that its network comes from.

python bench/pace.py [--families retinanet ssd yolox dfine rfdetr] [--images 40] [--imgsz 320] [--device 0]

The library's way is what its documentation shows: read a picture, its own preparation, its network on it, its own
post-processing, one picture at a time. Both have the same network with the same random weights and see the same
pictures of the sample. A random network passes on thousands of boxes, so both keep those from a confidence that leaves
some hundred a picture. yolov5 is in `bench/stock.py`; nobody else has a TOOD that runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import print_line
from train import write_data

from livestock.inference import find_candidates
from livestock.models.base import ModelConfig
from livestock.models.checkpoint import write_checkpoint
from livestock.models.forward import load_for_inference
from livestock.models.registry import get_family
from livestock.postprocess import suppress
from livestock.training.batches import read_images

LABELS = ["pig", "cow"]
SIZES = {"retinanet": "resnet18", "ssd": "vgg16", "yolox": "yolox_s", "dfine": "dfine_s", "rfdetr": "rfdetr_n"}
Detect = Callable[[Path], Any]


def main() -> None:
    """A line a family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    images, _ = read_images(write_data(5 * arguments.images, arguments.imgsz), "val").to_tables()
    paths = [Path(archive, member) for archive, member in images[["archive", "member"]].itertuples(index=False)]
    for name in arguments.families:
        family = get_family(name)
        torch.manual_seed(0)
        config = family.configure(LABELS, arguments.imgsz, SIZES[name])
        model = family.build(config).eval().to(arguments.device if arguments.device == "cpu" else "cuda")
        weights = Path(images["archive"].iloc[0]).parent / f"pace_{name}.safetensors"
        write_checkpoint(weights, config, model.state_dict())
        loaded = load_for_inference(weights, arguments.device)
        floor = find_floor(loaded, images[:4], arguments.imgsz)
        stock = STOCK[name](model, config, floor)
        ours, theirs = [], []
        for number in range(3):  # in turn, the first to warm up
            started = time.perf_counter()
            found = find_candidates(loaded, images, LABELS, imgsz=arguments.imgsz, conf_floor=floor)
            suppress(found.boxes, iou_threshold=0.5 if family.needs_nms else 1.0, max_det=100)
            between = time.perf_counter()
            with torch.inference_mode():
                for path in paths:
                    stock(path)
            if number:
                ours.append(between - started)
                theirs.append(time.perf_counter() - between)
        print_line(f"pace-{name}", min(ours), min(theirs), ratio=1.0, more=f"; {len(images) / min(ours):.1f} and "
                   f"{len(images) / min(theirs):.1f} images/s, {SIZES[name]}, {arguments.imgsz} px, {arguments.device}")


def find_floor(loaded: Any, images: Any, imgsz: int) -> float:
    """The confidence that leaves a hundred boxes a picture."""
    boxes = find_candidates(loaded, images, LABELS, imgsz=imgsz, conf_floor=0.0).boxes
    return float(np.sort(boxes["confidence"])[-min(100 * len(images), len(boxes))])


def detect_by_torchvision(model: Any, config: ModelConfig, floor: float) -> Detect:
    """torchvision's detector of the same parts, whose size of input is ours."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.models.detection import RetinaNet, ssd

    side = config.imgsz
    if config.family == "retinanet":
        detector: Any = RetinaNet(model.backbone, len(config.labels), min_size=side, max_size=side, head=model.head,
                                  anchor_generator=model.anchor_generator, score_thresh=floor, detections_per_img=100)
    else:
        boxes = ssd.DefaultBoxGenerator([[2], [2, 3], [2, 3], [2, 3], [2], [2]], steps=None)
        detector = ssd.SSD(model.backbone, boxes, (side, side), len(config.labels) + 1, head=model.head,
                           score_thresh=floor, detections_per_img=100)
    detector.eval()
    device = next(model.parameters()).device
    return lambda path: detector([decode_image(str(path), ImageReadMode.RGB).to(device).float() / 255])


def detect_by_yolox(model: Any, config: ModelConfig, floor: float) -> Detect:
    """The package's preparation and post-processing around its own network."""
    import cv2
    from yolox.data.data_augment import ValTransform
    from yolox.utils import postprocess

    prepare, device = ValTransform(legacy=False), next(model.parameters()).device

    def detect(path: Path) -> Any:
        picture, _ = prepare(cv2.imread(str(path)), None, (config.imgsz, config.imgsz))
        return postprocess(model(torch.from_numpy(picture)[None].float().to(device)), len(config.labels), floor, 0.5)

    return detect


def detect_by_transformers(model: Any, config: ModelConfig, floor: float) -> Detect:
    """transformers' image processor, network and post-processing."""
    from PIL import Image
    from transformers import RTDetrImageProcessor

    processor: Any = RTDetrImageProcessor(size={"height": config.imgsz, "width": config.imgsz})
    device = next(model.parameters()).device

    def detect(path: Path) -> Any:
        picture = Image.open(path).convert("RGB")
        outputs = model(pixel_values=processor(images=picture, return_tensors="pt")["pixel_values"].to(device))
        return processor.post_process_object_detection(outputs, threshold=floor, target_sizes=[picture.size[::-1]])

    return detect


STOCK: dict[str, Callable[[Any, ModelConfig, float], Detect]] = {
    "retinanet": detect_by_torchvision, "ssd": detect_by_torchvision, "yolox": detect_by_yolox,
    "dfine": detect_by_transformers, "rfdetr": detect_by_transformers}

if __name__ == "__main__":
    main()

"""What a training needs on a GPU: memory and images a second of a family at some sizes, batches and precisions.

python bench/gpu.py dfine dfine_l 640:8,960:4                                   memory, steps a second
python bench/gpu.py yolov5 yolov5m6 1280:10,1280:16 --precisions fp16,bf16

Real steps of the loop (forward, loss, backward, clipped step, averaged weights) on random pictures that lie on the GPU
already, with eight boxes each: what the network costs, without what prepares images. `bench/train.py` has the whole.
Prints a line for each: GiB at the peak, images a second (median of the steps after the fifth).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from livestock.config import REPOSITORY
from livestock.config.profile import FAMILY_STARTS
from livestock.models.base import Batch
from livestock.models.registry import get_family
from livestock.training.ema import Average
from livestock.training.hyp import read_hyp
from livestock.training.loop import State, Steps, make_optimizer
from livestock.training.schedule import Schedule
from livestock.training.settings import Place, TrainConfig

N_STEPS, N_WARM, N_BOXES = 20, 5, 8


def main() -> None:
    """Measures each image size and batch in each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family")
    parser.add_argument("size")
    parser.add_argument("cases", help="imgsz:batch, with commas between")
    parser.add_argument("--precisions", default="fp16,bf16")
    parser.add_argument("--device", default="cuda:0")
    arguments = parser.parse_args()
    for case in arguments.cases.split(","):
        imgsz, batch = map(int, case.split(":"))
        for precision in arguments.precisions.split(","):
            try:
                measure(arguments.family, arguments.size, imgsz, batch, precision, arguments.device)
            except torch.OutOfMemoryError as error:
                print(f"gpu {arguments.size} {imgsz} px, batch {batch}, {precision}: {str(error)[:90]}", flush=True)
            torch.cuda.empty_cache()


def measure(family_name: str, size: str, imgsz: int, batch: int, precision: str, device: str) -> None:
    """Prints the line of one case; `compile` in the precision's name compiles the network."""
    family, start = get_family(family_name), FAMILY_STARTS[family_name]
    hyp = read_hyp(REPOSITORY / "hyp" / start["hyp"], family)
    config = TrainConfig("", "", "", imgsz, batch, 1, family=family_name, size=size, nominal_batch=batch,
                         optimizer=start["optimizer"], bf16="bf16" in precision)
    torch.manual_seed(0)
    model = family.build(family.configure(["pig", "cow"], imgsz, size)).to(device).train()
    model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(config, family, model, hyp)
    scaler = torch.amp.GradScaler("cuda", enabled=device.startswith("cuda") and not config.bf16)
    state = State(model, Average(model), optimizer, scaler)
    if "compile" in precision:
        model.compile(dynamic=False)
    schedule = Schedule("linear", 1, N_STEPS, 1.0, hyp)
    steps = Steps(state, schedule, family.make_loss(model, hyp), model, config, family, hyp, Place(device))
    low = torch.rand(batch, N_BOXES, 2) * imgsz * 0.7
    boxes = torch.cat([low, low + imgsz * (0.05 + 0.2 * torch.rand(batch, N_BOXES, 2))], dim=2)
    images = torch.randint(0, 255, (batch, 3, imgsz, imgsz), dtype=torch.uint8, device=device)
    given = Batch(images, list(boxes), list(torch.randint(0, 2, (batch, N_BOXES))))
    if device.startswith("cuda"):
        torch.backends.cudnn.benchmark = True
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for number in range(N_STEPS):
        started = time.perf_counter()
        schedule.set_rates(optimizer.param_groups, number)
        parts = steps.backward(given.to(torch.device(device)), number)
        steps.step()
        total = sum(float(part.detach()) for part in parts.values())  # waits for the GPU
        seconds.append(time.perf_counter() - started)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else float("nan")
    print(f"gpu {size} {imgsz} px, batch {batch}, {precision}: {memory:.1f} GiB, "
          f"{batch / statistics.median(seconds[N_WARM:]):.1f} images/s, loss {total:.3g}", flush=True)


if __name__ == "__main__":
    main()

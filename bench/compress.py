"""Pruning, low rank and distillation of a trained YOLOv5: megabytes, milliseconds and AP, on real images.

python bench/compress.py --data DIR --weights yolov5n.pt [--teacher yolov5m.safetensors] [--seeds 3]

One training a seed gives the network; each variant is trained on for a third of the epochs at .3 of the rate, as the
network itself is, to compare with. Fold 0 chooses the epoch, the test images judge, suppressed as `yolov5 val` does.

pruned: PyTorch's own `ln_structured` chooses the channels with the smallest norm, batch norm's scale included, in the
        layers whose outputs nobody else reads: inside bottlenecks, of the second branch of each C3, before the pooling.
        It writes zeros, which take the same bytes and time: here the channels are taken out of the network.
low rank: the five heaviest convolutions of more than one pixel become two each, 3 x 1 and 1 x 3, by a singular value
        decomposition of their weights (Jaderberg et al. 2014), with half of their numbers.
distilled: the loss has a further part, by how much the probabilities of each cell differ from the teacher's, weighted
        by the teacher's objectness (Mehta & Ozturk 2018). Without `--teacher`, which has to have the anchors and
        classes of the network, that is the network itself before it was changed.

`--pace` prints megabytes and milliseconds alone: PyTorch and ONNX Runtime on one thread, a picture at a time, median.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import in_new_process, make_pool
from real_lab import (
    AS_VALIDATED,
    MEASURES,
    METRIC_IOU,
    PLAIN,
    VALIDATED,
    Job,
    Lab,
    add_arguments,
    check_origin,
    configure,
    digest_file,
    keep_answers,
    look,
    make_judge,
    open_lab,
    read_answer,
    read_facts,
    result_path,
)
from torch import Tensor, nn
from torch.nn.utils import prune

from livestock.evaluation.gains import decide, find_gain
from livestock.models.checkpoint import read_checkpoint, write_checkpoint
from livestock.postprocess import suppress
from livestock.training import BEST, TrainConfig

Tensors = dict[str, Tensor]
N_HEAVIEST, SHARE_OF_NUMBERS = 5, 0.5
EPOCHS, RATE, WARMUP = 1 / 3, 0.3, 1.0  # of the trainings of variants: of the epochs, of the rate, in epochs
DISTILLED = 1.0  # weight of the loss's further part
BASE, BEFORE = "network", "before"
N_RUNS, N_WARM = 50, 5


def main() -> None:
    """Trains the networks, then their variants, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--teacher", type=Path, help="weights of the family yolov5 for these classes")
    parser.add_argument("--pace", action="store_true", help="megabytes and milliseconds alone")
    arguments = parser.parse_args()
    lab = open_lab(arguments)
    lab = replace(lab, root=lab.root / "compress")
    check_origin(lab.root, "teacher", digest_file(arguments.teacher) if arguments.teacher else "")
    seeds = range(arguments.seeds)
    if not arguments.report and not arguments.pace:
        for names in ([BASE], [name for name in VARIANTS if name != BASE]):
            train_all(lab, [(name, seed) for seed in seeds for name in names], arguments.teacher, arguments.at_once)
    if not arguments.pace:
        report(lab, seeds)
    if not arguments.report:
        print_pace(lab)


def train_all(lab: Lab, todo: Sequence[tuple[str, int]], teacher: Path | None, n_at_once: int) -> None:
    """Trains what has no result yet, so many side by side."""
    todo = [(name, seed) for name, seed in todo if not result_path(lab, Job(name), seed).exists()]
    with make_pool(n_at_once) as pool:
        for (name, seed), done in [(one, pool.submit(train_one, lab, *one, teacher)) for one in todo]:
            print(f"# {name}, seed {seed}: {json.dumps(done.result())}", flush=True)


def train_one(lab: Lab, name: str, seed: int, teacher: Path | None) -> dict[str, Any]:
    """One variant in a process of its own, which builds networks of its shapes; keeps its weights and answers."""
    return in_new_process(_train_variant, lab, name, seed, teacher)


def _train_variant(lab: Lab, name: str, seed: int, teacher: Path | None) -> dict[str, Any]:
    from livestock.training import loop

    started, job = time.perf_counter(), Job(name)
    variant, kept = VARIANTS[name], weights_path(lab, name, seed)
    kept.parent.mkdir(parents=True, exist_ok=True)
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        config = configure(lab, job, seed, Path(folder))
        if name != BASE:
            base = read_checkpoint(weights_path(lab, BASE, seed))
            start = Path(folder) / "start.safetensors"
            tensors = variant.change(base.tensors)
            write_checkpoint(start, base.config, tensors, base.header, half=True)
            config = _shorten(config, start)
            if variant.is_distilled:
                add_teacher(teacher or weights_path(lab, BASE, seed), config)
            build_in_shapes(tensors)
            answers[BEFORE] = suppress(look(lab, start, lab.test_images, PLAIN, config.imgsz), **VALIDATED)
        loop.run_training(config, Path(folder) / "run", lambda event: None, None)
        shutil.move(Path(folder) / "run/weights" / BEST, kept)
    answers[AS_VALIDATED] = suppress(look(lab, kept, lab.test_images, PLAIN, config.imgsz), **VALIDATED)
    facts = {"megabytes": round(kept.stat().st_size / 1e6, 2), "seconds": round(time.perf_counter() - started)}
    keep_answers(result_path(lab, job, seed), answers, facts)
    return facts


def weights_path(lab: Lab, name: str, seed: int) -> Path:
    """Where the best epoch of a variant is kept."""
    return lab.root / "weights" / f"{name.replace(' ', '_')}_{seed}.safetensors"


def _shorten(config: TrainConfig, start: Path) -> TrainConfig:
    """The training of a variant: shorter, and at a lower rate."""
    import yaml

    path = Path(config.hyp)
    hyp = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**hyp, "lr0": RATE * hyp["lr0"], "warmup_epochs": WARMUP}), encoding="utf-8")
    return replace(config, weights=str(start), epochs=max(round(config.epochs * EPOCHS), 2))


@dataclass(frozen=True)
class Variant:
    """How the tensors of a trained network are changed, and whether it then learns from a teacher too."""

    change: Callable[[Mapping[str, Tensor]], Tensors] = dict
    is_distilled: bool = False


def _in_float(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def prune_channels(tensors: Mapping[str, Tensor], share: float) -> Tensors:
    """The tensors without this share of the channels that one layer alone reads, those with the smallest norm."""
    found = _in_float(tensors)
    for writer, reader, n_times, first in _find_private(found):
        weight, scale = found[f"{writer}.conv.weight"], found[f"{writer}.bn.weight"]
        scale = scale / (found[f"{writer}.bn.running_var"] + 1e-3).sqrt()
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=False)
        layer.weight.data = weight.clone()
        importance = weight * scale[:, None, None, None]
        prune.ln_structured(layer, "weight", amount=share, n=2, dim=0, importance_scores=importance)
        stays = layer.weight_mask.flatten(1).any(1)
        found[f"{writer}.conv.weight"] = weight[stays]
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{writer}.bn.{part}"] = found[f"{writer}.bn.{part}"][stays]
        read = found[f"{reader}.conv.weight"]
        of_reader = torch.cat([torch.ones(first, dtype=torch.bool), stays.repeat(n_times)])
        found[f"{reader}.conv.weight"] = read[:, of_reader]
    return found


def _find_private(tensors: Mapping[str, Tensor]) -> list[tuple[str, str, int, int]]:
    """Layers whose channels one other reads: the writer, the reader, how often it has them, and from which input on."""
    pairs = []
    for name in sorted(tensors):
        path, _, rest = name.rpartition(".cv1.conv.weight")
        if rest or not path:
            continue
        if f"{path}.cv3.conv.weight" in tensors:  # a C3: its second branch is the second half of what cv3 reads
            n_second = len(tensors[f"{path}.cv2.conv.weight"])
            pairs.append((f"{path}.cv2", f"{path}.cv3", 1, tensors[f"{path}.cv3.conv.weight"].shape[1] - n_second))
        else:  # a bottleneck, or the pooling, which hands on four times what it is given
            n_written, n_read = len(tensors[name]), tensors[f"{path}.cv2.conv.weight"].shape[1]
            pairs.append((f"{path}.cv1", f"{path}.cv2", n_read // n_written, 0))
    return pairs


def lower_rank(tensors: Mapping[str, Tensor], n_heaviest: int, share: float) -> Tensors:
    """The tensors with the heaviest square convolutions split into a column and a row of so many numbers together."""
    found = _in_float(tensors)
    square = sorted((name for name, tensor in found.items() if tensor.ndim == 4 and tensor.shape[-1] > 1
                     and name.endswith(".conv.weight")), key=lambda name: -found[name].numel())
    for name in square[:n_heaviest]:
        path, weight = name.removesuffix(".conv.weight"), found.pop(name)
        n_out, n_in, height, width = weight.shape
        left, values, right = torch.linalg.svd(
            weight.permute(1, 2, 0, 3).reshape(n_in * height, n_out * width), full_matrices=False)
        rank = min(int(share * weight.numel() / (n_in * height + n_out * width)), len(values))
        root = values[:rank].sqrt()
        column = (left[:, :rank] * root).T.reshape(rank, n_in, height, 1)
        row = (root[:, None] * right[:rank]).reshape(rank, n_out, 1, width).transpose(0, 1)
        norm = {part: found.pop(part) for part in list(found) if part.startswith(f"{path}.bn.")}
        found |= {f"{path}.0.weight": column.contiguous(), f"{path}.1.conv.weight": row.contiguous()}
        found |= {part.replace(f"{path}.bn.", f"{path}.1.bn."): tensor for part, tensor in norm.items()}
    return found


VARIANTS = {
    BASE: Variant(),
    "trained on": Variant(),
    "trained on, distilled": Variant(is_distilled=True),
    "pruned 25 %": Variant(lambda tensors: prune_channels(tensors, 0.25)),
    "pruned 50 %": Variant(lambda tensors: prune_channels(tensors, 0.5)),
    "pruned 50 %, distilled": Variant(lambda tensors: prune_channels(tensors, 0.5), is_distilled=True),
    "low rank": Variant(lambda tensors: lower_rank(tensors, N_HEAVIEST, SHARE_OF_NUMBERS)),
}


def build_in_shapes(tensors: Mapping[str, Tensor]) -> None:
    """From now on this process builds networks of the family yolov5 in the shapes of these tensors."""
    from livestock.models.yolov5.family import YoloV5

    build = YoloV5.build
    shapes = {name: tensor.shape for name, tensor in tensors.items()}

    def build_changed(self: Any, config: Any) -> nn.Module:
        """The family's own, changed."""
        model = build(self, config)
        with torch.random.fork_rng(devices=[]):
            _take_shapes(model, shapes)
        return model

    YoloV5.build = build_changed  # type: ignore[method-assign]


def _take_shapes(model: nn.Module, shapes: Mapping[str, torch.Size]) -> None:
    for name, module in list(model.named_modules()):
        if f"{name}.0.weight" in shapes and f"{name}.1.conv.weight" in shapes and hasattr(module, "bn"):
            own: Any = module
            column, row = shapes[f"{name}.0.weight"], shapes[f"{name}.1.conv.weight"]
            (down, right), (top, left) = own.conv.stride, own.conv.padding
            first = nn.Conv2d(column[1], column[0], (column[2], 1), (down, 1), (top, 0), bias=False)
            own.conv = nn.Conv2d(row[1], row[0], (1, row[3]), (1, right), (0, left), bias=False)
            pair = nn.Sequential(first, own)
            for key in ("f", "i", "type", "np"):  # by which the network knows what its layers read
                if hasattr(own, key):
                    setattr(pair, key, getattr(own, key))
            model.set_submodule(name, pair)
    for name, module in list(model.named_modules()):
        shape = shapes.get(f"{name}.weight")
        if isinstance(module, nn.Conv2d) and shape is not None and shape[:2] != module.weight.shape[:2] and (
                name.endswith(".conv")):
            model.set_submodule(name, nn.Conv2d(
                shape[1], shape[0], module.kernel_size, module.stride, module.padding, bias=False))  # type: ignore[arg-type]
        elif isinstance(module, nn.BatchNorm2d) and shape is not None and shape[0] != module.num_features:
            model.set_submodule(name, nn.BatchNorm2d(shape[0], eps=module.eps, momentum=module.momentum))


def add_teacher(path: Path, config: TrainConfig) -> None:
    """From now on losses in this process have a further part: what the teacher of these weights says of each cell."""
    from livestock.models.checkpoint import load_model
    from livestock.models.yolov5.family import YoloV5
    from livestock.training.settings import find_place

    told, teacher = load_model(path, find_place(config.device).device)
    head: Any = teacher.model[-1]  # type: ignore[index]
    head.training = True  # so that it gives logits; all else stays in evaluation mode
    make_loss = YoloV5.make_loss

    def make(self: Any, model: nn.Module, hyp: Mapping[str, float]) -> Any:
        """The family's own loss, and the further part."""
        own, student = make_loss(self, model, hyp), model.model[-1]  # type: ignore[index]
        if tuple(model.names.values()) != told.labels or not torch.allclose(  # type: ignore[union-attr, operator]
                head.anchors.cpu(), student.anchors.cpu()):
            raise SystemExit(f"{path}: expected a teacher with the classes and anchors of the network")

        def loss(called: nn.Module, batch: Any) -> dict[str, Tensor]:
            """As the family's; while it validates the network, as it was."""
            if not called.training:
                return own(called, batch)
            seen: list[Sequence[Tensor]] = []

            def spy(images: Tensor) -> Sequence[Tensor]:
                """The network, whose outputs are kept."""
                seen.append(called(images))
                return seen[-1]

            parts = own(spy, batch)
            with torch.no_grad():
                levels = teacher(batch.images)
            return {**parts, "teacher": DISTILLED * distil(seen[0], levels)}

        return loss

    YoloV5.make_loss = make  # type: ignore[method-assign]


def distil(levels: Sequence[Tensor], of_teacher: Sequence[Tensor]) -> Tensor:
    """How far raw outputs `(B, anchors, rows, columns, 5 + C)` are from a teacher's, a mean over the cells of a level.

    Objectness counts in every cell; box and classes as much as the teacher sees an object there.
    """
    parts = []
    for own, told in zip(levels, of_teacher, strict=True):
        found, right = own.float().sigmoid(), told.float().sigmoid()
        squares = (found - right) ** 2
        weight = right[..., 4]
        there = weight.sum().clamp(min=1e-6)
        parts.append(squares[..., 4].mean() + (squares[..., :4].sum(-1) * weight).sum() / there
                     + (squares[..., 5:].sum(-1) * weight).sum() / there)
    return torch.stack(parts).sum()


def report(lab: Lab, seeds: Sequence[int]) -> None:
    """Prints scores before and after training on, and gains over the network that was trained on unchanged."""
    seeds = [seed for seed in seeds if all(result_path(lab, Job(name), seed).exists() for name in VARIANTS)]
    if not seeds:
        raise SystemExit(f"{lab.root}: no seed with all of {len(VARIANTS)} variants yet")
    judge, profile = make_judge(lab), lab.run.profile
    n_more = max(round(profile.epochs * EPOCHS), 2)
    print(f"{profile.imgsz} px, {profile.epochs} epochs and {n_more} more, seeds {seeds}; {len(lab.test_images)} test "
          "images")
    judged = {}
    for name in VARIANTS:
        judged[name] = [judge(read_answer(lab, Job(name), seed, AS_VALIDATED)) for seed in seeds]
        words = ", ".join(f"{measure} {np.mean([one.scores[measure] for one in judged[name]]):.3f}"
                          for measure in MEASURES)
        if name != BASE:
            before = [judge(read_answer(lab, Job(name), seed, BEFORE)).scores["AP75"] for seed in seeds]
            words += f"; AP75 before {np.mean(before):.3f}"
        print(f"{name:25}{words}; {read_facts(lab, Job(name), seeds[0])['megabytes']} MB")
    pairs = [(name, "trained on") for name in VARIANTS if name not in (BASE, "trained on")]
    for first, second in [*pairs, ("pruned 50 %, distilled", "pruned 50 %")]:
        gains = {measure: find_gain(judged[first], judged[second], measure) for measure in MEASURES}
        print(f"{first} over {second}: " + "; ".join(f"{measure} {gain}" for measure, gain in gains.items())
              + f"; at {METRIC_IOU:g} {decide([gains['AP75']])}")


def print_pace(lab: Lab) -> None:
    """Megabytes and milliseconds of each variant whose weights are there."""
    for name in VARIANTS:
        if (path := weights_path(lab, name, 0)).exists():
            megabytes, torch_ms, onnx_ms = in_new_process(_time_variant, path, lab.run.profile.imgsz)
            print(f"{name:25}{megabytes:.2f} MB, PyTorch {torch_ms:.1f} ms, ONNX {onnx_ms:.1f} ms")


def _time_variant(path: Path, imgsz: int) -> tuple[float, float, float]:
    from livestock.export.convert import export_onnx
    from livestock.models.forward import load_for_inference

    build_in_shapes(read_checkpoint(path).tensors)
    picture, seconds = torch.rand(1, 3, imgsz, imgsz, generator=torch.Generator().manual_seed(0)), []
    with tempfile.TemporaryDirectory() as folder:
        onnx = export_onnx(path, Path(folder) / "weights.onnx")
        for model in (load_for_inference(path, "cpu", n_threads=1), load_for_inference(onnx, "cpu", n_threads=1)):
            runs = []
            for _ in range(N_WARM + N_RUNS):
                started = time.perf_counter()
                model(picture)
                runs.append(time.perf_counter() - started)
            seconds.append(1000 * float(np.median(runs[N_WARM:])))
    return path.stat().st_size / 1e6, seconds[0], seconds[1]


if __name__ == "__main__":
    main()

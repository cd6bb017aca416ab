"""A `.pt` from anyone: refused by name before anything of it runs or takes memory, or read without running it."""

from __future__ import annotations

import builtins
import copy
import functools
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.geometry import invert, map_boxes, pairwise_iou
from livestock.models.checkpoint import load_model, read_checkpoint
from livestock.models.inert import unpickle
from livestock.models.prepare import prepare
from livestock.models.wrong_file import LEGACY
from livestock.models.yolov5 import library
from livestock.models.yolov5.family import YoloV5

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.bad_input]
MOST_BYTES = 200_000_000


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """Fails a test that takes more than `MOST_BYTES`, where the system tells how much that was."""
    if not Path("/proc/self/clear_refs").exists():
        yield
        return
    whole()  # yolov5 itself is loaded before
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < MOST_BYTES


def memory(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


class Does:
    """What pickles as a call, or as a class, arguments and a state."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return self.reduced


def module(name: str) -> Any:
    """A module of yolov5."""
    library.load()
    return sys.modules[f"yolov5.models.{name}"]


def architecture_of(n_classes: int = 2) -> dict[str, Any]:
    """The dictionary of yolov5n."""
    return {**library.read_architecture("yolov5n"), "nc": n_classes, "ch": 3}


@functools.cache
def whole() -> bytes:
    """A file of yolov5n with random weights, as yolov5 writes it: in half precision, without gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = library.load().detection_model(architecture_of()).half().eval()
    model.names = {0: "pig", 1: "cow"}
    for parameter in model.parameters():
        parameter.requires_grad = False
    for name, tensor in model.named_buffers():
        if "running" in name:  # or all layers would have the same numbers
            tensor.add_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(len(name))).to(tensor.dtype))
    buffer = io.BytesIO()
    torch.save({"model": model, "epoch": -1}, buffer)
    return buffer.getvalue()


def load_whole() -> dict[str, Any]:
    """The same as torch loads it; it is this test's own."""
    return torch.load(io.BytesIO(whole()), weights_only=False)


def changed(change: Callable[[Any], object]) -> dict[str, Any]:
    """The checkpoint after `change` of its model."""
    checkpoint = load_whole()
    change(checkpoint["model"])
    return checkpoint


def save(content: Any, tmp_path: Path) -> Path:
    """A file of `torch.save`."""
    torch.save(content, tmp_path / "evil.pt")
    return tmp_path / "evil.pt"


def save_pickle(content: bytes, path: Path, records: dict[str, bytes] | None = None, **options: Any) -> Path:
    """A file as torch writes them, around any pickle."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3\n")
        for name, record in (records or {}).items():
            archive.writestr(f"archive/{name}", record)
    return path


@functools.cache
def parts() -> tuple[bytes, dict[str, bytes]]:
    """The pickle of a whole file, and its other records."""
    with zipfile.ZipFile(io.BytesIO(whole())) as archive:
        records = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    return records.pop("data.pkl"), {name: record for name, record in records.items() if name.startswith("data/")}


def evil_architecture(trace: Path) -> dict[str, Any]:
    """yolov5 makes a module of each name by `eval`."""
    architecture = architecture_of()
    architecture["backbone"][0][2] = f"[__import__('pathlib').Path({str(trace)!r}).touch(), Conv][1]"
    return architecture


def evil_model() -> Any:
    return module("yolo").DetectionModel


def raw(instructions: bytes) -> bytes:
    """A pickle of these instructions."""
    return b"\x80\x02" + instructions + b"."


def text(value: str) -> bytes:
    """The instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# -- what is read ----------------------------------------------------------------------------------------------------


def assert_equal_to_torch(path: Path, key: str = "model") -> None:
    """Tensors, names and architecture are those of `torch.load`, bit by bit."""
    expected, found = torch.load(path, weights_only=False)[key], read_checkpoint(path)
    state = expected.state_dict()
    assert found.tensors.keys() == state.keys()
    for name, tensor in state.items():
        assert found.tensors[name].dtype == tensor.dtype, name
        assert torch.equal(found.tensors[name], tensor), name
    assert found.config.architecture == expected.yaml
    assert list(found.config.labels) == list(expected.names.values())


def test_a_checkpoint_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(whole())
    assert_equal_to_torch(path)
    found = read_checkpoint(path)
    assert (found.config.family, found.config.imgsz, found.config.stride, found.header) == ("yolov5", 640, 32, {})
    assert len({tensor.data_ptr() for tensor in found.tensors.values()}) == len(found.tensors)


def test_the_official_names_of_classes_are_known(tmp_path: Path) -> None:
    """The official weights were pickled in yolov5's repository, and its model's class had another name."""
    content, records = parts()
    content = content.replace(b"cyolov5.models.yolo\nDetectionModel\n", b"cmodels.yolo\nModel\n")
    content = content.replace(b"cyolov5.models.", b"cmodels.")
    assert b"cyolov5" not in content
    path = save_pickle(content, tmp_path / "official.pt", records)
    (tmp_path / "own.pt").write_bytes(whole())
    official, own = read_checkpoint(path), read_checkpoint(tmp_path / "own.pt")
    assert official.config == own.config
    assert all(torch.equal(official.tensors[name], tensor) for name, tensor in own.tensors.items())


def test_a_published_checkpoint_finds_a_real_cow(real_data: Path) -> None:
    """The official yolov5n of release 7.0, on a photograph of COCO whose cows are known."""
    config, model = load_model(real_data / "weights/yolov5n.pt")
    assert len(config.labels) == 80 and config.labels[19] == "cow"
    known = json.loads((real_data / "coco_cows/instances.json").read_text())
    image = known["images"][1]
    cows = np.array([one["bbox"] for one in known["annotations"] if one["image_id"] == image["id"]])
    cows[:, 2:] += cows[:, :2]
    pixels = cv2.imread(str(real_data / "coco_cows/images" / image["file_name"]), cv2.IMREAD_COLOR_RGB)
    prepared, matrix = prepare(pixels, 640, config.stride, "letterbox")
    with torch.inference_mode():
        found = YoloV5().predict(model, torch.from_numpy(prepared).permute(2, 0, 1)[None] / 255)
    scores = found.scores[0].numpy()
    best, class_id = np.unravel_index(scores.argmax(), scores.shape)
    assert class_id == 19 and scores[best, class_id] > 0.5
    assert pairwise_iou(map_boxes(found.boxes[0, best : best + 1].numpy(), invert(matrix)), cows).max() > 0.9


def test_the_network_of_a_checkpoint_gives_what_the_files_own_does(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(whole())
    config, model = load_model(path)
    picture = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model(picture)[0], load_whole()["model"].float()(picture)[0])
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert config.labels == ("pig", "cow")


def test_nothing_of_yolov5_is_imported_to_read_a_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(whole())
    program = ("import sys, pathlib\nfrom livestock.models.checkpoint import read_checkpoint\n"
               "print(len(read_checkpoint(pathlib.Path(sys.argv[1])).tensors))\n"
               "print([name for name in sys.modules if name.split('.')[0] in ('yolov5', 'models')])")
    found = subprocess.run([sys.executable, "-c", program, str(path)],  # noqa: S603 - this test's own program
                           capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == ["349", "[]"]


def test_any_layout_in_memory_is_read(tmp_path: Path) -> None:
    """Parameters that are views: transposed, channels last, a part of a longer row."""
    def change(model: Any) -> None:
        convolution, norm = model.model[3].conv, model.model[3].bn
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
        model.model[5].conv.weight.data = torch.randn(3, 3, 64, 128).permute(3, 2, 0, 1)
        norm.running_mean, norm.running_var = torch.arange(200.0).half()[7:135].view(2, 64)

    path = save(changed(change), tmp_path)
    assert_equal_to_torch(path)
    assert read_checkpoint(path).tensors["model.3.bn.running_mean"].tolist() == [float(n) for n in range(7, 71)]
    assert all(tensor.is_contiguous() for tensor in read_checkpoint(path).tensors.values())


def test_the_average_is_taken_where_there_is_one(tmp_path: Path) -> None:
    average = load_whole()["model"].float()
    with torch.no_grad():
        average.model[-1].m[0].bias.fill_(0.25)
    path = save({**load_whole(), "ema": average, "epoch": 7}, tmp_path)
    assert_equal_to_torch(path, "ema")
    assert set(read_checkpoint(path).tensors["model.24.m.0.bias"].tolist()) == {0.25}
    assert read_checkpoint(path).header == {"epoch": 7}
    assert_equal_to_torch(save({"model": None, "ema": average}, tmp_path), "ema")


@pytest.mark.parametrize(("options", "imgsz"), [({"imgsz": 320}, 320), ({"imgsz": 330}, 352), ({"imgsz": [640]}, 640),
                                                ({"imgsz": -5}, 640), ({"imgsz": 10**12}, 640), ("text", 640)])
def test_the_size_of_training_is_taken_from_plain_options(options: Any, imgsz: int, tmp_path: Path) -> None:
    assert read_checkpoint(save({**load_whole(), "opt": options}, tmp_path)).config.imgsz == imgsz


def test_a_checkpoint_to_resume_from_passes(tmp_path: Path) -> None:
    """As yolov5 writes it: model, average and the optimizer's state."""
    model = load_whole()["model"].float()
    for parameter in model.parameters():
        parameter.requires_grad, parameter.grad = True, torch.ones_like(parameter)
    for optimizer in (torch.optim.SGD(model.parameters(), momentum=0.9), torch.optim.AdamW(model.parameters())):
        optimizer.step()
        content = {"epoch": 3, "model": model, "ema": model, "updates": 5, "optimizer": optimizer.state_dict(),
                   "opt": {"imgsz": 64, "save_dir": "a"}, "git": {"remote": None}, "date": "today",
                   "best_fitness": np.float64(0.5), "array": np.arange(6, dtype=np.float32).reshape(2, 3)}
        assert_equal_to_torch(save(content, tmp_path))
        assert read_checkpoint(tmp_path / "evil.pt").config.imgsz == 64


def test_what_older_versions_wrote_is_passed_over(tmp_path: Path) -> None:
    """A buffer that follows from the anchors, names in a list, an unknown entry that is empty, no strides."""
    def change(model: Any) -> None:
        del model.model[-1].anchor_grid
        model.model[-1].register_buffer("anchor_grid", torch.ones(3, 1, 3, 1, 1, 2))
        model.names = ["pig", "cow"]
        model.yaml["comment"] = ""
        del model.stride

    found = read_checkpoint(save(changed(change), tmp_path))
    assert "model.24.anchor_grid" not in found.tensors
    assert (found.config.labels, found.config.stride) == (("pig", "cow"), 32)
    assert dict(found.config.architecture) == architecture_of()
    load_model(found)


def test_four_detection_layers_have_steps_of_64(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        model = library.load().detection_model({**library.read_architecture("yolov5n6"), "nc": 1, "ch": 3}).half()
    model.names = ["pig"]
    assert read_checkpoint(save({"model": model}, tmp_path)).config.stride == 64
    del model.stride
    found = read_checkpoint(save({"model": model}, tmp_path))
    assert (found.config.stride, found.config.imgsz) == (64, 640)
    load_model(found)


# -- what would run --------------------------------------------------------------------------------------------------


def test_the_attack_is_real(tmp_path: Path) -> None:
    """What `torch.load` lets through even with `weights_only=True`, if yolov5's classes are allowed."""
    path = save(Does(evil_model(), evil_architecture(tmp_path / "it ran")), tmp_path)
    with torch.serialization.safe_globals([evil_model()]):
        torch.load(path, weights_only=True)
    assert (tmp_path / "it ran").exists()


CONV = b"cyolov5.models.common\nConv\n)\x81"
SILU = b"ctorch.nn.modules.activation\nSiLU\n)\x81"
ATTACKS: dict[str, Callable[[Path], Any]] = {
    r"it would run or load (posix|nt)\.system": lambda trace: Does(os.system, f"touch '{trace}'"),
    r"it would run or load (__builtin__|builtins)\.eval": lambda trace: Does(eval, f"open({str(trace)!r}, 'w')"),
    r"it would run or load (__builtin__|builtins)\.exec": lambda trace: Does(exec, f"open({str(trace)!r}, 'w')"),
    r"it would run or load (__builtin__|builtins)\.getattr, _?io\.open":
        lambda trace: [Does(getattr, "", "format"), Does(builtins.open, str(trace), "w")],
    r"it would run or load .*functools\.partial": lambda trace: {Does(functools.partial, print): 1},
    r"it would run or load torch\.Tensor, torch\._tensor\._rebuild_from_type_v2":
        lambda trace: Does(torch._tensor._rebuild_from_type_v2, evil_model(), torch.Tensor, (str(trace),), {}),
    r"it would run or load torch\._utils\._rebuild_wrapper_subclass":
        lambda trace: Does(torch._utils._rebuild_wrapper_subclass, torch.nn.Conv2d, torch.float32, (1,), (1,), 0, None,
                           "cpu", False),
    r"it would run or load yolov5\.models\.yolo\.parse_model":
        lambda trace: Does(module("yolo").parse_model, evil_architecture(trace), [3]),
    r"it would run or load yolov5\.models\.yolo\.sys": lambda trace: raw(b"cyolov5.models.yolo\nsys\n"),
    r"it would run or load models\.yolo\.Path": lambda trace: raw(b"cmodels.yolo\nPath\n"),
    r"it would make a DetectionModel from arguments": lambda trace: Does(evil_model(), evil_architecture(trace)),
    r"it would call DetectionModel": lambda trace: Does(evil_model()),
    r"it would make a Conv2d from arguments": lambda trace: Does(torch.nn.Conv2d, 10**6, 10**6, 9),
    r"it would make a Conv from arguments": lambda trace: raw(b"cyolov5.models.common\nConv\nK\x01K\x02\x86\x81"),
    r"it would load DetectionModel as a value": lambda trace: {"model": evil_model()},
    r"it would load torch\._utils\._rebuild_parameter as a value":
        lambda trace: changed(lambda model: setattr(model, "hyp", [torch._utils._rebuild_parameter])),
    r"Conv: it would put its own 'forward' in place":
        lambda trace: changed(lambda model: vars(model.model[0]).__setitem__("forward", torch.nn.SiLU())),
    r"Conv: it would put its own '_compiled_call_impl' in place":
        lambda trace: raw(CONV + b"}" + text("_compiled_call_impl") + SILU + b"sb"),
    r"Conv: it would put its own '_forward_hooks' in place":
        lambda trace: changed(lambda model: model.model[0]._forward_hooks.update({1: torch.nn.SiLU()})),
    r"a tensor has hooks": lambda trace: Does(torch._utils._rebuild_parameter, torch.zeros(1), False,
                                              OrderedDict({1: torch.nn.SiLU()})),
    r"it would call torch\._utils\._rebuild_parameter with other arguments":
        lambda trace: Does(torch._utils._rebuild_parameter, "no tensor", False, OrderedDict()),
    r"it would call collections\.OrderedDict with other arguments": lambda trace: Does(OrderedDict, 5),
    r"it would call numpy\.ndarray": lambda trace: Does(np.ndarray, (10**6, 10**6)),
    r"its pickle is broken: other values than torch\.save writes":
        lambda trace: Does(OrderedDict, state={"items": "mine"}),
    r"it would change a tensor": lambda trace: Does(torch._utils._rebuild_parameter, torch.zeros(1), False,
                                                    OrderedDict(), state=(1, 2)),
    r"it would change torch\._utils\._rebuild_parameter":
        lambda trace: raw(b"ctorch._utils\n_rebuild_parameter\n}" + text("call") + b"K\x01sb"),
    r"its pickle is broken": lambda trace: raw(b"ctorch.nn.modules.activation\nSiLU\n}" + text("state") + b"K\x01sb"),
    r"SiLU: expected one dictionary of attributes":
        lambda trace: raw(SILU + b"N}" + text("__class__") + b"K\x01s\x86b"),
    r"SiLU: expected one dictionary": lambda trace: raw(SILU + b"}b}b"),  # torch would add the second to the first
}


@pytest.mark.parametrize("message", ATTACKS, ids=range(len(ATTACKS)))
@pytest.mark.parametrize("nested", [False, True])
def test_what_would_run_is_refused_by_name(message: str, nested: bool, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    content = ATTACKS[message](trace)
    if isinstance(content, bytes):
        path = save_pickle(content, tmp_path / "evil.pt")
    else:
        path = save({**load_whole(), "opt": [{"deep": content}]}
                    if nested and not isinstance(content, dict) else content, tmp_path)
    with pytest.raises(ValueError, match=rf"evil\.pt: refused, {message}"):
        read_checkpoint(path)
    assert not trace.exists()


def test_code_in_an_architecture_is_refused_before_it_is_built(tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    path = save(changed(lambda model: setattr(model, "yaml", evil_architecture(trace))), tmp_path)
    with pytest.raises(ValueError, match=r"evil\.pt: model\.0: expected \[__import__.*, found Conv"):
        read_checkpoint(path)
    architecture = {**architecture_of(), "activation": f"open({str(trace)!r}, 'w')"}
    path = save(changed(lambda model: setattr(model, "yaml", architecture)), tmp_path)
    with pytest.raises(ValueError, match=r"evil\.pt: .*architecture: keys: refused"):
        load_model(path)
    assert not trace.exists()


def test_hooks_filled_after_their_use_are_found(tmp_path: Path) -> None:
    hooks = b"ccollections\nOrderedDict\n)Rq\x02"
    model = SILU + b"}" + text("_forward_hooks") + hooks + b"sb"
    path = save_pickle(raw(model + b"h\x02" + text("1") + text("call me") + b"s\x86"), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: refused, SiLU: it would put its own '_forward_hooks' in place"):
        read_checkpoint(path)


# -- memory ----------------------------------------------------------------------------------------------------------


def storage(n_numbers: int, kind: str = "Float", key: str = "0") -> bytes:
    """The instructions that push a storage of the file."""
    number = b"\x8a\x08" + struct.pack("<q", n_numbers)
    return b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + number + b"tQ"


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((10**12,), (0,), 0), ((10**6, 10**6), (0, 0), 0), ((4,), (2,), 0), ((4,), (1,), 1), ((4,), (1,), 10**12),
     ((2, 2), (3, 1), 0), ((1,), (10**30,), 0), ((0, 10**30), (1, 1), 0)])
def test_a_tensor_beyond_its_numbers_is_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, tmp_path: Path
) -> None:
    tensor = Does(torch._utils._rebuild_tensor_v2, torch.zeros(4)._typed_storage(), offset, shape, strides, False,
                  OrderedDict())
    with pytest.raises(ValueError, match=r"evil\.pt: refused, it would make a tensor of shape .* out of 4 numbers"):
        read_checkpoint(save({"model": tensor}, tmp_path))


def test_tensors_of_all_their_numbers_pass(tmp_path: Path) -> None:
    tensors = [torch.zeros(3, 4), torch.zeros(3, 4).T, torch.zeros(8)[2:5], torch.zeros(0), torch.tensor(5),
               torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)]
    with zipfile.ZipFile(save(tensors, tmp_path)) as archive:
        sizes = {name.removeprefix("evil/"): archive.getinfo(name).file_size for name in archive.namelist()}
        found = unpickle(archive.read("evil/data.pkl"), sizes)
    assert [(one.storage.dtype, one.shape) for one in found] == [(t.dtype, tuple(t.shape)) for t in tensors]


@pytest.mark.parametrize("n_numbers", [10**12, 5, 3, -1])
def test_a_storage_of_other_bytes_than_its_record_is_refused(n_numbers: int, tmp_path: Path) -> None:
    path = save_pickle(raw(storage(n_numbers)), tmp_path / "a.pt", {"data/0": bytes(16)})
    message = rf"a\.pt: refused, it would read {n_numbers} numbers of torch\.float32 from record 0, which has 16 bytes"
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


def test_a_record_read_as_two_types_is_refused(tmp_path: Path) -> None:
    path = save_pickle(raw(storage(4) + storage(8, "Half") + b"\x86"), tmp_path / "a.pt", {"data/0": bytes(16)})
    with pytest.raises(ValueError, match=r"record 0 as torch\.float32 and as torch\.float16"):
        read_checkpoint(path)


def test_one_record_in_many_tensors_is_refused(tmp_path: Path) -> None:
    """Each lies within it; in memory all together would be a hundred times the file."""
    def change(model: Any) -> None:
        large = torch.nn.Parameter(torch.zeros(1_000_000))
        for n in range(100):
            model.model[0].register_parameter(f"p{n}", large)

    with pytest.raises(ValueError, match=r"evil\.pt: refused, its tensors have more numbers than the file"):
        read_checkpoint(save(changed(change), tmp_path))


def test_a_record_is_read_once_for_all_its_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they take turns: of a thousand in a large record, each would read all of it again."""
    def change(model: Any) -> None:
        first, second = torch.arange(1_000.0), torch.arange(1_000.0)
        for n in range(300):
            model.model[0].register_parameter(f"p{n}", torch.nn.Parameter([first, second][n % 2][n : n + 1]))

    path, reads = save(changed(change), tmp_path), []
    original = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda archive, name: reads.append(name) or original(archive, name))
    found = read_checkpoint(path)
    assert [found.tensors[f"model.0.p{n}"].item() for n in range(300)] == list(range(300))
    assert len(reads) == 349 + 2 + len(["data.pkl", "byteorder", "stride"])


def test_odd_arrays_of_numpy_are_never_made(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    function, arguments, state = array.__reduce__()
    for odd in [(1, (10**6, 10**6), *state[2:]), (1, (2, 3), array, False, b"x"),
                (1, (2, 3), np.dtype("O"), *state[3:]), (1, (2, 3), *state[2:4], b"x")]:
        assert len(read_checkpoint(save({**load_whole(), "odd": Does(function, *arguments, state=odd)},
                                        tmp_path)).tensors) == 349
        with pytest.raises(ValueError, match=r"evil\.pt: 'model': expected a DetectionModel, found Inert"):
            read_checkpoint(save({"model": Does(function, *arguments, state=odd)}, tmp_path))


def test_files_that_unfold_are_refused(tmp_path: Path) -> None:
    path, bomb = tmp_path / "a.pt", raw(b"0" * 10)
    cases: list[tuple[str, Callable[[], object]]] = [
        ("compressed entries", lambda: save_pickle(raw(b"N" * 10**7), path, compression=zipfile.ZIP_DEFLATED)),
        ("bytes of pickle, more than", lambda: save_pickle(raw(b"N" * 10**7), path)),
        ("a pickle that remembers 4294967295 values", lambda: save_pickle(raw(b"Nr\xff\xff\xff\xff"), path)),
        ("entries of one name", lambda: save_pickle(bomb, path, {"data.pkl": b"another"})),
        ("the opcode POP, which torch.save does not write", lambda: save_pickle(raw(b"N0N"), path)),
        ("0 entries data.pkl", lambda: zipfile.ZipFile(path, "w").close()),
        ("numbers of a machine with another order", lambda: save_pickle(parts()[0], path, {"byteorder": b"big"})),
    ]
    for message, write in cases:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Duplicate name", category=UserWarning)
            write()
        with pytest.raises(ValueError, match=rf"a\.pt: expected a checkpoint written by torch\.save .*{message}"):
            read_checkpoint(path)


def test_one_record_under_many_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", raw(b"N"))
        archive.writestr("archive/data/0", bytes(10**5))
        for n in range(1, 100):
            entry = copy.copy(archive.filelist[1])
            entry.filename = f"archive/data/{n}"
            archive.filelist.append(entry)
    with pytest.raises(ValueError, match=r"a\.pt: expected a checkpoint .* found entries that lie over each other"):
        read_checkpoint(path)


def test_a_zip_that_torch_reads_differently_is_refused(tmp_path: Path) -> None:
    """torch looks below the folder of the first entry."""
    content, records = parts()
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/version", b"3\n")
        for name, record in {"data.pkl": content, "version": b"3\n", **records}.items():
            archive.writestr(f"archive/{name}", record)
    with pytest.raises(ValueError, match=r"a\.pt: expected a checkpoint written by torch\.save .* entries outside its"):
        read_checkpoint(path)


def test_a_record_whose_bytes_have_changed_is_refused(tmp_path: Path) -> None:
    damaged = bytearray(whole())
    with zipfile.ZipFile(io.BytesIO(whole())) as archive:
        entry = next(entry for entry in archive.infolist() if entry.file_size > 100_000)
    damaged[entry.header_offset + 50_000] ^= 1
    (tmp_path / "a.pt").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.pt: expected a checkpoint written by torch\.save .*found Bad CRC-32"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("version", [64, 255])
def test_a_zip_of_another_version_is_refused(version: int, tmp_path: Path) -> None:
    """Of an entry's record in the directory at the end, byte 6 says which version of zip reads it."""
    damaged = bytearray(whole())
    damaged[whole().index(b"PK\x01\x02") + 6] = version
    (tmp_path / "a.pt").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.pt: expected a checkpoint written by .*found zip file version"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("more", [b"\x85", b"K\x01\x86", b"q\x00h\x00\x86", b"K\x01K\x02\x87"])
def test_tuples_that_would_end_the_process_are_refused(more: bytes, tmp_path: Path) -> None:
    """As a key of a dictionary they are hashed, one within the other."""
    path = save_pickle(raw(b"}N" + more * 400_000 + b"K\x01s"), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: expected a checkpoint .* found tuples nested more than 20 times"):
        read_checkpoint(path)


def test_marked_tuples_are_counted_too(tmp_path: Path) -> None:
    path = save_pickle(raw(b"}" + b"(" * 100_000 + b"N" + b"t" * 100_000 + b"K\x01s"), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: .* found tuples nested more than 20 times"):
        read_checkpoint(path)


def test_tuples_that_were_put_by_are_counted_too(tmp_path: Path) -> None:
    nested = b"]N" + b"q\x00ah\x00\x85" * 1_000 + b"q\x00a}h\x00K\x01s\x86"
    with pytest.raises(ValueError, match=r"a\.pt: .* found tuples nested more than 20 times"):
        read_checkpoint(save_pickle(raw(nested), tmp_path / "a.pt"))


MODEL = b"cyolov5.models.yolo\nDetectionModel\n)\x81"
PARTS = b"".join(text(name) + b"}s" for name in ("_modules", "_parameters", "_buffers"))


def with_attribute(name: str, value: bytes) -> bytes:
    """A checkpoint's pickle: a model with an attribute and nothing in it."""
    return raw(b"}" + text("model") + MODEL + b"}" + PARTS + text(name) + value + b"sbs")


def test_lists_without_end_are_refused(tmp_path: Path) -> None:
    """Deep ones, and ones that hold one list twice, and so on: 2 to the power of 60 in few bytes."""
    deep = b"}" + text("head") + b"]" * 10_000 + b"a" * 9_999 + b"s"
    doubled = [b"]h" + bytes([n]) + b"ah" + bytes([n]) + b"aq" + bytes([n + 1]) for n in range(60)]
    twice = b"](]q\0" + b"".join(doubled) + b"e"
    for value in (deep, b"}" + text("head") + twice + b"s"):
        path = save_pickle(with_attribute("yaml", value), tmp_path / "a.pt")
        with pytest.raises(ValueError, match=r"a\.pt: refused, its values are nested without end"):
            read_checkpoint(path)
    path = save_pickle(with_attribute("yaml", twice), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: architecture: keys: refused, expected a dictionary, found \[\["):
        read_checkpoint(path)


def test_names_without_end_are_refused(tmp_path: Path) -> None:
    names: list[Any] = []
    for _ in range(60):
        names = [names, names]
    with pytest.raises(ValueError, match=r"evil\.pt: expected 2 classes, .* found nc None and the names \[\[\["):
        read_checkpoint(save(changed(lambda model: setattr(model, "names", names)), tmp_path))
    dictionaries: Any = OrderedDict()
    for _ in range(60):
        dictionaries = OrderedDict({1: dictionaries, 2: dictionaries})
    for value in (dictionaries, {0: dictionaries, 1: "cow"}):
        with pytest.raises(ValueError, match=r"evil\.pt: expected 2 classes, .* found nc None and the names "):
            read_checkpoint(save(changed(lambda model, value=value: setattr(model, "names", value)), tmp_path))


def test_modules_without_end_are_refused(tmp_path: Path) -> None:
    """One that holds itself, under a long name or a short one, and ones that hold another twice, and so on."""
    def double(model: Any) -> None:
        inner = torch.nn.Sequential()
        for _ in range(60):
            inner = torch.nn.Sequential(inner, inner)
        model.model[0].add_module("more", inner)

    changes: list[Callable[[Any], object]] = [
        double, lambda model: model.model[0].add_module("more", model.model[0]),
        lambda model: model.model[0].add_module("x" * 100_000, model.model[0])]
    for change in changes:
        with pytest.raises(ValueError, match=r"evil\.pt: refused, its values are nested without end"):
            read_checkpoint(save(changed(change), tmp_path))


def test_other_formats_of_pickle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"model": Does(os.system, f"touch '{tmp_path / 'it ran'}'")}, path,
               _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"old\.pt: expected a checkpoint written by torch\.save \(a zip\)"):
        read_checkpoint(path)
    for protocol in (0, 1, 3, 4, 5):
        save_pickle(pickle.dumps(Does(os.system, f"touch '{tmp_path / 'it ran'}'"), protocol), path)
        with pytest.raises(ValueError, match=r"old\.pt: (expected a checkpoint|refused)"):
            read_checkpoint(path)
    assert not (tmp_path / "it ran").exists()


# -- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"expected 2 classes, .*'hen'", lambda model: setattr(model, "names", ["pig", "cow", "hen"])),
        (r"expected 2 classes, .*names None", lambda model: delattr(model, "names")),
        (r"expected 2 classes, .*nc 3", lambda model: setattr(model, "nc", 3)),
        (r"expected 2 classes", lambda model: setattr(model, "names", [1, 2])),
        (r"expected 2 classes", lambda model: setattr(model, "names", {1: "pig", 2: "cow"})),
        (r"architecture: keys: refused", lambda model: model.yaml.pop("head")),
        (r"architecture: refused, expected plain values, found nan", lambda model: model.yaml.update(ch=float("nan"))),
        (r"expected 1000000000 classes", lambda model: model.yaml.update(nc=10**9)),
        (r"model\.24\.m\.0\.weight: expected .* of shape \[24, 64, 1, 1\], found .*\[21, 64", lambda model: (
            model.yaml.update(nc=3), setattr(model, "names", list("abc")), setattr(model, "nc", 3))),
        (r"model: expected the modules '0' to '24' .*, found", lambda model: delattr(model.model, "24")),
        (r"model: expected the modules '0' to '24' .*, found \['1', '2'", lambda model: model.model._modules.update(
            {"0": model.model._modules.pop("0")})),
        (r"missing tensor 'model\.3\.conv\.weight'", lambda model: delattr(model.model[3], "conv")),
        (r"unexpected tensor 'model\.3\.extra\.bias'",
         lambda model: model.model[3].add_module("extra", torch.nn.BatchNorm2d(4, eps=0.001))),
        (r"missing tensor 'model\.3\.conv\.weight'", lambda model: setattr(model.model[3].conv, "weight", None)),
        (r"model\.3\.bn\.running_var: expected .* of shape \[64\], found .*\[1\]",
         lambda model: setattr(model.model[3].bn, "running_var", torch.zeros(1))),
        (r"model\.3\.bn\.num_batches_tracked: expected torch\.int64 .*, found torch\.float32",
         lambda model: setattr(model.model[3].bn, "num_batches_tracked", torch.tensor(1.0))),
        (r"model\.3\.bn: expected eps 0\.001, found 1e-05", lambda model: setattr(model.model[3].bn, "eps", 1e-5)),
        (r"model\.11: expected scale_factor 2\.0, found 1000000",
         lambda model: setattr(model.model[11], "scale_factor", 10**6)),
        (r"model\.3\.conv: expected padding of up to half the kernel \(3, 3\), found \(100000, 1\)",
         lambda model: setattr(model.model[3].conv, "padding", (10**5, 1))),
        (r"model\.3\.act: expected SiLU, found Upsample",
         lambda model: setattr(model.model[3], "act", torch.nn.Upsample(scale_factor=10**6))),
        (r"model\.0\.act: expected SiLU, found ReLU: models with another activation are not read",
         lambda model: setattr(model.model[0], "act", torch.nn.ReLU())),
        (r"model\.3: expected Conv, found SiLU", lambda model: model.model.__setitem__(3, torch.nn.SiLU())),
        (r"model\.12: expected f \[-1, 6\], found \[-1", lambda model: setattr(model.model[12], "f", [-1] * 1000)),
        (r"model\.11: expected f -1, found 4", lambda model: setattr(model.model[11], "f", 4)),
        (r"model\.12: expected d 1, found 0", lambda model: setattr(model.model[12], "d", 0)),
        (r"refused, its values are nested without end", lambda model: model.model[0].add_module("conv", model.model)),
        *[(r"expected strides of up to 1024 pixels, found \[8\.0, ",
           lambda model, stride=stride: setattr(model, "stride", torch.tensor([8.0, stride])))
          for stride in (1e9, float("nan"), 0.0, 12.5)],
        (r"expected a stride of 32", lambda model: setattr(model, "stride", torch.tensor([8.0, 64.0]))),
        (r"model\.3\.bn\.running_var: expected variances of 0 or more, found -1",
         lambda model: model.model[3].bn.running_var.fill_(-1)),
        *[(rf"{name}: expected finite numbers, found infinity or NaN in 1 of", lambda model, name=name, value=value:
           model.get_parameter(name).data.view(-1)[3:4].fill_(value))
          for name in ("model.24.m.0.bias", "model.3.conv.weight") for value in (float("nan"), float("inf"))],
    ],
)
def test_a_model_that_is_not_its_architecture_is_refused(message: str, change: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"evil\.pt: .*{message}"):
        load_model(save(changed(change), tmp_path))


@pytest.mark.parametrize(
    ("message", "content"),
    [(r"expected a yolov5 checkpoint with a 'model', found the keys \['weights'\]", {"weights": torch.zeros(1)}),
     (r"expected a yolov5 checkpoint with a 'model', found list", [1]),
     (r"expected a yolov5 checkpoint with a 'model', found None", {"model": None, "ema": None}),
     (r"'model': expected a DetectionModel, found SiLU", {"model": torch.nn.SiLU()}),
     (r"'ema': expected a DetectionModel, found dict", {"model": None, "ema": {"weight": torch.zeros(1)}})])
def test_a_checkpoint_without_a_model_is_refused(message: str, content: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"evil\.pt: {message}"):
        read_checkpoint(save(content, tmp_path))


UPSAMPLE: list[Any] = [-1, 1, "nn.Upsample", [None, 2, "nearest"]]
DOUBLE: list[Any] = [[-1, -1], 1, "Concat", [1]]
SMALL: list[Any] = [-1, 1, "Conv", [8, 1, 1]]


@pytest.mark.parametrize("layers", [[SMALL, *[UPSAMPLE] * 5], [SMALL, *[DOUBLE] * 30]], ids=["enlarges", "doubles"])
def test_an_architecture_that_asks_for_all_is_refused_before_there_is_a_number(
    layers: list[Any], tmp_path: Path
) -> None:
    """Its modules are those of the architecture, and hold nothing."""
    head = [[-1, 1, "Conv", [8, 1, 1]], [[-1], 1, "Detect", ["nc", "anchors"]]]
    architecture = {"nc": 2, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13]], "backbone": layers,
                    "head": head}

    def change(model: Any) -> None:
        model.yaml = architecture
        first = copy.deepcopy(model.model)
        found = {"Conv": first[0], "nn.Upsample": first[11], "Concat": first[12], "Detect": first[24]}
        model.model = torch.nn.Sequential(*[copy.deepcopy(found[layer[2]]) for layer in [*layers, *head]])
        for layer, (source, *_) in zip(model.model, [*layers, *head], strict=True):
            layer.f = source

    path = save(changed(change), tmp_path)
    read_checkpoint(path)
    with pytest.raises(ValueError, match=r"evil\.pt: .*architecture: refused, .* numbers .*by pixel"):
        load_model(path)


@functools.cache
def small_file() -> bytes:
    """A whole file of a narrow network, which is read in no time."""
    architecture = {**architecture_of(), "width_multiple": 0.02, "depth_multiple": 0.1}
    with torch.random.fork_rng(devices=[]):
        model = library.load().detection_model(architecture).half()
    model.names = ["pig", "cow"]
    buffer = io.BytesIO()
    torch.save({"model": model, "epoch": 3}, buffer)
    return buffer.getvalue()


@settings(max_examples=40, deadline=None)
@given(position=st.integers(0, 10**6), values=st.binary(min_size=1, max_size=4), cut=st.booleans(),
       in_pickle=st.booleans())
def test_a_damaged_file_is_refused_or_whole(position: int, values: bytes, cut: bool, in_pickle: bool) -> None:
    """Of the whole file, or of the pickle in it with the sums of its bytes made right again."""
    content = small_file()
    if in_pickle:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
        content = records.pop("data.pkl")
    position %= len(content)
    damaged = content[:position] if cut else content[:position] + values + content[position + len(values) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.pt"
        if in_pickle:
            save_pickle(damaged, path, {name: record for name, record in records.items() if name.startswith("data/")})
        else:
            path.write_bytes(damaged)
        try:
            found = read_checkpoint(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert len(found.config.labels) == 2
            assert all(torch.isfinite(tensor).all() for tensor in found.tensors.values())


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99, 0.99999])
def test_a_truncated_checkpoint_is_refused(share: float, tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(whole()[: int(len(whole()) * share)])
    with pytest.raises(ValueError, match=r"cut\.pt: expected a checkpoint written by torch\.save \(a zip\), found"):
        read_checkpoint(tmp_path / "cut.pt")


# -- files that are no weights ---------------------------------------------------------------------------------------


def zipped(**entries: bytes) -> bytes:
    """A zip with these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def scripted() -> bytes:
    """A TorchScript file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def legacy() -> bytes:
    """What torch.save wrote until 1.6."""
    buffer = io.BytesIO()
    torch.save({"model": torch.zeros(1)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


WRONG: dict[str, Callable[[], bytes]] = {
    "an empty file": lambda: b"",
    "a Git LFS pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 14\n",
    "a web page": lambda: b"\n <!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>",
    "a zip that ends early, after 100,000 bytes": lambda: whole()[:100_000],
    "a TorchScript file, which is a program": scripted,
    "a file of PyTorch before 1.6": legacy,
    "a bare pickle": lambda: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00",
    "an HDF5 file": lambda: b"\x89HDF\r\n\x1a\n",
    "a file compressed with gzip": lambda: b"\x1f\x8b\x08\x00",
    "an archive with run/best.pt in it": lambda: zipped(**{"run/best.pt": b""}),
    "text that begins with 'Not Found'": lambda: b"Not Found",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_told_by_name(what: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(WRONG[what]())
    with pytest.raises(ValueError, match=rf"weights\.pt: expected a checkpoint .*, found {what}"):
        read_checkpoint(path)


def test_a_state_dict_is_told_by_name(tmp_path: Path) -> None:
    torch.save(load_whole()["model"].state_dict(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt: .* found the keys .*: a state_dict, weights without their model"):
        read_checkpoint(tmp_path / "state.pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [("ultralytics.nn.tasks\nDetectionModel", r"found weights of YOLOv8 or a later model.*ultralytics\.nn\.tasks\.Det"),
     ("models.yolo\nSegmentationModel", r"found a segmentation model \(models\.yolo\.SegmentationModel\)")])
def test_weights_of_another_model_are_told_by_name(name: str, message: str, tmp_path: Path) -> None:
    """By what its pickle names; nothing of that name is imported."""
    path = tmp_path / "weights.pt"
    content = b"\x80\x02c" + name.encode() + b"\n)\x81."
    path.write_bytes(zipped(**{"archive/data.pkl": content, "archive/version": b"3\n"}))
    with pytest.raises(ValueError, match=rf"weights\.pt: expected a checkpoint of YOLOv5, {message}"):
        read_checkpoint(path)


def test_the_start_of_old_files_is_what_torch_writes() -> None:
    assert legacy().startswith(LEGACY)

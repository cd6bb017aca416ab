"""A checkpoint from anyone: refused by name before anything of it runs or takes memory, or it is a whole model."""

from __future__ import annotations

import builtins
import copy
import functools
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from livestock.models import yolov5
from livestock.models.yolov5 import compat
from livestock.models.yolov5.screening import read_stand_ins
from livestock.models.yolov5.weights import STARTER, check_checkpoint, load_checkpoint, load_model

compat.apply()
MOST_BYTES = 200_000_000


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """Fails a test that takes more than `MOST_BYTES`, where the system tells how much that was."""
    if not Path("/proc/self/clear_refs").exists():
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
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


def starter(change: Callable[[Any], object]) -> dict[str, Any]:
    """The starter's checkpoint after `change` of its model."""
    checkpoint = load_checkpoint(STARTER)
    change(checkpoint["model"])
    return checkpoint


def evil_architecture(trace: Path) -> dict[str, Any]:
    """yolov5 makes a module of each name by `eval`."""
    architecture = load_checkpoint(STARTER)["model"].yaml
    architecture["backbone"][0][2] = f"[__import__('pathlib').Path({str(trace)!r}).touch(), Conv][1]"
    return architecture


def evil_model() -> Any:
    return module("yolo").DetectionModel


def module(name: str) -> Any:
    """A module of yolov5."""
    return __import__(f"yolov5.models.{name}", fromlist=["x"])


def raw(instructions: bytes) -> bytes:
    """A pickle of these instructions."""
    return b"\x80\x02" + instructions + b"."


def text(value: str) -> bytes:
    """The instruction that pushes a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def test_the_attack_is_real(tmp_path: Path) -> None:
    """What `torch.load` alone lets through: without the screening this is how a stranger's file runs its code."""
    from yolov5.models.yolo import DetectionModel

    path = save(Does(DetectionModel, evil_architecture(tmp_path / "it ran")), tmp_path)
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
        lambda trace: starter(lambda model: setattr(model, "hyp", [torch._utils._rebuild_parameter])),
    r"Conv: it would put its own 'forward' in place":
        lambda trace: starter(lambda model: vars(model.model[0]).__setitem__("forward", torch.nn.SiLU())),
    r"Conv: it would put its own '_compiled_call_impl' in place":
        lambda trace: raw(CONV + b"}" + text("_compiled_call_impl") + SILU + b"sb"),
    r"Conv: it would put its own '_forward_hooks' in place":
        lambda trace: starter(lambda model: model.model[0]._forward_hooks.update({1: torch.nn.SiLU()})),
    r"a tensor has hooks": lambda trace: Does(torch._utils._rebuild_parameter, torch.zeros(1), False,
                                              OrderedDict({1: torch.nn.SiLU()})),
    r"it would call torch\._utils\._rebuild_parameter with other arguments":
        lambda trace: Does(torch._utils._rebuild_parameter, "no tensor", False, OrderedDict()),
    r"it would call collections\.OrderedDict with other arguments": lambda trace: Does(OrderedDict, 5),
    r"its pickle is broken: other values than torch\.save writes":
        lambda trace: Does(OrderedDict, state={"items": "mine"}),
    r"it would change a tensor": lambda trace: Does(torch._utils._rebuild_parameter, torch.zeros(1), False,
                                                    OrderedDict(), state=(1, 2)),
    r"SiLU: expected one dictionary of attributes":
        lambda trace: raw(SILU + b"N}" + text("__class__") + b"K\x01s\x86b"),
    r"SiLU: expected one dictionary": lambda trace: raw(SILU + b"}b}b"),  # torch would add the second to the first
    r"architecture: layer 0: module": lambda trace: starter(
        lambda model: setattr(model, "yaml", evil_architecture(trace))),  # of start weights, yolov5 builds it again
}


@pytest.mark.parametrize("message", ATTACKS, ids=range(len(ATTACKS)))
@pytest.mark.parametrize("nested", [False, True])
def test_what_would_run_is_refused_by_name(message: str, nested: bool, tmp_path: Path) -> None:
    trace = tmp_path / "it ran"
    content = ATTACKS[message](trace)
    if isinstance(content, bytes):
        path = save_pickle(content, tmp_path / "evil.pt")
    else:
        path = save({**load_checkpoint(STARTER), "opt": [{"deep": content}]}
                    if nested and not isinstance(content, dict) else content, tmp_path)
    with pytest.raises(ValueError, match=rf"evil\.pt: (refused, )?{message}"):
        (load_checkpoint if nested else load_model)(path)
    assert not trace.exists()


def test_start_weights_are_checked_before_training(tmp_path: Path) -> None:
    evil = starter(lambda model: setattr(model, "yaml", evil_architecture(tmp_path / "it ran")))
    config = yolov5.TrainConfig(data_yaml="", weights=str(save(evil, tmp_path)), hyp="", imgsz=64, batch=4, epochs=1)
    with pytest.raises(ValueError, match=r"evil\.pt: architecture: layer 0: module: refused"):
        yolov5.train(config, tmp_path / "run")
    assert not (tmp_path / "it ran").exists()
    assert not (tmp_path / "run").exists()


def test_a_state_changed_after_its_use_is_judged_as_it_was_used(tmp_path: Path) -> None:
    """torch copies attributes when it meets them: what the dictionary becomes later is not what the model has."""
    model = b"cyolov5.models.yolo\nDetectionModel\n)\x81}q\x01" + text("yaml") + text("evil") + b"sb"
    later = b"h\x01" + text("yaml") + text("good") + b"s\x86"
    found, changed = read_stand_ins(save_pickle(raw(model + later), tmp_path / "a.pt"))
    assert changed == {"yaml": "good"}
    assert found.state == {"yaml": "evil"}


def test_hooks_filled_after_their_use_are_found(tmp_path: Path) -> None:
    hooks = b"ccollections\nOrderedDict\n)Rq\x02"
    model = SILU + b"}" + text("_forward_hooks") + hooks + b"sb"
    path = save_pickle(raw(model + b"h\x02" + text("1") + text("call me") + b"s\x86"), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: refused, SiLU: it would put its own '_forward_hooks' in place"):
        read_stand_ins(path)


# -- memory ----------------------------------------------------------------------------------------------------------


def storage(n_numbers: int, kind: str = "Float", key: str = "0") -> bytes:
    """The instructions that push a storage of the file."""
    number = b"\x8a\x08" + struct.pack("<q", n_numbers)
    return b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text(key) + text("cpu") + number + b"tQ"


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((10**12,), (0,), 0), ((10**6, 10**6), (0, 0), 0), ((4,), (2,), 0), ((4,), (1,), 1), ((4,), (1,), 10**12),
     ((2, 2), (3, 1), 0)])
def test_a_tensor_beyond_its_numbers_is_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, tmp_path: Path
) -> None:
    tensor = Does(torch._utils._rebuild_tensor_v2, torch.zeros(4)._typed_storage(), offset, shape, strides, False,
                  OrderedDict())
    with pytest.raises(ValueError, match=r"evil\.pt: refused, it would make a tensor of shape .* out of 4 numbers"):
        check_checkpoint(save({"model": tensor}, tmp_path))


def test_tensors_of_all_their_numbers_pass(tmp_path: Path) -> None:
    tensors = [torch.zeros(3, 4), torch.zeros(3, 4).T, torch.zeros(8)[2:5], torch.zeros(0), torch.tensor(5),
               torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)]
    found = read_stand_ins(save(tensors, tmp_path))
    assert [(tensor.dtype, tensor.shape) for tensor in found] == [(t.dtype, tuple(t.shape)) for t in tensors]


@pytest.mark.parametrize("n_numbers", [10**12, 5, 3, -1])
def test_a_storage_of_other_bytes_than_its_record_is_refused(n_numbers: int, tmp_path: Path) -> None:
    path = save_pickle(raw(storage(n_numbers)), tmp_path / "a.pt", {"data/0": bytes(16)})
    message = rf"a\.pt: refused, it would read {n_numbers} numbers of torch\.float32 from record 0, which has 16 bytes"
    with pytest.raises(ValueError, match=message):
        check_checkpoint(path)


def test_a_record_read_as_two_types_is_refused(tmp_path: Path) -> None:
    path = save_pickle(raw(storage(4) + storage(8, "Half") + b"\x86"), tmp_path / "a.pt", {"data/0": bytes(16)})
    with pytest.raises(ValueError, match=r"record 0 as torch\.float32 and as torch\.float16"):
        check_checkpoint(path)


def test_numpy_numbers_of_a_checkpoint_pass_and_odd_ones_do_not(tmp_path: Path) -> None:
    import numpy as np

    good = {"best_fitness": np.float64(0.5), "array": np.arange(6, dtype=np.float32).reshape(2, 3)}
    assert load_checkpoint(save({**load_checkpoint(STARTER), **good}, tmp_path))["array"].tolist() == [
        [0, 1, 2], [3, 4, 5]]
    function, arguments, state = good["array"].__reduce__()
    odd_states = [(1, (10**6, 10**6), *state[2:]), (1, (2, 3), good["array"], False, b""),
                  (1, (2, 3), np.dtype("O"), *state[3:]), (1, (2, 3), *state[2:4], b"")]
    for odd in odd_states:
        with pytest.raises(ValueError, match=r"evil\.pt: refused, its? "):
            check_checkpoint(save({"model": Does(function, *arguments, state=odd)}, tmp_path))
    with pytest.raises(ValueError, match=r"it would call numpy\.ndarray"):
        check_checkpoint(save({"model": Does(np.ndarray, (10**6, 10**6))}, tmp_path))


def test_files_that_unfold_are_refused(tmp_path: Path) -> None:
    path, bomb = tmp_path / "a.pt", raw(b"0" * 10)
    cases: list[tuple[str, Callable[[], object]]] = [
        ("compressed entries", lambda: save_pickle(raw(b"N" * 10**7), path, compression=zipfile.ZIP_DEFLATED)),
        ("bytes of pickle, more than", lambda: save_pickle(raw(b"N" * 10**7), path)),
        ("a pickle that remembers 4294967295 values", lambda: save_pickle(raw(b"Nr\xff\xff\xff\xff"), path)),
        ("entries of one name", lambda: save_pickle(bomb, path, {"data.pkl": b"another"})),
        ("the opcode POP, which torch.save does not write", lambda: save_pickle(raw(b"N0N"), path)),
        ("0 entries data.pkl", lambda: zipfile.ZipFile(path, "w").close()),
    ]
    for message, write in cases:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Duplicate name", category=UserWarning)
            write()
        with pytest.raises(ValueError, match=rf"a\.pt: expected a checkpoint written by torch\.save .*{message}"):
            check_checkpoint(path)


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
        check_checkpoint(path)


def test_a_zip_that_torch_reads_differently_is_refused(tmp_path: Path) -> None:
    """torch looks below the folder of the first entry."""
    content, records = starter_parts()
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/version", b"3\n")
        for name, record in {"data.pkl": content, "version": b"3\n", **records}.items():
            archive.writestr(f"archive/{name}", record)
    with pytest.raises(ValueError, match=r"a\.pt: expected a checkpoint written by torch\.save"):
        check_checkpoint(path)


@pytest.mark.parametrize("more", [b"\x85", b"K\x01\x86", b"q\x00h\x00\x86", b"K\x01K\x02\x87"])
def test_tuples_that_would_end_the_process_are_refused(more: bytes, tmp_path: Path) -> None:
    """As a key of a dictionary they are hashed, one within the other."""
    path = save_pickle(raw(b"}N" + more * 400_000 + b"K\x01s"), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: expected a checkpoint .* found tuples nested more than 20 times"):
        check_checkpoint(path)


def test_marked_tuples_are_counted_too(tmp_path: Path) -> None:
    path = save_pickle(raw(b"}" + b"(" * 100_000 + b"N" + b"t" * 100_000 + b"K\x01s"), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: .* found tuples nested more than 20 times"):
        check_checkpoint(path)


def test_tuples_that_were_put_by_are_counted_too(tmp_path: Path) -> None:
    nested = b"]N" + b"q\x00ah\x00\x85" * 1_000 + b"q\x00a}h\x00K\x01s\x86"
    with pytest.raises(ValueError, match=r"a\.pt: .* found tuples nested more than 20 times"):
        check_checkpoint(save_pickle(raw(nested), tmp_path / "a.pt"))


def test_lists_without_end_are_refused(tmp_path: Path) -> None:
    parts = b"".join(text(name) + b"}s" for name in ("_modules", "_parameters", "_buffers"))
    state = b"}" + text("yaml") + b"]" * 10_000 + b"a" * 9_999 + b"s" + parts
    model = b"cyolov5.models.yolo\nDetectionModel\n)\x81" + state + b"b"
    path = save_pickle(raw(b"}" + text("model") + model + b"s"), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: refused, its values are nested without end"):
        check_checkpoint(path)


def test_other_formats_of_pickle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"model": Does(os.system, f"touch '{tmp_path / 'it ran'}'")}, path,
               _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"old\.pt: expected a checkpoint written by torch\.save \(a zip\)"):
        check_checkpoint(path)
    for protocol in (0, 1, 3, 4, 5):
        save_pickle(pickle.dumps(Does(os.system, f"touch '{tmp_path / 'it ran'}'"), protocol), path)
        with pytest.raises(ValueError, match=r"old\.pt: (expected a checkpoint|refused)"):
            check_checkpoint(path)
    assert not (tmp_path / "it ran").exists()


# -- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"expected 2 classes, .*'hen'", lambda model: setattr(model, "names", ["pig", "cow", "hen"])),
        (r"expected 2 classes, .*names None", lambda model: delattr(model, "names")),
        (r"expected 2 classes, .*nc 3", lambda model: setattr(model, "nc", 3)),
        (r"expected 2 classes", lambda model: setattr(model, "names", [1, 2])),
        (r"architecture: keys: refused", lambda model: model.yaml.pop("head")),
        (r"architecture: nc: refused", lambda model: model.yaml.update(nc=10**9)),
        (r"model\.24\.m\.0\.weight: expected a tensor of shape \[24, 64, 1, 1\], found \[21, 64", lambda model: (
            model.yaml.update(nc=3), setattr(model, "names", list("abc")), setattr(model, "nc", 3))),
        (r"model: expected the modules .*\]: \{'24'\}", lambda model: delattr(model.model, "24")),
        (r"model\.3: expected the modules .*: \{'conv'\}", lambda model: delattr(model.model[3], "conv")),
        (r"model\.3: expected the modules .*: \{'extra'\}",
         lambda model: model.model[3].add_module("extra", torch.nn.SiLU())),
        (r"model\.3\.conv\.weight: expected a tensor of shape .*, found none",
         lambda model: setattr(model.model[3].conv, "weight", None)),
        (r"model\.3\.bn\.running_var: expected a tensor of shape \[64\], found \[1\]",
         lambda model: setattr(model.model[3].bn, "running_var", torch.zeros(1))),
        (r"model\.11: expected scale_factor 2\.0, found 1000000",
         lambda model: setattr(model.model[11], "scale_factor", 10**6)),
        (r"model\.3\.conv: expected padding \(1, 1\), found \(100000, 1\)",
         lambda model: setattr(model.model[3].conv, "padding", (10**5, 1))),
        (r"model\.3\.act: expected SiLU, found Upsample",
         lambda model: setattr(model.model[3], "act", torch.nn.Upsample(scale_factor=10**6))),
        (r"model\.3: expected Conv, found SiLU", lambda model: model.model.__setitem__(3, torch.nn.SiLU())),
    ],
)
def test_a_model_that_is_not_its_architecture_is_refused(message: str, change: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"evil\.pt: {message}"):
        check_checkpoint(save(starter(change), tmp_path))


def test_another_activation_passes(tmp_path: Path) -> None:
    check_checkpoint(save(starter(lambda model: setattr(model.model[0], "act", torch.nn.ReLU())), tmp_path))


@pytest.mark.parametrize(
    ("message", "content"),
    [(r"expected a yolov5 checkpoint with a 'model', found the keys \['weights'\]", {"weights": torch.zeros(1)}),
     (r"expected a yolov5 checkpoint with a 'model', found list", [1]),
     (r"expected a yolov5 checkpoint with a 'model', found None", {"model": None, "ema": None}),
     (r"'model': expected a DetectionModel, found SiLU", {"model": torch.nn.SiLU()}),
     (r"'ema': expected a DetectionModel, found dict", {"model": None, "ema": {"weight": torch.zeros(1)}})])
def test_a_checkpoint_without_a_model_is_refused(message: str, content: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"evil\.pt: {message}"):
        check_checkpoint(save(content, tmp_path))


def test_a_modules_tree_that_holds_itself_ends(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evil\.pt: model\.0\.conv: expected Conv2d, found Sequential"):
        check_checkpoint(save(starter(lambda model: model.model[0].add_module("conv", model.model)), tmp_path))


@pytest.mark.parametrize("stride", [1e9, float("nan"), 0.0])
def test_strides_that_no_picture_fits_are_refused(stride: float, tmp_path: Path) -> None:
    path = save(starter(lambda model: setattr(model, "stride", torch.tensor([8.0, stride]))), tmp_path)
    with pytest.raises(ValueError, match=r"evil\.pt: expected strides of up to 1024 pixels, found \[8\.0, "):
        load_model(path)


def test_a_checkpoint_to_resume_from_passes(tmp_path: Path) -> None:
    """As yolov5 writes it: model, average and the optimizer's state."""
    model = load_checkpoint(STARTER)["model"].float()
    for parameter in model.parameters():
        parameter.requires_grad, parameter.grad = True, torch.ones_like(parameter)
    for optimizer in (torch.optim.SGD(model.parameters(), momentum=0.9), torch.optim.AdamW(model.parameters())):
        optimizer.step()
        content = {"epoch": 3, "model": model, "ema": model, "updates": 5, "optimizer": optimizer.state_dict(),
                   "opt": {"imgsz": 64, "save_dir": "a"}, "git": {"remote": None}, "date": "today"}
        found = load_checkpoint(save(content, tmp_path))
        assert found["optimizer"]["state"].keys() == optimizer.state_dict()["state"].keys()


@functools.cache
def starter_parts() -> tuple[bytes, dict[str, bytes]]:
    """The starter's pickle, and its other records."""
    with zipfile.ZipFile(STARTER) as archive:
        records = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    return records.pop("data.pkl"), {name: record for name, record in records.items() if name.startswith("data/")}


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10**6), values=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_a_damaged_pickle_is_refused_or_whole(position: int, values: bytes, cut: bool) -> None:
    content, records = starter_parts()
    position %= len(content)
    damaged = content[:position] if cut else content[:position] + values + content[position + len(values) :]
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else ".") / f"damaged_{os.getpid()}.pt"  # noqa: S108 - quick
    try:
        save_pickle(damaged, path, records)
        check_checkpoint(path)
        load_checkpoint(path)
    except ValueError as error:
        assert f"{path}: " in str(error)
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99, 0.99999])
def test_a_truncated_checkpoint_is_refused(share: float, tmp_path: Path) -> None:
    whole = STARTER.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"cut\.pt: expected a checkpoint written by torch\.save \(a zip\), found"):
        check_checkpoint(tmp_path / "cut.pt")


# -- safetensors -----------------------------------------------------------------------------------------------------


def with_header(whole: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A safetensors file with another header."""
    (n_bytes,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + n_bytes])
    change(header)
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + whole[8 + n_bytes :]


def test_safetensors_pass_and_corrupt_ones_are_refused(tmp_path: Path) -> None:
    whole = yolov5.write_safetensors(STARTER, tmp_path / "w.safetensors").read_bytes()
    first, second = "model.0.conv.weight", "model.1.conv.weight"
    corrupt = {
        "a header beyond the file": struct.pack("<Q", len(whole)) + whole[8:],
        "a header of 8 EB": struct.pack("<Q", 2**63 - 1) + whole[8:],
        "a tensor over another": with_header(whole, lambda header: header[second].update(
            data_offsets=header[first]["data_offsets"])),
        "a tensor beyond the file": with_header(whole, lambda header: header[first].update(
            shape=[10**6, 10**6], data_offsets=[0, 2 * 10**12])),
        "a shape of other bytes": with_header(whole, lambda header: header[first].update(shape=[10**12])),
        "no tensors": struct.pack("<Q", 2) + b"{}",
        "cut off": whole[:-1],
        "more at the end": whole + b"x",
    }
    yolov5.load_safetensors(tmp_path / "w.safetensors")
    for name, content in corrupt.items():
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.safetensors: expected ") as caught:
            yolov5.load_safetensors(tmp_path / "bad.safetensors")
        assert isinstance(caught.value, ValueError), name

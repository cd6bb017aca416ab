"""A checkpoint comes back as it was written, and anything else is refused by name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from livestock.exceptions import BadData, UnsafeWeights
from livestock.models import checkpoint as checkpoint_module
from livestock.models.base import ModelConfig
from livestock.models.checkpoint import (
    FORMAT,
    MOST_HEADER_BYTES,
    Checkpoint,
    average_checkpoints,
    load_model,
    read_checkpoint,
    trained_bytes,
    write_checkpoint,
)
from livestock.models.labels import check_labels, class_order
from livestock.models.registry import get_family

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = ModelConfig("fake", ("pig", "cow"), 64, 32, {"width": 4})


def build_fake(config: ModelConfig) -> torch.nn.Module:
    """A family's `build`: refuses a size, fails for another entry, and takes random numbers."""
    if config.architecture["width"] > 1_000:
        raise UnsafeWeights(f"architecture: width: refused, found {config.architecture['width']}")
    return torch.nn.Sequential(torch.nn.Conv2d(3, config.architecture["width"], 1), torch.nn.BatchNorm2d(4))


@pytest.fixture
def _fake_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "get_family", lambda name: SimpleNamespace(build=build_fake))


def fake_state() -> dict[str, torch.Tensor]:
    """Tensors of the fake family's network, all different."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else torch.tensor(9)
            for name, tensor in build_fake(CONFIG).state_dict().items()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


# -- round trip ------------------------------------------------------------------------------------------------------

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8)
CONFIGS = st.builds(ModelConfig, st.text(), st.lists(st.text(), max_size=4).map(tuple), st.integers(1, 8192),
                    st.integers(1, 1024), st.dictionaries(st.text(), JSON, max_size=4))
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool]
TENSORS = st.dictionaries(
    st.text(st.characters(codec="ascii"), min_size=1).filter(lambda name: name != "__metadata__"),
    st.tuples(st.lists(st.integers(0, 3), max_size=3), st.sampled_from(DTYPES)), max_size=4)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=CONFIGS, shapes=TENSORS, header=st.dictionaries(st.text(), JSON, max_size=3), half=st.booleans())
def test_what_is_written_is_read(
    config: ModelConfig, shapes: dict[str, Any], header: dict[str, Any], half: bool, tmp_path: Path
) -> None:
    tensors = {name: torch.arange(int(np.prod(shape))).view(shape).to(dtype) for name, (shape, dtype) in shapes.items()}
    write_checkpoint(tmp_path / "w.safetensors", config, tensors, header, half=half)
    found = read_checkpoint(tmp_path / "w.safetensors")
    assert found.config == config
    assert found.header == header
    assert_equal(found.tensors, {name: tensor.half() if half and tensor.is_floating_point() else tensor
                                 for name, tensor in tensors.items()})


def test_views_and_shared_tensors_are_written_as_they_look(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    tensors = {"all": base, "same": base, "part": base[3:7], "turned": base.view(4, 6).T,
               "last": base.view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
               "trained": torch.ones(2, requires_grad=True)}
    write_checkpoint(tmp_path / "w.safetensors", CONFIG, tensors)
    assert_equal(read_checkpoint(tmp_path / "w.safetensors").tensors, tensors)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    """safetensors orders several entries of a header at random."""
    written = set()
    for _ in range(8):
        write_checkpoint(tmp_path / "w.safetensors", CONFIG, fake_state(), {"epoch": 3, "hyp": {"lr0": 0.01}})
        written.add((tmp_path / "w.safetensors").read_bytes())
    assert len(written) == 1


def test_a_header_of_any_length_is_not_taken_for_another_file(tmp_path: Path) -> None:
    """The first byte of the file is of the header's length, and 128 is how a pickle begins."""
    starts = set()
    for n in range(0, 256, 8):
        write_checkpoint(tmp_path / "w.safetensors", CONFIG, fake_state(), {"padding": "x" * n})
        starts.add((tmp_path / "w.safetensors").read_bytes()[0])
        read_checkpoint(tmp_path / "w.safetensors")
    assert starts == set(range(0, 256, 8))


def test_what_was_read_hangs_on_no_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, CONFIG, fake_state())
    found = read_checkpoint(path)
    with open(path, "r+b") as file:  # in place, as a Drive that vanishes would
        file.write(bytes(path.stat().st_size))
    assert_equal(found.tensors, fake_state())


# -- what is not written ---------------------------------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_that_are_not_finite_are_not_written(
    value: float, half: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    tensors = {"good": torch.ones(3), "bad": torch.tensor([0, value, value], dtype=dtype)}
    message = r"w\.safetensors: bad: expected finite numbers, found infinity or NaN in 2 of 3: a training that diverged"
    with pytest.raises(UnsafeWeights, match=message):
        write_checkpoint(tmp_path / "w.safetensors", CONFIG, tensors, half=half)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.bad_input
def test_numbers_beyond_half_precision_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, CONFIG, {"a": torch.tensor([65_504.0, -65_504.0])}, half=True)
    before = path.read_bytes()
    with pytest.raises(UnsafeWeights, match=r"w\.safetensors: a: expected .* half precision, up to 65,504, found 70"):
        write_checkpoint(path, CONFIG, {"a": torch.tensor([1.0, -70_000.0])}, half=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    write_checkpoint(path, CONFIG, {"a": torch.tensor([1.0, -70_000.0])})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("header", "message"),
    [({"loss": float("nan")}, "expected a header of plain JSON, found Out of range float values"),
     ({"path": Path("a")}, "expected a header of plain JSON, found .*Path.* is not JSON serializable"),
     ({"long": "x" * MOST_HEADER_BYTES}, "expected up to 2,097,152 bytes of header, found")])
def test_a_header_that_could_not_be_read_is_not_written(header: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"w\.safetensors: {message}"):
        write_checkpoint(tmp_path / "w.safetensors", CONFIG, {}, header)
    assert list(tmp_path.iterdir()) == []


# -- what is not read ------------------------------------------------------------------------------------------------


def with_header(whole: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A safetensors file with another header."""
    (n_bytes,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + n_bytes])
    change(header)
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + whole[8 + n_bytes :]


CORRUPT: dict[str, Callable[[bytes], bytes]] = {
    "a header beyond the file": lambda whole: struct.pack("<Q", len(whole)) + whole[8:],
    "a header of 9,223,372,036,854,775,807 bytes, more than 4,194,304":
        lambda whole: struct.pack("<Q", 2**63 - 1) + whole[8:],
    "a tensor over another": lambda whole: with_header(
        whole, lambda header: header["0.bias"].update(data_offsets=header["1.bias"]["data_offsets"])),
    "a tensor beyond the file": lambda whole: with_header(whole, lambda header: header["0.weight"].update(
        shape=[10**6, 10**6], data_offsets=[0, 4 * 10**12])),
    "a shape of other bytes": lambda whole: with_header(whole, lambda header: header["0.weight"].update(
        shape=[10**12])),
    "an unknown type": lambda whole: with_header(whole, lambda header: header["0.weight"].update(dtype="X9")),
    "no tensors": lambda whole: struct.pack("<Q", 2) + b"{}",
    "cut off": lambda whole: whole[:-1],
    "more at the end": lambda whole: whole + b"x",
    "an empty file": lambda whole: b"",
    "a web page": lambda whole: b"<!DOCTYPE html>",
    "a Git LFS pointer": lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 14\n",
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_file_is_refused(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "w.safetensors", CONFIG, fake_state())
    (tmp_path / "bad.safetensors").write_bytes(CORRUPT[name]((tmp_path / "w.safetensors").read_bytes()))
    what = name if name.startswith(("a header of", "an empty", "a web", "a Git")) else ""
    with pytest.raises(UnsafeWeights, match=rf"bad\.safetensors: expected .*found {what}"):
        read_checkpoint(tmp_path / "bad.safetensors")


def test_a_header_of_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 3 << 30) + b'{"__metadata__":{')
    with open(path, "r+b") as file:
        file.truncate(4 << 30)  # takes no room on the disk
    with pytest.raises(UnsafeWeights, match=r"w\.safetensors: expected a safetensors file, found a header of 3,22"):
        read_checkpoint(path)


GOOD: dict[str, Any] = {"config": {"family": "fake", "labels": ["pig", "cow"], "imgsz": 64, "stride": 32,
                                   "architecture": {"width": 4}}, "header": {}}


def config_with(**changes: Any) -> str:
    """A header whose config has other entries."""
    return json.dumps({**GOOD, "config": {**GOOD["config"], **changes}})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("content", "message"),
    [("", "header 'livestock-2': expected JSON, found"),
     ('{"config": NaN, "header": {}}', "header 'livestock-2': expected JSON, found NaN, which is no number of JSON"),
     ('{"config": -Infinity, "header": {}}', "header 'livestock-2': expected JSON, found -Infinity, which is no"),
     ('{"config": {}, "header": {"a": 1e999}}', "header 'livestock-2': expected JSON, found 1e999, which is no number"),
     ('{"a":' * 100_000, "header 'livestock-2': expected JSON, found"),
     ("9" * 10_000, "header 'livestock-2': expected JSON, found"),
     ("[]", "header: expected the entries 'config' and 'header', found"),
     ('{"config": {}}', "header: expected the entries 'config' and 'header', found"),
     (json.dumps({**GOOD, "header": [1]}), "header: expected the entries 'config' and 'header', found"),
     (json.dumps({**GOOD, "config": None}), r"config: expected the entries \['family', .*, found None"),
     (config_with(more=1), r"config: expected the entries \['family', 'labels', 'imgsz', 'stride', 'architecture'\]"),
     (config_with(family=5), "config: family: expected a name, found '5'"),
     (config_with(labels="pig"), "config: labels: expected a list of names, found 'pig'"),
     (config_with(labels=["pig", 3]), "config: labels: expected a list of names, found"),
     (config_with(imgsz=0), "config: imgsz: expected a whole number from 1 to 8192, found '0'"),
     (config_with(imgsz=64.0), "config: imgsz: expected a whole number from 1 to 8192, found '64.0'"),
     (config_with(imgsz=True), "config: imgsz: expected a whole number from 1 to 8192, found 'True'"),
     (config_with(stride=10**9), "config: stride: expected a whole number from 1 to 1024, found '1000000000'"),
     (config_with(architecture=[1]), r"config: architecture: expected a dictionary, found '\[1\]'")])
def test_a_header_of_something_else_is_refused_by_entry(content: str, message: str, tmp_path: Path) -> None:
    save_file(fake_state(), tmp_path / "w.safetensors", {FORMAT: content})
    with pytest.raises(UnsafeWeights, match=rf"w\.safetensors: {message}"):
        read_checkpoint(tmp_path / "w.safetensors")
    save_file(fake_state(), tmp_path / "w.safetensors", {FORMAT: json.dumps(GOOD)})
    assert read_checkpoint(tmp_path / "w.safetensors").config == CONFIG


@pytest.mark.bad_input
def test_other_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors", {"format": "pt"})
    with pytest.raises(UnsafeWeights, match=r"w\.safetensors: expected a header of the format 'livestock-2' or"):
        read_checkpoint(tmp_path / "w.safetensors")
    save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "w.safetensors", {FORMAT: json.dumps(GOOD)})
    with pytest.raises(UnsafeWeights, match=r"w\.safetensors: a: expected one of the types .*, found F8_E4M3"):
        read_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_file_with_numbers_that_are_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.tensor([1, value])}, tmp_path / "w.safetensors",
              {FORMAT: json.dumps(GOOD)})
    with pytest.raises(UnsafeWeights, match=r"w\.safetensors: b: expected finite numbers, found .* in 1 of 2"):
        read_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.bad_input
def test_a_missing_file_and_another_suffix_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"w\.pt: expected the weights file, found no such file"):
        read_checkpoint(tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.onnx: expected weights ending in \.safetensors or \.pt, found '\.onnx'"):
        read_checkpoint(tmp_path / "w.onnx")
    write_checkpoint(tmp_path / "w.safetensors", CONFIG, fake_state())
    (tmp_path / "w.safetensors").rename(tmp_path / "w.pt")
    with pytest.raises(UnsafeWeights, match=r"w\.pt: .*found a safetensors file: give it a name that ends in"):
        read_checkpoint(tmp_path / "w.pt")


# -- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_fake_family")
def test_the_network_has_the_tensors_of_the_file(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "w.safetensors", CONFIG, fake_state(), half=True)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    config, model = load_model(tmp_path / "w.safetensors")
    assert torch.equal(torch.rand(1), expected)  # the caller's random numbers
    assert config == CONFIG
    assert not model.training
    assert_equal(model.state_dict(), {name: tensor.half().float() if tensor.is_floating_point() else tensor
                                      for name, tensor in fake_state().items()})
    found = load_model(read_checkpoint(tmp_path / "w.safetensors"))[1]
    assert_equal(found.state_dict(), model.state_dict())


@pytest.mark.bad_input
@pytest.mark.usefixtures("_fake_family")
@pytest.mark.parametrize(
    ("changes", "message"),
    [({"0.bias": None}, r"missing tensor '0\.bias', and 0 more; expected the 7 tensors of its architecture"),
     ({"0.bias": None, "0.weight": None}, r"missing tensor '0\.bias', and 1 more"),
     ({"2.bias": torch.ones(1)}, r"unexpected tensor '2\.bias', and 0 more; expected the 7 tensors"),
     ({"0.bias": torch.ones(5)}, r"0\.bias: expected torch\.float32 of shape \[4\], found .* of shape \[5\]"),
     ({"0.bias": torch.ones(4, dtype=torch.int64)}, r"0\.bias: expected torch\.float32 .*, found torch\.int64"),
     ({"1.num_batches_tracked": torch.tensor(1.0)}, r"1\.num_batches_tracked: expected torch\.int64 of shape \[\], fo"),
     ({"1.num_batches_tracked": torch.tensor(1, dtype=torch.int32)}, r"1\.num_batches_tracked: expected torch\.int64"),
     ({"1.running_var": torch.tensor([1, 1, -0.5, 1])}, r"1\.running_var: expected variances of 0 or more, found -0"),
     ({"0.bias": torch.full((4,), 1e300, dtype=torch.float64)}, r"0\.bias: expected finite numbers, found infinity")])
def test_other_tensors_than_the_networks_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in {**fake_state(), **changes}.items() if tensor is not None}
    write_checkpoint(tmp_path / "w.safetensors", CONFIG, tensors)
    with pytest.raises(UnsafeWeights, match=rf"w\.safetensors: {message}"):
        load_model(tmp_path / "w.safetensors")
    with pytest.raises(UnsafeWeights, match=rf"^checkpoint: {message}"):
        load_model(Checkpoint(CONFIG, tensors, {}))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("architecture", "message"),
    [({"width": 10**9}, "architecture: width: refused, found 1000000000"),
     ({}, "architecture: expected a model that the family fake can build, found 'width'"),
     ({"width": "4"}, "architecture: expected a model that the family fake can build, found")])
def test_a_config_that_cannot_be_built_is_refused(
    architecture: dict[str, Any], message: str, tmp_path: Path, _fake_family: None
) -> None:
    config = ModelConfig("fake", ("pig",), 64, 32, architecture)
    write_checkpoint(tmp_path / "w.safetensors", config, fake_state())
    with pytest.raises(UnsafeWeights, match=rf"w\.safetensors: {message}"):
        load_model(tmp_path / "w.safetensors")


@pytest.mark.bad_input
def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "w.safetensors", CONFIG, fake_state())
    with pytest.raises(UnsafeWeights, match=r"w\.safetensors: model family 'fake': expected one of"):
        load_model(tmp_path / "w.safetensors")


@pytest.mark.usefixtures("_fake_family")
def test_bytes_of_a_trained_model_are_those_of_its_numbers_in_half_precision() -> None:
    """A convolution of 3 x 4 weights and 4 biases, and four times 4 of batch norm; its counter does not count."""
    assert trained_bytes(CONFIG) == 2 * (12 + 4 + 16)


@pytest.mark.parametrize("family", ["yolov5", "retinanet"])
def test_a_familys_network_comes_back_as_it_was(family: str, tmp_path: Path) -> None:
    config = get_family(family).configure(["pig", "cow"], 64)
    model = get_family(family).build(config)
    for name, tensor in model.named_buffers():
        if name.endswith("running_mean"):
            tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)))
    write_checkpoint(tmp_path / "w.safetensors", config, model.state_dict(), {"epoch": 3})
    config_found, found = load_model(tmp_path / "w.safetensors")
    assert config_found == config
    assert_equal(found.state_dict(), dict(model.state_dict()))
    write_checkpoint(tmp_path / "h.safetensors", config, model.state_dict(), half=True)
    n_bytes = (tmp_path / "h.safetensors").stat().st_size
    assert 0 < n_bytes - trained_bytes(config) < 300_000


# -- the first edition's files ---------------------------------------------------------------------------------------


def first_edition(path: Path, **changes: str) -> ModelConfig:
    """Writes a file as the first edition did, of a yolov5n in half precision; returns its config."""
    config = get_family("yolov5").configure(["pig", "cow"], 640)
    state = {name: tensor.half() if tensor.is_floating_point() else tensor
             for name, tensor in get_family("yolov5").build(config).state_dict().items()}
    save_file(state, path, {"format": "livestock-yolov5-1", "architecture": json.dumps(dict(config.architecture)),
                            "labels": '["pig", "cow"]', **changes})
    return config


def test_a_file_of_the_first_edition_is_read(tmp_path: Path) -> None:
    expected = first_edition(tmp_path / "w.safetensors")
    found = read_checkpoint(tmp_path / "w.safetensors")
    assert found.config == expected
    assert found.header == {}
    assert len(found.tensors) == 349
    assert load_model(found)[0] == expected


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("changes", "message"),
    [({"labels": '["pig"]'}, "header: expected as many labels as its architecture has classes, `nc`, found"),
     ({"labels": "5"}, "header: expected as many labels"), ({"labels": "[1, 2]"}, "config: labels: expected a list of"),
     ({"architecture": "[]"}, "header: expected as many labels"),
     ({"architecture": "{"}, "header 'architecture': expected JSON, found"),
     ({"architecture": "[" * 100_000}, "header 'architecture': expected JSON, found")])
def test_a_file_of_the_first_edition_is_checked(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    first_edition(tmp_path / "w.safetensors", **changes)
    with pytest.raises(UnsafeWeights, match=rf"w\.safetensors: {message}"):
        read_checkpoint(tmp_path / "w.safetensors")


# -- averages --------------------------------------------------------------------------------------------------------


def write_scaled(factor: float, path: Path, config: ModelConfig = CONFIG) -> Path:
    """The fake state with every floating number multiplied, the counters set."""
    tensors = {name: tensor * factor if tensor.is_floating_point() else torch.tensor(int(8 * factor))
               for name, tensor in fake_state().items()}
    write_checkpoint(path, config, tensors, {"factor": factor})
    return path


def test_the_mean_is_of_floats_and_the_last_of_the_rest(tmp_path: Path) -> None:
    found = average_checkpoints([write_scaled(factor, tmp_path / f"{factor}.safetensors")
                                 for factor in (0.25, 1.0, 0.625)])
    assert found.config == CONFIG
    assert found.header == {"factor": 0.625}
    assert found.tensors["1.num_batches_tracked"] == 5
    for name, tensor in fake_state().items():
        if tensor.is_floating_point():
            assert found.tensors[name].dtype == torch.float32
            torch.testing.assert_close(found.tensors[name], tensor * 0.625)


def test_the_mean_is_added_in_float64(tmp_path: Path) -> None:
    """In half precision 2048 + 1 is 2048."""
    for n, value in enumerate((2048, 1, 1, 2)):
        write_checkpoint(tmp_path / f"{n}.safetensors", CONFIG, {"a": torch.tensor([float(value)])}, half=True)
    found = average_checkpoints([tmp_path / f"{n}.safetensors" for n in range(4)])
    assert found.tensors["a"].tolist() == [513.0]


@pytest.mark.bad_input
def test_nothing_and_another_model_have_no_mean(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected weights to average, found none"):
        average_checkpoints([])
    first = write_scaled(1, tmp_path / "first.safetensors")
    other = ModelConfig("fake", ("cow", "pig"), 64, 32, {"width": 4})
    relabelled = write_scaled(1, tmp_path / "other.safetensors", other)
    write_checkpoint(tmp_path / "wide.safetensors", CONFIG, {**fake_state(), "0.bias": torch.ones(5)})
    for path in (relabelled, tmp_path / "wide.safetensors"):
        with pytest.raises(BadData, match=rf"{path.name}: expected the tensors of .*first\.safetensors, found another"):
            average_checkpoints([first, first, path])


# -- labels ----------------------------------------------------------------------------------------------------------

WEIGHTS = Path("w.safetensors")


@pytest.mark.parametrize(
    ("found", "labels"),
    [(["pig", "cow"], ["pig", "cow"]), (["Pig ", "COW"], ["pig", "cow"]), (["swine", "cattle"], ["pig", "cow"]),
     (["a"], ["a"]), ([], [])])
def test_the_same_classes_pass(found: list[str], labels: list[str]) -> None:
    check_labels(found, labels, WEIGHTS, {"swine": "pig", "cattle": "cow"}.get)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("found", "labels", "message"),
    [(["pig", "cow"], ["cow", "pig"], r"in the order \['cow', 'pig'\], found \['pig', 'cow'\]: each box would get an"),
     (["cattle", "swine"], ["pig", "cow"], r"in the order \['pig', 'cow'\], found \['cattle', 'swine'\]"),
     (["pig", "sheep"], ["pig", "cow"], r"of the classes \['pig', 'cow'\], found \['pig', 'sheep'\]\. If they mean"),
     (["0", "1"], ["pig", "cow"], r"of the classes \['pig', 'cow'\], found \['0', '1'\]"),
     (["pig"], ["pig", "cow"], r"of the 2 classes \['pig', 'cow'\], found 1: \['pig'\]")])
def test_other_classes_are_refused_with_both_lists(found: list[str], labels: list[str], message: str) -> None:
    with pytest.raises(BadData, match=rf"^w\.safetensors: expected a model .*{message}"):
        check_labels(found, labels, WEIGHTS, {"swine": "pig", "cattle": "cow"}.get)


def test_a_hundred_names_are_not_printed_whole() -> None:
    with pytest.raises(BadData, match=r"w\.safetensors: ") as caught:
        check_labels([f"species {n}" for n in range(100)], [f"kind {n}" for n in range(100)], WEIGHTS)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("found", "labels", "expected"),
    [(["pig", "cow"], ["pig", "cow"], None), (["cow", "pig"], ["pig", "cow"], [1, 0]),
     (["Cattle", "swine"], ["pig", "cow"], [1, 0]), (["dog", "cat"], ["pig", "cow"], None),
     (["a", "b", "c"], ["c", "a", "b"], [2, 0, 1]), (["x", "b", "c"], ["c", "a", "b"], [2, 0, 1]),
     (["person", "cow"], ["cow"], None)])
def test_where_each_label_starts_from(found: list[str], labels: list[str], expected: list[int] | None) -> None:
    assert class_order(found, labels, {"swine": "pig", "Cattle": "cow"}.get) == expected

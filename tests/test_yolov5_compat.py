"""Each entry of yolov5_compat, by the call that breaks without it. Nothing here may reach the network."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from livestock.models.yolov5 import check_checkpoint, compat, load_model


@pytest.fixture(autouse=True)
def mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """yolov5 mended, and every way out of the machine closed."""
    compat.apply()

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"tried to reach the network: {args}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


def test_average_precision_without_trapz() -> None:
    from yolov5.utils.metrics import compute_ap

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy 2.0 to 2.3 warn, 2.4 has no trapz any more
        ap, _, _ = compute_ap([0.5, 1.0], [1.0, 1.0])
    assert ap == pytest.approx(1.0, abs=0.01)


def test_other_users_of_numpy_see_no_change() -> None:
    assert hasattr(np, "trapz") == (np.lib.NumpyVersion(np.__version__) < "2.4.0")


def test_labels_are_drawn_with_todays_pillow() -> None:
    from yolov5.utils.plots import Annotator

    annotator = Annotator(np.zeros((60, 200, 3), np.uint8), pil=True)
    annotator.box_label([10, 30, 100, 50], "pig 0.9")
    assert np.asarray(annotator.im).any()


def test_a_data_set_is_checked_without_downloading_a_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolov5.utils import general

    monkeypatch.setattr(general, "CONFIG_DIR", tmp_path / "nothing here")
    (tmp_path / "valid.txt").write_text("")
    data_yaml = tmp_path / "data.yaml"
    content = {"path": str(tmp_path), "train": "valid.txt", "val": "valid.txt", "names": ["pig"]}
    data_yaml.write_text(yaml.safe_dump(content))
    assert general.check_dataset(str(data_yaml))["nc"] == 1


@pytest.mark.parametrize(("device", "expected"), [("cuda", True), ("cpu", False)])
def test_mixed_precision_is_on_for_cuda_alone(device: str, expected: bool) -> None:
    from yolov5 import train

    parameter = types.SimpleNamespace(device=types.SimpleNamespace(type=device))
    assert train.check_amp(types.SimpleNamespace(parameters=lambda: iter([parameter]))) is expected


@pytest.mark.parametrize("module", ["yolov5.utils.general", "yolov5.val"])
def test_suppression_finishes_the_batch_however_long_it_takes(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=1000.0)
    monkeypatch.setattr("time.time", lambda: next(clock))
    box = torch.tensor([50.0, 50.0, 20.0, 20.0, 0.9, 0.9, 0.1])
    found = sys.modules[module].non_max_suppression(box.repeat(4, 1, 1))
    assert [len(boxes) for boxes in found] == [1, 1, 1, 1]


def test_local_weights_are_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolov5 import train
    from yolov5.utils.downloads import attempt_download

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it would fail
    weights = tmp_path / "weights.pt"
    weights.touch()
    assert attempt_download(str(weights)) == str(weights)
    assert train.attempt_download_from_hub(str(weights), hf_token=None) is None


def test_no_logger_that_phones_home_is_connected() -> None:
    from yolov5.utils import loggers

    assert [loggers.wandb, loggers.clearml, loggers.comet_ml, loggers.neptune] == [None] * 4


def test_requirements_are_not_installed_behind_the_users_back() -> None:
    from yolov5 import train

    assert train.check_requirements("a-package-that-is-not-there") is None


def test_stand_ins_leave_with_the_import() -> None:
    stand_ins = [name for name in ("ultralytics", "roboflow", "wandb") if name in sys.modules]
    assert all(hasattr(sys.modules[name], "__file__") for name in stand_ins)
    assert not any(Path(entry).name == "yolov5" for entry in sys.path)


def test_the_import_leaves_figures_and_tables_as_they_were() -> None:
    check = """
import matplotlib, numpy, pandas
matplotlib.use("svg"); matplotlib.rcParams["font.size"] = 7; pandas.options.display.max_columns = 77
before = numpy.get_printoptions()
from livestock.models.yolov5 import compat
compat.apply()
assert matplotlib.get_backend() == "svg" and matplotlib.rcParams["font.size"] == 7
assert pandas.options.display.max_columns == 77 and numpy.get_printoptions() == before
"""
    subprocess.run([sys.executable, "-c", check], check=True)  # noqa: S603


def test_published_checkpoints_find_the_same_classes() -> None:
    import models.yolo
    import yolov5.models.yolo

    assert models.yolo.Model is yolov5.models.yolo.Model


def test_albumentations_is_left_alone_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import asks the network for its newest version."""
    (tmp_path / "albumentations.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "albumentations", raising=False)
    from yolov5.utils import dataloaders

    picture, labels = np.zeros((4, 4, 3), np.uint8), np.array([[1, 0.5, 0.5, 0.2, 0.2]])
    assert dataloaders.Albumentations(size=64)(picture, labels) == (picture, labels)


def test_setuptools_still_has_pkg_resources() -> None:
    import pkg_resources

    assert pkg_resources.parse_version("1.10") > pkg_resources.parse_version("1.9")


@pytest.mark.filterwarnings("error")
def test_no_deprecation_warning_for_every_batch() -> None:
    compat.quiet_deprecations()  # pytest sets its own filters around each test
    with torch.cuda.amp.autocast(False):
        torch.cuda.amp.GradScaler(enabled=False)


def test_a_published_checkpoint_loads(real_data: Path) -> None:
    model = load_model(real_data / "weights/yolov5n.pt")
    assert model(torch.zeros(1, 3, 64, 64))[0].shape == (1, 3 * (8 * 8 + 4 * 4 + 2 * 2), 85)


class _RunsCode:
    def __reduce__(self) -> tuple:
        return os.system, ("touch it_ran",)


def test_a_checkpoint_that_would_run_code_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": _RunsCode()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt: refused, .*(posix|nt)\.system"):
        check_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", pickle.dumps({"model": 1})])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.pt: expected a checkpoint"):
        check_checkpoint(path)


def test_the_check_of_checkpoints_is_not_turned_off() -> None:
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ

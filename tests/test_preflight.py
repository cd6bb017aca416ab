"""What can be known before the first training is checked before it, and all of it is listed at once."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from livestock.config import REPOSITORY, Workspace, get_profile, read_competition
from livestock.config.profile import FAMILY_STARTS, POSE_FAMILIES
from livestock.models import hub
from livestock.models.checkpoint import read_checkpoint, trained_bytes, write_checkpoint
from livestock.models.registry import get_family
from livestock.models.yolov5.library import STARTER
from livestock.pipeline.preflight import (
    NotReadyError,
    check_hyp_file,
    check_training,
    check_weights_file,
    prepare_run,
)
from livestock.pipeline.run import make_run
from livestock.sample import draw_sample
from livestock.training.hyp import COMMON, find_hyp_faults, read_hyp


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample in AI Hub's layout."""
    folder = tmp_path_factory.mktemp("raw") / "raw"
    draw_sample(folder, n_train=8, n_test=2, scale=0.1)
    return folder


def parameters(raw: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """Those of a run at `smoke`, some changed."""
    return {"COMPETITION": str(REPOSITORY / "competition.yaml"), "PROFILE": "smoke", "SEED": 1, "DATA": str(raw),
            "READER": "aihub", "WORKSPACE": str(tmp_path / "ws"), "WEIGHTS": "", "HYP": "", **changes}


def test_a_run_that_is_ready_comes_with_its_data(raw: Path, tmp_path: Path) -> None:
    run, tables = prepare_run(parameters(raw, tmp_path))
    assert run.profile.name == "smoke"
    assert (len(tables.images), len(tables.test_images)) == (8, 2)
    found = sorted(path.name for path in run.workspace.root.iterdir())
    assert found == ["interim", "lineage.jsonl"]  # nothing else is left behind


@pytest.mark.bad_input
def test_all_that_is_wrong_is_listed_at_once(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: x\nclasses: {pig: []}\nmetric_iou: 50\nmetric: 1\n")
    (tmp_path / "fast.yaml").write_text("lr0: 1e-3\n")
    (tmp_path / "best.pt").write_bytes(b"")
    (tmp_path / "ws").write_bytes(b"a file in the workspace's place")
    with pytest.raises(NotReadyError) as refusal:
        prepare_run(parameters(raw, tmp_path, COMPETITION=str(tmp_path / "mine.yaml"), HYP=str(tmp_path / "fast.yaml"),
                               WEIGHTS=str(tmp_path / "best.pt")))
    words = str(refusal.value)
    assert words.startswith("4 things to put right:\n- ")
    for part in ("mine.yaml: 2 things to put right:", "metric_iou: expected a number above 0 and below 1, found '50'",
                 "unknown key 'metric'", "best.pt: ", str(tmp_path / "ws"),
                 "fast.yaml: lr0: expected a finite number, found '1e-3', a text in YAML; write 0.001"):
        assert part in words


@pytest.mark.bad_input
@pytest.mark.parametrize(("changes", "words"), [
    ({"PROFILE": "laptop"}, "profile: expected one of ['colab', 'colab_best', 'cpu', 'demo', 'smoke'], found 'laptop'"),
    ({"READER": "labelme"}, "reader: expected one of"),
    ({"WEIGHTS": "mine.pt"}, "weights 'mine.pt': no such file"),
    ({"HYP": "mine.yaml"}, "mine.yaml: expected a file of hyper-parameters (--hyp, in a notebook HYP), found none"),
    ({"COMPETITION": "mine.yaml"}, "mine.yaml: expected a competition file"),
    ({"PROFILE": "cpu", "WEIGHTS": "starter.safetensors", "DATA": "nowhere"}, "nowhere: no data there"),
])
def test_each_setting_is_checked(raw: Path, tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(NotReadyError) as refusal:
        prepare_run(parameters(raw, tmp_path, **changes))
    assert words in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_the_size_of_what_is_trained_is_known_before(tmp_path: Path) -> None:
    starter = read_checkpoint(STARTER)
    n_bytes = trained_bytes(starter.config)
    assert n_bytes == sum(2 * tensor.numel() for tensor in starter.tensors.values() if tensor.is_floating_point())
    write_checkpoint(tmp_path / "weights.safetensors", starter.config, starter.tensors, half=True)
    file_bytes = (tmp_path / "weights.safetensors").stat().st_size
    assert 0 < file_bytes - n_bytes < 300_000  # names of tensors and classes
    # a class more: a weight for each of 64, 128 and 256 channels and a bias, for three anchors a level
    another = replace(starter.config, labels=(*starter.config.labels, "sheep"))
    assert trained_bytes(another) - n_bytes == 2 * 3 * (64 + 128 + 256 + 3)


@pytest.mark.bad_input
@pytest.mark.parametrize(("limit", "ensemble", "words"), [
    ("100", False, "weight_limit_bytes: a model trained from .*starter.safetensors in half precision takes 3.6 MB .*, "
     r"over the limit of 0.0001 MB \(100 bytes\); meant is perhaps 100MB"),
    ("3 MB", False, r"over the limit of 3 MB \(3,000,000 bytes\); start from smaller weights$"),
    ("9 MB", True, "the 3 models of an ensemble .*; start from smaller weights or answer with fewer folds"),
])
def test_a_limit_that_no_training_can_meet_is_said_before(
    raw: Path, tmp_path: Path, limit: str, ensemble: bool, words: str
) -> None:
    content = yaml.safe_load((REPOSITORY / "competition.yaml").read_text()) | {"weight_limit_bytes": limit}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    changes = {"COMPETITION": str(tmp_path / "small.yaml"), "FOLDS": [0, 1, 2]}
    with pytest.raises(NotReadyError, match=words):
        prepare_run(parameters(raw, tmp_path, ENSEMBLE=ensemble, **changes))
    if ensemble:
        prepare_run(parameters(raw, tmp_path, ENSEMBLE=False, **changes))


@pytest.mark.bad_input
def test_what_is_given_is_checked_even_if_the_profile_is_unknown(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(NotReadyError) as refusal:
        prepare_run(parameters(raw, tmp_path, PROFILE="gpu", HYP="mine.yaml", WEIGHTS="mine.pt"))
    first, *faults = str(refusal.value).splitlines()
    assert first == "3 things to put right:"
    assert [fault[:12] for fault in faults] == ["- profile: e", "- weights 'm", "- mine.yaml:"]


@pytest.mark.bad_input
def test_a_training_by_hand_is_checked_too(raw: Path, tmp_path: Path) -> None:
    run = make_run(competition=str(REPOSITORY / "competition.yaml"), profile="smoke", workspace=str(tmp_path / "ws"),
                   data=str(raw), reader="aihub", seed=1, weights="mine.pt")
    with pytest.raises(NotReadyError) as refusal:
        check_training(run, "mine.yaml")
    first, *faults = str(refusal.value).splitlines()
    assert first == "2 things to put right:"
    assert faults[0].startswith("- weights 'mine.pt': no such file")
    assert faults[1].startswith("- mine.yaml: expected a file of hyper-parameters")


@pytest.mark.bad_input
def test_test_images_of_one_name_are_said_before_any_training(raw: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for part, camera in (("train", "a"), ("test", "cam0"), ("test", "cam1")):
        folder = data / part / "images" / camera
        folder.mkdir(parents=True)
        shutil.copy(REPOSITORY / "docs/01_eda.png", folder / "1.png")
    (data / "train/labels/a").mkdir(parents=True)
    for name in ("1", "2", "3"):  # as many folds as every notebook needs
        shutil.copy(REPOSITORY / "docs/01_eda.png", data / f"train/images/a/{name}.png")
        (data / f"train/labels/a/{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (data / "data.yaml").write_text("names: [pig, cow]\n")
    with pytest.raises(NotReadyError, match="both be called '1.png' in the answer, .*cam0/1.png and .*cam1/1.png"):
        prepare_run(parameters(data, tmp_path, READER="yolo"))
    by_path = yaml.safe_load((REPOSITORY / "competition.yaml").read_text()) | {"answer_name": "path"}
    (tmp_path / "paths.yaml").write_text(yaml.safe_dump(by_path))
    _, tables = prepare_run(parameters(data, tmp_path, READER="yolo", COMPETITION=str(tmp_path / "paths.yaml")))
    assert len(tables.test_images) == 2


@pytest.mark.bad_input
@pytest.mark.parametrize(("changes", "fault"), [
    ({"lr0": None}, "lr0: this hyper-parameter is missing; a training needs each of lr0, lrf, "),
    ({"lr": 0.1}, "lr: unknown hyper-parameter, meant is perhaps 'lrf'"),
    ({"lr0": 0}, "lr0: expected more than 0, found 0: nothing would be learned"),
    ({"box": -0.1}, "box: expected 0 or more, found -0.1"),
    ({"mosaic": 50}, "mosaic: expected a number from 0 to 1, found 50"),
])
def test_hyper_parameters_that_cannot_be_are_named(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    values = yaml.safe_load((REPOSITORY / "hyp/demo.yaml").read_text()) | changes
    path = tmp_path / "hyp.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}))
    with pytest.raises(ValueError, match="hyp.yaml: ") as refusal:
        check_hyp_file(get_profile("smoke"), str(path))
    assert fault in str(refusal.value)


@pytest.mark.bad_input
@pytest.mark.parametrize(("text", "words"), [
    ("lr0: 1e-3\nlrf: no\n", "2 things to put right:\n- lr0: expected a finite number, found '1e-3', a text in YAML; "
     "write 0.001\n- lrf: expected a finite number, found False"),
    ("lr0: .nan\n", "lr0: expected a finite number, found nan"),
    ("lr0: {\n", "expected YAML, a line `name: number` for each hyper-parameter: "),
    ("", "expected a mapping of hyper-parameters to numbers, found NoneType"),
    (b"\xff\xfe", "expected YAML"),
])
def test_a_file_of_hyper_parameters_that_cannot_be_read(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = tmp_path / "hyp.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="hyp.yaml: ") as refusal:
        read_hyp(path)
    assert words in str(refusal.value)


OTHERS = ("profiles.yaml", "inference.yaml", "models.yaml", "proxies.yaml")  # which hold no hyper-parameters
HYP_FILES = sorted(path.name for path in (REPOSITORY / "hyp").glob("*.yaml") if path.name not in OTHERS)
FAMILY_OF = {start["hyp"]: family for family, start in FAMILY_STARTS.items()}  # most others are YOLOv5's


@pytest.mark.parametrize("name", HYP_FILES)
def test_the_repositorys_hyper_parameters_are_sound(name: str) -> None:
    own = "dfine" if name == "dfine_l.yaml" else FAMILY_OF.get(name, "yolov5")
    own = Path(name).stem if Path(name).stem in POSE_FAMILIES else own
    path, family = REPOSITORY / "hyp" / name, get_family(own)
    assert find_hyp_faults(read_hyp(path, family), family.defaults) == []
    assert set(COMMON) <= set(read_hyp(path))


@pytest.mark.bad_input
def test_a_network_that_is_frozen_as_a_whole_learns_nothing() -> None:
    family, values = get_family("yolov5"), read_hyp(REPOSITORY / "hyp/demo.yaml", get_family("yolov5"))
    for share, words in ((0.9, []), (1.0, ["freeze: expected less than 1, found 1: nothing would be learned"]),
                         (1.5, ["freeze: expected a number from 0 to 1, found 1.5"])):
        assert find_hyp_faults({**values, "freeze": share}, family.defaults) == words


def test_each_family_starts_from_hyper_parameters_of_its_own_that_come_with_the_code() -> None:
    assert FAMILY_OF.keys() <= set(HYP_FILES)
    assert len(FAMILY_OF) == len(FAMILY_STARTS)
    assert {"baseline.yaml", "competition.yaml", "demo.yaml", "evolved.yaml"} <= set(HYP_FILES) - (
        FAMILY_OF.keys() - {"baseline.yaml"})
    faults = find_hyp_faults(read_hyp(REPOSITORY / "hyp/baseline.yaml"), get_family("retinanet").defaults)
    assert [fault.split(":")[0] for fault in faults] == [
        "cls_pw", "obj", "obj_pw", "iou_t", "anchor_t", "fl_gamma"]  # YOLOv5's own, which RetinaNet would not read


@pytest.mark.bad_input
@pytest.mark.parametrize(("family", "weights", "words"), [
    ("retinanet", str(STARTER), "starter.safetensors: expected weights of the family retinanet, found yolov5; name "
     "that one: --family yolov5"),
    ("yolov5", "resnet18", "found a size of retinanet: add --family retinanet"),
    ("yolov5", "resnet19", "weights 'resnet19': no such file; expected a path, starter.safetensors or one of ['yolo"),
])
def test_start_weights_of_another_family_are_refused(
    raw: Path, tmp_path: Path, family: str, weights: str, words: str
) -> None:
    with pytest.raises(NotReadyError) as refusal:
        prepare_run(parameters(raw, tmp_path, WEIGHTS=weights, OVERRIDES={"family": family}))
    assert words in str(refusal.value)
    run = make_run(workspace=tmp_path / "ws", profile="smoke", weights=weights, overrides={"family": family})
    with pytest.raises(NotReadyError) as refusal:
        check_training(run)
    assert words in str(refusal.value)


def test_random_start_weights_of_a_family_are_no_file_and_have_a_size(tmp_path: Path) -> None:
    competition = read_competition(REPOSITORY / "competition.yaml")
    asked = {"family": "retinanet", "imgsz": 64}
    assert check_weights_file("resnet18", Workspace(tmp_path), competition, **asked) is None
    limit = trained_bytes(get_family("retinanet").configure(competition.labels, 64, "resnet18"))
    assert check_weights_file("resnet18", Workspace(tmp_path), replace(competition, weight_limit_bytes=limit),
                              **asked) is None
    with pytest.raises(ValueError, match=r"a model trained from resnet18 in half precision takes .* over the limit"):
        check_weights_file("resnet18", Workspace(tmp_path), replace(competition, weight_limit_bytes=limit - 1), **asked)


@pytest.mark.bad_input
def test_what_a_family_or_a_logger_needs_is_said_before_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    gone = ("tensorboard", "wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else found(name))
    run = make_run(workspace=tmp_path / "ws", profile="smoke", overrides={"loggers": "tensorboard,wandb"})
    with pytest.raises(NotReadyError) as refusal:
        check_training(run)
    assert str(refusal.value).splitlines()[1:] == [
        f"- loggers: {name} is not installed: pip install {name}" for name in gone]
    get_family.cache_clear()
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    run = make_run(workspace=tmp_path / "ws", profile="smoke", overrides={"family": "dfine"})
    with pytest.raises(NotReadyError, match="dfine needs transformers, which is not installed: pip install trans"):
        check_training(run)

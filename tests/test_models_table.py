"""The table of models: what it says is so, and what can be asked for is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from livestock.cli import app
from livestock.config import REPOSITORY, read_competition
from livestock.config.models import read_models
from livestock.config.profile import FAMILIES, POSE_FAMILIES, get_profile
from livestock.models.dfine_sizes import PRETRAINED as DFINE
from livestock.models.label_sets import OBJECTS365
from livestock.models.registry import FAMILIES as REGISTERED
from livestock.models.registry import get_family
from livestock.models.retinanet import PRETRAINED as RETINANET
from livestock.models.rfdetr import PRETRAINED as RFDETR
from livestock.models.rfdetr import SIZES as RFDETR_SIZES
from livestock.models.ssd import PRETRAINED as SSD
from livestock.models.tood import PRETRAINED as TOOD
from livestock.models.yolov5.library import SIZES as YOLOV5
from livestock.models.yolox import PRETRAINED as YOLOX

TABLE = read_models().set_index(["family", "name"])
OFFICIAL = {"yolov5": [f"{size}.pt" for size in YOLOV5], "dfine": DFINE, "rfdetr": RFDETR, "yolox": YOLOX,
            "retinanet": RETINANET, "ssd": SSD, "tood": TOOD}


def size_of(family: str, name: str) -> str:
    """The size of a network whose official weights have this name."""
    size = re.sub(r"(_coco|_obj2coco|_obj365|\.pt)$", "", name)
    return {"retinanet_resnet50_fpn": "resnet50", "ssd300_vgg16": "vgg16"}.get(size, size)


def test_every_family_is_in_the_table_and_in_the_registry() -> None:
    assert set(TABLE.index.get_level_values("family")) == {*FAMILIES, *POSE_FAMILIES} == set(REGISTERED)
    assert not set(FAMILIES) & set(POSE_FAMILIES)


@pytest.mark.parametrize("family", [*FAMILIES, *POSE_FAMILIES])
def test_names_are_those_that_weights_takes(family: str) -> None:
    names, official = set(TABLE.loc[family].index), OFFICIAL.get(family, ())  # nobody publishes heads of keypoints
    assert names <= {*official, *get_family(family).sizes}
    if family in POSE_FAMILIES:
        assert names == set(get_family(family).sizes)
    whole = {name for name in official if not name.endswith("_imagenet")}
    assert whole <= names  # of backbones alone the notes speak
    assert all((REPOSITORY / "hyp" / hyp).exists() for hyp in TABLE.loc[family, "hyp"])


@pytest.mark.parametrize(("family", "name"), [key for key in TABLE.index if key[0] != "yolov5"] + [
    ("yolov5", "yolov5n.pt"), ("yolov5", "yolov5s6.pt")])
def test_parameters_are_as_many_as_it_says(family: str, name: str) -> None:
    known = get_family(family)
    labels = OBJECTS365 if name.endswith("obj365") else [f"class {number}" for number in range(80)]
    labels = labels[:1] if family in POSE_FAMILIES else labels
    with torch.device("cpu" if family in ("yolov5", "yolo_pose") else "meta"):  # a meta device allocates nothing
        size = size_of(family, name)
        # RF-DETR has an embedding for each place, and heads that give places have weights for each.
        side = RFDETR_SIZES[size][1] if family == "rfdetr" else 256 if family in POSE_FAMILIES else 640
        model = known.build(known.configure(labels, side, size))
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert TABLE.loc[(family, name), "M"] == pytest.approx(n_parameters / 1e6, rel=0.01, abs=0.1)


def test_objects365_knows_both_animals() -> None:
    assert {"cow", "pig"} <= {label.casefold() for label in OBJECTS365}


def test_the_recommended_profile_takes_what_fits_and_is_good() -> None:
    profile = get_profile("colab_best")
    limit = read_competition(REPOSITORY / "competition.yaml").weight_limit_bytes
    row = TABLE.loc[(profile.family, profile.weights)]
    assert row["MB"] * 1e6 < limit and "colab_best" in row["note"]
    best = TABLE[TABLE["MB"] * 1e6 < limit]["AP"].idxmax()
    assert size_of(*best) == size_of(profile.family, profile.weights)


def test_the_command_says_what_fits() -> None:
    out = CliRunner().invoke(app, ["models", "--competition", str(REPOSITORY / "competition.yaml")])
    assert out.exit_code == 0, out.output
    fits = {line.split()[0]: line.split()[3] for line in out.output.splitlines()[1:-2]}
    assert fits["yolov5m6.pt"] == "yes" and fits["yolov5l6.pt"] == "no"
    assert len(out.output.splitlines()) == len(TABLE) + 3
    kinds = {line.split()[1] for line in out.output.splitlines()[1:-2] if "keypoints" in line}
    assert kinds == set(POSE_FAMILIES)
    scores = [float(line.split()[4]) for line in out.output.splitlines()[2:20]]
    assert scores == sorted(scores, reverse=True)


def test_a_limit_that_no_model_fits_is_refused(tmp_path: Path) -> None:
    text = (REPOSITORY / "competition.yaml").read_text(encoding="utf-8")
    small = re.sub(r"weight_limit_bytes: \S+", "weight_limit_bytes: 1000000", text)
    assert small != text
    (tmp_path / "small.yaml").write_text(small, encoding="utf-8")
    out = CliRunner().invoke(app, ["models", "--competition", str(tmp_path / "small.yaml")])
    assert out.exit_code == 2
    assert "1,000,000 is less than any model needs; the smallest is yolox_nano_coco of yolox with 1.8 MB" in out.output

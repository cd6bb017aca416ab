"""D-FINE behind the contract of a model family, compared with transformers' own loss and loading."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402
from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss  # noqa: E402

from livestock.exceptions import BadData, UnsafeWeights  # noqa: E402
from livestock.models.base import Batch, load_matching  # noqa: E402
from livestock.models.checkpoint import read_checkpoint  # noqa: E402
from livestock.models.dfine import PARTS, DFineFamily, sum_parts  # noqa: E402
from livestock.models.dfine_sizes import PRETRAINED, SIZES  # noqa: E402
from livestock.models.hub import make_targets  # noqa: E402
from livestock.models.label_sets import OBJECTS365  # noqa: E402
from livestock.models.registry import get_family  # noqa: E402

FAMILY = DFineFamily()
CONFIG = FAMILY.configure(["pig", "cow"], 256)
WITHOUT_DENOISING = replace(CONFIG, architecture={**CONFIG.architecture, "num_denoising": 0})
HYP = {"lr0": 2e-4, "weight_decay": 1e-4}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def build(config: Any = CONFIG, seed: int = 0) -> Any:
    """A network none of whose weights are zero, as some are in the beginning."""
    torch.manual_seed(seed)
    model: Any = FAMILY.build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model


def draw_batch(*, empty: bool = False) -> Batch:
    """Two images of noise with a bright square, and its box; the second has none if `empty`."""
    images = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 0.3
    images[0, :, 64:160, 32:160] = 0.9
    images[1, 0, 80:208, 80:208] = 0.9
    boxes = [torch.tensor([[32.0, 64, 160, 160], [0, 0, 20, 30]]), torch.tensor([[80.0, 80, 208, 208]])]
    class_ids = [torch.tensor([0, 1]), torch.tensor([1])]
    if empty:
        boxes[1], class_ids[1] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    return Batch(images, boxes, class_ids)


def record_loss(model: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments that the model hands to its loss, call by call; the loss itself stays."""
    calls, ours = [], model.loss_function

    def record(*arguments: Any, **named: Any) -> Any:
        calls.append((arguments, named))
        return ours(*arguments, **named)

    model.loss_function = record
    return calls


def total(parts: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(parts.values())).sum()


@pytest.mark.parametrize(("size", "millions"), [("dfine_n", 3.72), ("dfine_s", 10.21), ("dfine_m", 19.44),
                                                ("dfine_l", 31.08)])
def test_sizes_have_the_official_numbers_of_parameters(size: str, millions: float) -> None:
    """Counted as the official models are, without the batch norms of the backbone, which transformers freezes."""
    with torch.device("meta"):
        norms = _norms_of_the_backbone(model := FAMILY.build(FAMILY.configure(["pig", "cow"], 256, size)))
    assert round((sum(parameter.numel() for parameter in model.parameters()) - norms) / 1e6, 2) == millions
    assert all(parameter.requires_grad for parameter in model.model.backbone.parameters())


def _norms_of_the_backbone(model: Any) -> int:
    norms = [module for module in model.model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    return sum(parameter.numel() for module in norms for parameter in module.parameters())


@pytest.mark.parametrize("empty", [False, True])
def test_without_denoising_the_loss_is_transformers_own(empty: bool) -> None:
    model, batch = build(WITHOUT_DENOISING).train(), draw_batch(empty=empty)
    calls = record_loss(model)
    found = FAMILY.make_loss(model, {})(model, batch)
    [(arguments, named)] = calls
    expected, parts, _ = DFineForObjectDetectionLoss(*arguments, **named)
    assert list(found) == list(PARTS) and len(parts) == 3 + 2 * 5 + 3  # the last layer, two others, the encoder
    torch.testing.assert_close(total(found), expected)
    torch.testing.assert_close(found["giou"], sum(part for name, part in parts.items() if "giou" in name))


@pytest.mark.parametrize("empty", [False, True])
def test_with_denoising_the_real_queries_alone_are_matched(empty: bool) -> None:
    """Split here by hand: the real queries as if there were no others, the rest as transformers has it."""
    model, batch = build().train(), draw_batch(empty=empty)
    calls = record_loss(model)
    found = FAMILY.make_loss(model, {})(model, batch)
    [(arguments, named)] = calls
    logits, labels, device, boxes, config, all_logits, all_boxes = arguments
    assert logits.shape[1] > 300
    _, library, _ = DFineForObjectDetectionLoss(*arguments, **named)
    corners, places = named["predicted_corners"], named["initial_reference_points"]
    plain = {**named, "denoising_meta_values": None, "predicted_corners": corners[:, :, -300:],
             "initial_reference_points": places[:, :, -300:]}
    _, real, _ = DFineForObjectDetectionLoss(logits[:, -300:], labels, device, boxes[:, -300:], config,
                                             all_logits[:, :, -300:], all_boxes[:, :, -300:], **plain)
    denoising = {name: part for name, part in library.items() if "_dn_" in name}
    expected = sum_parts({**real, **denoising})
    assert len(denoising) == 3 * 5 and not real.keys() & denoising.keys()
    torch.testing.assert_close(found, expected)
    assert abs(library["loss_vfl"] - real["loss_vfl"]).item() > 1e-3  # the fault that this avoids


def test_factors_weigh_the_parts() -> None:
    model, batch = build(WITHOUT_DENOISING).train(), draw_batch()
    plain = FAMILY.make_loss(model, {})(model, batch)
    doubled = FAMILY.make_loss(model, {"giou": 2.0, "ddf": 0.0})(model, batch)
    torch.testing.assert_close(doubled["giou"], 2 * plain["giou"])
    assert doubled["ddf"].item() == 0 < plain["ddf"].item()


@pytest.mark.parametrize("empty", [False, True])
def test_gradients_reach_every_parameter(empty: bool) -> None:
    model = build().train()
    total(FAMILY.make_loss(model, HYP)(model, draw_batch(empty=empty))).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == [
        "model.decoder.reg_scale", "model.decoder.up"]  # constants of the network
    zero = [name for name, gradient in gradients.items() if gradient is not None and not gradient.any()]
    assert [name for name in zero if not name.endswith("lab.bias")] == []  # a shift that the next batch norm takes out


def test_images_without_boxes_alone_teach_background() -> None:
    model, batch = build().train(), draw_batch()
    none = replace(batch, boxes=[torch.zeros(0, 4)] * 2, class_ids=[torch.zeros(0, dtype=torch.int64)] * 2)
    parts = FAMILY.make_loss(model, HYP)(model, none)
    assert parts["bbox"].item() == 0 < parts["vfl"].item() and bool(torch.isfinite(total(parts)))


def test_the_first_loss_of_random_weights_is_small() -> None:
    """With transformers' own settings it is 630, and the gradients 3e14."""
    torch.manual_seed(0)
    model = FAMILY.build(CONFIG).train()
    loss = total(FAMILY.make_loss(model, HYP)(model, draw_batch()))
    loss.backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in model.parameters() if parameter.grad is not None)
    assert loss.item() < 100 and largest < 1e3


def test_mixed_precision_computes_the_loss_in_full() -> None:
    model, batch = build().train(), draw_batch()
    calls = record_loss(model)
    with torch.autocast("cpu", torch.bfloat16):
        parts = FAMILY.make_loss(model, HYP)(model, batch)
    assert calls[0][0][0].dtype == torch.bfloat16
    assert {part.dtype for part in parts.values()} == {torch.float32} and bool(torch.isfinite(total(parts)))


def test_predictions_are_those_of_transformers() -> None:
    """Its processor turns outputs into the boxes of one class each, here for an input of 256 x 320."""
    model, images = build().eval(), torch.rand(2, 3, 256, 320, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found = FAMILY.predict(model, images)
        outputs = model(pixel_values=images)
    processor = transformers.RTDetrImageProcessor()
    expected = processor.post_process_object_detection(outputs, threshold=0, target_sizes=[(256, 320)] * 2)
    assert found.boxes.shape == (2, 300, 4) and found.scores.shape == (2, 300, 2)
    for boxes, scores, library in zip(found.boxes, found.scores, expected, strict=True):
        best = scores.flatten().topk(300)
        torch.testing.assert_close(best.values, library["scores"])
        torch.testing.assert_close(boxes[best.indices // 2], library["boxes"], atol=1e-3, rtol=1e-5)
        assert torch.equal(best.indices % 2, library["labels"])


def test_training_goes_on_after_a_prediction() -> None:
    """transformers keeps the anchors of a size; those of a prediction without gradients must not stop the training."""
    model, batch = build().eval(), draw_batch()
    with torch.inference_mode():
        FAMILY.predict(model, batch.images)
    total(FAMILY.make_loss(model, HYP)(model.train(), batch)).backward()
    assert model.model.enc_bbox_head.layers[0].weight.grad.abs().sum() > 0


def test_boxes_without_area_and_unknown_classes_are_refused() -> None:
    model, batch = build().train(), draw_batch()
    loss = FAMILY.make_loss(model, HYP)
    with pytest.raises(BadData, match="expected x_min < x_max"):
        loss(model, replace(batch, boxes=[torch.tensor([[9.0, 9, 9, 9], [0, 0, 5, 5]]), batch.boxes[1]]))
    with pytest.raises(BadData, match="class_ids: expected 0 to 1, found 2"):
        loss(model, replace(batch, class_ids=[torch.tensor([0, 2]), batch.class_ids[1]]))


def test_targets_are_centres_and_sizes_of_the_input() -> None:
    batch = Batch(torch.zeros(2, 3, 100, 200), [torch.tensor([[20.0, 10, 60, 60]]), torch.zeros(0, 4)],
                  [torch.tensor([1]), torch.zeros(0, dtype=torch.int64)])
    first, second = make_targets(batch)
    torch.testing.assert_close(first["boxes"], torch.tensor([[0.2, 0.35, 0.2, 0.5]]))
    assert first["class_labels"].tolist() == [1] and second["boxes"].shape == (0, 4)


def test_an_unknown_part_of_the_loss_is_not_lost() -> None:
    with pytest.raises(ValueError, match="found loss_vfl, loss_mask_aux_0"):
        sum_parts({"loss_vfl": torch.tensor(1.0), "loss_mask_aux_0": torch.tensor(1.0)})


def test_official_files_fit_by_name(tmp_path: Path) -> None:
    """transformers writes the names of official files, which are not those of its modules."""
    source, model = build(seed=1), build(seed=2)
    source.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert "model.encoder.encoder.0.layers.0.fc1.weight" in state and len(state) < len(source.state_dict())
    report = load_matching(model, FAMILY.adapt(state, CONFIG, CONFIG))
    assert report.random == [] and report.unused == []
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_start_weights_move_to_the_new_classes() -> None:
    found = FAMILY.configure(["Cow", "sheep", "goat"], 256)
    source, model = build(found, seed=1), build(seed=2)
    report = load_matching(model, FAMILY.adapt(source.state_dict(), found, CONFIG))
    assert report.random == [] and report.unused == []
    for outputs, new in [*zip(source.class_embed, model.class_embed, strict=True),
                         (source.model.enc_score_head, model.model.enc_score_head)]:
        assert torch.equal(new.weight[1], outputs.weight[0]) and torch.equal(new.bias[1], outputs.bias[0])
        torch.testing.assert_close(new.weight[0], outputs.weight.mean(0))
    old, new = source.model.denoising_class_embed.weight, model.model.denoising_class_embed.weight
    assert torch.equal(new[1:], old[[0, 3]])  # the last stands for no class


def test_class_outputs_stay_random_where_no_class_is_known() -> None:
    found = FAMILY.configure(["dog"], 256)
    report = load_matching(build(), FAMILY.adapt(build(found).state_dict(), found, CONFIG))
    assert {name.removeprefix("model.decoder.").rsplit(".", 1)[0] for name in report.random} == {
        "class_embed.0", "class_embed.1", "class_embed.2", "model.enc_score_head", "model.denoising_class_embed"}


def test_labels_of_official_weights() -> None:
    coco, objects = FAMILY.describe_pretrained("dfine_l_obj2coco"), FAMILY.describe_pretrained("dfine_s_obj365")
    assert len(coco.labels) == 80 and coco.labels[19] == "cow" and coco.architecture["size"] == "dfine_l"
    assert objects.labels == OBJECTS365 and len(OBJECTS365) == 366 and objects.architecture["size"] == "dfine_s"
    # Category ids of Objects365's own annotations.
    assert [OBJECTS365.index(label) for label in ("Person", "Stool", "Cow", "Luggage", "Pig")] == [1, 48, 97, 121, 301]
    assert {name[:7] for name in PRETRAINED} == set(SIZES)


def test_official_weights_are_found_or_the_message_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(repository: str, name: str, **options: object) -> str:
        raise huggingface_hub.errors.OfflineModeIsEnabled("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ValueError, match="expected one of dfine_n_coco"):
        FAMILY.find_pretrained("dfine_x_coco", tmp_path)
    place = tmp_path / "dfine_n_coco_official.safetensors"
    with pytest.raises(ValueError, match=r"OfflineModeIsEnabled\). Download https://huggingface.co/ustc-community/"
                       rf"dfine-nano-coco/resolve/main/model.safetensors .* {place}"):
        FAMILY.find_pretrained("dfine_n_coco", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_official_weights_become_a_checkpoint_that_a_training_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file as the hub has it, tensors without our header, made of a network with random weights."""
    import huggingface_hub

    official = FAMILY.build(FAMILY.describe_pretrained("dfine_n_coco"))
    asked = []

    def download(repository: str, name: str, *, local_dir: str) -> str:
        asked.append((repository, name))
        path = Path(local_dir) / name
        official.save_pretrained(local_dir)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    paths = [FAMILY.find_pretrained("dfine_n_coco", tmp_path / "new") for _ in range(2)]
    assert asked == [("ustc-community/dfine-nano-coco", "model.safetensors")]
    assert paths == [tmp_path / "new/dfine_n_coco.safetensors"] * 2
    start = read_checkpoint(paths[0])
    assert start.config.labels[19] == "cow" and start.config.family == "dfine"
    wanted = replace(start.config, labels=("pig", "cow"), imgsz=320)
    report = load_matching(model := FAMILY.build(wanted), FAMILY.adapt(start.tensors, start.config, wanted))
    assert not [name for name in report.random if "num_batches_tracked" not in name]
    rows = official.state_dict()["class_embed.0.weight"]
    assert torch.equal(model.state_dict()["class_embed.0.weight"][1], rows[19])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/dfine_n_coco_official.safetensors").write_bytes(b"half")
    with pytest.raises(UnsafeWeights, match="dfine_n_coco_official.safetensors: expected official weights, found"):
        FAMILY.find_pretrained("dfine_n_coco", tmp_path / "broken")


def test_without_transformers_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers==5.15"):
        DFineFamily()


def test_the_config_is_plain_json_and_builds_again() -> None:
    again = replace(CONFIG, architecture=json.loads(json.dumps(CONFIG.architecture)))
    assert again == CONFIG and FAMILY.build(again).config.num_labels == 2
    assert get_family("dfine").name == "dfine"


@pytest.mark.parametrize("change", [{"size": "dfine_x"}, {"size": ["dfine_n"]}, {"num_queries": 0},
                                    {"num_queries": 10**9}, {"extra": 1},
                                    {"num_denoising": "1"}, {"num_queries": 321}])
def test_impossible_architectures_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(UnsafeWeights, match="dfine: .*expected"):
        FAMILY.build(replace(CONFIG, architecture={**CONFIG.architecture, **change}))


def test_sizes_and_sides_are_checked() -> None:
    with pytest.raises(BadData, match="size: expected one of dfine_n, dfine_s, dfine_m, dfine_l, found 'x'"):
        FAMILY.configure(["pig"], 256, "x")
    with pytest.raises(BadData, match="imgsz: expected a multiple of 32 from 256, found 224"):
        FAMILY.configure(["pig"], 224)
    small = FAMILY.configure(["pig"], 128, "dfine_s")
    with torch.inference_mode():
        assert FAMILY.predict(FAMILY.build(small).eval(), torch.rand(1, 3, 128, 128)).boxes.shape == (1, 300, 4)


def test_the_backbone_learns_more_slowly() -> None:
    model = FAMILY.build(CONFIG)
    groups = FAMILY.parameter_groups(model, {**HYP, "backbone_lr": 0.1, "warmup_bias_lr": 0.01})
    places = {id(parameter): name for name, parameter in model.named_parameters()}
    backbone = [all(places[id(parameter)].startswith("model.backbone.") for parameter in group["params"])
                for group in groups]
    assert backbone == [False] * 3 + [True] * 3
    assert [group["lr"] for group in groups] == [2e-4] * 3 + [pytest.approx(2e-5)] * 3
    assert [group["weight_decay"] for group in groups] == [1e-4, 0, 0] * 2
    assert [group["warmup_lr"] for group in groups] == [0, 0, 0.01, 0, 0, pytest.approx(0.001)]
    assert sum(len(group["params"]) for group in groups) == sum(
        parameter.requires_grad for parameter in model.parameters())


def test_frozen_norms_and_first_layers_stay_as_they_are() -> None:
    """A step in training mode: statistics of the norms, their scales and the stem do not move; all else does."""
    model = build(WITHOUT_DENOISING).train()
    hyp = {**HYP, "freeze_norms": 1.0}
    groups = FAMILY.parameter_groups(model, hyp)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loss = FAMILY.make_loss(model, hyp)
    model.train()  # as the loop does before each epoch
    sum(loss(model, draw_batch()).values()).backward()
    torch.optim.SGD(groups, lr=1e-3).step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    backbone = {key for key in before if key.startswith("model.backbone.")}
    still = {key for key in backbone if ".normalization." in key or ".embedder." in key}
    assert not moved & still
    assert {key for key in backbone - still if key.endswith("convolution.weight")} <= moved
    assert not [name for name, parameter in model.named_parameters() if name in still and parameter.grad is not None]
    assert any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))  # of the encoder

    model = build(WITHOUT_DENOISING)
    every = FAMILY.parameter_groups(model, HYP)
    assert sum(len(group["params"]) for group in every) > sum(len(group["params"]) for group in groups)
    sum(FAMILY.make_loss(model.train(), HYP)(model, draw_batch()).values()).backward()
    statistics = {key for key in still if key.endswith("running_mean")}
    assert all(not torch.equal(model.state_dict()[key], before[key]) for key in statistics)

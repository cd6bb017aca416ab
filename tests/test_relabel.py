"""Labels out to an annotation tool and back: formats, what is called a change, bad files, and what reading makes of it.

The files that come back are written as the tools' own documentation and converters have them.
"""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from defusedxml.ElementTree import parse
from PIL import Image
from typer.testing import CliRunner

from livestock.cli import app
from livestock.config import Competition, Workspace
from livestock.labels import relabel
from livestock.labels.relabel.changes import merge_labels
from livestock.labels.relabel.export import read_suspects
from livestock.labels.relabel.sheets import find_exported, read_manifests, sheet_name
from livestock.pipeline.evolve import name_study
from livestock.pipeline.prepare import read_data
from livestock.pipeline.run import make_run
from livestock.pipeline.store import read_records
from livestock.tables import XYXY, check_boxes, make_boxes, make_images, write_table

COMPETITION = Competition("farm", {"pig": ["pig", "돼지"], "cow": ["cow", "cattle"]})
LABELS = COMPETITION.labels
SIZE = 200, 100
TURNED = "train/b/same.jpg"  # 100 x 200 px in the file, shown as 200 x 100
HUMAN = [
    ("train/a/same.jpg", "pig", 10, 10, 50, 60),
    ("train/a/same.jpg", "cow", 100.25, 20.5, 180.75, 90),
    (TURNED, "pig", 5, 5, 25, 95),
    ("train/소 1.png", "cow", 0, 0, 200, 100),
]
SUSPECTS = [
    ("train/a/same.jpg", "pig", 60, 10, 90, 60, 0.9),
    (TURNED, "cow", 100, 10, 160, 60, 0.8),
    ("train/empty.png", "pig", 20, 20, 60, 60, 0.7),
    ("train/소 1.png", "pig", 10, 10, 15, 15, 0.1),
]


def boxes_table(rows, **columns):
    table = pd.DataFrame([row[:6] for row in rows], columns=["image_id", "label", *XYXY])
    return make_boxes(table.assign(confidence=[*(row[6] for row in rows if len(row) > 6)] or 1.0, **columns))


@pytest.fixture
def workspace(tmp_path):
    """A workspace as notebooks 01 and 05 leave it: four images, one turned by its EXIF, two of one file name."""
    raw, rng = tmp_path / "raw", np.random.default_rng(0)
    for image_id in ("train/a/same.jpg", TURNED, "train/empty.png", "train/소 1.png", "train/other.png"):
        path = raw / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
        exif = Image.Exif()
        if image_id == TURNED:
            pixels, exif[0x0112] = np.rot90(pixels, 1), 6
        Image.fromarray(pixels).save(path, exif=exif)
    ids = sorted(str(path.relative_to(raw)) for path in raw.rglob("*.*"))
    images = make_images([{"image_id": image_id, "archive": str(raw), "member": image_id, "width": SIZE[0],
                           "height": SIZE[1]} for image_id in ids])
    found = Workspace(tmp_path / "work")
    write_table(images, found.interim_dir / "images.parquet")
    write_table(boxes_table([*HUMAN, ("train/other.png", "cow", 1, 1, 9, 9)]), found.interim_dir / "boxes.parquet")
    boxes_table(SUSPECTS, source="model").sort_values("confidence", ascending=False).to_csv(
        found.root / "suspects.csv", index=False)
    return found


def export(workspace, format, **options):
    return relabel.export_suspects(workspace, LABELS, format, **options)


def import_(path, workspace, **options):
    return relabel.import_labels(path, workspace, COMPETITION, **options)


def raw_boxes(workspace):
    return pd.read_parquet(workspace.interim_dir / "boxes.parquet")


def used_boxes(workspace):
    """The labels that reading the data again would use."""
    images = pd.read_parquet(workspace.interim_dir / "images.parquet")
    report = pd.DataFrame(columns=["file", "image_id", "reason", "detail"], dtype=str)
    return relabel.apply_relabels(images, raw_boxes(workspace), report, relabel.read_relabels(workspace), LABELS)[0]


def rows_of(table):
    return sorted((*row[:2], *np.round(row[2:], 3).tolist()) for row in
                  table[["image_id", "label", *XYXY]].itertuples(index=False, name=None))


def changed(imported):
    """What changed: image, kind, label before, label after."""
    own = imported.changes[imported.changes["kind"] != "unchanged"]
    return sorted(own[["image_id", "kind", "label_before", "label_after"]].itertuples(index=False, name=None))


# ---------------------------------------------------------------- what is called a change


def test_each_kind_of_change_is_named():
    before = boxes_table([("a", "pig", 0, 0, 10, 10), ("a", "pig", 20, 0, 30, 10), ("a", "pig", 40, 0, 50, 10),
                          ("a", "pig", 60, 0, 70, 10), ("b", "cow", 0, 0, 10, 10)])
    after = boxes_table([("a", "pig", 0.5, 0, 10, 10), ("a", "pig", 20.6, 0, 30, 10), ("a", "cow", 40, 0, 50, 10),
                         ("a", "pig", 65.1, 0, 75.1, 10), ("c", "cow", 0, 0, 10, 10)])
    changes = relabel.compare_labels(before, after)
    found = changes[["image_id", "kind", "before", "after"]].itertuples(index=False, name=None)
    assert sorted(found) == [
        ("a", "added", -1, 3), ("a", "class changed", 2, 2), ("a", "moved", 1, 1), ("a", "removed", 3, -1),
        ("a", "unchanged", 0, 0), ("b", "removed", 4, -1), ("c", "added", -1, 4)]
    counts = relabel.count_changes(changes, ["pig", "cow"])
    assert counts.loc["pig"].to_dict() == {"added": 1, "removed": 1, "moved": 1, "class changed": 1, "unchanged": 1}
    assert counts.loc["cow"].to_dict() == {"added": 1, "removed": 1, "moved": 0, "class changed": 0, "unchanged": 0}


def test_the_closest_boxes_are_paired_first_and_each_once():
    before = boxes_table([("a", "pig", 0, 0, 100, 100), ("a", "pig", 2, 0, 102, 100)])
    after = boxes_table([("a", "pig", 2, 0, 102, 100), ("a", "pig", 4, 0, 104, 100)])
    pairs = relabel.compare_labels(before, after)[["kind", "before", "after"]]
    assert sorted(pairs.itertuples(index=False, name=None)) == [("moved", 0, 1), ("unchanged", 1, 0)]


def test_moved_boxes_go_to_the_box_they_overlap_most_whatever_the_order():
    before = boxes_table([("a", "pig", 0, 0, 100, 100), ("a", "pig", 10, 0, 110, 100)])
    after = boxes_table([("a", "pig", 9, 0, 109, 100), ("a", "pig", 2, 0, 102, 100)])
    pairs = relabel.compare_labels(before, after)[["kind", "before", "after"]]
    assert sorted(pairs.itertuples(index=False, name=None)) == [("moved", 0, 1), ("moved", 1, 0)]


def test_boxes_of_another_class_are_paired_only_where_their_own_has_none():
    before = boxes_table([("a", "pig", 0, 0, 10, 10)])
    after = boxes_table([("a", "cow", 0, 0, 10, 10), ("a", "pig", 0, 2, 10, 12)])
    pairs = relabel.compare_labels(before, after)[["kind", "before", "after"]]
    assert sorted(pairs.itertuples(index=False, name=None)) == [("added", -1, 0), ("moved", 0, 1)]


def test_tiny_boxes_that_were_rounded_are_unchanged():
    before, after = boxes_table([("a", "pig", 0, 0, 0.3, 0.3)]), boxes_table([("a", "pig", 0.2, 0, 0.4, 0.3)])
    assert relabel.compare_labels(before, after)["kind"].tolist() == ["unchanged"]


def test_unchanged_boxes_keep_their_exact_corners_and_order():
    before = boxes_table([("a", "pig", 0, 0, 10, 10), ("a", "cow", 20, 0, 30, 10)])
    after = boxes_table([("a", "pig", 50, 0, 60, 10), ("a", "cow", 20.004, 0, 30, 10), ("a", "pig", 1, 0, 11, 10)])
    merged = merge_labels(before, after, relabel.compare_labels(before, after))
    assert merged["x_min"].tolist() == [1, 20, 50]


def test_a_box_keeps_its_id_until_it_is_removed():
    """Unchanged, moved, of another class: the same box; one that was added is a new one."""
    before = boxes_table([("a", "pig", 0, 0, 10, 10), ("a", "cow", 20, 0, 30, 10), ("a", "pig", 40, 0, 50, 10)])
    rows = [("a", "pig", 80, 0, 90, 10), ("a", "pig", 1, 0, 11, 10), ("a", "cow", 40, 0, 50, 10),
            ("a", "cow", 20, 0, 30, 10)]
    after = make_boxes(boxes_table(rows).drop(columns="box_id"), "import")
    merged = merge_labels(before, after, relabel.compare_labels(before, after))
    assert merged["label"].tolist() == ["pig", "cow", "cow", "pig"]
    assert merged["box_id"].tolist() == [*before["box_id"], after["box_id"][0]]


def test_boxes_that_two_imports_add_have_different_ids(workspace, tmp_path):
    """And those of the first keep theirs, also when the file of corrected labels is from a time without ids."""
    folder, _ = export(workspace, "yolo")
    import_(folder, workspace, accept_suspects=True)
    first = relabel.read_relabels(workspace)
    path = next((folder / "labels").glob("*empty*.txt"))
    path.write_text("0 0.8 0.8 0.1 0.1\n" + path.read_text())  # before the one that has a number
    import_(folder, workspace, accept_suspects=True)
    second = relabel.read_relabels(workspace)
    assert len(second) == len(first) + 1 and second["box_id"].is_unique
    assert set(first["box_id"]) < set(second["box_id"])
    images = pd.read_parquet(workspace.interim_dir / "images.parquet")
    report = pd.DataFrame(columns=["file", "image_id", "reason", "detail"])
    boxes, _ = relabel.apply_relabels(images, raw_boxes(workspace), report, second, LABELS)
    check_boxes(boxes, images, LABELS)
    second.drop(columns="box_id").to_parquet(relabel.relabels_path(workspace))
    assert relabel.read_relabels(workspace)["box_id"].is_unique


def test_suspects_keep_their_ids_unless_a_spreadsheet_rounded_them(workspace):
    images, path = pd.read_parquet(workspace.interim_dir / "images.parquet"), workspace.root / "suspects.csv"
    table = pd.read_csv(path)
    assert read_suspects(path, images, LABELS)["box_id"].tolist() == table["box_id"].tolist()
    for other in (table.astype({"box_id": float}), table.drop(columns="box_id"), table.assign(box_id=3)):
        other.to_csv(path, index=False)
        found = read_suspects(path, images, LABELS)["box_id"]
        assert found.is_unique and found.dtype == np.int64 and not set(found) & set(table["box_id"])


def test_the_manifest_tells_which_suspects_it_has_also_an_old_one(workspace):
    _, sheets = export(workspace, "cvat")
    known = {export.image_id: export for export in read_manifests(workspace).values()}
    for sheet in sheets:
        assert known[sheet.image_id].suspects["box_id"].tolist() == sheet.suspects["box_id"].tolist()
    (manifest,) = (workspace.interim_dir / "relabel_exports").glob("*.json")
    content = json.loads(manifest.read_text(encoding="utf-8"))
    for image in content["images"].values():
        image["suspects"] = [row[:-1] for row in image["suspects"]]
    for path in (manifest, *workspace.root.glob("relabel_*/manifest.json")):
        path.write_text(json.dumps(content), encoding="utf-8")
    old = {export.image_id: export.suspects for export in read_manifests(workspace).values()}
    assert all(old[sheet.image_id]["label"].tolist() == sheet.suspects["label"].tolist() for sheet in sheets)


def test_no_boxes_have_no_changes():
    empty = make_boxes([])
    assert relabel.compare_labels(empty, empty).empty
    assert relabel.count_changes(relabel.compare_labels(empty, empty), LABELS).to_numpy().sum() == 0


# ---------------------------------------------------------------- names


def test_names_are_safe_unique_and_lead_back_whatever_a_tool_puts_around_them(workspace):
    folder, sheets = export(workspace, "cvat")
    names = [sheet.name for sheet in sheets]
    assert len({sheet.stem.lower() for sheet in sheets}) == 4
    assert all(name.isascii() and "/" not in name and " " not in name for name in names)
    assert [sheet.image_id for sheet in sheets] == ["train/a/same.jpg", TURNED, "train/empty.png", "train/소 1.png"]
    assert names == sorted(names)  # tools sort by name: the most suspicious first
    known = read_manifests(workspace)
    for sheet in sheets:
        for name in (sheet.name, sheet.stem, f"images/{sheet.name}", f"sub\\{sheet.name}",
                     f"/data/upload/3/1a2b3c4d-{sheet.name}", f"1a2b3c4d__{sheet.stem}", f"{sheet.stem}_x7Dk2Pq",
                     f"/data/local-files/?d=relabel%2Fimages/{sheet.name}"):
            found = find_exported(name, known)
            assert found is not None
            assert found.image_id == sheet.image_id, name
    for name in ("same.jpg", "0123456789ab.jpg", "", names[0].replace(sheets[0].stem[-12:], "f" * 12)):
        assert find_exported(name, known) is None


def test_names_of_images_that_differ_in_case_or_letters_left_out_differ():
    assert len({sheet_name(1, image_id, ".JPG").lower() for image_id in ("a/x.jpg", "A/x.jpg", "a-x.jpg", "소/x.jpg",
                                                                        "돼지/x.jpg", "x" * 300 + ".jpg")}) == 6
    assert len(sheet_name(1, "x" * 300 + ".jpg", ".jpg")) < 100


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("format", relabel.FORMATS)
def test_pictures_stand_upright_without_exif_and_others_keep_their_bytes(workspace, format):
    folder, sheets = export(workspace, format)
    for sheet in sheets:
        raw, written = workspace.root.parent / "raw" / sheet.image_id, folder / "images" / sheet.name
        with Image.open(written) as picture:
            assert picture.size == SIZE
            assert picture.getexif().get(0x0112, 1) == 1
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        if sheet.image_id != TURNED:
            assert written.read_bytes() == raw.read_bytes()
            continue
        with Image.open(raw) as picture:
            assert picture.size == SIZE[::-1]
            shown = np.rot90(np.asarray(picture), -1).astype(int)
        assert np.abs(pixels - shown).mean() < 8  # one more compression of noise; another turn gives 80 and more


def test_archives_are_found_from_any_folder(workspace, monkeypatch):
    path = workspace.interim_dir / "images.parquet"
    write_table(pd.read_parquet(path).assign(archive="."), path)  # tables say where archives lie below the data
    workspace.data_dir_path.write_text(f"{workspace.root.parent / 'raw'}\n")
    monkeypatch.chdir("/")
    folder, sheets = export(workspace, "yolo")
    assert (folder / "images" / sheets[0].name).exists()


def test_a_picture_that_is_another_since_it_was_read_is_refused(workspace):
    Image.new("RGB", (20, 10)).save(workspace.root.parent / "raw/train/a/same.jpg")
    with pytest.raises(ValueError, match=r"same\.jpg: cannot be exported: expected 200 x 100 px .* found 20 x 10"):
        export(workspace, "cvat")
    assert not list(workspace.root.glob("*relabel_cvat*"))  # nothing half done is left


def test_tiff_becomes_a_format_that_browsers_show(workspace):
    raw = workspace.root.parent / "raw/train/a/same.jpg"
    with Image.open(raw) as picture:
        pixels = np.asarray(picture)
    Image.fromarray(pixels).save(raw, format="TIFF")
    folder, sheets = export(workspace, "yolo")
    with Image.open(folder / "images" / sheets[0].name) as picture:
        assert (picture.format, sheets[0].name[-4:]) == ("PNG", ".png")
        assert (np.asarray(picture) == pixels).all()


# ---------------------------------------------------------------- what is exported


def test_cvat_gets_its_own_xml_labels_in_order_and_a_zip(workspace):
    folder, sheets = export(workspace, "cvat")
    root = parse(folder / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [element.text for element in root.findall("meta/task/labels/label/name")] == LABELS
    image = root.findall("image")[0]
    assert image.attrib == {"id": "0", "name": sheets[0].name, "width": "200", "height": "100"}
    pig, cow, suspect = image.findall("box")
    assert cow.attrib == {"label": "cow", "source": "manual", "occluded": "0", "xtl": "100.25", "ytl": "20.50",
                          "xbr": "180.75", "ybr": "90.00", "z_order": "0"}
    assert {a.get("name"): a.text for a in suspect.findall("attribute")} == {"origin": "suspect", "confidence": "0.900"}
    assert (suspect.get("source"), suspect.get("xtl"), suspect.get("label")) == ("auto", "60.00", "pig")
    specification = json.loads((folder / "labels.json").read_text())
    assert [label["name"] for label in specification] == LABELS
    assert specification[0]["attributes"][0]["values"] == ["human", "suspect"]
    with zipfile.ZipFile(folder / "images.zip") as archive:
        assert sorted(archive.namelist()) == [sheet.name for sheet in sheets]
        assert archive.read(sheets[0].name) == (folder / "images" / sheets[0].name).read_bytes()


def test_label_studio_gets_predictions_in_percent_and_its_configuration(workspace):
    folder, sheets = export(workspace, "label-studio")
    tasks = json.loads((folder / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == f"/data/local-files/?d=relabel_label-studio/images/{sheets[0].name}"
    assert tasks[0]["data"]["image_id"] == "train/a/same.jpg"
    assert "annotations" not in tasks[0]
    pig, cow, suspect = tasks[0]["predictions"][0]["result"]
    assert (cow["type"], cow["from_name"], cow["to_name"]) == ("rectanglelabels", "label", "image")
    assert (cow["original_width"], cow["original_height"], cow["image_rotation"]) == (200, 100, 0)
    assert cow["value"] == {"x": 50.125, "y": 20.5, "width": 40.25, "height": 69.5, "rotation": 0,
                            "rectanglelabels": ["cow"]}
    assert (suspect["score"], suspect["meta"]) == (0.9, {"text": ["suspect 0.90"]})
    assert "score" not in cow
    config = parse(folder / "labelling_config.xml").getroot()
    assert [label.get("value") for label in config.iter("Label")] == LABELS
    assert (config.find("Image").get("name"), config.find("RectangleLabels").get("name")) == ("image", "label")


def test_yolo_gets_names_everywhere_and_a_list_of_suspects(workspace):
    folder, sheets = export(workspace, "yolo")
    lines = (folder / "labels" / f"{sheets[0].stem}.txt").read_text().splitlines()
    assert lines[0].split()[0] == "0"
    assert [float(value) for value in lines[1].split()] == [1, 0.7025, 0.5525, 0.4025, 0.695]
    for name in ("classes.txt", "obj.names", "labels/classes.txt"):
        assert (folder / name).read_text().split() == LABELS
    assert yaml.safe_load((folder / "data.yaml").read_text())["names"] == {0: "pig", 1: "cow"}
    rows = list(csv.DictReader(io.StringIO((folder / "suspects.csv").read_text())))
    assert rows[0] == {"file": f"labels/{sheets[0].stem}.txt", "line": "3", "label": "pig", "confidence": "0.900"}
    assert len(rows) == 4
    assert float(lines[2].split()[1]) == 0.375  # line 3 is that suspect's: (60 + 90) / 2 / 200


def test_top_counts_suspects(workspace):
    folder, sheets = export(workspace, "cvat", top=2)
    assert [(sheet.image_id, len(sheet.human), len(sheet.suspects)) for sheet in sheets] == [
        ("train/a/same.jpg", 2, 1), (TURNED, 1, 1)]


def test_suspects_that_have_got_a_label_or_were_rejected_are_not_shown_again(workspace):
    folder, _ = export(workspace, "yolo")
    sheet = next(iter((folder / "labels").glob("0002*.txt")))
    sheet.write_text("".join(line + "\n" for line in sheet.read_text().splitlines()[:1]))  # that suspect was wrong
    import_(folder, workspace, accept_suspects=True)
    with pytest.raises(ValueError, match="no suspect is left to look at: 3 have a label by now, 1 were rejected"):
        export(workspace, "yolo", out=workspace.root / "second")
    _, sheets = export(workspace, "yolo", out=workspace.root / "second", again=True)
    assert [sheet.image_id for sheet in sheets] == [TURNED]


# ---------------------------------------------------------------- there and back without a change


@pytest.mark.parametrize("format", relabel.FORMATS)
def test_an_export_that_comes_back_as_it_was_changes_nothing(workspace, format):
    folder, _ = export(workspace, format)
    imported = import_(folder, workspace)
    assert changed(imported) == []
    assert not relabel.relabels_path(workspace).exists()
    assert imported.suspects == {"accepted": 0, "rejected": 0, "undecided": 0 if format == "label-studio" else 4}
    assert len(imported.unreviewed) == (4 if format == "label-studio" else 0)
    pd.testing.assert_frame_equal(used_boxes(workspace), raw_boxes(workspace))


# ---------------------------------------------------------------- edits in each tool's own layout

EXPECTED_EDITS = [
    ("train/a/same.jpg", "added", "", "cow"),  # drawn by hand
    ("train/a/same.jpg", "added", "", "pig"),  # the suspect, accepted
    ("train/a/same.jpg", "class changed", "pig", "cow"),
    ("train/a/same.jpg", "moved", "cow", "cow"),
    (TURNED, "removed", "pig", ""),
]
EXPECTED_BOXES = sorted([
    ("train/a/same.jpg", "cow", 10, 10, 50, 60), ("train/a/same.jpg", "cow", 102, 20.5, 182, 90),
    ("train/a/same.jpg", "pig", 60, 10, 90, 60), ("train/a/same.jpg", "cow", 150, 0, 199, 19),
    ("train/other.png", "cow", 1, 1, 9, 9), ("train/소 1.png", "cow", 0, 0, 200, 100),
])


def edited(sheets):
    """Boxes of the first two images after the edits, `(label, corners, origin)`; the second has none any more."""
    return {sheets[0].name: [("cow", (10, 10, 50, 60), "human"), ("cow", (102, 20.5, 182, 90), "human"),
                             ("pig", (60, 10, 90, 60), "human"), ("cow", (150, 0, 199, 19), "human")],
            sheets[1].name: []}


def write_cvat(path, sheets, contents, *, zipped):
    """As CVAT 2.x exports a task: more of meta, ids, sources and attributes, numbers with two decimals."""
    images = ""
    for number, (name, boxes) in enumerate(contents.items()):
        images += f'  <image id="{number}" name="{name}" width="200" height="100" subset="train" task_id="7">\n'
        for label, corners, origin in boxes:
            xtl, ytl, xbr, ybr = (f"{value:.2f}" for value in corners)
            images += (f'    <box label="{label}" source="file" occluded="0" xtl="{xtl}" ytl="{ytl}" xbr="{xbr}" '
                       f'ybr="{ybr}" z_order="0">\n      <attribute name="confidence"></attribute>\n'
                       f'      <attribute name="origin">{origin}</attribute>\n    </box>\n')
        images += "  </image>\n"
    text = ('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <job>\n'
            f"      <id>5</id>\n      <size>{len(contents)}</size>\n      <mode>annotation</mode>\n      <labels>\n"
            "        <label>\n          <name>pig</name>\n          <color>#33ddff</color>\n        </label>\n"
            f"      </labels>\n    </job>\n    <dumped>2026-11-26</dumped>\n  </meta>\n{images}</annotations>\n")
    if not zipped:
        path.write_text(text, encoding="utf-8")
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", text)
        archive.writestr(f"images/train/{sheets[0].name}", b"not looked at")
    return path


def yolo_line(number, corners):
    x_min, y_min, x_max, y_max = corners
    values = ((x_min + x_max) / 400, (y_min + y_max) / 200, (x_max - x_min) / 200, (y_max - y_min) / 100)
    return f"{number} " + " ".join(f"{value:.6f}" for value in values) + "\n"


def write_yolo_1_1(path, contents):
    """CVAT's "YOLO 1.1"."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
        archive.writestr("obj.names", "pig\ncow\n")
        archive.writestr("train.txt", "".join(f"data/obj_train_data/{name}\n" for name in contents))
        for name, boxes in contents.items():
            archive.writestr(f"obj_train_data/{Path(name).stem}.txt",
                             "".join(yolo_line(LABELS.index(label), corners) for label, corners, _ in boxes))
    return path


def write_ultralytics(path, contents):
    """CVAT's "Ultralytics YOLO Detection 1.0"."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.yaml", "names:\n  0: pig\n  1: cow\npath: .\ntrain: train.txt\n")
        archive.writestr("train.txt", "".join(f"data/images/train/{name}\n" for name in contents))
        for name, boxes in contents.items():
            archive.writestr(f"labels/train/{Path(name).stem}.txt",
                             "".join(yolo_line(LABELS.index(label), corners) for label, corners, _ in boxes))
    return path


def label_studio_value(label, corners):
    x_min, y_min, x_max, y_max = corners
    return {"x": x_min / 2, "y": y_min, "width": (x_max - x_min) / 2, "height": y_max - y_min, "rotation": 0,
            "rectanglelabels": [label]}


def task(number, name, boxes, **annotation):
    """A task as Label Studio exports it as JSON; no annotation where `boxes` is None."""
    results = [{"original_width": 200, "original_height": 100, "image_rotation": 0, "id": f"r{index}",
                "value": label_studio_value(label, corners), "from_name": "label", "to_name": "image",
                "type": "rectanglelabels", "origin": "prediction-changed"}
               for index, (label, corners, _) in enumerate(boxes or [])]
    annotations = [] if boxes is None else [
        {"id": number, "completed_by": 1, "result": results, "was_cancelled": False, "ground_truth": False,
         "created_at": "2026-11-26T08:00:00Z", "updated_at": "2026-11-26T08:00:00Z", "task": number, **annotation}]
    return {"id": number, "annotations": annotations, "drafts": [], "predictions": [], "total_annotations": 1,
            "data": {"image": f"/data/upload/4/0b1c2d3e-{name}"}, "meta": {}, "inner_id": number, "project": 4}


def write_label_studio(path, contents):
    tasks = [task(number, name, boxes) for number, (name, boxes) in enumerate(contents.items(), 70)]
    path.write_text(json.dumps(tasks))
    return path


def write_json_min(path, contents):
    """JSON-MIN: an annotation a record; one without boxes has no key for them; no annotation, no id of one."""
    records = []
    for number, (name, boxes) in enumerate(contents.items(), 70):
        record = {"image": f"/data/local-files/?d=out%2Fimages%2F{name}", "image_id": "whatever", "id": number,
                  "annotator": 1, "annotation_id": None if boxes is None else number, "lead_time": 3.5,
                  "created_at": "2026-11-26T08:00:00Z", "updated_at": "2026-11-26T08:00:00Z"}
        if boxes:
            record["label"] = [{**label_studio_value(label, corners), "original_width": 200, "original_height": 100}
                               for label, corners, _ in boxes]
        records.append(record)
    path.write_text(json.dumps(records))
    return path


LAYOUTS = {
    "cvat.xml": lambda path, sheets, contents: write_cvat(path, sheets, contents, zipped=False),
    "cvat.zip": lambda path, sheets, contents: write_cvat(path, sheets, contents, zipped=True),
    "yolo11.zip": lambda path, sheets, contents: write_yolo_1_1(path, contents),
    "ultralytics.zip": lambda path, sheets, contents: write_ultralytics(path, contents),
    "project-1-at.json": lambda path, sheets, contents: write_label_studio(path, contents),
    "min.json": lambda path, sheets, contents: write_json_min(path, contents),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exactly_the_edits_come_back_from_each_layout(workspace, tmp_path, layout):
    raw = (workspace.interim_dir / "boxes.parquet").read_bytes()
    _, sheets = export(workspace, "cvat")
    contents = {name: [*boxes] for name, boxes in edited(sheets).items()}
    path = LAYOUTS[layout](tmp_path / layout, sheets, contents)
    is_yolo = layout.endswith(".zip") and layout != "cvat.zip"
    imported = import_(path, workspace, accept_suspects=True if is_yolo else None)
    assert changed(imported) == EXPECTED_EDITS
    assert imported.suspects == {"accepted": 1, "rejected": 1, "undecided": 0}
    assert imported.emptied.to_dict() == {TURNED: 1}
    assert rows_of(used_boxes(workspace)) == EXPECTED_BOXES
    assert (workspace.interim_dir / "boxes.parquet").read_bytes() == raw
    assert imported.image_ids == ["train/a/same.jpg", TURNED]


def test_label_studios_yolo_export_is_read_by_its_own_order_of_classes_and_empty_files_say_nothing(workspace, tmp_path):
    _, sheets = export(workspace, "label-studio")
    folder = tmp_path / "project-4-yolo"
    (folder / "labels").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "classes.txt").write_text("cow\npig\n")  # in alphabetical order
    (folder / "notes.json").write_text(json.dumps({
        "categories": [{"id": 0, "name": "cow"}, {"id": 1, "name": "pig"}],
        "info": {"year": 2026, "version": "1.0", "contributor": "Label Studio"}}))
    boxes = edited(sheets)[sheets[0].name]
    (folder / "labels" / f"0b1c2d3e-{sheets[0].stem}.txt").write_text(
        "".join(yolo_line(["cow", "pig"].index(label), corners) for label, corners, _ in boxes))
    (folder / "labels" / f"1b1c2d3e-{sheets[1].stem}.txt").write_text("")
    imported = import_(folder, workspace)
    assert changed(imported) == EXPECTED_EDITS[:-1]
    assert imported.suspects["accepted"] == 1  # only tasks that were submitted are in the export with boxes
    assert imported.unreviewed == [f"1b1c2d3e-{sheets[1].stem}"]
    assert any("Label Studio writes for tasks without annotation too" in note for note in imported.notes)


def test_a_suspect_counts_as_looked_at_when_marked_moved_or_said_so(workspace, tmp_path):
    _, sheets = export(workspace, "cvat")
    human = ("pig", (10, 10, 50, 60), "human"), ("cow", (100.25, 20.5, 180.75, 90), "human")
    for number, (suspect, options, accepted) in enumerate([
        (("pig", (60, 10, 90, 60), "suspect"), {}, False),
        (("pig", (60, 10, 90, 60), ""), {}, False),
        (("pig", (60, 10, 90, 60), "human"), {}, True),
        (("pig", (60, 10, 90, 61), "suspect"), {}, True),
        (("cow", (60, 10, 90, 60), "suspect"), {}, True),
        (("pig", (60, 10, 90, 60), "suspect"), {"accept_suspects": True}, True),
    ]):
        path = write_cvat(tmp_path / f"{number}.xml", sheets, {sheets[0].name: [*human, suspect]}, zipped=False)
        imported = import_(path, workspace, dry_run=True, **options)
        assert imported.suspects == {"accepted": int(accepted), "rejected": 0, "undecided": int(not accepted)}
        assert len(imported.after) == 2 + accepted
    assert not relabel.relabels_path(workspace).exists()


def test_a_second_import_replaces_only_the_images_it_contains(workspace, tmp_path):
    _, sheets = export(workspace, "cvat")
    import_(write_cvat(tmp_path / "1.xml", sheets, edited(sheets), zipped=False), workspace)
    back = {sheets[0].name: [("pig", (10, 10, 50, 60), "human"), ("cow", (100.25, 20.5, 180.75, 90), "human")]}
    imported = import_(write_cvat(tmp_path / "2.xml", sheets, back, zipped=False), workspace)
    assert imported.stale == ["train/a/same.jpg"]  # its labels changed after the export: by the first import
    assert rows_of(used_boxes(workspace)) == rows_of(raw_boxes(workspace).query("image_id != @TURNED"))
    log = [json.loads(line) for line in (workspace.root / "relabels.jsonl").read_text().splitlines()]
    assert [line["changed"] for line in log] == [["train/a/same.jpg", TURNED], ["train/a/same.jpg"]]
    assert log[0]["emptied"] == [TURNED]


def test_a_suspect_that_is_a_label_by_now_is_not_undecided_again(workspace):
    folder, _ = export(workspace, "yolo")
    import_(folder, workspace, accept_suspects=True)
    imported = import_(folder, workspace)
    assert changed(imported) == []
    assert imported.suspects == {"accepted": 4, "rejected": 0, "undecided": 0}


def test_a_suspect_of_an_earlier_export_is_undecided_as_long_as_nobody_touched_it(workspace):
    first, _ = export(workspace, "cvat", out=workspace.root / "first")
    suspects = pd.read_csv(workspace.root / "suspects.csv")
    suspects.assign(x_max=suspects["x_max"] + 1).iloc[:3].to_csv(workspace.root / "suspects.csv", index=False)
    export(workspace, "yolo")  # of boxes a pixel wider, and none of the fourth image
    imported = import_(first / "annotations.xml", workspace, dry_run=True)
    assert imported.suspects == {"accepted": 0, "rejected": 0, "undecided": 4}
    assert changed(imported) == []
    second, _ = export(workspace, "cvat", out=workspace.root / "second")  # the same format twice
    for path, n in ((first / "annotations.xml", 4), (second / "annotations.xml", 3), (first, 4), (second, 3)):
        imported = import_(path, workspace, dry_run=True)
        assert imported.suspects == {"accepted": 0, "rejected": 0, "undecided": n}, path
        assert changed(imported) == []


def test_a_suspect_is_rejected_only_by_a_file_of_the_export_that_showed_it(workspace, tmp_path):
    _, sheets = export(workspace, "cvat")
    suspects = pd.read_csv(workspace.root / "suspects.csv")
    more = suspects[suspects["image_id"] == TURNED].assign(x_min=30, x_max=60)
    pd.concat([suspects, more]).to_csv(workspace.root / "suspects.csv", index=False)
    export(workspace, "yolo")
    human = ("pig", (5, 5, 25, 95), "human")
    name = next(sheet.name for sheet in sheets if sheet.image_id == TURNED)
    path = write_cvat(tmp_path / "1.xml", sheets, {name: [human]}, zipped=False)
    imported = import_(path, workspace, dry_run=True)
    assert imported.suspects == {"accepted": 0, "rejected": 1, "undecided": 0}  # not the one that came later
    assert rows_of(imported.rejected) == [(TURNED, "cow", 100, 10, 160, 60)]


def test_the_manifest_is_found_in_the_workspace_or_where_one_says(workspace, tmp_path):
    folder, sheets = export(workspace, "cvat", out=tmp_path / "out")
    path = write_cvat(tmp_path / "1.xml", sheets, edited(sheets), zipped=False)
    copies = workspace.interim_dir / "relabel_exports"
    copies.rename(tmp_path / "moved")  # `make clean` removes interim/
    with pytest.raises(ValueError, match="nothing was exported from this workspace"):
        import_(path, workspace, dry_run=True)
    assert changed(import_(path, workspace, dry_run=True, exported=folder)) == EXPECTED_EDITS
    folder.rename(workspace.root / "relabel_cvat")
    assert changed(import_(path, workspace, dry_run=True)) == EXPECTED_EDITS


def test_an_import_of_the_same_file_again_changes_nothing(workspace, tmp_path):
    _, sheets = export(workspace, "cvat")
    path = write_cvat(tmp_path / "1.xml", sheets, edited(sheets), zipped=False)
    import_(path, workspace)
    before = used_boxes(workspace)
    assert changed(import_(path, workspace)) == []
    pd.testing.assert_frame_equal(used_boxes(workspace), before)


# ---------------------------------------------------------------- what reading makes of it


def test_applying_corrected_labels_reports_each_image_and_leaves_the_others(workspace):
    images = pd.read_parquet(workspace.interim_dir / "images.parquet")
    empty = "image with no box: kept"
    report = pd.DataFrame([("raw/x", "train/empty.png", empty, ""), ("raw/y", "train/other.png", "box clipped", "")],
                          columns=["file", "image_id", "reason", "detail"])
    relabel.write_relabels(workspace, ["train/empty.png", TURNED, "gone.png"], boxes_table([
        ("train/empty.png", "pig", 1, 1, 9, 9), ("gone.png", "pig", 1, 1, 9, 9)]))
    boxes, left_out = relabel.apply_relabels(images, raw_boxes(workspace), report, relabel.read_relabels(workspace),
                                             LABELS, "relabels.parquet")
    assert rows_of(boxes) == sorted([*(row for row in rows_of(raw_boxes(workspace)) if row[0] != TURNED),
                                     ("train/empty.png", "pig", 1, 1, 9, 9)])
    assert (boxes["source"] == "gold").all()
    assert sorted(left_out.itertuples(index=False, name=None)) == sorted([
        ("raw/y", "train/other.png", "box clipped", ""),
        ("relabels.parquet", "gone.png", "corrected labels of an image that is not in the data: not used", ""),
        ("relabels.parquet", TURNED, empty, ""),
        ("relabels.parquet", TURNED, "labels corrected by hand: those are used", "boxes: 0 in place of 1"),
        ("relabels.parquet", "train/empty.png", "labels corrected by hand: those are used", "boxes: 1 in place of 0"),
    ])
    assert relabel.describe_relabels(workspace, images).startswith(
        "labels of 2 of 5 images were corrected by hand and replace the raw ones; 1 corrected images are not in this ")


def test_all_boxes_of_all_images_may_go(workspace):
    images = pd.read_parquet(workspace.interim_dir / "images.parquet")
    relabel.write_relabels(workspace, list(images["image_id"]), make_boxes([]))
    assert used_boxes(workspace).empty


@pytest.mark.bad_input
def test_corrected_labels_that_do_not_fit_are_refused_by_file_and_row(workspace):
    relabel.write_relabels(workspace, [TURNED], boxes_table([(TURNED, "pig", 1, 1, 900, 9)]))
    images, report = pd.read_parquet(workspace.interim_dir / "images.parquet"), pd.DataFrame()
    with pytest.raises(ValueError, match=r"relabels\.parquet: row 0 \(train/b/same\.jpg\): expected x_min < x_max"):
        relabel.apply_relabels(images, raw_boxes(workspace), report, relabel.read_relabels(workspace), LABELS,
                               "relabels.parquet")
    relabel.relabels_path(workspace).write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"relabels\.parquet: expected corrected labels .* delete it to go back"):
        relabel.read_relabels(workspace)


def test_01_goes_on_from_corrected_labels_and_raw_ones_stay(workspace, tmp_path, capsys):
    data, rng = tmp_path / "data", np.random.default_rng(0)
    for name in ("images/a.png", "images/b.png"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (100, 200, 3), np.uint8)).save(data / name)
    (data / "labels").mkdir()
    for name in ("a", "b"):
        (data / f"labels/{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (data / "data.yaml").write_text("names: [pig, cow]\n")
    (tmp_path / "competition.yaml").write_text("name: farm\nclasses: {pig: [pig], cow: [cow]}\n")
    run = make_run(competition=str(tmp_path / "competition.yaml"), profile="smoke", data=str(data), seed=0,
                            workspace=str(tmp_path / "run"), reader="yolo")
    before = read_data(run)
    assert "corrected by hand" not in capsys.readouterr().out
    a_id = next(image_id for image_id in before.images["image_id"] if "a.png" in image_id)
    boxes_table([(a_id, "cow", 160, 10, 190, 40, 0.9)], source="model").to_csv(
        run.workspace.root / "suspects.csv", index=False)
    folder, _ = export(run.workspace, "yolo")
    import_(folder, run.workspace, accept_suspects=True)
    raw = {path: path.read_bytes() for path in data.rglob("*.*")}
    after = read_data(run)
    assert "labels of 1 of 2 images were corrected by hand" in capsys.readouterr().out
    assert rows_of(after.boxes) == sorted([*rows_of(before.boxes), (a_id, "cow", 160, 10, 190, 40)])
    assert after.left_out["detail"].tolist() == ["boxes: 2 in place of 1"]
    assert raw == {path: path.read_bytes() for path in data.rglob("*.*")}
    record = read_records(run.workspace.root)["read"]
    assert relabel.relabels_path(run.workspace).name in record.inputs  # so that the answer's trace names it
    read_data(run)
    assert "read: done before, skipped" in capsys.readouterr().out
    relabel.relabels_path(run.workspace).unlink()
    assert rows_of(read_data(run).boxes) == rows_of(before.boxes)


def test_a_search_on_corrected_labels_is_another_study(workspace):
    names = [name_study("evolve", workspace)]
    relabel.write_relabels(workspace, [TURNED], make_boxes([]))
    names += [name_study("evolve", workspace), name_study("evolve", workspace), name_study("mine", workspace)]
    relabel.write_relabels(workspace, ["train/empty.png"], boxes_table([("train/empty.png", "pig", 1, 1, 9, 9)]))
    names.append(name_study("evolve", workspace))
    assert (names[0], names[1], names[3]) == ("evolve", names[2], "mine")
    assert len(set(names)) == 4


# ---------------------------------------------------------------- bad files


def bad_cvat(image="", box=""):
    """An XML with one image and one box, with some of their attributes replaced."""
    def build(sheets):
        attributes = {"id": "0", "name": sheets[0].name, "width": "200", "height": "100"}
        shape = {"label": "pig", "xtl": "1", "ytl": "1", "xbr": "9", "ybr": "9"}
        for target, changes in ((attributes, image), (shape, box)):
            target.update(pair.split("=") for pair in changes.split())
        words = [" ".join(f'{name}="{value}"' for name, value in part.items()) for part in (attributes, shape)]
        return f"<annotations><image {words[0]}><box {words[1]}/></image></annotations>"
    return build


BAD_FILES = {
    "class": ("a.xml", bad_cvat(box="label=horse"),
              r"a\.xml: image '0001_.*', shape 1 \(box\): class 'horse': expected one of \['pig', 'cow'\]"),
    "not exported": ("a.xml", bad_cvat(image="name=foreign.jpg"),
                     r"a\.xml: image 'foreign.jpg': an image that was not exported from this workspace"),
    "size": ("a.xml", bad_cvat(image="width=100"), "expected a picture of 200 x 100 px, as exported, found 100 x 100"),
    "no number": ("a.xml", bad_cvat(box="xtl=nan"), r"shape 1 \(box\): expected numbers xtl, ytl, xbr, ybr, found"),
    "order": ("a.xml", bad_cvat(box="xtl=50"), r"expected corners in order, found \[50\.0, 1\.0, 9\.0, 9\.0\] px"),
    "twice": ("a.xml",
              lambda sheets: "<annotations>" + 2 * f'<image id="0" name="{sheets[0].name}"/>' + "</annotations>",
              r"the image 'train/a/same\.jpg' a second time, after .*a\.xml: image '0001_"),
    "video": ("a.xml", lambda sheets: '<annotations><track id="0" label="pig"/></annotations>',
              "expected images, found tracks of a video"),
    "voc": ("a.xml", lambda sheets: "<annotation/>", r"expected <annotations>, .* found <annotation>"),
    "no xml": ("a.xml", lambda sheets: "<annotations>", "expected XML as CVAT writes it, found"),
    "entities": ("a.xml", lambda sheets: '<!DOCTYPE a [<!ENTITY e "x">]><annotations>&e;</annotations>',
                 "expected XML as CVAT writes it, found: DTDForbidden"),
    "no json": ("a.json", lambda sheets: "[{", "expected JSON as Label Studio writes it, found"),
    "coco": ("a.json", lambda sheets: '{"images": [], "annotations": []}', "expected a list of Label Studio's tasks"),
    "no picture": ("a.json", lambda sheets: '[{"id": 4, "data": {}, "annotations": []}]',
                   r"a\.json: task 4: expected the picture under 'image'"),
    "odd annotations": ("a.json", lambda sheets: '[{"id": 4, "data": {"image": "x.jpg"}, "annotations": [3]}]',
                        "task 4: expected annotations, a list of objects"),
    "two classes": ("a.json", lambda sheets: json.dumps([task(4, sheets[0].name, [("pig", (1, 1, 9, 9), "")])]).replace(
        '["pig"]', '["pig", "cow"]'), r"task 4, region 1: expected one class, found \['pig', 'cow'\]"),
    "turned in the tool": ("a.json", lambda sheets: json.dumps(
        [task(4, sheets[0].name, [("pig", (1, 1, 9, 9), "")])]).replace('"image_rotation": 0', '"image_rotation": 90'),
        "region 1: the picture was turned by 90 degrees in the tool; turn it back"),
    "one picture in two tasks": ("a.json", lambda sheets: json.dumps(
        [task(4, sheets[0].name, []), task(5, sheets[0].name, [])]), "task 5: the image 'train/a/same.jpg' a second"),
    "text": ("a.txt", lambda sheets: "0 .5 .5 .1 .1", "expected data.yaml, data.yml, obj.names, classes.txt, notes"),
    "nothing": ("a.csv", lambda sheets: "", "expected labels from an annotation tool, found none"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_with_its_entry_and_nothing_is_stored(workspace, tmp_path, case):
    _, sheets = export(workspace, "cvat")
    name, content, message = BAD_FILES[case]
    (tmp_path / name).write_text(content(sheets), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        import_(tmp_path / name, workspace)
    assert not relabel.relabels_path(workspace).exists()
    assert not (workspace.root / "relabels.jsonl").exists()


@pytest.mark.bad_input
def test_all_faults_of_a_file_are_listed_at_once(workspace, tmp_path):
    _, sheets = export(workspace, "cvat")
    contents = {sheets[0].name: [("horse", (1, 1, 9, 9), ""), ("dog", (1, 1, 9, 9), "")], "x.jpg": []}
    with pytest.raises(ValueError, match="nothing was imported: 3 faults") as caught:
        import_(write_cvat(tmp_path / "a.xml", sheets, contents, zipped=False), workspace)
    assert all(name in str(caught.value) for name in ("horse", "dog", "x.jpg"))


@pytest.mark.bad_input
@pytest.mark.parametrize(("files", "message"), [
    ({"labels/{stem}.txt": "0 .5 .5 .1\n", "classes.txt": "pig\ncow\n"}, r"line 1: expected `class cx cy w h`, found"),
    ({"labels/{stem}.txt": "2 .5 .5 .1 .1\n", "classes.txt": "pig\ncow\n"}, "line 1: class 2 has no name"),
    ({"labels/{stem}.txt": "0 .5 .5 .1 .1\n"}, "with the names of the classes, found none"),
    ({"labels/{stem}.txt": "", "classes.txt": "pig\ncow\n", "data.yaml": "names: [cow, pig]\n"},
     "the numbers of the classes are not sure"),
    ({"labels/{stem}.txt": "", "data.yaml": "names: 3\n"}, "expected the names of the classes, found"),
    ({"../up.txt": "", "classes.txt": "pig\n"}, "leaves the archive's folder; refused"),
])
def test_a_bad_yolo_zip_is_named_with_its_line(workspace, tmp_path, files, message):
    _, sheets = export(workspace, "yolo")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(name.format(stem=sheets[0].stem), text)
    with pytest.raises(ValueError, match=message):
        import_(tmp_path / "a.zip", workspace)


def test_boxes_outside_the_image_are_clipped_or_left_out_with_a_line(workspace, tmp_path):
    _, sheets = export(workspace, "cvat")
    contents = {sheets[2].name: [("pig", (-5, 10, 50, 60), "human"), ("pig", (300, 10, 400, 60), "human"),
                                 ("cow", (7, 7, 7, 9), "human"), ("cow", (150, 0, 200.3, 50), "human")]}
    imported = import_(write_cvat(tmp_path / "a.xml", sheets, contents, zipped=False), workspace)
    assert [row[1:] for row in rows_of(imported.after)] == [("cow", 150, 0, 200, 50), ("pig", 0, 10, 50, 60)]
    assert [note.split("(box): ")[1].split(" (")[0] for note in imported.notes] == [
        "partly outside the image", "no area inside the image", "no area inside the image"]


def test_turned_boxes_and_polygons_become_their_bounding_box_with_a_line(workspace, tmp_path):
    _, sheets = export(workspace, "cvat")
    (tmp_path / "a.xml").write_text(
        f'<annotations><image name="{sheets[2].name}" width="200" height="100">'
        '<box label="pig" xtl="40" ytl="40" xbr="80" ybr="60" rotation="90"/>'
        '<polygon label="cow" points="100,10;120,30;90,20"/><points label="cow" points="1,1"/>'
        '<tag label="cow"/></image></annotations>')
    imported = import_(tmp_path / "a.xml", workspace, dry_run=True)
    assert [row[1:] for row in rows_of(imported.after)] == [("cow", 90, 10, 120, 30), ("pig", 50, 30, 70, 70)]
    assert len(imported.notes) == 3
    turned = task(4, sheets[2].name, [("pig", (40, 40, 80, 60), "")])  # about its first corner, in pixels
    turned["annotations"][0]["result"][0]["value"]["rotation"] = 90
    (tmp_path / "a.json").write_text(json.dumps([turned]))
    imported = import_(tmp_path / "a.json", workspace, dry_run=True)
    assert rows_of(imported.after) == [("train/empty.png", "pig", 20, 40, 40, 80)]


def test_masks_and_ellipses_become_their_bounding_box_with_a_line(workspace, tmp_path):
    _, sheets = export(workspace, "cvat")
    (tmp_path / "a.xml").write_text(
        f'<annotations><image name="{sheets[2].name}" width="200" height="100">'
        '<mask label="pig" source="semi-auto" occluded="0" rle="3, 4, 5" left="40" top="30" width="4" height="3"/>'
        '<ellipse label="cow" cx="100" cy="50" rx="30" ry="10" rotation="90"/></image></annotations>')
    imported = import_(tmp_path / "a.xml", workspace, dry_run=True)
    assert [row[1:] for row in rows_of(imported.after)] == [("cow", 90, 20, 110, 80), ("pig", 40, 30, 44, 33)]
    assert [note.rsplit(": ", 1)[1] for note in imported.notes] == ["its bounding box is used"] * 2


@pytest.mark.bad_input
def test_a_mask_without_its_extent_is_a_fault(workspace, tmp_path):
    _, sheets = export(workspace, "cvat")
    (tmp_path / "a.xml").write_text(f'<annotations><image name="{sheets[2].name}" width="200" height="100">'
                                    '<mask label="pig" rle="3, 4, 5" left="40" top="30"/></image></annotations>')
    with pytest.raises(ValueError, match=r"shape 1 \(mask\): expected numbers left, top, width, height, found"):
        import_(tmp_path / "a.xml", workspace)


@pytest.mark.bad_input
@pytest.mark.parametrize("is_min", [False, True])
def test_an_image_with_a_brush_of_label_studio_is_left_as_it_was_with_a_line(workspace, tmp_path, is_min):
    _, sheets = export(workspace, "label-studio")
    brush = {"format": "rle", "rle": [0, 0, 78, 32, 1], "brushlabels": ["pig"]}
    if is_min:
        path = write_json_min(tmp_path / "a.json", {sheets[0].name: []})
        path.write_text(json.dumps([json.loads(path.read_text())[0] | {"brush": [brush]}]))
    else:
        painted = task(4, sheets[0].name, [("cow", (1, 1, 9, 9), "")])
        painted["annotations"][0]["result"].append({"id": "b", "type": "brushlabels", "value": brush})
        path = tmp_path / "a.json"
        path.write_text(json.dumps([painted]))
    imported = import_(path, workspace)
    assert (imported.image_ids, len(imported.unreviewed), changed(imported)) == ([], 1, [])
    assert imported.notes[0].endswith("1 of its regions are painted with a brush, which has no corners: left as it "
                                      "was; draw boxes in their place, and export again")


def test_tasks_that_nobody_submitted_are_counted_and_left_as_they_were(workspace, tmp_path):
    _, sheets = export(workspace, "label-studio")
    tasks = [task(1, sheets[0].name, None), task(2, sheets[1].name, [], was_cancelled=True),
             task(3, sheets[3].name, [("cow", (0, 0, 200, 100), "")])]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    imported = import_(tmp_path / "a.json", workspace)
    assert len(imported.unreviewed) == 2
    assert imported.image_ids == ["train/소 1.png"]
    assert changed(imported) == []
    assert imported.suspects == {"accepted": 0, "rejected": 1, "undecided": 0}


def test_tasks_without_annotation_change_nothing_in_json_min_either(workspace, tmp_path):
    _, sheets = export(workspace, "label-studio")
    path = write_json_min(tmp_path / "min.json", {sheets[0].name: None, sheets[1].name: []})
    imported = import_(path, workspace)
    assert imported.unreviewed == [f"/data/local-files/?d=out%2Fimages%2F{sheets[0].name}"]
    assert changed(imported) == [(TURNED, "removed", "pig", "")]


def test_the_annotation_saved_last_counts_with_a_line(workspace, tmp_path):
    _, sheets = export(workspace, "label-studio")
    found = task(1, sheets[2].name, [("pig", (1, 1, 9, 9), "")], updated_at="2026-11-26T09:00:00Z")
    found["annotations"] += task(1, sheets[2].name, [("cow", (1, 1, 9, 9), "")])["annotations"]
    (tmp_path / "a.json").write_text(json.dumps([found]))
    imported = import_(tmp_path / "a.json", workspace, dry_run=True)
    assert imported.after["label"].tolist() == ["pig"]
    assert "2 annotations that differ: the one saved last is used" in imported.notes[0]


def test_a_picture_without_a_text_file_is_not_reviewed_and_an_empty_one_has_no_boxes(workspace):
    folder, sheets = export(workspace, "yolo")
    (folder / "labels" / f"{sheets[0].stem}.txt").unlink()
    (folder / "labels" / f"{sheets[1].stem}.txt").write_text("")
    imported = import_(folder, workspace)
    assert imported.unreviewed == [sheets[0].stem]
    assert changed(imported) == [(TURNED, "removed", "pig", "")]


# ---------------------------------------------------------------- bad exports


@pytest.mark.bad_input
@pytest.mark.parametrize(("change", "message"), [
    (lambda table: table.drop(columns="confidence"), "expected the column 'confidence'"),
    (lambda table: table.assign(image_id="gone.jpg"), r"line 2 \('gone.jpg'\): found an image that is not in the data"),
    (lambda table: table.assign(label="horse"), r"line 2 .*: found a class other than \['pig', 'cow'\]"),
    (lambda table: table.assign(x_min="left"), "line 2 .*: found corners or a confidence that are no numbers"),
    (lambda table: table.assign(x_min=199.5), r"line 2 .*: found corners that are not x_min < x_max"),
    (lambda table: table.assign(x_max=201), "line 2 .*: found a box outside its image"),
])
def test_a_bad_list_of_suspects_is_refused_by_line(workspace, change, message):
    path = workspace.root / "suspects.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(ValueError, match=rf"suspects\.csv: .*{message}"):
        export(workspace, "cvat")


@pytest.mark.bad_input
def test_an_export_is_refused_where_it_would_do_harm(workspace):
    with pytest.raises(ValueError, match=r"format: expected one of \['cvat', 'label-studio', 'yolo'\], found 'coco'"):
        export(workspace, "coco")
    with pytest.raises(ValueError, match="top: expected at least 1 suspect, found 0"):
        export(workspace, "cvat", top=0)
    export(workspace, "yolo")
    with pytest.raises(ValueError, match="exists already; labels may have been edited there"):
        export(workspace, "yolo")
    raw = workspace.root.parent / "raw"
    workspace.data_dir_path.write_text(f"{raw}\n")
    with pytest.raises(ValueError, match="lies in the raw data"):
        export(workspace, "cvat", out=raw / "out")
    (workspace.root / "suspects.csv").unlink()
    with pytest.raises(ValueError, match=r"suspects\.csv: not there yet; run 05_errors first"):
        export(workspace, "cvat")


@pytest.mark.bad_input
def test_what_was_never_exported_or_read_says_what_to_run(workspace, tmp_path):
    (tmp_path / "a.xml").write_text("<annotations/>")
    with pytest.raises(ValueError, match="nothing was exported from this workspace; run `livestock relabel export`"):
        import_(tmp_path / "a.xml", workspace)
    with pytest.raises(ValueError, match=r"images\.parquet: not there yet; run 01_eda first"):
        export(Workspace(tmp_path / "other"), "cvat")
    export(workspace, "cvat")
    with pytest.raises(ValueError, match=r"work: expected an export's folder with manifest\.json, found none"):
        import_(tmp_path / "a.xml", workspace, exported=workspace.root)
    with pytest.raises(ValueError, match=r"b\.xml: no such file or folder"):
        import_(tmp_path / "b.xml", workspace)
    next(workspace.interim_dir.glob("relabel_exports/*.json")).write_text("{}")
    with pytest.raises(ValueError, match=r"0000_cvat\.json: expected the manifest of an export"):
        import_(tmp_path / "a.xml", workspace)


# ---------------------------------------------------------------- the command


def call(*words):
    result = CliRunner().invoke(app, ["relabel", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_the_command_exports_imports_and_says_what_is_next(workspace, tmp_path):
    (tmp_path / "competition.yaml").write_text("name: farm\nclasses: {pig: [pig], cow: [cow]}\n")
    options = ["--workspace", workspace.root, "--competition", tmp_path / "competition.yaml"]
    code, out, _ = call("export", "--format", "cvat", "--top", 3, *options)
    assert code == 0
    assert out.startswith(f"{workspace.root / 'relabel_cvat'}: 3 images with 3 human boxes and 3 suspects\n")
    assert "annotations.xml" in out
    _, sheets = export(workspace, "cvat", out=tmp_path / "again")
    path = write_cvat(tmp_path / "a.xml", sheets, edited(sheets), zipped=False)
    code, out, _ = call("import", path, "--dry-run", *options)
    assert (code, "nothing was stored (--dry-run)" in out) == (0, True)
    code, out, _ = call("import", path, *options)
    assert code == 0
    assert out.splitlines()[2:4] == [
        "pig        1        1      0              1          0",
        "cow        1        0      1              0          0"]
    assert "pig -> cow: 1 boxes" in out
    assert f"WARNING: images without any box from now on: 1: {TURNED} (1 boxes)" in out
    assert "next: run 01 to 08 again" in out
    code, _, err = call("import", tmp_path / "none.xml", *options)
    assert (code, "none.xml: no such file or folder" in err) == (2, True)

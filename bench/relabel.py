"""Labels taken to an annotation tool, edited there at random and brought back: does exactly what was done arrive?

python bench/relabel.py [--data PATH --reader aihub] [--seeds 5]    about a minute on the sample

A tenth of the human boxes is taken away and exported as suspects. The person at the tool is simulated: suspects are
accepted, mended or deleted; of the human boxes some are deleted, moved or given another class; some are drawn anew.
What the labels must be then is kept apart from all files. The edited boxes are written in the layouts in which tools
export (XML of CVAT, JSON and JSON-MIN of Label Studio, "YOLO 1.1" of CVAT, the YOLO folder itself) and imported. Wrong
is a box that is missing or too many, or a corner that is off by more than 0.02 px.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from xml.sax.saxutils import quoteattr
from zipfile import ZipFile

import numpy as np
import pandas as pd

from livestock.config import REPOSITORY, Competition, Workspace, read_competition
from livestock.data import readers
from livestock.geometry import largest_iou
from livestock.labels import relabel
from livestock.sample import draw_sample
from livestock.tables import XYXY, write_table

LAYOUTS = ["cvat.xml", "cvat-yolo.zip", "label-studio.json", "label-studio-min.json", "yolo folder"]
TOLERANCE = 0.02  # px: the tools write two decimals, or six of the width


def main() -> None:
    """Prints a row for each layout, over all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of labelled images; default: the embedded sample")
    parser.add_argument("--reader", default="aihub")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    competition = read_competition(REPOSITORY / "competition.yaml")
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or draw(Path(folder) / "sample")
        reading = readers.read(arguments.reader, data, competition)
        rows = [{"layout": layout, **try_layout(layout, seed, reading, competition, Path(folder) / f"{seed}{number}")}
                for seed in range(arguments.seeds) for number, layout in enumerate(LAYOUTS)]
    table = pd.DataFrame(rows)
    sums = table.groupby("layout", sort=False)[["images", "boxes", "edits", "wrong", "wrong_unedited"]].sum()
    print(sums.assign(largest_error_px=table.groupby("layout")["error_px"].max().round(4)).to_string())


def draw(folder: Path) -> Path:
    """The embedded sample, small."""
    draw_sample(folder, n_train=60, n_test=1)
    return folder / "train"


def try_layout(layout: str, seed: int, reading: readers.Reading, competition: Competition, folder: Path) -> dict:
    """One export, edited and imported; and one that comes back as it was."""
    rng, workspace = np.random.default_rng(seed), Workspace(folder / "work")
    is_suspect = rng.random(len(reading.boxes)) < 0.1
    suspects, human = reading.boxes[is_suspect], reading.boxes[~is_suspect].reset_index(drop=True)
    suspects = suspects[largest_iou(suspects, human) < 0.3].assign(source="model")
    write_table(reading.images, workspace.interim_dir / "images.parquet")
    write_table(human, workspace.interim_dir / "boxes.parquet")
    suspects.assign(confidence=rng.random(len(suspects))).to_csv(workspace.root / "suspects.csv", index=False)
    format = "label-studio" if layout.startswith("label") else "yolo" if layout == "yolo folder" else "cvat"
    out, sheets = relabel.export_suspects(workspace, competition.labels, format, top=10**6)
    as_it_was = relabel.import_labels(out, workspace, competition, dry_run=True)
    contents, n_edits = {}, 0
    for sheet in sheets:
        contents[sheet.name], n = edit(sheet, competition.labels, rng)
        n_edits += n
    path = write_layout(layout, contents, sheets, competition.labels, folder, out)
    imported = relabel.import_labels(path, workspace, competition, accept_suspects=True)
    expected = pd.DataFrame([(sheet.image_id, label, *corners) for sheet in sheets
                             for label, corners in contents[sheet.name]], columns=["image_id", "label", *XYXY])
    wrong, error = compare(expected, imported.after)
    return {"images": len(sheets), "boxes": len(expected), "edits": n_edits, "wrong": wrong, "error_px": error,
            "wrong_unedited": len(as_it_was.changed_ids)}


def edit(sheet: relabel.Sheet, labels: list[str], rng: np.random.Generator) -> tuple[list[tuple], int]:
    """The boxes of an image after a person has been there, `(label, corners)`, and the number of edits."""
    boxes, n_edits, size = [], 0, np.array([sheet.width, sheet.height] * 2, float)
    for table, odds in ((sheet.human, (0.9, 0.03, 0.04, 0.03)), (sheet.suspects, (0.4, 0.35, 0.2, 0.05))):
        for row in table.itertuples():
            label, corners = row.label, np.array([getattr(row, name) for name in XYXY])
            act = rng.choice(["keep", "delete", "move", "class"], p=odds)
            n_edits += act != "keep" or table is sheet.suspects
            if act == "delete":
                continue
            if act == "move":
                shift = rng.uniform(0.7, 4, 4) * rng.choice([-1, 1], 4)
                moved = np.clip(corners + shift, 0, size)
                corners = moved if (moved[:2] + 1 < moved[2:]).all() else corners
            label = labels[(labels.index(label) + 1) % len(labels)] if act == "class" else label
            boxes.append((label, corners))
    for _ in range(rng.poisson(0.5)):
        low = rng.uniform(0, 0.7, 2)
        boxes.append((str(rng.choice(labels)), np.concatenate([low, low + rng.uniform(0.05, 0.3, 2)]) * size))
        n_edits += 1
    return boxes, n_edits


def write_layout(layout: str, contents: dict, sheets: list, labels: list[str], folder: Path, out: Path) -> Path:
    """The edited boxes as the tool would export them."""
    sizes = {sheet.name: np.array([sheet.width, sheet.height] * 2, float) for sheet in sheets}
    path = folder / layout.replace(" ", "-")
    if layout == "cvat.xml":
        images = "".join(
            f'<image id="{number}" name={quoteattr(name)} width="{sizes[name][0]:.0f}" height="{sizes[name][1]:.0f}">'
            + "".join(f'<box label={quoteattr(label)} source="manual" occluded="0" xtl="{box[0]:.2f}" '
                      f'ytl="{box[1]:.2f}" xbr="{box[2]:.2f}" ybr="{box[3]:.2f}" z_order="0"/>' for label, box in boxes)
            + "</image>"
            for number, (name, boxes) in enumerate(contents.items()))
        path.write_text(f"<annotations><version>1.1</version>{images}</annotations>", encoding="utf-8")
    elif layout.startswith("label-studio"):
        path.write_text(json.dumps([task(number, name, boxes, sizes[name], "min" in layout)
                                    for number, (name, boxes) in enumerate(contents.items(), 1)]))
    else:
        texts = {Path(name).stem: "".join(yolo_line(labels.index(label), box / sizes[name]) for label, box in boxes)
                 for name, boxes in contents.items()}
        if layout == "yolo folder":
            for stem, text in texts.items():
                (out / "labels" / f"{stem}.txt").write_text(text)
            return out
        with ZipFile(path, "w") as archive:
            archive.writestr("obj.names", "\n".join(labels))
            for stem, text in texts.items():
                archive.writestr(f"obj_train_data/{stem}.txt", text)
    return path


def yolo_line(number: int, box: np.ndarray) -> str:
    """A line of a box relative to its image."""
    return f"{number} " + " ".join(f"{v:.6f}" for v in [*(box[:2] + box[2:]) / 2, *(box[2:] - box[:2])]) + "\n"


def task(number: int, name: str, boxes: list, size: np.ndarray, is_min: bool) -> dict:
    """A task of Label Studio."""
    values = []
    for label, box in boxes:
        x, y, width, height = 100 * np.concatenate([box[:2], box[2:] - box[:2]]) / size
        values.append({"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [label]})
    sizes = {"original_width": int(size[0]), "original_height": int(size[1])}
    data = {"image": f"/data/upload/1/0a1b2c3d-{name}"}
    if is_min:
        return {**data, "id": number, "annotation_id": number, "label": [{**value, **sizes} for value in values]}
    results = [{"type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value, **sizes}
               for value in values]
    return {"id": number, "data": data, "annotations": [{"id": number, "result": results, "was_cancelled": False}]}


def compare(expected: pd.DataFrame, found: pd.DataFrame) -> tuple[int, float]:
    """Boxes without a partner within the tolerance, on both sides, and the largest error of the others."""
    wrong, largest = 0, 0.0
    keys = set(expected["image_id"]) | set(found["image_id"])
    for key in keys:
        left, right = (table[table["image_id"] == key] for table in (expected, found))
        gap = np.abs(left[XYXY].to_numpy(float)[:, None] - right[XYXY].to_numpy(float)[None]).max(axis=2, initial=0.0)
        gap[left["label"].to_numpy(object)[:, None] != right["label"].to_numpy(object)[None]] = np.inf
        for row in range(len(left)):
            best = int(gap[row].argmin()) if gap.shape[1] else -1
            if best < 0 or gap[row, best] > TOLERANCE:
                wrong += 1
                continue
            largest = max(largest, float(gap[row, best]))
            gap[:, best] = np.inf
        wrong += len(right) - int(np.isinf(gap).all(axis=0).sum()) if len(left) else len(right)
    return wrong, largest


if __name__ == "__main__":
    main()

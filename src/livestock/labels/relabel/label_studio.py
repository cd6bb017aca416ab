"""Label Studio's JSON: tasks with predictions on the way out, with annotations (JSON or JSON-MIN) on the way back.

Written and read as https://labelstud.io/guide/task_format and https://labelstud.io/tags/rectanglelabels describe it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ...data.archives import Member
from ...data.readers.values import identifier, read_json, short
from ...exceptions import BadData
from ...files.write import write_text
from ...tables import XYXY
from .entries import Entry, Returned, ReturnedBox, Source, are_numbers, enclose, enclose_turned
from .sheets import Sheet

CONTROL, OBJECT = "label", "image"  # the names in the labelling configuration
COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#bcbd22"]
CLASS_KEYS = ("rectanglelabels", "polygonlabels", "labels")
NOT_TASKS = {"manifest.json", "notes.json", "labels.json"}
HOW_TO = [
    "Label Studio, next steps:",
    "1. Start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and",
    "   LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={out.parent}",
    "2. Create a project: labelling interface, Code: {out}/labelling_config.xml.",
    "3. Settings, Cloud storage, add the source storage Local files with the path {out} (save, do not sync).",
    "4. Import {out}/tasks.json. Settings, Annotation: use predictions to prelabel, of \"labels and suspects\".",
    "5. In each task delete wrong boxes, draw missing ones, submit. Suspects carry a score and a note. A submitted",
    "   task is taken as it is, with the suspects left in it; one that was not submitted changes nothing.",
    "6. Export as JSON, then: livestock relabel import THE_JSON",
]


def write_sheets(sheets: Sequence[Sheet], labels: list[str], directory: Path, out: Path) -> None:
    """Writes `tasks.json` and `labelling_config.xml`.

    Human boxes and suspects are one prediction, from which the tool fills in a new annotation: were human boxes an
    annotation already, each task would count as done, and suspects would have to be copied over one by one.
    """
    tasks = []
    for sheet in sheets:
        results = [_result(sheet, row, f"{kind}{number}", is_suspect=kind == "s")
                   for kind, boxes in (("h", sheet.human), ("s", sheet.suspects))
                   for number, row in enumerate(boxes.itertuples())]
        address = "/data/local-files/?d=" + quote(f"{out.name}/images/{sheet.name}")
        tasks.append({
            "data": {OBJECT: address, "image_id": sheet.image_id},
            "predictions": [{"model_version": "labels and suspects",
                             "score": round(float(sheet.suspects["confidence"].max()), 3), "result": results}],
        })
    write_text(json.dumps(tasks, indent=1, ensure_ascii=False) + "\n", directory / "tasks.json")
    choices = "".join(f'    <Label value={quoteattr(label)} background="{COLOURS[number % len(COLOURS)]}"/>\n'
                      for number, label in enumerate(labels))
    write_text(f'<View>\n  <Image name="{OBJECT}" value="${OBJECT}" zoom="true" zoomControl="true"/>\n'
               f'  <RectangleLabels name="{CONTROL}" toName="{OBJECT}">\n{choices}  </RectangleLabels>\n</View>\n',
               directory / "labelling_config.xml")


def _result(sheet: Sheet, row: Any, number: str, *, is_suspect: bool) -> dict[str, Any]:
    x_min, y_min, x_max, y_max = (float(getattr(row, name)) for name in XYXY)
    value = {"x": 100 * x_min / sheet.width, "y": 100 * y_min / sheet.height,
             "width": 100 * (x_max - x_min) / sheet.width, "height": 100 * (y_max - y_min) / sheet.height,
             "rotation": 0, "rectanglelabels": [row.label]}
    result = {"id": f"{sheet.stem[-12:]}{number}", "type": "rectanglelabels", "from_name": CONTROL, "to_name": OBJECT,
              "original_width": sheet.width, "original_height": sheet.height, "image_rotation": 0, "value": value}
    if is_suspect:
        result |= {"score": round(float(row.confidence), 3), "meta": {"text": [f"suspect {row.confidence:.2f}"]}}
    return result


def read_returned(source: Source) -> Returned:
    """Every JSON of tasks. Raises BadData naming a file that is none.

    The latest annotation of a task that was submitted counts; a task without one is not reviewed.
    """
    returned = Returned()
    for member in task_files(source):
        where = source.where(member)
        try:
            content = read_json(source.read(member))
        except ValueError as error:
            raise BadData(f"{where}: expected JSON as Label Studio writes it, found: {error}") from error
        tasks = content if isinstance(content, list) else [content]
        if not all(isinstance(task, dict) and ("annotation_id" in task or isinstance(task.get("data"), dict))
                   for task in tasks):
            raise BadData(f"{where}: expected a list of Label Studio's tasks (export as JSON or JSON-MIN), found "
                          f"{short(content)}")
        by_task: dict[tuple[Any, str], list[dict[str, Any]]] = {}
        for number, task in enumerate(tasks, 1):
            key = identifier(task.get("id"))
            own_key = f"number {number}" if key is None else key
            by_task.setdefault((own_key, str(_data(task).get(OBJECT))), []).append(task)
        for (key, _), own in by_task.items():
            _read_task(own, f"{where}: task {key}", returned)
    return returned


def task_files(source: Source) -> list[Member]:
    """The JSON files that may hold tasks."""
    return [member for member in source.with_suffix(".json") if member.path.name.lower() not in NOT_TASKS]


def _read_task(records: list[dict[str, Any]], where: str, returned: Returned) -> None:
    """A task, in JSON one record, in JSON-MIN one an annotation."""
    name = _data(records[0]).get(OBJECT)
    if not isinstance(name, str):
        returned.faults.append(f"{where}: expected the picture under {OBJECT!r}, found {short(_data(records[0]))}")
        return
    if not all(_is_well_formed(record) for record in records):
        returned.faults.append(f"{where}: expected annotations, a list of objects with a list `result`, found "
                               f"{short(records)}")
        return
    versions = sorted(_annotations(records), key=lambda version: str(version[0]))
    if not versions:
        returned.unreviewed.append(name)
        return
    if any(version[1] != versions[-1][1] for version in versions):
        returned.notes.append(f"{where}: {len(versions)} annotations that differ: the one saved last is used")
    sizes: set[tuple[float, float]] = set()
    faults = len(returned.faults)
    regions = _without_bare(versions[-1][1])
    if n_brushes := sum(map(_is_brush, regions)):
        returned.unreviewed.append(name)
        returned.notes.append(f"{where}: {n_brushes} of its regions are painted with a brush, which has no corners: "
                              "left as it was; draw boxes in their place, and export again")
        return
    boxes = [box for number, result in enumerate(regions, 1)
             if (box := _read_result(result, f"{where}, region {number}", sizes, returned)) is not None]
    if len(sizes) > 1:
        returned.faults.append(f"{where}: expected one size of the picture, found {sorted(sizes)}")
    if len(returned.faults) == faults:
        returned.entries.append(Entry(where, name, boxes, next(iter(sizes), None), is_relative=True))


def _data(task: dict[str, Any]) -> dict[str, Any]:
    """What a task is about; in JSON-MIN that is beside its annotation."""
    return task["data"] if isinstance(task.get("data"), dict) else task


def _is_well_formed(record: dict[str, Any]) -> bool:
    annotations = record.get("annotations") or record.get("completions") or []
    return isinstance(annotations, list) and all(
        isinstance(annotation, dict) and isinstance(annotation.get("result") or [], list) for annotation in annotations)


def _without_bare(regions: list[Any]) -> list[Any]:
    """Without regions whose class is in another one of the same id, as with `<Rectangle>` beside `<Labels>`."""
    with_class = {region.get("id") for region in regions if isinstance(region, dict)
                  and isinstance(region.get("value"), dict) and any(key in region["value"] for key in CLASS_KEYS)}
    return [region for region in regions if not (isinstance(region, dict) and region.get("type") == "rectangle"
                                                 and region.get("id") in with_class)]


def _is_brush(region: Any) -> bool:
    return isinstance(region, dict) and "rle" in (region["value"] if isinstance(region.get("value"), dict) else region)


def _annotations(records: list[dict[str, Any]]) -> Iterator[tuple[Any, list[Any]]]:
    """When it was saved, and its regions, of each annotation that was submitted."""
    for record in records:
        if not isinstance(record.get("data"), dict):  # JSON-MIN
            if record.get("annotation_id") is not None:
                regions = [region for value in record.values() if isinstance(value, list) for region in value
                           if isinstance(region, dict)
                           and (any(key in region for key in CLASS_KEYS) or _is_brush(region))]
                yield record.get("updated_at") or record.get("created_at"), regions
            continue
        for annotation in record.get("annotations") or record.get("completions") or []:
            if not (annotation.get("was_cancelled") or annotation.get("skipped")):
                yield annotation.get("updated_at") or annotation.get("created_at"), annotation.get("result") or []


def _read_result(result: Any, where: str, sizes: set[tuple[float, float]], returned: Returned) -> ReturnedBox | None:
    """A region's box, relative to the picture; None for other results, such as choices."""
    value = result.get("value", result) if isinstance(result, dict) else None
    classes = next((value[key] for key in CLASS_KEYS if key in value), None) if isinstance(value, dict) else None
    if not isinstance(value, dict) or classes is None:
        if isinstance(value, dict) and "x" in value and "width" in value and "choices" not in value:
            returned.faults.append(f"{where}: a box without a class")
        elif isinstance(value, dict) and "points" in value:
            returned.notes.append(f"{where}: not a box: left out")
        return None
    if not isinstance(classes, list) or len(classes) != 1:
        returned.faults.append(f"{where}: expected one class, found {short(classes)}")
        return None
    size = (result.get("original_width"), result.get("original_height"))
    if are_numbers(*size):
        sizes.add(size)
    if result.get("image_rotation"):
        returned.faults.append(f"{where}: the picture was turned by {result['image_rotation']} degrees in the tool; "
                               "turn it back and save")
        return None
    corners = _corners(value, size, where, returned)
    return None if corners is None else ReturnedBox(where, str(classes[0]), corners)


def _corners(value: dict[str, Any], size: tuple[Any, Any], where: str, returned: Returned
             ) -> tuple[float, float, float, float] | None:
    points = value.get("points")
    if isinstance(points, list) and points and all(isinstance(p, list) and len(p) == 2 and are_numbers(*p)
                                                   for p in points):
        returned.notes.append(f"{where}: a polygon: its bounding box is used")
        return enclose([(x / 100, y / 100) for x, y in points])
    numbers: list[Any] = [value.get(name) for name in ("x", "y", "width", "height")] + [value.get("rotation", 0)]
    if not are_numbers(*numbers):
        returned.faults.append(f"{where}: expected numbers x, y, width, height, found {short(value)}")
        return None
    x, y, width, height, turn = map(float, numbers)
    corners = (x / 100, y / 100, (x + width) / 100, (y + height) / 100)
    if not turn:
        return corners
    if not are_numbers(*size):
        returned.faults.append(f"{where}: a turned box without original_width and original_height")
        return None
    returned.notes.append(f"{where}: turned by {turn:g} degrees: its bounding box is used")
    pixels = (corners[0] * size[0], corners[1] * size[1], corners[2] * size[0], corners[3] * size[1])
    turned = enclose_turned(pixels, turn, (pixels[0], pixels[1]))  # about its first corner
    return turned[0] / size[0], turned[1] / size[1], turned[2] / size[0], turned[3] / size[1]

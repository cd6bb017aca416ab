"""A model's classes against the competition's: the same names in the same order, or no box may get a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..exceptions import BadData

LabelOf = Callable[[str], str | None]  # such as `Competition.label_of`: a source's own name to the label, None: unknown


def check_labels(found: Sequence[str], labels: Sequence[str], path: Path, label_of: LabelOf | None = None) -> None:
    """Raises BadData, showing both lists, unless a model's classes `found` are `labels` in the same order.

    Case and blanks at the ends do not count. With `label_of` a synonym counts as its label.

    >>> check_labels(["Pig", "cattle"], ["pig", "cow"], Path("w.pt"), {"cattle": "cow"}.get)
    """
    if len(found) != len(labels):
        raise BadData(f"{path}: expected a model of the {len(labels)} classes {_show(labels)}, found {len(found)}: "
                      f"{_show(found)}")
    known = _known(found, label_of)
    if known == _known(labels, None):
        return
    if sorted(known) == sorted(_known(labels, None)):
        raise BadData(f"{path}: expected a model with the classes in the order {_show(labels)}, found "
                      f"{_show(found)}: each box would get another class's name. Put the classes of the competition "
                      "file into the model's order, or train with this one")
    raise BadData(f"{path}: expected a model of the classes {_show(labels)}, found {_show(found)}. If they mean the "
                  "same, add the model's names to the synonyms in the competition file; else train with this one")


def class_order(found: Sequence[str], labels: Sequence[str], label_of: LabelOf | None = None) -> list[int] | None:
    """Which of a model's classes each label should start from, where the model knows some of them elsewhere.

    None where nothing is to be moved: another number of classes, none in common, or all that are in common in place.
    Labels that the model does not know take the places that are left.

    >>> class_order(["cow", "pig"], ["pig", "cow"])
    [1, 0]
    >>> class_order(["dog", "pig"], ["pig", "cow"])  # pig from pig, cow from dog
    [1, 0]
    """
    known, wanted = _known(found, label_of), _known(labels, None)
    if len(known) != len(wanted):
        return None
    places = [known.index(name) if name in known else None for name in wanted]
    if all(place is None or place == index for index, place in enumerate(places)):
        return None
    left = iter(sorted(set(range(len(known))) - set(places)))
    return [next(left) if place is None else place for place in places]


def _known(names: Sequence[str], label_of: LabelOf | None) -> list[str]:
    return [((label_of(name) if label_of else None) or name).strip().casefold() for name in names]


def _show(names: Sequence[str]) -> str:
    """A list of names as it is printed, of a long one the beginning."""
    shown = str(list(names))
    return shown if len(shown) <= 300 else f"{shown[:300]}..."

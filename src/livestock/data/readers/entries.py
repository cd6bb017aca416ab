"""Which picture an entry of a list means, by the path that the list has for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from ...exceptions import BadData
from ..archives import normalise, split_name
from .tree import File, part_name, part_of

if TYPE_CHECKING:
    from .clean import Source


def picture_path(name: Any) -> str | None:
    """The path that a list has for a picture as files are spelt: NFC, "/" between folders; None for no text.

    Without `.`, `..`, a drive or an address before it; of Label Studio's `...?d=PATH` the path.

    >>> picture_path("C:\\\\farm\\\\cam0\\\\1.jpg"), picture_path("/data/local-files/?d=farm/1.jpg")
    ('farm/cam0/1.jpg', 'farm/1.jpg')
    """
    if not isinstance(name, str):
        return None
    before, mark, query = name.partition("?")
    name = parse_qs(query).get("d", [before])[0] if mark else name
    path = normalise(name).replace("\\", "/").rpartition("://")[2]
    names = [part for part in PurePosixPath(path).parts if part not in ("/", ".", "..") and not part.endswith(":")]
    return "/".join(names) or None


class Finder:
    """Finds pictures by the paths that lists have for them, among all picture files, those that cannot be used too."""

    def __init__(self, source: Source) -> None:
        self._of_name: dict[str, list[str]] = defaultdict(list)
        for image_id in [*source.images["image_id"], *source.unusable]:
            self._of_name[_bare(image_id)].append(image_id)

    def find_all(self, lists: Sequence[tuple[File, Sequence[str]]]) -> list[dict[str, str | None]]:
        """For each list, by name, the picture that its entry means, or None.

        An entry means the picture with which its path agrees in most folders from the end: in all that either has, or
        else in more than any other entry does. A list of one part of the data (by its folder, or its name as in
        `instances_val.json`) does not reach pictures of another. Raises BadData naming them where an entry could
        mean several pictures, or several entries the same.
        """
        found: list[dict[str, str | None]] = [{} for _ in lists]
        claims: dict[str, list[tuple[int, int, str]]] = defaultdict(list)  # by picture: agreement, which list, name
        for index, (file, names) in enumerate(lists):
            for name in dict.fromkeys(names):
                found[index][name] = None
                if (chosen := self._choose(name, file)) is not None:
                    image_id, agreement = chosen
                    if agreement == min(image_id.count("/"), name.count("/")) + 1:  # to the end of one of the paths
                        found[index][name] = image_id
                    else:
                        claims[image_id].append((agreement, index, name))
        taken = {image_id for each in found for image_id in each.values()}
        for image_id, those in claims.items():
            most = max(agreement for agreement, _, _ in those)
            best = [(index, name) for agreement, index, name in those if agreement == most]
            if image_id in taken:
                continue
            if len({name for _, name in best}) > 1:
                places = ", ".join(f"{lists[index][0].place}: {name}" for index, name in best[:3])
                raise BadData(f"{lists[best[0][0]][0].place}: expected one entry of the picture {image_id!r}, found "
                              f"{len(best)}: {places}; give paths below the data there")
            for index, name in best:
                found[index][name] = image_id
        return found

    def _choose(self, name: str, file: File) -> tuple[str, int] | None:
        """The picture that agrees best with a name, and in how many parts of the path from the end."""
        own_part = part_of(name) or part_of(file.path) or next(filter(None, map(part_name, _words(file.path))), "")
        same_name = self._of_name.get(_bare(name)) or self._of_name.get(_bare(unquote(name)), [])
        allowed = [image_id for image_id in same_name if not own_part or part_of(image_id) in ("", own_part)]
        if not allowed:
            return None
        agreement = {image_id: _agreement(image_id, name) for image_id in allowed}
        found = [image_id for image_id in allowed if agreement[image_id] == max(agreement.values())]
        folder = file.path.rpartition("/")[0]
        exact = [image_id for image_id in found if image_id == (f"{folder}/{name}" if folder else name)]
        same_case = [image_id for image_id in found if image_id.endswith(name.rpartition("/")[2])]
        of_part = [image_id for image_id in found if own_part and part_of(image_id) == own_part]
        depth = {image_id: _n_shared(folder, image_id) for image_id in found}
        nearest = [image_id for image_id in found if depth[image_id] == max(depth.values())]
        for chosen in (found, exact, same_case, of_part, nearest):
            if len(chosen) == 1:
                return chosen[0], agreement[chosen[0]]
        raise BadData(f"{file.place}: expected file_name {name!r} to mean one picture, found {len(found)}: "
                      f"{', '.join(found[:4])}; give its path below the data there")


def _bare(path: str) -> str:
    return path.rpartition("/")[2].casefold()


def _words(path: str) -> list[str]:
    return split_name(path)[1].replace("-", "_").replace(".", "_").split("_")


def _agreement(first: str, second: str) -> int:
    """In how many parts two paths agree from the end, case aside."""
    pairs = zip(reversed(first.casefold().split("/")), reversed(unquote(second).casefold().split("/")), strict=False)
    n = 0
    for one, other in pairs:
        if one != other and n:
            break
        n += 1
    return n


def _n_shared(folder: str, path: str) -> int:
    """How many folders two paths have in common from the top."""
    first, second = folder.split("/") if folder else [], path.split("/")[:-1]
    return next((n for n, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
                min(len(first), len(second)))

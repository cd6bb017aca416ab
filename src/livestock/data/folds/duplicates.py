"""Near-duplicate frames by perceptual hash: found exactly within a radius, without comparing all pairs."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import imagehash
import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ...exceptions import BadData
from ...files.cores import count_cores
from ...files.progress import progress
from .. import pictures
from ..archives import read_bytes

HASH_BITS = 64
RADIUS = 8
"""Hamming distance of two 64-bit pHashes up to which frames count as near-duplicates.

Chosen by looking at pairs of 665 real training images: up to 10 every pair shows one camera's view, at 12
the first doubtful ones appear, and two different sources first meet at 16 (dHash: at 14). The number of such
false pairs grows with the square of the images, and one is enough to chain two cameras together, hence 8.
At 8 each of the three videos is one group; from 6 down they fall to pieces. Groups are frames that look
alike, not cameras: of every eighth frame of these videos, only 43 % of the pairs of a clip are held together.
"""
THUMBNAIL = (64, 64)  # pHash looks at 32 x 32, so a JPEG decoded at a fraction of its size is enough


def near_duplicate_groups(
    images: pd.DataFrame, *, radius: int = RADIUS, n_threads: int | None = None, hashes: pd.Series | None = None
) -> pd.Series:
    """Numbers the groups of near-duplicate images: index `image_id`, sorted; values from 0 in order of first
    image.

    Images within `radius` of each other share a group, and so do those linked by a chain of such pairs: the
    frames of a fixed camera, mostly. `hashes` by `image_id`, as `hash_images` gives them, spare reading the images
    again. Raises `Undecodable` with every image that cannot be decoded.
    """
    images = images.sort_values("image_id", ignore_index=True)
    known = perceptual_hashes(images, n_threads=n_threads) if hashes is None else (
        hashes.loc[images["image_id"]].to_numpy(np.uint64))
    different, position = np.unique(known, return_inverse=True)
    pairs = near_pairs(different, radius)
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(different),) * 2)
    _, component = connected_components(links, directed=False)
    numbers, _ = pd.factorize(component[position])
    return pd.Series(
        numbers.astype("int64"), index=pd.Index(images["image_id"], name="image_id"), name="group"
    )


class Undecodable(BadData):
    """Pictures that cannot be decoded: `images` lists `(archive, member, reason)` of all that were met."""

    def __init__(self, images: list[tuple[str, str, str]]) -> None:
        self.images = images
        lines = [f"{archive}: {member}: expected an image that can be decoded: {reason}"
                 for archive, member, reason in images]
        super().__init__("\n".join(lines if len(lines) == 1 else [f"{len(lines)} images cannot be decoded:", *lines]))


def perceptual_hashes(images: pd.DataFrame, *, n_threads: int | None = None) -> np.ndarray:
    """64-bit pHash of each image as `archives.read_image` shows it, so turned as its EXIF orientation says.

    `(N,)` uint64, by row of `images` (DCT hash as `imagehash.phash` computes it). Decoding and reading release Python's
    lock, so threads are enough (`n_threads`, default the number of cores). Raises `Undecodable` with every image that
    cannot be decoded, after all have been tried; ValueError if the disk cannot be read.
    """
    hashes, faults = hash_images(images, n_threads=n_threads)
    if faults:
        raise Undecodable(faults)
    return hashes.to_numpy(np.uint64)


def hash_images(
    images: pd.DataFrame, *, n_threads: int | None = None
) -> tuple[pd.Series, list[tuple[str, str, str]]]:
    """The hashes of `perceptual_hashes` by `image_id`, and `(archive, member, reason)` of what cannot be decoded."""
    with ThreadPoolExecutor(n_threads or count_cores()) as pool:
        tried = pool.map(_hash_member, images["archive"], images["member"])
        found = list(progress(tried, "perceptual hashes", unit="image", total=len(images)))
    faults = [(archive, member, result) for archive, member, result
              in zip(images["archive"], images["member"], found, strict=True) if isinstance(result, str)]
    hashes = {image_id: result for image_id, result in zip(images["image_id"], found, strict=True)
              if not isinstance(result, str)}
    return pd.Series(hashes, dtype="uint64", name="hash").rename_axis("image_id"), faults


def _hash_member(archive: str, member: str) -> int | str:
    """The hash as a number, or why there is none."""
    try:
        content = read_bytes(archive, member)
    except ValueError as error:
        if isinstance(error.__cause__, OSError):  # the disk or Drive fails, which says nothing about this picture
            raise
        return f"cannot be read: {error.__cause__ or error}"
    try:
        bits = imagehash.phash(pictures.decode_small(io.BytesIO(content), THUMBNAIL)).hash
    except pictures.ERRORS as error:
        return f"{error}"
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(hashes: np.ndarray, radius: int) -> np.ndarray:
    """All pairs of positions `(M, 2)`, first < second, whose 64-bit hashes differ in at most `radius` bits.

    Exact, by the pigeonhole principle (multi-index hashing; Norouzi, Punjani and Fleet, CVPR 2012): cut into
    radius + 1 parts, two such hashes agree in at least one part, so only hashes that share a part are
    compared. Raises ValueError for a radius outside 0..63.

    >>> near_pairs(np.array([0b0000, 0b0011, 0b1111], dtype=np.uint64), 2).tolist()
    [[0, 1], [1, 2]]
    """
    if not 0 <= radius < HASH_BITS:
        raise ValueError(f"radius: expected 0 to {HASH_BITS - 1}, found {radius}")
    edges = np.linspace(0, HASH_BITS, radius + 2).astype(int)
    masks = [
        np.uint64((1 << int(high)) - (1 << int(low))) for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    found = [_pairs_sharing(masks[i], masks[:i], hashes, radius) for i in range(len(masks))]
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _pairs_sharing(mask: np.uint64, earlier: list[np.uint64], hashes: np.ndarray, radius: int) -> np.ndarray:
    """Near pairs that agree under `mask` and under none of the `earlier` masks: each is found once."""
    part = hashes & mask
    order = np.argsort(part, kind="stable")
    part, hashes = part[order], hashes[order]
    found = [np.empty((0, 2), dtype=np.int64)]
    for step in range(1, len(part)):  # neighbours `step` apart in sorted order, until no two share the part
        first = np.flatnonzero(part[:-step] == part[step:])
        if not len(first):
            break
        differing = hashes[first] ^ hashes[first + step]
        new = np.bitwise_count(differing) <= radius
        for other in earlier:
            new &= (differing & other) != 0
        first = first[new]
        found.append(np.sort(np.column_stack([order[first], order[first + step]]), axis=1))
    return np.concatenate(found)

"""Decoding of pictures: size and pixels come from one library, so that they agree, and a truncated file is an error."""

from __future__ import annotations

import struct
import zlib
from typing import IO, NamedTuple

import cv2
import numpy as np
import pandas as pd
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # whatever the file's name says
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}  # what has one meaning in 8 bits
TURNS = {  # EXIF orientation to what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
SOF, DHT, SOS, DQT, DRI, APP0, COM = (0xFFC0, 0xFFC1, 0xFFC2), 0xFFC4, 0xFFDA, 0xFFDB, 0xFFDD, 0xFFE0, 0xFFFE
PLAIN_BYTES, CMYK = 1 << 16, 4  # a plain header is shorter; layers
LEAST_SIDE = 10  # pixels: in pictures with a shorter side there is nothing to learn; yolov5 leaves them out too
QUIET_PIXELS = 1 << 26  # Pillow warns of more
BILINEAR_DOWN_TO = 0.6
ORIENTATION, SWAPS_SIDES = 0x0112, {5, 6, 7, 8}
# What Pillow raises on broken files; more than 179 million pixels are a DecompressionBombError.
ERRORS = (OSError, ValueError, SyntaxError, LookupError, TypeError, EOFError, RuntimeError, OverflowError, struct.error,
          zlib.error, Image.DecompressionBombError)


def measure(file: IO[bytes]) -> tuple[int, int]:
    """Width and height in pixels of the picture that `decode` returns, from the header where the format allows it.

    Raises one of `ERRORS` for what is no picture of `FORMATS` and `MODES`.
    """
    with Image.open(file, formats=FORMATS) as image:
        _check_mode(image)
        if image.format == "TIFF":
            image.load()  # Pillow turns TIFFs itself as it loads them, and some versions change the size before that
        turned = image.getexif().get(ORIENTATION, 1) in SWAPS_SIDES
        width, height = image.size
    return (height, width) if turned else (width, height)


def orientation(file: IO[bytes]) -> int:
    """The EXIF orientation that `decode` undoes, 1 to 8; 1 where there is none. Raises one of `ERRORS`."""
    with Image.open(file, formats=FORMATS) as image:
        return image.getexif().get(ORIENTATION, 1)


def jpeg_size(head: bytes) -> tuple[int, int] | None:
    """What `measure` says of a JPEG that starts like this, in a tenth of its time; None where Pillow must be asked."""
    header = _plain_header(head)
    return (header.width, header.height) if header else None


class _Header(NamedTuple):
    """Of a JPEG: its size in pixels, its layers, and the byte behind the header."""

    width: int
    height: int
    layers: int
    end: int


def _plain_header(head: bytes) -> _Header | None:
    """Only the plainest is read here, whole and of known parts; EXIF, which can turn the picture, is none of them."""
    if not head.startswith(JPEG_START):
        return None
    frame, place = None, len(JPEG_START)
    while place + 4 <= len(head):
        marker, length = struct.unpack_from(">HH", head, place)
        start, place = place + 4, place + 2 + length
        if length < 2 or place > len(head):
            return None
        if marker == SOS:
            return _Header(*frame, place) if frame else None
        if marker in SOF:
            frame = _read_frame(head[start:place])
            is_plain = frame is not None
        elif marker == DQT:  # tables of 8 bits
            is_plain = (length - 2) % 65 == 0 and max(head[start:place:65], default=0) < 16
        elif marker == APP0:
            is_plain = length >= 16 and head.startswith(b"JFIF\0", start)
        else:
            is_plain = marker in (DHT, DRI, COM)
        if not is_plain:
            return None
    return None


def _read_frame(frame: bytes) -> tuple[int, int, int] | None:
    """Width, height and layers that a JPEG's frame of 8 bits states."""
    if len(frame) < 6:
        return None
    bits, height, width, layers = struct.unpack_from(">BHHB", frame)
    is_plain = bits == 8 and layers in (1, 3, 4) and len(frame) == 6 + 3 * layers
    return (width, height, layers) if is_plain and 0 < width * height <= QUIET_PIXELS else None


def decode(file: IO[bytes]) -> np.ndarray:
    """The first picture of a file as `(height, width, 3)` uint8 RGB, turned as its EXIF orientation says.

    16 bits lose the lower 8, transparency is dropped. Raises one of `ERRORS` for what `measure` refuses and for files
    that end early.

    >>> import io
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (4, 2), (255, 0, 0)).save(file, "PNG")
    >>> _ = file.seek(0)
    >>> decode(file).shape
    (2, 4, 3)
    """
    start = file.tell()
    quick = _decode_plain(file.read())
    if quick is not None:
        return quick
    file.seek(start)
    with Image.open(file, formats=FORMATS) as image:
        _check_mode(image)
        if image.format == "JPEG":  # the file position is after the header, and so after a thumbnail's end mark
            _check_end(file.read())
        image.load()
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
        picture = eight_bits(image).convert("RGB")
    return np.array(picture if turn is None else picture.transpose(turn))


def decode_small(file: IO[bytes], size: tuple[int, int]) -> Image.Image:
    """What `decode` shows, in grey and where the format allows it smaller, but not below `size`: for looking at many.

    A JPEG is decoded at up to an eighth of its size. Raises what `decode` raises, for the same files.
    """
    with Image.open(file, formats=FORMATS) as image:
        _check_mode(image)
        if image.format == "JPEG":
            _check_end(file.read())
            image.draft("L", size)
        image.load()
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
        picture = eight_bits(image).convert("L")
    return picture if turn is None else picture.transpose(turn)


def _decode_plain(content: bytes) -> np.ndarray | None:
    """A baseline JPEG, which OpenCV decodes to the same pixels in a third of the time; None for all others.

    Where the scan itself is damaged, which neither notices as a rule, Pillow refuses about one file in 300 more.
    """
    header = _plain_header(content[:PLAIN_BYTES])
    if header is None or header.layers == CMYK:
        return None
    scan = content[header.end :]
    if JPEG_END not in scan or JPEG_START in scan:  # a second start: two downloads in one file, or a second picture
        return None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if picture is None or picture.shape[:2] != (header.height, header.width):
        return None  # Pillow says what is wrong
    return picture


def fitted_size(width: int, height: int, imgsz: int) -> tuple[int, int]:
    """Width and height in pixels once the longer side is `imgsz`; neither is less than one.

    >>> fitted_size(1920, 1080, 1280)
    (1280, 720)
    """
    scale = imgsz / max(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def too_thin(images: pd.DataFrame, imgsz: int) -> np.ndarray:
    """Whether a side of each image is below ten pixels once the longer one is at most `imgsz`: `(N,)`.

    Such pictures are left out of training, with a line in its report.

    >>> too_thin(pd.DataFrame({"width": [640, 2000, 9], "height": [480, 33, 9]}), 320)
    array([False,  True,  True])
    """
    sizes = [fitted_size(width, height, min(imgsz, max(width, height)))
             for width, height in zip(images["width"], images["height"], strict=True)]
    return np.array([min(size) < LEAST_SIDE for size in sizes], bool)


def fit(picture: np.ndarray, imgsz: int) -> np.ndarray:
    """The picture `(H, W, 3)`, its longer side scaled to `imgsz` px: as training and inference see it.

    Down to `BILINEAR_DOWN_TO` of the size bilinear interpolation gives each pixel at least half of the mean weight, in
    a quarter of the time that averaging over areas takes; further down it would leave some out.

    >>> fit(np.zeros((480, 640, 3), np.uint8), 320).shape
    (240, 320, 3)
    """
    height, width = picture.shape[:2]
    size = fitted_size(width, height, imgsz)
    if size == (width, height):
        return picture
    is_small = imgsz < BILINEAR_DOWN_TO * max(width, height)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if is_small else cv2.INTER_LINEAR)


def eight_bits(image: Image.Image) -> Image.Image:
    """The picture, or its upper 8 bits where it has 16, which Pillow itself would clip to white."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if _is_16_bit(image) else image


def _check_end(scan: bytes) -> None:
    """Half a download may be filled up with zeros, which decode to grey."""
    if JPEG_END not in scan:
        raise ValueError("truncated: a JPEG with no end mark")


def _is_16_bit(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")  # "I" before Pillow 11


def _check_mode(image: Image.Image) -> None:
    if image.mode not in MODES and not _is_16_bit(image):
        raise ValueError(f"expected colours of 8 or 16 bits, found {image.format} of mode {image.mode}")

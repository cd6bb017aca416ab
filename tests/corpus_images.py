"""Bad and odd pictures, each with what is to come of it; made by code, none lies in the repository."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)
WIDTH, HEIGHT = 48, 24


@dataclass(frozen=True)
class Picture:
    """A file called `file`: its size as read, or `unreadable`, words of why it is left out at reading.

    `broken` are words of why `read_image` refuses what has a good header. `first` and `last` are the colours at the
    top left and the bottom right, checked to within 12 of 255.
    """

    name: str
    content: bytes
    size: tuple[int, int] = (WIDTH, HEIGHT)
    first: tuple[int, int, int] = RED
    last: tuple[int, int, int] = BLUE
    file: str = "a.jpg"
    unreadable: str = ""
    broken: str = ""


def halves(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Red on the left, blue on the right."""
    array = np.zeros((height, width, 3), np.uint8)
    array[:, : width // 2, 0] = array[:, width // 2 :, 2] = 255
    return Image.fromarray(array)


def encode(image: Image.Image, form: str = "JPEG", orientation: int = 0, **options: Any) -> bytes:
    """The file's bytes, with an EXIF orientation if there is one."""
    content = io.BytesIO()
    if orientation:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    image.save(content, form, **options)
    return content.getvalue()


def noise() -> Image.Image:
    """A picture whose file is long, so that its header survives a cut."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))


def half(content: bytes) -> bytes:
    """The first half of a file."""
    return content[: len(content) // 2]


def damaged(content: bytes) -> bytes:
    """A byte in the middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def thumbnail() -> bytes:
    """A JPEG that has a small one in its EXIF, with an end mark of its own."""
    content = encode(noise())
    small = b"Exif\0\0" + encode(halves())
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small + content[2:]


def grey16(form: str) -> bytes:
    """16 bits: dark, 0x1234, on the left, bright, 0xEDCB, on the right."""
    array = np.full((HEIGHT, WIDTH), 0x1234, np.uint16)
    array[:, WIDTH // 2 :] = 0xEDCB
    return encode(Image.fromarray(array), form)


def png(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    """A PNG in RGB by hand: this size in its header, whatever the rows hold."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _turned(form: str, orientation: int) -> Picture:
    """The tag says how the sides lie: from 5 on they are swapped, and 3, 4 and some others turn the colours round."""
    turned = (HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT)
    first, last = (BLUE, RED) if orientation in (2, 3, 7, 8) else (RED, BLUE)
    return Picture(f"{form} with orientation {orientation}", encode(halves(), form, orientation), turned, first, last)


GREY = {"first": (76, 76, 76), "last": (29, 29, 29)}
CUT = "truncated|Truncated|decoder|broken data|bad huffman|not enough"
PICTURES = [
    Picture("a JPEG", encode(halves())),
    Picture("a progressive JPEG", encode(halves(), progressive=True)),
    *(_turned("JPEG", orientation) for orientation in range(1, 9)),
    *(_turned(form, orientation) for form in ("PNG", "TIFF", "WEBP") for orientation in (3, 6, 8)),
    Picture("a PNG called .jpg", encode(halves(), "PNG")),
    Picture("a BMP called .jpg", encode(halves(), "BMP")),
    Picture("a WebP called .png", encode(halves(), "WEBP"), file="a.png"),
    Picture("a CMYK JPEG", encode(halves().convert("CMYK"))),
    Picture("a grey JPEG", encode(halves().convert("L")), **GREY),
    Picture("a grey PNG with transparency", encode(halves().convert("LA"), "PNG"), **GREY),
    Picture("a PNG with transparency", encode(halves().convert("RGBA"), "PNG")),
    Picture("a palette", encode(halves().convert("P"), "PNG")),
    Picture("a palette with transparency", encode(halves().convert("P"), "PNG", transparency=0)),
    Picture("one bit", encode(halves().convert("L").point(lambda value: 255 * (value > 50), "1"), "PNG"),
            first=(255, 255, 255), last=(0, 0, 0)),
    Picture("a grey PNG of 16 bits", grey16("PNG"), first=(0x12,) * 3, last=(0xED,) * 3),
    Picture("a grey TIFF of 16 bits", grey16("TIFF"), first=(0x12,) * 3, last=(0xED,) * 3),
    Picture("a PNG of 16 bits", png(1, 1, b"\0\xff\xff\0\1\0\2", depth=16), (1, 1), last=RED),
    Picture("a TIFF of floats", encode(halves().convert("F"), "TIFF"), unreadable="found TIFF of mode F"),
    Picture("a TIFF of 32 bits", encode(halves().convert("I"), "TIFF"), unreadable="found TIFF of mode I"),
    Picture("a TIFF in Lab", encode(halves().convert("LAB"), "TIFF"), unreadable="found TIFF of mode LAB"),
    Picture("1 x 1", encode(halves(2, 1).crop((0, 0, 1, 1)), "PNG"), (1, 1), last=RED),
    Picture("20,000 px wide", encode(halves(20_000, 2)), (20_000, 2)),
    Picture("an animated PNG", encode(halves(), "PNG", save_all=True, append_images=[halves().rotate(180)])),
    Picture("an animated WebP", encode(halves(), "WEBP", save_all=True, append_images=[halves().rotate(180)])),
    Picture("a TIFF of two pages", encode(halves(), "TIFF", save_all=True, append_images=[halves(9, 9)])),
    Picture("a JPEG of two pictures", encode(halves(), "MPO", save_all=True, append_images=[halves(9, 9)])),
    Picture("a JPEG and a web page", encode(halves()) + b"<html></html>"),
    Picture("an animated GIF called .jpg", encode(halves(), "GIF", save_all=True, append_images=[halves(9, 9)]),
            unreadable="cannot identify"),
    Picture("a JPEG 2000 called .jpg", encode(halves(), "JPEG2000"), unreadable="cannot identify"),
    Picture("an icon called .png", encode(halves(), "ICO"), file="a.png", unreadable="cannot identify"),
    Picture("a drawing called .png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", file="a.png",
            unreadable="cannot identify"),
    Picture("a text called .jpg", b"no picture", unreadable="cannot identify"),
    Picture("zero bytes", b"", unreadable="cannot identify"),
    Picture("zeros", bytes(1000), unreadable="cannot identify"),
    Picture("a JPEG's first bytes", encode(halves())[:20], unreadable="cannot identify|truncated"),
    Picture("a JPEG that lacks its last half", half(encode(noise())), (400, 300), broken="truncated"),
    Picture("a JPEG that lacks its last bytes", encode(noise())[:-1000], (400, 300), broken="truncated"),
    Picture("a JPEG whose last half is zeros", half(encode(noise())) + bytes(40_000), (400, 300), broken="no end mark"),
    Picture("one with a thumbnail", half(thumbnail()) + bytes(40_000), (400, 300), broken="no end mark"),
    Picture("a JPEG that lacks its end mark", encode(halves())[:-2], broken="truncated"),
    Picture("a progressive JPEG cut off", half(encode(noise(), progressive=True)), (400, 300), broken="truncated"),
    Picture("a PNG cut off", half(encode(noise(), "PNG")), unreadable=CUT),
    Picture("a PNG of too few rows", png(WIDTH, HEIGHT, bytes(100)), unreadable=CUT),
    Picture("a PNG with a damaged row", damaged(encode(noise(), "PNG")), unreadable="broken PNG|data stream"),
    Picture("a PNG without its end mark", encode(halves(), "PNG")[:-12]),
    Picture("a BMP cut off", half(encode(noise(), "BMP")), (400, 300), broken="truncated"),
    Picture("a TIFF cut off", half(encode(noise(), "TIFF")), unreadable="."),
    Picture("a WebP cut off", half(encode(noise(), "WEBP")), unreadable="."),
    Picture("a picture said to have ten thousand million pixels", png(100_000, 100_000, b""),
            unreadable="exceeds limit of 178956970 pixels"),
    Picture("a picture without a pixel", png(0, 10, b""), unreadable="."),
]

"""Pictures of a walk made small, and films of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["film_of_walk", "shrink", "write_film"]

_COLOURS = 255
_WEIGHT = 0.3
"""Exponent of a colour's frequency: of 0, 0.15, 0.3 and 0.5 the one of the least errors."""
_ROUNDS = 3
"""Of moving a table's colours to where the picture's are."""
_WIDTH = 1000
"""Pixels, of a walk's film: words of the docks can be read."""
_CAPTION_PIXELS = 36
_FONT_PIXELS = 19
_MILLISECONDS = 2500
"""That a picture stands, long enough to read its caption and to look at what has changed."""
_QUALITY = 62


def shrink(path: Path) -> None:
    """Store a PNG with a table of colours: a third of its size, and no difference is seen."""
    picture = Image.open(path).convert("RGB")
    picture.quantize(palette=_colour_table([picture]), dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def film_of_walk(folder: Path, output: Path) -> None:
    """Write the pictures that a walk has given captions as a film, each above its caption."""
    shown = [step for step in json.loads((folder / "walk.json").read_text()) if "caption" in step]
    pictures = [
        _captioned(Image.open(folder / step["picture"]).convert("RGB"), step["caption"])
        for step in shown
    ]
    write_film(pictures, output, _MILLISECONDS)


def _captioned(picture: Image.Image, caption: str) -> Image.Image:
    height = round(_WIDTH * picture.height / picture.width)
    whole = Image.new("RGB", (_WIDTH, height + _CAPTION_PIXELS), (28, 30, 36))
    whole.paste(picture.resize((_WIDTH, height), Image.Resampling.LANCZOS), (0, 0))
    font = ImageFont.load_default(_FONT_PIXELS)
    ImageDraw.Draw(whole).text(
        (_WIDTH / 2, height + _CAPTION_PIXELS / 2), caption, (235, 236, 240), font, anchor="mm"
    )
    return whole


def write_film(pictures: list[Image.Image], output: Path, milliseconds: int) -> None:
    """Write pictures as an animated WebP, or as a GIF with one table of colours."""
    if output.suffix == ".webp":
        options = {"quality": _QUALITY, "method": 6}
    else:
        table = _colour_table(pictures)
        pictures = [one.quantize(palette=table, dither=Image.Dither.NONE) for one in pictures]
        options = {"optimize": True}
    first, *others = pictures
    stored = io.BytesIO()
    first.save(
        stored,
        output.suffix[1:].upper(),
        save_all=True,
        append_images=others,
        duration=milliseconds,
        loop=0,
        **options,
    )
    output.write_bytes(stored.getvalue())


def _colour_table(pictures: list[Image.Image]) -> Image.Image:
    """Return an image with the colours of all pictures, rare ones such as a flag's counted for more
    than their share.
    """
    pixels = np.concatenate([np.asarray(picture).reshape(-1, 3) for picture in pictures])
    packed, counts = np.unique(pixels.astype(np.int32) @ (65536, 256, 1), return_counts=True)
    often = np.repeat(packed, np.ceil(counts**_WEIGHT).astype(np.int64))
    colours = np.stack([often >> 16, often >> 8 & 255, often & 255], axis=1).astype(np.uint8)
    return Image.fromarray(colours[None]).quantize(
        _COLOURS, kmeans=_ROUNDS, dither=Image.Dither.NONE
    )

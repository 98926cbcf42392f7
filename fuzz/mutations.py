"""Files that are nearly right: values, rows, labels and headers changed as accidents change them.

Kinds: ``star``, ``values`` (numbers of a STAR file only, at and beyond the ends of their ranges),
``cs``, ``csg`` (cryoSPARC's groups) and ``mrc``.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

__all__ = ["mutated"]

_WORDS = (
    *(
        b"nan",
        b"inf",
        b"-inf",
        b"NaN",
        b"-nan",
        b"<NA>",
        b"None",
        b'""',
        b"''",
        b'"',
        b"'",
        b"#",
        b"abc",
        b"0",
    ),
    *(
        b"-1",
        b"-0",
        b"1e400",
        b"1e-400",
        b"1e38",
        b"-1e300",
        b"0x10",
        b"1_0",
        b"007",
        b"+5",
        b"1.5.2",
        b"1,5",
    ),
    *(
        b"9" * 25,
        b"9223372036854775808",
        b"18446744073709551616",
        b"99999999999",
        b"True",
        b"1d5",
        b"@",
        b"1@",
    ),
    *(
        b"0@base.mrcs",
        b"13@base.mrcs",
        b"-1@base.mrcs",
        b"1@../base.mrcs",
        b"1@/dev/zero",
        b"1@.",
        b"a@b@c",
    ),
    *(
        b"1@" + b"x" * 5000,
        b"1@base.mrcs\x00",
        b"\xff\xfe",
        b"\xc3\xa9",
        b"data_x",
        b"loop_",
        b"_rlnVoltage",
    ),
    *(b"1@C:\\x\\base.mrcs", b">J1/base.mrcs", b"[0,1,2]", b"", b" ", b"\t", b"\n", b"\r", b"\x0c"),
)
_LABELS = (
    *(
        b"_rlnImageName",
        b"_rlnOpticsGroup",
        b"_rlnRandomSubset",
        b"_rlnVoltage",
        b"_rlnImagePixelSize",
    ),
    *(
        b"_rlnImageSize",
        b"_rlnOriginX",
        b"_rlnOriginXAngst",
        b"_rlnDefocusU",
        b"_rlnAngleRot",
        b"_rlnMagnification",
    ),
    *(
        b"_rlnDetectorPixelSize",
        b"_rlnPixelSize",
        b"_rlnBeamTiltX",
        b"_rlnOddZernike",
        b"_rlnCtfBfactor",
        b"_",
    ),
    *(
        b"_cryosparc/uid",
        b"_cryosparc/blob/shape[0]",
        b"_cryosparc/ctf/tilt_A[1]",
        b"_rlnPhaseShift",
    ),
)
# At and beyond the ends of legal ranges, and what a value is in another unit.
_VALUES = (
    *(b"0", b"-0.0", b"1", b"-1", b"2", b"3", b"0.5", b"1.5", b"1e-9", b"-1e-9", b"1e9", b"-1e9"),
    *(b"0.1", b"10", b"7", b"100", b"300", b"3000", b"3001", b"300000", b"0.3", b"1300", b"60"),
    *(b"2.7", b"2700", b"27000000", b"-100", b"101", b"1e6", b"-1e6", b"1000001", b"1.2", b"12000"),
    *(b"720", b"-721", b"36000", b"36001", b"3.14159", b"-1000", b"-1001", b"100000", b"100001"),
    *(b"0.01", b"0.0099", b"1000", b"65536", b"65537", b"8", b"8.5", b"9", b"1e38", b"1e300"),
    *(b"-1e300", b"5e-324", b"1.7976931348623157e308", b"nan", b"inf", b"-inf", b"2147483648"),
)
_YAML = (
    *(b"results:", b"blob:", b"{", b"}", b"[", b"]", b"'>base.cs'", b"'>other.cs'", b"metafile:"),
    *(
        b"&a",
        b"*a",
        b"!!python/none",
        b"!!binary",
        b"null",
        b"0x10",
        b"1e400",
        b"2001-99-99",
        b"- ",
    ),
    *(b"'>'", b"'/dev/zero'", b"'../'", b"|", b"? x", b"%YAML 9.9", b"\t", b"\n", b"\x00", b"\xff"),
    *(
        b"<<:",
        b"uid:",
        b"ctf:",
        b"alignments3D:",
        b"location:",
        b"9" * 400,
        b"[" * 200,
        b"{a: " * 99,
    ),
)
_NUMBERS = (
    0,
    1,
    -1,
    2,
    12,
    77,
    255,
    1024,
    65535,
    2**31 - 1,
    -(2**31),
    1145047817,
    0x7FC00000,
    0x7F800000,
    0x3F800000,
)


def mutated(data: bytes, kind: str, chance: random.Random) -> bytes:
    """Return ``data`` after one to four changes that suit a kind of files."""
    changes = _CHANGES.get(kind, _BINARY)
    for _ in range(chance.randint(1, 4)):
        data = chance.choice(changes)(data, chance)
    return data


def _word(data: bytes, chance: random.Random) -> bytes:
    """Replace a word of a row."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    words = lines[at].split()
    if words:
        words[chance.randrange(len(words))] = chance.choice(_WORDS)
        lines[at] = b" ".join(words)
    return b"\n".join(lines)


def _column(data: bytes, chance: random.Random) -> bytes:
    """Replace a column in all rows as wide as one of them."""
    lines = data.split(b"\n")
    width = len(chance.choice(lines).split())
    if width > 3:
        at, word = chance.randrange(width), chance.choice(_WORDS)
        for number, line in enumerate(lines):
            words = line.split()
            if len(words) == width:
                words[at] = word
                lines[number] = b" ".join(words)
    return b"\n".join(lines)


def _label(data: bytes, chance: random.Random) -> bytes:
    """Rename a label."""
    lines = data.split(b"\n")
    labels = [at for at, line in enumerate(lines) if line.lstrip().startswith(b"_")]
    if labels:
        lines[chance.choice(labels)] = chance.choice(_LABELS)
    return b"\n".join(lines)


def _line(data: bytes, chance: random.Random) -> bytes:
    """Delete, repeat, swap or insert a line."""
    lines = data.split(b"\n")
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    what = chance.randrange(4)
    if what == 0:
        del lines[first]
    elif what == 1:
        lines.insert(second, lines[first])
    elif what == 2:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        lines.insert(
            first, chance.choice((*_WORDS, *_LABELS, b"data_", b"data_optics", b"loop_", b"# x"))
        )
    return b"\n".join(lines)


def _layout(data: bytes, chance: random.Random) -> bytes:
    """Change line ends, separators or the encoding."""
    return chance.choice(
        (
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\n", b"\r"),
            data.replace(b" ", b"\t"),
            b"\xef\xbb\xbf" + data,
            data.decode("latin-1").encode("utf-16"),
            data.replace(b"\n", b"\n\n"),
            data.replace(b"_rln", b"_rln "),
        )
    )


def _cut(data: bytes, chance: random.Random) -> bytes:
    """Cut the end off."""
    return data[: chance.randint(0, len(data))]


def _byte(data: bytes, chance: random.Random) -> bytes:
    """Change a few bytes, the beginning more often than the rest."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        if changed:
            most = len(changed) if chance.random() < 0.3 else min(len(changed), 1100)
            changed[chance.randrange(most)] = chance.randrange(256)
    return bytes(changed)


def _number(data: bytes, chance: random.Random) -> bytes:
    """Put an interesting number at a multiple of four bytes."""
    changed = bytearray(data)
    most = min(len(changed), 1100 if chance.random() < 0.8 else 1 << 30) // 4
    if most:
        at = 4 * chance.randrange(most)
        changed[at : at + 4] = struct.pack(chance.choice("<>") + "i", chance.choice(_NUMBERS))
    return bytes(changed)


def _grown(data: bytes, chance: random.Random) -> bytes:
    """Append bytes, or take some out of the middle."""
    if chance.random() < 0.5:
        return data + bytes(chance.randrange(256) for _ in range(chance.randint(1, 64)))
    at = chance.randint(0, len(data))
    return data[:at] + data[at + chance.randint(1, 16) :]


def _text_in_header(data: bytes, chance: random.Random) -> bytes:
    """Change a digit, quote or bracket in the text that a .cs file begins with."""
    changed = bytearray(data)
    places = [
        at for at in range(min(len(changed), 4000)) if chr(changed[at]) in "0123456789'<>|fuSi(),"
    ]
    if places:
        changed[chance.choice(places)] = chance.choice(b"0123456789'<>|fuSiOcV(),-")
    return bytes(changed)


def _value(data: bytes, chance: random.Random) -> bytes:
    """Replace a number of a row, in that row or in all rows as wide."""
    lines = data.split(b"\n")
    rows = [at for at, line in enumerate(lines) if len(line.split()) > 3]
    if not rows:
        return data
    row = chance.choice(rows)
    width = len(lines[row].split())
    at, value = chance.randrange(width), chance.choice((*_VALUES, b"%.6g" % chance.gauss(0, 300)))
    for other in [row] if chance.random() < 0.5 else rows:
        words = lines[other].split()
        if len(words) == width and b"@" not in words[at]:
            words[at] = value
            lines[other] = b" ".join(words)
    return b"\n".join(lines)


def _group_word(data: bytes, chance: random.Random) -> bytes:
    """Replace, repeat or remove a word of YAML."""
    words = data.split(b" ")
    at = chance.randrange(len(words))
    words[at : at + 1] = chance.choice(
        (
            [chance.choice(_YAML)],
            [words[at], words[at]],
            [],
            [words[at], chance.choice(words)],
            [words[at].replace(b":", b""), chance.choice(_YAML)],
        )
    )
    return b" ".join(words)


_Change = Callable[[bytes, random.Random], bytes]
_TEXT: tuple[_Change, ...] = (
    _word,
    _word,
    _word,
    _column,
    _column,
    _label,
    _line,
    _line,
    _layout,
    _cut,
    _byte,
)
_BINARY: tuple[_Change, ...] = (
    _byte,
    _byte,
    _number,
    _number,
    _number,
    _cut,
    _grown,
    _text_in_header,
)
_CHANGES: dict[str, tuple[_Change, ...]] = {
    "star": _TEXT,
    "values": (_value, _value, _value, _label),
    "csg": (_group_word, _group_word, _group_word, _line, _cut, _byte, _layout),
}

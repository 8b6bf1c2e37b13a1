#!/usr/bin/env python3
"""Writes runtime/unicode_tables.inc: ranges of \\p{L}, \\p{N} and \\s, from Python's Unicode data."""
import pathlib
import unicodedata


def ranges(test):
    out, start = [], None
    for code in range(0x110001):
        inside = code < 0x110000 and not 0xD800 <= code < 0xE000 and test(chr(code))
        if inside and start is None:
            start = code
        if not inside and start is not None:
            out.append((start, code - 1))
            start = None
    return out


# White_Space of Unicode, as regular expressions' \s has it
SPACES = {9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
tables = {
    "letters": ranges(lambda c: unicodedata.category(c)[0] == "L"),
    "numbers": ranges(lambda c: unicodedata.category(c)[0] == "N"),
    "spaces": ranges(lambda c: ord(c) in SPACES),
}
lines = [f"/* Made by scripts/make-unicode-tables.py from Unicode {unicodedata.unidata_version}. */"]
for name, table in tables.items():
    lines.append(f"static const unicode_range {name}[] = {{")
    row = ""
    for first, last in table:
        item = f"{{0x{first:x}, 0x{last:x}}}, "
        if len(row) + len(item) > 92:
            lines.append("    " + row.rstrip())
            row = ""
        row += item
    lines.append("    " + row.rstrip())
    lines.append("};")
target = pathlib.Path(__file__).resolve().parent.parent / "runtime" / "unicode_tables.inc"
target.write_text("\n".join(lines) + "\n")

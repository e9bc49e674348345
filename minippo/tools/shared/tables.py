"""A table for the terminal or for a Markdown page: the first column to the left, the others to the right."""

import unicodedata
from statistics import fmean


def table(header, rows):
    """Lines of columns as wide as they have to be, all cells as text; no newline at the end."""
    cells = [[str(x) for x in row] for row in (header, *rows)]
    widths = [max(map(width, column)) for column in zip(*cells)]
    return "\n".join("  ".join(padded(x, w, left=not i) for i, (x, w) in enumerate(zip(row, widths))).rstrip()
                     for row in cells)


def markdown(header, rows):
    """The same as a table of Markdown."""
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(str(x).replace("|", "\\|") for x in row) + " |"
                     for row in (header, rule, *rows))


def padded(text, wide, left):
    gap = " " * (wide - width(text))
    return text + gap if left else gap + text


def width(text):
    """Columns that a text takes on a terminal: two for the wide letters of East Asia, none for accents."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def flat(text):
    """A text without new lines: two letters show each. (The Screen shows other controls.)"""
    return text.replace("\n", "\\n")


def spread(numbers, digits):
    """The mean, and in brackets the smallest and the largest, if they show another number."""
    low, mean, high = (f"{round(f(numbers), digits) + 0.0:.{digits}f}" for f in (min, fmean, max))
    return mean if low == high else f"{mean} ({low} to {high})"

"""Small pictures as SVG, 760 wide, readable in light and dark: cells in columns, bars, curves."""

from itertools import pairwise
from string import Template

from minippo.tools.shared.page import asset, escaped


def svg(title, desc, height, parts):
    """A whole file, a str. parts: elements, str; title and desc are what a screen reader says."""
    given = {"title": escaped(title), "desc": escaped(desc), "height": height, "inner": height - 1}
    return Template(asset("drawing.svg")).substitute(given, body="\n".join(parts))


def text(x, y, words, kind=""):
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escaped(words)}</text>'


def box(x, y, width, height, kind):
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'


def line(points, kind="line", arrow=False):
    tip = ' marker-end="url(#tip)"' if arrow else ""
    path = " ".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="{kind}" d="M{path}"{tip}/>'


def grid(title, desc, heads, columns, rows, left=None):
    """Rows of cells.

    heads    {x: heading}; columns: x of each column's middle
    rows     (label, kind of the boxes, a text per column, "" = no box, arrow): a row with `arrow` hands
             each cell down to the next
    left     (row, label): arrows in that row from each cell to the one on its left
    """
    parts = [text(x, 30, words, "head mid") for x, words in heads.items()]
    for i, (label, kind, cells, arrow) in enumerate(rows):
        top = 44 + 52 * i
        parts.append(text(16, top + 20, label))
        for x, cell in zip(columns, cells):
            if cell:
                parts += [box(x - 36, top, 72, 30, "gray dash" if cell == "PAD" else kind),
                          text(x, top + 20, cell, "mid")]
            if cell and arrow:
                parts.append(line([(x, top + 30), (x, top + 50)], arrow=True))
    if left:
        row, label = left
        for (x, cell), (right, other) in pairwise(zip(columns, rows[row][2])):
            if cell and other and right - x <= 104:   # not from one response to the next
                parts += [line([(right - 36, 59 + 52 * row), (x + 38, 59 + 52 * row)], arrow=True),
                          text((x + right) / 2, 39 + 52 * row, label, "small mid")]
    return svg(title, desc, 52 + 52 * len(rows), parts)


def bars(title, desc, labels, series):
    """A group of bars per label. series: {name: numbers with a text of their own}, two of them."""
    numbers = [x for values in series.values() for x in values]
    low, high = min(0, *numbers), max(numbers)
    left, parts = 170 if low < 0 else 90, []
    scale = (680 - left) / (high - low)
    zero = left - scale * low
    for kind, x, name in zip(("gray", "blue"), (110, 430), series):
        parts += [box(x, 14, 22, 16, kind), text(x + 30, 28, name)]
    for i, label in enumerate(labels):
        parts.append(text(16, 44 + 56 * i + 27, label, "head"))
        for kind, values, top in zip(("gray", "blue"), series.values(), (44, 64)):
            width = scale * values[i]
            parts += [box(zero + min(0, width), top + 56 * i, abs(width), 18, kind),
                      text(zero + width + (6 if width >= 0 else -6), top + 14 + 56 * i, format(values[i], ""),
                           "small" if width >= 0 else "small end")]
    parts.append(line([(zero, 40), (zero, 40 + 56 * len(labels))], "line"))
    return svg(title, desc, 56 + 56 * len(labels), parts)


def curves(title, desc, panels):
    """Panels side by side: (heading, points of the curve, {label: point marked on it}), 0.5 <= x <= 1.5."""
    parts = []
    for left, (heading, curve, marked) in zip((20, 390), panels):
        low = min(y for _, y in curve)

        def at(x, y):
            return left + 20 + 310 * (x - 0.5), 230 - 150 * (y - low)
        parts += [text(left + 175, 30, heading, "head mid"), line([at(*point) for point in curve], "thick"),
                  line([at(0.5, low - 0.1), at(1.5, low - 0.1)], "rule")]
        parts += [text(at(x, 0)[0], 266, words, "small mid") for x, words in
                  ((0.5, "0.5"), (0.8, "0.8"), (1, "1"), (1.2, "1.2"), (1.5, "1.5 = ratio"))]
        for i, (label, (x, y)) in enumerate(marked.items()):   # neighbours may touch: above, below, above
            across, down = at(x, y)
            parts += [f'<circle class="gold" cx="{across:g}" cy="{down:g}" r="6"/>',
                      text(across, down + (20 if i % 2 else -12), label, "small mid")]
    return svg(title, desc, 284, parts)

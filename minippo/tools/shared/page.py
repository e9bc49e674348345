"""One HTML page that needs nothing but itself: no network, opens from a file, light and dark, any width.

Whatever comes from a run (texts, names, numbers) goes through `escaped` or `embedded`: on the page it is
text, whatever it looks like. As a second guard the page forbids itself to load anything.
"""

import html
import json
from pathlib import Path

from minippo.run.errors import UserError, printable
from minippo.run.files import check_replaceable, write_atomically

ASSETS = Path(__file__).parents[1] / "assets"   # page.css for all, NAME.css and NAME.js for one

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
{script}
</body>
</html>
"""


def page(title, body, name=None, **given):
    """A whole page, a str.

    title   plain text; body: HTML
    name    assets/NAME.css and assets/NAME.js belong to it, if they are there
    given   {id: anything that JSON holds}: the script finds it as the text of the element with that id
    """
    style, script = asset("page.css") + asset(f"{name}.css"), asset(f"{name}.js")
    data = "".join(embedded(key, x) for key, x in given.items())
    return FRAME.format(title=escaped(title), body=body, style=style,
                        script=f"{data}<script>\n{script}</script>" if script else "")


def asset(name):
    """The text of a file that belongs to the pages; "" if there is none of that name."""
    path = ASSETS / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def escaped(text):
    """Text as HTML that shows it, also inside an attribute's quotes; control characters in letters."""
    return html.escape(printable(str(text)))


def embedded(key, x):
    """JSON that a script of the page reads; nothing in it can end its element."""
    text = json.dumps(x, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{key}">{text}</script>\n'


def table(header, rows, caption=""):
    """A table; cells are text. The first cell of a row is its heading."""
    def line(cells, head):
        return "<tr>" + "".join(f'<th scope="{head}">{escaped(x)}</th>' if head and (head == "col" or not i)
                                else f"<td>{escaped(x)}</td>" for i, x in enumerate(cells)) + "</tr>"
    body = "\n".join(line(row, "row") for row in rows)
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return (f'<div class="wide"><table>{title}<thead>{line(header, "col")}</thead>\n'
            f"<tbody>{body}</tbody></table></div>\n")


def check(path, flag="--out"):
    """UserError, before anything takes time, unless a file can be written there."""
    if not str(path).strip():
        raise UserError(f"{flag} is empty; name a file")
    if Path(path).is_dir():
        raise UserError(f"{flag} {path} is a folder; name a file")
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"{flag} {path}: there is no such folder; make it, or name another file")
    check_replaceable(path)


def write(path, text):
    """Write a page; UserError if it cannot be written, or if a link or a folder stands there."""
    check(path)
    write_atomically(path, text.encode("utf-8", "replace"))   # half a surrogate pair has no bytes

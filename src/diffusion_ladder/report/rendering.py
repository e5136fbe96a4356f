"""What the report and the run page share: the Jinja2 environment, the writing of numbers, and light markup of prose.

Nothing heavy is imported here, so that the run page can be made in a fraction of a second.
"""

import html
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
SMALLEST_PLAIN = 1e-4  # smaller numbers are written with a power of ten
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# What Markdown, or a code host beyond it, would take for markup: formulas, tables and entities, too.
ACTIVE = re.compile(r"[\\`*\[\]<>|$~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
ADDRESS = re.compile(r"https?://[^\s<>|`]+")
INLINE = re.compile(
    r"\\(?P<literal>[!-/:-@\[-`{-~])|`(?P<code>[^`]+)`|\[(?P<label>(?:\\.|[^\]\\])+)\]\((?P<url>[^)\s]+)\)"
    r"|\*\*(?P<strong>(?:\\.|[^*\\])+)\*\*|\*(?P<stress>(?:\\.|[^*\\])+)\*"
)


def environment(autoescape: bool) -> jinja2.Environment:
    """Templates that fail on a name they aren't given, instead of printing nothing."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    jinja.filters |= {
        "count": count,
        "number": number,
        "prose": prose,
        "plain": plain,
        "code": code,
        "size": size,
        "within": within,
    }
    jinja.globals["style"] = Markup(read_template("style.css"))
    return jinja


def read_template(name: str) -> str:
    """A file that goes into the page as it is."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def count(value: int) -> str:
    """A whole number with separators: 614,400."""
    return f"{value:,}"


def number(value: float, digits: int = 4) -> str:
    """A number at up to `digits` significant digits, whole parts in full: 0.0512, 12.3, 1,200, 3.1 × 10⁻⁶."""
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if abs(float(f"{mantissa}e{exponent}")) >= SMALLEST_PLAIN:
        return trimmed(fixed(value, max(0, digits - 1 - int(exponent))))
    return f"{trimmed(mantissa.replace('-', '−'))} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def trimmed(text: str) -> str:
    """A decimal number without noughts at its end."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def fixed(value: float, decimals: int) -> str:
    """A number with so many decimals, and a true minus sign."""
    return f"{value:,.{decimals}f}".replace("-", "−")


def with_spread(value: float, spread: float | None) -> tuple[str, str]:
    """A value and its standard deviation, the latter at two significant digits, the former at the same decimals.

    Returns:
        the two texts; the second is empty where there is no deviation.
    """
    if spread is None:
        return number(value), ""
    if spread == 0 or abs(spread) < SMALLEST_PLAIN or isinstance(value, int):
        return number(value), number(spread, 2)
    decimals = max(0, 1 - int(f"{spread:.1e}".split("e")[1]))  # of two significant digits
    return fixed(value, decimals), fixed(spread, decimals)


def within(title: str) -> str:
    """A title within a sentence: its first letter small, names as they are."""
    return title[:1].lower() + title[1:]


def size(length: int) -> str:
    """A number of bytes: 812 bytes, 3.8 MB."""
    for unit, factor in (("MB", 1_000_000), ("kB", 1000)):
        if length >= factor:
            return f"{length / factor:.1f} {unit}"
    return f"{length} bytes"


def prose(text: str) -> Markup:
    """Prose in a little Markdown (code, links, stress, and a backslash before a sign that is one) as HTML, escaped."""
    parts, end = [], 0
    for match in INLINE.finditer(text):
        parts += [html.escape(text[end : match.start()], quote=False), inline(match)]
        end = match.end()
    return Markup("".join([*parts, html.escape(text[end:], quote=False)]))


def inline(match: re.Match[str]) -> str:
    """One piece of markup that INLINE found, as HTML."""
    if match["literal"]:
        return html.escape(match["literal"], quote=False)
    if match["code"]:
        return f"<code>{html.escape(match['code'], quote=False)}</code>"
    if match["strong"]:
        return f"<strong>{prose(match['strong'])}</strong>"
    if match["stress"]:
        return f"<em>{prose(match['stress'])}</em>"
    return f'<a href="{html.escape(match["url"])}">{prose(match["label"])}</a>'


def plain(value: Any) -> str:
    """A text for Markdown that holds none, on one line: in prose, in a heading or in a table's cell."""
    text = " ".join(str(value).split())
    return text if ADDRESS.fullmatch(text) else ACTIVE.sub(r"\\\g<0>", text)


def code(value: Any, in_table: bool = False) -> str:
    """A text as Markdown's code, on one line: between more backticks than it has in a row."""
    text = " ".join(str(value).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", r"\|" if in_table else "|")


def render(jinja: jinja2.Environment, name: str, **content: Any) -> str:
    """Fill in a template; the text ends in one newline."""
    return jinja.get_template(name).render(**content).rstrip() + "\n"

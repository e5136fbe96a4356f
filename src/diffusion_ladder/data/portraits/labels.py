"""Labels in messages: written so that params.yaml can hold them, with what tells them from those that look alike."""

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from diffusion_ladder.params.text import UNSEEN

Label = int | float | str
LONGEST = 40  # characters of a label that are shown
TRUTH = {"true": "1", "false": "0"}  # how a table's booleans are counted
INTEGER = re.compile(r"[+-]?\d+(\.0*)?")
LIKE_LATIN = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "LISU", "COPTIC")  # alphabets with letters that look Latin
CHANGES = {  # in which two labels may differ, the least first
    "Unicode normalisation": lambda text: unicodedata.normalize("NFC", text),
    "spaces": lambda text: " ".join(text.split()),
    "capitals": str.casefold,
}


def written(value: Label | None, against: Label | None = None) -> str:
    """A label as YAML, on one line: numbers bare, text in quotes, with escapes for what can't be seen.

    Args:
        against: another label; letters beyond ASCII that it lacks stand as escapes too.
    """
    if value is None:
        return "missing"
    if not isinstance(value, str):
        return str(value)
    shown = value if len(value) <= LONGEST or against is not None else value[:LONGEST] + "..."
    return '"' + "".join(escaped(letter, value, against) for letter in shown) + '"'


def escaped(letter: str, text: str, against: Label | None) -> str:
    """A letter of a text in double quotes; one of another alphabet among Latin letters may look like one of them."""
    if letter in '"\\':
        return f"\\{letter}"
    strange = isinstance(against, str) and not letter.isascii() and letter not in against
    foreign = unicodedata.name(letter, "").startswith(LIKE_LATIN) and re.search("[A-Za-z]", text)
    if letter.isprintable() and not (strange or foreign or UNSEEN.fullmatch(letter)):
        return letter
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def outline(value: Label) -> str:
    """What is left of a label without its type, capitals, spaces around, invisible letters and normalisation."""
    text = unicodedata.normalize("NFKC", UNSEEN.sub("", str(value))).casefold()
    text = "".join(letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cf") or letter.isspace())
    text = " ".join(text.split())
    text = TRUTH.get(text, text)
    return str(int(text.partition(".")[0])) if INTEGER.fullmatch(text) else text


def lookalikes(labels: Collection[Label], found: Collection[Label | None]) -> dict[Label, Label]:
    """Values of a column that have no class but look like one that has: the value, and which one it looks like."""
    outlines: dict[str, list[Label]] = {}
    for label in labels:
        outlines.setdefault(outline(label), []).append(label)
    strange = (value for value in found if value is not None and value not in labels)
    return {
        value: min(outlines[outline(value)], key=lambda label: first_change(value, label))
        for value in strange
        if outline(value) in outlines
    }


def first_change(value: Label, label: Label) -> int:
    """The position of the first of the CHANGES that makes two labels the same text; behind the last if none does."""
    one, other = str(value), str(label)
    return [*(change(one) == change(other) for change in CHANGES.values()), True].index(True)


def difference(value: Label, label: Label) -> str:
    """In what two labels of the same outline differ."""
    if isinstance(value, str) != isinstance(label, str):
        return "text, and the other a number" if isinstance(value, str) else "a number, and the other text"
    words = [*CHANGES, "characters that can't be seen or look alike"]
    return f"different in {words[first_change(value, label)]}"


def told_apart(value: Label, label: Label, place: str, other_place: str) -> str:
    """One line about two that look alike: where each stands, and in what they differ."""
    return (
        f"{written(value, label)}{place} and {written(label, value)}{other_place} are not the same: one is"
        f" {difference(value, label)}"
    )


def explain_lookalikes(labels: Mapping[Any, int], found: Collection[Label | None]) -> str | None:
    """One line about values that look like wanted ones, with the line to write instead; None if there are none."""
    alike = lookalikes(labels, found)
    if not alike:
        return None
    pairs = "; ".join(
        told_apart(value, label, " in the column", " in labels") for value, label in list(alike.items())[:2]
    )
    kept = {label: index for label, index in labels.items() if label in found or label not in alike.values()}
    wanted = kept | {value: labels[label] for value, label in alike.items()}
    line = ", ".join(f"{written(value, alike.get(value))}: {index}" for value, index in wanted.items())
    return f"{pairs}; to take them, write labels: {{{line}}}"

"""Texts of the user's that pages and figures show: a line each, of a length that has room there."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator

LONGEST = 60  # characters
UNWANTED = ("Cc", "Cs", "Zl", "Zp")  # categories of what is no part of a line
TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # turn the direction of what follows
# Printable by their category, yet nothing is seen of them: Hangul's fillers, Braille's empty cell, variation selectors.
UNSEEN = re.compile("[\u115f\u1160\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")
PARTS = ("_std", "_floor", "_ceiling")  # with which numbers about another number end in reports/metrics/


def one_line(text: str) -> str:
    """A text that can be seen, on one line; its letters, signs and scripts are the user's business.

    Raises:
        ValueError: it is empty, too long, begins or ends with a space, or holds what is no part of a line.
    """
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    if not any(letter.isprintable() for letter in text):
        raise ValueError("holds nothing that can be seen")
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text)} characters; at most {LONGEST} have room in figures")
    if strange := [letter for letter in text if unicodedata.category(letter) in UNWANTED or letter in TURNING]:
        raise ValueError(f"holds the character U+{ord(strange[0]):04X}: write one line, without tabs")
    return text


def as_seen(text: str) -> str:
    """A text without what isn't seen of it: texts that look the same are the same then."""
    shown = "".join(letter for letter in text if unicodedata.category(letter) != "Cf" and letter.isprintable())
    return unicodedata.normalize("NFC", UNSEEN.sub("", shown))


def class_name(text: str) -> str:
    """A line that can be a part of a number's name, such as requested_female_judged_male.

    Raises:
        ValueError: it is no line, or would make one number's name look like another's.
    """
    if text.endswith(PARTS) or "_judged_" in text:
        raise ValueError(f"must not end in {', '.join(PARTS)} or hold _judged_, which tell numbers apart")
    return one_line(text)


Line = Annotated[str, AfterValidator(one_line)]
ClassName = Annotated[str, AfterValidator(class_name)]

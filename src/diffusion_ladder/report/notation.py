"""Formulas written once and shown twice: as MathML on the page, as LaTeX in its Markdown twin."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Math:
    """A piece of a formula in both notations."""

    mathml: str
    latex: str

    def __add__(self, other: "Math") -> "Math":
        return Math(self.mathml + other.mathml, f"{self.latex} {other.latex}")


def identifier(text: str, latex: str = "") -> Math:
    """A letter, or the name of a function."""
    return Math(f"<mi>{text}</mi>", latex or text)


def operator(text: str, latex: str = "") -> Math:
    """A sign between two pieces."""
    return Math(f"<mo>{text}</mo>", latex or text)


def constant(text: str) -> Math:
    """A number that belongs to the formula."""
    return Math(f"<mn>{text}</mn>", text)


def text(words: str) -> Math:
    """Words within a formula."""
    return Math(f"<mtext>\N{NO-BREAK SPACE}{words}\N{NO-BREAK SPACE}</mtext>", rf"\text{{ {words} }}")


def row(*parts: Math) -> Math:
    """Pieces side by side, as one."""
    return Math(f"<mrow>{''.join(p.mathml for p in parts)}</mrow>", " ".join(p.latex for p in parts))


def parentheses(*parts: Math) -> Math:
    """Round brackets as high as what they hold."""
    inner = row(*parts)
    return Math(f"<mrow><mo>(</mo>{inner.mathml}<mo>)</mo></mrow>", rf"\left({inner.latex}\right)")


def norm_squared(*parts: Math) -> Math:
    """The squared Euclidean norm."""
    inner, bars = row(*parts), '<mo fence="true">‖</mo>'
    latex = rf"\left\lVert {inner.latex} \right\rVert^2"
    return Math(f"<msup><mrow>{bars}{inner.mathml}{bars}</mrow><mn>2</mn></msup>", latex)


def sub(base: Math, *index: Math) -> Math:
    """A piece with an index."""
    below = row(*index)
    return Math(f"<msub>{base.mathml}{below.mathml}</msub>", f"{base.latex}_{{{below.latex}}}")


def power(base: Math, *exponent: Math) -> Math:
    """A piece with an exponent."""
    above = row(*exponent)
    return Math(f"<msup>{base.mathml}{above.mathml}</msup>", f"{{{base.latex}}}^{{{above.latex}}}")


def sub_power(base: Math, index: Math, exponent: Math) -> Math:
    """A piece with an index below and an exponent above it."""
    latex = f"{base.latex}_{{{index.latex}}}^{{{exponent.latex}}}"
    return Math(f"<msubsup>{base.mathml}{index.mathml}{exponent.mathml}</msubsup>", latex)


def under(base: Math, *below: Math) -> Math:
    """A large operator with what it runs over."""
    index = row(*below)
    return Math(f"<munder>{base.mathml}{index.mathml}</munder>", f"{base.latex}_{{{index.latex}}}")


def root(*parts: Math) -> Math:
    """A square root."""
    inner = row(*parts)
    return Math(f"<msqrt>{inner.mathml}</msqrt>", rf"\sqrt{{{inner.latex}}}")


def fraction(above: Math, below: Math) -> Math:
    """One piece over another; each is one piece."""
    return Math(f"<mfrac>{above.mathml}{below.mathml}</mfrac>", rf"\frac{{{above.latex}}}{{{below.latex}}}")


def bar(base: Math) -> Math:
    """A letter with a bar."""
    return accent(base, "¯", r"\bar")


def hat(base: Math) -> Math:
    """A letter with a hat: an estimate."""
    return accent(base, "^", r"\hat")


def accent(base: Math, mark: str, latex: str) -> Math:
    """A letter with a mark above."""
    mover = f'<mover accent="true">{base.mathml}<mo stretchy="false">{mark}</mo></mover>'
    return Math(mover, rf"{latex}{{{base.latex}}}")


def mathml(formulas: Sequence[Math]) -> str:
    """Formulas as MathML, one element each, so that the page can break between them."""
    return "\n".join(f'<math display="block">{row(formula).mathml}</math>' for formula in formulas)


def latex(formulas: Sequence[Math]) -> str:
    """Formulas as one line of LaTeX."""
    return r" \qquad ".join(" ".join(formula.latex.split()) for formula in formulas)

"""Turns the equations of docstrings into MathML, which browsers show by themselves.

A docstring writes `R~_k = P_k(R_k)   a comment`. A name of one letter, or of a Greek
one, is a variable with what follows `_` below it; other words are text.

>>> inline("theta_k")
'<math><msub><mi>θ</mi><mi>k</mi></msub></math>'
"""

import html
import re
from typing import NamedTuple

GREEK = {
    "alpha": "\u03b1",
    "beta": "β",
    "delta": "δ",
    "eta": "η",
    "lambda": "λ",
    "mu": "μ",
    "omega": "ω",
    "phi": "φ",
    "tau": "τ",
    "theta": "θ",
}
FUNCTIONS = ("CE", "KL", "MSE", "svd", "softmax", "log", "exp", "clip")
LARGE = {"sum": "∑", "max": "max", "min": "min", "argmin": "argmin"}
SIGNS = {"<-": "←", "->": "→", ">=": "≥", "!=": "≠", "||": "‖", "-": "\u2212"}
TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>\d+)"
    r"|(?P<hyphened>[a-z]{2,}(?:-[a-z]+)+)"
    r"|(?P<name>[A-Za-z]+\d*)(?P<tilde>~?)"
    r"(?P<below>(?:_\{[^}]*\}|_[A-Za-z0-9]+(?:,[a-z](?![a-z]))?)*)"
    r"(?:\^(?P<above>[a-z]+))?(?P<prime>'(?!s\b))?"
    r"|(?P<squared>\^2)"
    r"|(?P<sign><-|->|>=|!=|\|\||.)"
)
# What stands in a sentence: a variable with an index, a Greek letter, a lone letter.
IN_PROSE = re.compile(
    r"(?<![\w`^'~-])(?:"
    r"(?:[A-Za-z]|"
    + "|".join(GREEK)
    + r")~?_[A-Za-z]+(?:,[a-z](?![a-z]))?(?:\^[a-z]+)?"
    r"|[A-Z]\^[a-z]+|" + "|".join(GREEK) + r"|[B-HJ-Zb-z]\d?)(?![\w-]|\.[a-z])"
)


class Atom(NamedTuple):
    """A piece of a formula: `kind` is name, text, sign or space."""

    kind: str
    markup: str


def inline(formula: str) -> str:
    """One formula within a sentence."""
    return f"<math>{_row(formula)}</math>"


def sentence(text: str) -> str:
    """A paragraph whose variables are set as such; what is in backticks stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part
        if part.startswith("`")
        else IN_PROSE.sub(lambda found: inline(found[0]), part).replace(">=", "≥")
        for part in parts
    )


def block(text: str) -> str:
    """A block of equations, a line each, as HTML: aligned, with comments beside."""
    rows = "".join(_line(line) for line in text.splitlines() if line.strip())
    table = f'<mtable displaystyle="true">{rows}</mtable>'
    return f'<div class="equations"><math display="block">{table}</math></div>'


def _line(line: str) -> str:
    formula, comment = _part(line.strip())
    found = re.search(r"\s(?:=|<-)\s", f" {formula}")
    if found:
        left, right = formula[: found.start()], formula[max(0, found.start() - 1) :]
    else:
        left, right = "", formula
    cells = (_row(left), _row(right), _row(comment))
    return (
        "<mtr>"
        + "".join(f"<mtd><mrow>{cell}</mrow></mtd>" for cell in cells)
        + "</mtr>"
    )


def _part(line: str) -> tuple[str, str]:
    """A formula and the comment after it: three spaces, then words."""
    for gap in re.finditer(r"\s{3,}", line):
        before, rest = line[: gap.start()], line[gap.end() :]
        words = re.findall(r"(?<![\w^])[a-z]{3,}(?![\w(])", rest)
        said = set(words) - {*GREEK, *LARGE, "grad"}
        if said and re.search(r"[=<]", before) and rest[0] not in "=<":
            return before, rest
    return line, ""


def _row(formula: str) -> str:
    atoms = [_atom(match) for match in TOKEN.finditer(formula)]
    return "".join(atom.markup for atom in _spaced(_fractions(_worded(atoms))))


def _atom(match: re.Match[str]) -> Atom:
    if match["space"]:
        return Atom("space", "")
    if match["number"]:
        return Atom("name", f"<mn>{match['number']}</mn>")
    if match["squared"]:
        return Atom("squared", "")
    if match["hyphened"]:
        return Atom("text", match[0])
    if match["name"]:
        return _name(match)
    sign = html.escape(SIGNS.get(match["sign"], match["sign"]), quote=False)
    fixed = ' stretchy="false"' if sign in "()[]‖" else ""
    return Atom("sign", f"<mo{fixed}>{sign}</mo>")


def _name(match: re.Match[str]) -> Atom:
    name, below = match["name"], match["below"]
    if name == "grad":
        return Atom("name", "<mo>∇</mo>")
    if name == "dlambda":
        return Atom("name", "<mrow><mo>∂</mo><mi>λ</mi></mrow>")
    if name in LARGE:
        tag = "mo" if name == "sum" else "mi"
        base = f"<{tag}>{LARGE[name]}</{tag}>"
        return Atom("name", _with("munder", base, below, ""))
    digits = re.fullmatch(r"([a-z])(\d)", name)
    if digits:
        return Atom("name", f"<msub><mi>{digits[1]}</mi><mn>{digits[2]}</mn></msub>")
    if len(name) > 1 and name not in GREEK and name not in FUNCTIONS:
        return Atom("text", match[0])
    base = f"<mi>{GREEK.get(name, name)}</mi>"
    if match["tilde"]:
        base = f"<mover>{base}<mo>~</mo></mover>"
    if not match["above"]:
        return Atom("name", _with("msub", base, below, match["prime"] or ""))
    index = f"<mrow>{_row(below[1:])}</mrow><mtext>{match['above']}</mtext>"
    return Atom("name", f"<msubsup>{base}{index}</msubsup>")


def _with(tag: str, base: str, below: str, prime: str) -> str:
    """A base with what stands below it; a prime belongs to the index, if any."""
    mark = "<mo>\u2032</mo>" if prime else ""
    if not below:
        return f"<mrow>{base}{mark}</mrow>" if mark else base
    if below.startswith("_{"):
        index = _row(below[2:-1])
    else:
        words = re.split(r"[_,]", below[1:])
        index = "<mo>,</mo>".join(
            f"<mi>{word}</mi>" if len(word) == 1 else f"<mtext>{word}</mtext>"
            for word in words
        )
    alone = not mark and not below.startswith("_{") and "<mo>" not in index
    return f"<{tag}>{base}{index if alone else f'<mrow>{index}{mark}</mrow>'}</{tag}>"


def _worded(atoms: list[Atom]) -> list[Atom]:
    """Words that follow each other become one text; `k's` keeps its apostrophe."""
    found: list[Atom] = []
    for place, atom in enumerate(atoms):
        kinds = [part.kind for part in found[-2:]] + [atom.kind]
        apostrophe = atoms[place - 1].markup == "<mo>'</mo>"
        if kinds == ["text", "space", "text"]:
            found[-2:] = [Atom("text", f"{found[-2].markup} {atom.markup}")]
        elif place and apostrophe and atom.markup == "<mi>s</mi>":
            found[-1] = Atom("text", "\u2019s")
        else:
            found.append(atom)
    return found


def _fractions(atoms: list[Atom]) -> list[Atom]:
    """`a / b` of two names or numbers becomes a fraction."""
    found: list[Atom] = []
    waiting = list(atoms)
    while waiting:
        atom = waiting.pop(0)
        if atom.markup == "<mo>/</mo>":
            before = len(found) - 1 - (bool(found) and found[-1].kind == "space")
            after = 1 if waiting and waiting[0].kind == "space" else 0
            named = before >= 0 and after < len(waiting)
            if named and found[before].kind == waiting[after].kind == "name":
                top, bottom = found[before].markup, waiting[after].markup
                if "∂" in bottom:
                    top = "<mo>∂</mo>"
                found[before:] = [Atom("name", f"<mfrac>{top}{bottom}</mfrac>")]
                del waiting[: after + 1]
                continue
        found.append(atom)
    return found


def _spaced(atoms: list[Atom]) -> list[Atom]:
    """Spaces between names are narrow, around texts wide; signs have their own."""
    found: list[Atom] = []
    for place, atom in enumerate(atoms):
        if atom.kind == "space":
            sides = {a.kind for a in atoms[max(0, place - 1) : place + 2]}
            comma = place and atoms[place - 1].markup in ("<mo>,</mo>", "<mo>;</mo>")
            if "text" in sides:
                found.append(Atom("space", '<mspace width="0.3em"></mspace>'))
            elif "sign" not in sides or comma:
                found.append(Atom("space", '<mspace width="0.2em"></mspace>'))
        elif atom.kind == "text":
            text = html.escape(atom.markup, quote=False)
            found.append(Atom("text", f"<mtext>{text}</mtext>"))
        elif atom.kind == "squared" and found:
            last = found.pop().markup
            found.append(Atom("name", f"<msup>{last}<mn>2</mn></msup>"))
        else:
            found.append(atom)
    return found

"""What a person reading an issue on GitHub does not see, removed before a model reads it. Pure.

Gone are invisible and direction-changing characters, terminal escapes, HTML comments and declarations, hidden
elements, attributes of the others (`href` and `src` stay), alt texts, link titles, definitions that nothing uses, and
words after a code fence's language. Code stays as it is where it is certain that GitHub shows it as code: a fence at
the margin after an empty line, a span within one line; where it is not, code is cleaned like the rest. `<details>`
stays: a reader can open it. What a URL or a formula spells stays too.

Sources: CommonMark 0.31.2 (sections 4.5, 4.6, 4.7, 6.6), GitHub Flavored Markdown (footnotes, tables), Unicode's
Default_Ignorable_Code_Point, ECMA-48 (escapes).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

#: More rounds than an honest text needs; after them no `<` and no `[` is left standing.
_ROUNDS = 8


def remove(text: str) -> tuple[str, tuple[str, ...]]:
    """The text without them, and the names of what was removed. Idempotent; never raises."""
    removed: dict[str, None] = {}
    for round_ in range(len(text) + 2):
        before = text
        text = _visible(text, removed)
        text = _rendered(text, removed, shield=text == before)
        if text == before:
            break
        if round_ == _ROUNDS:
            text = text.replace("<", "").replace("[", "")
            removed["nested-markup"] = None
    return text, tuple(removed)


# characters

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\n\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]?"
)
_PLAIN = re.compile(r"[\n\t\x20-\x7e\xa1-\xac\xae-\u02ff]*")
_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_ZERO_WIDTH = {0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF}
_SELECTORS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0x180B, 0x1810)}
#: Drawn as nothing though Unicode's category does not say so: joiners, fillers, the empty Braille cell
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0, *range(0xFFF0, 0xFFF9)}
#: Format characters that are drawn: signs around numbers
_DRAWN = {*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2, 0x110BD, 0x110CD}


def _visible(text: str, removed: dict[str, None]) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _drop("ansi-escapes", _ESCAPES, "", text, removed)
    if _PLAIN.fullmatch(text):
        return text
    kept: list[str] = []
    for at, char in enumerate(text):
        name = _invisible(char)
        if name is None or _of_emoji(char, kept, text[at + 1 : at + 2]):
            kept.append(char)
        else:
            removed[name] = None
    return "".join(kept)


def _invisible(char: str) -> str | None:
    """The class of an invisible character, None for any other."""
    code = ord(char)
    if char in "\n\t" or 0x20 <= code < 0x7F:
        return None
    if code < 0xA0:
        return "control-characters"
    for name, codes in (("bidi-controls", _BIDI), ("zero-width", _ZERO_WIDTH), ("variation-selectors", _SELECTORS)):
        if code in codes:
            return name
    if 0xE0000 <= code <= 0xE007F:
        return "tag-characters"
    drawn = code in _DRAWN or unicodedata.category(char) not in ("Cf", "Cs", "Zl", "Zp")
    return None if drawn and code not in _BLANK and not 0xE0000 <= code <= 0xE0FFF else "invisible-characters"


def _of_emoji(char: str, kept: list[str], following: str) -> bool:
    """The two cases where a selector or joiner is part of a picture: it follows one, and once."""
    last = kept[-1] if kept else ""
    picture = bool(last) and (unicodedata.category(last) in ("So", "Sk") or last in "‼⁉↔ℹ〰〽")
    if char in "\ufe0e\ufe0f":
        return picture or (last != "" and last in "0123456789#*" and following == "\u20e3")
    joins = char == "\u200d" and following != "" and unicodedata.category(following) == "So"
    return joins and (picture or last == "\ufe0f")


# markup

_COMMENT = re.compile(r"<!-->|<!--->|<!--.*?(?:--!?>|\Z)", re.DOTALL)
_DECLARATION = re.compile(r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<![A-Za-z][^>]*(?:>|\Z)|<\?.*?(?:\?>|\Z)", re.DOTALL)
_TAG = re.compile(
    r"<(?![A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*>|[^\s<>@]+@[^\s<>]+>)"  # not <https://...>, not <mail@...>
    r"""(/?)([A-Za-z][A-Za-z0-9_.:-]*)(?=[\s/>])((?:"[^"]*"|'[^']*'|[^<>"'])*)>"""
)
_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
)
_NEVER_SHOWN = frozenset(
    [
        "script",
        "style",
        "template",
        "noscript",
        "head",
        "title",
        "iframe",
        "object",
        "svg",
        "math",
        "noembed",
        "noframes",
        "textarea",
    ]
)
_HIDDEN = re.compile(
    r"""(?:^|[\s"'/])hidden(?:[\s=/"']|$)|aria-hidden\s*=\s*["']?true|style\s*=[^>]*(?:display\s*:\s*none"""
    r"""|visibility\s*:\s*hidden|opacity\s*:\s*0|font-size\s*:\s*0|color\s*:\s*(?:transparent|white|\#fff))""",
    re.IGNORECASE,
)
_KEPT = re.compile(r"""(?:^|[\s"'/])(href|src)\s*=\s*(["']?)([^\s"'<>\0]+)\2""", re.IGNORECASE)
_ALT = re.compile(r"!\[(?:[^\[\]\\]|\\.|\[[^\[\]]*\])+\](?=[(\[])")
_TITLE = r"""(?:"[^"]*"|'[^']*'|\([^()]*\))"""
_LINK = re.compile(rf"(\]\(\s*(?:<[^<>\n]*>|[^\s()<>]*(?:\([^\s()]*\)[^\s()]*)*))\s+{_TITLE}\s*\)")
_SPACED = re.compile(r"\]\(\s*<[^<>\n]*\s[^<>\n]*>\s*\)")
_LABEL = r"\[((?:[^\[\]\\]|\\.){1,999})\]"
_BEGIN = r"^(?:[ \t>*+-]|[0-9]{1,9}[.)])*"
_DEFINITION = re.compile(
    rf"({_BEGIN}{_LABEL}:[ \t]*\n?[ \t]*(<[^<>\n]*>|[^\s<]\S*))(\s+{_TITLE})?[ \t]*(?:\n|\Z)", re.MULTILINE
)
_FOOTNOTE = re.compile(
    rf"{_BEGIN}\[(\^[^\]\s]{{1,200}})\]:[^\n]*(?:\n(?:[ \t]*\n(?=[ \t]{{2}}))?[^\n]*\S[^\n]*)*", re.MULTILINE
)
_URL = re.compile(r"<?(?:https?://|mailto:|/|\.\.?/|#)[^\s<>]+>?")
_INFO = re.compile(r"^([ \t>*+-]*(?:`{3,}|~{3,})[ \t]*[\w+#.-]{0,30})[ \t]+[^`\n]+$", re.MULTILINE)


def _drop(name: str, pattern: re.Pattern[str], by: str, text: str, removed: dict[str, None]) -> str:
    text, count = pattern.subn(by, text)
    if count:
        removed[name] = None
    return text


def _rendered(text: str, removed: dict[str, None], *, shield: bool) -> str:
    """One round over the markup. Not shielded in a round that removed characters: GitHub saw other fences then."""
    codes: list[str] = []
    text = _drop("code-fence-words", _INFO, r"\1", text, removed)
    if shield:
        text = _shielded(text, codes)
    text = _drop("html-comments", _COMMENT, "", text, removed)
    text = _drop("html-declarations", _DECLARATION, "", text, removed)
    text = _without_hidden(text, removed)
    text = _TAG.sub(lambda tag: _bare(tag, removed), text)
    text = _drop("image-alt-text", _ALT, "![]", text, removed)
    text = _drop("link-titles", _LINK, r"\1)", text, removed)
    text = _drop("link-titles", _SPACED, "]()", text, removed)
    uses = Counter(_key(label) for label in re.findall(_LABEL, text))
    text = _FOOTNOTE.sub(lambda note: _used(note[0], uses[_key(note[1])] > 1, removed), text)
    text = _DEFINITION.sub(lambda found: _definition(found, uses, removed), text)
    return re.sub("\0([0-9]+)\0", lambda code: codes[int(code[1])], text)


def _key(label: str) -> str:
    return " ".join(label.casefold().split())


def _used(text: str, used: bool, removed: dict[str, None]) -> str:
    if not used:
        removed["reference-definitions"] = None
    return text if used else ""


def _definition(found: re.Match[str], uses: Counter[str], removed: dict[str, None]) -> str:
    if found[2].startswith("^") or not _used("x", uses[_key(found[2])] > 1 and bool(_URL.fullmatch(found[3])), removed):
        return found[0] if found[2].startswith("^") else ""
    if found[4]:
        removed["link-titles"] = None
        return f"{found[1]}\n"
    return found[0]


def _without_hidden(text: str, removed: dict[str, None]) -> str:
    """Elements that are never drawn or say they are hidden, with what they hold; to the end where they do not end."""
    kept, start, depth, name = [], 0, 0, ""
    for tag in _TAG.finditer(text):
        closing, found = tag[1] == "/", tag[2].lower()
        if depth:
            depth += (-1 if closing else 1) if found == name else 0
            start = start if depth else tag.end()
        elif not closing and (found in _NEVER_SHOWN or _HIDDEN.search(tag[3])):
            removed["hidden-elements"] = None
            kept.append(text[start : tag.start()])
            depth, name = (0, "") if found in _VOID else (1, found)
            start = len(text) if depth else tag.end()
    return "".join([*kept, text[start:]])


def _bare(tag: re.Match[str], removed: dict[str, None]) -> str:
    """A tag with its name and where it leads."""
    links = "" if tag[1] else "".join(f' {one[1].lower()}="{one[3]}"' for one in _KEPT.finditer(tag[3]))
    if re.search(r"\w", _KEPT.sub("", tag[3])) or (tag[1] and tag[3].strip()):
        removed["html-attributes"] = None
    return f"<{tag[1]}{tag[2]}{links}>"


def _shielded(text: str, codes: list[str]) -> str:
    """The text with everything that is code for certain replaced by NUL, its number in `codes`, NUL."""
    lines, out, at = text.split("\n"), [], 0
    after_empty = spans = True
    while at < len(lines):
        line, number = lines[at], len(codes)
        fence = re.match(r"(`{3,})[^`]*$|(~{3,})", line) if after_empty else None
        if fence:
            ticks = fence[1] or fence[2]
            close = re.compile(rf" {{0,3}}{ticks[0]}{{{len(ticks)},}}[ \t]*")
            end = next((n for n in range(at + 1, len(lines)) if close.fullmatch(lines[n])), None)
            if end is None:
                break
            codes.append("\n".join(lines[at : end + 1]))
            out.append(f"\0{number}\0")
            at, after_empty, spans = end + 1, False, False
            continue
        if re.search(r"<(?:[!?]|/?(?:pre|script|style|textarea)\b)", line, re.IGNORECASE) and not _all_spans(line):
            break  # raw HTML that empty lines do not end
        if spans:
            line, spans = _spans(line, codes)
        out.append(line)
        after_empty = not line.strip(" \t")
        spans = spans or after_empty
        at += 1
    return "\n".join([*out, *lines[at:]])


def _all_spans(line: str) -> bool:
    return "<" not in _spans(line, [])[0]


def _spans(line: str, codes: list[str]) -> tuple[str, bool]:
    """The code spans of one line shielded; and whether the next line of the paragraph may be read in the same way.

    Not after raw HTML, an escape, a run of backticks without its pair, or across the cells of a table.
    """
    out, start = "", 0
    while run := re.compile("`+").search(line, start):
        before = line[start : run.start()]
        close = re.compile(f"(?<!`){run[0]}(?!`)").search(line, run.end())
        if "<" in before or before.endswith("\\") or close is None or "|" in line[run.start() : close.end()]:
            return out + line[start:], False
        out += f"{before}\0{len(codes)}\0"
        codes.append(line[run.start() : close.end()])
        start = close.end()
    return out + line[start:], "<" not in line[start:]

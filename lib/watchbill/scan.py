"""What may not leave: the scan of a change before it is pushed, and the redaction of every text that is kept or shown.

Secrets are found by a table of patterns and not by the library detect-secrets, which was measured for this: importing
one of its detectors takes 105 ms and loads requests, its GitHub detector yields the prefix `ghp` and not the token (so
nothing could be redacted with it), `sk-ant-`, `github_pat_` and Google's keys are unknown to it, and its settings are
global. Nothing here measures entropy: digests and lock files would hold up every second change.

Pure; standard library only.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import posixpath
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

MIB = 1 << 20


class Change(NamedTuple):
    """One path that differs between the base and the work. A rename is a deletion and an addition."""

    path: bytes | str  # relative to the tree, as git has it
    status: str  # A | M | D | T
    old_mode: str  # "100644", "100755", "120000", "160000"; "000000" where there is none
    new_mode: str
    size: int  # of the new content, in bytes
    content: bytes | None  # the new content; None where deleted, a link, a submodule, or larger than the policy allows
    link_target: bytes | str | None = None  # of a symbolic link
    old_content: bytes | None = None  # None: not known, then every line counts as added


class Policy(NamedTuple):
    """What is too much, and what an agent may not touch."""

    max_file_bytes: int = 5 * MIB
    max_total_bytes: int = 25 * MIB
    protected: tuple[str, ...] = ()  # the repository's own patterns, beyond PROTECTED


DEFAULT = Policy()


class Finding(NamedTuple):
    """A reason why the work needs a person before it leaves."""

    kind: str  # secret | too_large | binary | link_outside | protected_path | submodule | test_removed
    path: str  # printable
    detail: str  # with the numbers; never the secret itself


#: Workflows run with the repository's rights; the rest steers engines, reviewers, git itself, or this program.
#: Instructions for engines count: an agent that edits them steers every agent after it.
# fmt: off
PROTECTED = (
    ".github/workflows/**", ".github/actions/**", "/CODEOWNERS", ".github/CODEOWNERS", "docs/CODEOWNERS",
    "**/.claude/**", "**/.mcp.json", "**/.codex/**", "**/.cursor/**", "**/.cursorrules", "**/.gemini/**",
    "**/CLAUDE.md", "**/CLAUDE.local.md", "**/AGENTS.md", "**/AGENTS.override.md", "**/GEMINI.md",
    ".github/copilot-instructions.md", ".github/instructions/**",
    "**/.gitattributes", ".gitmodules", ".watchbill/**",
)
# fmt: on

_LINK, _SUBMODULE, _NONE = "120000", "160000", "000000"
_DELETED = "D"
_MOST_SECRETS = 20  # named in one file; nobody reads more


def findings(changes: Iterable[Change], policy: Policy = DEFAULT) -> tuple[Finding, ...]:
    """Everything in a change that may not leave on its own. ValueError for a record without the bytes it must have."""
    listed = tuple(changes)
    found: list[Finding] = []
    for change in listed:
        path = shown(change.path)
        found += [Finding(kind, path, detail) for kind, detail in _of_path(change, policy)]
        found += [Finding(kind, path, detail) for kind, detail in _of_content(change, policy)]
    total = sum(change.size for change in listed if change.new_mode not in (_NONE, _SUBMODULE))
    if total > policy.max_total_bytes:
        what = f"the change holds {_mib(total)} in {len(listed)} files, allowed are {_mib(policy.max_total_bytes)}"
        found.append(Finding("too_large", ".", what))
    found += _tests_removed(listed)
    return tuple(found)


def shown(path: bytes | str) -> str:
    """A path that can be printed: bytes that are not UTF-8 and control characters are escaped."""
    text = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else path
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _text(path: bytes | str) -> str:
    return path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB" if size >= MIB / 10 else f"{size} bytes"


# paths: protected, submodules, links


def _of_path(change: Change, policy: Policy) -> Iterator[tuple[str, str]]:
    path = _text(change.path)
    if any(_is_git(part) for part in path.split("/")):
        yield "protected_path", "git's own folder"
    for pattern in (*PROTECTED, *policy.protected):
        if matches(path, pattern):
            yield "protected_path", f"matches {pattern}"
            break
    if _SUBMODULE in (change.old_mode, change.new_mode):
        yield "submodule", "a submodule was added, moved or removed; they are not handled"
    if change.new_mode == _LINK:
        why = _leads_outside(
            path, _text(change.link_target if change.link_target is not None else change.content or b"")
        )
        if why:
            yield "link_outside", why


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern covers a path. Case does not count, because on a Mac it does not.

    As in .gitignore: without a slash it matches at any depth, with one it starts at the root, `**/` means at any
    depth; a folder covers what is below. `*` also crosses slashes.
    """
    pattern, path = pattern.casefold(), path.casefold()
    deep = pattern.startswith("**/") or "/" not in pattern.rstrip("/")
    pattern = pattern.removeprefix("**/").strip("/")
    parts = path.split("/")
    starts = ["/".join(parts[n:]) for n in range(len(parts))] if deep else [path]
    return any(fnmatchcase(start, pattern) or fnmatchcase(start, f"{pattern}/*") for start in starts)


def _is_git(part: str) -> bool:
    """`.git`, and the spellings that HFS+ and NTFS take for it (CVE-2014-9390)."""
    bare = "".join(
        c for c in part if not 0x200B <= ord(c) <= 0x200F and not 0x202A <= ord(c) <= 0x206F and c != "\ufeff"
    )
    return bare.casefold().rstrip(" .").split(":")[0] in (".git", "git~1")


def _leads_outside(path: str, target: str) -> str:
    """Why a symbolic link may not leave, or ''. Only its own name is followed, never the disk."""
    if not target or "\0" in target or "\\" in target:
        return f"the link's target {shown(target)!r} cannot be followed"
    if target.startswith("/"):
        return f"the link leads to the absolute path {shown(target)}"
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    if ".." in parts[up:]:  # what it means depends on whether a name before it is a link itself
        return f"the link's target {shown(target)} goes down and up again"
    if up > path.count("/"):
        return f"the link leads out of the tree, to {shown(target)}"
    real = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return "the link leads into git's own folder" if any(_is_git(part) for part in real.split("/")) else ""


# content: size, binaries, secrets


def _of_content(change: Change, policy: Policy) -> Iterator[tuple[str, str]]:
    if change.status == _DELETED or change.new_mode in (_NONE, _SUBMODULE):
        return
    if change.size > policy.max_file_bytes:
        yield "too_large", f"{_mib(change.size)}, allowed are {_mib(policy.max_file_bytes)} a file"
    content = change.content
    if content is None:
        if change.new_mode != _LINK and change.size <= policy.max_file_bytes:
            raise ValueError(f"{shown(change.path)}: no content was given to scan")
        return
    if change.new_mode == _LINK or content == change.old_content:
        return
    if b"\0" in content[:8000] and not _is_image(_text(change.path), content):
        yield "binary", f"{_mib(change.size)} that are not text"
    for token in itertools.islice(_new_secrets(change), _MOST_SECRETS):
        yield "secret", token


def _new_secrets(change: Change) -> Iterator[str]:
    """Tokens that the base did not already have, by line. Latin-1 maps each byte to one character and never fails."""
    before = {token for _, token, _ in secrets_in((change.old_content or b"").decode("latin-1"))}
    text = (change.content or b"").decode("latin-1")
    for kind, token, start in secrets_in(text):
        if token not in before:
            digest = hashlib.sha256(token.encode("latin-1")).hexdigest()[:8]
            yield f"{kind} on line {text.count(chr(10), 0, start) + 1} (sha256 {digest})"


#: Magic number by extension. Pictures are part of ordinary work; other binaries (archives, programs, fonts) are not.
# fmt: off
_IMAGES = {
    "png": b"\x89PNG\r\n", "jpg": b"\xff\xd8\xff", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF",
    "ico": b"\0\0\1\0", "bmp": b"BM",
}
# fmt: on


def _is_image(path: str, content: bytes) -> bool:
    magic = _IMAGES.get(path.rpartition(".")[2].lower())
    return magic is not None and content.startswith(magic)


class _Pattern(NamedTuple):
    """How one kind of secret looks."""

    kind: str
    hints: tuple[str, ...]  # one of these literal texts is in every match: a search costs nothing without it
    regex: str  # the group `token` is the secret, else the whole match
    blocks: bool = True  # also holds up a push; else only redacted, because documentation is full of it


#: Between the lines of a key: line ends, also escaped ones, quotes, the marks of a diff; not the dashes of the end
_GAP = r"(?:\\[nrt]|[^A-Za-z0-9+/=\-]|-(?!----)|-(?=-----[BE])|\+(?![A-Za-z0-9+/=]))"
_BASE64 = r"[A-Za-z0-9+/=]"
# fmt: off
_PATTERNS = (
    # with the headers of an encrypted key, and across string literals and escaped line ends
    _Pattern("private-key", ("PRIVATE KEY",),
             rf"-----BEGIN [A-Z0-9 ]{{0,20}}PRIVATE KEY(?: BLOCK)?-----{_GAP}{{0,40}}"
             rf"(?:(?:Proc-Type|DEK-Info|Version|Comment): ?[^\n\\]{{0,200}}{_GAP}{{0,40}}){{0,4}}"
             rf"{_BASE64}{{16,}}+(?:{_GAP}{{1,40}}{_BASE64}{{16,}}+)*+"
             rf"(?:(?:{_GAP}{{1,40}}{_BASE64}{{1,15}})?{_GAP}{{0,40}}"
             rf"-----END [A-Z0-9 ]{{0,20}}PRIVATE KEY(?: BLOCK)?-----)?"),
    _Pattern("github-token", ("gho_", "ghp_", "ghu_", "ghs_", "ghr_"), r"gh[opusr]_[A-Za-z0-9_]{36,}"),
    _Pattern("github-token", ("github_pat_",), r"github_pat_[A-Za-z0-9_]{22,}"),
    _Pattern("anthropic-key", ("sk-ant-",), r"sk-ant-[A-Za-z0-9_\-]{20,}"),
    _Pattern("openai-key", ("sk-",), r"sk-(?:(?:proj|svcacct|admin|None)-[A-Za-z0-9_\-]{20,}|[A-Za-z0-9]{40,})"),
    _Pattern("google-key", ("AIza",), r"AIza[A-Za-z0-9_\-]{35}"),
    _Pattern("google-key", ("GOCSPX-",), r"GOCSPX-[A-Za-z0-9_\-]{28}"),
    _Pattern("google-key", ("ya29.",), r"ya29\.[A-Za-z0-9_\-]{20,}"),
    _Pattern("aws-key", ("AKIA", "ASIA"), r"A[KS]IA[A-Z0-9]{16}"),
    _Pattern("aws-key", ("secret", "Secret", "SECRET"),
             r"(?i:aws_?secret_?(?:access_?)?key)[\"' ]{0,3}[:=][\"' ]{0,3}(?P<token>[A-Za-z0-9/+]{40})"),
    _Pattern("azure-key", ("AccountKey=",), r"AccountKey=(?P<token>[A-Za-z0-9+/]{86}==)"),
    _Pattern("slack-token", ("xox",), r"xox[abcdeoprs](?:\.xox[abp])?-[A-Za-z0-9\-]{10,}"),
    _Pattern("slack-token", ("xapp-",), r"xapp-[0-9]-[A-Za-z0-9\-]{20,}"),
    _Pattern("slack-webhook", ("hooks.slack.com/",),
             r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<token>[A-Za-z0-9/_+\-]{20,})"),
    _Pattern("npm-token", ("npm_",), r"npm_[A-Za-z0-9]{36}"),
    _Pattern("npm-token", (":_auth",), r":_auth(?:Token)?\s?=\s?\"?(?P<token>[A-Za-z0-9_\-+/=.]{16,})"),
    _Pattern("pypi-token", ("pypi-AgE",), r"pypi-AgE[A-Za-z0-9_\-]{50,}"),
    _Pattern("gitlab-token", ("gl",), r"gl(?:pat|dt|ft|soat|rt|cbt|ptt|agent|oas|imt)-[A-Za-z0-9_\-]{20,}"),
    _Pattern("stripe-key", ("k_live_",), r"[rs]k_live_[A-Za-z0-9]{20,}"),
    _Pattern("sendgrid-key", ("SG.",), r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}"),
    _Pattern("huggingface-token", ("hf_",), r"hf_[A-Za-z0-9]{34,}"),
    _Pattern("vault-token", ("hvs.",), r"hvs\.[A-Za-z0-9_\-]{24,}"),
    _Pattern("docker-token", ("dckr_",), r"dckr_[a-z]{3}_[A-Za-z0-9_\-]{20,}"),
    _Pattern("age-key", ("AGE-SECRET-KEY-1",), r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    _Pattern("jwt", ("eyJ",), r"eyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}"),
    _Pattern("authorization", ("uthorization", "UTHORIZATION"),
             r"(?i:authorization)[\"']?\s?[:=]\s?[\"']?(?:(?i:basic|bearer|token)\s)(?P<token>[^\s\"'\\,]{8,})", False),
    _Pattern("url-password", ("://",), r"://[^\s/:@\"'<>]{0,200}:(?P<token>[^\s/@\"'<>]{1,500})@", False),
)
# fmt: on


@functools.cache
def _compiled(regex: str) -> re.Pattern[str]:
    """On first need: to compile them all would cost every importer some ten milliseconds."""
    return re.compile(regex)


def _matches_of(pattern: _Pattern, text: str) -> Iterator[tuple[int, int]]:
    if any(hint in text for hint in pattern.hints):
        yield from map(_token_span, _compiled(pattern.regex).finditer(text))


def _token_span(match: re.Match[str]) -> tuple[int, int]:
    return match.span("token" if "token" in match.re.groupindex else 0)


def secrets_in(text: str) -> Iterator[tuple[str, str, int]]:
    """(kind, token, where it starts) of every secret that would hold up a push."""
    for pattern in _PATTERNS:
        for start, end in _matches_of(pattern, text) if pattern.blocks else ():
            yield pattern.kind, text[start:end], start


#: A known value shorter than this is not replaced: it would shred every text, and is no secret
_LEAST = 4


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with known secret values and everything that looks like one replaced by `[redacted KIND]`.

    Known values are also found percent-encoded and as JSON writes them. For all that goes to ledger, log, Slack and
    GitHub.
    """
    known = {form for value in secrets if len(value) >= _LEAST for form in _forms(value)}
    if known:
        longest_first = sorted(known, key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, longest_first)), "[redacted secret]", text)
    for pattern in _PATTERNS:
        if any(hint in text for hint in pattern.hints):
            text = _compiled(pattern.regex).sub(functools.partial(_replaced, pattern), text)
    return text


def _forms(value: str) -> tuple[str, ...]:
    """How a value may be written: as it is, in JSON, percent-encoded."""
    unreserved = (string.ascii_letters + string.digits + "-._~").encode()
    percent = "".join(chr(b) if b in unreserved else f"%{b:02X}" for b in value.encode("utf-8", "surrogatepass"))
    return value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], percent


def _replaced(pattern: _Pattern, match: re.Match[str]) -> str:
    start, end = _token_span(match)
    whole, offset = match[0], match.start()
    if match.string.startswith("[redacted ", start):
        return whole
    return f"{whole[: start - offset]}[redacted {pattern.kind}]{whole[end - offset :]}"


# tests: deleted, skipped, fewer

_TEST_PATHS = (
    r"(?:^|/)(?:tests?|__tests__|specs?|e2e)/|(?:^|/)test_[^/]*\.py$|_test\.(?:py|go|rb|dart|exs?|cc|cpp)$|_spec\.rb$"
    r"|\.(?:test|spec)\.[cm]?[jt]sx?$|(?:^|/)[^/]*Tests?\.(?:java|kt|cs|swift|scala|php)$"
)
#: By extension: how a test begins, how one is switched off
_SCRIPT = (
    r"^\s*(?:it|test)(?:\.each\b[^\n]*)?\(",
    r"\b(?:it|test|describe|suite|context)\.(?:skip|todo|fixme)\b|\bx(?:it|test|describe)\(|\bthis\.skip\(",
)
_JVM = (r"@Test\b|@ParameterizedTest\b", r"@(?:Disabled|Ignore)\b")
_TESTING = {
    "py": (
        r"^\s*(?:async )?def test",
        r"@(?:pytest\.mark|mark)\.(?:skip|xfail)|\bpytest\.(?:skip|xfail)\(|@(?:unittest\.)?(?:skip(?:If|Unless)?\(|skip\s*$"
        r"|expectedFailure)|@unittest\.skip|\.skipTest\(|\braise (?:unittest\.)?SkipTest|^\s*__test__\s*=\s*False"
        r"|^\s*collect_ignore",
    ),
    "go": (r"^func Test", r"\b[tb]\.Skip(?:Now|f)?\("),
    "rs": (r"#\[(?:\w+::)?test\b", r"#\[ignore"),
    "rb": (r"^\s*(?:it|specify|test) ", r"^\s*(?:skip|pending)\b|^\s*x(?:it|describe|context|specify)\b"),
    "cs": (r"\[(?:Test|Fact|Theory)\b", r"\[Ignore\b|\bSkip\s*="),
    "java": _JVM,
    "kt": _JVM,
    "scala": _JVM,
    **dict.fromkeys(("js", "jsx", "ts", "tsx", "mjs", "cjs", "mts", "cts"), _SCRIPT),
}


def _tests_removed(changes: tuple[Change, ...]) -> Iterator[Finding]:
    """Deleted test files (one that reappears unchanged was moved), new marks that skip, fewer tests than before."""
    arrived = Counter(c.content for c in changes if c.status != _DELETED and c.content is not None)
    counts = [(change, *_test_counts(change)) for change in changes]
    fewer = sum(before for _, before, _ in counts) - sum(after for _, _, after in counts)
    for change, before, after in counts:
        path = _text(change.path)
        if change.status == _DELETED:
            moved = change.old_content is not None and arrived[change.old_content] > 0
            if _compiled(_TEST_PATHS).search(path) and not moved:
                yield Finding("test_removed", shown(path), "a test file was deleted")
            continue
        yield from (Finding("test_removed", shown(path), skip) for skip in _skips(change))
        if fewer > 0 and before > after:
            yield Finding("test_removed", shown(path), f"it had {before} tests and has {after}")


def _testing(change: Change) -> tuple[str, str] | None:
    return _TESTING.get(_text(change.path).rpartition(".")[2].lower())


def _test_counts(change: Change) -> tuple[int, int]:
    """Tests before and after; (0, 0) where the base's content is not known or the language is not."""
    known = _testing(change)
    if known is None or (change.old_content is None and change.status != "A"):
        return 0, 0
    begins = re.compile(known[0].encode(), re.MULTILINE)
    before = 0 if change.status == "A" else len(begins.findall(change.old_content or b""))
    return before, len(begins.findall(change.content or b""))


def _skips(change: Change) -> Iterator[str]:
    known = _testing(change)
    if known is None or change.content is None:
        return
    switched_off = re.compile(known[1])
    before = Counter((change.old_content or b"").decode("latin-1").split("\n"))
    for number, line in enumerate(change.content.decode("latin-1").split("\n"), 1):
        before[line] -= 1
        if before[line] < 0 and (match := switched_off.search(line)):
            yield f"line {number} switches a test off: {match[0].strip()}"

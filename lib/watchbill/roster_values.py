"""The single values of a roster: each function takes what was written and gives the value, or says in a ValueError
what is wrong and what would be right. What is not text where text is wanted goes through: the model refuses it.

No message repeats what may be a secret. Standard library only.
"""

from __future__ import annotations

import os
import re
import zoneinfo
from decimal import Decimal, InvalidOperation
from typing import Any

from watchbill import admit, secrets
from watchbill.roster_errors import Path, Source, nearest

#: What an agent can be, each a script in bin/.
ROLES = ("implement", "sweep")
#: Roles that run no engine: they spend nothing and take no prompt.
WITHOUT_ENGINE = ("sweep",)
#: Where claim refs may be (DESIGN section 6): the second where a server takes branches only.
CLAIMS = ("refs/watchbill", "refs/heads")
#: What any engine's table or map may say of its account, whoever made the engine.
ENGINE_MONEY = ("account", "request_usd", "max_utilisation")
#: Engines of ours by their own keys; anything with a dot in it is somebody else's module, and its keys pass.
ENGINES: dict[str, frozenset[str]] = {
    name: frozenset({"program", "key", "env", "model", "silence_s", *ENGINE_MONEY, *own})
    for name, own in {
        "claude": ("args", "resume"), "codex": ("args", "resume"),
        "command": ("argv",), "scripted": ("script", "steps"),
    }.items()
}  # fmt: skip
MICRO = 1_000_000
#: What Claude Code 2.1.329 calls its tools; others may come from elsewhere, and pass.
_TOOLS = ("Agent", "Bash", "Edit", "Glob", "Grep", "NotebookEdit", "Read", "Skill", "Task", "TodoWrite", "WebFetch",
          "WebSearch", "Write")  # fmt: skip
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(value: object) -> int:
    """A duration: `45m`, `2s`, `6h`, `1d`, or seconds as a bare number."""
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    match = re.fullmatch(r"([0-9]{1,8}) ?([smhd]?)", text.strip())
    if match is None:
        raise ValueError(f"{value!r} is no duration; right would be: 45m, 30s, 2h, or seconds as a bare number")
    return int(match[1]) * _UNITS_S[match[2]]


def tools(value: object) -> object:
    """Names of tools, as a list or with commas between: `Read, Edit, Bash`. An empty list would be none at all."""
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",")]
    if not isinstance(value, list):
        return value
    for word in value:
        if not isinstance(word, str) or re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,99}", word) is None:
            raise ValueError(f"{str(word)!r} is no name of a tool; right would be: Read, Edit, Write, Bash")
        if word not in _TOOLS and "did you mean" in (hint := nearest(word, _TOOLS, 0.75)):
            raise ValueError(f"{word!r} is the name of no tool that is known{hint}")
    return value


def period(value: object) -> int:
    found = seconds(value)
    if found == 0:
        raise ValueError("must be more than nothing; right would be: 25m")
    return found


def scheduler(value: object) -> str:
    known = ("auto", "systemd", "launchd", "loop")
    if value not in known:
        raise ValueError(f"{value!r} is no scheduler{nearest(str(value), known)}")
    return str(value)


def search_path(value: object) -> str:
    """A PATH: absolute directories with colons between; `~` is the operator's home."""
    folders = [os.path.expanduser(one) for one in value.split(":")] if isinstance(value, str) else []
    right = "right would be: ~/.local/bin:/usr/local/bin:/usr/bin:/bin"
    for one in folders:
        if not os.path.isabs(one) or not one.isprintable() or '"' in one:
            raise ValueError(f"{one!r} is no absolute directory; {right}")
    if not folders:
        raise ValueError(f"{value!r} is no search path; {right}")
    return ":".join(folders)


def micro_dollars(value: object) -> int:
    """Dollars as written (Decimal or int, never a float) in whole micro-dollars."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise ValueError(f"must be dollars as a bare number, not {value!r}; right would be: 1.50")
    amount = Decimal(value) * MICRO
    if not amount.is_finite() or not 0 < amount < 10**15:
        raise ValueError(f"{value} dollars is no amount; it must be more than 0 and less than a thousand million")
    if amount != int(amount):
        raise ValueError(f"{value} dollars is finer than a micro-dollar; six decimals are kept")
    return int(amount)


def dollars(value: object) -> int:
    """The same of an engine's own map, whose numbers are plain by then."""
    return micro_dollars(Decimal(str(value)) if isinstance(value, float) else value)


def price(value: object) -> int:
    """Dollars for a million tokens, in micro-dollars; a price may be nothing."""
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool) and value == 0:
        return 0
    return micro_dollars(value)


def size(value: object) -> int:
    """Bytes: `500MB`, `2GB`, `1GiB`, or a bare number."""
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    match = re.fullmatch(r"([0-9]{1,12}) ?(|B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)", text.strip())
    if match is None:
        raise ValueError(f"{str(value)!r} is no size; right would be: 500MB, 2GB, 1GiB, or bytes as a bare number")
    step = 1024 if "i" in match[2] else 1000
    power = ("", "K", "M", "G", "T").index(match[2].rstrip("B").rstrip("i"))
    return int(match[1]) * int(step**power)


def share_ppm(value: object) -> int:
    """A share of a whole, 0.8 or 80%, in millionths."""
    number: object = value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]+)?%", value):
        number = Decimal(value[:-1]) / 100
    if isinstance(number, bool) or not isinstance(number, (int, float, Decimal)) or not 0 < number <= 1:
        raise ValueError(f"{value!r} is no share; right would be: 0.8, or 80%")
    return int(Decimal(str(number)) * MICRO)


def load_ppm(value: object) -> int:
    """A load average for each processor, in millionths; 0: not asked."""
    number = Decimal(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else Decimal(-1)
    if not number.is_finite() or not 0 <= number <= 1000:
        raise ValueError(f"must be a number such as 1.5, the load for each processor, not {str(value)!r}")
    return int(number * MICRO)


def whole(value: object) -> int:
    """A whole number; 0: not asked."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**12:
        raise ValueError(f"must be a whole number, or 0 for never, not {str(value)!r}")
    return value


def percent(value: object) -> int:
    number = whole(str_free(value))
    if number > 100:
        raise ValueError(f"must be at most 100, not {number}")
    return number


def str_free(value: object) -> object:
    """`20%` as the number that it is."""
    match = re.fullmatch(r"([0-9]{1,3}) ?%", value) if isinstance(value, str) else None
    return int(match[1]) if match else value


def hosts(value: object) -> int:
    number = count(value)
    if number > 1000:
        raise ValueError(f"must be at most 1000, not {number}")
    return number


def count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10**15:
        raise ValueError(f"must be a whole number above 0, not {str(value)!r}")
    return value


def per_minute(value: object) -> int:
    number = count(value)
    if number > 600:
        raise ValueError(f"must be at most 600, not {number}; GitHub recommends 6")
    return number


def claims(value: object) -> object:
    if isinstance(value, str) and value not in CLAIMS:
        raise ValueError(f"{value!r} is no place for claim refs{nearest(value, CLAIMS)}")
    return value


def full_name(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*/(?!\.{1,2}$)[A-Za-z0-9._-]+", value):
        raise ValueError(f"{value!r} is no repository; right would be: owner/name")
    return value


def zone(value: object) -> object:
    if isinstance(value, str):
        try:
            zoneinfo.ZoneInfo(value)
        except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
            raise ValueError(f"{value!r} is no time zone{nearest(value, zoneinfo.available_timezones())}") from None
    return value


def trust(value: object) -> object:
    if isinstance(value, str):
        admit.policy([value])
    return value


def reference(value: object) -> object:
    problem = secrets.problem_of(value) if isinstance(value, str) else None
    if problem:
        raise ValueError(problem)
    return value


def auth(value: object) -> object:
    if isinstance(value, str) and value.startswith("app:"):
        raise ValueError("GitHub Apps are not in this version; right would be: gh, or token:<secret reference>")
    if isinstance(value, str) and value.startswith("token:"):
        reference(value.removeprefix("token:"))
    elif isinstance(value, str) and value != "gh":
        raise ValueError("must be gh, or token:<secret reference> such as token:file:/path; never a token itself")
    return value


def remote(value: object) -> object:
    if not isinstance(value, str):
        return value
    scheme, url, rest = value.partition("://")
    if not value or value.startswith("-") or "::" in value or (url and scheme not in ("https", "http", "ssh", "file")):
        raise ValueError(f"{value!r} is no remote; right would be: https://..., ssh://..., file://... or a path")
    if url and scheme != "ssh" and "@" in rest.partition("/")[0]:
        raise ValueError("a remote carries no user or password; credentials come from [github] auth")
    return value


def api_url(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"https?://[^\s/@]+(?:/\S*)?", value):
        raise ValueError(f"{value!r} is no address; right would be: https://api.github.com")
    return value.rstrip("/") if isinstance(value, str) else value


def listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def label(value: object) -> object:
    if isinstance(value, str) and not (0 < len(value.strip()) <= 50 and value == value.strip() and "," not in value):
        raise ValueError(f"{value!r} is no label: 1 to 50 characters, no comma, no space at the ends")
    return value


def folder(value: object) -> object:
    if isinstance(value, str) and not value.startswith(("/", "~/")):
        raise ValueError(f"{value!r} must be an absolute path, or begin with ~/")
    return value


def agent_name(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", value):
        raise ValueError(f"{value!r} is no codename: a to z first, then a to z, 0 to 9 and '-', at most 31 characters")
    return value


def engine_name(value: object) -> object:
    if isinstance(value, str) and value not in ENGINES and not re.fullmatch(r"\w+(?:\.\w+)+", value):
        raise ValueError(f"{value!r} is no engine, nor the dotted path of a module{nearest(value, ENGINES)}")
    return value


def engine_map(value: object) -> object:
    return {"use": value} if isinstance(value, str) else value


def words(value: object) -> object:
    """Text that YAML may take for a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def role(value: object) -> object:
    if isinstance(value, str) and value not in ROLES:
        raise ValueError(f"{value!r} is no role of this version{nearest(value, ROLES)}")
    return value


# YAML nodes, as `yaml.compose` makes them: they know their lines

MOST_NODES = 2000  # of a front matter; aliases make a thousand of one


def of_node(source: Source, node: Any, path: Path, left: list[int]) -> Any:
    """A node as a value; where each key stands is noted. Numbers stay exact, times and keys stay text."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"more than {MOST_NODES} values (an alias within itself?)")
    source.lines.setdefault(path, node.start_mark.line + 2)
    if node.id == "sequence":
        return [of_node(source, one, (*path, n), left) for n, one in enumerate(node.value)]
    if node.id == "mapping":
        return _map(source, node, path, left)
    source.written[path] = node.value
    return _scalar(source, node, path)


def _map(source: Source, node: Any, path: Path, left: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 2
        if key_node.id != "scalar":
            source.add_at(line, "a key must be a word")
            continue
        here = (*path, key_node.value)
        if key_node.value in found:
            source.add_at(line, f"{key_node.value}: is written twice; the first is on line {source.lines[here]}")
            continue
        source.lines[here] = line
        found[key_node.value] = of_node(source, value_node, here, left)
    return found


def _scalar(source: Source, node: Any, path: Path) -> Any:
    kind, text = node.tag.rpartition(":")[2], node.value
    digits = text.replace("_", "")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("yes", "true", "on")
    if kind in ("int", "float"):  # what is no number to us stays text: YAML 1.1 reads 9:00 as 540
        try:
            return Decimal(digits.replace(".inf", "inf").replace(".nan", "nan")) if kind == "float" else int(digits)
        except (ValueError, InvalidOperation):
            return text
    if kind not in ("str", "int", "float", "timestamp", "value", "merge"):
        source.add(path, f"the YAML tag {node.tag} is not understood")
    return text


def plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, (str, int, float)) else value.isoformat()

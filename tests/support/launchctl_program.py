"""A stand-in for launchctl and launchd: a program with a state directory, which answers in their words and codes.

Verbs: bootstrap, bootout, enable, disable, print, print-disabled, list, kickstart, managername, error. `kickstart`
really starts the program, in its own group, with launchd's environment, its output appended where the plist says. By
itself it starts nothing: when that would be is `launchd_clock.py`'s. Knobs, files in STATE/knobs:

    busy        bootout is asynchronous: for so many questions the unit is still there
    gui, user   this session's every answer is this code (125, 112)
    fail        lines "VERB CODE": the next call of VERB answers so, each once
    lies        bootstrap answers 0 so many times, and loads nothing
    other       bootstrap answers 0 so many times, and loads another program
    old-words   print-disabled says true and false
    hang        every call hangs
    never       labels that bootstrap always answers 5 for
    says        what a disabled unit's bootstrap answers: 119 unless said otherwise
"""

# Imports almost nothing: it is started some thousand times.
from __future__ import annotations

import fcntl
import marshal
import os
import sys

WORDS = {
    3: "No such process",
    5: "Input/output error",
    36: "Operation now in progress",
    37: "Operation already in progress",
    109: "Invalid property list",
    110: "Missing Label",
    111: "Missing Program",
    112: "Could not find domain for",
    113: "Could not find service",
    119: "Service is disabled",
    122: "Path had bad ownership/permissions",
    125: "Domain does not support specified action",
}
_SYSEXITS = {
    64: "EX_USAGE",
    69: "EX_UNAVAILABLE",
    70: "EX_SOFTWARE",
    75: "EX_TEMPFAIL",
    77: "EX_NOPERM",
    78: "EX_CONFIG",
}
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


class _Refused(Exception):
    def __init__(self, code: int, words: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.words = words or WORDS.get(code, "")


def _read(path: str) -> dict:
    try:
        with open(path, "rb") as file:
            return marshal.load(file)
    except FileNotFoundError:
        return {}


def _write(path: str, what: dict) -> None:
    with open(path + ".new", "wb") as file:
        marshal.dump(what, file)
    os.replace(path + ".new", path)


class _Launchd:
    """One call's view of the state directory. A unit is SESSION/LABEL, a dictionary."""

    def __init__(self, root: str) -> None:
        self.root = root

    def knob(self, name: str, value: object = None) -> str:
        path = f"{self.root}/knobs/{name}"
        if value is not None:
            with open(path, "w") as file:
                file.write(str(value))
        try:
            with open(path) as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def spent(self, name: str) -> bool:
        """Take one off a knob that counts; whether there was one."""
        count = int(self.knob(name) or 0)
        if count:
            self.knob(name, count - 1)
        return count > 0

    def once(self, verb: str) -> int:
        """The code that this call is to fail with; 0: none."""
        lines = self.knob("fail").splitlines()
        for number, line in enumerate(lines):
            if line.split()[0] == verb:
                self.knob("fail", "\n".join(lines[:number] + lines[number + 1 :]))
                return int(line.split()[1])
        return 0

    def session(self, target: str) -> str:
        kind, _, uid = target.partition("/")
        if kind not in ("gui", "user") or uid.partition("/")[0] != str(os.getuid()):
            raise _Refused(112, f"Bad request.\nCould not find domain for {target}")
        if code := self.knob(kind):
            raise _Refused(int(code))
        return kind

    def service(self, target: str) -> tuple[str, dict]:
        kind, label = self.session(target), target.split("/", 2)[2]
        path = f"{self.root}/{kind}/{label}"
        job = _read(path)
        if not job:
            where = f"domain for user {kind}: {os.getuid()}"
            raise _Refused(113, f'Bad request.\nCould not find service "{label}" in {where}')
        return path, job

    def bootstrap(self, domain: str, path: str) -> str:
        kind = self.session(domain)
        plist = _checked(path)
        label = plist["Label"]
        if _read(f"{self.root}/disabled").get(label):
            raise _Refused(int(self.knob("says") or 119))
        file = f"{self.root}/{kind}/{label}"
        if job := _read(file):
            raise _Refused(37 if job["leaving"] else 5)
        if label in self.knob("never").split():
            raise _Refused(5)
        if self.spent("lies"):
            return ""
        if self.spent("other"):
            plist["ProgramArguments"] = ["/usr/bin/false"]
        now = {"plist": plist, "path": path, "domain": domain, "state": "not running", "pid": None, "runs": 0}
        _write(file, {**now, "exit": None, "signal": None, "leaving": 0})
        return self.kickstart(f"{domain}/{label}") if plist.get("RunAtLoad") else ""

    def bootout(self, target: str) -> str:
        try:
            path, job = self.service(target)
        except _Refused as refused:
            raise _Refused(3 if refused.code == 113 else refused.code) from None
        if job["leaving"]:
            raise _Refused(37)
        if job["pid"]:
            with open(f"{self.root}/killed", "a") as file:
                file.write(job["plist"]["Label"] + "\n")
            if job.get("really"):
                _end(job["pid"])
        if polls := int(self.knob("busy") or 0):
            _write(path, {**job, "leaving": polls, "state": "running"})
            raise _Refused(36)
        os.unlink(path)
        return ""

    def switch(self, target: str, off: bool) -> str:
        self.session(target)
        path = f"{self.root}/disabled"
        _write(path, {**_read(path), target.split("/", 2)[2]: off})
        return ""

    def print(self, target: str) -> str:
        if target.count("/") == 1:
            return self.print_session(target)
        path, job = self.service(target)
        if job["leaving"] == 1:
            os.unlink(path)
        elif job["leaving"]:
            _write(path, {**job, "leaving": job["leaving"] - 1})
        return _printed(target, job)

    def print_session(self, domain: str) -> str:
        """A session's own page: also which units it has, each with its pid and its last status."""
        folder = f"{self.root}/{self.session(domain)}"
        jobs = ((label, _read(f"{folder}/{label}")) for label in sorted(os.listdir(folder)))
        lines = [f"\t\t{job['pid'] or 0:8} {job['exit'] or '-':>6} \t{label}" for label, job in jobs]
        return "\n".join([f"{domain} = {{", "\ttype = login", "\tservices = {", *lines, "\t}", "}", ""])

    def print_disabled(self, domain: str) -> str:
        self.session(domain)
        words = ("false", "true") if self.knob("old-words") else ("enabled", "disabled")
        every = sorted(_read(f"{self.root}/disabled").items())
        lines = [f'\t\t"{label}" => {words[off]}' for label, off in every]
        return "\n".join(["", "\tdisabled services = {", *lines, "\t}", "\tlogin item associations = {", "\t}", ""])

    def list(self) -> str:
        jobs = ((label, _read(f"{self.root}/gui/{label}")) for label in sorted(os.listdir(f"{self.root}/gui")))
        lines = [f"{job['pid'] or '-'}\t{job['exit'] or 0}\t{label}" for label, job in jobs]
        return "\n".join(["PID\tStatus\tLabel", *lines, ""])

    def kickstart(self, target: str) -> str:
        import subprocess

        path, job = self.service(target)
        if job["pid"]:
            raise _Refused(37, " ")
        start = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import launchctl_program as p; "
        argv = [sys.executable, "-I", "-S", "-c", start + "p.run(*sys.argv[1:])", self.root, path]
        null = subprocess.DEVNULL
        child = subprocess.Popen(argv, start_new_session=True, stdin=null, stdout=null, stderr=null)
        _write(path, {**job, "pid": child.pid, "state": "running", "really": True})
        child.returncode = 0  # it is launchd's, and nobody waits for it here
        return ""


def _checked(path: str) -> dict:
    """As path_goodness_check of the open source launchctl, and then what launchd itself wants."""
    import plistlib
    import stat

    try:
        seen = os.stat(path)
    except FileNotFoundError:
        raise _Refused(2, "No such file or directory") from None
    bad = seen.st_mode & 0o022 or seen.st_uid not in (0, os.getuid())
    if bad or not stat.S_ISREG(seen.st_mode) or not path.endswith(".plist"):
        raise _Refused(122)
    try:
        with open(path, "rb") as file:
            plist = plistlib.load(file)
    except Exception:
        raise _Refused(109) from None
    if not isinstance(plist, dict) or "Label" not in plist:
        raise _Refused(110)
    if not plist.get("ProgramArguments") and "Program" not in plist:
        raise _Refused(111)
    return plist


def _end(group: int) -> None:
    import signal

    try:
        os.killpg(group, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        pass


def run(root: str, path: str) -> None:
    """Be the process group of one run, and write down how it ended."""
    import signal
    import subprocess

    with _Locked(root):  # whoever started us has written by then that it did
        plist = _read(path)["plist"]
    kept = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME", "TMPDIR") if name in os.environ}
    env = {**kept, "PATH": _PATH, "XPC_SERVICE_NAME": plist["Label"], **plist.get("EnvironmentVariables", {})}
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with open(plist.get("StandardOutPath", os.devnull), "ab") as out:
            where, null = plist.get("WorkingDirectory", "/"), subprocess.DEVNULL
            code = subprocess.call(plist["ProgramArguments"], cwd=where, env=env, stdin=null, stdout=out, stderr=out)
    except OSError:
        code = 78
    with _Locked(root):
        if job := _read(path):
            ended = {"exit": code, "signal": None} if code >= 0 else {"exit": None, "signal": f"Killed: {-code}"}
            _write(path, {**job, **ended, "pid": None, "state": "not running", "runs": job["runs"] + 1})


def _printed(target: str, job: dict) -> str:
    """As macOS 13 prints a unit: its own fields behind one tab."""
    plist = job["plist"]
    domain, label = target.rsplit("/", 1)
    arguments = plist.get("ProgramArguments") or [plist["Program"]]
    lines = [
        f"{target} = {{",
        f"\tactive count = {1 if job['pid'] else 0}",
        f"\tpath = {job['path']}",
        "\ttype = LaunchAgent",
        f"\tstate = {job['state']}",
        "",
        f"\tprogram = {plist.get('Program', arguments[0])}",
        *_block("arguments", arguments),
        "",
    ]
    for name, key in (
        ("working directory", "WorkingDirectory"),
        ("stdout path", "StandardOutPath"),
        ("stderr path", "StandardErrorPath"),
    ):
        if key in plist:
            lines.append(f"\t{name} = {plist[key]}")
    inherited = {"SSH_AUTH_SOCK": "/private/tmp/com.apple.launchd.x/Listeners"}
    lines += _block("inherited environment", [f"{k} => {v}" for k, v in inherited.items()])
    lines += _block("default environment", [f"PATH => {_PATH}"])
    environment = {**plist.get("EnvironmentVariables", {}), "XPC_SERVICE_NAME": label}
    lines += _block("environment", [f"{k} => {v}" for k, v in environment.items()])
    lines += ["", f"\tdomain = {domain} [100012]", "\tasid = 100012", "\tminimum runtime = 10"]
    lines += [f"\texit timeout = {plist.get('ExitTimeOut', 5)}", f"\truns = {job['runs']}"]
    if job["pid"]:
        lines.append(f"\tpid = {job['pid']}")
    if job["signal"]:
        lines.append(f"\tlast terminating signal = {job['signal']}")
    else:
        code = job["exit"]
        named = f": {_SYSEXITS[code]}" if code in _SYSEXITS else ""
        lines.append(f"\tlast exit code = {'(never exited)' if code is None else f'{code}{named}'}")
    if "StartInterval" in plist:
        lines.append(f"\trun interval = {plist['StartInterval']} seconds")
    lines += _triggers(label, plist.get("StartCalendarInterval", []))
    lines += ["\tspawn type = daemon (3)", "\tresource coalition = {", "\t\tID = 1", "\t\tstate = active", "\t}", ""]
    return "\n".join([*lines, "\tproperties = inferred program", "}", ""])


def _block(name: str, lines: list[str]) -> list[str]:
    return [f"\t{name} = {{", *(f"\t\t{line}" for line in lines), "\t}"]


def _triggers(label: str, calendar: list[dict[str, int]] | dict[str, int]) -> list[str]:
    every = calendar if isinstance(calendar, list) else [calendar]
    if not every:
        return []
    lines = ["\tevent triggers = {"]
    for number, times in enumerate(every):
        lines += [f"\t\t{label}.{268435472 + number} => {{", "\t\t\tkeepalive = 0", f"\t\t\tservice = {label}"]
        lines += ["\t\t\tstream = com.apple.launchd.calendarinterval", "\t\t\tmonitor = com.apple.UserEventAgent-Aqua"]
        lines += ["\t\t\tdescriptor = {", *(f'\t\t\t\t"{k}" => {v}' for k, v in times.items()), "\t\t\t}", "\t\t}"]
    return [*lines, "\t}"]


class _Locked:
    """One call at a time."""

    def __init__(self, root: str) -> None:
        self.file = open(f"{root}/lock", "w")  # noqa: SIM115

    def __enter__(self) -> None:
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self.file.close()


_PREFIXES = {"bootstrap": "Bootstrap failed", "bootout": "Boot-out failed"}


def _answer(launchd: _Launchd, verb: str, words: list[str]) -> str:
    if code := launchd.once(verb):
        raise _Refused(code)
    if verb == "bootstrap":
        return launchd.bootstrap(*words)
    if verb == "bootout":
        return launchd.bootout(*words)
    if verb in ("enable", "disable"):
        return launchd.switch(*words, off=verb == "disable")
    if verb == "print":
        return launchd.print(*words)
    if verb == "print-disabled":
        return launchd.print_disabled(*words)
    if verb == "kickstart":
        return launchd.kickstart(words[-1])
    if verb == "list":
        return launchd.list()
    if verb == "managername":
        return "Aqua\n" if not launchd.knob("gui") else "Background\n"
    if verb == "error":
        return f"{words[0]}: {WORDS.get(int(words[0]), 'unknown error code')}\n"
    raise _Refused(64, f"Unrecognized subcommand: {verb}")


def main(argv: list[str]) -> int:
    root, *words = argv
    launchd = _Launchd(root)
    if launchd.knob("hang"):
        import time

        time.sleep(60)
    with _Locked(root):
        code = 0
        try:
            sys.stdout.write(_answer(launchd, words[0], words[1:]))
        except _Refused as refused:
            code = refused.code
            prefix = _PREFIXES.get(words[0])
            print(f"{prefix}: {code}: {refused.words}" if prefix else refused.words, file=sys.stderr)
        with open(f"{root}/calls", "a") as file:
            file.write(repr([*words, code]) + "\n")
    return code

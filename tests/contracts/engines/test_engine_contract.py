"""Every engine, run by the supervisor: whatever the program does, there is one verdict in time, and nothing is left.

To put an adapter through the suite, give it a dialect in `support.dialects`. What is special to one adapter is in
tests/engines; here is what the contract promises in whatever words a program says it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from support.dialects import Dialect
from support.engines import lines
from watchbill.engines.base import Filled


def test_ends_well(tmp_path: Path, adapter: Dialect) -> None:
    text = 'open("made", "w").close(); said("hello"); window(0.93, 1790000000); done()'
    done = adapter.run(tmp_path, text)
    assert (done.verdict, done.limit, done.exit_status, done.stopped_by, done.strays) == ("ok", None, 0, None, 0)
    assert (tmp_path / "work" / "made").exists()
    assert done.message == "hello"
    assert done.windows == ((Filled("five_hour", 930_000, 1790000000),) if adapter.windows else ())
    assert (done.isolation, done.until) == ("none", None)


def test_another_exit_status_is_a_crash(tmp_path: Path, adapter: Dialect) -> None:
    """Broken once: with `ok` from the last word alone, a codex that ended with 3 was a success."""
    done = adapter.run(tmp_path, "done(); sys.exit(3)")
    assert (done.verdict, done.exit_status) == ("crash", 3)


def test_who_says_so_has_to_say_that_it_has_finished(tmp_path: Path, adapter: Dialect) -> None:
    """Broken once: with `ok` from the exit status alone, a claude that was cut off, or interrupted, was a success."""
    expected = "crash" if adapter.finishes else "ok"
    assert adapter.run(tmp_path, 'said("half of it")').verdict == expected
    assert adapter.run(tmp_path, 'said("half of it"); interrupted()').verdict == expected


def test_killed_by_a_signal_is_a_crash(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)")
    assert done.verdict == "crash"
    assert done.exit_status in (-11, 139)  # 139: as the shell in between says it


def test_never_ends(tmp_path: Path, adapter: Dialect) -> None:
    """Broken once: without the look at the wall time this ran until the program's own 60 s were over."""
    done = adapter.run(tmp_path, "time.sleep(60)", wall_s=0.4)
    assert (done.verdict, done.limit) == ("timeout", "wall")
    assert 0.4 <= done.duration_s < 10


def test_goes_on_after_its_last_word(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, "done(); time.sleep(60)", wall_s=8 if adapter.finishes else 0.4, lingering_s=0.3)
    assert (done.verdict, done.limit) == ("timeout", "lingering" if adapter.finishes else "wall")


def test_says_nothing(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, 'for _ in range(4): said("x"); time.sleep(0.15)\ntime.sleep(60)', silence_s=0.5)
    assert (done.verdict, done.limit) == ("timeout", "silence")
    assert 0.9 < done.duration_s < 10  # four words kept it alive before that


def test_a_word_on_stderr_is_no_silence(tmp_path: Path, adapter: Dialect) -> None:
    text = "for _ in range(4): sys.stderr.write('x'); sys.stderr.flush(); time.sleep(0.15)\ndone()"
    assert adapter.run(tmp_path, text, silence_s=0.5).verdict == "ok"


def test_ignores_every_polite_signal(tmp_path: Path, adapter: Dialect) -> None:
    """Broken once: with nothing after SIGTERM, neither rung nor sweep, the run went on for the program's own 60 s."""
    text = "[signal.signal(s, signal.SIG_IGN) for s in (2, 15, 1)]\ntime.sleep(60)"
    done = adapter.run(tmp_path, text, wall_s=0.4)
    assert (done.verdict, done.limit) == ("timeout", "wall")
    assert done.duration_s < 10


def test_leaves_a_daemon_that_holds_stdout(tmp_path: Path, adapter: Dialect) -> None:
    """Broken once: with a sweep of the process group alone, the daemon was still there and the run waited for EOF."""
    text = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
os.wait()
done()
"""
    done = adapter.run(tmp_path, text)
    assert (done.verdict, done.strays) == ("ok", 1)
    assert done.duration_s < 10


def test_a_stray_that_forks_on(tmp_path: Path, adapter: Dialect) -> None:
    """Each lives for 2 ms; it can be seen by its traces only.

    Broken once: swept by looks through /proc, it was missed on a busy machine and went on until it was hunted down.
    """
    text = """
traces = os.open("traces", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
if os.fork() == 0:
    os.setsid()
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if os.fork():
            os._exit(0)
        os.write(traces, b".")
        time.sleep(0.002)
time.sleep(0.1)
done()
"""
    assert adapter.run(tmp_path, text).verdict == "ok"
    traces = tmp_path / "work" / "traces"
    size = traces.stat().st_size
    assert size > 0
    time.sleep(0.1)
    assert traces.stat().st_size == size


def test_a_line_of_two_megabytes(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, 'said("x" * (2 << 20)); used(7, 0); done()')
    assert (done.verdict, done.usage.input_tokens) == ("ok", 7)
    assert Path(done.log).stat().st_size > 2 << 20


def test_a_line_beyond_all_bounds_is_dropped_and_the_next_is_not(tmp_path: Path, adapter: Dialect) -> None:
    text = 'for _ in range(9): sys.stdout.write("x" * (1 << 20))\nprint(); used(7, 0); done()'
    done = adapter.run(tmp_path, text)
    assert (done.verdict, done.usage.input_tokens) == ("ok", 7)


def test_the_end_of_the_last_line_may_be_missing(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, 'used(7, 0); END = ""; done()' if adapter.finishes else 'END = ""; used(7, 0)')
    assert (done.verdict, done.usage.input_tokens) == ("ok", 7)


def test_much_on_stderr(tmp_path: Path, adapter: Dialect) -> None:
    done = adapter.run(tmp_path, "sys.stderr.write('e' * 300_000 + 'THE END'); done()")
    assert done.verdict == "ok"
    assert len(done.stderr_tail) == 16384
    assert done.stderr_tail.endswith("THE END")


def test_a_huge_brief_that_is_never_read(tmp_path: Path, adapter: Dialect) -> None:
    """Broken once: with the brief written at once instead of as it is read, the run hung in that write for 60 s."""
    done = adapter.run(tmp_path, "time.sleep(60)", brief="b" * (4 << 20), wall_s=0.4)
    assert (done.verdict, done.limit) == ("timeout", "wall")
    assert done.duration_s < 10


def test_noise_is_only_logged(tmp_path: Path, adapter: Dialect) -> None:
    text = r"""
sys.stdout.buffer.write(b'\xff\xfe\x00 no json\n{"type": "usage", \n[1, 2]\n"text"\nnull\n{"type": 7}\n{}\n')
sys.stdout.buffer.write(b"{" + b'"a":[' * 200_000 + b"\n")
sys.stdout.buffer.write(b'{"type": "result", "n": ' + b"9" * 5000 + b"}\n")
sys.stdout.flush()
done()
"""
    done = adapter.run(tmp_path, text)
    assert (done.verdict, done.usage.tokens, done.message) == ("ok", 0, "")
    assert b"no json" in Path(done.log).read_bytes()


def test_knows_nothing_of_the_operator(tmp_path: Path, adapter: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is given it has from the supervisor's list or from its adapter; a key it reads from a pipe, once.

    Broken once: with os.environ handed on, every canary below was in the child's environment.
    """
    canaries = (
        "GH_TOKEN", "GITHUB_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "OPENAI_API_KEY", "SSH_AUTH_SOCK",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "SLACK_BOT_TOKEN", "GIT_ASKPASS", "HTTP_PROXY",
        "CLAUDECODE", "WATCHBILL_HOME", "PYTHONPATH", "LD_PRELOAD", "VIRTUAL_ENV", "XDG_RUNTIME_DIR",
        "DBUS_SESSION_BUS_ADDRESS")  # fmt: skip
    for name in canaries:
        monkeypatch.setenv(name, "canary-value")
    monkeypatch.setenv("PATH", f"relative/bin::.:{os.environ['PATH']}")
    monkeypatch.setenv("LC_TIME", "C")
    text = 'line(type="env", env=dict(os.environ), argv=open("/proc/self/cmdline").read())'
    task = adapter.task(tmp_path, text)._replace(env={"ADDED": "yes", "WATCHBILL_FIRING": "another"})
    launch = adapter.engine.launch(task)
    (told,) = (line for line in lines(adapter.again(task).log) if line["type"] == "env")
    env = told["env"]
    assert "canary" not in str(told)
    assert adapter.key is None or adapter.key not in str(told)
    assert set(env) - {"PWD", "SHLVL", "_", "OLDPWD", "LANG", "TZ", "USER", "LOGNAME", "LC_ALL"} == {
        "PATH", "LC_TIME", "TERM", "HOME", "TMPDIR", "WATCHBILL_FIRING", "ADDED", "GIT_TERMINAL_PROMPT",
        "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME",
        "XDG_STATE_HOME", *launch.env, *launch.pipes}  # fmt: skip
    assert (env["HOME"], env["TMPDIR"], env["WATCHBILL_FIRING"]) == (task.home, task.tmp, task.firing)
    assert all(entry.startswith("/") for entry in env["PATH"].split(":"))
    assert all(env[name].startswith(task.home) for name in env if name.startswith("XDG_"))

"""The launchd adapter against a launchctl that answers as the real one does, also when it fails."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from support import launchctl as doubles
from support.launchctl import Double
from watchbill.errors import Fixable
from watchbill.schedulers import launchctl, launchd, manifest
from watchbill.schedulers.base import Change, Deferred, Failed, File, Outcome, Unit
from watchbill.schedulers.schedule import check

LABEL = "watchbill-bosun"


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Double:
    found = doubles.install(tmp_path)
    monkeypatch.setenv("PATH", f"{found.bin}:{os.environ['PATH']}")
    (tmp_path / "fleet" / "logs").mkdir(parents=True)
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return of("bosun", tmp_path)


def of(agent: str, tmp_path: Path, text: str = "every 20m", argv: tuple[str, ...] = ("/bin/true", "--x")) -> Unit:
    home = str(tmp_path / "fleet")
    log = f"{home}/logs/{agent}.log"
    gates = (f"{home}/held/all",)
    environment = (("PATH", "/usr/bin:/bin"), ("WATCHBILL_HOME", home))
    described = f"Watchbill: {agent}, {text}"
    return Unit(agent, f"watchbill-{agent}", described, home, argv, home, environment, log, 60, gates, check(text), 0)


def quiet(_: str) -> None:
    pass


def install(*units: Unit, arm: bool = True) -> Mapping[str, Outcome]:
    changes = [Change(one, manifest.present(launchd.files(one)), launchd.files(one), arm) for one in units]
    return launchd.install(changes, quiet)


def on_disk(unit: Unit) -> bytes | None:
    return manifest.on_disk(launchd.files(unit)[0].path)


def verbs(double: Double) -> list[str]:
    return [call[0] for call in double.mutations()]


def changed(unit: Unit) -> Unit:
    return unit._replace(schedule=check("daily 07:30"), argv=("/bin/true", "--y"))


# --- the good way ----------------------------------------------------------------------------------------------------


def test_installs_what_it_then_knows(double: Double, unit: Unit) -> None:
    assert launchd.look([LABEL])[LABEL].known is False
    assert install(unit) == {"bosun": None}
    path = Path(os.environ["HOME"]) / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    assert path.read_bytes() == launchd.files(unit)[0].content
    assert path.stat().st_mode & 0o777 == 0o644
    seen = launchd.look([LABEL])[LABEL]
    assert seen == seen._replace(known=True, armed=True, running=False, stale=False, paused=None, why=None)
    assert verbs(double) == ["bootstrap"]
    assert list(double.loaded("gui")) == [LABEL]
    assert not (double.root / "disabled").exists()  # no override where none was needed
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.thorough
def test_what_is_already_so_is_left_alone(double: Double, unit: Unit) -> None:
    install(unit)
    double.forget_calls()
    assert install(unit) == {"bosun": None}
    assert verbs(double) == []


@pytest.mark.thorough
def test_a_change_is_out_and_in(double: Double, unit: Unit) -> None:
    install(unit)
    double.forget_calls()
    manifest.put(launchd.files(changed(unit))[0])
    assert launchd.look([LABEL])[LABEL].stale
    assert install(changed(unit)) == {"bosun": None}
    assert verbs(double) == ["bootout", "bootstrap"]
    assert not launchd.look([LABEL])[LABEL].stale
    assert double.loaded()[LABEL]["plist"]["StartCalendarInterval"] == [{"Hour": 7, "Minute": 30}]


@pytest.mark.thorough
def test_removal_leaves_nothing(double: Double, unit: Unit, tmp_path: Path) -> None:
    other = of("mate", tmp_path)
    install(unit, other)
    assert launchd.remove([LABEL], [*launchd.files(unit), *launchd.files(other)], quiet) == {LABEL: None}
    assert list(double.loaded()) == ["watchbill-mate"]
    assert [os.path.basename(file.path) for file in launchd.found("watchbill-")] == ["watchbill-mate.plist"]
    assert launchd.remove([LABEL], [], quiet) == {LABEL: None}


@pytest.mark.usefixtures("double")
@pytest.mark.thorough
def test_finds_what_lies_there(unit: Unit, tmp_path: Path) -> None:
    assert launchd.found("watchbill-") == ()
    install(unit, of("mate", tmp_path))
    (Path(os.environ["HOME"]) / "Library" / "LaunchAgents" / "com.other.plist").write_text("x")
    assert [file.content for file in launchd.found("watchbill-b")] == [on_disk(unit)]
    assert len(launchd.found("watchbill-")) == 2


# --- never a firing --------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_firing_at_work_is_never_booted_out(double: Double, unit: Unit) -> None:
    """Broken once: without the question before `bootout`, the double noted the firing as killed."""
    install(unit)
    before = on_disk(unit)
    double.begin(LABEL)
    assert launchd.look([LABEL])[LABEL].running
    assert isinstance(install(changed(unit))["bosun"], Deferred)
    assert isinstance(launchd.remove([LABEL], launchd.files(unit), quiet)[LABEL], Deferred)
    assert double.killed() == []
    assert on_disk(unit) == before
    assert verbs(double) == ["bootstrap"]
    double.end(LABEL, 75)
    assert install(changed(unit)) == {"bosun": None}
    assert double.killed() == []


@pytest.mark.thorough
def test_who_is_as_wanted_may_be_at_work(double: Double, unit: Unit) -> None:
    install(unit)
    double.begin(LABEL)
    assert install(unit) == {"bosun": None}
    assert double.killed() == []


# --- paused behind our back ------------------------------------------------------------------------------------------


def uid() -> int:
    return os.getuid()


@pytest.mark.parametrize("words", ["new", pytest.param("old", marks=pytest.mark.thorough)])
def test_sees_how_it_was_paused(double: Double, unit: Unit, words: str) -> None:
    if words == "old":
        double.knob("old-words", 1)
    install(unit)
    assert launchd.look([LABEL])[LABEL].paused is None
    double.ask("disable", f"gui/{uid()}/{LABEL}")
    seen = launchd.look([LABEL])[LABEL]
    assert (seen.armed, seen.paused) == (True, "disabled: it fires as before until the next logout")
    double.ask("bootout", f"gui/{uid()}/{LABEL}")
    seen = launchd.look([LABEL])[LABEL]
    assert (seen.known, seen.armed) == (False, False)
    assert "disabled" in (seen.paused or "")
    double.ask("enable", f"gui/{uid()}/{LABEL}")
    assert launchd.look([LABEL])[LABEL].paused == "booted out"
    os.unlink(launchd.files(unit)[0].path)
    assert "plist deleted" in (launchd.look([LABEL])[LABEL].paused or "")


@pytest.mark.thorough
def test_who_is_paused_gets_its_file_and_no_more(double: Double, unit: Unit) -> None:
    install(unit)
    double.ask("bootout", f"gui/{uid()}/{LABEL}")
    double.forget_calls()
    assert install(changed(unit), arm=False) == {"bosun": None}
    assert on_disk(unit) == launchd.files(changed(unit))[0].content
    assert verbs(double) == []


@pytest.mark.parametrize(
    "how", ["disable", *(pytest.param(one, marks=pytest.mark.thorough) for one in ("bootout", "both", "deleted"))]
)
def test_arm_undoes_each(double: Double, unit: Unit, how: str) -> None:
    install(unit)
    if how in ("disable", "both"):
        double.ask("disable", f"gui/{uid()}/{LABEL}")
    if how != "disable":
        double.ask("bootout", f"gui/{uid()}/{LABEL}")
    if how == "deleted":
        os.unlink(launchd.files(unit)[0].path)
    assert launchd.arm(LABEL, launchd.files(unit)) is None
    seen = launchd.look([LABEL])[LABEL]
    assert (seen.armed, seen.paused, seen.stale) == (True, None, False)
    double.reboot()
    assert launchd.look([LABEL])[LABEL].armed


@pytest.mark.thorough
def test_removing_who_was_disabled_does_not_surprise_who_returns(double: Double, unit: Unit) -> None:
    install(unit)
    double.ask("disable", f"gui/{uid()}/{LABEL}")
    assert launchd.remove([LABEL], launchd.files(unit), quiet) == {LABEL: None}
    assert install(unit) == {"bosun": None}
    assert launchd.look([LABEL])[LABEL].paused is None


def test_who_is_disabled_and_loaded_is_changed_and_stays_disabled(double: Double, unit: Unit) -> None:
    """It fires until the next logout. Broken once: with its file written and no more, its old schedule went on; with
    `enable` for the loading and no more, it was enabled for good.
    """
    install(unit)
    double.ask("disable", f"gui/{uid()}/{LABEL}")
    assert install(changed(unit), arm=False) == {"bosun": None}
    seen = launchd.look([LABEL])[LABEL]
    assert (seen.armed, seen.stale) == (True, False)
    double.reboot()
    assert "disabled" in (launchd.look([LABEL])[LABEL].paused or "")


def test_a_link_in_the_place_of_a_file_is_replaced(double: Double, unit: Unit, tmp_path: Path) -> None:
    """macOS loads none at login. Broken once: with contents alone compared, nothing had to be changed."""
    install(unit)
    path = Path(launchd.files(unit)[0].path)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert launchd.look([LABEL])[LABEL].stale
    double.forget_calls()
    assert install(unit) == {"bosun": None}
    assert not path.is_symlink()
    assert not launchd.look([LABEL])[LABEL].stale
    assert verbs(double) == []


def test_a_folder_behind_a_link_is_the_same(double: Double, unit: Unit, tmp_path: Path) -> None:
    """launchd prints the real path. Broken once: nothing that was loaded fitted its file, and all was taken back."""
    library = Path(os.environ["HOME"]) / "Library"
    (tmp_path / "elsewhere").mkdir()
    library.symlink_to(tmp_path / "elsewhere")
    install(unit)
    double._edit(LABEL, "gui", path=os.path.realpath(launchd.files(unit)[0].path))
    assert not launchd.look([LABEL])[LABEL].stale
    double.forget_calls()
    assert install(unit) == {"bosun": None}
    assert verbs(double) == []


def test_the_unit_that_nobody_can_resume_is_not_paused(double: Double, tmp_path: Path) -> None:
    """The one for login: `apply` loads it again. Broken once: paused, to be resumed by who knows no such agent."""
    unit = of(launchd.CATCH_UP, tmp_path)
    install(unit)
    double.ask("bootout", f"gui/{uid()}/{unit.name}")
    seen = launchd.look([unit.name])[unit.name]
    assert (seen.armed, seen.paused) == (False, None)


# --- codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param("bootstrap 37\nbootstrap 5\nbootstrap 36", marks=pytest.mark.thorough),
        "bootstrap 119",
        pytest.param("bootout 36", marks=pytest.mark.thorough),
        pytest.param("bootstrap 5", marks=pytest.mark.thorough),
        pytest.param("bootstrap 37", marks=pytest.mark.thorough),
        pytest.param("bootout 3", marks=pytest.mark.thorough),
        pytest.param("bootout 113", marks=pytest.mark.thorough),
        pytest.param("enable 125", marks=pytest.mark.thorough),
    ],
)
def test_what_passes_is_tried_again_or_looked_through(double: Double, unit: Unit, fail: str) -> None:
    """For bootout the double fails without doing it: the second apply then finds it loaded, and says why it is."""
    install(unit)
    double.knob("fail", fail)
    outcome = install(changed(unit))["bosun"]
    if fail.startswith("bootout"):
        assert isinstance(outcome, Failed)
        assert "as it was before" in outcome.what
        assert launchd.look([LABEL])[LABEL].stale is False
        outcome = install(changed(unit))["bosun"]
    assert outcome is None
    seen = launchd.look([LABEL])[LABEL]
    assert (seen.armed, seen.stale) == (True, False)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second where the adapter has half a minute."""
    monkeypatch.setattr(launchctl, "GONE_S", 1.2)
    monkeypatch.setattr(launchctl, "LOADED_S", 0.6)
    monkeypatch.setattr(launchctl, "_WORTH_A_WORD_S", 0.3)


@pytest.mark.thorough
def test_bootout_that_takes_its_time_is_waited_for(double: Double, unit: Unit) -> None:
    install(unit)
    double.knob("busy", 5)
    said: list[str] = []
    change = Change(changed(unit), launchd.files(unit), launchd.files(changed(unit)), True)
    assert launchd.install([change], said.append) == {"bosun": None}
    assert said == [f"{LABEL}: launchd is still ending it"]
    assert not launchd.look([LABEL])[LABEL].stale


@pytest.mark.thorough
def test_bootout_that_never_ends_is_told(double: Double, unit: Unit) -> None:
    install(unit)
    double.knob("busy", 500)
    outcome = launchd.remove([LABEL], launchd.files(unit), quiet)[LABEL]
    assert isinstance(outcome, Failed)
    assert "still loaded" in outcome.what
    assert on_disk(unit) is not None


@pytest.mark.parametrize("code", [125, pytest.param(112, marks=pytest.mark.thorough)])
@pytest.mark.thorough
def test_without_a_screen_the_background_session_serves(double: Double, unit: Unit, code: int) -> None:
    double.knob("gui", code)
    assert install(unit) == {"bosun": None}
    assert list(double.loaded("user")) == [LABEL]
    assert launchd.look([LABEL])[LABEL].armed
    assert install(changed(unit)) == {"bosun": None}
    assert launchd.remove([LABEL], launchd.files(unit), quiet) == {LABEL: None}
    assert double.loaded("user") == {}


@pytest.mark.thorough
def test_only_bootstrap_may_not_know_the_screen(double: Double, unit: Unit) -> None:
    double.knob("fail", "bootstrap 125")
    assert install(unit) == {"bosun": None}
    assert list(double.loaded("user")) == [LABEL]


@pytest.mark.thorough
def test_loaded_in_both_sessions_is_mended(double: Double, unit: Unit) -> None:
    """Applied over ssh, and then somebody logged in at the screen, where launchd loads whatever lies there."""
    double.knob("gui", 125)
    install(unit)
    double.knob("gui", "")
    double.reboot("gui")
    seen = launchd.look([LABEL])[LABEL]
    assert (seen.armed, seen.stale) == (True, True)
    assert install(unit) == {"bosun": None}
    assert (list(double.loaded("gui")), list(double.loaded("user"))) == ([LABEL], [])


def test_nobody_at_the_screen_is_no_pause_of_a_persons(double: Double, unit: Unit) -> None:
    install(unit)
    double.knob("gui", 125)
    assert "nobody is logged in" in (launchd.look([LABEL])[LABEL].paused or "")


def test_no_session_at_all_is_no_answer(double: Double, unit: Unit) -> None:
    install(unit)
    double.knob("gui", 125)
    double.knob("user", 125)
    with pytest.raises(Fixable) as found:
        launchd.look([LABEL])
    assert found.value.id == "WB-SCHED-21"
    with pytest.raises(Fixable):
        install(changed(unit))
    assert on_disk(unit) == launchd.files(unit)[0].content


@pytest.mark.parametrize(
    "code", [122, *(pytest.param(code, marks=pytest.mark.thorough) for code in (5, 109, 150, 155))]
)
@pytest.mark.thorough
def test_what_stays_refused_is_taken_back(double: Double, unit: Unit, tmp_path: Path, code: int) -> None:
    """Broken once: without `_undone`, the old unit was out, and its file the new one's."""
    other = of("mate", tmp_path)
    install(unit)
    if code == 5:  # what is tried again: a status of 0 with nothing loaded is what stays
        double.knob("lies", 1)
    else:
        double.knob("fail", f"bootstrap {code}")
    outcomes = install(changed(unit), other)
    assert isinstance(outcomes["bosun"], Failed)
    assert outcomes["bosun"].what.endswith("it is as it was before")
    assert on_disk(unit) == launchd.files(unit)[0].content
    seen = launchd.look([LABEL])[LABEL]
    assert (seen.armed, seen.stale, seen.paused) == (True, False, None)
    assert outcomes["mate"] is None  # each for itself
    assert launchd.look(["watchbill-mate"])["watchbill-mate"].armed


@pytest.mark.thorough
def test_a_new_one_that_fails_leaves_nothing(double: Double, unit: Unit) -> None:
    double.knob("never", LABEL)
    outcome = install(unit)["bosun"]
    assert isinstance(outcome, Failed)
    assert "Input/output error" in outcome.what
    assert on_disk(unit) is None
    assert launchd.look([LABEL])[LABEL].known is False


@pytest.mark.thorough
def test_what_is_loaded_is_compared_with_what_was_to_be(double: Double, unit: Unit) -> None:
    """Broken once: with the status of `bootstrap` believed, the agent was said to be applied."""
    install(unit)
    double.knob("other", 1)
    outcome = install(changed(unit))["bosun"]
    assert isinstance(outcome, Failed)
    assert "/usr/bin/false" in outcome.what
    assert launchd.look([LABEL])[LABEL] == launchd.look([LABEL])[LABEL]._replace(armed=True, stale=False)


@pytest.mark.usefixtures("double")
def test_a_file_that_others_may_write_is_mended(unit: Unit, tmp_path: Path) -> None:
    """122: launchd loads neither such a file nor, at login, a link."""
    (file,) = launchd.files(unit)
    elsewhere = tmp_path / "linked.plist"
    elsewhere.write_bytes(file.content)
    elsewhere.chmod(0o666)
    os.makedirs(os.path.dirname(file.path))
    os.symlink(elsewhere, file.path)
    assert install(unit) == {"bosun": None}
    assert not os.path.islink(file.path)
    assert os.stat(file.path).st_mode & 0o777 == 0o644


def test_a_full_or_shut_folder_is_told_and_taken_back(double: Double, unit: Unit) -> None:
    folder = Path(os.environ["HOME"]) / "Library"
    folder.write_text("a file where the folder should be")
    outcome = install(unit)["bosun"]
    assert isinstance(outcome, Failed)
    assert "Library" in outcome.what
    assert double.loaded() == {}


@pytest.mark.thorough
def test_silence_is_no_answer(double: Double, unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    install(unit)
    double.knob("hang", 1)
    monkeypatch.setattr(launchctl, "TIMEOUT_S", 0.3)
    with pytest.raises(Fixable) as found:
        launchd.look([LABEL])
    assert found.value.id == "WB-SCHED-21"
    assert found.value.outcome == "unavailable"


def test_without_launchctl_nothing_is_scheduled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    problem = launchd.unavailable()
    assert problem is not None
    assert problem.id == "WB-SCHED-20"
    with pytest.raises(Fixable):
        launchd.look([LABEL])
    assert launchd.look([]) == {}


@pytest.mark.thorough
def test_an_interrupted_change_is_taken_back(double: Double, unit: Unit) -> None:
    install(unit)
    double.knob("busy", 20)

    def impatient(_: str) -> None:
        double.knob("busy", 0)
        raise KeyboardInterrupt

    change = Change(changed(unit), launchd.files(unit), launchd.files(changed(unit)), True)
    with pytest.raises(KeyboardInterrupt):
        launchd.install([change], impatient)
    for _ in range(30):  # the double counts the questions
        double.ask("print", f"gui/{uid()}/{LABEL}")
    assert on_disk(unit) == launchd.files(unit)[0].content


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_says_why_launchd_could_not_start_it(double: Double, tmp_path: Path) -> None:
    gone = of("bosun", tmp_path, argv=(str(tmp_path / "gone"), "x"))
    install(gone)
    double.end(LABEL, 78)
    assert "gone is not there" in (launchd.look([LABEL])[LABEL].why or "")
    install(of("bosun", tmp_path))
    double.end(LABEL, 78)  # our own status for an invalid roster
    assert launchd.look([LABEL])[LABEL].why is None


@pytest.mark.parametrize("content", [b"", b"<plist version='1.0'><array/></plist>"])
@pytest.mark.usefixtures("double")
@pytest.mark.thorough
def test_a_damaged_file_is_something_else_than_what_is_loaded(unit: Unit, content: bytes) -> None:
    install(unit)
    manifest.put(File(launchd.files(unit)[0].path, content))
    assert launchd.look([LABEL])[LABEL].stale
    assert install(unit) == {"bosun": None}
    assert not launchd.look([LABEL])[LABEL].stale


def test_when_launchd_does_not_answer_nothing_is_taken_away(double: Double, unit: Unit) -> None:
    """Broken once: raised for all of them at once, and whoever had asked remembered nothing of any."""
    install(unit)
    double.knob("fail", "print-disabled 125\nprint-disabled 125")
    outcome = launchd.remove([LABEL], launchd.files(unit), quiet)[LABEL]
    assert isinstance(outcome, Failed)
    assert on_disk(unit) is not None
    assert list(double.loaded()) == [LABEL]


def test_asking_about_many_takes_few_questions(double: Double, tmp_path: Path) -> None:
    """Three for all, one for whoever no longer is loaded, and one for each that is: what is loaded only that tells."""
    install(of("a3", tmp_path))
    double.forget_calls()
    seen = launchd.look([f"watchbill-a{number}" for number in range(30)])
    assert [label for label, one in seen.items() if one.known] == ["watchbill-a3"]
    assert len(double.calls()) == 5
    assert double.mutations() == []

"""What an engine has said, on its stream and in its files; and whether that is a reason to stop it."""

from __future__ import annotations

from typing import NamedTuple

from watchbill.clock import Clock
from watchbill.engines import bill
from watchbill.engines.base import TROUBLE, TURNED_AWAY, Engine, Event, Filled, Limits, Task, Usage
from watchbill.engines.bill import Bill, Tariff
from watchbill.engines.stream import Lines
from watchbill.engines.watch import Stop

#: Verdicts whose last request was answered with a no, that costs nothing.
REFUSED = (*TURNED_AWAY, "context")
_WAITS_S = 120.0  # who was turned away and says nothing more for so long is waiting
_MOST_LOOKS = 64
_UNSEEN_S = 5.0  # claude writes a tenth of a second late, codex when an answer is whole
_MOST_UNSEEN = 4  # requests; tools that run side by side look like as many, while its files still grow
_MOST_UNSEEN_AT_ALL = 40
_LOOK_S = 0.1  # between two looks at its files
_MESSAGE = 4000
_MOST_WINDOWS = 16
_MOST_BILLED = 64


class Heard(NamedTuple):
    """What an engine has said so far."""

    usage: Usage
    bill: Bill | None  # None: nothing measured yet
    answered: bool  # its model has answered: it is neither limited nor refused
    windows: tuple[Filled, ...]  # the last word on each


class Listener:
    """What an engine has said, and whether that is a reason to stop it."""

    def __init__(self, engine: Engine, task: Task, tariff: Tariff, clock: Clock) -> None:
        self._until = clock.now() + task.limits.wall_s  # when its time is over, UTC epoch seconds
        self._clock = clock
        self._request = ""  # the last that stdout told of
        self.unseen = 0  # requests that stdout told of since its files told of one
        self._unseen_since = 0.0
        self.blind = False  # and stopped for that
        self._look_at = 0.0  # when its files are to be read again
        self._byte_at = clock.elapsed()
        self._told = 0  # events of its files
        self._alive_at = 0.0  # when they last grew
        self._before = task.session.before if task.session else Usage()
        self._said = Usage(before=bill.total(self._before))  # on stdout
        self._written = Usage()  # below its HOME
        self._transcript = engine.transcript(task.home)
        if task.session:
            bill.read_whole(self._transcript)  # what it says of an earlier run is no news
        self._billed: dict[Usage, Bill | None] = {}  # pricing takes its time, and lines come by the thousand
        self.answered = False
        self.final: Event | None = None
        self.working = True  # nothing final was said, or something else after it
        self.trouble: str | None = None
        self._recovered = False  # something was heard since
        self.until: int | None = None
        self.message = ""
        self._engine = engine
        self._meter = Meter(task.limits, engine.has_budget, tariff.request_micro)
        self._tariff = tariff
        self._windows: dict[str, Filled] = {}
        self._lines = Lines()
        self._stop: Stop | None = None

    @property
    def reads_files(self) -> bool:
        """It keeps some, and they were read."""
        return self._told > 0

    @property
    def usage(self) -> Usage:
        """The account of the two that counts: see `bill.fuller`."""
        return bill.fuller(self._said, self._written, self._priced, working=self.working)

    @property
    def bill(self) -> Bill | None:
        usage = self.usage
        charged = self._priced(usage)
        return bill.believed(charged, self._tariff) if charged is not None and usage is not self._said else charged

    def _priced(self, usage: Usage) -> Bill | None:
        if usage not in self._billed:
            if len(self._billed) > _MOST_BILLED:
                self._billed.clear()
            self._billed[usage] = bill.so_far(usage, self._tariff)
        return self._billed[usage]

    def feed(self, chunk: bytes) -> None:
        self._byte_at = self._clock.elapsed()
        for line in self._lines.feed(chunk):
            self._hear_line(line)
        self._look()

    def end(self) -> None:
        for line in self._lines.rest():
            self._hear_line(line)
        self._look()

    def _look(self) -> None:
        """Whether what was used by now is a reason to stop; after a final event nothing more is."""
        if self._stop is None and self.working:
            self._stop = self._meter.spent_up(self.usage, self._priced(self.usage))

    def stop(self) -> Stop | None:
        now = self._clock.elapsed()
        if self._stop is None and now >= self._look_at:
            self.read_transcript()
        if self._stop is None and self.limited is not None and now - self._byte_at > _WAITS_S:
            self._stop = Stop(self.limited)  # it obeys a `retry-after` of hours without a word
        alive = self._alive_at if self.unseen < _MOST_UNSEEN_AT_ALL else 0
        if self._stop is None and self._meter.blind(self.unseen) and now - max(alive, self._unseen_since) > _UNSEEN_S:
            # a full disk, or a tool that took its files away: nobody sees what it spends
            self._stop, self.blind = Stop("budget"), True
        return self._stop

    def heard(self) -> Heard:
        return Heard(self.usage, self.bill, self.answered, tuple(self._windows.values()))

    @property
    def limited(self) -> str | None:
        """What the provider turned it away for, unless it went on since."""
        return self.trouble if self.trouble in TURNED_AWAY and not self._recovered else None

    def read_transcript(self) -> None:
        """Where the stream says less than the files."""
        self._look_at = self._clock.elapsed() + _LOOK_S
        try:
            events = self._transcript.look()
        except (OSError, ValueError):  # being written just now
            return
        self._told += len(events)
        self._alive_at = self._clock.elapsed() if events else self._alive_at
        for event in events:
            if event.usage is not None:
                written = bill.less(event.usage, self._before)
                if written.tokens > self._written.tokens:
                    self._written, self.unseen = written, 0
                    self._went_on()
            self._heed(event._replace(usage=None, text=""))
        self._look()

    def read_rest(self) -> None:
        """All that its files still have to tell, when it has gone."""
        for _ in range(_MOST_LOOKS):
            known = self._told
            self.read_transcript()
            if self._told == known:
                break

    def _went_on(self) -> None:
        self.answered = self._recovered = True

    def _hear_line(self, line: bytes) -> None:
        event = self._engine.read(line, self._said)
        if event is None:
            return
        self.message = event.text[:_MESSAGE] or self.message
        if event.request not in ("", self._request):
            self._request = event.request
            self._unseen_since = self._unseen_since if self.unseen else self._clock.elapsed()
            self.unseen += 1
        self.working = event.kind != "final"
        if event.kind == "final":
            self.final = event
            self.answered = self.answered or bool(event.ok)
        if event.usage is not None:
            if (event.usage.tokens, event.usage.cost_micro or 0) > (self._said.tokens, self._said.cost_micro or 0):
                self._went_on()  # and not by the nothing that a refused run is charged
            self._said = event.usage
        self._heed(event)

    def _heed(self, event: Event) -> None:
        """Trouble and windows, whoever told of them: the stream or the files."""
        for window in event.windows:
            plain = window.name.isascii() and window.name.isprintable()  # it goes into the ledger, and into words
            if plain and (window.name in self._windows or len(self._windows) < _MOST_WINDOWS):
                self._windows[window.name] = window
        trouble = event.kind if event.kind in TROUBLE else event.trouble
        if trouble in TROUBLE:
            self.trouble, self._recovered = trouble, False
        if event.until is not None:
            self.until = max(event.until, self.until or 0)
        if self._stop is None:
            self._stop = self._reason(event)

    def _reason(self, event: Event) -> Stop | None:
        if event.kind == "auth":
            return Stop("auth")  # some retry for minutes with the same refused key
        if event.kind == "rate_limited" and event.until and event.until > self._until:
            return Stop("rate_limited")  # it could only wait, and be ended waiting
        return None


class Meter:
    """Whether what a run has used is a reason to stop it.

    Whoever is metered has begun its next request by the time the last one's figures are seen. So it is stopped when
    that one could take it past its cap, if it is as large as the largest so far: a cap is passed by one request at
    most. Not where nobody knows what a request costs (`request_usd`): there a figure may be of all its run. An engine
    that stops itself looks between its requests, and is stopped by us only when it does not.
    """

    def __init__(self, limits: Limits, has_budget: bool, request_micro: int) -> None:
        self._limits = limits
        self._request_micro = request_micro
        self._stops_itself = has_budget
        self._spent = _Largest()
        self._tokens = _Largest()

    def blind(self, unseen: int) -> bool:
        """Whether it has a cap, and nobody but we could keep it to that, and we cannot see what it uses."""
        limits = self._limits
        ours = limits.tokens is not None or (limits.cost_micro is not None and not self._stops_itself)
        return ours and unseen > _MOST_UNSEEN

    def spent_up(self, used: Usage, charged: Bill | None) -> Stop | None:
        limits = self._limits
        spent = self._spent.up_to(charged.micro if charged else 0)
        spent = min(spent, self._request_micro)
        most = None if limits.cost_micro is None else limits.cost_micro + (2 * spent if self._stops_itself else 0)
        if most is not None and charged is not None and (charged.micro >= most or charged.micro + spent > most):
            return Stop("budget")
        tokens = self._tokens.up_to(used.tokens) if self._request_micro else 0
        if limits.tokens is not None and (used.tokens >= limits.tokens or used.tokens + tokens > limits.tokens):
            return Stop("budget")
        if limits.turns is not None and used.turns > limits.turns:
            return Stop("max_turns")
        return None


class _Largest:
    """The largest step of a sum that grows."""

    def __init__(self) -> None:
        self._sum = self._step = 0

    def up_to(self, sum: int) -> int:
        self._step, self._sum = max(self._step, sum - self._sum), sum
        return self._step

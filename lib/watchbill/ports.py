"""The outside, opened when it is first needed: forge, mirrors, claim refs, engine, isolation.

Tests stand between Watchbill and the world by subclassing or replacing a member here: every call through a port is a
point where a firing can be killed, delayed or made to wait its turn.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from watchbill import engines, isolation, secrets
from watchbill.claims.refs import FALLBACK_NAMESPACE, NAMESPACE, ClaimRefs
from watchbill.clock import Clock
from watchbill.compiled import Agent, Fleet, Repo
from watchbill.engines import bill, credential
from watchbill.engines.base import Engine
from watchbill.forge.base import UNLIMITED, Forge, Limits
from watchbill.git import Remote, is_local
from watchbill.home import Home
from watchbill.isolation.base import Isolation
from watchbill.ledger import paces
from watchbill.ledger.db import Ledger
from watchbill.mirror import Mirror

#: How long a push may take; and one beside which something runs.
_PUSH_S = 120.0
_PUSH_SOON_S = 20.0


class Ports:
    """A session with everything outside, for one firing."""

    def __init__(self, home: Home, fleet: Fleet, agent: Agent, clock: Clock, ledger: Ledger) -> None:
        self.home = home
        self.fleet = fleet
        self.agent = agent
        self.clock = clock
        self.ledger = ledger
        self.limits: Limits = UNLIMITED  # who keeps the forge's limits (`quota`); set before the forge is opened
        self.use = agent.uses[0] if agent.uses else None  # what this firing runs on: its engine, or the fallback
        self._mirrors: dict[str, Mirror] = {}

    @cached_property
    def token(self) -> str:
        """The forge's credential: in this process' memory and git's environment, nowhere else."""
        return secrets.of_forge(self.fleet.auth, os.environ)

    @property
    def options(self) -> dict[str, Any]:
        """What is configured for the engine of this firing; an agent's own map is about its first engine."""
        assert self.use is not None
        own = self.agent.engine if self.use == self.agent.uses[0] else {}
        return {**self.fleet.engines.get(self.use.engine, {}), **own}

    @cached_property
    def key(self) -> str | None:
        """The engine's credential: in this process' memory and in the engine's hands. See `credential.of`."""
        return credential.of(self.engine, self.options, os.environ)

    def secrets(self) -> tuple[str, ...]:
        """Every credential this process has in hand: what must be taken out of whatever is written down."""
        held = [self.token] if "token" in self.__dict__ else []
        if "key" in self.__dict__ and self.key is not None:
            held += secrets.within(self.key)
        return tuple(held)

    def secret_files(self, *others: Mapping[str, Any]) -> tuple[str, ...]:
        """Files that hold credentials: an engine may not even read them. `others`: further agents' `engine:` maps."""
        keys = [str(table.get("key", "")) for table in (*self.fleet.engines.values(), self.agent.engine, *others)]
        references = [self.fleet.auth.removeprefix("token:"), *keys]
        return tuple(os.path.abspath(os.path.expanduser(reference.removeprefix("file:")))
                     for reference in references if reference.startswith("file:"))  # fmt: skip

    @cached_property
    def forge(self) -> Forge:
        from watchbill.forge.github import open_forge

        return open_forge(self.fleet.api_url, self.token, limits=self.limits)

    def remote(self, repo: Repo) -> Remote:
        return Remote(repo.remote, self.token if repo.remote.startswith(("http://", "https://")) else None)

    def mirror(self, repo: Repo) -> Mirror:
        """The bare mirror that every worktree of this repository on this host comes from."""
        if repo.full_name not in self._mirrors:
            path = os.path.join(self.home.mirrors, repo.full_name.replace("/", "__") + ".git")
            self._mirrors[repo.full_name] = Mirror(path, self.remote(repo))
        return self._mirrors[repo.full_name]

    def claim_refs(self, repo: Repo, patient: bool = True) -> ClaimRefs:
        """`patient` False: for a caller beside whom something runs. One try, soon given up, that waits for no turn."""
        namespace = FALLBACK_NAMESPACE if repo.claims == "refs/heads" else NAMESPACE
        timeout_s = _PUSH_S if patient else _PUSH_SOON_S
        pace = functools.partial(self._pace, repo, patient)
        return ClaimRefs(
            self.mirror(repo), self.remote(repo), namespace, self.clock.sleep, timeout_s, pace=pace, patient=patient
        )

    def _pace(self, repo: Repo, patient: bool) -> None:
        """Before each push: put it on record, and wait for its turn; neither for a repository on this host."""
        if is_local(repo.remote):
            return
        with self.ledger.transaction():
            wait_s = paces.take(self.ledger, repo.full_name, repo.pushes_per_minute, self.clock.now())
        if patient and wait_s > 0:
            self.clock.sleep(wait_s)

    @cached_property
    def engine(self) -> Engine:
        assert self.use is not None
        return engines.named(self.use.engine)

    @property
    def headroom_micro(self) -> int:
        """What one more request can cost beyond a cap."""
        return bill.request_micro(self.use, self.engine)

    @cached_property
    def isolation(self) -> Isolation:
        return isolation.choose(self.agent.isolation)

    def close(self) -> None:
        if "forge" in self.__dict__:
            self.forge.close()

"""How long a firing may take as a whole: past that it ends itself, and a minute later its scheduler ends it. Pure."""

from __future__ import annotations

from watchbill.compiled import Agent, Fleet

#: What the scheduler waits beyond the runner's own deadline, seconds.
BACKSTOP_S = 60
#: What the runner is given to end and settle once its deadline has passed, before it is killed with its tree.
GRACE_S = 30


def of(agent: Agent, fleet: Fleet) -> int:
    """Seconds: the engine's, the checks' on the base and on the work, and a margin for git and GitHub."""
    repos = [fleet.repos[name] for name in agent.repos if name in fleet.repos]
    checks = max((repo.check_timeout_s * len(repo.checks) for repo in repos), default=0)
    return (agent.timeout_s + 2 * checks if agent.engine else 0) + fleet.timers.margin_s


def grace_of(fleet: Fleet) -> int:
    """Seconds, as GRACE_S; a fleet with a short margin is in a hurry here, too."""
    return min(GRACE_S, fleet.timers.margin_s)


def of_scheduler(agent: Agent, fleet: Fleet) -> int:
    """Seconds after which the scheduler may end it."""
    return of(agent, fleet) + min(BACKSTOP_S, of(agent, fleet))

"""A whole firing where claims are branches, and where they should have been; the roster says so, the processes act."""

from __future__ import annotations

from pathlib import Path

from support import repos
from support.fleet import LABEL, fleet

IN_HEADS = 'claims = "refs/heads"\n'


def test_a_firing_whose_claims_are_branches_opens_its_pull_request(tmp_path: Path) -> None:
    with fleet(tmp_path, toml=IN_HEADS) as it:
        repos.git(it.world.bare, "config", "transfer.hideRefs", "refs/watchbill")
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        ended = it.fire("bosun")
        assert ended.outcome == "pull_request", ended
        names = {ref for ref in repos.refs(it.world.bare) if "watchbill" in ref}
        assert names == {f"refs/heads/watchbill/claims/{number}", f"refs/heads/watchbill/issue-{number}"}


def test_a_server_that_takes_no_such_refs_ends_the_firing_with_the_setting_that_helps(tmp_path: Path) -> None:
    """And a host with the other setting claims nothing beside those that are there.

    Broken on purpose: the other namespace not listed; the second firing claimed the same issue again.
    """
    with fleet(tmp_path) as it:
        repos.git(it.world.bare, "config", "transfer.hideRefs", "refs/watchbill")
        number = it.world.issue("octocat", "Do it", labels=[LABEL])
        refused = it.fire("bosun")
        assert refused.outcome != "pull_request"
        assert refused.object["cost_usd"] == 0
        assert 'claims = "refs/heads"' in refused.reason, refused
        assert "watchbill" not in " ".join(repos.refs(it.world.bare))
        commit = repos.tip(it.world.bare, "refs/heads/main")
        repos.git(it.world.bare, "update-ref", f"refs/heads/watchbill/claims/{number}", str(commit))
        repos.git(it.world.bare, "config", "--unset", "transfer.hideRefs")
        other = it.fire("bosun")
        assert (other.outcome, other.status) == ("invalid", 78), other
        assert f"has the claim of #{number} below refs/heads/watchbill/claims/" in other.reason
        assert f"refs/watchbill/claims/{number}" not in repos.refs(it.world.bare)

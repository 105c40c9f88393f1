"""GitHub-shaped JSON of the practice forge's records: every field that a client would otherwise come back for.

Shapes: GitHub's REST API, version 2022-11-28, https://docs.github.com/en/rest.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from watchbill.practice import bare
from watchbill.practice.records import Comment, Event, Issue, Label, Pull, Repo, State, Status, allows, role_of

Json = dict[str, Any]


class View(NamedTuple):
    """Who looks, at what, and under which address."""

    state: State
    site: str  # "http://127.0.0.1:PORT", as the client called it
    api: str  # site, with "/api/v3" if the client used that
    login: str | None  # who asks

    def at(self, repo: Repo, rest: str = "") -> str:
        """The API's address of something in a repository."""
        return f"{self.api}/repos/{repo.full_name}{rest}"


def stamp(epoch_s: int | None) -> str | None:
    """GitHub's timestamp: UTC, whole seconds."""
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def user(view: View, login: str | None) -> Json | None:
    """GitHub's `simple-user`."""
    if login is None:
        return None
    who = view.state.users[login.lower()]
    url = f"{view.api}/users/{who.login}"
    return {
        "login": who.login,
        "id": who.id,
        "node_id": f"U_{who.id}",
        "avatar_url": f"{view.site}/avatars/{who.id}",
        "gravatar_id": "",
        "url": url,
        "html_url": f"{view.site}/{who.login}",
        "followers_url": f"{url}/followers",
        "following_url": f"{url}/following{{/other_user}}",
        "gists_url": f"{url}/gists{{/gist_id}}",
        "starred_url": f"{url}/starred{{/owner}}{{/repo}}",
        "subscriptions_url": f"{url}/subscriptions",
        "organizations_url": f"{url}/orgs",
        "repos_url": f"{url}/repos",
        "events_url": f"{url}/events{{/privacy}}",
        "received_events_url": f"{url}/received_events",
        "type": who.kind,
        "user_view_type": "public",
        "site_admin": False,
    }


def account(view: View, login: str) -> Json:
    """GitHub's `public-user`: what /user and /users/LOGIN say."""
    made = stamp(0)
    return {
        **(user(view, login) or {}),
        "name": login,
        "company": None,
        "blog": "",
        "location": None,
        "email": None,
        "hireable": None,
        "bio": None,
        "twitter_username": None,
        "public_repos": 0,
        "public_gists": 0,
        "followers": 0,
        "following": 0,
        "created_at": made,
        "updated_at": made,
    }


def association(view: View, repo: Repo, login: str) -> str:
    """author_association. Whoever may write to an organization's repository counts as its member."""
    owner = view.state.users[repo.full_name.split("/")[0].lower()]
    if login.lower() == owner.login.lower():
        return "OWNER"
    role = role_of(repo, login)
    if owner.kind == "Organization" and allows(role, "write"):
        return "MEMBER"
    return "COLLABORATOR" if allows(role, "triage") else "NONE"


def label(view: View, repo: Repo, one: Label) -> Json:
    """A label of a repository."""
    return {
        "id": one.id,
        "node_id": f"LA_{one.id}",
        "url": view.at(repo, f"/labels/{one.name}"),
        "name": one.name,
        "color": one.color,
        "default": False,
        "description": one.description,
    }


def labels(view: View, repo: Repo, names: tuple[str, ...]) -> list[Json]:
    """The labels of an issue."""
    return [label(view, repo, repo.labels[name.lower()]) for name in names]


def _reactions(url: str) -> Json:
    kinds = ("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes")
    return {"url": f"{url}/reactions", "total_count": 0, **dict.fromkeys(kinds, 0)}


def issue(view: View, repo: Repo, one: Issue, *, whole: bool = True) -> Json:
    """An issue, or a pull request seen as one; lists leave out what only the single issue has (`whole` False)."""
    url = view.at(repo, f"/issues/{one.number}")
    kind = "pull" if one.pull else "issues"
    shown: Json = {
        "url": url,
        "repository_url": view.at(repo),
        "labels_url": f"{url}/labels{{/name}}",
        "comments_url": f"{url}/comments",
        "events_url": f"{url}/events",
        "timeline_url": f"{url}/timeline",
        "html_url": f"{view.site}/{repo.full_name}/{kind}/{one.number}",
        "id": one.id,
        "node_id": f"I_{one.id}",
        "number": one.number,
        "title": one.title,
        "body": one.body,
        "user": user(view, one.author),
        "labels": labels(view, repo, one.labels),
        "state": one.state,
        "state_reason": one.state_reason,
        "locked": one.locked,
        "active_lock_reason": None,
        "assignee": None,
        "assignees": [],
        "milestone": None,
        "comments": sum(1 for comment in repo.comments.values() if comment.number == one.number),
        "created_at": stamp(one.created_at),
        "updated_at": stamp(one.updated_at),
        "closed_at": stamp(one.closed_at),
        "author_association": association(view, repo, one.author),
        "type": None,
        "sub_issues_summary": {"total": 0, "completed": 0, "percent_completed": 0},
        "issue_dependencies_summary": {"blocked_by": 0, "total_blocked_by": 0, "blocking": 0, "total_blocking": 0},
        "reactions": _reactions(url),
        "performed_via_github_app": None,
    }
    if whole:
        shown["closed_by"] = user(view, one.closed_by)
    if one.pull:
        page = f"{view.site}/{repo.full_name}/pull/{one.number}"
        shown["draft"] = one.pull.draft
        shown["pull_request"] = {
            "url": view.at(repo, f"/pulls/{one.number}"),
            "html_url": page,
            "diff_url": f"{page}.diff",
            "patch_url": f"{page}.patch",
            "merged_at": stamp(one.pull.merged_at),
        }
    return shown


def comment(view: View, repo: Repo, one: Comment) -> Json:
    """A comment on an issue."""
    url = view.at(repo, f"/issues/comments/{one.id}")
    kind = "pull" if repo.issues[one.number].pull else "issues"
    return {
        "id": one.id,
        "node_id": f"IC_{one.id}",
        "url": url,
        "html_url": f"{view.site}/{repo.full_name}/{kind}/{one.number}#issuecomment-{one.id}",
        "issue_url": view.at(repo, f"/issues/{one.number}"),
        "body": one.body,
        "user": user(view, one.author),
        "created_at": stamp(one.created_at),
        "updated_at": stamp(one.updated_at),
        "author_association": association(view, repo, one.author),
        "reactions": _reactions(url),
        "performed_via_github_app": None,
    }


def event(view: View, repo: Repo, one: Event) -> Json:
    """A line of an issue's event log, as /events and /timeline show it."""
    shown: Json = {
        "id": one.id,
        "node_id": f"E_{one.id}",
        "url": view.at(repo, f"/issues/events/{one.id}"),
        "actor": user(view, one.actor),
        "event": one.kind,
        "commit_id": one.commit,
        "commit_url": view.at(repo, f"/commits/{one.commit}") if one.commit else None,
        "created_at": stamp(one.at),
        "performed_via_github_app": None,
    }
    if one.label is not None:
        known = repo.labels.get(one.label.lower())
        shown["label"] = {"name": one.label, "color": known.color if known else "ededed"}
    if one.renamed is not None:
        shown["rename"] = {"from": one.renamed[0], "to": one.renamed[1]}
    return shown


def timeline_comment(view: View, repo: Repo, one: Comment) -> Json:
    """A comment as /timeline shows it."""
    return {**comment(view, repo, one), "event": "commented", "actor": user(view, one.author)}


def status(view: View, repo: Repo, one: Status) -> Json:
    """A commit status."""
    return {
        "url": view.at(repo, f"/statuses/{one.sha}"),
        "avatar_url": f"{view.site}/avatars/{one.creator}",
        "id": one.id,
        "node_id": f"SC_{one.id}",
        "state": one.state,
        "description": one.description,
        "target_url": one.target_url,
        "context": one.context,
        "created_at": stamp(one.at),
        "updated_at": stamp(one.at),
        "creator": user(view, one.creator),
    }


def ref(view: View, repo: Repo, name: str, sha: str) -> Json:
    """A git reference; `name` is the full one."""
    commit = {"sha": sha, "type": "commit", "url": view.at(repo, f"/git/commits/{sha}")}
    return {"ref": name, "node_id": f"REF_{name}", "url": view.at(repo, f"/git/{name}"), "object": commit}


def pull(view: View, repo: Repo, one: Issue, repository: Json) -> Json:
    """GitHub's `pull-request-simple`, what lists show; `repository` is the rendered repository of both ends."""
    assert one.pull is not None
    url, page = view.at(repo, f"/pulls/{one.number}"), f"{view.site}/{repo.full_name}/pull/{one.number}"
    seen = view.at(repo, f"/issues/{one.number}")
    links = {
        "self": url,
        "html": page,
        "issue": seen,
        "comments": f"{seen}/comments",
        "review_comments": f"{url}/comments",
        "review_comment": view.at(repo, "/pulls/comments{/number}"),
        "commits": f"{url}/commits",
        "statuses": view.at(repo, f"/statuses/{one.pull.head_sha}"),
    }
    return {
        "url": url,
        "id": one.pull.id,
        "node_id": f"PR_{one.pull.id}",
        "html_url": page,
        "diff_url": f"{page}.diff",
        "patch_url": f"{page}.patch",
        "issue_url": seen,
        "commits_url": links["commits"],
        "review_comments_url": links["review_comments"],
        "review_comment_url": links["review_comment"],
        "comments_url": links["comments"],
        "statuses_url": links["statuses"],
        "number": one.number,
        "state": one.state,
        "locked": one.locked,
        "active_lock_reason": None,
        "title": one.title,
        "user": user(view, one.author),
        "body": one.body,
        "labels": labels(view, repo, one.labels),
        "milestone": None,
        "created_at": stamp(one.created_at),
        "updated_at": stamp(one.updated_at),
        "closed_at": stamp(one.closed_at),
        "merged_at": stamp(one.pull.merged_at),
        "merge_commit_sha": one.pull.merge_sha,
        "assignee": None,
        "assignees": [],
        "requested_reviewers": [],
        "requested_teams": [],
        "head": _end(view, repo, one.pull.head_ref, one.pull.head_sha, repository),
        "base": _end(view, repo, one.pull.base_ref, one.pull.base_sha, repository),
        "_links": {name: {"href": href} for name, href in links.items()},
        "author_association": association(view, repo, one.author),
        "auto_merge": None,
        "draft": one.pull.draft,
    }


def _end(view: View, repo: Repo, name: str, sha: str, repository: Json) -> Json:
    owner = repo.full_name.split("/")[0]
    return {"label": f"{owner}:{name}", "ref": name, "sha": sha, "user": user(view, owner), "repo": repository}


def whole_pull(view: View, repo: Repo, one: Issue, repository: Json) -> Json:
    """A pull request read by number: with what git has to be asked for, as at GitHub not found in lists."""
    assert one.pull is not None
    done = one.pull.merged_at is not None
    mergeable = None if one.state == "closed" else _mergeable(repo, one.pull)
    compared = bare.compare(repo.git, one.pull.base_sha, one.pull.head_sha)
    clean = "draft" if one.pull.draft else "clean"
    return {
        **pull(view, repo, one, repository),
        "merged": done,
        "mergeable": mergeable,
        "rebaseable": mergeable,
        "mergeable_state": "unknown" if mergeable is None else clean if mergeable else "dirty",
        "merged_by": user(view, one.pull.merged_by),
        "comments": sum(1 for comment in repo.comments.values() if comment.number == one.number),
        "review_comments": 0,
        "maintainer_can_modify": False,
        "commits": compared.commits,
        "additions": compared.additions,
        "deletions": compared.deletions,
        "changed_files": compared.files,
    }


def _mergeable(repo: Repo, one: Pull) -> bool:
    return bare.merged_tree(repo.git, one.base_sha, one.head_sha) is not None

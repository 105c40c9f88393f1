"""GitHub's JSON of a repository, the longest of its shapes."""

from __future__ import annotations

from watchbill.practice import bare
from watchbill.practice.records import Repo, allows, role_of
from watchbill.practice.render import Json, View, stamp, user

#: The addresses a repository lists, below its own; the key is the field without "_url".
_BELOW = {
    "archive": "/{archive_format}{/ref}",
    "assignees": "/assignees{/user}",
    "blobs": "/git/blobs{/sha}",
    "branches": "/branches{/branch}",
    "collaborators": "/collaborators{/collaborator}",
    "comments": "/comments{/number}",
    "commits": "/commits{/sha}",
    "compare": "/compare/{base}...{head}",
    "contents": "/contents/{+path}",
    "contributors": "/contributors",
    "deployments": "/deployments",
    "downloads": "/downloads",
    "events": "/events",
    "forks": "/forks",
    "git_commits": "/git/commits{/sha}",
    "git_refs": "/git/refs{/sha}",
    "git_tags": "/git/tags{/sha}",
    "hooks": "/hooks",
    "issue_comment": "/issues/comments{/number}",
    "issue_events": "/issues/events{/number}",
    "issues": "/issues{/number}",
    "keys": "/keys{/key_id}",
    "labels": "/labels{/name}",
    "languages": "/languages",
    "merges": "/merges",
    "milestones": "/milestones{/number}",
    "notifications": "/notifications{?since,all,participating}",
    "pulls": "/pulls{/number}",
    "releases": "/releases{/id}",
    "stargazers": "/stargazers",
    "statuses": "/statuses/{sha}",
    "subscribers": "/subscribers",
    "subscription": "/subscription",
    "tags": "/tags",
    "teams": "/teams",
    "trees": "/git/trees{/sha}",
}


def repository(view: View, repo: Repo) -> Json:
    """A repository as /repos/OWNER/NAME shows it, with the permissions of whoever asks."""
    owner, name = repo.full_name.split("/")
    page = f"{view.site}/{repo.full_name}"
    made = stamp(repo.created_at)
    role = role_of(repo, view.login)
    opened = sum(1 for one in repo.issues.values() if one.state == "open")
    shown: Json = {
        "id": repo.id,
        "node_id": f"R_{repo.id}",
        "name": name,
        "full_name": repo.full_name,
        "private": repo.private,
        "visibility": "private" if repo.private else "public",
        "owner": user(view, owner),
        "html_url": page,
        "description": None,
        "fork": False,
        "url": view.at(repo),
        **{f"{field}_url": view.at(repo, rest) for field, rest in _BELOW.items()},
        "git_url": f"{page}.git",
        "ssh_url": f"{page}.git",
        "clone_url": f"{page}.git",
        "svn_url": page,
        "mirror_url": None,
        "homepage": None,
        "language": None,
        "license": None,
        "created_at": made,
        "updated_at": made,
        "pushed_at": made,
        "size": 0,
        "default_branch": bare.default_branch(repo.git),
        "archived": repo.archived,
        "disabled": False,
        "is_template": False,
        "topics": [],
        "forks_count": 0,
        "forks": 0,
        "stargazers_count": 0,
        "watchers_count": 0,
        "watchers": 0,
        "network_count": 0,
        "subscribers_count": 0,
        "open_issues_count": opened,
        "open_issues": opened,
        "has_issues": repo.has_issues,
        "has_projects": False,
        "has_wiki": False,
        "has_pages": False,
        "has_downloads": False,
        "has_discussions": False,
        "allow_forking": True,
        "web_commit_signoff_required": False,
        "allow_merge_commit": True,
        "allow_squash_merge": True,
        "allow_rebase_merge": False,
        "allow_auto_merge": False,
        "delete_branch_on_merge": False,
    }
    if view.login is not None:
        shown["permissions"] = permissions(role)
    return shown


def permissions(role: str) -> dict[str, bool]:
    """A role as GitHub's five flags."""
    flags = {"pull": "read", "triage": "triage", "push": "write", "maintain": "maintain", "admin": "admin"}
    return {flag: allows(role, needed) for flag, needed in flags.items()}

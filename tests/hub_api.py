"""The calls of the test Hub that tell or change facts: repositories, references, trees, cards and accounts."""

import re

import hub_cards
from hub_access import known, may_write, open_files, readable, writable
from hub_http import Refusal, Reply, Route, Surprise, answer, fields, missing, page
from hub_repos import MAIN

REPO = r"(?P<name>[^/]+/[^/]+)"
API = rf"/api/models/{REPO}"
REVISION = r"(?P<revision>[^/]+)"
NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][\w.-]{0,95}(?<![-.])(?<!\.git)")
INFO = (
    "author", "baseModels", "cardData", "createdAt", "disabled", "downloads", "gated", "lastModified", "library_name",
    "likes", "model-index", "pipeline_tag", "private", "sha", "siblings", "tags", "trendingScore", "usedStorage",
)  # fmt: skip
SORTS = ("createdAt", "downloads", "lastModified", "likes", "trendingScore")
PATHS_AT_ONCE = 1000
COMMITS_A_PAGE = 50


def when(at):
    """Return a time as the Hub writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def whoami(hub, request):
    """Say who the token belongs to."""
    token = known(hub, request)
    orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in hub.accounts.orgs[token.user]]
    auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": token.role}}
    return answer({"type": "user", "id": token.user, "name": token.user, "orgs": orgs, "auth": auth})


def place(request, optional):
    """Return namespace and name of the repository in a body, and the body."""
    text = str
    data = fields(request.data, {"name": text, "organization": (text, type(None))}, {"type": text, **optional})
    if data.get("type", "model") != "model":
        raise Surprise(f"this Hub has models only, no {data['type']}")
    return data


def create_repo(hub, request):
    """Create a repository; one that exists is a conflict, whose answer has its address."""
    data = place(request, {"visibility": str})
    if data.get("visibility", "public") not in {"public", "private"}:
        raise Surprise(f"the visibility is {data['visibility']!r}")
    token = known(hub, request)
    namespace = data["organization"] or token.user
    may_write(hub, token, namespace)
    if not NAME.fullmatch(data["name"]):
        raise Refusal(400, f"Invalid repository name: {data['name']!r}")
    name = f"{namespace}/{data['name']}"
    url = f"{hub.endpoint}/{name}"
    if name in hub.repos:
        return answer({"error": "You already created this model repo", "url": url}, 409)
    hub.repo(name, private=data.get("visibility") == "private", by=token.user)
    return answer({"url": url, "name": name, "id": name})


def delete_repo(hub, request):
    """Delete a repository with all that it has."""
    data = place(request, {})
    token = known(hub, request)
    repo, _user = writable(hub, request, f"{data['organization'] or token.user}/{data['name']}")
    del hub.repos[repo.name]
    return Reply()


def settings(hub, request, name):
    """Make a repository private or gated, or the contrary."""
    data = fields(request.data, {}, {"visibility": str, "gated": (str, bool)})
    if not data or data.get("visibility", "public") not in {"public", "private"}:
        raise Surprise(f"no settings: {data}")
    if data.get("gated", False) not in ("auto", "manual", False):
        raise Surprise(f"gated is {data['gated']!r}")
    repo, _user = writable(hub, request, name)
    repo.private = data["visibility"] == "private" if "visibility" in data else repo.private
    repo.gated = data.get("gated", repo.gated)
    return answer({"private": repo.private, "gated": repo.gated})


def auth_check(hub, request, name):
    """Say whether the caller may read the files."""
    open_files(hub, request, name)
    return Reply()


def auth_check_write(hub, request, name):
    """Say whether the caller may write."""
    writable(hub, request, name)
    return Reply()


def sibling(path, entry, *, blobs):
    """Return what the list of files in a model's facts says of one."""
    if not blobs:
        return {"rfilename": path}
    lfs = entry.facts().get("lfs")
    more = {"lfs": {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}} if lfs else {}
    return {"rfilename": path, "size": entry.size, "blobId": entry.oid, **more}


def facts(repo, commit, *, blobs=False):
    """Return everything that the Hub says of a model at a commit."""
    data = hub_cards.card(repo, commit)
    return {
        "id": repo.name, "modelId": repo.name, "author": repo.namespace, "sha": commit.id, "private": repo.private,
        "gated": repo.gated, "disabled": False, "downloads": repo.downloads, "likes": 0, "trendingScore": 0,
        "lastModified": when(repo.head.at), "createdAt": when(repo.created), "tags": hub_cards.tags(data, commit.files),
        "pipeline_tag": data.get("pipeline_tag"), "library_name": data.get("library_name"), "cardData": data,
        "baseModels": hub_cards.texts(data.get("base_model") or []), "model-index": data.get("model-index"),
        "usedStorage": sum(entry.size for entry in commit.files.values()), "spaces": [],
        "siblings": [sibling(path, entry, blobs=blobs) for path, entry in sorted(commit.files.items())],
    }  # fmt: skip


def chosen(request, everything):
    """Return the facts that `expand` asks for, or nothing if it does not."""
    wanted = request.query.get("expand")
    if wanted is None:
        return None
    if unknown := set(wanted) - set(INFO):
        raise Refusal(400, f"Invalid expand: {', '.join(sorted(unknown))}")
    return {"id": everything["id"], **{name: everything[name] for name in wanted}}


def model_info(hub, request, name, revision=MAIN):
    """Tell about a model at a revision."""
    repo = readable(hub, request, name)
    everything = facts(repo, repo.resolve(revision), blobs=request.flag("blobs"))
    if request.flag("securityStatus"):
        everything["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    return answer(chosen(request, everything) or everything)


def list_models(hub, request):
    """List the models that the caller may see and that fit, page by page."""
    token = hub.accounts.caller(request)
    seen = [repo for repo in hub.repos.values() if not repo.private or hub.accounts.reaches(token, repo.namespace)]
    found = [facts(repo, repo.head) for repo in seen]
    author, pipeline, search = request.one("author"), request.one("pipeline_tag"), request.one("search", "").lower()
    wanted = set(request.query.get("filter", []))
    found = [
        model for model in found
        if author in {None, model["author"]} and pipeline in {None, model["pipeline_tag"]}
        and search in model["id"].lower() and wanted <= set(model["tags"])
    ]  # fmt: skip
    if "gated" in request.query:
        found = [model for model in found if bool(model["gated"]) == request.flag("gated")]
    sort = request.one("sort", "trendingScore")
    if sort not in SORTS:
        raise Refusal(400, f"Invalid sort: {sort}")
    found.sort(key=lambda model: model[sort], reverse=True)
    size = min(hub.models_a_page, int(request.one("limit", hub.models_a_page)))
    return page(request, [row(request, model) for model in found], size, endpoint=hub.endpoint)


def row(request, model):
    """Return what the list says of a model: more if it is asked for."""
    names = {"id", "modelId", "private", "likes", "downloads", "tags", "createdAt", "pipeline_tag", "library_name"}
    if request.flag("full"):
        names |= {"author", "gated", "lastModified", "sha", "siblings"}
    if request.flag("cardData"):
        names.add("cardData")
    return chosen(request, model) or {name: value for name, value in model.items() if name in names}


def last_change(repo, revision, path):
    """Return the commit that a path came from."""
    commits = repo.history(revision)
    here = [commit.files.get(path, commit.trees.get(path)) for commit in commits]
    same = next((number for number, state in enumerate(here) if state != here[0]), len(commits))
    commit = commits[same - 1]
    return {"id": commit.id, "title": commit.title, "date": when(commit.at)}


def node(repo, revision, path, *, expand):
    """Return what the tree says of a file or folder."""
    commit = repo.resolve(revision)
    entry = commit.files.get(path)
    if entry is None:
        found = {"type": "directory", "oid": commit.trees[path], "size": 0, "path": path}
    else:
        found = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path, **entry.facts()}
    if expand:
        found["lastCommit"] = last_change(repo, revision, path)
        if entry:
            scans = {"avScan": {"status": "safe"}, "pickleImportScan": None}
            found["securityFileStatus"] = {"status": "safe", **scans}
    return found


def tree(hub, request, name, revision, path=""):
    """List a folder, or all that is below it, page by page."""
    commit = (repo := readable(hub, request, name)).resolve(revision)
    if path and path not in commit.trees:
        raise missing("EntryNotFound", f"{path} does not exist on {revision}", **{"X-Repo-Commit": commit.id})
    start = f"{path}/" if path else ""
    names = [found for found in [*commit.trees, *commit.files] if found.startswith(start) and found]
    if not request.flag("recursive"):
        names = [found for found in names if "/" not in found[len(start) :]]
    expand = request.flag("expand")
    size = min(hub.files_a_page, int(request.one("limit", hub.files_a_page)))
    return page(
        request, [node(repo, commit.id, found, expand=expand) for found in sorted(names)], size, endpoint=hub.endpoint
    )


def paths_info(hub, request, name, revision):
    """Tell about some paths; those that are missing are left out."""
    if unknown := set(request.data) - {"paths", "expand"}:
        raise Surprise(f"fields that no client sends: {', '.join(sorted(unknown))}")
    if request.data.get("expand", ["false"]) not in (["true"], ["false"]):
        raise Surprise(f"expand is {request.data['expand']}")
    paths = request.data.get("paths", [])
    if len(paths) > PATHS_AT_ONCE:
        raise Refusal(413, "too many parameters")
    commit = (repo := readable(hub, request, name)).resolve(revision)
    found = [path for path in paths if path and (path in commit.files or path in commit.trees)]
    expand = request.data.get("expand") == ["true"]
    return answer([node(repo, commit.id, path, expand=expand) for path in found])


def refs(hub, request, name):
    """List the branches and tags."""
    repo = readable(hub, request, name)
    kinds = {"branches": ("heads", repo.branches), "tags": ("tags", repo.tags)}
    found = {
        kind: [{"name": ref, "ref": f"refs/{folder}/{ref}", "targetCommit": commit} for ref, commit in named.items()]
        for kind, (folder, named) in kinds.items()
    }
    asked = request.one("include_prs", "0")
    if asked not in {"0", "1"}:
        raise Surprise(f"include_prs is {asked!r}")
    return answer({**found, "converts": [], **({"pullRequests": []} if asked == "1" else {})})


def commits(hub, request, name, revision):
    """List the commits that led to a revision, the last first, page by page."""
    repo = readable(hub, request, name)
    formatted = request.one("expand[]") == "formatted"
    found = []
    for commit in repo.history(revision):
        words = {"title": commit.title, "message": commit.description}
        more = {"formatted": {part: f"<p>{text}</p>" for part, text in words.items()}} if formatted else {}
        found.append({"id": commit.id, **words, "authors": [{"user": commit.author}], "date": when(commit.at), **more})
    return page(request, found, COMMITS_A_PAGE, endpoint=hub.endpoint)


def create_tag(hub, request, name, revision):
    """Tag a revision."""
    data = fields(request.data, {"tag": str}, {"message": str})
    repo, _user = writable(hub, request, name)
    repo.add_ref("tag", data["tag"], revision)
    return Reply()


def delete_tag(hub, request, name, revision):
    """Delete a tag."""
    repo, _user = writable(hub, request, name)
    repo.drop_ref("tag", revision)
    return Reply()


def create_branch(hub, request, name, revision):
    """Start a branch, at the head of the main one unless it is told where."""
    data = fields(request.data, {}, {"startingPoint": str})
    repo, _user = writable(hub, request, name)
    repo.add_ref("branch", revision, data.get("startingPoint", MAIN))
    return Reply()


def delete_branch(hub, request, name, revision):
    """Delete a branch."""
    repo, _user = writable(hub, request, name)
    repo.drop_ref("branch", revision)
    return Reply()


def validate_yaml(hub, request):
    """Say what is wrong with a card."""
    hub.accounts.caller(request)
    data = fields(request.data, {"content": str, "repoType": str})
    errors, warnings = hub_cards.check(data["content"])
    said = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return answer(said, 400 if errors else 200)


def xet_token(hub, request, name, revision):
    """Answer that there is no Xet here: the client was not told to do without."""
    readable(hub, request, name)
    raise Surprise(f"Xet was asked for at {revision}; set HF_HUB_DISABLE_XET=1", 404)


LISTED = frozenset(
    {"filter", "author", "search", "sort", "limit", "full", "cardData", "expand", "pipeline_tag", "gated", "cursor"}
)
TOLD = frozenset({"blobs", "securityStatus", "expand"})
WALKED = frozenset({"recursive", "expand", "limit", "cursor"})
ROUTES = (
    Route("GET", "/api/whoami-v2", whoami),
    Route("POST", "/api/repos/create", create_repo, body="json"),
    Route("DELETE", "/api/repos/delete", delete_repo, body="json"),
    Route("POST", "/api/validate-yaml", validate_yaml, body="json"),
    Route("GET", "/api/models", list_models, LISTED),
    Route("GET", API, model_info, TOLD),
    Route("GET", f"{API}/revision/{REVISION}", model_info, TOLD),
    Route("PUT", f"{API}/settings", settings, body="json"),
    Route("GET", f"{API}/auth-check", auth_check),
    Route("GET", f"{API}/auth-check/write", auth_check_write),
    Route("GET", f"{API}/tree/{REVISION}(?:/(?P<path>[^/]+))?", tree, WALKED),
    Route("POST", f"{API}/paths-info/{REVISION}", paths_info, body="form"),
    Route("GET", f"{API}/refs", refs, frozenset({"include_prs"})),
    Route("GET", f"{API}/commits/{REVISION}", commits, frozenset({"expand[]", "cursor"})),
    Route("POST", f"{API}/tag/{REVISION}", create_tag, body="json"),
    Route("DELETE", f"{API}/tag/{REVISION}", delete_tag),
    Route("POST", f"{API}/branch/{REVISION}", create_branch, body="json"),
    Route("DELETE", f"{API}/branch/{REVISION}", delete_branch),
    Route("GET", f"{API}/xet-(?:read|write)-token/{REVISION}", xet_token, frozenset({"create_pr"})),
)

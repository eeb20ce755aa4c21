"""The calls of the test Hub that move bytes: preupload, LFS, commits, and files by address and by the CDN.

Large bytes travel by another host, as on the real Hub: it reads signed addresses, and must never see a token.
"""

import base64
import fnmatch
import hashlib
import hmac
import math
import re
from dataclasses import dataclass, field
from urllib.parse import quote

from hub_access import open_files, writable
from hub_api import API, REPO, REVISION
from hub_http import Refusal, Reply, Route, Surprise, answer, encode, fields, missing, partial
from hub_repos import SHORT, Change, check_path

SHA256 = re.compile(r"[0-9a-f]{64}")
SAMPLE = 512
REGULAR = 10 * 2**20  # bytes that git takes
LFS = {"Content-Type": "application/vnd.git-lfs+json"}


@dataclass
class Upload:
    """An upload that was allowed: of which object, to which repository, in which parts."""

    name: str
    oid: str
    size: int
    chunk: int | None = None
    parts: dict = field(default_factory=dict)
    whole: bool = False


def signature(hub, *words):
    """Return what shows that an address was given out by this Hub."""
    return hmac.new(hub.secret, "\n".join(map(str, words)).encode(), "sha256").hexdigest()


def large(repo, head, path, size, sample):
    """Return whether a file belongs in LFS: by the repository's own rules, by size, or as it is no text."""
    entry = head.files.get(".gitattributes")
    lines = repo.blobs[entry.key].decode().splitlines() if entry else []
    patterns = [line.split()[0] for line in lines if "filter=lfs" in line.split()]
    base = path.rpartition("/")[2]
    by_rule = any(fnmatch.fnmatchcase(path if "/" in pattern else base, pattern) for pattern in patterns)
    return bool(size) and (by_rule or size > REGULAR or b"\0" in sample)


def ignored(text, path):
    """Return whether the lines of a .gitignore cover a path."""
    lines = [line.strip().rstrip("/") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    names = [*path.split("/"), path]
    return any(fnmatch.fnmatchcase(name, line.lstrip("/")) for line in lines for name in names)


def preupload(hub, request, name, revision):
    """Say for each file how it has to come, and under which name it is there already."""
    data = fields(request.data, {"files": list}, {"gitIgnore": str})
    repo, _user = writable(hub, request, name)
    head, answers = repo.resolve(revision), []
    rules = head.files.get(".gitignore")
    ignore = data.get("gitIgnore", repo.blobs[rules.key].decode() if rules else "")
    for file in data["files"]:
        fields(file, {"path": str, "sample": str, "size": int})
        sample = base64.b64decode(file["sample"], validate=True)
        if len(sample) != min(file["size"], SAMPLE):
            raise Surprise(f"the sample of {file['path']} has {len(sample)} bytes")
        check_path(file["path"])
        mode = "lfs" if large(repo, head, file["path"], file["size"], sample) else "regular"
        there = head.files.get(file["path"])
        oid = {"oid": there.key} if there else {}
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": ignored(ignore, file["path"]), **oid})
    return answer({"files": answers})


def batch(hub, request, name):
    """Say for each object of LFS where its bytes are to go, if they are not there already."""
    data = fields(
        request.data,
        {"operation": str, "transfers": list, "objects": list, "hash_algo": str},
        {"ref": dict},
    )
    if request.headers.get("accept") != LFS["Content-Type"]:
        raise Surprise("the batch call does not accept what it answers")
    if (data["operation"], data["hash_algo"]) != ("upload", "sha256") or "basic" not in data["transfers"]:
        raise Surprise(f"a batch call of another kind: {data}")
    repo, _user = writable(hub, request, name)
    found = [instruct(hub, repo, wanted, data["transfers"]) for wanted in data["objects"]]
    parted = any("chunk_size" in one.get("actions", {}).get("upload", {}).get("header", {}) for one in found)
    return Reply(200, LFS, encode({"transfer": "multipart" if parted else "basic", "objects": found}))


def instruct(hub, repo, wanted, transfers):
    """Return the instructions for one object."""
    fields(wanted, {"oid": str, "size": int})
    oid, size = wanted["oid"], wanted["size"]
    if not SHA256.fullmatch(oid) or size <= 0:
        return {**wanted, "error": {"code": 422, "message": "Invalid object"}}
    if oid in repo.objects:
        return {**wanted, "authenticated": True}
    parted = size > hub.multipart_over and "multipart" in transfers
    ticket = signature(hub, "upload", repo.name, oid, len(hub.uploads))
    hub.uploads[ticket] = Upload(repo.name, oid, size, hub.chunk if parted else None)
    if parted:
        count = math.ceil(size / hub.chunk)
        places = {str(number): f"{hub.cdn}/upload/{ticket}?part={number}" for number in range(1, count + 1)}
        upload = {"href": f"{hub.endpoint}/api/complete/{ticket}", "header": {"chunk_size": str(hub.chunk), **places}}
    else:
        upload = {"href": f"{hub.cdn}/upload/{ticket}"}
    verify = {"href": f"{hub.endpoint}/{repo.name}.git/info/lfs/objects/verify"}
    return {**wanted, "authenticated": True, "actions": {"upload": upload, "verify": verify}}


def allowed(hub, ticket):
    """Return the upload that a ticket is for."""
    if ticket not in hub.uploads:
        raise Refusal(403, "SignatureDoesNotMatch")
    return hub.uploads[ticket]


def put(hub, request, ticket):
    """Take the bytes of an object, or of a part: all of them, and no others."""
    upload, part = allowed(hub, ticket), request.one("part")
    if (part is None) != (upload.chunk is None):
        raise Surprise("a part came for a whole, or the contrary")
    if part is None:
        if len(request.body) != upload.size or request.sha256 != upload.oid:
            raise Refusal(400, "BadDigest")
        hub.blobs[upload.oid], upload.whole = request.body, True
        return Reply(200, {"ETag": f'"{md5(request.body)}"'})
    start = (int(part) - 1) * upload.chunk
    if start < 0 or len(request.body) != min(upload.chunk, upload.size - start):
        raise Refusal(400, "IncompleteBody")
    upload.parts[int(part)] = request.body
    return Reply(200, {"ETag": f'"{md5(request.body)}"'})


def md5(content):
    """Return the name that storage gives to bytes."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def complete(hub, request, ticket):
    """Put the parts of an object together."""
    data, upload = fields(request.data, {"oid": str, "parts": list}), allowed(hub, ticket)
    for number, part in enumerate(data["parts"], 1):
        fields(part, {"partNumber": int, "etag": str})
        if part["partNumber"] != number or part["etag"] != f'"{md5(upload.parts.get(number, b""))}"':
            raise Refusal(400, "InvalidPart")
    content = b"".join(upload.parts[number] for number in sorted(upload.parts))
    if data["oid"] != upload.oid or hashlib.sha256(content).hexdigest() != upload.oid:
        raise Refusal(400, "BadDigest")
    hub.blobs[upload.oid], upload.whole = content, True
    return Reply(200, LFS, b"{}")


def verify(hub, request, name):
    """Make an object that arrived whole one of the repository's."""
    data = fields(request.data, {"oid": str, "size": int})
    repo, _user = writable(hub, request, name)
    arrived = [up for up in hub.uploads.values() if (up.name, up.oid, up.whole) == (repo.name, data["oid"], True)]
    if not arrived or arrived[0].size != data["size"]:
        raise Refusal(404, "Object does not exist")
    repo.objects.add(data["oid"])
    return Reply(200, LFS, b"{}")


def commit(hub, request, name, revision):
    """Commit what the lines say onto a branch, if it is where the caller thinks it is."""
    lines = [fields(line, {"key": str, "value": dict}) for line in request.data]
    if not lines or lines[0]["key"] != "header":
        raise Surprise("a commit begins with its header")
    head = fields(lines[0]["value"], {"summary": str, "description": str}, {"parentCommit": str})
    parent = head.get("parentCommit")
    if not head["summary"] or (parent is not None and not SHORT.fullmatch(parent)):
        raise Refusal(400, f"Invalid commit header: {head}")
    repo, user = writable(hub, request, name)
    change = changes(repo, lines[1:])
    made = repo.commit(
        change, head["summary"], branch=revision, parent=parent, description=head["description"], author=user
    )
    url = f"{hub.endpoint}/{name}/commit/{made.id}"
    return answer({"success": True, "commitUrl": url, "commitOid": made.id, "hookOutput": ""})


def changes(repo, lines):
    """Return what the lines of a commit write and delete."""
    write, delete, folders = {}, [], []
    for line in lines:
        kind, value = line["key"], line["value"]
        if kind == "file":
            write[value.get("path")] = regular(repo, value)
        elif kind == "lfsFile":
            write[value.get("path")] = pointed(repo, value)
        elif kind == "deletedFile":
            delete.append(fields(value, {"path": str})["path"])
        elif kind == "deletedFolder":
            folders.append(fields(value, {"path": str})["path"])
        else:
            raise Surprise(f"a commit line of an unknown kind: {kind!r}")
    return Change(write, tuple(delete), tuple(folders))


def regular(repo, value):
    """Return the entry of a file that came with the commit."""
    fields(value, {"path": str, "content": str, "encoding": str})
    if value["encoding"] != "base64":
        raise Surprise(f"the encoding is {value['encoding']!r}")
    content = base64.b64decode(value["content"], validate=True)
    check_path(value["path"])
    if large(repo, repo.head, value["path"], len(content), content[:SAMPLE]):
        raise Refusal(400, f"Your push was rejected: {value['path']} belongs in LFS")
    return repo.store(content, lfs=False)


def pointed(repo, value):
    """Return the entry of a file whose bytes are in LFS already."""
    fields(value, {"path": str, "algo": str, "oid": str}, {"size": int})
    if value["algo"] != "sha256":
        raise Surprise(f"the algorithm is {value['algo']!r}")
    check_path(value["path"])
    if value["oid"] not in repo.objects:
        raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
    size = len(repo.blobs[value["oid"]])
    if value.get("size", size) != size:
        raise Refusal(400, f"LFS pointer of another size: {value['path']}")
    return repo.pointed(value["oid"], size)


def resolve(hub, request, name, revision, path):
    """Serve a file, or tell where the CDN has it."""
    repo = open_files(hub, request, name)
    found = repo.resolve(revision)
    entry, headers = found.files.get(path), {"X-Repo-Commit": found.id}
    if entry is None:
        raise missing("EntryNotFound", "Entry not found", **headers)
    repo.downloads += path.rpartition("/")[2] == "config.json"
    if entry.sha256 is not None:
        headers |= {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        signed = signature(hub, "get", name, entry.sha256)
        place = f"{hub.cdn}/{quote(name)}/{entry.sha256}?Signature={signed}"
        return Reply(302, {**headers, "Location": place}, f"Found. Redirecting to {place}".encode())
    if hub.resolve_cache:
        headers |= {"X-Linked-ETag": f'"{entry.oid}"', "X-Linked-Size": str(entry.size)}
        place = f"/api/resolve-cache/models/{name}/{found.id}/{quote(path)}"
        return Reply(307, {**headers, "Location": place}, b"Temporary Redirect")
    return file(repo, request, found, path)


def cached(hub, request, name, revision, path):
    """Serve a small file from where the Hub redirects to within itself."""
    repo = open_files(hub, request, name)
    return file(repo, request, repo.resolve(revision), path)


def file(repo, request, found, path):
    """Return a file that is in git."""
    entry, base = found.files[path], path.rpartition("/")[2]
    shown = f"inline; filename*=UTF-8''{quote(base)}; filename=\"{quote(base)}\";"
    headers = {"X-Repo-Commit": found.id, "ETag": f'"{entry.oid}"', "Content-Disposition": shown}
    return partial(request, repo.blobs[entry.key], {**headers, "Content-Type": "text/plain; charset=utf-8"})


def from_cdn(hub, request, name, oid):
    """Serve an object of LFS to whoever has the signed address."""
    if not hmac.compare_digest(request.one("Signature", ""), signature(hub, "get", name, oid)):
        raise Refusal(403, "AccessDenied")
    content = hub.blobs[oid]
    return partial(request, content, {"ETag": f'"{md5(content)}"', "Content-Type": "application/octet-stream"})


RESOLVE = f"/{REPO}/resolve/{REVISION}/(?P<path>.+)"
CACHED = f"/api/resolve-cache/models/{REPO}/{REVISION}/(?P<path>.+)"
TICKET = "(?P<ticket>[0-9a-f]{64})"
ROUTES = (
    Route("POST", f"{API}/preupload/{REVISION}", preupload, body="json"),
    Route("POST", rf"/{REPO}\.git/info/lfs/objects/batch", batch, body="lfs"),
    Route("POST", rf"/{REPO}\.git/info/lfs/objects/verify", verify, body="json"),
    Route("POST", f"/api/complete/{TICKET}", complete, body="lfs"),
    Route("POST", f"{API}/commit/{REVISION}", commit, body="ndjson"),
    Route("HEAD", RESOLVE, resolve),
    Route("GET", RESOLVE, resolve),
    Route("HEAD", CACHED, cached),
    Route("GET", CACHED, cached),
    Route("PUT", f"/upload/{TICKET}", put, frozenset({"part"}), body="bytes", host="cdn"),
    Route("GET", f"/{REPO}/(?P<oid>[0-9a-f]{{64}})", from_cdn, frozenset({"Signature"}), host="cdn"),
)

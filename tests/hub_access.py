"""Who may do what on the test Hub: users, organisations, tokens and their roles, private and gated repositories."""

import hashlib
from dataclasses import dataclass, field

from hub_http import Refusal, missing

ROLES = ("read", "write", "fineGrained")


@dataclass(frozen=True)
class Token:
    """A token: a fine-grained one reaches the named namespaces only, and writes there."""

    text: str = field(repr=False)
    user: str
    role: str
    namespaces: frozenset | None = None


@dataclass
class Accounts:
    """The users with their organisations, and the tokens that were given out."""

    orgs: dict = field(default_factory=dict)
    tokens: dict = field(default_factory=dict, repr=False)

    def add_user(self, name, *orgs):
        """Add a user, who is a member of the organisations."""
        self.orgs[name] = orgs

    def add_token(self, user, role="write", *, namespaces=None, text=None):
        """Give out a token, and return its text."""
        if role not in ROLES or user not in self.orgs or (role == "fineGrained") != (namespaces is not None):
            raise ValueError(f"no token for {user!r} with the role {role!r} and the namespaces {namespaces!r}")
        number = f"{user} {role} {len(self.tokens)}".encode()
        text = text or "hf_" + hashlib.sha256(number).hexdigest()[:34]
        self.tokens[text] = Token(text, user, role, None if namespaces is None else frozenset(namespaces))
        return text

    def revoke(self, text):
        """Make a token worthless."""
        del self.tokens[text]

    def caller(self, request):
        """Return the token of a request, or none if it has none."""
        given = request.headers.get("authorization")
        if given is None:
            return None
        scheme, _, text = given.partition(" ")
        if scheme != "Bearer" or text not in self.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.tokens[text]

    def reaches(self, token, namespace):
        """Return whether a token stands for a member of the namespace."""
        if token is None or namespace not in {token.user, *self.orgs[token.user]}:
            return False
        return token.namespaces is None or namespace in token.namespaces


def known(hub, request):
    """Return the token of a request that needs one."""
    token = hub.accounts.caller(request)
    if token is None:
        raise Refusal(401, "Invalid username or password.")
    return token


def readable(hub, request, name):
    """Return a repository that the caller may see; one that is private is no other than one that is missing."""
    token, repo = hub.accounts.caller(request), hub.repos.get(name)
    if repo is not None and (not repo.private or hub.accounts.reaches(token, repo.namespace)):
        return repo
    if token is None:
        raise Refusal(401, "Invalid username or password.", code="RepoNotFound")
    raise missing("RepoNotFound", "Repository not found")


def open_files(hub, request, name):
    """Return a repository whose files the caller may read: gated ones want a reader who was let in."""
    repo, token = readable(hub, request, name), hub.accounts.caller(request)
    if not repo.gated or hub.accounts.reaches(token, repo.namespace) or (token and token.user in repo.readers):
        return repo
    if token is None:
        message = f"Access to model {name} is restricted. You must be authenticated to access it. Please log in."
        raise Refusal(401, message, code="GatedRepo")
    raise missing("GatedRepo", f"Access to model {name} is restricted and you are not in the authorized list.")


def writable(hub, request, name):
    """Return a repository that the caller may write to, and who that is."""
    token = known(hub, request)
    repo = readable(hub, request, name)
    may_write(hub, token, repo.namespace)
    return repo, token.user


def may_write(hub, token, namespace):
    """Refuse a token that may not write to a namespace."""
    if token.role == "read":
        raise Refusal(403, "Forbidden: you must use a write token to upload to a repository")
    if not hub.accounts.reaches(token, namespace):
        raise Refusal(403, f'You don\'t have the rights to write to the namespace "{namespace}"')

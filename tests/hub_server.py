"""A Hub over loopback for the unchanged client: a model hub with its CDN, and a host that is neither.

`HubServer` owns what is on the Hub and the log of all requests. It is strict where the real one is, and answers what no
client sends with an error that it keeps in `surprises`. The CDN and the stranger are on another host name and another
port, so that a token which leaves the Hub shows in the log (`leaks`).

What it answers follows the client's source and measurements of it; nothing here was compared with the live Hub.
"""

import contextlib
import re
import secrets
import socket
import threading
import time
import traceback
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import hub_api
import hub_transfer
from hub_access import Accounts
from hub_faults import Faults
from hub_http import Refusal, Reply, Request, Surprise, answer, read_body
from hub_repos import ATTRIBUTES, START, Change, Repo

HOSTS = {"hub": "127.0.0.1", "cdn": "localhost", "stranger": "localhost"}
ROUTES = (*hub_api.ROUTES, *hub_transfer.ROUTES)
LARGE = 5 * 10**9  # bytes above which the real Hub asks for parts


class Clock:
    """Seconds that pass as they do, and at once if somebody only sleeps."""

    def __init__(self):
        self.skipped = 0.0

    def now(self):
        """Return the time."""
        return time.monotonic() + self.skipped

    def skip(self, seconds):
        """Let time pass."""
        self.skipped += seconds


class RateLimit:
    """So many requests in so many seconds."""

    def __init__(self, clock, quota, window):
        self.clock, self.quota, self.window = clock, quota, window
        self.ends, self.left = clock.now() + window, quota

    def count(self):
        """Count a request, and return the headers that say how many are left, and whether it was one too many."""
        if self.clock.now() >= self.ends:
            self.ends, self.left = self.clock.now() + self.window, self.quota
        spent, self.left = self.left == 0, max(self.left - 1, 0)
        seconds = max(int(self.ends - self.clock.now()), 0)
        policy = f'"fixed window";"api";q={self.quota};w={self.window}'
        return {"RateLimit": f'"api";r={self.left};t={seconds}', "RateLimit-Policy": policy}, spent


class Handler(BaseHTTPRequestHandler):
    """Reads requests and writes replies, and leaves what they say to the Hub."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_any(self):
        """Answer one request."""
        hub = self.server.hub
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if len(body) < size:  # the client went away
            self.close_connection = True
            return
        request = Request(self.server.role, self.command, self.path, dict(self.headers.items()), body)
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            hub.surprises.append(f"{request.method} {request.target}: a body without a length")
            return
        reply = hub.answer(request)
        if not reply.lost:
            self.write(request, reply)
        if reply.lost or reply.cut is not None:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = handle_any  # noqa: N815  http.server's

    def write(self, request, reply):
        """Write a reply, or as much of it as is to arrive."""
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if request.method != "HEAD":
            self.wfile.write(memoryview(reply.body)[: reply.cut])

    def log_message(self, *_words):
        """Say nothing: the Hub keeps the log."""


class Host(ThreadingHTTPServer):
    """One address; stops with all its connections and threads."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, hub, role):
        self.hub, self.role, self.open, self.over = hub, role, set(), False
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://{HOSTS[role]}:{self.server_address[1]}"
        self.loop = threading.Thread(target=self.serve, name=f"hub-{role}")

    def serve(self):
        """Take connections until one comes that only says that it is over."""
        while True:
            connection, address = self.get_request()
            if self.over:
                connection.close()
                return
            self.process_request(connection, address)

    def process_request(self, request, client_address):
        """Remember the connection."""
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        """Forget the connection."""
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Say nothing of clients that went away."""

    def stop(self):
        """Close the address, and whatever is open at it."""
        self.over = True
        socket.create_connection(self.server_address).close()
        self.loop.join()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class HubServer:
    """What is on the Hub, who may see it, what was asked, and what is to go wrong."""

    def __init__(self):
        self.lock, self.clock, self.secret = threading.RLock(), Clock(), secrets.token_bytes(32)
        self.accounts, self.faults = Accounts(), Faults()
        self.repos, self.blobs, self.uploads = {}, {}, {}
        self.requests, self.surprises = [], []
        self.models_a_page = self.files_a_page = 1000
        self.multipart_over, self.chunk = LARGE, 5 * 2**20
        self.resolve_cache, self.limit = False, None
        self.hosts = {role: Host(self, role) for role in HOSTS}
        self.endpoint, self.cdn, self.stranger = (self.hosts[role].url for role in HOSTS)

    def __enter__(self):
        for host in self.hosts.values():
            host.loop.start()
        return self

    def __exit__(self, *_exception):
        self.faults.clear()
        for host in self.hosts.values():
            host.stop()

    def repo(self, name, files=None, *, private=False, gated=False, by="somebody"):
        """Put a repository on the Hub, and return it; files of other suffixes than LFS's are regular."""
        with self.lock:
            created = START + timedelta(minutes=len(self.repos))
            made = Repo(name, self.blobs, private=private, gated=gated, created=created)
            first = {".gitattributes": made.store(ATTRIBUTES)}
            made.commit(Change(first), "initial commit", author=by)
            if files:
                self.add(made, files)
            self.repos[name] = made
            return made

    def add(self, repo, files, title="files", *, branch="main"):
        """Commit files to a repository without a request."""
        with self.lock:
            entries = {path: repo.store(content, path=path) for path, content in files.items()}
            return repo.commit(Change(entries), title, branch=branch)

    def rate_limit(self, quota, window):
        """Allow so many requests in so many seconds."""
        self.limit = RateLimit(self.clock, quota, window)

    def seen(self, method=None, path="", *, host=None):
        """Return the requests of a kind, in the order in which they came."""
        return [
            request for request in self.requests
            if method in {None, request.method} and host in {None, request.host} and re.search(path, request.path)
        ]  # fmt: skip

    def leaks(self, text):
        """Return the requests to hosts other than the Hub that have a text in them."""
        return [request for request in self.requests if request.host != "hub" and request.contains(text)]

    def forgive(self):
        """Return the surprises so far, and forget them: for tests that are about them."""
        found, self.surprises[:] = list(self.surprises), []
        return found

    def check(self):
        """Fail if anything came that no real client sends."""
        if self.surprises:
            raise AssertionError("what no real client sends: " + "; ".join(self.surprises))

    def answer(self, request):
        """Note a request, and return the reply to it with whatever goes wrong."""
        with self.lock:
            request.number = len(self.requests) + 1
            self.requests.append(request)
            request.faults = self.faults.strike(request)
        reply = None
        for fault in request.faults:
            reply = reply or fault.before(request)
        if reply is None:
            reply = self.handled(request)
            for fault in request.faults:
                reply = fault.after(request, reply)
        request.status = None if reply.lost else reply.status
        return reply

    def handled(self, request):
        """Return the reply to a request when nothing goes wrong."""
        with self.lock:
            headers, spent = self.limit.count() if self.limit and request.host == "hub" else ({}, False)
            try:
                reply = Refusal(429, "We had to rate limit you").reply() if spent else self.routed(request)
            except Refusal as refusal:
                reply = refusal.reply()
            except Surprise as surprise:
                self.surprises.append(f"{request.host} {request.method} {request.target}: {surprise}")
                reply = answer({"error": str(surprise)}, surprise.status)
            except Exception:  # noqa: BLE001  a mistake of the server's must fail the test, not the thread
                self.surprises.append(f"{request.host} {request.method} {request.target}: {traceback.format_exc()}")
                reply = answer({"error": "the test Hub failed"}, 418)
            reply.headers = {**reply.headers, **headers, "X-Request-Id": f"test-{request.number}"}
            return reply

    def routed(self, request):
        """Return what the route of a request answers."""
        if request.host != "hub" and "authorization" in request.headers:
            raise Surprise("a token was sent to another host")
        if request.host == "stranger":
            return Reply(404)
        routes = [route for route in ROUTES if route.host == request.host]
        found = [(route, match) for route in routes if (match := route.parts.fullmatch(request.path))]
        if not found:
            raise Surprise("no such call", 404)
        for route, match in found:
            if route.method == request.method:
                if unknown := sorted(set(request.query) - route.query):
                    raise Surprise(f"query parameters that no client sends: {', '.join(unknown)}")
                request.data = read_body(request, route.body)
                words = {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
                return route.call(self, request, **words)
        raise Surprise("no such method", 405)

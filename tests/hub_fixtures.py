"""Fixtures for tests against the Hub of `hub_server`: the server with its users, and the client kept to itself."""

import http.client
import os
import sys
import time
import warnings
from urllib.parse import urlsplit

import pytest
from hub_server import HubServer

NOWHERE = "http://127.0.0.1:9"  # what the client falls back to when somebody forgets the endpoint
SETTINGS = {
    "HF_ENDPOINT": NOWHERE,
    "HF_HUB_DISABLE_XET": "1",  # with Xet importable the client would never ask for LFS
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
}
DROPPED = ("HF_", "HUGGING", "TRANSFORMERS_", "DO_NOT_TRACK", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
CANARY = "hf_canary0123456789abcdefghijklmnopqrstu"


class Naps:
    """The module `time` for the client: sleeping takes no time, is counted, and moves the Hub's clock."""

    def __init__(self, clock):
        self.clock, self.seconds = clock, []

    def __getattr__(self, name):
        return getattr(time, name)

    def sleep(self, seconds):
        """Note how long the client would have slept."""
        self.seconds.append(seconds)
        self.clock.skip(seconds)


class Hub(HubServer):
    """The server with its usual users: `org` is the organisation of `owner`, to whom the canary token belongs."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.naps = folder, Naps(self.clock)
        self.accounts.add_user("owner", "org", "lab")
        self.accounts.add_user("reader")
        self.token = self.accounts.add_token("owner", text=CANARY)
        self.read_token = self.accounts.add_token("owner", "read")
        self.lab_token = self.accounts.add_token("owner", "fineGrained", namespaces={"lab"})
        self.other_token = self.accounts.add_token("reader")

    @property
    def cache(self):
        """The folder that the client downloads to."""
        return self.folder / "hub"

    def api(self, token=None):
        """Return a client of the Hub, with the token of the owner unless it gets another; False is none."""
        from huggingface_hub import HfApi

        token = self.token if token is None else token
        return HfApi(endpoint=self.endpoint, token=token, library_name="hydra-detect", library_version="0")

    def environment(self, token=None):
        """Return the environment for a process of its own that uses this Hub by default."""
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(DROPPED)}
        own = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.folder), **({"HF_TOKEN": token} if token else {})}
        return {**kept, **SETTINGS, **own}

    def raw(self, method, target, body=b"", *, url=None, token=True, **headers):
        """Send a request that no client sends, and return its status, headers and body."""
        host = urlsplit(url or self.endpoint)
        connection = http.client.HTTPConnection(host.hostname, host.port, timeout=30)
        own = {"Authorization": f"Bearer {self.token}"} if token else {}
        try:
            connection.request(method, target, body, {**own, **headers})
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()


def files_with(folder, text):
    """Return the files below a folder that have a text in them, or in their path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes() or text in str(path)]


def transport_error():
    """Return the class of the client's errors that are no answers: it has been of two libraries."""
    from huggingface_hub.utils import _http

    return (getattr(_http, "httpx2", None) or _http.httpx).TransportError


@pytest.fixture
def canary():
    """Return the token of the owner: it must be found at no other host, and in no file, log or error."""
    return CANARY


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a Hub of its own for the test; nothing that no real client sends may have come to it."""
    with Hub(tmp_path / "hf") as server:
        keep_apart(monkeypatch, server)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Use 'content=<\.\.\.>' to upload raw bytes", DeprecationWarning)
            yield server
    server.check()


def keep_apart(monkeypatch, server):
    """Give the client settings of its own, whatever the environment was when it was imported."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http

    for name in [name for name in os.environ if name.upper().startswith(DROPPED)]:
        monkeypatch.delenv(name)
    home = server.folder
    for name, value in {**SETTINGS, "HF_HOME": str(home), "HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    values = {
        "ENDPOINT": NOWHERE, "HUGGINGFACE_CO_URL_TEMPLATE": NOWHERE + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home), "HF_HUB_CACHE": str(server.cache), "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(home / "token"), "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "HF_XET_CACHE": str(home / "xet"), "HF_ASSETS_CACHE": str(home / "assets"),
        "HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_TELEMETRY": True, "HF_HUB_DISABLE_PROGRESS_BARS": True,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False, "HF_HUB_ETAG_TIMEOUT": 10, "HF_HUB_DOWNLOAD_TIMEOUT": 10,
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", True)
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", server.naps)

"""A git host on loopback, over https, as tests need one: honest, redirecting or slow."""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

SUBJECT = "/CN=git.example"


class GitHost:
    """Serves the repositories below `folder` as https://git.example:<port>/NAME/.git."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.redirect_to = ""
        self.asks_for = ""
        """USER:PASSWORD, without which nobody sees anything; empty: everybody does."""
        self.hold = threading.Event()
        self.hold.set()
        self.certificate = folder / "certificate.pem"
        key = folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", key, "-out", self.certificate, "-subj", SUBJECT, "-days", "2",
             "-addext", "subjectAltName=DNS:git.example"],
            check=True, capture_output=True,
        )  # fmt: skip
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host._answer(self)

            do_POST = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name: str) -> str:
        return f"https://git.example:{self.port}/{name}/.git"

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(request.path)
        self.hold.wait(30)
        if self.redirect_to:
            request.send_response(302)
            request.send_header("Location", self.redirect_to)
            request.end_headers()
            return
        shown = base64.b64encode(self.asks_for.encode()).decode()
        if self.asks_for and request.headers.get("Authorization") != f"Basic {shown}":
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        parts = urlsplit(request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        variables = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": parts.path, "QUERY_STRING": parts.query,
            "REQUEST_METHOD": request.command, "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_CONFIG_GLOBAL": str(self.folder / "gitconfig"),
        }  # fmt: skip
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=variables, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        status = 200
        headers = []
        for line in head.decode().splitlines():
            name, _, value = line.partition(": ")
            if name == "Status":
                status = int(value.split()[0])
            else:
                headers.append((name, value))
        request.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(content)))]:
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)


def git(folder: Path, *arguments: str) -> str:
    """Runs git in a repository, as nobody in particular."""
    done = subprocess.run(
        [shutil.which("git") or "git", "-C", str(folder), "-c", "user.name=T", "-c",
         "user.email=t@example.com", "-c", "commit.gpgsign=false", *arguments],
        check=True, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_GLOBAL": os.devnull,
             "GIT_ALLOW_PROTOCOL": "file"},
    )  # fmt: skip
    return done.stdout.strip()

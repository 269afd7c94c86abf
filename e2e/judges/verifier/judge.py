"""Asks a service through Envoy (gRPC and HTTP) and nginx, as docs/verifier configures them, with good and bad keys."""

import fcntl
import http.client
import http.server
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from keys import RECORDS, key

RAMPART, ENVOY, NGINX, DOCS = sys.argv[1:5]
SPOOFED = {"X-ApiKey-Id": "mallory0", "X-ApiKey-Owner": "mallory", "X-ApiKey-Role": "Admin", "X-ApiKey-Scopes": "*",
           "X-Rampart-Audience": "payments-api", "X-Rampart-Source": "198.51.100.1", "X-Original-Method": "GET",
           "X-Forwarded-Method": "GET"}
OVERRIDES = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE", "X-HTTP-Method": "DELETE"}


class Service(http.server.BaseHTTPRequestHandler):
    """Says which headers reached it."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        body = json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass


CLAIMS = pathlib.Path(tempfile.gettempdir()) / f"rampart-e2e-{os.getuid()}" / "ports"
claims = []


def free_port():
    """Claimed until this ends, as e2e/src/ports.rs does it, below the range of outgoing connections: nobody takes it meanwhile."""
    CLAIMS.mkdir(parents=True, exist_ok=True)
    for number in range(20_000, 32_000):
        claim = open(CLAIMS / str(number), "a")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", number))
        except OSError:
            claim.close()
            continue
        claims.append(claim)
        return number
    raise SystemExit("no port is free")


class Verifier:
    def __init__(self, home):
        self.grpc, self.http, self.admin = free_port(), free_port(), free_port()
        self.home, self.process = home, None
        (home / "records.jsonl").write_text("\n".join(RECORDS) + "\n")

    def start(self):
        flags = ["--index", self.home / "records.jsonl", "--grpc-address", f"127.0.0.1:{self.grpc}",
                 "--http-address", f"127.0.0.1:{self.http}", "--admin-address", f"127.0.0.1:{self.admin}",
                 "--shutdown-delay", "0s", "--log-format", "json"]
        self.log = open(self.home / "verifier.log", "ab")
        self.process = subprocess.Popen([RAMPART, "verifier", *map(str, flags)], stdout=self.log, stderr=self.log)
        for port in (self.grpc, self.http):
            until_open(port)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def until_open(port):
    for _ in deadline(20):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nobody listens on port {port}")


def deadline(seconds):
    end = time.monotonic() + seconds
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count())


def front(name, home, verifier, service):
    """Starts a proxy with the documented configuration; only addresses are put in."""
    port = free_port()
    text = (pathlib.Path(DOCS) / name).read_text()
    for shown, true in [("0.0.0.0", "127.0.0.1"), ("8080", str(port)),
                        ("rampart-verifier.rampart-system, port_value: 9001", f"127.0.0.1, port_value: {verifier.grpc}"),
                        ("rampart-verifier.rampart-system, port_value: 9002", f"127.0.0.1, port_value: {verifier.http}"),
                        ("rampart-verifier.rampart-system:9002", f"127.0.0.1:{verifier.http}"),
                        ("orders.shop, port_value: 8000", f"127.0.0.1, port_value: {service}"),
                        ("orders.shop:8000", f"127.0.0.1:{service}")]:
        text = text.replace(shown, true)
    assert "shop" not in text and "rampart-system" not in text, text
    config = home / name
    if name == "nginx.conf":
        text = f"pid {home}/nginx.pid;\nerror_log {home}/nginx-error.log;\n" + text.replace(
            "http {", f"http {{\n access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; "
            f"fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n")
        command = [NGINX, "-c", config, "-g", "daemon off;", "-p", home]
    else:
        command = [ENVOY, "-c", config, "--log-level", "error", "--base-id", str(port), "--concurrency", "1"]
    config.write_text(text)
    log = open(home / f"{name}.log", "wb")
    process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
    until_open(port)
    return port, process


numbers = itertools.count(2)


def fresh_source():
    """An address that nobody called from."""
    number = next(numbers)
    return f"127.0.{number // 256}.{number % 256}"


def ask(port, headers, method="GET", path="/orders", source=None):
    """One call; each from an address of its own, so that guesses of one are not held against another."""
    source = source or fresh_source()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(source, 0))
    connection.putrequest(method, path)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body


def bearer(id):
    return [("Authorization", f"Bearer {key(id)}")]


class Judge:
    def __init__(self, name, port):
        self.name, self.port, self.wrong, self.checks = name, port, [], 0

    def check(self, what, holds, seen):
        self.checks += 1
        if not holds:
            self.wrong.append(f"{self.name}: {what}: {seen}")

    def status(self, what, wanted, headers, **call):
        status, got, body = ask(self.port, headers, **call)
        self.check(what, status in wanted, (status, got, body[:300]))
        return status, got, body

    def good(self):
        for headers in (bearer("good0000"), [("X-API-Key", key("good0000"))]):
            _, got, body = self.status("a good key", {200}, headers + list({**SPOOFED, **OVERRIDES}.items()))
            reached = json.loads(body) if body.startswith(b"[") else []
            identity = {name: value for name, value in reached if name.startswith("x-apikey-")}
            wanted = {"x-apikey-id": "good0000", "x-apikey-owner": "shop", "x-apikey-role": "Editor",
                      "x-apikey-scopes": "read write orders.read"}
            self.check("identity is the verifier's, once", identity == wanted and
                       sum(name.startswith("x-apikey-") for name, _ in reached) == 4, reached)
            others = {name.lower() for name in OVERRIDES} & {name for name, _ in reached}
            self.check("no other method goes further", reached and not others, reached)
            self.check("the key goes no further", key("good0000") not in body.decode(), reached)
            self.check("rates are told", re.fullmatch(r'"[a-z]+";r=\d+;t=\d+', got.get("ratelimit", "")), got)
            self.check("and the policy", '"second";q=1000;w=1' in got.get("ratelimit-policy", ""), got)
        self.status("a write", {200}, bearer("good0000"), method="POST")

    def bad(self):
        challenged = lambda got, word: word in got.get("www-authenticate", "")
        _, got, _ = self.status("no key", {401}, [])
        self.check("is told the scheme alone", challenged(got, "Bearer") and not challenged(got, "error"), got)
        for what, headers in {
            "unknown": bearer("unknown0"), "expired": bearer("expired0"), "revoked": bearer("revoked0"),
            "suspended": bearer("suspend0"), "cut": [("X-API-Key", key("good0000")[:-1])],
            "sent twice": bearer("good0000") * 2, "two that differ": bearer("good0000") + [("X-API-Key", key("other000"))],
        }.items():
            # nginx itself refuses a header that comes twice.
            allowed = {401, 400} if what == "sent twice" and self.name == "nginx.conf" else {401}
            status, got, body = self.status(what, allowed, headers)
            if status == 400:
                continue
            self.check(f"{what}: invalid_token", challenged(got, 'error="invalid_token"'), got)
            self.check(f"{what}: no key in the answer", b"acme_live_" not in body, body)
        self.status("20 kB", {401, 400, 431}, [("Authorization", "Bearer " + "a" * 20_000)])
        self.status("wrong service", {403}, bearer("foreign0"))
        self.status("wrong verb", {403}, bearer("good0000"), method="DELETE")
        self.status("wrong verb, and headers that say otherwise", {403}, bearer("good0000") + list(SPOOFED.items()),
                    method="DELETE")

    def limited(self, id):
        statuses = [self.status("within the rate", {200}, bearer(id))[0] for _ in range(2)]
        _, got, _ = self.status(f"above the rate, after {statuses}", {429}, bearer(id))
        self.check("when to try again", got.get("retry-after", "").isdigit(), got)
        # A second gives a call back after half of it, and the burst after five: by now they may have one.
        left = dict(re.findall(r'"([a-z]+)";r=(\d+);', got.get("ratelimit", "")))
        self.check("which windows", set(left) == {"second", "burst", "minute", "hour", "day"} and
                   {left[name] for name in ("minute", "hour", "day")} == {"0"}, got)

    def guessing(self):
        source = fresh_source()
        seen = []
        # Six guesses hold the address to one a second; eleven shut it out.
        for _ in deadline(60):
            seen.append(ask(self.port, bearer("unknown0"), source=source)[0])
            if seen.count(401) == 11:
                break
            if seen[-1] == 429:
                time.sleep(0.1)
        status = ask(self.port, bearer("good0000"), source=source)[0]
        self.check("who guessed is shut out", status == 429 and seen.count(401) == 11, (status, seen))
        self.status("and nobody else", {200}, bearer("good0000"))

    def down(self, verifier):
        verifier.stop()
        _, got, _ = self.status("without the verifier", {503}, bearer("good0000"))
        verifier.start()
        for _ in deadline(20):
            if ask(self.port, bearer("good0000"))[0] == 200:
                return
            time.sleep(0.05)
        self.check("once it is back", False, ask(self.port, bearer("good0000")))


def judge(name, limited, home, verifier, service):
    port, process = front(name, home, verifier, service)
    it = Judge(name, port)
    try:
        it.good()
        it.bad()
        it.limited(limited)
        if name == "envoy-grpc.yaml":
            it.status("a route's permission", {403}, bearer("good0000"), path="/exports")
            it.status("and who has it", {200}, bearer("exports0"), path="/exports")
        if name != "nginx.conf":
            _, got, _ = it.status("a replaced key", {200}, bearer("replaced"))
            it.check("is told its end", got.get("sunset", "").endswith("2126 00:00:00 GMT") and "deprecation" in got, got)
        it.guessing()
        it.down(verifier)
    finally:
        process.terminate()
        process.wait(20)
    print(f"{name}: {it.checks} checks, {len(it.wrong)} wrong")
    return it.wrong


def main():
    with tempfile.TemporaryDirectory(prefix="rampart-verifier-") as home:
        home = pathlib.Path(home)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        verifier = Verifier(home)
        verifier.start()
        wrong = []
        try:
            for name, limited in [("envoy-grpc.yaml", "limited0"), ("envoy-http.yaml", "limited1"), ("nginx.conf", "limited2")]:
                wrong += judge(name, limited, home, verifier, server.server_address[1])
        finally:
            verifier.stop()
        log = (home / "verifier.log").read_text()
        if "acme_live_" in log:
            wrong.append("a key is in the log")
        if wrong:
            print("\n".join(wrong))
            print(log[-3000:])
        return 1 if wrong else 0


sys.exit(main())

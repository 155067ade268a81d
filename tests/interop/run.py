"""Stock STOMP clients against the real broker, with restarts in the middle.

Usage: run.py [--program FILE] [--clients LIST] [--shards N] [--address HOST:PORT]
Starts `PROGRAM serve`, runs every client's checks and the raw ones below, then for each client:
messages are left in all states, the broker is ended by SIGTERM or SIGKILL, started again, and the
client looks for what must be there. `--address` tries the checks on another broker that runs
already (STOMP_LOGIN, STOMP_PASSCODE, STOMP_VHOST) and leaves the restarts out.
A check that a client cannot express is a line `cannot CLIENT VERSION CHECK: why` of it and is counted.
Needs only Python; the clients come from .venv, node_modules and debian (tools/test.sh installs
them).
Exit status: 0 all passed, 1 something failed.
"""

import argparse
import os
import pathlib
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "interop"
DEBIAN = HERE / "debian" / "usr"
CLIENTS = {
    "stomp.py": [str(ROOT / ".venv/bin/python"), str(HERE / "stomp_py.py")],
    "stomp.py-ws": [str(ROOT / ".venv/bin/python"), str(HERE / "stomp_py.py"), "--websocket"],
    "stompit": ["node", str(HERE / "checks.mjs"), "stompit"],
    "stompjs": ["node", str(HERE / "checks.mjs"), "stompjs"],
    "stompjs-ws": ["node", str(HERE / "checks.mjs"), "stompjs-ws"],
    "stomp-gem": ["ruby", "-I", str(DEBIAN / "lib/ruby/vendor_ruby"), str(HERE / "stomp_gem.rb")],
    "net-stomp": ["perl", "-I", str(DEBIAN / "share/perl5"), str(HERE / "net_stomp.pl")],
}
# Small segments: restarts cross rotations. Short heart-beats: several intervals fit in a check.
CONFIG = '[journal]\nsegment_size = "4MiB"\n[stomp]\nheart_beat_ms = [500, 500]\n'
READY_S = 60
CLIENT_S = 300


class Broker:
    """The broker's process; keeps its port over restarts."""

    def __init__(self, program, shards):
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        (WORK / "forebay.toml").write_text(CONFIG)
        self.command = [program, "serve", "--shards", str(shards)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.process = None

    def start(self):
        command = [*self.command, "--config", str(WORK / "forebay.toml")]
        command += ["--data", str(WORK / "data"), "--stomp", self.address]
        log = open(WORK / "broker.log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        log.close()
        if not wait_line(self.process, b"ready", READY_S):
            self.process.kill()
            tail = (WORK / "broker.log").read_text(errors="replace")[-3000:]
            sys.exit(f"FAIL the broker did not say `ready` ({self.process.wait()}); log:\n{tail}")

    def end(self, how):
        self.process.send_signal(how)
        code = self.process.wait(timeout=60)
        if how == signal.SIGTERM and code != 0:
            return f"a clean stop ended with {code}"
        return None


def wait_line(process, beginning, seconds):
    """Reads lines of a process until one begins so; False at its end or when time is over."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = b""
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                return False
            byte = os.read(process.stdout.fileno(), 1)
            if not byte:
                return False
            line = b"" if byte == b"\n" else line + byte
            if byte == b"\n":
                continue
            if line == beginning:
                rest = b""
                while byte and byte != b"\n":
                    byte = os.read(process.stdout.fileno(), 1)
                    rest += byte
                return True
    return False


# ---- raw sockets: what stock clients cannot send -------------------------------------------------


class Raw:
    """A socket and what came over it."""

    def __init__(self, address, connect=b"CONNECT\naccept-version:1.2\nhost:/\n%s\n\0"):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.received = b""
        login = os.environ.get("STOMP_LOGIN")
        extra = f"login:{login}\npasscode:{os.environ['STOMP_PASSCODE']}\n" if login else ""
        if connect:
            self.send(connect % extra.encode())
            if not self.until(b"\0").lstrip().startswith(b"CONNECTED"):
                raise AssertionError(f"instead of CONNECTED: {self.received[:200]!r}")
            self.received = b""

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # the broker may close while we still write; what it said is read below

    def until(self, mark):
        while mark not in self.received:
            part = self.socket.recv(65536)
            if not part:
                break
            self.received += part
        return self.received

    def to_end(self):
        """All until the broker closes; a timeout is an error."""
        try:
            while part := self.socket.recv(65536):
                self.received += part
        except ConnectionResetError:
            pass  # closed with our bytes unread: still closed
        return self.received


BAD = {
    "unknown command": b"NONSENSE\n\n\0",
    "SEND without destination": b"SEND\n\nx\0",
    "undefined escape": b"SEND\ndestination:/queue/raw\nbad:a\\tb\n\nx\0",
    "header without colon": b"SEND\ndestination:/queue/raw\nnonsense\n\nx\0",
    "content-length of no number": b"SEND\ndestination:/queue/raw\ncontent-length:ten\n\nx\0",
    "content-length beyond the limit": b"SEND\ndestination:/queue/raw\ncontent-length:99999999999\n\n",
    "no NUL behind the body": b"SEND\ndestination:/queue/raw\ncontent-length:1\n\nxy\0",
    "SUBSCRIBE without id": b"SUBSCRIBE\ndestination:/queue/raw\n\n\0",
    "header line without end": b"SEND\nx:" + b"y" * 400_000,
}


def bad_frame(address, data):
    neighbour = Raw(address)
    victim = Raw(address)
    victim.send(data)
    answer = victim.to_end()
    assert answer.lstrip().startswith(b"ERROR"), f"instead of ERROR: {answer[:200]!r}"
    neighbour.send(b"SEND\ndestination:/topic/raw\nreceipt:alive\n\nx\0")
    assert b"receipt-id:alive" in neighbour.until(b"\0"), "the neighbour is disturbed"


def not_stomp(address):
    client = Raw(address, connect=b"")
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\0")
    client.to_end()


def no_common_version(address):
    client = Raw(address, connect=b"")
    client.send(b"CONNECT\naccept-version:9.9\nhost:/\n\n\0")
    answer = client.to_end()
    assert answer.lstrip().startswith(b"ERROR"), f"{answer[:200]!r}"


def silent_client_is_dropped(address):
    """Promises heart-beats and sends none: the broker ends the connection (STOMP 1.2, Heart-beating)."""
    client = Raw(address, b"CONNECT\naccept-version:1.2\nhost:/\nheart-beat:500,500\n%s\n\0")
    start = time.monotonic()
    client.to_end()
    elapsed = time.monotonic() - start
    assert elapsed > 0.5, f"dropped after {elapsed:.2f} s, before one interval was over"
    beats = client.received.count(b"\n")
    assert beats >= 1, "the broker sent no heart-beat of its own"


def raw_checks(address):
    checks = {f"bad frame: {name}": (bad_frame, data) for name, data in BAD.items()}
    checks |= {
        "bytes of another protocol": (not_stomp,),
        "no common version": (no_common_version,),
        "a silent client is dropped": (silent_client_is_dropped,),
    }
    failed = 0
    for name, (function, *arguments) in checks.items():
        try:
            function(address, *arguments)
        except Exception as why:  # every failure is named, the others go on
            failed += 1
            print(f"FAIL raw {name}: {type(why).__name__}: {why}", flush=True)
        else:
            print(f"ok   raw {name}", flush=True)
    return len(checks), failed, 0


# ---- clients -------------------------------------------------------------------------------------


def run_client(name, address, *arguments):
    """Runs a client to its end, its lines passed on; gives (checks, failures, inexpressible)."""
    command = [*CLIENTS[name], address, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=CLIENT_S, check=False)
    except subprocess.TimeoutExpired as late:
        print((late.stdout or b"").decode(errors="replace"), end="")
        print(f"FAIL {name} {arguments[0]}: not done after {CLIENT_S} s")
        return 1, 1, 0
    lines = done.stdout.decode(errors="replace").splitlines()
    for line in lines:
        if not line.startswith("passed "):
            print(line, flush=True)
    passed = sum(line.startswith("ok ") for line in lines)
    failed = sum(line.startswith("FAIL ") for line in lines)
    cannot = sum(line.startswith("cannot ") for line in lines)
    if arguments[0] == "resume":
        passed = sum(line.startswith("passed 1 ") for line in lines)
    if done.returncode != 0 and failed == 0 or passed + failed == 0:
        print(f"FAIL {name} {arguments[0]}: exit {done.returncode}\n{done.stderr.decode()[-2000:]}")
        failed += 1
    return passed + failed, failed, cannot


def restart(name, broker, how):
    """Leaves messages behind, ends the broker, starts it again and looks for them."""
    run = f"{how.name}-{os.getpid()}"
    command = [*CLIENTS[name], broker.address, "hold", run]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    is_holding = wait_line(holder, b"holding", CLIENT_S)
    why = broker.end(how) if is_holding else "the client did not come to hold messages"
    if not is_holding:
        holder.kill()
        print(holder.stdout.read().decode(errors="replace"))
        broker.end(signal.SIGKILL)
    broker.start()
    holder.stdout.close()
    holder.wait(timeout=90)
    if why:
        print(f"FAIL {name} restart by {how.name}: {why}")
        return 1, 1, 0
    counts = run_client(name, broker.address, "resume", run)
    if not counts[1]:
        print(f"ok   {name} restart by {how.name}", flush=True)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=str(ROOT / "target/release/forebay"))
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--address", help="another broker that runs already")
    given = parser.parse_args()
    names = [name for name in given.clients.split(",") if name]
    broker = None
    if not given.address:
        broker = Broker(given.program, given.shards)
        broker.start()
    address = given.address or broker.address
    totals = {"raw": raw_checks(address)}
    for name in names:
        totals[name] = run_client(name, address, "check")
        if broker:
            for how in (signal.SIGTERM, signal.SIGKILL):
                counts = restart(name, broker, how)
                totals[name] = tuple(map(sum, zip(totals[name], counts)))
    if broker and (why := broker.end(signal.SIGTERM)):
        print(f"FAIL at the end: {why}")
        totals["stop"] = (1, 1, 0)
    for name, (checks, failed, cannot) in totals.items():
        also = f", {cannot} it cannot express" if cannot else ""
        print(f"interop {name}: {checks} checks, {failed} failed{also}")
    is_failed = any(failed for _, failed, _ in totals.values())
    if is_failed and broker:
        # The next run empties the folder.
        print(f"the broker's log:\n{(WORK / 'broker.log').read_text(errors='replace')}")
    return 1 if is_failed else 0


if __name__ == "__main__":
    sys.exit(main())

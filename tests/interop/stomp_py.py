"""What is expected of any STOMP broker we would use, through stomp.py.

Usage: stomp_py.py [--websocket] HOST:PORT check | hold RUN | resume RUN
`check` prints one line per check (which versions have it: the table CHECKS) and ends with `passed N failed M`. `hold` leaves messages behind
and waits for the broker to die; `resume` looks for them.
"""

import functools
import itertools
import os
import queue
import socket
import sys
import time

import stomp

TIMEOUT_S = 20.0
"""Longest wait for something that must come."""
SILENCE_S = 0.7
"""How long nothing must come where nothing is allowed to. A wait that ends early fails, never passes."""
HEART_BEAT_MS = 500
DURABLE = ("activemq.subscriptionName", "durable-subscription-name")
"""Headers that name a durable subscription, of ActiveMQ and of Artemis."""

LOGIN = os.environ.get("STOMP_LOGIN")
PASSCODE = os.environ.get("STOMP_PASSCODE")
VHOST = os.environ.get("STOMP_VHOST")
RUN = os.environ.get("STOMP_RUN", str(os.getpid()))
KINDS = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}
COUNTER = itertools.count(1)
OVER_WEBSOCKET = "--websocket" in sys.argv
if OVER_WEBSOCKET:
    # It has a class for 1.2 only. Bodies of these checks are bytes, and would go as text else.
    sys.argv.remove("--websocket")
    KINDS = {"1.2": functools.partial(stomp.WSStompConnection, binary_mode=True)}
NAME = "stomp.py over WebSocket" if OVER_WEBSOCKET else "stomp.py"


class Failure(Exception):
    """A check that does not hold."""


def expect(condition, text):
    if not condition:
        raise Failure(text)


class Inbox(stomp.ConnectionListener):
    """Sorts what comes into queues: messages by subscription, receipts, errors."""

    def __init__(self):
        self.connected = {}
        self.messages = {}
        self.receipts = queue.Queue()
        self.errors = queue.Queue()
        self.ended = queue.Queue()
        self.beats = 0

    def on_connected(self, frame):
        self.connected = dict(frame.headers)

    def on_message(self, frame):
        key = frame.headers.get("subscription", frame.headers["destination"])
        self.messages.setdefault(key, queue.Queue()).put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])

    def on_error(self, frame):
        self.errors.put(frame)

    def on_heartbeat(self):
        self.beats += 1

    def on_disconnected(self):
        self.ended.put(True)


class Client:
    """One connection, with waits that name what did not come."""

    def __init__(self, address, version="1.2", heart_beats=(0, 0), client_id=None):
        host, port = address.rsplit(":", 1)
        kind = KINDS[version]
        options = {"auto_decode": False, "reconnect_attempts_max": 1}
        if VHOST and version != "1.0":
            options["vhost"] = VHOST
        if version != "1.0":
            options["heartbeats"] = heart_beats
        self.version = version
        self.connection = kind([(host, int(port))], **options)
        self.inbox = Inbox()
        self.connection.set_listener("inbox", self.inbox)
        headers = {"client-id": client_id} if client_id else {}
        self.connection.connect(LOGIN, PASSCODE, wait=True, headers=headers)
        expect(self.inbox.connected, "no CONNECTED")

    def send(self, address, body, **headers):
        """Sends and waits for the receipt."""
        receipt = f"s{next(COUNTER)}"
        extra = {"persistent": "true", "receipt": receipt} | headers
        self.connection.send(address, body, headers=extra)
        self.wait_receipt(receipt)

    def wait_receipt(self, receipt):
        try:
            got = self.inbox.receipts.get(timeout=TIMEOUT_S)
        except queue.Empty:
            error = "" if self.inbox.errors.empty() else f": {self.inbox.errors.get()}"
            raise Failure(f"no receipt {receipt}{error}") from None
        expect(got == receipt, f"receipt {got} instead of {receipt}")

    def subscribe(self, address, ack="auto", prefetch=None, durable=None, selector=None):
        name = f"sub{next(COUNTER)}"
        receipt = f"b{name}"
        headers = {"receipt": receipt}
        if selector:
            headers["selector"] = selector
        if prefetch:
            headers |= {"activemq.prefetchSize": str(prefetch), "prefetch-count": str(prefetch)}
        if durable:
            headers |= dict.fromkeys(DURABLE, durable)
        # A 1.0 broker need not name the subscription in MESSAGE: then the destination is the key.
        self.inbox.messages.setdefault(name, queue.Queue())
        self.connection.subscribe(address, id=name, ack=ack, headers=headers)
        self.wait_receipt(receipt)
        return name

    def receive(self, subscription):
        try:
            return self.inbox.messages[subscription].get(timeout=TIMEOUT_S)
        except queue.Empty:
            error = "" if self.inbox.errors.empty() else f": {self.inbox.errors.get()}"
            raise Failure(f"no message{error}") from None

    def receive_nothing(self, subscription):
        try:
            frame = self.inbox.messages[subscription].get(timeout=SILENCE_S)
        except queue.Empty:
            return
        raise Failure(f"unexpected message {frame.body[:40]!r} {frame.headers}")

    def end_transaction(self, transaction, verb):
        """COMMIT or ABORT with receipt."""
        receipt = f"{verb}{next(COUNTER)}"
        getattr(self.connection, verb)(transaction, headers={"receipt": receipt})
        self.wait_receipt(receipt)

    def settle(self, frame, verb="ack", **words):
        """ACK or NACK with receipt, in the words of the version."""
        receipt = f"{verb}{next(COUNTER)}"
        act = getattr(self.connection, verb)
        if self.version == "1.2":
            act(frame.headers["ack"], receipt=receipt, **words)
        elif self.version == "1.1":
            subscription = frame.headers["subscription"]
            act(frame.headers["message-id"], subscription, receipt=receipt, **words)
        else:
            act(frame.headers["message-id"], receipt=receipt, **words)
        self.wait_receipt(receipt)

    def unsubscribe(self, subscription, durable=None):
        receipt = f"u{subscription}"
        headers = dict.fromkeys(DURABLE, durable) if durable else {}
        self.connection.unsubscribe(id=subscription, receipt=receipt, headers=headers)
        self.wait_receipt(receipt)

    def close(self):
        """DISCONNECT with receipt, which must come."""
        receipt = f"d{next(COUNTER)}"
        self.connection.disconnect(receipt=receipt)
        self.wait_receipt(receipt)

    def drop(self):
        """Ends the connection without a word."""
        if OVER_WEBSOCKET:
            # It closes the descriptor that its other thread reads from: the kernel sends nothing.
            self.connection.transport.socket.sock.shutdown(socket.SHUT_RDWR)
        self.connection.transport.disconnect_socket()


def fresh(kind="queue"):
    return f"/{kind}/py-{RUN}-{next(COUNTER)}"


def body_of(text):
    return text.encode()


def is_again(frame):
    return frame.headers.get("redelivered") == "true"


def bodies(count):
    return [f"message {index}".encode() for index in range(count)]


# ---- checks: each takes the address and a version ------------------------------------------------


def version_is_negotiated(address, version):
    client = Client(address, version)
    got = client.inbox.connected.get("version", "1.0")
    expect(got == version, f"CONNECTED says {got}")
    client.close()


def bodies_come_back_byte_for_byte(address, version):
    every_byte = bytes(range(256)) * 5
    cases = {
        "text": b"hello",
        "empty": b"",
        "UTF-8": "gr\u00fc\u00dfe \u2603 \U0001f600".encode(),
        "NULs": b"\0a\0\0b\0",
        "line ends": b"\r\n\n\r",
        "every byte": every_byte,
        "1 MiB": os.urandom(1 << 20),
    }
    if version == "1.2":
        cases["10 MiB"] = os.urandom(10 << 20)
    client = Client(address, version)
    where = fresh()
    subscription = client.subscribe(where)
    for name, body in cases.items():
        client.send(where, body)
        got = client.receive(subscription)
        same = (got.body or b"") == body
        expect(same, f"{name}: {len(got.body or b'')} other bytes instead of {len(body)}")
        if body:
            length = got.headers.get("content-length")
            expect(length in (None, str(len(body))), f"{name}: content-length {length}")
    client.close()


def volatile_messages_pass_too(address, version):
    client = Client(address, version)
    where = fresh()
    subscription = client.subscribe(where)
    client.send(where, b"volatile", persistent="false")
    expect(client.receive(subscription).body == b"volatile", "another body")
    client.close()


def headers_round_trip(address, version):
    values = {"colon": "a:b:c", "lines": "one\ntwo", "slash": "back\\slash \\n", "utf": "\u00e9\u2603"}
    if version == "1.2":
        values["return"] = "a\rb"
    values["key:with colon"] = "x"
    client = Client(address, version)
    where = fresh()
    subscription = client.subscribe(where)
    # stomp.py escapes values only; keys with a colon need it done by hand.
    sent = {key.replace(":", "\\c"): value for key, value in values.items()}
    client.send(where, b"x", **sent)
    got = client.receive(subscription)
    for key, value in values.items():
        expect(got.headers.get(key) == value, f"{key!r}: {got.headers.get(key)!r} not {value!r}")
    client.close()


def auto_takes_messages_out(address, version):
    client = Client(address, version)
    where = fresh()
    for body in bodies(10):
        client.send(where, body)
    subscription = client.subscribe(where)
    for body in bodies(10):
        expect(client.receive(subscription).body == body, "not in order")
    client.close()
    client = Client(address, version)
    client.receive_nothing(client.subscribe(where))
    client.close()


def client_mode_is_cumulative(address, version):
    client = Client(address, version)
    where = fresh()
    for body in bodies(10):
        client.send(where, body)
    subscription = client.subscribe(where, ack="client")
    frames = [client.receive(subscription) for _ in range(10)]
    expect(not any(is_again(frame) for frame in frames), "redelivered at first delivery")
    client.settle(frames[5])
    client.drop()
    client = Client(address, version)
    subscription = client.subscribe(where, ack="client")
    for body in bodies(10)[6:]:
        frame = client.receive(subscription)
        expect(frame.body == body, f"{frame.body!r} instead of {body!r}")
        expect(is_again(frame), f"{body!r} came again without redelivered:true")
    client.settle(frame)
    client.receive_nothing(subscription)
    client.close()


def individual_mode_settles_one(address, version):
    client = Client(address, version)
    where = fresh()
    for body in bodies(10):
        client.send(where, body)
    subscription = client.subscribe(where, ack="client-individual")
    frames = [client.receive(subscription) for _ in range(10)]
    for frame in frames[1::2]:
        client.settle(frame)
    client.drop()
    client = Client(address, version)
    subscription = client.subscribe(where, ack="client-individual")
    for body in bodies(10)[0::2]:
        frame = client.receive(subscription)
        expect(frame.body == body and is_again(frame), f"{frame.body!r} {frame.headers}")
        client.settle(frame)
    client.receive_nothing(subscription)
    client.close()


def nack_brings_it_back(address, version):
    client = Client(address, version)
    where = fresh()
    client.send(where, b"refused once")
    subscription = client.subscribe(where, ack="client-individual")
    first = client.receive(subscription)
    expect(not is_again(first), "redelivered at first delivery")
    client.settle(first, "nack")
    second = client.receive(subscription)
    expect(second.body == b"refused once" and is_again(second), f"{second.headers}")
    client.settle(second)
    client.receive_nothing(subscription)
    client.close()


def transactions_count_whole_or_not_at_all(address, version):
    client, reader = Client(address, version), Client(address, version)
    places = [fresh() for _ in range(4)]
    subscriptions = [reader.subscribe(place, ack="client") for place in places]
    for verb in ("abort", "commit"):
        transaction = client.connection.begin()
        for place in places:
            client.send(place, verb.encode(), transaction=transaction)
        reader.receive_nothing(subscriptions[0])
        client.end_transaction(transaction, verb)
    frames = [reader.receive(subscription) for subscription in subscriptions]
    expect({frame.body for frame in frames} == {b"commit"}, "what was rolled back came")
    for verb in ("abort", "commit"):
        transaction = reader.connection.begin()
        for frame in frames:
            reader.settle(frame, transaction=transaction)
        reader.end_transaction(transaction, verb)
    reader.drop()
    client.receive_nothing(client.subscribe(places[0]))
    client.close()


def consumers_compete(address, version):
    where = fresh()
    ack = "client" if version == "1.0" else "client-individual"
    consumers = [Client(address, version) for _ in range(2)]
    subscriptions = [consumer.subscribe(where, ack, prefetch=1) for consumer in consumers]
    producer = Client(address, version)
    for body in bodies(40):
        producer.send(where, body)
    seen = [[], []]
    while sum(map(len, seen)) < 40:
        for index, consumer in enumerate(consumers):
            frame = consumer.receive(subscriptions[index])
            seen[index].append(frame.body)
            consumer.settle(frame)
            if sum(map(len, seen)) == 40:
                break
    expect(sorted(seen[0] + seen[1]) == sorted(bodies(40)), "not each exactly once")
    for consumer, subscription in zip(consumers, subscriptions):
        consumer.receive_nothing(subscription)
    for client in (*consumers, producer):
        client.close()


def topics_reach_everybody_who_is_there(address, version):
    where = fresh("topic")
    listeners = [Client(address, version) for _ in range(2)]
    subscriptions = [listener.subscribe(where) for listener in listeners]
    producer = Client(address, version)
    for body in bodies(20):
        producer.send(where, body)
    for listener, subscription in zip(listeners, subscriptions):
        for body in bodies(20):
            got = listener.receive(subscription).body
            expect(got == body, f"{got!r} instead of {body!r}")
    late = Client(address, version)
    late.receive_nothing(late.subscribe(where))
    for client in (*listeners, producer, late):
        client.close()


def durable_subscriptions_collect_until_told_to_go(address, version):
    where, name = fresh("topic"), f"d{next(COUNTER)}"
    whose = f"py-{RUN}-{name}"
    client = Client(address, version, client_id=whose)
    client.subscribe(where, durable=name)
    client.close()
    producer = Client(address, version)
    for body in bodies(10):
        producer.send(where, body)
    for left in (10, 0):
        client = Client(address, version, client_id=whose)
        subscription = client.subscribe(where, durable=name)
        for body in bodies(left):
            got = client.receive(subscription).body
            expect(got == body, f"{got!r} instead of {body!r}")
        client.receive_nothing(subscription)
        if left:
            client.close()
    client.unsubscribe(subscription, durable=name)
    producer.send(where, b"nobody")
    client.receive_nothing(client.subscribe(where, durable=name))
    client.close()
    producer.close()


def selectors_choose_messages(address, version):
    for kind in ("topic", "queue"):
        where = fresh(kind)
        heavy, blue = Client(address, version), Client(address, version)
        of_heavy = heavy.subscribe(where, selector="weight > 5 AND color <> 'blue'")
        of_blue = blue.subscribe(where, selector="color = 'blue'")
        producer = Client(address, version)
        for number, (color, weight) in enumerate(itertools.product(("red", "blue"), ("3", "7", "12.5"))):
            producer.send(where, str(number).encode(), color=color, weight=weight)
        for client, subscription, wanted in ((heavy, of_heavy, "12"), (blue, of_blue, "345")):
            for number in wanted:
                got = client.receive(subscription).body
                expect(got == number.encode(), f"{got!r} instead of {number}")
            client.receive_nothing(subscription)
        for client in (heavy, blue, producer):
            client.close()


def unsubscribe_stops_deliveries(address, version):
    client = Client(address, version)
    where = fresh()
    subscription = client.subscribe(where)
    client.send(where, b"first")
    client.receive(subscription)
    client.unsubscribe(subscription)
    client.send(where, b"second")
    client.receive_nothing(subscription)
    again = client.subscribe(where)
    expect(client.receive(again).body == b"second", "the second message is gone")
    client.close()


def heart_beats_keep_idle_connections(address, version):
    client = Client(address, version, heart_beats=(HEART_BEAT_MS, HEART_BEAT_MS))
    offer = client.inbox.connected.get("heart-beat", "0,0")
    expect("0" not in offer.split(","), f"the broker offers {offer}")
    slowest = max(HEART_BEAT_MS, *(int(part) for part in offer.split(","))) / 1000
    time.sleep(5 * slowest)
    expect(client.connection.is_connected(), "the idle connection ended")
    expect(client.inbox.beats >= 3, f"{client.inbox.beats} heart-beats in 5 intervals")
    where = fresh()
    subscription = client.subscribe(where)
    client.send(where, b"alive")
    client.receive(subscription)
    client.close()


def an_error_ends_its_own_connection_only(address, version):
    neighbour = Client(address, version)
    where = fresh()
    subscription = neighbour.subscribe(where)
    client = Client(address, version)
    client.connection.send_frame("NONSENSE", {"receipt": "never"}, "")
    try:
        client.inbox.errors.get(timeout=TIMEOUT_S)
        client.inbox.ended.get(timeout=TIMEOUT_S)
    except queue.Empty:
        raise Failure("no ERROR, or the connection stays open") from None
    neighbour.send(where, b"still here")
    expect(neighbour.receive(subscription).body == b"still here", "the neighbour is disturbed")
    neighbour.close()


def disconnect_is_confirmed(address, version):
    client = Client(address, version)
    where = fresh()
    client.send(where, b"before")
    client.close()
    client = Client(address, version)
    expect(client.receive(client.subscribe(where)).body == b"before", "another body")
    client.close()


ALL = ("1.0", "1.1", "1.2")
SINCE_1_1 = ("1.1", "1.2")
CHECKS = [
    (version_is_negotiated, ALL),
    (bodies_come_back_byte_for_byte, ALL),
    (volatile_messages_pass_too, ALL),
    (headers_round_trip, SINCE_1_1),
    (auto_takes_messages_out, ALL),
    (client_mode_is_cumulative, ALL),
    (individual_mode_settles_one, SINCE_1_1),
    (nack_brings_it_back, SINCE_1_1),
    (transactions_count_whole_or_not_at_all, ALL),
    (consumers_compete, ALL),
    (topics_reach_everybody_who_is_there, ALL),
    (durable_subscriptions_collect_until_told_to_go, ALL),
    (selectors_choose_messages, ALL),
    (unsubscribe_stops_deliveries, ALL),
    (heart_beats_keep_idle_connections, SINCE_1_1),
    (an_error_ends_its_own_connection_only, ALL),
    (disconnect_is_confirmed, ALL),
]


def check(address):
    passed, failed = 0, 0
    for version in KINDS:
        for function in (function for function, versions in CHECKS if version in versions):
            name = f"{NAME} {version} {function.__name__}"
            try:
                function(address, version)
            except Exception as why:  # every failure is named, the others go on
                failed += 1
                print(f"FAIL {name}: {type(why).__name__}: {why}", flush=True)
            else:
                passed += 1
                print(f"ok   {name}", flush=True)
    print(f"passed {passed} failed {failed}", flush=True)
    return failed


# ---- the restart in the middle -------------------------------------------------------------------


def kept_body(index):
    """Bodies that can be made again: small, with NULs, and two larger than a journal block."""
    size = {7: 100_000, 13: 700_000}.get(index, 40 + index)
    return f"{index}:".encode() + bytes((index * 31 + at) % 256 for at in range(size))


def hold(address, run):
    held, untouched = f"/queue/py-held-{run}", f"/queue/py-untouched-{run}"
    consumer = Client(address)
    producer = Client(address)
    for index in range(20):
        producer.send(held, kept_body(index))
        producer.send(untouched, kept_body(index))
    subscription = consumer.subscribe(held, ack="client-individual", prefetch=100)
    frames = [consumer.receive(subscription) for _ in range(20)]
    for frame in frames[:5]:
        consumer.settle(frame)
    print("holding", flush=True)
    consumer.inbox.ended.get(timeout=60)
    return 0


def resume(address, run):
    client = Client(address)
    held = client.subscribe(f"/queue/py-held-{run}", ack="client-individual")
    for index in range(5, 20):
        frame = client.receive(held)
        expect(frame.body == kept_body(index), f"held {index}: got {frame.body[:20]!r}")
        expect(is_again(frame), f"held {index}: no redelivered:true")
        client.settle(frame)
    client.receive_nothing(held)
    untouched = client.subscribe(f"/queue/py-untouched-{run}")
    for index in range(20):
        frame = client.receive(untouched)
        expect(frame.body == kept_body(index), f"untouched {index}: got {frame.body[:20]!r}")
    client.receive_nothing(untouched)
    client.close()
    print("passed 1 failed 0", flush=True)
    return 0


def main():
    address, verb = sys.argv[1:3]
    if verb == "check":
        return 1 if check(address) else 0
    return {"hold": hold, "resume": resume}[verb](address, sys.argv[3])


if __name__ == "__main__":
    try:
        code = main()
    except Failure as why:
        print(f"FAIL stomp.py {' '.join(sys.argv[2:])}: {why}", flush=True)
        code = 1
    sys.stdout.flush()
    os._exit(code)  # threads of the client library may still wait on sockets

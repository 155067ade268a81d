"""Drives a broker for benches/many: raw STOMP over a few sockets, in batches, so that the client is seldom what is measured."""

import re
import select
import socket
import sys
import time

PORT, BROKER, QUEUES, SUBSCRIPTIONS, SELECTORS = map(int, sys.argv[1:6])
BATCH = 500
BODY = b"x" * 128


def resident_bytes():
    with open(f"/proc/{BROKER}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) * 1024


class Client:
    """One connection; counts the frames that come."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.counts = {b"RECEIPT": 0, b"MESSAGE": 0}
        self.rest = b""
        self.is_closed = False
        self.socket.sendall(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0")
        assert self.socket.recv(4096).startswith(b"CONNECTED")
        self.socket.setblocking(False)

    def send(self, data):
        view = memoryview(data)
        while view:
            self.read(0)
            try:
                view = view[self.socket.send(view):]
            except BlockingIOError:
                select.select([self.socket], [self.socket], [])

    def read(self, timeout):
        ready, _, _ = select.select([self.socket], [], [], timeout)
        while ready:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                return
            if not data:
                self.is_closed = True
                return
            frames = (self.rest + data).split(b"\0")
            self.rest = frames.pop()
            for frame in frames:
                kind = frame.lstrip(b"\n").split(b"\n", 1)[0]
                assert kind != b"ERROR", frame
                self.counts[kind] += 1

    def wait(self, kind, count):
        while self.counts[kind] < count:
            assert not self.is_closed, "the broker closed the connection"
            self.read(20)


def sends(destinations, headers=b""):
    """Durable sends, the last of them with a receipt."""
    frames = [
        b"SEND\ndestination:%s\npersistent:true\n%s%s\n%s\0"
        % (to, headers, b"receipt:r\n" if at == len(destinations) - 1 else b"", BODY)
        for at, to in enumerate(destinations)
    ]
    return b"".join(frames)


def produce(client, destinations, rounds=1, headers=b""):
    """Messages a second, each batch confirmed before the one after the next is sent."""
    batches = [
        sends(destinations[at:at + BATCH], headers) for at in range(0, len(destinations), BATCH)
    ]
    start = time.monotonic()
    before = client.counts[b"RECEIPT"]
    for number, batch in enumerate(batches * rounds):
        client.send(batch)
        client.wait(b"RECEIPT", before + number - 1)
    client.wait(b"RECEIPT", before + len(batches) * rounds)
    return len(destinations) * rounds / (time.monotonic() - start)


def subscribe(client, number, destination, headers=b""):
    client.send(
        b"SUBSCRIBE\nid:%d\ndestination:%s\nack:auto\n%sreceipt:s\n\n\0" % (number, destination, headers)
    )


def row(name, *cells):
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def many_queues():
    producer = Client()
    one = [b"/queue/one"] * BATCH * 40
    few = produce(producer, one)
    start = resident_bytes()
    queues = [b"/queue/many.%d" % number for number in range(QUEUES)]
    made = produce(producer, queues)
    again = produce(producer, queues)
    # Take everything, so that what is left are idle queues.
    drained = 0
    for first in range(0, QUEUES, 1000):
        consumer = Client()
        part = queues[first:first + 1000]
        for number, queue in enumerate(part):
            subscribe(consumer, number, queue)
        consumer.wait(b"MESSAGE", 2 * len(part))
        drained += consumer.counts[b"MESSAGE"]
        consumer.send(b"DISCONNECT\nreceipt:d\n\n\0")
        consumer.wait(b"RECEIPT", len(part) + 1)
        consumer.socket.close()
    assert drained == 2 * QUEUES
    idle = (resident_bytes() - start) / QUEUES
    row(
        f"{QUEUES} queues", f"one queue {few:.0f}/s", f"each made by a message {made:.0f}/s",
        f"round robin {again:.0f}/s", f"{idle:.0f} B resident for each idle one (goal <= 2048)",
    )


def many_subscriptions():
    start = resident_bytes()
    clients = [Client() for _ in range((SUBSCRIPTIONS + 999) // 1000)]
    topics = [b"/topic/many.%d" % number for number in range(SUBSCRIPTIONS)]
    for number, topic in enumerate(topics):
        subscribe(clients[number // 1000], number, topic)
    for at, client in enumerate(clients):
        client.wait(b"RECEIPT", len(topics[at * 1000:at * 1000 + 1000]))
    cost = (resident_bytes() - start) / SUBSCRIPTIONS
    producer = Client()
    rate = produce(producer, topics, 2)
    for at, client in enumerate(clients):
        client.wait(b"MESSAGE", 2 * len(topics[at * 1000:at * 1000 + 1000]))
    row(
        f"{SUBSCRIPTIONS} subscriptions, a topic each", f"{rate:.0f} messages/s",
        f"{cost:.0f} B resident for each",
    )
    # One topic that all listen to.
    fans = [Client() for _ in range(len(clients))]
    for number in range(SUBSCRIPTIONS):
        subscribe(fans[number // 1000], number, b"/topic/all")
    for at, client in enumerate(fans):
        client.wait(b"RECEIPT", len(topics[at * 1000:at * 1000 + 1000]))
    begin = time.monotonic()
    count = 20
    for _ in range(count):
        producer.send(sends([b"/topic/all"]))
        for client in fans:
            client.read(0)
    for at, client in enumerate(fans):
        client.wait(b"MESSAGE", count * len(topics[at * 1000:at * 1000 + 1000]))
    rate = count * SUBSCRIPTIONS / (time.monotonic() - begin)
    row(f"{SUBSCRIPTIONS} subscriptions to one topic", f"{rate:.0f} deliveries/s (the client reads no faster)")


def many_selectors():
    listener = Client()
    for number in range(SELECTORS):
        selector = b"selector:colour = 'c%d' AND size > %d\n" % (number, number % 7)
        subscribe(listener, number, b"/topic/chosen", selector)
    listener.wait(b"RECEIPT", SELECTORS)
    producer = Client()
    messages = 4000
    rate = produce(producer, [b"/topic/chosen"] * messages, 1, b"colour:c3\nsize:9\n")
    listener.wait(b"MESSAGE", messages)
    assert listener.counts[b"MESSAGE"] == messages
    plain = produce(producer, [b"/topic/nobody"] * messages, 1, b"colour:c3\nsize:9\n")
    spent = (1 / rate - 1 / plain) / SELECTORS * 1e9
    row(
        f"{SELECTORS} selectors on one topic, one of them matches", f"{rate:.0f} messages/s",
        f"{spent:.0f} ns for each selector of two terms",
    )


many_queues()
many_subscriptions()
if SELECTORS:
    many_selectors()

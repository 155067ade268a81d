// stompit and @stomp/stompjs, over TCP and over WebSocket, behind one small interface, so that one list of checks drives both.
//
// A connection: version, heartBeat, send, subscribe, begin, ack, nack, close, drop, bad, ended (a promise).
// A subscription: next(ms) gives {headers, body} or null after that time; unsubscribe(headers).

import net from "node:net";
import { createRequire } from "node:module";
import { Client as StompJs, Versions } from "@stomp/stompjs";
import WebSocket from "ws";

// The WebSocket that browsers have and this library looks for; Node has one since 22 only.
globalThis.WebSocket = WebSocket;

const stompit = createRequire(import.meta.url)("stompit");
const TIMEOUT_MS = 20_000;
let counter = 0;

export const unique = (word) => `${word}${++counter}`;

export function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come`)), TIMEOUT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Messages of one subscription, waited for one by one.
class Inbox {
  #messages = [];
  #waiting = [];

  push(message) {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(message);
    else this.#messages.push(message);
  }

  next(timeoutMs) {
    if (this.#messages.length > 0) return Promise.resolve(this.#messages.shift());
    return new Promise((resolve) => {
      const take = (message) => {
        clearTimeout(timer);
        resolve(message);
      };
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((other) => other !== take);
        resolve(null);
      }, timeoutMs);
      this.#waiting.push(take);
    });
  }
}

// ---- stompit ------------------------------------------------------------------------------------

// stompit destroys its own stream of an ERROR frame with an error that nobody can listen for; the
// connection that provoked one listens here.
let onErrorFrame = null;
process.on("uncaughtException", (error) => {
  if (error?.isApplicationError?.() && onErrorFrame) {
    onErrorFrame(error);
  } else {
    console.log(`FAIL uncaught: ${error?.stack ?? error}`);
    process.exit(1);
  }
});

export const stompitClient = {
  name: "stompit",
  versions: ["1.0", "1.1", "1.2"],
  cannot: {},

  async open({ host, port, login, passcode, vhost, version, heartBeat, clientId }) {
    const headers = { host: vhost, "accept-version": version, "heart-beat": heartBeat ?? "0,0" };
    if (login) Object.assign(headers, { login, passcode });
    if (clientId) headers["client-id"] = clientId;
    const options = { host, port, connectHeaders: headers, resetDisconnect: false };
    if (heartBeat) {
      // After an orderly end it waits for the broker's FIN and still beats into the stream that it
      // ended: "write after end". The end that destroys the socket stops its beats at once.
      options.resetDisconnect = true;
      // By how much a beat may be late: a fifth, as its own 100 ms are of 500.
      options.heartbeatDelayMargin = Number(heartBeat.split(",")[1]) / 5;
    }
    const client = await within(
      new Promise((resolve, reject) =>
        stompit.connect(options, (error, client) => (error ? reject(error) : resolve(client))),
      ),
      "CONNECTED",
    );
    let lastError;
    const ended = new Promise((resolve) => {
      client.on("error", (error) => resolve((lastError = error)));
      client.on("end", () => resolve(lastError));
      client.on("close", () => resolve(lastError));
    });
    const command = (name, headers, body) =>
      within(
        new Promise((resolve) => {
          const frame = client.sendFrame(name, headers, { onReceipt: () => resolve() });
          if (body && body.length > 0) frame.write(body);
          frame.end();
        }),
        `receipt of ${name}`,
      );
    return {
      version: client.headers?.version ?? "1.0",
      ended,
      send: (destination, body, extra = {}) =>
        command(
          "SEND",
          { destination, persistent: "true", "content-length": body.length, ...extra },
          body,
        ),
      async subscribe(destination, ack = "auto", extra = {}) {
        const inbox = new Inbox();
        const subscription = client.subscribe({ destination, ack, ...extra }, (error, message) => {
          if (error) return;
          const parts = [];
          message.on("data", (part) => parts.push(part));
          message.on("end", () => inbox.push({ headers: message.headers, body: Buffer.concat(parts), message }));
        });
        return {
          next: (timeoutMs) => inbox.next(timeoutMs),
          unsubscribe: (extra = {}) => command("UNSUBSCRIBE", { id: subscription.getId(), ...extra }),
        };
      },
      // Of its own: the id, ack(message), commit() and abort() with receipt.
      begin() {
        const transaction = client.begin();
        const end = (verb) => () =>
          within(new Promise((resolve) => transaction[verb]({ onReceipt: () => resolve() })), verb);
        return {
          id: String(transaction.id),
          ack: (message) => command("ACK", { ...settlement(message), transaction: transaction.id }),
          commit: end("commit"),
          abort: end("abort"),
        };
      },
      ack: (message) => command("ACK", settlement(message)),
      nack: (message) => command("NACK", settlement(message)),
      bad() {
        onErrorFrame = (error) => {
          lastError = error;
          client.destroy();
        };
        client.sendFrame("NONSENSE", {}).end();
      },
      close: () =>
        within(
          new Promise((resolve, reject) => client.disconnect((error) => (error ? reject(error) : resolve()))),
          "receipt of DISCONNECT",
        ),
      drop: () => client.destroy(),
    };
  },
};

function settlement({ headers }) {
  const fields = { subscription: headers.subscription, "message-id": headers["message-id"] };
  if (headers.ack) fields.id = headers.ack;
  return fields;
}

// ---- @stomp/stompjs -----------------------------------------------------------------------------

// A TCP socket in the clothes of a WebSocket: what the library needs of one.
class TcpSocket {
  binaryType = "arraybuffer";
  readyState = 0;

  constructor(host, port) {
    this.url = `tcp://${host}:${port}/`;
    this.socket = net.connect({ host, port, noDelay: true });
    this.socket.on("connect", () => {
      this.readyState = 1;
      this.onopen?.({});
    });
    this.socket.on("data", (part) => {
      const copy = part.buffer.slice(part.byteOffset, part.byteOffset + part.length);
      this.onmessage?.({ data: copy });
    });
    this.socket.on("error", (error) => this.onerror?.(error));
    this.socket.on("close", () => {
      this.readyState = 3;
      this.onclose?.({ code: 1006, reason: "closed", wasClean: true });
    });
  }

  send(data) {
    this.socket.write(typeof data === "string" ? data : Buffer.from(data));
  }

  close() {
    this.readyState = 2;
    this.socket.end();
  }

  terminate() {
    this.socket.destroy();
  }
}

// `transport` gives what a client is made with besides.
const stompjs = (name, transport) => ({
  name,
  versions: ["1.0", "1.1", "1.2"],
  cannot: {
    "1.1 headersRoundTrip": 'it sends headers of 1.1 unescaped, against STOMP 1.1 "Value Encoding"',
  },

  async open({ host, port, login, passcode, vhost, version, heartBeat, clientId }) {
    const [outgoing, incoming] = (heartBeat ?? "0,0").split(",").map(Number);
    const client = new StompJs({
      ...transport(host, port),
      connectHeaders: {
        host: vhost,
        ...(login ? { login, passcode } : {}),
        ...(clientId ? { "client-id": clientId } : {}),
      },
      reconnectDelay: 0,
      heartbeatOutgoing: outgoing,
      heartbeatIncoming: incoming,
    });
    client.stompVersions = new Versions([version]);
    let lastError;
    const ended = new Promise((resolve) => {
      client.onWebSocketClose = () => resolve(lastError);
    });
    client.onStompError = (frame) => (lastError = new Error(frame.headers.message));
    const connected = new Promise((resolve) => (client.onConnect = resolve));
    client.activate();
    const greeting = await within(
      Promise.race([connected, ended.then((e) => Promise.reject(e ?? new Error("closed")))]),
      "CONNECTED",
    );
    const receipted = (act, what) =>
      within(
        new Promise((resolve) => {
          const receipt = unique("r");
          client.watchForReceipt(receipt, resolve);
          act(receipt);
        }),
        `receipt of ${what}`,
      );
    const settle = (verb) => (message) =>
      receipted((receipt) => message.message[verb]({ receipt }), verb);
    return {
      version: greeting.headers.version ?? "1.0",
      ended,
      send: (destination, body, extra = {}) =>
        receipted((receipt) => {
          const headers = { persistent: "true", receipt, ...extra };
          client.publish({ destination, binaryBody: new Uint8Array(body), headers });
        }, "SEND"),
      async subscribe(destination, ack = "auto", extra = {}) {
        const inbox = new Inbox();
        const headers = { ack, id: unique("sub"), ...extra };
        let subscription;
        const take = (message) =>
          inbox.push({ headers: message.headers, body: Buffer.from(message.binaryBody), message });
        await receipted((receipt) => {
          subscription = client.subscribe(destination, take, { ...headers, receipt });
        }, "SUBSCRIBE");
        return {
          next: (timeoutMs) => inbox.next(timeoutMs),
          unsubscribe: (extra = {}) =>
            receipted((receipt) => subscription.unsubscribe({ receipt, ...extra }), "UNSUBSCRIBE"),
        };
      },
      begin() {
        const transaction = client.begin();
        // It asks for no receipt of them; what it sends behind is taken when they have ended.
        const end = (verb) => () => {
          transaction[verb]();
          return this.send(`/queue/fence-${unique("f")}`, Buffer.from("fence"));
        };
        return {
          id: transaction.id,
          ack: (message) =>
            receipted(
              (receipt) => message.message.ack({ receipt, transaction: transaction.id }),
              "ACK",
            ),
          commit: end("commit"),
          abort: end("abort"),
        };
      },
      ack: settle("ack"),
      nack: settle("nack"),
      bad: () => client.webSocket.send("NONSENSE\n\n\0"),
      async close() {
        let confirm;
        const confirmed = new Promise((resolve) => (confirm = resolve));
        client.onDisconnect = confirm;
        void client.deactivate();
        await within(confirmed, "receipt of DISCONNECT");
      },
      drop: () => client.webSocket.terminate(),
    };
  },
});

export const stompjsClient = stompjs("@stomp/stompjs", (host, port) => ({
  webSocketFactory: () => new TcpSocket(host, port),
  forceBinaryWSFrames: true,
}));

// As in a browser: text, and binary messages for bodies given as bytes.
export const stompjsWebSocketClient = stompjs("@stomp/stompjs over WebSocket", (host, port) => ({
  brokerURL: `ws://${host}:${port}/stomp`,
}));

// What is expected of any STOMP broker we would use, through stompit and @stomp/stompjs, the latter
// over WebSocket, too.
//
// Usage: node checks.mjs CLIENT HOST:PORT check | hold RUN | resume RUN   (CLIENT: stompit, stompjs,
// stompjs-ws)
// `check` prints one line per check and ends with `passed N failed M`.

import crypto from "node:crypto";
import { stompitClient, stompjsClient, stompjsWebSocketClient, unique, within } from "./clients.mjs";

const [clientName, address, verb, run = String(process.pid)] = process.argv.slice(2);
const libraries = {
  stompit: stompitClient,
  stompjs: stompjsClient,
  "stompjs-ws": stompjsWebSocketClient,
};
const library = libraries[clientName];
const [, host, port] = address.match(/^(.*):(\d+)$/);
const TIMEOUT_MS = 20_000;
const SILENCE_MS = 700;
// Long enough that a pause of a busy machine is not taken for a beat that did not come: brokers
// send at some three quarters of it.
const HEART_BEAT_MS = 2_000;

const login = process.env.STOMP_LOGIN;
const passcode = process.env.STOMP_PASSCODE;
const vhost = process.env.STOMP_VHOST ?? "/";

const open = (version, more = {}) =>
  library.open({ host, port: Number(port), login, passcode, vhost, version, ...more });
const fresh = (kind = "queue") => unique(`/${kind}/js-${clientName}-${run}-`);
const bodies = (count) => Array.from({ length: count }, (_, index) => Buffer.from(`message ${index}`));
const isAgain = (message) => message.headers.redelivered === "true";
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const prefetch = (count) => ({ "activemq.prefetchSize": count, "prefetch-count": count });

function expect(condition, text) {
  if (!condition) throw new Error(text);
}

async function receive(subscription) {
  const message = await subscription.next(TIMEOUT_MS);
  expect(message, "no message");
  return message;
}

async function receiveNothing(subscription) {
  const message = await subscription.next(SILENCE_MS);
  expect(message === null, `unexpected message ${message?.body.subarray(0, 40)}`);
}

// ---- checks: each takes a version ---------------------------------------------------------------

async function versionIsNegotiated(version) {
  const client = await open(version);
  expect(client.version === version, `CONNECTED says ${client.version}`);
  await client.close();
}

async function bodiesComeBackByteForByte(version) {
  const everyByte = Buffer.concat(Array(5).fill(Buffer.from(Array.from({ length: 256 }, (_, i) => i))));
  const cases = {
    text: Buffer.from("hello"),
    empty: Buffer.alloc(0),
    "UTF-8": Buffer.from("gr\u00fc\u00dfe \u2603 \u{1f600}"),
    NULs: Buffer.from("\0a\0\0b\0"),
    "line ends": Buffer.from("\r\n\n\r"),
    "every byte": everyByte,
    "1 MiB": crypto.randomBytes(1 << 20),
  };
  if (version === "1.2") cases["10 MiB"] = crypto.randomBytes(10 << 20);
  const client = await open(version);
  const where = fresh();
  const subscription = await client.subscribe(where);
  for (const [name, body] of Object.entries(cases)) {
    await client.send(where, body);
    const got = await receive(subscription);
    expect(got.body.equals(body), `${name}: ${got.body.length} other bytes, not ${body.length}`);
  }
  await client.close();
}

async function headersRoundTrip(version) {
  const values = { colon: "a:b:c", lines: "one\ntwo", slash: "back\\slash", utf: "\u00e9\u2603" };
  if (version === "1.2") values.return = "a\rb";
  values["key:with colon"] = "x";
  const client = await open(version);
  const where = fresh();
  const subscription = await client.subscribe(where);
  // @stomp/stompjs escapes values only; a key with a colon needs it done by hand.
  const escape = (key) => (clientName.startsWith("stompjs") ? key.replaceAll(":", "\\c") : key);
  const sent = Object.fromEntries(Object.entries(values).map(([k, v]) => [escape(k), v]));
  await client.send(where, Buffer.from("x"), sent);
  const got = await receive(subscription);
  for (const [key, value] of Object.entries(values)) {
    const seen = got.headers[key] ?? got.headers[escape(key)];
    expect(seen === value, `${key}: ${JSON.stringify(seen)} not ${JSON.stringify(value)}`);
  }
  await client.close();
}

async function autoTakesMessagesOut(version) {
  let client = await open(version);
  const where = fresh();
  for (const body of bodies(10)) await client.send(where, body);
  const subscription = await client.subscribe(where);
  for (const body of bodies(10)) expect((await receive(subscription)).body.equals(body), "not in order");
  await client.close();
  client = await open(version);
  await receiveNothing(await client.subscribe(where));
  await client.close();
}

async function clientModeIsCumulative(version) {
  let client = await open(version);
  const where = fresh();
  for (const body of bodies(10)) await client.send(where, body);
  let subscription = await client.subscribe(where, "client");
  const seen = [];
  for (let i = 0; i < 10; i++) seen.push(await receive(subscription));
  expect(!seen.some(isAgain), "redelivered at first delivery");
  await client.ack(seen[5]);
  client.drop();
  client = await open(version);
  subscription = await client.subscribe(where, "client");
  let last;
  for (const body of bodies(10).slice(6)) {
    last = await receive(subscription);
    expect(last.body.equals(body), `${last.body} instead of ${body}`);
    expect(isAgain(last), `${body} came again without redelivered:true`);
  }
  await client.ack(last);
  await receiveNothing(subscription);
  await client.close();
}

async function individualModeSettlesOne(version) {
  let client = await open(version);
  const where = fresh();
  for (const body of bodies(10)) await client.send(where, body);
  let subscription = await client.subscribe(where, "client-individual");
  const seen = [];
  for (let i = 0; i < 10; i++) seen.push(await receive(subscription));
  for (let i = 1; i < 10; i += 2) await client.ack(seen[i]);
  client.drop();
  client = await open(version);
  subscription = await client.subscribe(where, "client-individual");
  for (let i = 0; i < 10; i += 2) {
    const message = await receive(subscription);
    expect(message.body.equals(bodies(10)[i]) && isAgain(message), `${i}: ${message.body}`);
    await client.ack(message);
  }
  await receiveNothing(subscription);
  await client.close();
}

async function nackBringsItBack(version) {
  const client = await open(version);
  const where = fresh();
  await client.send(where, Buffer.from("refused once"));
  const subscription = await client.subscribe(where, "client-individual");
  const first = await receive(subscription);
  expect(!isAgain(first), "redelivered at first delivery");
  await client.nack(first);
  const second = await receive(subscription);
  expect(second.body.equals(first.body) && isAgain(second), JSON.stringify(second.headers));
  await client.ack(second);
  await receiveNothing(subscription);
  await client.close();
}

async function consumersCompete(version) {
  const where = fresh();
  const ack = version === "1.0" ? "client" : "client-individual";
  const producer = await open(version);
  const consumers = [await open(version), await open(version)];
  const seen = [];
  const consume = async (consumer) => {
    const subscription = await consumer.subscribe(where, ack, prefetch(1));
    while (seen.length < 40) {
      const message = await subscription.next(SILENCE_MS);
      if (message === null) continue;
      seen.push(message.body.toString());
      await consumer.ack(message);
    }
    await receiveNothing(subscription);
  };
  const all = Promise.all(consumers.map(consume));
  for (const body of bodies(40)) await producer.send(where, body);
  await within(all, "the last of 40 messages");
  const expected = bodies(40).map(String).sort();
  expect(JSON.stringify(seen.sort()) === JSON.stringify(expected), "not each exactly once");
  for (const client of [...consumers, producer]) await client.close();
}

async function topicsReachEverybodyWhoIsThere(version) {
  const where = fresh("topic");
  const listeners = [await open(version), await open(version)];
  const subscriptions = [];
  for (const listener of listeners) {
    subscriptions.push(await listener.subscribe(where));
    // stompit asks for no receipt of SUBSCRIBE: a receipted command behind it proves it was taken.
    await listener.send(fresh(), Buffer.from("fence"));
  }
  const producer = await open(version);
  for (const body of bodies(20)) await producer.send(where, body);
  for (const subscription of subscriptions) {
    for (const body of bodies(20)) expect((await receive(subscription)).body.equals(body), "not in order");
  }
  const late = await open(version);
  await receiveNothing(await late.subscribe(where));
  for (const client of [...listeners, producer, late]) await client.close();
}

async function transactionsCountWholeOrNotAtAll(version) {
  const client = await open(version);
  const reader = await open(version);
  const places = [fresh(), fresh(), fresh(), fresh()];
  const subscriptions = [];
  for (const place of places) subscriptions.push(await reader.subscribe(place, "client"));
  for (const verb of ["abort", "commit"]) {
    const transaction = client.begin();
    for (const place of places) {
      await client.send(place, Buffer.from(verb), { transaction: transaction.id });
    }
    await receiveNothing(subscriptions[0]);
    await transaction[verb]();
  }
  const messages = [];
  for (const subscription of subscriptions) messages.push(await receive(subscription));
  const isCommitted = ({ body }) => body.toString() === "commit";
  expect(messages.every(isCommitted), "what was rolled back came");
  for (const verb of ["abort", "commit"]) {
    const transaction = reader.begin();
    for (const message of messages) await transaction.ack(message);
    await transaction[verb]();
  }
  reader.drop();
  await receiveNothing(await client.subscribe(places[0]));
  await client.close();
}

async function durableSubscriptionsCollectUntilToldToGo(version) {
  const where = fresh("topic");
  const name = unique("d");
  const clientId = `js-${clientName}-${run}-${name}`;
  const durable = { "activemq.subscriptionName": name, "durable-subscription-name": name };
  // A receipted command behind SUBSCRIBE proves that it was taken.
  const attach = async () => {
    const client = await open(version, { clientId });
    const subscription = await client.subscribe(where, "auto", durable);
    await client.send(fresh(), Buffer.from("fence"));
    return [client, subscription];
  };
  await (await attach())[0].close();
  const producer = await open(version);
  for (const body of bodies(10)) await producer.send(where, body);
  const [reader, collected] = await attach();
  for (const body of bodies(10)) expect((await receive(collected)).body.equals(body), "not in order");
  await reader.close();
  const [client, subscription] = await attach();
  await receiveNothing(subscription);
  await subscription.unsubscribe(durable);
  await producer.send(where, Buffer.from("nobody"));
  await client.close();
  const [late, anew] = await attach();
  await receiveNothing(anew);
  await late.close();
  await producer.close();
}

async function selectorsChooseMessages(version) {
  for (const kind of ["topic", "queue"]) {
    const where = fresh(kind);
    const attach = async (selector) => {
      const client = await open(version);
      const subscription = await client.subscribe(where, "auto", { selector });
      await client.send(fresh(), Buffer.from("fence"));
      return [client, subscription];
    };
    const [heavy, ofHeavy] = await attach("weight > 5 AND color <> 'blue'");
    const [blue, ofBlue] = await attach("color = 'blue'");
    const producer = await open(version);
    let number = 0;
    for (const color of ["red", "blue"]) {
      for (const weight of ["3", "7", "12.5"]) {
        await producer.send(where, Buffer.from(`${number++}`), { color, weight });
      }
    }
    for (const [subscription, wanted] of [[ofHeavy, "12"], [ofBlue, "345"]]) {
      for (const one of wanted) {
        expect((await receive(subscription)).body.toString() === one, `not ${one}`);
      }
      await receiveNothing(subscription);
    }
    for (const client of [heavy, blue, producer]) await client.close();
  }
}

async function unsubscribeStopsDeliveries(version) {
  const client = await open(version);
  const where = fresh();
  const subscription = await client.subscribe(where);
  await client.send(where, Buffer.from("first"));
  await receive(subscription);
  await subscription.unsubscribe();
  await client.send(where, Buffer.from("second"));
  await receiveNothing(subscription);
  const again = await client.subscribe(where);
  expect((await receive(again)).body.toString() === "second", "the second message is gone");
  await client.close();
}

async function heartBeatsKeepIdleConnections(version) {
  // Both libraries end a connection whose heart-beats do not come.
  const client = await open(version, { heartBeat: `${HEART_BEAT_MS},${HEART_BEAT_MS}` });
  // Not a whole number of intervals: what follows would meet the library's own beat each time.
  const early = await Promise.race([client.ended.then(() => true), sleep(3.5 * HEART_BEAT_MS)]);
  expect(early !== true, "the idle connection ended");
  const where = fresh();
  const subscription = await client.subscribe(where);
  await client.send(where, Buffer.from("alive"));
  await receive(subscription);
  await client.close();
}

async function anErrorEndsItsOwnConnectionOnly(version) {
  const neighbour = await open(version);
  const where = fresh();
  const subscription = await neighbour.subscribe(where);
  const client = await open(version);
  client.bad();
  const error = await within(client.ended, "the end of the connection");
  expect(error, "the connection ended without ERROR");
  await neighbour.send(where, Buffer.from("still here"));
  expect((await receive(subscription)).body.toString() === "still here", "the neighbour is disturbed");
  await neighbour.close();
}

const ALL = ["1.0", "1.1", "1.2"];
const SINCE_1_1 = ["1.1", "1.2"];
const CHECKS = [
  [versionIsNegotiated, ALL],
  [bodiesComeBackByteForByte, ALL],
  [headersRoundTrip, SINCE_1_1],
  [autoTakesMessagesOut, ALL],
  [clientModeIsCumulative, ALL],
  [individualModeSettlesOne, SINCE_1_1],
  [nackBringsItBack, SINCE_1_1],
  [consumersCompete, ALL],
  [topicsReachEverybodyWhoIsThere, ALL],
  [transactionsCountWholeOrNotAtAll, ALL],
  [durableSubscriptionsCollectUntilToldToGo, ALL],
  [selectorsChooseMessages, ALL],
  [unsubscribeStopsDeliveries, ALL],
  [heartBeatsKeepIdleConnections, SINCE_1_1],
  [anErrorEndsItsOwnConnectionOnly, ALL],
];

async function check() {
  let passed = 0;
  let failed = 0;
  for (const version of library.versions) {
    for (const [work, versions] of CHECKS) {
      if (!versions.includes(version)) continue;
      const name = `${library.name} ${version} ${work.name}`;
      const why = library.cannot[`${version} ${work.name}`];
      if (why) {
        console.log(`cannot ${name}: ${why}`);
        continue;
      }
      try {
        await work(version);
        passed += 1;
        console.log(`ok   ${name}`);
      } catch (error) {
        failed += 1;
        console.log(`FAIL ${name}: ${error.message}`);
      }
    }
  }
  console.log(`passed ${passed} failed ${failed}`);
  return failed === 0 ? 0 : 1;
}

// ---- the restart in the middle ------------------------------------------------------------------

// Bodies that can be made again: small, with NULs, and two larger than a journal block.
function keptBody(index) {
  const size = { 7: 100_000, 13: 700_000 }[index] ?? 40 + index;
  const tail = Buffer.from(Array.from({ length: size }, (_, at) => (index * 31 + at) % 256));
  return Buffer.concat([Buffer.from(`${index}:`), tail]);
}

async function hold() {
  const consumer = await open("1.2");
  const producer = await open("1.2");
  for (let index = 0; index < 20; index++) {
    await producer.send(`/queue/js-${clientName}-held-${run}`, keptBody(index));
    await producer.send(`/queue/js-${clientName}-untouched-${run}`, keptBody(index));
  }
  const where = `/queue/js-${clientName}-held-${run}`;
  const subscription = await consumer.subscribe(where, "client-individual", prefetch(100));
  const seen = [];
  for (let index = 0; index < 20; index++) seen.push(await receive(subscription));
  for (const message of seen.slice(0, 5)) await consumer.ack(message);
  console.log("holding");
  await Promise.race([consumer.ended, sleep(60_000)]);
  return 0;
}

async function resume() {
  const client = await open("1.2");
  const held = await client.subscribe(`/queue/js-${clientName}-held-${run}`, "client-individual");
  for (let index = 5; index < 20; index++) {
    const message = await receive(held);
    expect(message.body.equals(keptBody(index)), `held ${index}: got ${message.body.subarray(0, 20)}`);
    expect(isAgain(message), `held ${index}: no redelivered:true`);
    await client.ack(message);
  }
  await receiveNothing(held);
  const untouched = await client.subscribe(`/queue/js-${clientName}-untouched-${run}`);
  for (let index = 0; index < 20; index++) {
    const message = await receive(untouched);
    expect(message.body.equals(keptBody(index)), `untouched ${index}: got ${message.body.subarray(0, 20)}`);
  }
  await receiveNothing(untouched);
  await client.close();
  console.log("passed 1 failed 0");
  return 0;
}

try {
  process.exitCode = await { check, hold, resume }[verb]();
} catch (error) {
  console.log(`FAIL ${library.name} ${verb}: ${error.message}`);
  process.exitCode = 1;
}
process.exit();

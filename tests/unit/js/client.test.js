// The shell of examwire.js on a clock that is turned by hand and sockets that the test answers.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  ASK_SECONDS,
  Client,
  ExamineeClient,
  OPEN_SECONDS,
  PROBE_SECONDS,
  ladderSeconds,
} from "../../../actors/pages/static/examwire.js";
import { A, B, Browser, C, START, Storage, click, welcome } from "./browser.js";

/** A client that has been connected for a minute, all heartbeats answered. */
function connected({ Class = Client, browser = new Browser(), options = {}, ...more } = {}) {
  const client = browser.client(Class, options);
  client.connect();
  browser.socket.open().say(welcome(more));
  live(browser, 60);
  return { browser, client, socket: browser.socket };
}

/** Time passes on a network that works: every heartbeat is echoed. */
function live(browser, seconds) {
  for (let second = 0; second < seconds; second += 1) {
    const { socket } = browser;
    const before = socket.sent.length;
    browser.pass(1);
    if (socket.sent.slice(before).some((one) => one.type === "heartbeat")) socket.say({ type: "heartbeat", data: {} });
  }
}

const near = (actual, expected) => assert.ok(Math.abs(actual - expected) < 1e-6, `${actual} instead of ${expected}`);

// -- connecting --------------------------------------------------------------------------------------------

test("the first frame is hello, with the token, the client and the number of the connection", () => {
  const browser = new Browser();
  browser.client(Client).connect();
  assert.equal(browser.socket.url, A);
  assert.equal(browser.socket.asked, "examwire.v1");
  browser.socket.open();
  const [{ type, data }] = browser.socket.sent;
  assert.equal(type, "hello");
  assert.match(data.clientId, /^[0-9a-f]{16}$/);
  assert.deepEqual({ ...data, clientId: "" }, {
    token: "token-1",
    clientId: "",
    connectionNo: 1,
    clientInfo: { browserInfo: "Testfox" },
  });
  browser.socket.say(welcome());
  assert.deepEqual(browser.states, ["connecting", "connected"]);
  assert.equal(browser.told("welcome")[0].serverId, "SOCK001");
});

test("messages that come together are told one by one; what is no message is counted", () => {
  const { browser, client, socket } = connected();
  socket.say({ type: "later_version", data: { x: 1 } }, { no: "type" }, { type: "heartbeat", data: {} });
  socket.onmessage({ data: "{" });
  assert.deepEqual(browser.told("message"), [{ type: "later_version", data: { x: 1 } }]);
  assert.equal(client.malformed, 2);
});

test("a socket that never opens, or opens and says nothing, is given up after a while", () => {
  const browser = new Browser();
  browser.client(Client).connect();
  const first = browser.socket;
  browser.pass(OPEN_SECONDS);
  assert.equal(first.closedWith, 1000);
  assert.equal(browser.statuses.at(-1).state, "waiting");
  browser.pass(browser.statuses.at(-1).seconds);
  browser.socket.open();
  browser.pass(OPEN_SECONDS + 0.1);
  assert.equal(browser.statuses.at(-1).state, "waiting");
  assert.equal(browser.statuses.at(-1).attempt, 2);
});

test("a handshake that is refused without a close event is noticed at once", () => {
  const browser = new Browser();
  browser.client(Client).connect();
  browser.socket.readyState = 3;
  browser.socket.onerror({});
  assert.equal(browser.statuses.at(-1).state, "waiting");
});

test("a server that knows of no other does not make the client forget those it was given", () => {
  const { browser, socket } = connected({ endpoints: [A] });
  socket.end(1012);
  browser.pass(browser.statuses.at(-1).seconds + 0.01);
  assert.equal(browser.socket.url, B);
});

test("whoever answers without the subprotocol is no socket server", () => {
  const browser = new Browser();
  browser.client(Client).connect();
  browser.socket.open("");
  assert.deepEqual(browser.socket.sent, []);
  assert.equal(browser.statuses.at(-1).state, "waiting");
});

test("a welcome that cannot be used is no welcome", () => {
  const browser = new Browser();
  browser.client(Client).connect();
  browser.socket.open().say(welcome({ reconnect: { maxAttempts: 5, backoffSeconds: ["soon"], jitter: 0.3 } }));
  assert.deepEqual(browser.states, ["connecting"]);
  browser.pass(OPEN_SECONDS);
  assert.equal(browser.statuses.at(-1).state, "waiting");
});

test("the socket servers come from the web server, one by chance first, the others behind it", async () => {
  const asked = [];
  const browser = new Browser({ draw: 0.99 });
  const fetch = async (url, init) => {
    asked.push([url, init.cache, init.credentials]);
    return { ok: true, json: async () => ({ socketServers: [A, B, C] }) };
  };
  const client = browser.client(Client, { url: undefined, endpointsUrl: "https://exam/v1/endpoints", fetch });
  client.connect();
  await new Promise((done) => setImmediate(done));
  assert.deepEqual(asked, [["https://exam/v1/endpoints", "no-store", "omit"]]);
  assert.equal(browser.socket.url, C);
  browser.socket.end();
  browser.pass(10);
  assert.equal(browser.socket.url, A);
});

test("a web server that is away, or knows no socket server yet, is asked again", async () => {
  const answers = [
    async () => Promise.reject(new TypeError("no network")),
    async () => ({ ok: false }),
    async () => ({ ok: true, json: async () => ({ socketServers: [] }) }),
    async () => ({ ok: true, json: async () => ({ socketServers: ["ws://late:1"] }) }),
  ];
  const browser = new Browser();
  const options = { url: undefined, endpointsUrl: "/v1/endpoints", fetch: () => answers.shift()() };
  browser.client(Client, options).connect();
  for (let tries = 0; tries < 3; tries += 1) {
    await new Promise((done) => setImmediate(done));
    assert.equal(browser.statuses.at(-1).state, "waiting");
    browser.pass(browser.statuses.at(-1).seconds);
  }
  await new Promise((done) => setImmediate(done));
  assert.equal(browser.socket.url, "ws://late:1/v1/connect");
});

test("without an address there is nothing to connect to, which is said at once", () => {
  assert.throws(() => new Client({ token: "t" }), /neither url nor endpointsUrl/);
});

// -- coming back -------------------------------------------------------------------------------------------

test("a connection that breaks is tried again almost at once, on the same server, then by the ladder", () => {
  const { browser, socket } = connected();
  socket.end();
  const [first] = browser.statuses.slice(-1);
  assert.deepEqual([first.state, first.attempt, first.maxAttempts, first.left], ["waiting", 1, 5, 4]);
  near(first.seconds, 0.75);
  near(first.at, browser.time + 750);
  browser.pass(0.8);
  assert.equal(browser.socket.url, A);
  browser.socket.end();
  const second = browser.statuses.at(-1);
  assert.equal(second.attempt, 2);
  near(second.seconds, 5 * 1.25); // half of the share that spreads a crowd
  browser.pass(7);
  assert.equal(browser.socket.url, B, "the endpoints in turn");
});

test("attempts that are used up end it, and a person may go on", () => {
  const { browser, client, socket } = connected();
  socket.end();
  for (let attempt = 1; attempt <= 5; attempt += 1) {
    browser.pass(browser.statuses.at(-1).seconds + 0.01);
    assert.equal(browser.statuses.at(-1).state, "connecting");
    assert.equal(browser.statuses.at(-1).attempt, attempt);
    browser.socket.end();
  }
  const end = browser.statuses.at(-1);
  assert.deepEqual([end.state, end.reason, end.remedy], ["gaveUp", "ATTEMPTS_USED_UP", "USER"]);
  const tries = browser.sockets.length;
  browser.pass(3600);
  assert.equal(browser.sockets.length, tries);
  assert.ok(client.tryNow(click));
  assert.equal(browser.sockets.length, tries + 1);
  browser.socket.end();
  assert.equal(browser.statuses.at(-1).state, "gaveUp", "one press, one try");
});

test("all attempts of a crowd that is spread begin before the server refuses for good", () => {
  for (const steps of [[5, 10, 20, 40, 60], [2, 2, 2], [1], [3, 9, 9]]) {
    const policy = { maxAttempts: steps.length, backoffSeconds: steps, jitter: 0.3 };
    const browser = new Browser({ draw: 0.999 }); // everybody draws the longest waits
    const { socket } = connected({ browser, reconnect: policy });
    const lostAt = browser.time;
    socket.end();
    let last = 0;
    while (browser.statuses.at(-1).state === "waiting") {
      browser.pass(browser.statuses.at(-1).seconds + 0.01);
      last = (browser.time - lostAt) / 1000;
      browser.socket.end();
    }
    assert.ok(last < ladderSeconds(policy), `${steps}: ${last} s`);
  }
});

test("a drained server's clients go to the next one at once, which is no attempt and no alarm", () => {
  const { browser, socket } = connected();
  socket.say({ type: "migrate", data: { endpoints: ["ws://c:8001"] } });
  socket.end(4006, "MIGRATE");
  const waiting = browser.statuses.at(-1);
  assert.equal(waiting.migrating, true);
  assert.ok(waiting.seconds <= 0.2);
  browser.pass(0.2);
  assert.equal(browser.socket.url, C);
  browser.socket.open().say(welcome({ serverId: "SOCK003" }));
  assert.deepEqual(browser.statuses.at(-1), { state: "connected", serverId: "SOCK003" });
});

test("a migrate before the welcome is followed, too", () => {
  const browser = new Browser();
  browser.client(Client).connect();
  browser.socket.open().say({ type: "migrate", data: { endpoints: [C] } });
  browser.socket.end(4006);
  browser.pass(browser.statuses.at(-1).seconds + 0.01);
  assert.equal(browser.socket.url, C);
});

// -- what the server says is the end -----------------------------------------------------------------------

for (const [code, name, remedy] of [
  [4503, "REPLACED", "USER"],
  [4504, "RECONNECT_LIMIT_EXCEEDED", "USER"],
  [4508, "REMOVED", "USER"],
  [4505, "TOO_MANY_ERRORS", "USER"],
  [4506, "FORBIDDEN", "TOKEN"],
  [4501, "INVALID_HELLO", "NONE"],
  [4777, "CLOSED_4777", "USER"],
]) {
  test(`${code} is final and tells why (${name})`, () => {
    const { browser, client, socket } = connected();
    const tries = browser.sockets.length;
    socket.end(code, name);
    const end = browser.statuses.at(-1);
    assert.deepEqual([end.state, end.reason, end.code, end.name, end.remedy], ["gaveUp", "CLOSE_CODE", code, name, remedy]);
    // Nothing that is not a person brings it back.
    browser.pass(600);
    browser.network(false);
    browser.network(true);
    browser.show(false);
    browser.pass(600);
    browser.show(true);
    browser.page("pagehide", true);
    browser.page("pageshow", true);
    client.connect();
    assert.equal(client.tryNow(), false);
    assert.equal(client.tryNow({ isTrusted: false }), false);
    browser.pass(600);
    assert.equal(browser.sockets.length, tries);
    assert.equal(client.status.state, "gaveUp");
    assert.equal(client.tryNow(click), remedy === "USER");
    assert.equal(browser.sockets.length, tries + (remedy === "USER" ? 1 : 0));
  });
}

test("somebody who hammers the button is one try a second", () => {
  const { browser, client, socket } = connected();
  socket.end(4504);
  const tries = browser.sockets.length;
  browser.pass(5);
  for (let press = 0; press < 50; press += 1) {
    client.tryNow(click);
    browser.socket.open().end(4504);
    browser.pass(0.1);
  }
  assert.ok(browser.sockets.length - tries <= 6, `${browser.sockets.length - tries} tries in 5 s`);
});

test("a press soon after the last try is heard, and followed by a try when the second is over", () => {
  const browser = new Browser();
  const client = browser.client(Client);
  client.connect();
  browser.pass(0.3);
  browser.socket.open().say(welcome());
  browser.socket.end(4503);
  const tries = browser.sockets.length;
  assert.equal(client.tryNow(click), true);
  assert.equal(client.status.state, "waiting", "it shows that it was heard");
  browser.pass(0.6);
  assert.equal(browser.sockets.length, tries);
  browser.pass(0.2);
  assert.equal(browser.sockets.length, tries + 1);
});

test("a program that asks again and again after the attempts were used up is held to the first step", () => {
  const { browser, client, socket } = connected({ reconnect: { maxAttempts: 1, backoffSeconds: [5], jitter: 0 } });
  socket.end();
  browser.pass(1);
  browser.socket.end();
  assert.equal(client.status.state, "gaveUp");
  const tries = browser.sockets.length;
  for (let second = 0; second < 20; second += 1) {
    client.tryNow();
    if (browser.socket.readyState === 0) browser.socket.end();
    browser.pass(1);
  }
  assert.ok(browser.sockets.length - tries <= 4);
});

test("a token that is refused is asked for, and another one connects", () => {
  const { browser, client, socket } = connected();
  socket.end();
  browser.pass(1);
  browser.socket.open().say({ type: "error", data: { code: "UNAUTHORIZED", message: "the token expired" } });
  browser.socket.end(4502, "INVALID_TOKEN");
  assert.deepEqual(browser.told("tokenNeeded"), [{ code: 4502 }]);
  const end = browser.statuses.at(-1);
  assert.deepEqual([end.remedy, end.detail], ["TOKEN", "UNAUTHORIZED: the token expired"]);
  const tries = browser.sockets.length;
  client.setToken("token-1");
  browser.pass(60);
  assert.equal(browser.sockets.length, tries, "the same token is refused again");
  client.setToken("token-2");
  assert.equal(browser.sockets.length, tries + 1);
  browser.socket.open().say(welcome());
  assert.equal(browser.socket.sent[0].data.token, "token-2");
  assert.equal(client.connected, true);
});

test("a page whose tokens are all refused does not hammer", () => {
  const browser = new Browser();
  const client = browser.client(Client);
  let number = 1;
  client.addEventListener("tokenNeeded", () => client.setToken(`token-${(number += 1)}`));
  client.connect();
  const limit = browser.time + 60_000;
  while (browser.time < limit) {
    if (browser.socket.readyState === 0) browser.socket.open().end(4502);
    browser.pass(0.5);
  }
  assert.ok(browser.sockets.length <= 6, `${browser.sockets.length} tries in a minute`);
});

// -- heartbeats, sleep and silence -------------------------------------------------------------------------

test("a heartbeat goes out every interval, and silence of two and a half ends the connection", () => {
  const { browser, socket } = connected();
  const beats = socket.types.filter((type) => type === "heartbeat").length;
  assert.equal(beats, 12);
  browser.pass(12.4);
  assert.equal(browser.statuses.at(-1).state, "connected");
  browser.pass(2.7);
  assert.equal(browser.statuses.at(-1).state, "waiting");
  assert.equal(socket.closedWith, 4000);
});

test("after a sleep the connection is looked at at once, and a dead one is replaced", () => {
  const { browser, socket } = connected();
  browser.sleep(3600);
  browser.pass(5);
  assert.equal(browser.statuses.at(-1).state, "connected", "silence while asleep proves nothing");
  assert.equal(socket.types.at(-1), "heartbeat");
  browser.pass(PROBE_SECONDS);
  assert.equal(browser.statuses.at(-1).state, "waiting");
  near(browser.statuses.at(-1).seconds, 0.75);
});

test("a connection that survived the sleep is kept", () => {
  const { browser, socket } = connected();
  browser.sleep(600);
  browser.pass(5);
  socket.say({ type: "heartbeat", data: {} });
  live(browser, 30);
  assert.equal(browser.statuses.at(-1).state, "connected");
  assert.equal(browser.sockets.length, 1);
});

test("timers of a hidden page that run once a minute end nothing", () => {
  const { browser, socket } = connected();
  browser.show(false);
  for (let minute = 0; minute < 5; minute += 1) {
    browser.sleep(60);
    live(browser, 5);
    assert.equal(socket.types.at(-1), "heartbeat");
  }
  assert.equal(browser.sockets.length, 1);
  assert.equal(browser.statuses.at(-1).state, "connected");
});

test("a wait does not grow by the time that the laptop slept", () => {
  const { browser, socket } = connected();
  socket.end();
  for (let attempt = 1; attempt <= 3; attempt += 1) {
    browser.pass(browser.statuses.at(-1).seconds + 0.01);
    browser.socket.end();
  }
  assert.ok(browser.statuses.at(-1).seconds > 15);
  const tries = browser.sockets.length;
  browser.sleep(3600);
  browser.pass(5.1);
  assert.equal(browser.sockets.length, tries + 1);
});

test("a clock that is set back neither ends a connection nor stops a wait", () => {
  const { browser, socket } = connected();
  browser.time -= 7200_000;
  for (const timer of browser.timers) timer.at -= 7200_000;
  live(browser, 30);
  assert.equal(browser.statuses.at(-1).state, "connected");
  socket.end();
  browser.time -= 7200_000;
  for (const timer of browser.timers) timer.at -= 7200_000;
  browser.pass(2);
  assert.equal(browser.sockets.length, 2);
});

// -- the browser's hints -----------------------------------------------------------------------------------

test("offline shows at once and uses up no attempts; online tries soon, each client at a moment of its own", () => {
  const { browser, socket } = connected();
  browser.network(false);
  assert.equal(browser.statuses.at(-1).state, "offline");
  socket.end();
  browser.pass(50);
  assert.equal(browser.statuses.at(-1).state, "offline");
  assert.equal(browser.sockets.length, 1);
  browser.network(true);
  const waiting = browser.statuses.at(-1);
  assert.deepEqual([waiting.state, waiting.attempt], ["waiting", 1]);
  assert.ok(waiting.seconds > 0);
  assert.ok(waiting.seconds <= 1.5);
  browser.pass(waiting.seconds + 0.01);
  browser.socket.open().say(welcome());
  assert.equal(browser.statuses.at(-1).state, "connected");
});

test("a wait that the loss of the network interrupts goes on with the same attempt", () => {
  const { browser, socket } = connected();
  socket.end();
  browser.pass(1);
  browser.socket.end();
  assert.equal(browser.statuses.at(-1).attempt, 2);
  browser.network(false);
  browser.pass(30);
  browser.network(true);
  const waiting = browser.statuses.at(-1);
  assert.deepEqual([waiting.state, waiting.attempt], ["waiting", 2]);
  assert.ok(waiting.seconds <= 1.5);
});

test("a browser that is wrong about the network still gets through, now and then a try", () => {
  const browser = new Browser();
  browser.navigator.onLine = false;
  const client = browser.client(Client);
  client.connect();
  assert.equal(browser.sockets.length, 1, "the first try is made whatever the browser believes");
  browser.socket.end();
  assert.equal(browser.statuses.at(-1).state, "offline");
  const before = browser.sockets.length;
  for (let minute = 0; minute < 10; minute += 1) {
    browser.pass(61);
    if (browser.socket.readyState === 0) browser.socket.end();
  }
  const tries = browser.sockets.length - before;
  assert.ok(tries >= 5, `${tries} tries in ten minutes`);
  assert.ok(tries <= 10, `${tries} tries in ten minutes`);
  assert.equal(browser.statuses.at(-1).state, "offline");
  while (browser.socket.readyState !== 0) browser.pass(1);
  browser.socket.open().say(welcome());
  assert.equal(browser.statuses.at(-1).state, "connected");
});

test("a connection that outlives a short loss of the network is kept, and shown again when it is heard", () => {
  const { browser, socket } = connected();
  browser.network(false);
  browser.pass(1);
  browser.network(true);
  assert.equal(browser.statuses.at(-1).state, "offline");
  assert.equal(socket.types.at(-1), "heartbeat");
  socket.say({ type: "heartbeat", data: {} });
  assert.equal(browser.statuses.at(-1).state, "connected");
  assert.equal(browser.sockets.length, 1);
});

test("a connection of the network that was is replaced within moments", () => {
  const { browser } = connected();
  browser.network(false);
  browser.pass(1);
  browser.network(true);
  browser.pass(PROBE_SECONDS);
  assert.equal(browser.statuses.at(-1).state, "waiting");
});

test("the network that comes back is worth a try after the attempts were used up, but not one for each flicker", () => {
  const { browser, socket } = connected({ reconnect: { maxAttempts: 1, backoffSeconds: [5], jitter: 0.3 } });
  socket.end();
  browser.pass(2);
  browser.socket.end();
  assert.equal(browser.statuses.at(-1).state, "gaveUp");
  browser.pass(60);
  const tries = browser.sockets.length;
  browser.network(false);
  assert.equal(browser.statuses.at(-1).state, "gaveUp");
  browser.network(true);
  browser.pass(2);
  assert.equal(browser.sockets.length, tries + 1);
  browser.socket.end();
  for (let flicker = 0; flicker < 20; flicker += 1) {
    browser.network(false);
    browser.network(true);
    browser.pass(0.05);
  }
  assert.equal(browser.sockets.length, tries + 1);
});

test("a page that is shown after long looks at its connection; after a moment it does not", () => {
  const { browser, socket } = connected();
  const before = socket.sent.length;
  browser.show(false);
  browser.pass(1);
  browser.show(true);
  assert.equal(socket.sent.length, before);
  browser.show(false);
  browser.sleep(120);
  browser.show(true);
  assert.equal(socket.sent.length, before + 1);
  browser.pass(PROBE_SECONDS);
  assert.equal(browser.statuses.at(-1).state, "waiting");
});

test("a page that is shown after long does not wait for the rest of a long step", () => {
  const { browser, socket } = connected();
  socket.end();
  browser.pass(1);
  for (let attempt = 2; attempt <= 4; attempt += 1) {
    browser.socket.end();
    browser.pass(browser.statuses.at(-1).seconds + 0.01);
  }
  browser.show(false);
  browser.socket.end();
  browser.pass(12);
  const { attempt } = browser.statuses.at(-1);
  browser.show(true);
  assert.ok(browser.statuses.at(-1).seconds <= 1.5);
  assert.equal(browser.statuses.at(-1).attempt, attempt);
});

test("a page in the bfcache leaves at once, and is there at once when it comes back", () => {
  const { browser, client, socket } = connected();
  browser.page("pagehide", true);
  assert.equal(socket.closedWith, 1000);
  const tries = browser.sockets.length;
  browser.sleep(300);
  browser.pass(120);
  assert.equal(browser.sockets.length, tries);
  browser.page("pageshow", true);
  assert.equal(browser.sockets.length, tries + 1);
  browser.socket.open().say(welcome());
  assert.equal(client.connectionNo, 2);
});

test("the user does not wait", () => {
  const { browser, client, socket } = connected();
  socket.end();
  browser.pass(1);
  browser.socket.end();
  browser.pass(2);
  const tries = browser.sockets.length;
  assert.equal(browser.statuses.at(-1).attempt, 2);
  assert.equal(client.tryNow(), true);
  assert.equal(browser.sockets.length, tries + 1);
  assert.equal(browser.statuses.at(-1).attempt, 2, "no further attempt is used up");
  assert.equal(client.tryNow(), false, "one is under way");
});

test("close ends it in good order, and connect opens it again", () => {
  const { browser, client, socket } = connected();
  client.close();
  client.close();
  assert.equal(socket.closedWith, 1000);
  assert.equal(client.status.state, "idle");
  assert.equal(client.send("mobile_sync_wait"), false);
  browser.network(false);
  browser.network(true);
  browser.pass(600);
  assert.equal(browser.sockets.length, 1);
  assert.equal(browser.timers.length, 0);
  client.connect();
  browser.socket.open().say(welcome());
  assert.equal(client.connected, true);
  assert.equal(browser.socket.sent[0].data.connectionNo, 2);
});

test("a listener that closes the client in the middle of a batch hears no more", () => {
  const { browser, client, socket } = connected();
  client.addEventListener("message", () => client.close());
  socket.say({ type: "one", data: {} }, { type: "two", data: {} });
  assert.deepEqual(browser.told("message").map((one) => one.type), ["one"]);
});

// -- servers that have moved, and servers that the page may not use ----------------------------------------

const settled = () => new Promise((done) => setImmediate(done));

/** A client that knows its servers from the web server, which answers by `lists` in turn (the last one for good). */
async function listed(lists, options = {}) {
  const browser = new Browser({ draw: 0 });
  const asked = [];
  const fetch = async (url) => {
    asked.push(url);
    const list = lists.length > 1 ? lists.shift() : lists[0];
    if (list === null) throw new TypeError("no network");
    return { ok: true, json: async () => ({ socketServers: await list }) };
  };
  const client = browser.client(Client, { url: undefined, endpointsUrl: "/v1/endpoints", fetch, ...options });
  client.connect();
  await settled();
  return { browser, client, asked };
}

/** The wait is over, and what is asked for is answered. */
async function waited(browser) {
  browser.pass(browser.statuses.at(-1).seconds + 0.01);
  await settled();
}

test("when every known server was tried in vain, the web server is asked for others, and attempts count on", async () => {
  const { browser, client, asked } = await listed([[A, B], [C]]);
  browser.socket.open().say(welcome({ endpoints: [A, B] }));
  live(browser, 60);
  browser.socket.end();
  await waited(browser);
  assert.equal(browser.socket.url, A);
  browser.socket.end();
  await waited(browser);
  assert.equal(browser.socket.url, B);
  assert.equal(asked.length, 1, "not before all were tried");
  browser.socket.end();
  assert.equal(browser.statuses.at(-1).attempt, 3);
  assert.equal(asked.length, 1, "nor before the wait is over");
  await waited(browser);
  assert.equal(asked.length, 2);
  assert.equal(browser.socket.url, C);
  assert.deepEqual([browser.statuses.at(-1).state, browser.statuses.at(-1).attempt], ["connecting", 3]);
  browser.socket.open().say(welcome({ endpoints: [C] }));
  assert.equal(client.url, C);
});

test("servers named by hand are tried first, and the list is asked for when they fail", async () => {
  const { browser, asked } = await listed([[C]], { url: [A] });
  assert.deepEqual([browser.socket.url, asked.length], [A, 0]);
  browser.socket.end();
  await waited(browser);
  assert.deepEqual([browser.socket.url, asked.length], [C, 1]);
});

test("a web server that is away, or says nothing, does not stand in the way of the servers that are known", async () => {
  for (const [list, seconds] of [[null, 0], [[], 0], [new Promise(() => {}), ASK_SECONDS]]) {
    const { browser, asked } = await listed([[A], list]);
    browser.socket.end();
    await waited(browser);
    assert.equal(asked.length, 2);
    browser.pass(seconds);
    assert.deepEqual(browser.sockets.map((one) => one.url), [A, A]);
    assert.equal(browser.statuses.at(-1).attempt, 1);
  }
});

test("an answer that comes too late changes nothing", async () => {
  let answer;
  const { browser, client } = await listed([[A], new Promise((resolve) => (answer = resolve))]);
  browser.socket.end();
  await waited(browser);
  browser.pass(ASK_SECONDS);
  browser.socket.open().say(welcome({ endpoints: [A] }));
  answer([C]);
  await settled();
  assert.deepEqual([client.connected, client.url, browser.sockets.length], [true, A, 2]);
});

test("questions are as rare as tries: an end is an end, and a person's try asks once", async () => {
  const { browser, client, asked } = await listed([[A]]);
  browser.socket.end();
  while (client.status.state === "waiting") {
    await waited(browser);
    browser.socket.end();
  }
  assert.equal(client.status.reason, "ATTEMPTS_USED_UP");
  assert.equal(browser.sockets.length, 6, "the first one and five attempts");
  assert.equal(asked.length, 6);
  browser.pass(3600);
  await settled();
  assert.equal(asked.length, 6);
  client.tryNow(click);
  await settled();
  assert.equal(asked.length, 7);
});

test("a page that is shown after long asks where the servers are before it tries", async () => {
  const { browser, asked } = await listed([[A, B], [C]]);
  browser.socket.open().say(welcome());
  live(browser, 60);
  browser.show(false);
  browser.socket.end();
  browser.pass(1);
  browser.socket.end();
  browser.sleep(3600);
  const before = browser.sockets.length;
  browser.show(true);
  await waited(browser);
  assert.equal(asked.length, 2);
  assert.equal(browser.sockets.length, before + 1);
  assert.equal(browser.socket.url, C);
});

function refuse(browser, url, more = {}) {
  const about = { effectiveDirective: "connect-src", disposition: "enforce", blockedURI: url, ...more };
  browser.document.dispatchEvent(Object.assign(new Event("securitypolicyviolation"), about));
}

test("a server that the page's policy refuses is left out, and the next one takes its place without an attempt", () => {
  const { browser, socket } = connected({ endpoints: [A, C, B] });
  socket.say({ type: "migrate", data: { endpoints: [C, B] } });
  socket.end(4006);
  browser.pass(0.2);
  assert.equal(browser.socket.url, C);
  refuse(browser, C);
  assert.equal(browser.socket.url, B);
  assert.equal(browser.statuses.at(-1).state, "connecting");
  assert.equal(browser.statuses.at(-1).migrating, true, "still nothing to shout about");
  browser.socket.open().say(welcome({ endpoints: [C, B] }));
  browser.socket.end();
  for (let attempt = 1; attempt <= 3; attempt += 1) {
    browser.pass(browser.statuses.at(-1).seconds + 0.01);
    assert.notEqual(browser.socket.url, C, "it is not tried again");
    browser.socket.end();
  }
});

test("a policy that makes the constructor throw is the same; what is refused elsewhere on the page is none of ours", () => {
  const browser = new Browser();
  const { WebSocket: Scripted } = browser.options;
  const WebSocket = class extends Scripted {
    constructor(url, protocol) {
      if (url === A) throw new DOMException("refused", "SecurityError");
      super(url, protocol);
    }
  };
  browser.client(Client, { WebSocket }).connect();
  assert.equal(browser.socket.url, B);
  refuse(browser, "https://elsewhere.example/");
  refuse(browser, B, { disposition: "report" });
  refuse(browser, B, { effectiveDirective: "img-src" });
  browser.socket.open().say(welcome());
  assert.deepEqual(browser.states, ["connecting", "connected"]);
});

test("a page that may connect to no server that is left says that it must be loaded anew", async () => {
  const { browser, client, asked } = await listed([[A], [C]]);
  browser.socket.open().say(welcome({ endpoints: [A] }));
  live(browser, 60);
  browser.socket.end();
  await waited(browser);
  browser.socket.end();
  await waited(browser);
  assert.deepEqual([browser.socket.url, asked.length], [C, 2]);
  refuse(browser, C);
  await settled(); // the web server is asked whether there are others
  const end = client.status;
  assert.deepEqual([end.state, end.reason, end.name, end.remedy], ["gaveUp", "BLOCKED", "BLOCKED", "RELOAD"]);
  assert.equal(asked.length, 3);
  assert.equal(browser.timers.length, 0);
});

test("with no web server to load it from, a page is not told to be loaded anew", async () => {
  const { browser, client } = await listed([[A, C], null]);
  browser.socket.end();
  await waited(browser);
  refuse(browser, C);
  while (client.status.state !== "gaveUp") {
    if (browser.socket.readyState === 0) browser.socket.end();
    else await waited(browser);
  }
  assert.equal(client.status.reason, "ATTEMPTS_USED_UP");
});

// -- let in again ------------------------------------------------------------------------------------------

for (const code of [4504, 4508]) {
  test(`whoever was shut out with ${code} comes back when the page knows of it, with all attempts`, () => {
    const { browser, client, socket } = connected();
    socket.end();
    browser.pass(1);
    browser.socket.end(code);
    assert.equal(client.comeBack(), false, "not sooner than the first step");
    browser.pass(8);
    const tries = browser.sockets.length;
    assert.equal(client.comeBack(), true);
    assert.equal(client.comeBack(), false, "one is under way");
    assert.equal(browser.sockets.length, tries + 1);
    assert.ok(!browser.states.includes("idle"));
    browser.socket.end();
    assert.deepEqual([client.status.state, client.status.attempt, client.status.left], ["waiting", 1, 4]);
    browser.pass(client.status.seconds + 0.01);
    browser.socket.open().say(welcome());
    assert.equal(client.connected, true);
    assert.equal(client.comeBack(), false);
  });
}

test("coming back helps nobody whose token is refused, and hammers nowhere", () => {
  const { browser, client, socket } = connected();
  socket.end(4502);
  browser.pass(60);
  assert.equal(client.comeBack(), false);
  const shut = connected();
  shut.socket.end(4504);
  const before = shut.browser.sockets.length;
  for (let tenth = 0; tenth < 600; tenth += 1) {
    shut.client.comeBack();
    if (shut.browser.socket.readyState === 0) shut.browser.socket.open().end(4504);
    shut.browser.pass(0.1);
  }
  assert.ok(shut.browser.sockets.length - before <= 13, `${shut.browser.sockets.length - before} tries in a minute`);
});

// -- who the client is -------------------------------------------------------------------------------------

const hello = (browser) => browser.socket.open().sent[0].data;

test("a reload is the same client, and its connections count on", () => {
  const storage = new Storage();
  const before = new Browser({ storage, draw: 0.1 });
  before.client(Client).connect();
  const first = hello(before);
  before.page("pagehide", false);
  const reloaded = new Browser({ storage, draw: 0.9 });
  reloaded.client(Client).connect();
  const second = hello(reloaded);
  assert.equal(second.clientId, first.clientId);
  assert.equal(second.connectionNo, 2);
});

test("a duplicated tab is a client of its own", () => {
  const original = new Browser({ draw: 0.1 });
  original.client(Client).connect();
  const first = hello(original);
  const copy = new Browser({ storage: new Storage(original.storage.entries), draw: 0.9 });
  copy.client(Client).connect();
  const second = hello(copy);
  assert.notEqual(second.clientId, first.clientId);
  assert.equal(second.connectionNo, 1);
});

test("a tab that was killed begins as a new client, which may always replace the old one", () => {
  const storage = new Storage();
  const killed = new Browser({ storage, draw: 0.1 });
  killed.client(Client).connect();
  const first = hello(killed);
  const restored = new Browser({ storage, draw: 0.9 });
  restored.client(Client).connect();
  assert.notEqual(hello(restored).clientId, first.clientId);
});

test("a page from the bfcache goes on counting where another page of the tab has ended", () => {
  const storage = new Storage();
  const first = new Browser({ storage });
  first.client(Client).connect();
  hello(first);
  first.page("pagehide", true);
  const second = new Browser({ storage });
  const between = second.client(Client);
  between.connect();
  assert.equal(hello(second).connectionNo, 2);
  between.close();
  first.page("pageshow", true);
  assert.equal(hello(first).connectionNo, 3);
});

for (const [what, storage] of [
  ["throws", { getItem: () => { throw new Error("blocked"); }, setItem: () => { throw new Error("blocked"); } }],
  ["holds what is not ours", new Storage({ "examwire.client": '{"clientId":"../..","no":-1,"released":true}' })],
  ["is none", null],
]) {
  test(`a storage that ${what} is no obstacle`, () => {
    const browser = new Browser({ storage });
    browser.client(Client).connect();
    assert.match(hello(browser).clientId, /^[0-9a-f]{16}$/);
    browser.page("pagehide", false);
  });
}

// -- a crowd -----------------------------------------------------------------------------------------------

test("a hall of browsers that a busy server refuses is let in before its attempts are used up", () => {
  // 1,500 browsers lose their connection in one moment; the only server takes 24 handshakes a second and refuses the
  // rest, which a browser cannot tell from an unreachable one. Without the spread, some 50 would be locked out.
  const rate = 24;
  let seed = 7;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const world = new Browser();
  const clients = [];
  for (let number = 0; number < 1500; number += 1) {
    const client = new Client({ ...world.options, window: null, document: null, storage: null, random, url: A });
    clients.push(client);
    client.connect();
    world.socket.open().say(welcome({ endpoints: [A], heartbeatSeconds: 1e6 }));
  }
  world.pass(60);
  const here = [...world.sockets];
  const handled = new Set(here);
  for (const socket of here) socket.end();
  let room = rate;
  let refused = 0;
  for (let tenth = 0; tenth < 1350 && clients.some((one) => !one.connected); tenth += 1) {
    world.pass(0.1);
    room = Math.min(rate, room + rate / 10);
    for (const socket of world.sockets) {
      if (handled.has(socket)) continue;
      handled.add(socket);
      if (room >= 1) {
        room -= 1;
        socket.open().say(welcome({ endpoints: [A], heartbeatSeconds: 1e6 }));
      } else {
        refused += 1;
        socket.end();
      }
    }
    world.sockets = [];
  }
  const out = clients.filter((one) => !one.connected).length;
  assert.ok(refused > 1000, "otherwise this proves nothing");
  assert.equal(out, 0, `${out} of ${clients.length} were locked out; ${(world.time - START) / 1000} s`);
});

// -- an examinee -------------------------------------------------------------------------------------------

const state = (more = {}) => ({
  type: "session_state",
  data: {
    planId: "P001",
    examineeId: "E001",
    socketId: "SOCK001-x1",
    connection: { status: "CONNECTED", version: 5 },
    mobileSync: { status: "NONE", version: 0 },
    reconnect: { count: 0, attempt: 0, exhausted: false },
    version: 5,
    ...more,
  },
});

test("the mobile sync stage is told by version, whatever comes late", () => {
  const { browser, client, socket } = connected({ Class: ExamineeClient });
  socket.say(state());
  assert.equal(client.enterMobileSync(), true);
  assert.equal(socket.types.at(-1), "mobile_sync_wait");
  const about = { planId: "P001", examineeId: "E001", timestamp: "2026-11-22T09:00:00.000Z" };
  socket.say({ type: "mobile_sync_status", data: { ...about, status: "WAITING", deadline: "d", version: 7 } });
  socket.say({ type: "mobile_sync_completed", data: { ...about, status: "COMPLETED", imageUrl: "/c.jpg", version: 9 } });
  socket.say({ type: "mobile_sync_status", data: { ...about, status: "FAILED", reason: "NOT_AN_IMAGE", version: 8 } });
  socket.say(state({ mobileSync: { status: "COMPLETED", imageUrl: "/c.jpg", version: 9 } }));
  assert.deepEqual(browser.told("mobileSync").map((one) => one.status), ["WAITING", "COMPLETED"]);
  assert.equal(client.mobileSync.imageUrl, "/c.jpg");
  assert.equal(browser.told("state").length, 2);
});

test("a message of the proctor is told once, and its confirmation arrives even over a reconnect", () => {
  const { browser, client, socket } = connected({ Class: ExamineeClient });
  const notice = { actionId: "n1", text: "Please sit down.", by: "anna", sentAt: "2026-11-22T09:00:00.000Z" };
  socket.say({ type: "notice", data: notice });
  socket.say(state({ notices: [notice] }));
  assert.deepEqual(browser.told("notice"), [{ ...notice, confirmedAt: null }]);
  socket.end();
  client.confirmNotice("n1");
  browser.pass(1);
  browser.socket.open().say(welcome()).say(state({ notices: [notice] }));
  assert.deepEqual(browser.socket.sent.at(-1), { type: "notice_confirm", data: { actionId: "n1" } });
  assert.equal(browser.told("notice").length, 1);
  assert.ok(client.notices.get("n1").confirmedAt);
});

// What examwire.js makes of silence and sleep, and of the hints of the browser about network and page.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Client, PROBE_SECONDS } from "../../../../actors/pages/static/examwire.js";
import { Browser, connected, live, near, welcome } from "./browser.js";

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

test("a stand-still that is hardly longer than a heartbeat ends nothing", () => {
  const { browser, socket } = connected();
  browser.pass(4.9);
  browser.sleep(9); // 13.9 s after the last answer, which is more than two and a half heartbeats
  browser.pass(0.2);
  assert.equal(browser.statuses.at(-1).state, "connected");
  socket.say({ type: "heartbeat", data: {} });
  live(browser, 30);
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

// The end of a connection: what the server says is one, what person and program may do then, being let in again.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Client } from "../../../../actors/pages/static/examwire.js";
import { Browser, click, connected, welcome } from "./browser.js";

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

test("a token that a web server refuses is asked for once, and the connection goes on", () => {
  const { browser, client } = connected();
  client.tokenRefused();
  client.tokenRefused();
  assert.deepEqual(browser.told("tokenNeeded"), [{ code: 401 }]);
  assert.deepEqual([client.tokenNeeded, client.connected], [true, true]);
  let given = 0;
  client.addEventListener("token", () => (given += 1));
  client.setToken("token-2");
  assert.deepEqual([client.tokenNeeded, given], [false, 1]);
  client.tokenRefused();
  assert.equal(browser.told("tokenNeeded").length, 2, "another one may be refused as well");
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

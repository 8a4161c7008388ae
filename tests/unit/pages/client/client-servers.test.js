// Which servers examwire.js tries: those that have moved, and those that the page may not use.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ASK_SECONDS, Client } from "../../../../actors/pages/static/examwire.js";
import { A, B, Browser, C, click, connected, live, welcome } from "./browser.js";

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

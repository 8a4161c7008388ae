// How examwire.js connects and comes back, on a clock that is turned by hand and sockets that the test answers.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Client, OPEN_SECONDS, ladderSeconds } from "../../../../actors/pages/static/examwire.js";
import { A, B, Browser, C, START, click, connected, near, welcome } from "./browser.js";

// -- connecting --------------------------------------------------------------------------------------------

test("the first frame is hello, with the token, the client and the number of the connection", () => {
  const browser = new Browser();
  browser.client(Client).connect();
  assert.equal(browser.socket.url, A);
  assert.deepEqual(browser.socket.asked, ["examwire.v1", "examwire.token.token-1"]);
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

test("a token that fits no header is shown in the hello only", () => {
  for (const token of ["", "a token", "토큰", "x".repeat(5000)]) {
    const browser = new Browser();
    browser.client(Client, { token }).connect();
    assert.deepEqual(browser.socket.asked, ["examwire.v1"]);
    assert.equal(browser.socket.open().sent[0].data.token, token);
  }
});

test("whoever is told to come later uses up no attempt", () => {
  const browser = new Browser();
  browser.client(Client).connect();
  for (let number = 0; number < 12; number += 1) {
    browser.socket.open().end(1013, "TRY_AGAIN_LATER");
    browser.pass(10);
  }
  assert.equal(browser.sockets.length, 13);
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

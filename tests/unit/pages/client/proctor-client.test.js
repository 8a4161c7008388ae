// A proctor's client of examwire.js: nothing missed and nothing twice over a reconnect, changes in bundles, actions.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ProctorClient, REQUEST_SECONDS, RequestFailed } from "../../../../actors/pages/static/examwire.js";
import { A, Browser, welcome } from "./browser.js";

const AT = "2026-11-22T09:00:00.000Z";
const row = (examineeId, version, status = "CONNECTED") => ({
  examineeId,
  status,
  connection: { status, since: AT, version },
  mobileSync: { status: "NONE", version: 0 },
  reconnect: { count: 0, attempt: 0, exhausted: false },
  version,
});
const snapshot = (rows, part = 1, parts = 1) => ({
  type: "plan_snapshot",
  data: { planId: "P001", examinees: rows, part, parts },
});
const lost = (examineeId, version) => ({
  type: "examinee_disconnected",
  data: { planId: "P001", examineeId, status: "DISCONNECTED", timestamp: AT, reason: "SOCKET_CLOSED", version },
});
const there = (examineeId, version) => ({
  type: "examinee_connected",
  data: { planId: "P001", examineeId, status: "CONNECTED", socketId: "S-1", timestamp: AT, version },
});

function proctor() {
  const browser = new Browser();
  let drawn = 0;
  const client = browser.client(ProctorClient, { url: A, token: "t", random: () => (drawn += 0.0001) % 1 });
  client.connect();
  browser.socket.open().say(welcome({ role: "proctor", heartbeatSeconds: 1000 }));
  return { browser, client, socket: browser.socket };
}

function back(browser) {
  browser.socket.end();
  browser.pass(browser.statuses.at(-1).seconds + 0.01);
  browser.socket.open().say(welcome({ role: "proctor", heartbeatSeconds: 1000 }));
  return browser.socket;
}

test("changes are told in bundles, each examinee once", () => {
  const { browser, client, socket } = proctor();
  socket.say(snapshot([row("E1", 1), row("E2", 2)]));
  socket.say(lost("E1", 3), there("E1", 4), lost("E2", 5));
  assert.deepEqual(browser.told("change"), [], "not before the screen is drawn");
  browser.pass(0.3);
  const [{ changed, gone }] = browser.told("change");
  assert.deepEqual([...changed].sort(), ["E1", "E2"]);
  assert.equal(gone.size, 0);
  assert.equal(client.view.examinees.get("E2").reason, "SOCKET_CLOSED");
  browser.pass(10);
  assert.equal(browser.told("change").length, 1);
});

test("with a screen, a bundle waits for its next frame; a hidden page has none and is told all the same", () => {
  const frames = new Map();
  globalThis.requestAnimationFrame = (work) => frames.set(frames.size + 1, work) && frames.size;
  globalThis.cancelAnimationFrame = (id) => frames.delete(id);
  try {
    const { browser, socket } = proctor();
    socket.say(snapshot([row("E1", 1)]));
    assert.equal(frames.size, 1);
    frames.get(1)();
    assert.equal(browser.told("change").length, 1);
    browser.pass(1);
    assert.equal(browser.told("change").length, 1);
    browser.document.visibilityState = "hidden";
    frames.clear();
    socket.say(lost("E1", 2));
    assert.equal(frames.size, 0);
    browser.pass(0.01);
    assert.equal(browser.told("change").length, 2);
    browser.document.visibilityState = "visible";
    socket.say(there("E1", 3));
    browser.pass(0.3); // hidden before the frame came: the timer behind it tells
    assert.equal(browser.told("change").length, 3);
    assert.equal(frames.size, 0);
  } finally {
    delete globalThis.requestAnimationFrame;
    delete globalThis.cancelAnimationFrame;
  }
});

test("after a reconnect the snapshot tells exactly what happened meanwhile", () => {
  const { browser, client, socket } = proctor();
  socket.say(snapshot([row("E1", 1), row("E2", 2), row("E3", 3)]));
  socket.say(lost("E1", 4));
  browser.pass(0.3);
  assert.equal(client.fresh, true);
  // Meanwhile: E1 came back (6), E2 was lost (7), E3 has left the plan, E4 is new; E2's event was on its way twice.
  const next = back(browser);
  assert.equal(client.fresh, false);
  assert.equal(client.view.examinees.get("E1").status, "DISCONNECTED", "as it was, until the snapshot is there");
  next.say(snapshot([row("E1", 6), row("E2", 7, "DISCONNECTED")], 1, 2));
  assert.equal(client.fresh, false);
  next.say(lost("E2", 7), snapshot([row("E4", 5)], 2, 2));
  assert.equal(client.fresh, true);
  browser.pass(0.3);
  const { changed, gone } = browser.told("change").at(-1);
  assert.deepEqual([...changed].sort(), ["E1", "E2", "E4"]);
  assert.deepEqual([...gone], ["E3"]);
  assert.deepEqual(browser.told("fresh"), [{ fresh: true }, { fresh: false }, { fresh: true }]);
});

test("what is told again changes nothing, and says so", () => {
  const { browser, socket } = proctor();
  socket.say(snapshot([row("E1", 1)]));
  socket.say(lost("E1", 4), lost("E1", 4), there("E1", 2));
  const verdicts = browser.told("message").map((one) => one.verdict);
  assert.deepEqual(verdicts, ["APPLIED", "APPLIED", "DOUBLED", "LATE"]);
  const next = back(browser);
  browser.pass(0.3);
  const before = browser.told("change").length;
  next.say(snapshot([row("E1", 4, "DISCONNECTED")]), lost("E1", 4));
  browser.pass(0.3);
  assert.equal(browser.told("change").length, before);
});

test("rows that cannot be read do not harm those that can", () => {
  const { client, socket } = proctor();
  socket.say(snapshot([row("E1", 1), { examineeId: "E2" }]));
  assert.equal(client.malformed, 1);
  assert.equal(client.view.complete, false);
  socket.say(snapshot([row("E1", 1)]));
  assert.equal(client.view.complete, true);
});

test("an action resolves when it is accepted, each by its own id", async () => {
  const { client, socket } = proctor();
  const readmitted = client.readmit("E1");
  const extended = client.extend("E2", 60);
  const notified = client.notify("E3", "자리에 앉아 주십시오.");
  const removed = client.remove("E4", { reason: "phone" });
  const frames = socket.sent.slice(1);
  assert.deepEqual(
    frames.map(({ type, data: { requestId, ...rest } }) => ({ type, ...rest })),
    [
      { type: "readmit", examineeId: "E1" },
      { type: "extend_mobile_sync", examineeId: "E2", seconds: 60 },
      { type: "notify", examineeId: "E3", text: "자리에 앉아 주십시오." },
      { type: "remove", examineeId: "E4", reason: "phone" },
    ],
  );
  for (const { type, data } of frames.reverse()) {
    socket.say({ type: "accepted", data: { requestType: type, requestId: data.requestId } });
  }
  const types = (await Promise.all([readmitted, extended, notified, removed])).map((one) => one.requestType);
  assert.deepEqual(types, ["readmit", "extend_mobile_sync", "notify", "remove"]);
});

test("actions of different kinds may have the same requestId, and each has its own answer", async () => {
  const { client, socket } = proctor();
  const one = { requestId: "one" };
  const removed = client.remove("E1", one);
  const readmitted = client.readmit("E1", one);
  const refused = assert.rejects(client.readmit("E2", one), { code: "NOT_FOUND" });
  socket.say({ type: "accepted", data: { requestType: "readmit", requestId: "one" } });
  socket.say({ type: "error", data: { requestType: "readmit", requestId: "one", code: "NOT_FOUND", message: "no E2" } });
  socket.say({ type: "accepted", data: { requestType: "remove", requestId: "one" } });
  assert.equal((await readmitted).requestType, "readmit");
  assert.equal((await removed).requestType, "remove");
  await refused;
});

test("an action that is refused says why", async () => {
  const { client, socket } = proctor();
  const refused = client.extend("E9", 5);
  const { requestId } = socket.sent.at(-1).data;
  const message = "must be at least 10";
  const data = { code: "INVALID_FIELD", message, field: "data.seconds", requestType: "extend_mobile_sync", requestId };
  socket.say({ type: "error", data });
  await assert.rejects(refused, (error) => {
    assert.ok(error instanceof RequestFailed);
    assert.deepEqual([error.code, error.detail, error.field, error.requestId], ["INVALID_FIELD", message, "data.seconds", requestId]);
    return true;
  });
});

test("an action without an answer is said again on the next connection, under the same name", async () => {
  const { browser, client, socket } = proctor();
  const removed = client.remove("E1");
  const first = socket.sent.at(-1);
  const next = back(browser);
  assert.deepEqual(next.sent.at(-1), first);
  next.say({ type: "accepted", data: { requestType: "remove", requestId: first.data.requestId } });
  assert.equal((await removed).requestId, first.data.requestId);
  const last = back(browser);
  assert.equal(last.sent.length, 1, "what was answered is not said again");
});

test("an action that nobody answers fails after a while, and one of a client that ended at once", async () => {
  const { browser, client, socket } = proctor();
  const unanswered = assert.rejects(client.readmit("E1"), { code: "TIMEOUT" });
  browser.pass(REQUEST_SECONDS + 0.1);
  await unanswered;
  const ended = assert.rejects(client.readmit("E1"), { code: "FORBIDDEN" });
  socket.end(4506);
  await ended;
});

test("closing rejects what waits, and leaves no timer behind", async () => {
  const { browser, client, socket } = proctor();
  socket.say(snapshot([row("E1", 1)]));
  const waiting = assert.rejects(client.readmit("E1"), { code: "CLOSED" });
  client.close();
  await waiting;
  browser.pass(0.3);
  assert.equal(browser.timers.length, 0);
});

test("a server that stops answering makes the view one that is not current, long before the connection counts as lost", () => {
  const { browser, client, socket } = proctor();
  const answers = (seconds) => {
    for (let passed = 0; passed < seconds; passed += 1) {
      browser.pass(1);
      socket.say({ type: "heartbeat", data: {} });
    }
  };
  socket.say(snapshot([row("E1", 1)]));
  answers(60);
  assert.deepEqual(browser.told("viewStatus"), [], "nothing flickers while it answers");
  browser.pass(4.1);
  const [silent, ...more] = browser.told("viewStatus");
  assert.deepEqual(more, []);
  assert.equal(silent.current, false);
  assert.equal(silent.waitingFor, "server");
  assert.equal(client.connected, true);
  browser.pass(1);
  socket.say(lost("E1", 2));
  assert.deepEqual(client.viewStatus, { current: true, since: null, waitingFor: null });
  // What the server has said itself counts again when it is heard again.
  socket.say({ type: "view_status", data: { current: false, since: AT, waitingFor: "redis" } });
  browser.pass(4.1);
  assert.equal(client.viewStatus.waitingFor, "server");
  socket.say({ type: "heartbeat", data: {} });
  assert.equal(client.viewStatus.waitingFor, "redis");
});

test("a page that stood still asks again before it says that the server does not answer", () => {
  const { browser, client, socket } = proctor();
  socket.say(snapshot([row("E1", 1)]));
  browser.pass(1.1); // it has asked
  browser.sleep(30);
  browser.pass(0.1);
  assert.equal(client.viewStatus.current, true);
  socket.say({ type: "heartbeat", data: {} });
  browser.pass(3);
  assert.equal(client.viewStatus.current, true);
});

test("a connection that is lost while its server is silent leaves no silence behind", () => {
  const { browser, client, socket } = proctor();
  socket.say(snapshot([row("E1", 1)]));
  browser.pass(5);
  assert.equal(client.viewStatus.current, false);
  socket.end();
  assert.equal(client.viewStatus.current, true);
  assert.equal(client.fresh, false);
  browser.pass(10);
  assert.equal(client.viewStatus.current, true);
});

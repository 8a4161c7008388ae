// An examinee's client of examwire.js: the mobile step, messages, the exam's clock, and handing in.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ExamineeClient, HAND_IN_AGAIN_SECONDS, minutesToAnnounce } from "../../../../actors/pages/static/examwire.js";
import { Browser, START, Storage, connected, welcome } from "./browser.js";

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
  const notice = { actionId: "n1", text: "Please sit down.", by: "anna", byName: "박감독", sentAt: "2026-11-22T09:00:00.000Z" };
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

const at = (seconds) => new Date(START + seconds * 1000).toISOString();
const planState = (version, more = {}) => ({ type: "plan_state", data: { planId: "P001", status: "OPEN", version, ...more } });
const FINISHED = { status: "FINISHED", reason: "HANDED_IN", finishedBy: "E001", since: at(50), version: 9 };
const finishes = (socket) => socket.sent.filter(({ type }) => type === "finish").map(({ data }) => data.requestId);

test("the exam's clock goes by the server's time, whatever the clock of the laptop says", () => {
  const wrong = { now: () => 0 }; // this laptop believes that it is 1970
  const { browser, client, socket } = connected({ Class: ExamineeClient, options: wrong, serverTime: at(1000) });
  assert.deepEqual(client.exam, { phase: "UNKNOWN", seconds: null });
  socket.say(planState(1, { status: "SCHEDULED", startsAt: at(1100), endsAt: at(1200), serverTime: at(1060) }));
  assert.deepEqual(client.exam, { phase: "BEFORE", seconds: 40 });
  browser.time += 50_000;
  assert.deepEqual(client.exam, { phase: "RUNNING", seconds: 90 });
  assert.equal(browser.told("plan").length, 1);
});

test("a frame that was long under way does not set the clock back, a new connection does", () => {
  const { browser, client, socket } = connected({ Class: ExamineeClient, serverTime: at(1000) });
  socket.say(planState(1, { endsAt: at(2000), serverTime: at(1000) })); // sent a minute ago
  assert.equal(client.exam.seconds, 940);
  socket.say(planState(2, { endsAt: at(2000), serverTime: at(1061) })); // the welcome was a second under way
  assert.equal(client.exam.seconds, 939);
  socket.end();
  browser.pass(1);
  browser.socket.open().say(welcome({ serverTime: at(1050) }));
  assert.equal(client.exam.seconds, 950);
});

test("an older state of the plan changes nothing", () => {
  const { client, socket } = connected({ Class: ExamineeClient, serverTime: at(0) });
  socket.say(planState(5, { status: "CLOSED" }), planState(4));
  assert.equal(client.exam.phase, "OVER");
});

test("handing in is said once on a connection, and resolves when the server has accepted it", async () => {
  const { client, socket } = connected({ Class: ExamineeClient });
  const asked = [client.finish(), client.finish()];
  const [requestId, ...more] = finishes(socket);
  assert.deepEqual([client.finishing, more], [true, []]);
  socket.say({ type: "accepted", data: { requestType: "finish", requestId: "another" } });
  assert.equal(client.finishing, true);
  socket.say({ type: "accepted", data: { requestType: "finish", requestId } });
  assert.equal(client.finishing, false);
  assert.deepEqual((await Promise.all(asked)).map((answer) => answer.requestId), [requestId, requestId]);
});

test("handing in is said again with the same requestId over a reconnect and a reload, for the same examinee only", () => {
  const storage = new Storage();
  const first = connected({ Class: ExamineeClient, browser: new Browser({ storage }) });
  void first.client.finish();
  const [requestId] = finishes(first.socket);
  first.socket.end();
  first.browser.pass(1);
  first.browser.socket.open().say(welcome());
  assert.deepEqual(finishes(first.browser.socket), [requestId]);
  const reloaded = connected({ Class: ExamineeClient, browser: new Browser({ storage }) });
  assert.deepEqual([finishes(reloaded.socket), reloaded.client.finishing], [[requestId], true]);
  const another = connected({ Class: ExamineeClient, browser: new Browser({ storage }), examineeId: "E002" });
  assert.deepEqual([finishes(another.socket), another.client.finishing], [[], false]);
  reloaded.socket.say(state({ connection: FINISHED })); // "accepted" was lost with its connection
  assert.equal(reloaded.client.finishing, false);
  const later = connected({ Class: ExamineeClient, browser: new Browser({ storage }) });
  assert.deepEqual(finishes(later.socket), []);
});

test("handing in without a connection is said after the welcome", () => {
  const browser = new Browser();
  const client = browser.client(ExamineeClient);
  client.connect();
  void client.finish();
  browser.socket.open().say(welcome());
  assert.equal(finishes(browser.socket).length, 1);
});

test("a server that is busy is told again later, another refusal is final", async () => {
  const { browser, client, socket } = connected({ Class: ExamineeClient });
  const asked = client.finish();
  const [requestId] = finishes(socket);
  const refusal = (code) => ({ type: "error", data: { code, message: "no", requestType: "finish", requestId } });
  socket.say(refusal("TOO_MANY_REQUESTS"));
  browser.pass(HAND_IN_AGAIN_SECONDS);
  assert.deepEqual(finishes(socket), [requestId, requestId]);
  socket.say(refusal("NOT_ALLOWED"));
  await assert.rejects(asked, { code: "NOT_ALLOWED", requestId });
  assert.equal(client.finishing, false);
});

test("the examinee's own name is that of the roster", () => {
  const { client, socket } = connected({ Class: ExamineeClient });
  assert.equal(client.name, null);
  socket.say(state({ name: "김민준" }));
  assert.equal(client.name, "김민준");
});

test("the end of the exam and its going on are told once each", () => {
  const { browser, client, socket } = connected({ Class: ExamineeClient });
  socket.say(state(), state({ connection: FINISHED }), state({ connection: FINISHED }));
  assert.deepEqual(browser.told("finished"), [{ by: "E001", reason: "HANDED_IN", since: at(50) }]);
  assert.deepEqual(client.finished, { by: "E001", reason: "HANDED_IN", since: at(50) });
  socket.say(state());
  assert.equal(client.finished, null);
  assert.equal(browser.told("resumed").length, 1);
});

test("when the exam is over the client says so and stays away, and what was to be handed in is refused", async () => {
  const { browser, client, socket } = connected({ Class: ExamineeClient });
  const asked = client.finish();
  socket.end(4509, "EXAM_OVER");
  browser.pass(600);
  assert.equal(browser.sockets.length, 1);
  assert.deepEqual([client.status.state, client.status.name], ["gaveUp", "EXAM_OVER"]);
  await assert.rejects(asked, { code: "EXAM_OVER" });
  assert.equal(client.finishing, false);
});

test("what was not accepted when the client is closed is said at the next connection", async () => {
  const { browser, client, socket } = connected({ Class: ExamineeClient });
  const asked = client.finish();
  client.close();
  await assert.rejects(asked, { code: "CLOSED" });
  client.connect();
  browser.socket.open().say(welcome());
  assert.deepEqual(finishes(browser.socket), finishes(socket));
});

test("ten and five minutes are announced when they pass, once", () => {
  const passed = [[601, 600], [600, 599], [301, 299.5], [4000, 250], [null, 500], [500, null], [900, 700]];
  assert.deepEqual(passed.map(([before, now]) => minutesToAnnounce(before, now)), [10, null, 5, 5, null, null, null]);
});

const ABOUT = { planId: "P001", examineeId: "E001", by: "E001", timestamp: "2026-11-22T09:00:00.000Z", unconfirmed: [], sent: 0 };
const asks = (socket) => socket.sent.filter(({ type }) => type.startsWith("help_")).map(({ type, data }) => [type, data.requestId]);

test("a request for help is sent until it is recorded, over a reconnect, and told by version", () => {
  const { browser, client, socket } = connected({ Class: ExamineeClient });
  socket.say(state({ noticesVersion: 0 }));
  client.askForHelp(" Page 3 does not load. ");
  client.askForHelp("again"); // one at a time
  const { requestId, text } = client.askingForHelp;
  assert.equal(text, "Page 3 does not load.");
  socket.end();
  browser.pass(1);
  const again = browser.socket.open().say(welcome()).say(state({ noticesVersion: 0 }));
  assert.deepEqual([...asks(socket), ...asks(again)], [["help_request", requestId], ["help_request", requestId]]);
  const help = { requestId, text, since: "2026-11-22T09:00:00.000Z" };
  again.say({ type: "help_requested", data: { ...ABOUT, requestId, help, version: 7 } });
  again.say({ type: "help_taken", data: { ...ABOUT, requestId, by: "kim", help: { ...help, takenBy: "kim" }, version: 9 } });
  again.say({ type: "help_requested", data: { ...ABOUT, requestId, help, version: 7 } }); // comes late
  assert.deepEqual([client.help.takenBy, client.askingForHelp], ["kim", null]);
  again.say(state({ noticesVersion: 11 })); // closed while this client was away
  assert.equal(client.help, null);
  assert.deepEqual(browser.told("help").map((one) => one?.takenBy ?? one?.requestId ?? null), [null, requestId, "kim", null]);
});

test("a request for help is taken back, also over a reconnect", () => {
  const { browser, client, socket } = connected({ Class: ExamineeClient });
  const help = { requestId: "h1", since: "2026-11-22T09:00:00.000Z" };
  socket.say(state({ help, noticesVersion: 7 }));
  socket.end();
  client.cancelHelp();
  browser.pass(1);
  const again = browser.socket.open().say(welcome()).say(state({ help, noticesVersion: 7 }));
  assert.deepEqual(asks(again), [["help_cancel", "h1"]]);
  again.say({ type: "help_closed", data: { ...ABOUT, requestId: "h1", version: 9 } });
  assert.equal(client.help, null);
  client.askForHelp();
  assert.equal(asks(again).at(-1)[0], "help_request");
});

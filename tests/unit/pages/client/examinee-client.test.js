// An examinee's client of examwire.js: the mobile step and messages.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ExamineeClient } from "../../../../actors/pages/static/examwire.js";
import { connected, welcome } from "./browser.js";

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

// A plan as a proctor sees it: what must not count.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decode } from "../../../actors/pages/static/examwire-frames.js";
import { PlanView } from "../../../actors/pages/static/examwire-plan.js";

const event = (type, version, more = {}) => ({ type, data: { planId: "P001", examineeId: "E1", version, ...more } });

test("an event from the future is ignored and what comes later counts", () => {
  let now = 100;
  const view = new PlanView(() => now);
  view.apply(event("examinee_connected", 1000));
  for (const version of [2 ** 53 - 1, 1000 + 200_000 * 256]) {
    assert.equal(view.apply(event("examinee_disconnected", version)), "AHEAD");
  }
  assert.equal(view.apply(event("examinee_disconnected", 1001)), "APPLIED");
  assert.equal(view.ahead, 2);
  assert.equal(view.examinees.get("E1")?.status, "DISCONNECTED");
  now += 3600; // a busy log may have come so far within an hour
  assert.equal(view.apply(event("examinee_connected", 1000 + 200_000 * 256)), "APPLIED");
});

test("an event about a connection without a version, or with none that counts, is no message", () => {
  for (const version of [undefined, null, "7", 7.5, -1, 2 ** 53, true]) {
    const { messages, malformed } = decode(JSON.stringify(event("examinee_connected", version)));
    assert.deepEqual([messages.length, malformed], [0, 1], String(version));
  }
  assert.equal(decode(JSON.stringify(event("examinee_connected", 7))).messages.length, 1);
});

// The rules of one picture's upload (`mobile/upload-rules.js`): what is tried again, when, and what ends it.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  BACKOFF_SECONDS,
  JITTER,
  LAST_TRY_SECONDS,
  after,
  begin,
  causeOf,
  expired,
  hurry,
  restored,
  resume,
  retryAfterSeconds,
  sending,
} from "../../../../actors/pages/static/mobile/upload-rules.js";

const NOW = Date.UTC(2026, 0, 1, 9, 0, 0);
const broken = { kind: "network" };
const answer = (status, more = {}) => ({ kind: "answer", status, ...more });

function failed(times, result, { deadline = null, draw = 0 } = {}) {
  let upload = begin(NOW, deadline);
  for (let done = 0; done < times; done += 1) upload = after(sending(upload), result, NOW, draw);
  return upload;
}

test("a stored picture is the end, with what the server has recorded", () => {
  const upload = after(sending(begin(NOW, NOW + 60_000)), answer(201, { body: { status: "COMPLETED" } }), NOW, 0);
  assert.equal(upload.state, "stored");
  assert.deepEqual(upload.record, { status: "COMPLETED" });
  assert.deepEqual(resume(upload, NOW, null).state, "stored");
});

test("what waits for a proctor waits no more when the permission has ended; what is under way goes on", () => {
  const late = failed(1, answer(409));
  assert.equal(late.state, "late");
  for (const upload of [late, failed(1, answer(403, { body: { code: "REMOVED" } }))]) {
    assert.deepEqual([expired(upload).state, expired(upload).cause], ["refused", "TOKEN"]);
  }
  for (const upload of [sending(begin(NOW, null)), failed(1, broken), failed(1, answer(415))]) {
    assert.deepEqual(expired(upload), upload);
  }
});

test("a broken network is tried again, each time a little later, and the last wait repeats", () => {
  const waits = BACKOFF_SECONDS.map((_, index) => (failed(index + 1, broken).nextAt - NOW) / 1000);
  assert.deepEqual(waits, BACKOFF_SECONDS);
  assert.equal((failed(50, broken).nextAt - NOW) / 1000, BACKOFF_SECONDS.at(-1));
});

test("the jitter spreads a wait to both sides", () => {
  const wait = (draw) => (failed(3, broken, { draw }).nextAt - NOW) / 1000;
  assert.equal(wait(-1), BACKOFF_SECONDS[2] * (1 - JITTER));
  assert.equal(wait(1), BACKOFF_SECONDS[2] * (1 + JITTER));
});

for (const [status, cause] of [
  [408, "STALLED"],
  [425, "BUSY"],
  [429, "BUSY"],
  [500, "SERVER"],
  [502, "SERVER"],
  [503, "SERVER"],
  [504, "SERVER"],
  [507, "STORE"],
]) {
  test(`${status} is ${cause} and is tried again`, () => {
    const upload = failed(1, answer(status));
    assert.equal(upload.cause, cause);
    assert.equal(upload.state, "ready");
    assert.ok(upload.nextAt > NOW);
  });
}

for (const [status, cause] of [
  [400, "REFUSED"],
  [401, "TOKEN"],
  [403, "TOKEN"],
  [404, "REFUSED"],
  [413, "TOO_LARGE"],
  [415, "NOT_A_PICTURE"],
]) {
  test(`${status} is ${cause} and is final, with the server's words`, () => {
    const upload = failed(1, answer(status, { body: { detail: "because" } }));
    assert.equal(upload.state, "refused");
    assert.equal(upload.cause, cause);
    assert.equal(upload.detail, "because");
    assert.equal(hurry(upload, NOW).state, "refused");
    assert.equal(restored(upload, NOW).state, "refused");
  });
}

test("who was removed is told so, which is another thing than a token that has ended", () => {
  const upload = failed(1, answer(403, { body: { code: "REMOVED", detail: "a proctor has removed this examinee" } }));
  assert.deepEqual([upload.state, upload.cause], ["refused", "REMOVED"]);
});

test("409 means too late; with more time the same picture is sent again", () => {
  const upload = failed(1, answer(409), { deadline: NOW + 60_000 });
  assert.equal(upload.state, "late");
  const more = resume(upload, NOW + 5_000, NOW + 90_000);
  assert.deepEqual([more.state, more.nextAt, more.deadline], ["ready", NOW + 5_000, NOW + 90_000]);
});

test("Retry-After is never undercut, whatever the draw and the deadline", () => {
  for (const draw of [-1, -0.5, 0, 0.999]) {
    for (const status of [429, 503]) {
      const upload = failed(1, answer(status, { retryAfter: 7 }), { draw, deadline: NOW + 8_000 });
      assert.ok(upload.nextAt >= NOW + 7_000, `${draw}: ${upload.nextAt - NOW}`);
      assert.ok(upload.nextAt <= NOW + 8_000);
    }
    const short = failed(5, answer(503, { retryAfter: 12 }), { draw });
    assert.ok(short.nextAt >= NOW + 12_000);
  }
});

test("a long wait does not sleep over the deadline", () => {
  const deadline = NOW + 10_000;
  const upload = failed(5, broken, { deadline });
  assert.equal(upload.nextAt, deadline - LAST_TRY_SECONDS * 1000);
});

test("a failure after the deadline ends the tries and keeps the picture for later", () => {
  const upload = after(sending(begin(NOW, NOW + 1_000)), broken, NOW + 1_000, 0);
  assert.equal(upload.state, "late");
  assert.equal(upload.cause, "NETWORK");
});

test("without a known deadline it goes on until the server decides", () => {
  assert.equal(failed(200, broken).state, "ready");
});

test("the network is back: at once, but not before the moment that a busy server has named", () => {
  assert.equal(hurry(failed(4, broken), NOW + 10).nextAt, NOW + 10);
  const busy = failed(1, answer(429, { retryAfter: 30 }));
  assert.equal(hurry(busy, NOW + 10).nextAt, busy.nextAt);
  const due = begin(NOW, null);
  assert.equal(hurry(due, NOW + 10).nextAt, NOW);
});

test("a try that a reload has interrupted is made again", () => {
  const upload = restored(sending(begin(NOW, null)), NOW + 500);
  assert.deepEqual([upload.state, upload.nextAt], ["ready", NOW + 500]);
});

test("what is on its way takes a new deadline without being sent twice", () => {
  const upload = resume(sending(begin(NOW, NOW + 1)), NOW, NOW + 60_000);
  assert.deepEqual([upload.state, upload.deadline], ["sending", NOW + 60_000]);
});

test("why the network failed is told apart", () => {
  assert.equal(causeOf({ kind: "network", offline: true }), "OFFLINE");
  assert.equal(causeOf({ kind: "network", stalled: true }), "STALLED");
  assert.equal(causeOf(broken), "NETWORK");
});

test("Retry-After is read as seconds or as a date, and nonsense is nothing", () => {
  assert.equal(retryAfterSeconds("2", NOW), 2);
  assert.equal(retryAfterSeconds(new Date(NOW + 90_000).toUTCString(), NOW), 90);
  assert.equal(retryAfterSeconds(new Date(NOW - 90_000).toUTCString(), NOW), 0);
  assert.equal(retryAfterSeconds("soon", NOW), null);
  assert.equal(retryAfterSeconds(null, NOW), null);
});

// What the phone's page decides without a browser: codes, devices, sizes of pictures, why there is no camera.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { hindrance, troubleOf } from "../../../../actors/pages/static/phone/camera.js";
import { codeOf, redeem, spaced, timesOf } from "../../../../actors/pages/static/mobile/code.js";
import { deviceOf } from "../../../../actors/pages/static/mobile/device.js";
import { LONG_EDGE, QUALITY, attempts, fitted } from "../../../../actors/pages/static/mobile/picture.js";
import { uploadUrl } from "../../../../actors/pages/static/mobile/upload-request.js";

test("a code is the same however it is typed or pasted", () => {
  const table = JSON.parse(readFileSync(new URL("../../../support/typed_codes.json", import.meta.url), "utf8"));
  for (const [typed, understood] of Object.entries(table.typed)) assert.equal(codeOf(typed), understood ? table.code : null, typed);
  assert.equal(codeOf("https://exam.example/phone#code=ABCDEFGH"), "ABCDEFGH");
  assert.equal(codeOf("https://exam.example/phone#lang=ko&code=abcd-efgh"), "ABCDEFGH");
  assert.equal(spaced("ABCDEFGH"), "ABCD-EFGH");
});

function answering(status, body, headers = {}) {
  return async (url, init) => {
    assert.equal(url, "/v1/phone-codes/ABCDEFGH?deviceId=M-1");
    assert.equal(init.method, "POST");
    return new Response(body === undefined ? "no json" : JSON.stringify(body), { status, headers });
  };
}

test("a redeemed code says for whom, until when, and how wrong our clock is", async () => {
  const deadline = new Date(Date.now() + 90_000 + 3_600_000).toISOString(); // this clock is an hour late
  const review = { captureId: "c1", verdict: "rejected", reason: "BLURRED" };
  const body = { token: "t", planId: "P001", examineeId: "E001", deadline, secondsLeft: 90, challenge: "482193", review };
  const { pass } = await redeem("ABCDEFGH", "M-1", answering(200, body));
  assert.equal(pass.examineeId, "E001");
  assert.deepEqual([pass.challenge, pass.rejected], ["482193", { captureId: "c1", reason: "BLURRED" }]);
  assert.equal(pass.deadline, Date.parse(deadline));
  assert.ok(Math.abs(pass.offset - 3_600_000) < 1000);
});

test("why a code was not redeemed, in one word", async () => {
  const kinds = { 404: "UNKNOWN", 410: "EXPIRED", 429: "BUSY", 500: "SERVER", 503: "SERVER", 400: "REFUSED" };
  for (const [status, kind] of Object.entries(kinds)) {
    const { failure } = await redeem("ABCDEFGH", "M-1", answering(Number(status), { detail: "why" }, { "Retry-After": "17" }));
    assert.deepEqual([failure.kind, failure.retryAfter, failure.detail], [kind, 17, "why"]);
  }
  const removed = await redeem("ABCDEFGH", "M-1", answering(403, { code: "REMOVED", detail: "why" }));
  assert.equal(removed.failure.kind, "REMOVED");
  for (const [status, code] of [[409, "OTHER_DEVICE"], [410, "USED_UP"]]) {
    assert.equal((await redeem("ABCDEFGH", "M-1", answering(status, { code }))).failure.kind, code);
  }
  const dead = async () => {
    throw new TypeError("no network");
  };
  assert.equal((await redeem("ABCDEFGH", "M-1", dead)).failure.kind, "NETWORK");
  assert.equal((await redeem("ABCDEFGH", "M-1", answering(200))).failure.kind, "NETWORK"); // a captive portal's page
});

test("a clock that is right within a second is not corrected, and nonsense is no deadline", () => {
  const now = Date.UTC(2026, 0, 1);
  assert.deepEqual(timesOf(new Date(now + 60_400).toISOString(), 60, now), { deadline: now + 60_400, offset: 0 });
  assert.deepEqual(timesOf("soon", 60, now), { deadline: null, offset: 0 });
  assert.deepEqual(timesOf(undefined, undefined, now), { deadline: null, offset: 0 });
});

test("a picture is made smaller, never larger, and keeps its shape", () => {
  assert.deepEqual(fitted(4032, 3024, LONG_EDGE), [2048, 1536]);
  assert.deepEqual(fitted(3024, 4032, LONG_EDGE), [1536, 2048]);
  assert.deepEqual(fitted(640, 480, LONG_EDGE), [640, 480]);
  assert.deepEqual(fitted(10_000, 1, LONG_EDGE), [2048, 1]);
});

test("what is too large loses quality first, then pixels, and ends", () => {
  const tries = attempts(4000);
  assert.deepEqual(tries[0], { edge: LONG_EDGE, quality: QUALITY });
  for (let at = 1; at < tries.length; at += 1) {
    assert.ok(tries[at].edge < tries[at - 1].edge || tries[at].quality < tries[at - 1].quality);
  }
  assert.ok(tries.at(-1).edge >= 480);
  assert.equal(attempts(300)[0].edge, 300);
  assert.ok(attempts(300).length >= 1);
});

test("why there is no camera, in one word", () => {
  const words = {
    NotAllowedError: "REFUSED",
    SecurityError: "REFUSED",
    NotFoundError: "MISSING",
    OverconstrainedError: "MISSING",
    NotReadableError: "BUSY",
    AbortError: "BUSY",
    TypeError: "FAILED",
  };
  for (const [name, word] of Object.entries(words)) assert.equal(troubleOf({ name }), word);
  assert.equal(troubleOf(undefined), "FAILED");
  assert.equal(hindrance({ isSecureContext: false, navigator: {} }), "INSECURE");
  assert.equal(hindrance({ isSecureContext: true, navigator: {} }), "UNSUPPORTED");
  assert.equal(hindrance({ isSecureContext: true, navigator: { mediaDevices: {} } }), null);
});

test("a user agent says model and system as far as it goes", () => {
  const iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile/15E148";
  assert.deepEqual(deviceOf(iphone), { model: "iPhone", osVersion: "iOS 17.5.1" });
  const galaxy = "Mozilla/5.0 (Linux; Android 14; SM-S918N) AppleWebKit/537.36 Chrome/124.0.0.0 Mobile Safari/537.36";
  assert.deepEqual(deviceOf(galaxy), { model: "SM-S918N", osVersion: "Android 14" });
  const hidden = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/124.0.0.0 Mobile Safari/537.36";
  assert.deepEqual(deviceOf(hidden), { model: "", osVersion: "Android 10" });
  const built = "Mozilla/5.0 (Linux; Android 9; LM-G710 Build/PKQ1.181105.001) AppleWebKit/537.36";
  assert.deepEqual(deviceOf(built), { model: "LM-G710", osVersion: "Android 9" });
  const desktop = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/124.0.0.0 Safari/537.36";
  assert.deepEqual(deviceOf(desktop), { model: "", osVersion: "X11; Linux x86_64" });
  assert.deepEqual(deviceOf(""), { model: "", osVersion: "" });
});

test("an upload goes to the examinee's own place, and says only what is known of the device", () => {
  const url = uploadUrl({ planId: "P001", examineeId: "E001" }, { deviceId: "M-1", model: "", osVersion: "iOS 17 beta&2" });
  assert.equal(url, "/v1/plans/P001/examinees/E001/mobile-sync?deviceId=M-1&osVersion=iOS+17+beta%262");
});

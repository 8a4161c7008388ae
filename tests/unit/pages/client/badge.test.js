// What the badge shows, without a browser: each state has words in both languages and a shape of its own.

import assert from "node:assert/strict";
import { test } from "node:test";

import { appearance, languageOf } from "../../../../actors/pages/static/examwire-badge.js";
import { CLOSE_RULES } from "../../../../actors/pages/static/examwire.js";

const NOW = 1_000_000;
const about = (lang, more = {}) => ({ lang, now: NOW, wasConnected: true, ...more });
const waiting = { state: "waiting", at: NOW + 6500, seconds: 7, attempt: 2, maxAttempts: 5, left: 3, migrating: false };
const gaveUp = (code, name, remedy = "USER") => ({ state: "gaveUp", reason: "CLOSE_CODE", code, name, remedy, detail: null });

test("a wait tells the attempt and counts down beside the words that are read out", () => {
  const { text, aside, button } = appearance(waiting, about("en"));
  assert.equal(text, "Connection lost. Reconnecting…");
  assert.equal(aside, "Attempt 2 of 5 · Next attempt in 7 s");
  assert.equal(button, "Try now");
  const later = appearance(waiting, about("en", { now: NOW + 3000 }));
  assert.equal(later.text, text, "the words do not change each second");
  assert.match(later.aside, /in 4 s/);
  assert.equal(appearance(waiting, about("ko")).aside, "5회 중 2회째 시도 · 7초 후 다시 시도합니다");
});

test("the first connection is no loss", () => {
  const status = { state: "connecting", attempt: 0, maxAttempts: 5, migrating: false };
  assert.deepEqual(appearance(status, about("en", { wasConnected: false })), {
    look: "connecting",
    text: "Connecting…",
    aside: "",
    button: "",
  });
});

test("every end has words in both languages, and a button only where pressing it may help", () => {
  for (const [code, { name, reconnect }] of CLOSE_RULES) {
    if (reconnect) continue;
    const texts = ["en", "ko"].map((lang) => appearance(gaveUp(code, name), about(lang)).text);
    assert.ok(texts.every(Boolean), name);
    assert.notEqual(texts[0], texts[1], name);
  }
  assert.equal(appearance(gaveUp(4502, "INVALID_TOKEN", "TOKEN"), about("en")).button, "");
  assert.equal(appearance(gaveUp(4503, "REPLACED"), about("en")).button, "Continue here");
  assert.match(appearance(gaveUp(4504, "RECONNECT_LIMIT_EXCEEDED"), about("en")).text, /Ask the proctor/);
  const blocked = appearance({ ...gaveUp(null, "BLOCKED", "RELOAD"), reason: "BLOCKED" }, about("en"));
  assert.match(blocked.text, /Reload this page/);
  assert.equal(blocked.button, "", "it is somebody else's page");
  for (const reason of ["ATTEMPTS_USED_UP", "ALWAYS_BUSY"]) {
    const end = { ...gaveUp(null, reason), reason };
    assert.match(appearance(end, about("en")).text, /try again/);
  }
});

test("no two states look the same without their colour", () => {
  const states = [{ state: "idle" }, { state: "connected" }, { state: "offline" }, waiting, gaveUp(4503, "REPLACED")];
  assert.equal(new Set(states.map((one) => appearance(one, about("en")).look)).size, states.length);
});

test("the language is the first of those wanted that there is", () => {
  assert.equal(languageOf([null, "ko-KR", "en"]), "ko");
  assert.equal(languageOf(["fr", undefined, "en-GB"]), "en");
  assert.equal(languageOf(["fr"]), "en");
});

test("the exam's clock is beside the words, and before the start nothing is said of a loss in red", () => {
  const connected = { state: "connected", serverId: "S" };
  const shown = (phase, seconds, status = connected) => appearance(status, about("en", { exam: { phase, seconds } }));
  assert.deepEqual([shown("RUNNING", 5025).text, shown("RUNNING", 5025).aside], ["Connected", "1:23:45 left"]);
  assert.equal(shown("RUNNING", 60, waiting).aside, "1:00 left · Attempt 2 of 5 · Next attempt in 7 s");
  assert.deepEqual([shown("BEFORE", 723).text, shown("BEFORE", 723).aside], ["Connected. The exam has not begun.", "Starts in 12:03"]);
  assert.deepEqual([shown("GRACE", 59.2).text, shown("GRACE", 59.2).aside], ["Connected. The time is up.", "1:00 left to hand in"]);
  assert.equal(shown("RUNNING", null).aside, "");
});

test("after the end only the end is shown, whatever the connection does", () => {
  for (const endReason of ["HANDED_IN", "DECIDED", "PLAN_ENDED"]) {
    for (const status of [{ state: "offline" }, waiting, gaveUp(4509, "EXAM_OVER")]) {
      const [en, ko] = ["en", "ko"].map((lang) => appearance(status, about(lang, { endReason, exam: { phase: "RUNNING", seconds: 9 } })));
      assert.deepEqual([en.look, en.aside, en.button], ["over", "", ""]);
      assert.ok(en.text && ko.text && en.text !== ko.text);
    }
  }
});

// What an examinee is told in which state of the connection (`examinee/connection-texts.js`), and that both languages have words.

import assert from "node:assert/strict";
import { test } from "node:test";

import { CLOSE_RULES } from "../../../../actors/pages/static/examwire.js";
import { isPatient, viewOf } from "../../../../actors/pages/static/examinee/connection-texts.js";
import { texts as examineeEn } from "../../../../actors/pages/static/examinee/texts.en.js";
import { texts as examineeKo } from "../../../../actors/pages/static/examinee/texts.ko.js";
import { texts as phoneEn } from "../../../../actors/pages/static/phone/texts.en.js";
import { texts as phoneKo } from "../../../../actors/pages/static/phone/texts.ko.js";

const trying = { attempt: 2, maxAttempts: 5, migrating: false };
const ended = (name, code = 4500) => ({ state: "gaveUp", reason: "CLOSE_CODE", code, name, remedy: "USER", detail: null });

test("in means in: a welcome alone is not shown as connected", () => {
  assert.equal(viewOf({ state: "connected", serverId: "S" }, false).key, "connecting");
  const view = viewOf({ state: "connected", serverId: "S" }, true);
  assert.deepEqual([view.key, view.tone, view.icon], ["connected", "good", "good"]);
  // A server whose state is away: the examinee may go on, but nobody says that the proctor sees it.
  const silent = viewOf({ state: "connected", serverId: "S" }, true, false, false);
  assert.deepEqual([silent.key, silent.tone], ["unrecorded", "good"]);
  assert.ok(isPatient("unrecorded", viewOf({ state: "waiting", seconds: 1, at: 0, left: 4, ...trying }, true)));
});

test("a loss says when it is tried again, and lets a person try now", () => {
  const view = viewOf({ state: "waiting", seconds: 7, at: 0, left: 3, ...trying }, true);
  assert.deepEqual([view.key, view.button, view.next], ["lost", "now", "in"]);
  assert.equal(viewOf({ state: "connecting", ...trying }, true).next, "now");
});

test("being moved to another server is nothing to shout about", () => {
  for (const state of ["waiting", "connecting"]) {
    const view = viewOf({ state, seconds: 0, at: 0, left: 4, ...trying, migrating: true }, true);
    assert.deepEqual([view.key, view.tone], ["moving", "info"]);
    assert.ok(isPatient("connected", view));
  }
});

test("a short loss is not shown, an end at once", () => {
  assert.ok(isPatient("connected", viewOf({ state: "waiting", seconds: 1, at: 0, left: 4, ...trying }, true)));
  assert.ok(!isPatient("lost", viewOf({ state: "connecting", ...trying }, true)));
  assert.ok(!isPatient("connected", viewOf(ended("REPLACED"), true)));
  assert.ok(!isPatient("connected", viewOf({ state: "offline" }, true)));
});

test("while nothing can be recorded nobody says that the proctor sees it", () => {
  const view = viewOf({ state: "connected", serverId: "S" }, true, false, true, false);
  assert.deepEqual([view.key, view.tone], ["behind", "warn"]);
  assert.ok(isPatient("behind", viewOf({ state: "waiting", seconds: 1, at: 0, left: 4, ...trying }, true)));
});

test("whoever is asked for by a token that has expired waits for nothing, but gives another one", () => {
  const expired = (status) => viewOf(status, true, false, true, true, true);
  for (const status of [ended("REMOVED"), ended("RECONNECT_LIMIT_EXCEEDED"), { ...ended("X"), reason: "ATTEMPTS_USED_UP" }]) {
    const { key, asksToken, asks } = expired(status);
    assert.deepEqual([key, asksToken, asks], ["token", true, null]);
  }
  assert.equal(expired(ended("REPLACED")).key, "replaced");
  assert.deepEqual([expired({ state: "connected", serverId: "S" }).key, expired({ state: "connected" }).asksToken], ["renew", true]);
  assert.equal(expired({ state: "connecting", ...trying }).key, "lost");
});

test("each end says what to do", () => {
  assert.deepEqual(pick(ended("RECONNECT_LIMIT_EXCEEDED")), ["exhausted", "again", false, "shut"]);
  assert.deepEqual(pick(ended("REMOVED")), ["removed", null, false, "shut"]);
  assert.deepEqual(pick(ended("REPLACED")), ["replaced", "here", false, null]);
  assert.deepEqual(pick(ended("INVALID_TOKEN")), ["token", null, true, null]);
  const early = { ...ended("TOKEN_NOT_YET_VALID", 4010), reason: "ATTEMPTS_USED_UP" };
  assert.deepEqual(pick(early), ["early", "again", true, null]);
  assert.deepEqual(pick({ ...ended("ATTEMPTS_USED_UP"), reason: "ATTEMPTS_USED_UP", code: null }), [
    "unreachable",
    "again",
    false,
    "dead",
  ]);
  const blocked = { ...ended("BLOCKED"), reason: "BLOCKED", code: null, remedy: "RELOAD" };
  assert.deepEqual(pick(blocked), ["outdated", "reload", false, "dead"]);
  assert.deepEqual(pick({ ...ended("TOO_LARGE", 1009), remedy: "NONE" }), ["broken", null, false, null]);
});

function pick(status) {
  const { key, button, asksToken, asks } = viewOf(status, true);
  return [key, button, asksToken, asks];
}

test("whoever used up the attempts and is shut out by now is told to see the proctor", () => {
  const status = { ...ended("ATTEMPTS_USED_UP"), reason: "ATTEMPTS_USED_UP", code: null };
  const { key, asks } = viewOf(status, false, true);
  assert.deepEqual([key, asks], ["exhausted", "shut"]);
});

test("every state and every close code has words in both languages", () => {
  const statuses = [
    { state: "idle" },
    { state: "offline" },
    { state: "connected", serverId: "S" },
    { state: "connecting", ...trying, attempt: 0 },
    { state: "connecting", ...trying },
    { state: "waiting", seconds: 1, at: 0, left: 1, ...trying },
    { state: "waiting", seconds: 1, at: 0, left: 1, ...trying, migrating: true },
    { ...ended("BLOCKED"), reason: "BLOCKED", code: null, remedy: "RELOAD" },
    ...[...CLOSE_RULES.entries()].map(([code, { name }]) => ended(name, code)),
  ];
  for (const status of statuses) {
    const { key, button } = viewOf(status, true);
    for (const texts of [examineeEn, examineeKo]) {
      assert.ok(texts[`${key}.title`] && texts[`${key}.text`], key);
      assert.ok(button === null || texts[`button.${button}`], String(button));
    }
  }
});

for (const [page, en, ko] of [
  ["examinee", examineeEn, examineeKo],
  ["phone", phoneEn, phoneKo],
]) {
  test(`${page}: both languages have the same texts with the same parameters`, () => {
    assert.deepEqual(Object.keys(ko).sort(), Object.keys(en).sort());
    for (const [key, text] of Object.entries(en)) {
      assert.equal(typeof ko[key], typeof text, key);
      assert.deepEqual(parameters(ko[key]), parameters(text), key);
    }
  });
}

function parameters(text) {
  const form = typeof text === "string" ? text : text.other;
  return [...form.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();
}

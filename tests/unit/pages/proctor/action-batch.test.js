// Readmitting many at once: who, how fast, and what is said of it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { useTexts } from "../../../../actors/pages/static/common/i18n.js";
import { texts as en } from "../../../../actors/pages/static/proctor/locales/en.js";
import { AT_ONCE, PER_SECOND, ActionBatch } from "../../../../actors/pages/static/proctor/several/batch.js";
import { summaryOf, namesOf } from "../../../../actors/pages/static/proctor/several/several.js";

useTexts({ en });

/** @typedef {import("../../../../actors/pages/static/proctor/several/batch.js").Answer} Answer */

const ids = (/** @type {number} */ n) => Array.from({ length: n }, (_, k) => `E${k + 1}`);
const settled = () => new Promise((resolve) => setImmediate(resolve));

/**
 * A plan in which these are shut out, a server that answers when it is told to, and a clock.
 * @param {import("node:test").TestContext} context
 * @param {string[]} shutOut
 */
function plan(context, shutOut) {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  let now = 0;
  let made = 0;
  const it = {
    ready: true,
    /** @type {Map<string, any>} */ states: new Map(shutOut.map((id) => [id, "exhausted"])),
    /** @type {{examineeId: string, requestId: string, answer: (answer: Answer) => void}[]} */ asked: [],
    readmission: /** @type {ActionBatch} */ (/** @type {unknown} */ (null)),
    /** @param {number} milliseconds */
    pass(milliseconds) {
      for (let passed = 0; passed < milliseconds; passed += 1) {
        now += 1;
        context.mock.timers.tick(1);
      }
    },
    /** Whoever is asked for is readmitted; @param {(id: string) => Answer} [answer] unless it says otherwise */
    async answer(answer = () => ({ outcome: "accepted", why: "" })) {
      for (const one of it.asked.splice(0)) {
        const given = answer(one.examineeId);
        if (given.outcome === "accepted") it.states.set(one.examineeId, "readmitted");
        one.answer(given);
      }
      await settled();
    },
    line: () => summaryOf(it.readmission, it.ready),
  };
  it.readmission = new ActionBatch({
    kind: "readmit",
    ask: (examineeId, requestId) => new Promise((answer) => it.asked.push({ examineeId, requestId, answer })),
    state: (id) => it.states.get(id) ?? null,
    ready: () => it.ready,
    changed: () => {},
    newId: () => `action-${(made += 1)}`,
    now: () => now,
  });
  return it;
}

test("only who is shut out by the attempt limit is offered: not the removed, the lost, the unknown", (context) => {
  const it = plan(context, ["E1", "E2"]);
  it.states.set("E3", "removed").set("E4", "lost").set("E5", "connected");
  assert.deepEqual(it.readmission.candidates(["E1", "E3", "E4", "E5", "E6", "E2"]), ["E1", "E2"]);
  it.readmission.add(["E1", "E3"]);
  assert.deepEqual(it.asked.map((one) => one.examineeId), ["E1"]);
  assert.deepEqual(it.readmission.candidates(["E1", "E2"]), ["E2"], "who is in hand is not offered twice");
});

test("300 are asked for once each, a few unanswered at a time, at a rate below the server's", async (context) => {
  const it = plan(context, ids(300));
  it.readmission.add(ids(300));
  assert.equal(it.asked.length, AT_ONCE);
  it.pass(5000);
  assert.equal(it.asked.length, AT_ONCE, "nothing more without an answer");
  /** @type {Map<string, number>} */
  const times = new Map();
  let passed = 0;
  while (!it.readmission.over) {
    for (const { examineeId } of it.asked) times.set(examineeId, (times.get(examineeId) ?? 0) + 1);
    await it.answer();
    it.pass(10);
    passed += 10;
    assert.ok(times.size <= 2 * AT_ONCE + (passed * PER_SECOND) / 1000, `${times.size} in ${passed} ms`);
    assert.ok(passed < 20_000, "it does not end");
  }
  assert.deepEqual([times.size, Math.max(...times.values())], [300, 1]);
  assert.equal(it.line(), "300 readmitted");
});

test("who was removed or let in by somebody else before the turn came is left alone", async (context) => {
  const it = plan(context, ids(AT_ONCE + 3));
  it.readmission.add(ids(AT_ONCE + 3));
  it.states.set(`E${AT_ONCE + 1}`, "removed").set(`E${AT_ONCE + 2}`, "readmitted");
  await it.answer();
  it.pass(1000);
  assert.deepEqual(it.asked.map((one) => one.examineeId), [`E${AT_ONCE + 3}`]);
  await it.answer();
  assert.equal(it.line(), `${AT_ONCE + 1} readmitted, 2 unchanged: no longer shut out`);
});

test("those refused are named with the reason, and tried again with the same action", async (context) => {
  const it = plan(context, ids(4));
  it.readmission.add(ids(4));
  const before = new Map(it.asked.map((one) => [one.examineeId, one.requestId]));
  await it.answer((id) => (id < "E3" ? { outcome: "refused", why: "no examinee" } : { outcome: "accepted", why: "" }));
  assert.equal(it.line(), "2 readmitted, 2 refused: E1, E2 (no examinee)");
  it.readmission.again();
  it.pass(1000);
  assert.deepEqual(it.asked.map((one) => [one.examineeId, one.requestId]), [["E1", before.get("E1")], ["E2", before.get("E2")]]);
  await it.answer();
  assert.equal(it.line(), "4 readmitted");
});

test("without a connection nothing is sent; the rest follows once the plan is known again", async (context) => {
  const it = plan(context, ids(AT_ONCE + 2));
  it.readmission.add(ids(AT_ONCE + 2));
  it.ready = false;
  await it.answer(); // what was on its way
  it.pass(60_000);
  assert.equal(it.asked.length, 0);
  assert.equal(it.line(), `${AT_ONCE} of ${AT_ONCE + 2} readmitted; continues when this page is connected again`);
  it.ready = true;
  it.readmission.goOn();
  assert.equal(it.asked.length, 2);
});

test("what is not answered stays open, until the plan shows what became of it", async (context) => {
  const it = plan(context, ids(3));
  it.readmission.add(ids(3));
  const first = it.asked[1].requestId;
  await it.answer(() => ({ outcome: "unknown", why: "no answer" }));
  assert.equal(it.line(), "0 readmitted, 3 without an answer: E1, E2, E3");
  assert.deepEqual(it.readmission.candidates(ids(3)), [], "a new action for them could be a second one");
  it.states.set("E1", "connected").set("E3", "removed");
  it.readmission.goOn();
  assert.equal(it.line(), "1 readmitted, 1 without an answer: E2, 1 unchanged: no longer shut out");
  it.readmission.again();
  it.pass(1000);
  assert.deepEqual(it.asked.map((one) => one.requestId), [first]);
});

test("what is in the log counts as done when it is in effect, and not before", async (context) => {
  const it = plan(context, ["E1"]);
  it.readmission.add(["E1"]);
  it.asked[0].answer({ outcome: "accepted", why: "" });
  await settled();
  assert.equal(it.line(), "0 readmitted, 1 recorded, but not in effect yet");
  assert.deepEqual([it.readmission.answered, it.readmission.over], [true, false]);
  it.states.set("E1", "readmitted");
  it.readmission.goOn();
  assert.equal(it.line(), "1 readmitted");
  it.states.set("E1", "exhausted");
  it.readmission.goOn();
  assert.equal(it.line(), "1 readmitted", "shut out once more is another matter");
  it.readmission.add(["E1"]);
  assert.deepEqual(it.asked.map((one) => one.requestId), ["action-1", "action-2"]);
});

test("more can be added while it is under way, and what was read can be put away", async (context) => {
  const it = plan(context, ids(4));
  it.readmission.add(["E1", "E2"]);
  it.readmission.dismiss();
  assert.equal(it.readmission.size, 2, "not while it is under way");
  it.readmission.add(["E2", "E3"]);
  assert.equal(it.line(), "0 of 3 readmitted …");
  await it.answer();
  it.readmission.add(["E4"]);
  assert.equal(it.readmission.size, 1, "those who are done are not counted again");
  await it.answer();
  it.readmission.dismiss();
  assert.equal(it.readmission.size, 0);
});

test("many names are cut short", () => {
  assert.equal(namesOf(["E1", "E2"]), "E1, E2");
  assert.equal(namesOf(ids(40)), "E1, E2, E3, E4, E5 and 35 more");
});

// The rules of examwire.js against those of protocol/: the same walks, made and answered by Python
// (tests/unit/support/reconnect_vectors.py), must end in the same states, steps, verdicts and views.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as rules from "../../../../actors/pages/static/examwire.js";

const path = process.env.EXAMWIRE_VECTORS;
const vectors = path ? JSON.parse(readFileSync(path, "utf8")) : null;
const options = { skip: vectors ? false : "pytest tests/unit/pages/test_js.py makes the vectors" };

/** Floats may differ by the order of operations; everything else is the same. */
function assertSame(actual, expected, where) {
  if (typeof expected === "number" && typeof actual === "number") {
    const most = 1e-9 * Math.max(1, Math.abs(expected));
    assert.ok(Math.abs(actual - expected) <= most, `${where}: ${actual} instead of ${expected}`);
  } else if (typeof expected === "object" && expected !== null) {
    assert.ok(typeof actual === "object" && actual !== null, `${where}: ${actual} instead of ${JSON.stringify(expected)}`);
    for (const key of Object.keys(expected)) assertSame(actual[key], expected[key], `${where}.${key}`);
    if (Array.isArray(expected)) assert.equal(actual.length, expected.length, `${where}: another length`);
  } else assert.equal(actual, expected, where);
}

test("the constants are the same", options, () => {
  assert.ok(Object.keys(vectors.constants).length >= 4);
  for (const [name, value] of Object.entries(vectors.constants)) assert.equal(rules[name], value, name);
});

test("the close codes are the same, each with its name and its rule", options, () => {
  const ours = Object.fromEntries([...rules.CLOSE_RULES].map(([code, rule]) => [String(code), { ...rule }]));
  assert.deepEqual(ours, vectors.closeRules);
  for (const [code, expected] of vectors.mayReconnect) assert.equal(rules.mayReconnect(code), expected, String(code));
});

test("an address becomes the same URL", options, () => {
  for (const [given, expected] of vectors.connectUrl) assert.equal(rules.connectUrl(given), expected);
});

test("every walk through losses, refusals, migrations and welcomes goes the same way", options, () => {
  const seen = new Set();
  for (const [number, walk] of vectors.walks.entries()) {
    let state = rules.beginning([walk.first]);
    for (const [index, { do: what, ...given }] of walk.steps.entries()) {
      const where = `walk ${number}, step ${index} (${JSON.stringify(given.happened ?? what)})`;
      if (what === "welcomed") state = rules.welcomed(given.url, given.endpoints, given.policy);
      else if (what === "sentAway") state = rules.sentAway(state, given.endpoints);
      else {
        let step;
        [state, step] = rules.after(state, given.happened, given.draw);
        assertSame(step, given.step, where);
        assert.deepEqual(Object.keys(step).sort(), Object.keys(given.step).sort(), where);
        seen.add(step.kind === "giveUp" ? step.reason : step.kind);
      }
      assertSame({ ...state, ring: rules.ring(state) }, given.state, where);
    }
  }
  // Otherwise the walks would prove less than they seem to.
  assert.deepEqual([...seen].sort(), ["ALWAYS_BUSY", "ATTEMPTS_USED_UP", "CLOSE_CODE", "HTTP_STATUS", "wait"]);
});

test("every order of snapshots and events ends in the same view, verdict by verdict", options, () => {
  const seen = new Set();
  for (const [number, { messages, verdicts, looks }] of vectors.views.entries()) {
    const view = new rules.PlanView();
    for (const [index, message] of messages.entries()) {
      const where = `view ${number}, message ${index} (${message.type})`;
      assert.equal(view.apply(message), verdicts[index], where);
      seen.add(verdicts[index]);
      if (!(index in looks)) continue;
      const { examinees, planNotices, ...counts } = looks[index];
      assertSame(view, counts, where);
      assert.deepEqual([...view.planNotices], planNotices, where);
      assert.deepEqual([...view.examinees.keys()].sort(), Object.keys(examinees).sort(), where);
      for (const [id, expected] of Object.entries(examinees)) assertSame(view.examinees.get(id), expected, `${where} ${id}`);
    }
  }
  assert.deepEqual([...seen].sort(), ["APPLIED", "COVERED", "DOUBLED", "LATE", "OTHER"]);
});

test("a moment is in the same phase of the exam, and as far from the next", options, () => {
  const seen = new Set();
  for (const [number, { plan, now, at }] of vectors.moments.entries()) {
    assertSame(rules.examAt(plan, now), at, `moment ${number} (${JSON.stringify(plan)} at ${now})`);
    seen.add(at.phase);
  }
  assert.deepEqual([...seen].sort(), ["BEFORE", "GRACE", "OVER", "RUNNING", "UNKNOWN"]);
});

test("what a view says has changed is what looks different, and nothing that changed is left out", options, () => {
  const look = (view) =>
    new Map([...view.examinees].map(([id, { versionFromEvent: _, mobileSyncFromEvent: __, noticesFromEvent: ___, ...rest }]) => [id, rest]));
  for (const { messages } of vectors.views) {
    const view = new rules.PlanView();
    let before = look(view);
    let planBefore = JSON.stringify([view.plan, ...view.planNotices]);
    for (const message of messages) {
      view.apply(message);
      const now = look(view);
      const { changed, gone, plan } = view.takeChanges();
      const planNow = JSON.stringify([view.plan, ...view.planNotices]);
      assert.equal(plan, planNow !== planBefore, `the plan after ${message.type}`);
      planBefore = planNow;
      for (const [id, looks] of now) {
        if (!before.has(id)) assert.ok(changed.has(id), `${id} is new`);
        else if (JSON.stringify({ ...looks, lastActiveTime: 0 }) !== JSON.stringify({ ...before.get(id), lastActiveTime: 0 })) {
          assert.ok(changed.has(id), `${id} looks different after ${message.type}`);
        }
      }
      for (const id of before.keys()) assert.equal(gone.has(id), !now.has(id), `${id} gone`);
      before = now;
    }
  }
});

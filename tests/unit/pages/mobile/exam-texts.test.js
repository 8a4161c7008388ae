// What an examinee is told in which phase of the exam (`examinee/exam-texts.js`).

import assert from "node:assert/strict";
import { test } from "node:test";

import { viewOf } from "../../../../actors/pages/static/examinee/connection-texts.js";
import { clockView, viewInExam } from "../../../../actors/pages/static/examinee/exam-texts.js";
import { texts } from "../../../../actors/pages/static/examinee/texts.en.js";

const trying = { attempt: 2, maxAttempts: 5, migrating: false };
const STATUSES = [
  { state: "idle" },
  { state: "connected", serverId: "S" },
  { state: "connecting", ...trying },
  { state: "waiting", seconds: 7, at: 0, left: 3, ...trying },
  { state: "offline" },
  ...["REPLACED", "EXAM_OVER", "REMOVED", "INVALID_TOKEN"].map((name) => ({ state: "gaveUp", reason: "CLOSE_CODE", code: 4500, name, remedy: "USER", detail: null })),
  { state: "gaveUp", reason: "ATTEMPTS_USED_UP", code: null, name: "ATTEMPTS_USED_UP", remedy: "USER", detail: null },
];
const views = STATUSES.map((status) => viewOf(status, true));

test("nothing is red before the start", () => {
  assert.ok(views.some((view) => view.tone === "bad"));
  for (const view of views) {
    const { key, tone, ...rest } = viewInExam(view, "BEFORE", null);
    assert.notEqual(tone, "bad", key);
    assert.deepEqual(rest, (({ key: _, tone: __, ...others }) => others)(view), "what can be done about it stays");
    assert.ok(texts[`${key}.title`] && texts[`${key}.text`], key);
  }
  assert.equal(viewInExam(viewOf(STATUSES[1], true), "BEFORE", null).key, "waiting");
});

test("after the end the page says so, whatever the connection does", () => {
  for (const [reason, key] of [["HANDED_IN", "finished"], ["DECIDED", "decided"], ["PLAN_ENDED", "over"]]) {
    for (const view of views) {
      const end = viewInExam(view, "RUNNING", reason);
      assert.deepEqual([end.key, end.tone, end.asks, end.button], [key, "good", null, null]);
    }
    assert.ok(texts[`${key}.title`] && texts[`${key}.text`], key);
  }
});

test("while the exam runs the connection is shown as it is", () => {
  for (const view of views) for (const phase of ["RUNNING", "GRACE", "UNKNOWN"]) assert.deepEqual(viewInExam(view, phase, null), view);
});

test("each phase has its clock, and texts that exist", () => {
  const plan = { status: "OPEN", startsAt: "2026-11-22T09:00:00Z", endsAt: "2026-11-22T11:00:00Z" };
  const shown = (phase, seconds) => clockView({ phase, seconds }, plan);
  assert.deepEqual(shown("BEFORE", 60).at, plan.startsAt);
  assert.deepEqual([shown("RUNNING", 301).tone, shown("RUNNING", 300).tone], ["info", "warn"]);
  assert.equal(shown("UNKNOWN", null), null);
  for (const phase of ["BEFORE", "RUNNING", "GRACE", "OVER"]) {
    for (const seconds of [null, 60]) {
      const { clock, text } = shown(phase, seconds);
      assert.ok(texts[clock] && texts[text], `${clock} ${text}`);
    }
  }
});

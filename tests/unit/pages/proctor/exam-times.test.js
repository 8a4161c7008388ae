import assert from "node:assert/strict";
import { test } from "node:test";

import { ExamTimes } from "../../../../actors/pages/static/proctor/session/exam-times.js";

const at = (/** @type {string} */ time) => Date.parse(`2026-11-30T${time}Z`);
const on = (/** @type {string} */ time) => `2026-11-30T${time}.000Z`;

test("a plan that nobody has set up runs all the time", () => {
  for (const times of [new ExamTimes(null), new ExamTimes({ status: "OPEN" })]) {
    assert.deepEqual([times.phase(0), times.phaseOf("E1", 9e15), times.nextChange(0)], ["RUNNING", "RUNNING", Infinity]);
  }
});

test("the phase follows the plan's times, an own start, an own end, and the grace", () => {
  const times = new ExamTimes({
    status: "SCHEDULED", startsAt: on("09:00:00"), endsAt: on("11:00:00"), policy: { graceSeconds: 60 },
    ownTimes: { E2: { startsAt: on("09:30:00"), endsAt: on("11:00:00") }, E3: { startsAt: on("09:00:00"), endsAt: on("11:30:00") } },
  });
  /** @type {[string, string, string, string][]} */
  const cases = [
    ["08:59:59", "BEFORE", "BEFORE", "BEFORE"],
    ["09:00:00", "RUNNING", "BEFORE", "RUNNING"],
    ["09:30:00", "RUNNING", "RUNNING", "RUNNING"],
    ["11:00:59", "RUNNING", "RUNNING", "RUNNING"],
    ["11:01:00", "OVER", "OVER", "RUNNING"],
    ["11:31:00", "OVER", "OVER", "OVER"],
  ];
  for (const [time, ...phases] of cases) {
    assert.deepEqual(["E1", "E2", "E3"].map((id) => times.phaseOf(id, at(time))), phases, time);
  }
  assert.deepEqual(times.longer, { count: 1, until: at("11:30:00") });
  assert.equal(times.endOf("E3"), at("11:30:00"));
  assert.deepEqual(times.differences("E1"), { ownStart: null, laterEnd: null });
  assert.deepEqual(times.differences("E2"), { ownStart: at("09:30:00"), laterEnd: null });
  assert.deepEqual(times.differences("E3"), { ownStart: null, laterEnd: at("11:30:00") });
  assert.equal(times.startOf("E1"), at("09:00:00"));
  let moment = 0;
  const changes = [];
  while ((moment = times.nextChange(moment)) !== Infinity) changes.push(moment);
  assert.deepEqual(changes, ["09:00:00", "09:30:00", "11:01:00", "11:31:00"].map(at));
});

test("a plan that was opened early runs, and a closed one is over for everybody", () => {
  const plan = { startsAt: on("09:00:00"), ownTimes: { E2: { startsAt: on("10:00:00") } } };
  const open = new ExamTimes({ ...plan, status: "OPEN" });
  assert.deepEqual([open.phaseOf("E1", at("08:00:00")), open.phaseOf("E2", at("08:00:00"))], ["RUNNING", "BEFORE"]);
  const closed = new ExamTimes({ ...plan, status: "CLOSED" });
  assert.deepEqual([closed.phaseOf("E1", at("08:00:00")), closed.phaseOf("E2", at("12:00:00"))], ["OVER", "OVER"]);
  assert.equal(new ExamTimes({ status: "SCHEDULED" }).phase(at("08:00:00")), "BEFORE");
});

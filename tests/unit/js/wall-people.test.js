import assert from "node:assert/strict";
import { test } from "node:test";

import { Seen } from "../../../actors/pages/static/examwire.js";
import { ORDER, People, STATES, stateOf } from "../../../actors/pages/static/wall-people.js";
import { longestRun } from "../../../actors/pages/static/wall-tiles.js";

/** @param {string} id @param {Partial<Seen>} [more] */
function seen(id, more = {}) {
  return Object.assign(new Seen(id), { status: "CONNECTED", since: "2026-11-22T09:00:00.000Z" }, more);
}

/** @param {...Seen} some */
function people(...some) {
  const all = new People();
  some.forEach((one) => all.put(one));
  return all;
}

/** @param {import("../../../actors/pages/static/wall-people.js").Person[]} persons */
const ids = (persons) => persons.map((one) => one.id);

test("each state of the connection and the phone is one state of the wall", () => {
  /** @type {[Partial<Seen>, string][]} */
  const cases = [
    [{}, "connected"],
    [{ mobileSync: "WAITING" }, "waiting"],
    [{ mobileSync: "COMPLETED" }, "done"],
    [{ mobileSync: "FAILED" }, "syncFailed"],
    [{ mobileSync: "TIMED_OUT" }, "syncFailed"],
    [{ status: "NEVER" }, "never"],
    [{ status: "MIGRATING" }, "migrating"],
    [{ status: "DISCONNECTED" }, "lost"],
    [{ status: "DISCONNECTED", mobileSync: "WAITING" }, "lost"],
    [{ status: "DISCONNECTED", exhausted: true }, "exhausted"],
    [{ status: "DISCONNECTED", reason: "READMITTED" }, "readmitted"],
    [{ status: "DISCONNECTED", exhausted: true, removed: true }, "removed"],
    [{ status: "NEVER", removed: true }, "removed"],
  ];
  for (const [more, state] of cases) assert.equal(stateOf(seen("E1", more)), state, JSON.stringify(more));
  assert.deepEqual(new Set(cases.map(([, state]) => state)), new Set(ORDER));
});

test("no two states have the same shape: colour is never all there is", () => {
  assert.equal(new Set(ORDER.map((state) => STATES[state].path)).size, ORDER.length);
});

test("counts follow every change, also of one and the same object", () => {
  const one = seen("E1");
  const all = people(one, seen("E2"));
  assert.deepEqual([all.counts.connected, all.counts.lost, all.alarms], [2, 0, 0]);
  one.status = "DISCONNECTED";
  assert.equal(all.put(one).before, "connected");
  assert.deepEqual([all.counts.connected, all.counts.lost, all.alarms], [1, 1, 1]);
  assert.equal(all.put(one).before, "lost");
  all.drop("E1");
  all.drop("E1");
  assert.deepEqual([all.counts.connected, all.counts.lost, all.all.size], [1, 0, 1]);
});

test("by attention: the worst first, the longest of each, the well by number", () => {
  const all = people(
    seen("E10"),
    seen("E2"),
    seen("E3", { status: "DISCONNECTED", since: "2026-11-22T09:05:00.000Z" }),
    seen("E4", { status: "DISCONNECTED", since: "2026-11-22T09:01:00.000Z" }),
    seen("E5", { status: "DISCONNECTED", since: null }),
    seen("E6", { status: "DISCONNECTED", exhausted: true }),
    seen("E7", { status: "NEVER", since: null }),
  );
  assert.deepEqual(ids(all.shown()), ["E6", "E4", "E3", "E5", "E7", "E2", "E10"]);
  assert.deepEqual(ids(all.shown({ sort: "id" })), ["E2", "E3", "E4", "E5", "E6", "E7", "E10"]);
  assert.deepEqual(ids(all.shown({ sort: "since" })).slice(0, 2), ["E3", "E4"]);
});

test("search finds ids and names by all words, whatever their case and composition", () => {
  const all = people(seen("E1", { name: "김민준" }), seen("E2", { name: "Ada Lovelace" }), seen("E12", { name: null }));
  assert.deepEqual(ids(all.shown({ search: "e1" })), ["E1", "E12"]);
  assert.deepEqual(ids(all.shown({ search: "  LOVE e2 " })), ["E2"]);
  assert.deepEqual(ids(all.shown({ search: "김민준".normalize("NFD") })), ["E1"]);
  assert.deepEqual(ids(all.shown({ search: "nobody" })), []);
});

test("a roster that comes later names those who are there, and is found", () => {
  const one = seen("E1");
  const all = people(one);
  one.name = "박서연";
  all.put(one);
  assert.deepEqual(ids(all.shown({ search: "서연" })), ["E1"]);
});

test("filters by states and by an incident's members narrow each other", () => {
  const all = people(seen("E1"), seen("E2", { status: "DISCONNECTED" }), seen("E3", { status: "DISCONNECTED" }));
  assert.deepEqual(ids(all.shown({ states: new Set(["lost"]) })), ["E2", "E3"]);
  assert.deepEqual(ids(all.shown({ states: new Set(["lost"]), only: new Set(["E1", "E3"]) })), ["E3"]);
});

test("putting 2,000 in order takes less than a frame", () => {
  const all = people(...Array.from({ length: 2000 }, (_, k) => (
    seen(`E${(k * 7919) % 2000}`, { status: k % 3 ? "CONNECTED" : "DISCONNECTED" }))));
  for (let warm = 0; warm < 5; warm += 1) all.shown();
  const times = Array.from({ length: 9 }, () => {
    const began = performance.now();
    all.shown();
    return performance.now() - began;
  });
  assert.ok(Math.min(...times) < 16, `${Math.min(...times)} ms`);
});

test("the longest run in order is what stays in the document", () => {
  /** @param {number[]} numbers */
  const kept = (numbers) => longestRun(numbers).map((at) => numbers[at]);
  assert.deepEqual(kept([]), []);
  assert.deepEqual(kept([1, 2, 3]), [1, 2, 3]);
  assert.deepEqual(kept([9, 1, 2, 3]), [1, 2, 3]);
  assert.deepEqual(kept([1, 2, 0, 3, 4]), [1, 2, 3, 4]);
  assert.equal(kept([3, 2, 1]).length, 1);
});

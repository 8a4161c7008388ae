// The pictures that a proctor goes through: which, in what order, and what a decision does before and after the answer.

import assert from "node:assert/strict";
import { test } from "node:test";

import { PictureQueue } from "../../../../actors/pages/static/proctor/gallery/queue.js";

const capture = (id, minute, verdict) => ({ captureId: id, time: `2026-11-22T09:${String(minute).padStart(2, "0")}:00Z`, when: "in", verdict });
const owner = (examineeId, ...captures) => ({ examineeId, captures });

function begun(owners, whose = null) {
  const queue = new PictureQueue();
  queue.update(owners);
  queue.begin(whose);
  return queue;
}

const shown = (queue) => queue.current?.captureId ?? null;

test("pictures that nobody has looked at come in the order of their arrival", () => {
  const queue = begun([owner("E1", capture("a", 2), capture("b", 5, "accepted")), owner("E2", capture("c", 1)), owner("E3")]);
  assert.deepEqual(queue.pictures.map((picture) => picture.captureId), ["c", "a"]);
  assert.equal(queue.waiting, 2);
});

test("a decision shows the next picture at once, and one that the server refuses is to be decided again", () => {
  const owners = [owner("E1", capture("a", 1)), owner("E2", capture("b", 2)), owner("E3", capture("c", 3))];
  const queue = begun(owners);
  const decided = queue.decide("accepted");
  assert.deepEqual([decided.captureId, shown(queue), queue.waiting], ["a", "b", 2]);
  queue.update(owners); // the event has not come yet
  assert.equal(queue.waiting, 2);
  queue.failed(decided.key);
  assert.equal(queue.waiting, 3);
  queue.decide("rejected");
  queue.decide("accepted");
  assert.deepEqual([shown(queue), queue.waiting], ["a", 1]); // back to the one that is left
});

test("a verdict that is said already is not sent again; the other one may be", () => {
  const queue = begun([owner("E1", capture("a", 1, "accepted"))], "E1");
  assert.equal(queue.decide("accepted"), null);
  assert.equal(queue.decide("rejected").captureId, "a");
  assert.equal(new PictureQueue().decide("accepted"), null);
});

test("pictures that arrive, leave or are decided by others keep the proctor's place", () => {
  const queue = begun([owner("E1", capture("a", 1)), owner("E2", capture("b", 2)), owner("E3", capture("c", 3))]);
  queue.move(1);
  queue.update([owner("E2", capture("b", 2)), owner("E3", capture("c", 3, "accepted")), owner("E9", capture("n", 0))]);
  assert.deepEqual([shown(queue), queue.pictures.map((picture) => picture.captureId)], ["b", ["b", "c", "n"]]);
  assert.equal(queue.waiting, 2);
  queue.decide("accepted");
  assert.equal(shown(queue), "n");
  queue.update([]);
  assert.deepEqual([shown(queue), queue.at], [null, 0]);
});

test("the pictures of one examinee begin with the newest, also those that are decided", () => {
  const queue = begun([owner("E1", capture("a", 1, "rejected"), capture("b", 2)), owner("E2", capture("c", 3))], "E1");
  assert.deepEqual([shown(queue), queue.pictures.length], ["b", 2]);
  queue.move(-5);
  assert.equal(shown(queue), "a");
  queue.show("E1 b");
  assert.equal(shown(queue), "b");
});

test("what follows is loaded before what was", () => {
  const queue = begun([owner("E1", ...[1, 2, 3, 4, 5].map((minute) => capture(String(minute), minute)))]);
  queue.move(2);
  assert.deepEqual(queue.wanted(1, 2).map((picture) => picture.captureId), ["3", "4", "2", "1"]);
});

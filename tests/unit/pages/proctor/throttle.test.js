// How often the wall does what many changes ask for.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { Throttle } from "../../../../actors/pages/static/proctor/tiles/throttle.js";

/** @param {import("node:test").TestContext} context */
function clock(context) {
  let now = 0;
  context.mock.timers.enable({ apis: ["setTimeout"] });
  context.mock.method(performance, "now", () => now);
  return {
    get now() {
      return now;
    },
    /** @param {number} milliseconds */
    pass(milliseconds) {
      for (let passed = 0; passed < milliseconds; passed += 1) {
        now += 1;
        context.mock.timers.tick(1);
      }
    },
    /** @param {number} milliseconds */
    work(milliseconds) {
      now += milliseconds;
    },
  };
}

test("the first is done at once, the rest together after the pause, and nothing is forgotten", (context) => {
  const time = clock(context);
  const work = mock.fn();
  const throttle = new Throttle(work, 250);
  throttle.ask();
  assert.equal(work.mock.callCount(), 1);
  for (let asked = 0; asked < 100; asked += 1) {
    time.pass(1);
    throttle.ask();
  }
  assert.equal(work.mock.callCount(), 1);
  time.pass(150);
  assert.equal(work.mock.callCount(), 2);
  time.pass(5000);
  assert.equal(work.mock.callCount(), 2, "nobody asked for more");
  throttle.ask();
  assert.equal(work.mock.callCount(), 3);
});

test("asked for all the time it is done every so often, not later and later", (context) => {
  const time = clock(context);
  const work = mock.fn();
  const throttle = new Throttle(work, 250);
  for (let passed = 0; passed < 9_990; passed += 1) {
    throttle.ask();
    time.pass(1);
  }
  assert.equal(work.mock.callCount(), 40);
});

test("work that takes long gets a longer pause", (context) => {
  const time = clock(context);
  const work = mock.fn(() => time.work(100));
  const throttle = new Throttle(work, 250);
  throttle.ask();
  throttle.ask();
  time.pass(850);
  assert.equal(work.mock.callCount(), 1);
  time.pass(60);
  assert.equal(work.mock.callCount(), 2);
});

test("it is held while somebody is at it, but not for ever", (context) => {
  const time = clock(context);
  const work = mock.fn();
  let touched = 0;
  const throttle = new Throttle(work, 250, () => touched + 1500 - time.now, 10_000);
  throttle.ask();
  time.pass(1490);
  assert.equal(work.mock.callCount(), 0);
  time.pass(10);
  assert.equal(work.mock.callCount(), 1);
  throttle.ask();
  for (let passed = 0; passed < 9_990; passed += 1) {
    touched = time.now;
    time.pass(1);
  }
  assert.equal(work.mock.callCount(), 1);
  touched = time.now;
  time.pass(10);
  assert.equal(work.mock.callCount(), 2);
});

test("who insists has it at once, and what was asked for before is done with that", (context) => {
  const time = clock(context);
  const work = mock.fn();
  const throttle = new Throttle(work, 250);
  throttle.ask();
  throttle.ask();
  throttle.now();
  assert.equal(work.mock.callCount(), 2);
  time.pass(1000);
  assert.equal(work.mock.callCount(), 2);
});

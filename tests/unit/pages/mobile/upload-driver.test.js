// The timers and the network around the rules of an upload (`mobile/upload-driver.js`), on a clock turned by hand.

import assert from "node:assert/strict";
import { test } from "node:test";

import { BACKOFF_SECONDS, begin } from "../../../../actors/pages/static/mobile/upload-rules.js";
import { Sender } from "../../../../actors/pages/static/mobile/upload-driver.js";

/** A clock, and a network that answers when it is told to. */
class World {
  constructor() {
    this.now = Date.UTC(2026, 0, 1);
    this.timers = [];
    this.tries = [];
    this.shown = [];
    this.sender = new Sender((progress) => this.sent(progress), {
      now: () => this.now,
      random: () => 0.5,
      setTimeout: (work, ms) => {
        const timer = { work, at: this.now + ms };
        this.timers.push(timer);
        return timer;
      },
      clearTimeout: (timer) => (this.timers = this.timers.filter((one) => one !== timer)),
    });
    this.sender.addEventListener("change", () => this.shown.push(this.sender.upload?.state));
  }

  sent(progress) {
    const one = { progress, stopped: false, at: this.now };
    const result = new Promise((resolve) => (one.answer = resolve));
    this.tries.push(one);
    return { result, stop: () => (one.stopped = true) };
  }

  async pass(seconds) {
    this.now += seconds * 1000;
    for (const timer of this.timers.filter((one) => one.at <= this.now)) {
      this.timers = this.timers.filter((one) => one !== timer);
      timer.work();
    }
    await settled();
  }

  async answer(result) {
    this.tries.at(-1).answer(result);
    await settled();
  }
}

const settled = () => new Promise((resolve) => setImmediate(resolve));
const broken = { kind: "network" };
const stored = { kind: "answer", status: 201, body: { status: "COMPLETED" } };

test("a picture is sent, again after a broken network, and is stored once", async () => {
  const world = new World();
  world.sender.start(begin(world.now, null));
  await world.pass(0);
  await world.answer(broken);
  await world.pass(BACKOFF_SECONDS[0] - 0.1);
  assert.equal(world.tries.length, 1);
  await world.pass(0.1);
  assert.equal(world.tries.length, 2);
  await world.answer(stored);
  assert.equal(world.sender.upload.state, "stored");
  assert.deepEqual(world.timers, []);
  await world.pass(1000);
  assert.equal(world.tries.length, 2);
  assert.deepEqual(world.shown, ["ready", "sending", "ready", "sending", "stored"]);
});

test("the network is back: the try that waits begins at once", async () => {
  const world = new World();
  world.sender.start(begin(world.now, null));
  await world.pass(0);
  await world.answer(broken);
  world.sender.hurry();
  await world.pass(0);
  assert.equal(world.tries.length, 2);
});

test("a try that is under way is not doubled by impatience", async () => {
  const world = new World();
  world.sender.start(begin(world.now, null));
  await world.pass(0);
  world.sender.hurry();
  world.sender.resume(world.now + 1000);
  await world.pass(0);
  assert.equal(world.tries.length, 1);
});

test("progress is of the try under way only", async () => {
  const world = new World();
  world.sender.start(begin(world.now, null));
  await world.pass(0);
  world.tries[0].progress(0.5);
  assert.equal(world.sender.share, 0.5);
  await world.answer(broken);
  await world.pass(BACKOFF_SECONDS[0]);
  world.tries[0].progress(0.9);
  assert.equal(world.sender.share, 0);
});

test("more time lets a picture go that came too late, and a new deadline does not disturb one that is on its way", async () => {
  const world = new World();
  world.sender.start(begin(world.now, world.now + 60_000));
  await world.pass(0);
  world.sender.extend(world.now + 90_000);
  assert.equal(world.sender.upload.state, "sending");
  await world.answer({ kind: "answer", status: 409 });
  assert.equal(world.sender.upload.state, "late");
  world.sender.extend(world.now + 120_000);
  await world.pass(0);
  assert.equal(world.tries.length, 2);
  await world.answer(stored);
  assert.equal(world.sender.upload.state, "stored");
});

test("what was stopped says nothing any more", async () => {
  const world = new World();
  world.sender.start(begin(world.now, null));
  await world.pass(0);
  world.sender.stop();
  assert.equal(world.tries[0].stopped, true);
  await world.answer(stored);
  assert.equal(world.sender.upload, null);
});

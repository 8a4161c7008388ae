// How a phone asks how its stage stands: how often, what it makes of the answers, and when a picture goes again by itself.

import assert from "node:assert/strict";
import { test } from "node:test";

import { isWelcome } from "../../../../actors/pages/static/mobile/upload-rules.js";
import { CALM_SECONDS, EXPIRED, LEAST_SECONDS, SPREAD, StageWatch, URGENT_SECONDS, stageOf } from "../../../../actors/pages/static/phone/stage.js";

const PASS = { token: "t", planId: "P001", examineeId: "E001" };

function answering(status, body) {
  return async (url, init) => {
    assert.equal(url, "/v1/plans/P001/examinees/E001/mobile-stage");
    assert.equal(init.headers.Authorization, "Bearer t");
    return new Response(typeof body === "string" ? body : JSON.stringify(body), { status });
  };
}

test("the answer says how long there is, by the server's clock, and who was removed", async () => {
  const deadline = new Date(Date.now() + 90_000 + 3_600_000).toISOString(); // this clock is an hour late
  const told = { status: "WAITING", removed: false, deadline, secondsLeft: 90 };
  const stage = await stageOf(PASS, answering(200, told));
  assert.equal((await stageOf(PASS, answering(200, { ...told, over: true }))).over, true);
  assert.deepEqual([stage.status, stage.removed, stage.deadline], ["WAITING", false, Date.parse(deadline)]);
  assert.ok(Math.abs(stage.offset - 3_600_000) < 1000);
  const none = await stageOf(PASS, answering(200, { status: "NONE", removed: true }));
  assert.deepEqual(none, { status: "NONE", removed: true, over: false, deadline: null, offset: 0, challenge: null, rejected: null });
});

test("whatever is no answer of the server changes nothing", async () => {
  assert.equal(await stageOf(PASS, answering(503, { detail: "now now" })), null);
  assert.equal(await stageOf(PASS, answering(200, "<html>Wi-Fi of the station</html>")), null);
  assert.equal(await stageOf(PASS, answering(200, { hello: "world" })), null);
  const dead = async () => {
    throw new TypeError("no network");
  };
  assert.equal(await stageOf(PASS, dead), null);
});

/** A watch whose clock stands in the test's hands; `waits` are the seconds that it has waited for each question. */
function watched({ urgent = () => false, answers = [] } = {}) {
  const scene = { now: 1_000_000, waits: [], received: [], due: null, asked: 0 };
  scene.watch = new StageWatch({
    ask: async () => {
      scene.asked += 1;
      return answers.shift() ?? null;
    },
    receive: (stage) => scene.received.push(stage),
    expired: () => (scene.expired = (scene.expired ?? 0) + 1),
    urgent,
    now: () => scene.now,
    random: () => 0.5,
    setTimeout: (work, ms) => {
      scene.due = { work, ms };
      scene.waits.push(ms / 1000);
      return scene.due;
    },
    clearTimeout: (timer) => {
      if (timer === scene.due) scene.due = null;
    },
  });
  scene.pass = async () => {
    const { work, ms } = scene.due;
    scene.due = null;
    scene.now += ms;
    work();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return scene;
}

test("a token that has expired is asked with no more", async () => {
  assert.equal(await stageOf(PASS, answering(401, { code: "UNAUTHORIZED" })), EXPIRED);
  const scene = watched({ answers: [EXPIRED] });
  scene.watch.wanted(true);
  await scene.pass();
  assert.deepEqual([scene.expired, scene.due, scene.received], [1, null, []]);
  scene.watch.soon();
  assert.equal(scene.due, null);
  scene.watch.wanted(true); // there is another one
  assert.notEqual(scene.due, null);
});

test("it is asked calmly, and more often while somebody waits for the proctor", async () => {
  let urgent = false;
  const stage = { status: "WAITING", removed: true, deadline: null, offset: 0 };
  const scene = watched({ urgent: () => urgent, answers: [null, stage] });
  scene.watch.wanted(true);
  await scene.pass();
  urgent = true;
  await scene.pass();
  assert.deepEqual(scene.waits, [CALM_SECONDS, CALM_SECONDS, URGENT_SECONDS]);
  assert.deepEqual(scene.received, [stage]); // of what nobody knows nothing is told
});

test("a hall of phones does not ask in one moment", () => {
  const waits = [0, 0.999999].map((random) => {
    let seconds = 0;
    const setTimeout = (_work, ms) => (seconds = ms / 1000);
    const watch = new StageWatch({ urgent: () => false, random: () => random, setTimeout, clearTimeout: () => {} });
    watch.wanted(true);
    return seconds;
  });
  assert.ok(Math.abs(waits[0] - CALM_SECONDS * (1 - SPREAD)) < 0.01);
  assert.ok(Math.abs(waits[1] - CALM_SECONDS * (1 + SPREAD)) < 0.01);
});

test("what happens on the page asks at once, but not again and again", async () => {
  const scene = watched();
  scene.watch.soon(); // nobody wants to know
  assert.deepEqual(scene.waits, []);
  scene.watch.wanted(true);
  scene.watch.soon();
  assert.equal(scene.waits.at(-1), 0);
  await scene.pass();
  scene.now += 500;
  scene.watch.soon();
  assert.equal(scene.waits.at(-1), LEAST_SECONDS - 0.5);
});

test("when nobody wants to know any more, nothing is asked and an answer on its way is dropped", async () => {
  const scene = watched({ answers: [{ status: "WAITING", removed: false, deadline: null, offset: 0 }] });
  scene.watch.wanted(true);
  const { work } = scene.due;
  work();
  scene.watch.wanted(false);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([scene.received, scene.asked], [[], 1]);
  scene.watch.wanted(true);
  scene.watch.wanted(false);
  assert.equal(scene.due, null);
});

test("a picture goes again by itself when there is more time or the examinee was let in again, and only then", () => {
  const now = 1_000_000;
  const upload = (state, cause) => ({ state, cause, tries: 1, nextAt: now, deadline: now, detail: null, record: null });
  const open = { status: "WAITING", removed: false, deadline: now + 60_000 };
  assert.ok(isWelcome(upload("late", "LATE"), open, now));
  assert.ok(isWelcome(upload("late", null), { ...open, status: "FAILED" }, now));
  assert.ok(isWelcome(upload("refused", "REMOVED"), { ...open, deadline: now - 1 }, now)); // the server says if it is late
  const not = [
    [upload("late", "LATE"), { ...open, deadline: now }],
    [upload("late", "LATE"), { ...open, deadline: null }],
    [upload("late", "LATE"), { ...open, status: "TIMED_OUT" }],
    [upload("late", "LATE"), { ...open, removed: true }],
    [upload("refused", "REMOVED"), { ...open, removed: true }],
    [upload("refused", "TOO_LARGE"), open],
    [upload("refused", "TOKEN"), open],
    [upload("ready", "NETWORK"), open],
    [upload("sending", null), open],
    [upload("stored", null), open],
  ];
  for (const [one, stage] of not) assert.ok(!isWelcome(one, stage, now), JSON.stringify([one, stage]));
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { Seen } from "../../../../actors/pages/static/examwire.js";
import { useTexts } from "../../../../actors/pages/static/common/i18n.js";
import { stepOf } from "../../../../actors/pages/static/examinee/help.js";
import { texts as en } from "../../../../actors/pages/static/proctor/locales/en.js";
import { People } from "../../../../actors/pages/static/proctor/examinees.js";
import { OtherActivities, OwnActivity } from "../../../../actors/pages/static/proctor/talk/activity.js";
import { openRequests } from "../../../../actors/pages/static/proctor/talk/help-requests.js";
import { describe } from "../../../../actors/pages/static/proctor/texts.js";
import { addressees, confirmations } from "../../../../actors/pages/static/proctor/talk/plan-messages.js";

useTexts({ en });

/** @param {Record<string, Partial<Seen>>} some */
function people(some) {
  const all = new People();
  for (const [id, more] of Object.entries(some)) all.put(Object.assign(new Seen(id), { status: "CONNECTED" }, more));
  return all;
}

test("who waits for help comes first, the longest first; who has handed in or was removed needs none", () => {
  const help = (at, takenBy) => ({ help: { requestId: `h${at}`, since: `2026-11-22T09:0${at}:00.000Z`, ...(takenBy ? { takenBy } : {}) } });
  const { all } = people({
    E1: help(1, "kim"), E2: help(3), E3: help(2), E4: { ...help(4), status: "FINISHED" }, E5: { ...help(5), removed: true }, E6: {},
    E7: { ...help(6), status: "DISCONNECTED" },
  });
  assert.deepEqual(openRequests(all.values()).map(({ id }) => id), ["E3", "E2", "E7", "E1"]);
});

test("confirmations are counted among those for whom the message is", () => {
  const { all } = people({
    E1: { confirmedPlanNotices: ["p1", "p2"] }, E2: { confirmedPlanNotices: ["p1"] }, E3: {}, E4: { removed: true },
  });
  assert.deepEqual([...confirmations(all.values())], [["p1", 2], ["p2", 1]]);
  const to = (/** @type {string[] | undefined} */ examinees) => addressees({ actionId: "p1", text: "", by: "", timestamp: "", examinees }, all);
  assert.deepEqual(to(undefined).map(({ id }) => id), ["E1", "E2", "E3"]);
  assert.deepEqual(to(["E3", "E4", "E9"]).map(({ id }) => id), ["E3"]);
});

test("what a proctor does is said at once, again while it lasts, and taken back", () => {
  let now = 0;
  /** @type {string[]} */
  const sent = [];
  const own = new OwnActivity(() => now);
  const update = (id, doing) => own.update(id, doing, (examineeId, what) => sent.push(`${examineeId} ${what}`) > 0);
  update("E1", "looking");
  update("E1", "looking");
  update("E1", "writing");
  now += 5000;
  update("E1", "writing");
  update("E2", "looking");
  update(null, "looking");
  assert.deepEqual(sent, ["E1 looking", "E1 writing", "E1 writing", "E1 nothing", "E2 looking", "E2 nothing"]);
});

test("what the others do is forgotten when they leave or are not heard any more", () => {
  let now = 0;
  const others = new OtherActivities(() => now);
  const say = (examineeId, doing, by = "lee") => others.receive({ examineeId, by, socketId: `s-${by}`, doing });
  assert.deepEqual(say("E1", "looking"), ["E1"]);
  assert.deepEqual(say("E1", "looking"), []);
  assert.deepEqual(say("E1", "writing", "park"), ["E1"]);
  assert.equal(others.textOf("E1", "kim"), "lee is looking · park is writing a message");
  assert.equal(others.textOf("E1", "lee"), "park is writing a message", "not oneself, on another page");
  assert.deepEqual(say("E2", "looking"), ["E1", "E2"]);
  assert.deepEqual(say("E1", "nothing"), [], "late: lee is at E2 by now");
  assert.deepEqual(say("E2", "nothing"), ["E2"]);
  now += 12_001;
  assert.deepEqual(others.forget(), ["E1"]);
  assert.equal(others.textOf("E1", "kim"), "");
});

test("the examinee sees whether the request is sent, told, or a proctor has taken it", () => {
  const client = { help: null, askingForHelp: null, connected: true };
  const help = { requestId: "h1", since: "" };
  assert.equal(stepOf(client, false), "idle");
  assert.equal(stepOf(client, true), "writing");
  assert.equal(stepOf({ ...client, askingForHelp: {} }, false), "asking");
  assert.equal(stepOf({ ...client, askingForHelp: {}, connected: false }, false), "later");
  assert.equal(stepOf({ ...client, help }, true), "sent");
  assert.equal(stepOf({ ...client, help: { ...help, takenBy: "kim" } }, false), "taken");
});

test("a tile says what is asked, and by name who has taken it", () => {
  const help = { requestId: "h1", text: "Page 3 does not load.", since: "2026-11-22T09:00:00.000Z" };
  const { all } = people({ E1: { help }, E2: { help: { ...help, takenBy: "kim", takenByName: "김감독" } } });
  const now = Date.parse("2026-11-22T09:01:05.000Z");
  const said = [...all.values()].map((one) => describe(one, now));
  assert.deepEqual(said.map(({ clock, more }) => [clock, more]), [["1:05", "Page 3 does not load."], ["1:05", "taken by 김감독 (kim)"]]);
});

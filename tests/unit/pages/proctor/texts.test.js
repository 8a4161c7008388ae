import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { chosen, clock, duration, t, useTexts } from "../../../../actors/pages/static/common/i18n.js";
import { texts as wallEn } from "../../../../actors/pages/static/proctor/locales/en.js";
import { texts as wallKo } from "../../../../actors/pages/static/proctor/locales/ko.js";
import { Actions } from "../../../../actors/pages/static/proctor/panel/actions.js";
import { PendingAlerts, Summary } from "../../../../actors/pages/static/proctor/incidents/alerts.js";
import { Incident, WINDOW_SECONDS } from "../../../../actors/pages/static/proctor/incidents/detection.js";
import { ORDER } from "../../../../actors/pages/static/proctor/examinees.js";
import { incidentName } from "../../../../actors/pages/static/proctor/texts.js";
import { entryOf, entryText, Timeline } from "../../../../actors/pages/static/proctor/panel/timeline.js";

const PAGES = new URL("../../../../actors/pages/", import.meta.url);
/** The texts of the wall and of its features, which have files of their own. @param {string} lang @param {object} wall */
async function textsOf(lang, wall) {
  const files = readdirSync(new URL("static/proctor/", PAGES), { recursive: true }).filter((name) => name.endsWith(`/texts.${lang}.js`));
  const added = await Promise.all(files.map((name) => import(new URL(`static/proctor/${name}`, PAGES))));
  return Object.assign({}, wall, ...added.map(({ texts }) => texts));
}
const [en, ko] = [await textsOf("en", wallEn), await textsOf("ko", wallKo)];
useTexts({ en, ko });

/** @param {import("../../../../actors/pages/static/common/i18n.js").Text} text */
const parameters = (text) => [...new Set(Object.values(typeof text === "string" ? { text } : text)
  .flatMap((form) => [...form.matchAll(/\{(\w+)\}/g)].map((found) => found[1])))].sort();

test("both languages have the same texts with the same parameters", () => {
  assert.deepEqual(Object.keys(ko).sort(), Object.keys(en).sort());
  for (const key of Object.keys(en)) {
    assert.deepEqual(parameters(ko[key]), parameters(en[key]), key);
  }
});

test("every text that the wall asks for is there, and no other", () => {
  const sources = readdirSync(new URL("static/proctor/", PAGES), { recursive: true })
    .filter((name) => name.endsWith(".js") && !/^locales\/|\/texts\.\w+\.js$/.test(name))
    .map((name) => readFileSync(new URL(`static/proctor/${name}`, PAGES), "utf8"));
  const html = readFileSync(new URL("proctor.html", PAGES), "utf8");
  const asked = new Set([
    ...sources.flatMap((text) => [...text.matchAll(/"((?:[a-z]+)(?:\.[\w.]+)?)"/gi)].map((found) => found[1])),
    ...[...html.matchAll(/data-i18n="([^"]+)"/g)].map((found) => found[1]),
    ...[...html.matchAll(/data-i18n-attr="([^"]+)"/g)].flatMap((found) => found[1].split(";").map((one) => one.split(":")[1].trim())),
    ...ORDER.flatMap((state) => [`state.${state}`, `means.${state}`]),
  ]);
  const families = /^(what|reason|why|key|phone|did|said|more|link\.said|incident|behind|several|act|exam|refusal|label|mark|flag|gallery|means|sound)\./;
  for (const key of Object.keys(en)) assert.ok(asked.has(key) || families.test(key), `${key} is used by nobody`);
  for (const [, key] of html.matchAll(/data-i18n="([^"]+)"/g)) assert.ok(key in en, `${key} is missing`);
  for (const text of sources) {
    for (const [, key] of text.matchAll(/\bt\("([^"]+)"/g)) assert.ok(key in en, `${key} is missing`);
  }
});

test("languages are chosen by their main subtag, and the first that we have wins", () => {
  assert.equal(chosen(["fr-FR", "ko-KR", "en"]), "ko");
  assert.equal(chosen([null, undefined, "", "EN-gb"]), "en");
  assert.equal(chosen(["constructor", "fr"]), "en");
});

test("numbers choose their plural form, and are written as the language does", () => {
  assert.equal(t("more.recoveries", { n: 1 }), "came back once");
  assert.equal(t("more.recoveries", { n: 2000 }), "came back 2,000 times");
  assert.equal(t("no such text"), "no such text");
});

test("a time that counts has a steady form, and words for screen readers", () => {
  assert.deepEqual([clock(-3), clock(7.9), clock(750), clock(3723)], ["0:00", "0:07", "12:30", "1:02:03"]);
  assert.deepEqual([duration(0), duration(59.6), duration(3723)], ["0 sec", "1 min", "1 hr 2 min 3 sec"]);
});

test("an action is pending, in the log, in effect; late words change nothing", () => {
  const actions = new Actions();
  const begin = (/** @type {string} */ id, /** @type {any} */ kind) => actions.begin({ id, kind, examineeId: "E1", by: "kim", at: 0 });
  const readmit = begin("a", "readmit");
  assert.equal(readmit.outcome, "pending");
  assert.equal(actions.receive({ type: "examinee_readmitted", data: { actionId: "another" } }), null);
  actions.receive({ type: "examinee_readmitted", data: { actionId: "a" } });
  actions.accepted("a");
  actions.failed("a", "TIMEOUT", "late");
  assert.equal(readmit.outcome, "confirmed");
  const notice = begin("b", "notify");
  actions.accepted("b");
  actions.receive({ type: "notice", data: { actionId: "b" } });
  assert.equal(notice.outcome, "accepted", "sent is not read");
  actions.receive({ type: "notice_confirmed", data: { actionId: "b" } });
  assert.equal(notice.outcome, "confirmed");
  const extension = begin("c", "extend_mobile_sync");
  actions.failed("c", "TIMEOUT", "no answer");
  assert.equal(extension.outcome, "unknown");
  actions.accepted("c");
  assert.equal(extension.outcome, "accepted");
  assert.equal(actions.failed("c", "NOT_FOUND", "nobody")?.outcome, "refused");
  assert.deepEqual(actions.of("E1").map((one) => one.id), ["c", "b", "a"]);
});

test("what was told and what the log says of the same fact stand in the timeline once, the log's words first", () => {
  const timeline = new Timeline();
  const lost = { type: "examinee_disconnected", data: { version: 512, timestamp: "2026-11-22T09:15:02.000Z", reason: "PING_TIMEOUT" } };
  assert.ok(timeline.receive(lost));
  assert.equal(entryText(timeline.entries[0]), "Lost (no answer)");
  timeline.read([
    { version: 256, time: "2026-11-22T09:00:00.000Z", what: "JOINED", serverId: "SOCK001", effect: true },
    { version: 512, time: "2026-11-22T09:15:02.000Z", what: "LOST", reason: "PING_TIMEOUT", effect: true, serverId: "SOCK001" },
    { version: 600, time: "2026-11-22T09:15:03.000Z", what: "NO_EFFECT", effect: false },
  ]);
  timeline.receive(lost);
  assert.deepEqual(timeline.entries.map((one) => [one.version, one.serverId]), [[512, "SOCK001"], [256, "SOCK001"]]);
  assert.equal(entryOf({ type: "examinee_connected", data: { version: 1, restated: true } }), null);
  assert.equal(entryOf({ type: "accepted", data: {} }), null);
  assert.equal(entryText({ version: 1, time: "", what: "SOMETHING_NEW", text: "the server's words" }), "the server's words");
});

test("the beginning and the end of an exam stand in the timeline in words, live and from the log", () => {
  const timeline = new Timeline();
  timeline.receive({ type: "examinee_finished", data: { version: 3, timestamp: "2026-11-22T10:00:00.000Z", by: "E1", reason: "HANDED_IN" } });
  timeline.receive({ type: "examinee_resumed", data: { version: 4, timestamp: "2026-11-22T10:01:00.000Z", by: "kim" } });
  timeline.read([
    { version: 2, time: "", what: "EXTENDED", seconds: 300, examineeId: "E1", endsAt: "2026-11-22T10:05:00.000Z", by: "kim" },
    { version: 5, time: "", what: "EXTENDED", seconds: 300, endsAt: "2026-11-22T10:05:00.000Z", by: "kim" },
    { version: 6, time: "", what: "PLAN_CLOSED", by: "schedule" },
    { version: 7, time: "", what: "OWN_TIMES", startsAt: "2026-11-22T10:05:00.000Z" },
  ]);
  const [ownTimes, closed, all, resumed, finished, own] = timeline.entries.map(entryText);
  assert.deepEqual([closed, resumed, finished], ["The exam is over", "Resumed", "Finished (handed in)"]);
  assert.match(own, /^5 min more time, until /);
  assert.match(ownTimes, /^Own times from .*, without an end$/);
  assert.match(all, /^5 min more time for everybody, until /);
});

test("a confirmation is told with the words of its message, or without any", () => {
  const timeline = new Timeline();
  timeline.receive({ type: "notice", data: { version: 256, timestamp: "2026-11-22T09:15:02.000Z", actionId: "a1", text: "Sit down.", by: "kim" } });
  const confirmed = { version: 512, timestamp: "2026-11-22T09:15:09.000Z", by: "kim" };
  timeline.receive({ type: "notice_confirmed", data: { ...confirmed, actionId: "a1" } });
  timeline.receive({ type: "notice_confirmed", data: { ...confirmed, version: 768, actionId: "from before this page" } });
  assert.deepEqual(timeline.entries.map(entryText), [
    "The examinee confirmed a message",
    "The examinee confirmed: “Sit down.”",
    "Message: “Sit down.”",
  ]);
});

test("a crowd to which others have kept being added is not called one of a moment", () => {
  const incident = new Incident(1, "moment", "");
  const lost = (at) => incident.take({ id: `E${at}`, at, server: null, network: null, reason: null }, "lost");
  lost(0);
  lost(WINDOW_SECONDS * 1000);
  assert.equal(incidentName(incident), "Many at once");
  lost(WINDOW_SECONDS * 1000 + 1);
  assert.equal(incidentName(incident), "One after another");
  const server = Object.assign(new Incident(2, "server", "SOCK001"), { began: 0, last: 1e9 });
  assert.equal(incidentName(server), "Server SOCK001");
});

test("what is said aloud is a summary: a few are named, many counted, blips left out", () => {
  const summary = new Summary((id) => `${id} 김민준`, () => null);
  summary.changed("E1", "connected", "lost");
  assert.equal(summary.take(), "E1 김민준 lost.");
  assert.equal(summary.take(), "");
  summary.changed("E1", "lost", "connected");
  for (const id of ["E2", "E3", "E4"]) summary.changed(id, "connected", "lost");
  summary.changed("E4", "lost", "connected");
  for (const id of ["E5", "E6"]) summary.changed(id, "connected", "help");
  assert.equal(summary.take(), "E2 김민준, E3 김민준 lost. E5 김민준, E6 김민준 ask for help. E1 김민준 back.");
  for (const id of ["E1", "E2", "E3", "E4"]) summary.changed(id, "lost", "exhausted");
  summary.say("First of all.");
  assert.equal(summary.take(), "First of all. 4 shut out.");
});

test("the members of an incident are counted with it alone, also those who join it later", () => {
  const incident = new Incident(1, "server", "SOCK001");
  const summary = new Summary((id) => id, (id) => (incident.members.has(id) ? incident : null));
  const lose = (/** @type {string} */ id) => {
    summary.changed(id, "connected", "lost");
    incident.take({ id, at: 0, places: {}, reason: null }, "lost");
  };
  for (let k = 1; k <= 10; k += 1) lose(`E${k}`);
  summary.changed("F1", "connected", "lost");
  summary.began(incident);
  for (let k = 11; k <= 20; k += 1) lose(`E${k}`);
  assert.equal(summary.take(), "Incident. Server SOCK001: 20 lost. F1 lost.");
  for (let k = 21; k <= 288; k += 1) lose(`E${k}`);
  summary.changed("E1", "lost", "connected");
  summary.changed("E2", "lost", "exhausted");
  assert.equal(summary.take(), "Server SOCK001: now 288 lost. E2 shut out. E1 back.");
  assert.equal(summary.take(), "");
});

test("a sound is owed to who stays lost, once", () => {
  const pending = new PendingAlerts();
  pending.changed("E1", true, 0);
  pending.changed("E2", true, 0);
  pending.changed("E1", false, 1_000);
  assert.equal(pending.due(1_999), false);
  assert.equal(pending.due(2_000), true);
  assert.equal(pending.due(9_000), false);
});

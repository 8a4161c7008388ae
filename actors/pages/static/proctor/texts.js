/**
 * The texts of the wall about an examinee or an incident, in the language in use. Pure but for the language
 * (`common/i18n.js`).
 *
 * @typedef {import("./examinees.js").Person} Person
 * @typedef {import("./incidents/detection.js").Incident} Incident
 */

import { clock, hasText, number, person, shortTime, t } from "../common/i18n.js";
import { LABEL, WINDOW_SECONDS } from "./incidents/detection.js";
import { milliseconds, STATES } from "./examinees.js";

/**
 * The texts of a tile. `word`: the state; `clock`: how long it has lasted, or the time left; `more`: what happens next.
 * @typedef {{word: string, clock: string, more: string}} TileTexts
 */

/**
 * Return the texts of an examinee's tile.
 * @param {Person} person
 * @param {number} now ms since the epoch, by the servers' clock
 * @returns {TileTexts}
 */
export function describe(person, now) {
  const { seen, state, since } = person;
  const word = t(`state.${state}`);
  if (person.marks.length > 0 && !STATES[state].alarm && !STATES[state].away) {
    return { word, clock: state === "waiting" ? timeLeft(seen.deadline, now).clock : "", more: marksText(person) };
  }
  const lasted = since === null ? "" : clock((now - since) / 1000);
  if (state === "waiting") return { word, ...timeLeft(seen.deadline, now) };
  if (state === "syncFailed") return { word, clock: "", more: t(`more.${seen.mobileSync}`) };
  if (state === "connected" || state === "done") {
    const longer = person.laterEnd ? t("more.until", { time: shortTime(person.laterEnd) }) : "";
    const recoveries = seen.recoveries > 0 ? t("more.recoveries", { n: seen.recoveries }) : "";
    return { word, clock: "", more: [longer, recoveries].filter(Boolean).join(" · ") };
  }
  if (state === "lost") return { word, clock: lasted, more: attempts(person, now) };
  if (state === "exhausted") {
    return { word, clock: lasted, more: seen.attempt > 0 ? t("more.allUsed", { n: seen.attempt }) : "" };
  }
  if (state === "readmitted") {
    return { word: seen.reason === "RESUMED" ? t("state.resumed") : word, clock: lasted, more: t("more.notBack") };
  }
  if (state === "finished") return { word, clock: "", more: finishedText(seen) };
  if (state === "help") return { word, clock: lasted, more: seen.help?.text ?? "" };
  if (state === "helped") return { word, clock: lasted, more: helpedText(seen) };
  if (state === "notStarted") return { word, clock: "", more: ownStart(person) };
  if (state === "early") {
    const phone = phoneBefore(seen, now);
    return { word, ...phone, more: phone.more || ownStart(person) };
  }
  return { word, clock: STATES[state].away ? lasted : "", more: "" };
}

/** Say who is on a request for help. @param {import("./examinees.js").Seen} seen */
function helpedText({ help }) {
  return t("more.helped", { by: person(help?.takenBy ?? "", help?.takenByName) });
}

/** Say who said that the exam is over for an examinee, and when. @param {import("./examinees.js").Seen} seen */
function finishedText({ reason, finishedBy, finishedByName, since }) {
  const at = milliseconds(since);
  if (reason === "PLAN_ENDED") return t("more.PLAN_ENDED");
  const when = at === null ? "" : shortTime(at);
  return t(reason === "HANDED_IN" ? "more.HANDED_IN" : "more.DECIDED", { by: person(finishedBy ?? "", finishedByName), when });
}

/** Say when the exam begins for an examinee, if not as for the others. @param {Person} person */
function ownStart({ ownStart: start }) {
  return start ? t("more.starts", { time: shortTime(start) }) : "";
}

/**
 * Say how far the phone step is before the exam begins.
 * @param {import("./examinees.js").Seen} seen @param {number} now
 * @returns {Omit<TileTexts, "word">}
 */
function phoneBefore({ mobileSync, deadline }, now) {
  if (mobileSync === "WAITING") return timeLeft(deadline, now);
  return { clock: "", more: mobileSync === "NONE" ? "" : t(`phone.${mobileSync}`) };
}

/** Say which attempt it is, and when the next one begins. @param {Person} person @param {number} now */
function attempts({ seen }, now) {
  if (seen.attempt === 0) return t("more.noAttempt");
  const numbers = { attempt: seen.attempt, most: seen.maxAttempts ?? "?" };
  const next = milliseconds(seen.nextAttemptAt);
  if (next === null || next <= now) return t("more.attempt", numbers);
  return t("more.next", { ...numbers, clock: clock((next - now) / 1000) });
}

/**
 * Say how much time is left for the picture.
 * @param {string | null} deadline @param {number} now
 * @returns {Omit<TileTexts, "word">}
 */
function timeLeft(deadline, now) {
  const until = milliseconds(deadline);
  if (until === null) return { clock: "", more: "" };
  return { clock: clock((until - now) / 1000), more: t(until > now ? "more.left" : "more.late") };
}

/** Return id and name. @param {{id: string, name: string | null}} person */
export function nameOf({ id, name }) {
  return name ? `${id} ${name}` : id;
}

/** Return the text of a reason of the protocol; an unknown reason is returned as it is. @param {string | null | undefined} reason */
export function reasonText(reason) {
  if (!reason) return "";
  return hasText(`reason.${reason}`) ? t(`reason.${reason}`) : reason;
}

/**
 * Name the cause of an incident. Losses without a common cause are "at the same time", or "one after another" if they
 * go on for longer than the window.
 * @param {Incident} incident
 */
export function incidentName({ cause, name, began, last }) {
  if (cause === "moment" && last - began > WINDOW_SECONDS * 1000) return t("incident.series");
  if (cause.startsWith(LABEL)) return labelText(cause.slice(LABEL.length), name);
  return t(`incident.${cause}`, { name });
}

/** Return the name of a label; one that the roster has named is returned as it is. @param {string} name */
export function labelName(name) {
  return hasText(`label.${name}`) ? t(`label.${name}`) : name;
}

/** Return a label and its value: "Room 3". @param {string} name @param {string} value */
export function labelText(name, value) {
  return t("label", { label: labelName(name), value });
}

/** Say what is strange about an examinee, in words. @param {Person} person */
export function marksText({ marks, seen }) {
  return marks.map((mark) => (mark === "flagged" ? flagsText(seen.flags) : t("mark.unstable"))).join(", ");
}

/** Name in what a connection differs from the one before. @param {readonly string[]} flags */
export function flagsText(flags) {
  return t("flags", { flags: flags.map((flag) => (hasText(`flag.${flag}`) ? t(`flag.${flag}`) : flag)).join(", ") });
}

/** Count those who are connected, who are away, and who have finished, for the line of a plan. @param {import("./examinees.js").People} people */
export function summaryText({ all, counts }) {
  const here = counts.connected + counts.done + counts.waiting + counts.syncFailed + counts.early + counts.migrating + counts.help
    + counts.helped;
  const done = counts.finished + counts.over;
  const parts = [t("plan.here", { n: here, all: all.size })];
  if (done > 0) parts.push(t("plan.done", { n: done }));
  return parts.join(" · ");
}

/** Return a word and a number, for a filter's button. @param {string} word @param {number} count */
export function counted(word, count) {
  return `${word} ${number(count)}`;
}

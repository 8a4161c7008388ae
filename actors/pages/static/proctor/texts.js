/**
 * What the wall says about an examinee, in the language in use. Pure but for the language (`common/i18n.js`).
 *
 * @typedef {import("./examinees.js").Person} Person
 * @typedef {import("./incidents/detection.js").Incident} Incident
 */

import { clock, hasText, number, t } from "../common/i18n.js";
import { WINDOW_SECONDS } from "./incidents/detection.js";
import { milliseconds, STATES } from "./examinees.js";

/**
 * What a tile says. `word`: the state; `clock`: how long it is so, or how long is left; `more`: what happens next.
 * @typedef {{word: string, clock: string, more: string}} Said
 */

/**
 * @param {Person} person
 * @param {number} now ms since the epoch, by the servers' clock
 * @returns {Said}
 */
export function describe(person, now) {
  const { seen, state, since } = person;
  const word = t(`state.${state}`);
  const passed = since === null ? "" : clock((now - since) / 1000);
  if (state === "waiting") return { word, ...left(seen.deadline, now) };
  if (state === "syncFailed") return { word, clock: "", more: t(`more.${seen.mobileSync}`) };
  if (state === "connected" || state === "done") {
    return { word, clock: "", more: seen.recoveries > 0 ? t("more.recoveries", { n: seen.recoveries }) : "" };
  }
  if (state === "lost") return { word, clock: passed, more: attempts(person, now) };
  if (state === "exhausted") {
    return { word, clock: passed, more: seen.attempt > 0 ? t("more.allUsed", { n: seen.attempt }) : "" };
  }
  if (state === "readmitted") return { word, clock: passed, more: t("more.notBack") };
  return { word, clock: STATES[state].away ? passed : "", more: "" };
}

/** Attempt k of n, and when the next one begins. @param {Person} person @param {number} now */
function attempts({ seen }, now) {
  if (seen.attempt === 0) return t("more.noAttempt");
  const counted = { attempt: seen.attempt, most: seen.maxAttempts ?? "?" };
  const next = milliseconds(seen.nextAttemptAt);
  if (next === null || next <= now) return t("more.attempt", counted);
  return t("more.next", { ...counted, clock: clock((next - now) / 1000) });
}

/** The countdown of the phone. @param {string | null} deadline @param {number} now @returns {Omit<Said, "word">} */
function left(deadline, now) {
  const until = milliseconds(deadline);
  if (until === null) return { clock: "", more: "" };
  return { clock: clock((until - now) / 1000), more: t(until > now ? "more.left" : "more.late") };
}

/** Id and name. @param {{id: string, name: string | null}} person */
export function nameOf({ id, name }) {
  return name ? `${id} ${name}` : id;
}

/** The word for a reason of the protocol; one that is not known stands for itself. @param {string | null | undefined} reason */
export function reasonText(reason) {
  if (!reason) return "";
  return hasText(`reason.${reason}`) ? t(`reason.${reason}`) : reason;
}

/**
 * What the members of an incident have in common. A moment to which others have kept being added is one no longer.
 * @param {Incident} incident
 */
export function incidentName({ common, name, began, last }) {
  if (common === "moment" && last - began > WINDOW_SECONDS * 1000) return t("incident.series");
  return t(`incident.${common}`, { name });
}

/** How many are in a state, for a button. @param {string} word @param {number} count */
export function counted(word, count) {
  return `${word} ${number(count)}`;
}

/**
 * The facts about the examinee in the panel: labels, times, connection, phone.
 *
 * @typedef {import("../examinees.js").Person} Person
 */

import { appointment, moment, t } from "../../common/i18n.js";
import { element, parts, setText } from "../../common/elements.js";
import { milliseconds } from "../examinees.js";
import { labelName, reasonText } from "../texts.js";
import { browserOf } from "./browser-name.js";

/**
 * List what is known about an examinee.
 * @param {Person} person
 * @param {import("../session/exam-times.js").ExamTimes} times
 * @param {string | null} agent the user agent of the latest connection in the log: a snapshot has none
 * @param {number} now ms since the epoch, by the servers' clock
 */
export function drawFacts({ id, seen, since }, times, agent, now) {
  const at = (/** @type {number | null} */ when) => (when === null ? "" : moment(when, now));
  const agreed = (/** @type {number | null} */ when) => (when === null ? "" : appointment(when, now));
  const browser = seen.browserInfo ?? agent ?? "";
  /** @type {[string, string][]} */
  const facts = [
    ["fact.since", at(since)],
    ["fact.reason", reasonText(seen.reason)],
    ["fact.attempt", seen.attempt > 0 ? t("fact.attempts", { attempt: seen.attempt, most: seen.maxAttempts ?? "?" }) : ""],
    ["fact.next", at(milliseconds(seen.nextAttemptAt))],
    ["fact.phone", [t(`phone.${seen.mobileSync}`), reasonText(seen.mobileSyncReason)].filter(Boolean).join(": ")],
    ["fact.deadline", seen.mobileSync === "WAITING" ? at(milliseconds(seen.deadline)) : ""],
    ["fact.recoveries", seen.recoveries > 0 ? t("fact.times", { n: seen.recoveries }) : ""],
    ["fact.examStart", agreed(times.startOf(id))],
    ["fact.examEnd", agreed(times.endOf(id))],
    ["fact.server", seen.serverId ?? ""],
    ["fact.address", seen.ipAddress ?? ""],
    ["fact.browser", browserText(browser)],
  ];
  const list = element("panel-facts");
  const labels = Object.entries(seen.labels).map(([name, value]) => [labelName(name), value]);
  const known = [...labels, ...facts.filter(([, value]) => value).map(([key, value]) => [t(key), value])];
  while (list.children.length > known.length) list.lastElementChild?.remove();
  known.forEach(([name, value], row) => {
    const line = list.children[row] ?? list.appendChild(parts("div", "dt", "dd"));
    setText(line.children[0], name);
    setText(line.children[1], value);
    /** @type {HTMLElement} */ (line.children[1]).title = name === t("fact.browser") && value !== browser ? browser : "";
  });
}

/** Name browser and system; what is no browser's user agent is shown as it is. @param {string} agent */
export function browserText(agent) {
  const named = browserOf(agent);
  if (named === null) return agent;
  return named.system ? t("browser", named) : named.browser;
}

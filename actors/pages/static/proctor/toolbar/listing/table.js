/**
 * The examinees that the wall shows as a table, in the language in use: for paper and for spreadsheets.
 *
 * @typedef {import("../../examinees.js").Person} Person
 * @typedef {import("../../examinees.js").View} View
 * @typedef {import("../../session/exam-times.js").ExamTimes} ExamTimes
 */

import { moment, t } from "../../../common/i18n.js";
import { describe, flagsText, incidentName, labelName, labelText, reasonText } from "../../texts.js";

/**
 * Return the rows for paper, the header first: who, where, and how they are.
 * @param {readonly Person[]} people @param {number} now ms since the epoch, by the servers' clock
 * @returns {string[][]}
 */
export function printedRows(people, now) {
  const labels = labelsOf(people);
  const header = [t("list.id"), t("list.name"), ...labels.map(labelName), t("list.state"), t("fact.since"), t("list.more")];
  return [header, ...people.map((person) => {
    const { word } = describe(person, now);
    const since = person.since === null ? "" : moment(person.since, now);
    return [person.id, person.name ?? "", ...labels.map((label) => person.labels[label] ?? ""), word, since, detailOf(person, now)];
  })];
}

/** Return what a tile says below the state, but for countdowns: a paper does not count. @param {Person} person @param {number} now */
function detailOf(person, now) {
  const { seen, state } = person;
  if (state === "lost" && seen.attempt > 0) return t("more.attempt", { attempt: seen.attempt, most: seen.maxAttempts ?? "?" });
  if (state === "waiting") return seen.deadline ? `${t("fact.deadline")}: ${moment(seen.deadline, now)}` : "";
  return describe(person, now).more;
}

/**
 * Return the rows for a spreadsheet, the header first: also what the panel says of each.
 * @param {readonly Person[]} people @param {ExamTimes} times @param {number} now ms since the epoch, by the servers' clock
 * @returns {(string | number)[][]}
 */
export function exportedRows(people, times, now) {
  const labels = labelsOf(people);
  const header = [
    ...[t("list.id"), t("list.name"), ...labels.map(labelName), t("list.state"), t("fact.since"), t("fact.reason")],
    ...[t("fact.recoveries"), t("fact.phone"), t("list.marks"), t("fact.examEnd"), t("fact.server"), t("fact.address")],
  ];
  return [header, ...people.map((person) => {
    const { id, name, seen, since, marks } = person;
    const strange = marks.map((mark) => (mark === "flagged" ? flagsText(seen.flags) : t(`mark.${mark}`))).join(", ");
    return [
      ...[id, name ?? "", ...labels.map((label) => person.labels[label] ?? ""), describe(person, now).word, stamp(since)],
      ...[reasonText(seen.reason), seen.recoveries, t(`phone.${seen.mobileSync}`), strange, stamp(times.endOf(id))],
      ...[seen.serverId ?? "", seen.ipAddress ?? ""],
    ];
  })];
}

/** Say which examinees the wall shows; empty: all. @param {View} view @param {import("../../incidents/detection.js").Incident | null} incident */
export function filterText({ search = "", states, marks, labels }, incident) {
  const either = (/** @type {string[]} */ words) => words.join(t("list.or"));
  const filters = [
    either([...(states ?? [])].map((state) => t(`state.${state}`))),
    either([...(marks ?? [])].map((mark) => t(`mark.${mark}`))),
    ...[...(labels ?? [])].map(([name, values]) => either([...values].map((value) => labelText(name, value)))),
    incident === null ? "" : incidentName(incident),
    search.trim() && t("list.search", { text: search.trim() }),
  ];
  return filters.filter(Boolean).join("; ");
}

/** Return the names of the labels that somebody has, in their order. @param {readonly Person[]} people */
function labelsOf(people) {
  return [...new Set(people.flatMap(({ labels }) => Object.keys(labels)))];
}

/** Return date and time of day here, as every spreadsheet reads it: `2026-11-30 09:00:07`. @param {number | null} when ms */
export function stamp(when) {
  if (when === null) return "";
  const at = new Date(when);
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

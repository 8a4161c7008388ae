/**
 * An examinee's timeline: the entries of the log (`GET /v1/plans/{P}/examinees/{E}/timeline`) and of live events. Both have
 * their place in the log (`version`), so no entry appears twice. Pure but for the language.
 *
 * An entry has the fields of `TimelineEntry` (protocol/log/timeline_entry.py), as far as they are known.
 * @typedef {{version: number, time: string, what: string, text?: string, effect?: boolean} & Record<string, any>} Entry
 */

import { appointment, duration, hasText, moment, t } from "../../common/i18n.js";
import { reasonText } from "../texts.js";

/** @type {Readonly<Record<string, string>>} */
const WHAT = Object.freeze({
  examinee_disconnected: "LOST",
  examinee_migrating: "MIGRATING",
  examinee_reconnecting: "RECONNECTING",
  examinee_reconnect_exhausted: "SHUT_OUT",
  examinee_unstable: "STABLE",
  examinee_readmitted: "READMITTED",
  examinee_removed: "REMOVED",
  examinee_enrolled: "ENROLLED",
  examinee_finished: "FINISHED",
  examinee_resumed: "RESUMED",
  notice: "NOTICE",
  notice_confirmed: "NOTICE_CONFIRMED",
  help_requested: "HELP_REQUESTED",
  help_taken: "HELP_TAKEN",
  help_closed: "HELP_CLOSED",
  mobile_sync_completed: "SYNC_COMPLETED",
});

/**
 * Make the entry of an event; `null`: the event has none, or repeats a state.
 * @param {{type: string, data: Record<string, any>}} message
 * @returns {Entry | null}
 */
export function entryOf({ type, data }) {
  if (typeof data.version !== "number" || data.restated) return null;
  const base = { ...data, version: data.version, time: data.timestamp ?? data.confirmedAt ?? "" };
  if (type === "examinee_connected") {
    const what = data.recovered ? "RECOVERED" : data.migrated ? "ARRIVED" : data.replaced ? "REPLACED" : "JOINED";
    return { ...base, what, seconds: data.outageSeconds ?? null };
  }
  if (type === "notice") return { ...base, what: "NOTICE", notice: data.text };
  if (type === "help_requested") return { ...base, what: "HELP_REQUESTED", notice: data.help?.text };
  if (type.startsWith("mobile_sync") && data.actionId) return { ...base, what: reviewOf(data) ?? "SYNC_EXTENDED" };
  if (type === "mobile_sync_status") return { ...base, what: `SYNC_${data.status}` };
  return WHAT[type] ? { ...base, what: WHAT[type] } : null;
}

/** Return what a proctor has said about a picture, if an event of the phone step tells that. @param {Record<string, any>} data */
function reviewOf({ captureId, captures }) {
  const reviewed = (captures ?? []).find((/** @type {any} */ capture) => capture.captureId === captureId);
  return reviewed?.verdict ? `SYNC_${reviewed.verdict.toUpperCase()}` : null;
}

/** The entries of one examinee, by their place in the log. */
export class Timeline {
  constructor() {
    /** @type {Map<number, Entry>} */ this._entries = new Map();
  }

  /** Add the entries of the log, which replace those of live events. @param {readonly Entry[]} entries */
  read(entries) {
    for (const entry of entries) this._entries.set(entry.version, entry);
  }

  /** Add the entry of a live event, if it has one. @param {{type: string, data: Record<string, any>}} message */
  receive(message) {
    const entry = entryOf(message);
    // A confirmation has the id of its message, which has the text.
    if (entry?.what === "NOTICE_CONFIRMED") {
      const notice = [...this._entries.values()].find(({ what, actionId }) => what === "NOTICE" && actionId === entry.actionId);
      entry.notice = notice?.notice;
    }
    if (entry && !this._entries.has(entry.version)) this._entries.set(entry.version, entry);
    return entry !== null;
  }

  /** The entries with an effect, the newest first. @returns {Entry[]} */
  get entries() {
    return [...this._entries.values()].filter((entry) => entry.effect !== false).sort((a, b) => b.version - a.version);
  }
}

/** Which times an entry has, as the end of a key: of both, of one, or of none. @param {Entry} entry */
function timesOf({ startsAt, endsAt }) {
  if (startsAt) return endsAt ? "" : ".begin";
  return endsAt ? ".end" : ".none";
}

/**
 * Describe an entry in the language in use; an unknown kind has the server's text.
 * @param {Entry} entry
 * @param {number} [now] ms since the epoch
 */
export function entryText(entry, now = Date.now()) {
  const { what } = entry;
  let key = `what.${what}`;
  if (what === "RECOVERED" && typeof entry.seconds !== "number") key += ".plain";
  if (what === "REMOVED" && entry.reason) key += ".reason";
  if (what === "PLAN_SCHEDULED" || what === "OWN_TIMES") key += timesOf(entry);
  if (what === "PLAN_CLOSED" && entry.reason) key += ".reason";
  if (what === "EXTENDED" && !entry.examineeId) key += ".all";
  if (what === "NOTICE_CONFIRMED" && !entry.notice) key += ".plain";
  if (what === "HELP_REQUESTED" && entry.notice) key += ".text";
  if (!hasText(key)) return entry.text ?? what;
  return t(key, {
    serverId: entry.serverId ?? "?",
    reason: reasonText(entry.reason) || "?",
    begin: entry.startsAt ? appointment(entry.startsAt, now) : "–",
    end: entry.endsAt ? appointment(entry.endsAt, now) : "–",
    attempt: entry.attempt ?? "?",
    maxAttempts: entry.maxAttempts ?? "?",
    duration: duration(entry.seconds ?? 0),
    until: entry.deadline ? moment(entry.deadline, now) : "?",
    deviceId: entry.deviceId ?? "?",
    text: entry.notice ?? entry.text ?? "",
  });
}

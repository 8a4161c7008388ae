/**
 * The outages of an examinee in words. The log has said how long they were when it was read; while one goes on, its time is
 * counted on from there, so that it stays in step with the clock of the state. Pure but for the language.
 */

import { duration, t } from "../../common/i18n.js";

/**
 * An `OutageRow` of the web server (protocol/log/outages.py), as far as it is used here.
 * @typedef {{outages: number, outageSeconds: number, longestSeconds: number, ongoingSeconds: number, stillDisconnected: boolean,
 *   compensateSeconds: number, clientClosedSeconds: number, complete?: boolean, windowStart?: string, windowEnd?: string}} OutageRow
 */

/**
 * Return the sentences about the outages.
 * @param {OutageRow} row
 * @param {number} asOf when the log was read, in ms since the epoch by the servers' clock
 * @param {number} now
 * @param {{goesOn: boolean, ownClose: boolean, compensated: boolean}} outage `goesOn`: whether the examinee is still away.
 *   `ownClose`: whether it began with the examinee closing the page, and then whether that is `compensated`
 */
export function outagesText(row, asOf, now, { goesOn, ownClose, compensated }) {
  const open = row.stillDisconnected && goesOn;
  const more = open ? growth(row, asOf, now) : 0;
  // Seconds begun do not count while the clock runs, as in the clock of the state.
  const whole = (/** @type {number} */ seconds) => (open ? Math.floor(seconds) : seconds);
  const words = (/** @type {number} */ seconds) => duration(whole(seconds));
  const sentences = [];
  if (row.outages === 0) sentences.push(t("outages.none"));
  else {
    const longest = Math.max(row.longestSeconds, row.ongoingSeconds + more);
    sentences.push(t("outages.sum", { n: row.outages, total: words(row.outageSeconds + more), longest: words(longest) }));
  }
  const closed = row.clientClosedSeconds + (ownClose ? more : 0);
  if (whole(closed) > 0) sentences.push(t("outages.client", { total: words(closed) }));
  if (open) sentences.push(t("outages.now"));
  const compensate = row.compensateSeconds + (ownClose && !compensated ? 0 : Math.floor(more));
  if (compensate > 0) sentences.push(t("outages.compensate", { compensate: duration(compensate) }));
  if (row.complete === false) sentences.push(t("outages.cut"));
  return sentences.join(" ");
}

/** Return by how many seconds an open outage has grown since the log was read, within the exam. @param {OutageRow} row @param {number} asOf @param {number} now */
function growth({ windowStart, windowEnd }, asOf, now) {
  const begin = Math.max(asOf, windowStart ? Date.parse(windowStart) : -Infinity);
  const end = Math.min(now, windowEnd ? Date.parse(windowEnd) : Infinity);
  return Math.max(0, end - begin) / 1000;
}

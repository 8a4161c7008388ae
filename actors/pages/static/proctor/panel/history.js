/**
 * The history of one examinee in the panel: the timeline, from the log and from live events, and the outages.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("../session/web-api.js").WebApi} WebApi
 */

import { date, isToday, language, moment, person, t, time } from "../../common/i18n.js";
import { element, parts, setText } from "../../common/elements.js";
import { outagesText } from "./outages.js";
import { entryText, Timeline } from "./timeline.js";
import { Refused } from "../session/web-api.js";

const ENTRIES = 200;
/** So long after a live event (ms) the log is read again, for the outages and the exact texts. */
const READ_AGAIN_MS = 1500;
const NO_OUTAGES = Object.freeze({
  ...{ outages: 0, outageSeconds: 0, longestSeconds: 0, ongoingSeconds: 0, compensateSeconds: 0, clientClosedSeconds: 0 },
  stillDisconnected: false,
});

/**
 * The person who decided something. `null`: nobody did (the schedule, the end of the plan), or the text says so: an examinee
 * hands in, and the `by` of a confirmation is the proctor who sent the message, not the one who confirmed it.
 * @param {import("./timeline.js").Entry} entry
 */
function deciderOf(entry) {
  const ownAct = entry.what === "NOTICE_CONFIRMED" || (entry.what === "FINISHED" && entry.reason === "HANDED_IN");
  return ownAct || entry.by === "plan" || entry.by === "schedule" || !entry.by ? null : person(entry.by, entry.byName);
}

/** The timeline and the outages of the examinee in the panel. */
export class History {
  /**
   * @param {WebApi} web
   * @param {{changed: () => void, compensated: () => boolean}} given `changed`: called when the log was read. `compensated`:
   *   whether outages that the examinee's own client began are compensated
   */
  constructor(web, { changed, compensated }) {
    this.web = web;
    this._changed = changed;
    this._compensated = compensated;
    /** @type {Person | null} */ this._person = null;
    this._timeline = new Timeline();
    /** @type {import("./outages.js").OutageRow | null} */ this._outages = null;
    /** When the outages were counted, in ms since the epoch by the servers' clock. */ this._asOf = 0;
    /** The times of which the log has lost the facts. @type {{missingFrom: string, missingTo: string}[]} */ this._gaps = [];
    /** Where the entries go on that are older than those shown; `null`: there are none. @type {number | null | undefined} */
    this._before = undefined;
    /** "loading", "loaded", or why it could not be read. */ this._state = "loading";
    /** Whether the token has expired. */ this._expired = false;
    /** Counts the shown examinees: an answer about an earlier one is ignored. */ this._generation = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._timer = undefined;
    element("timeline-earlier").addEventListener("click", () => void this._read(this._before));
  }

  /** Show the history of an examinee. @param {Person} person */
  begin(person) {
    this._generation += 1;
    this._person = person;
    this._timeline = new Timeline();
    this._outages = null;
    this._gaps = [];
    this._before = undefined;
    this._state = "loading";
    this.read();
    this.draw();
  }

  /** Forget the examinee: the panel is closed. */
  end() {
    this._generation += 1;
    this._person = null;
    clearTimeout(this._timer);
  }

  /** Handle an event about the examinee. @param {{type: string, data: Record<string, any>}} message */
  receive(message) {
    if (!this._timeline.receive(message)) return;
    this._drawTimeline();
    this.readSoon();
  }

  /** Read the log when what has just happened is in it. */
  readSoon() {
    this.read(READ_AGAIN_MS);
  }

  /** Read the log. @param {number} [delay] ms */
  read(delay = 0) {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => void this._read(), delay);
  }

  /** Read the newest entries, or those before a version. @param {number | null} [before] */
  async _read(before = null) {
    const [person, generation] = [this._person, this._generation];
    if (person === null) return;
    let body;
    try {
      const older = before === null ? "" : `&before=${before}`;
      body = await (await this.web.get(`/examinees/${person.id}/timeline?limit=${ENTRIES}${older}`)).json();
    } catch (error) {
      // 404: the log has nothing about an examinee who never connected.
      body = error instanceof Refused && error.status === 404 ? {} : /** @type {Error} */ (error);
    }
    if (generation !== this._generation) return;
    this._expired = body instanceof Refused && body.status === 401;
    if (body instanceof Error) this._state = body.message;
    else {
      this._timeline.read(body.entries ?? []);
      if (before === null) {
        this._outages = body.outages ?? NO_OUTAGES;
        this._asOf = body.asOf ? Date.parse(body.asOf) : this.web.now();
      }
      this._gaps = body.logGaps ?? [];
      if (before !== null || this._before === undefined) this._before = body.before;
      this._state = "loaded";
    }
    this.draw();
    this._changed();
  }

  /** The user agent of the latest connection in the log that has one. @returns {string | null} */
  get agent() {
    return this._timeline.entries.find(({ userAgent }) => userAgent)?.userAgent ?? null;
  }

  /** Update the counting parts. */
  tick() {
    if (this._outages?.stillDisconnected) this._drawOutages();
  }

  /** Draw timeline and outages. */
  draw() {
    this._drawTimeline();
    this._drawOutages();
  }

  _drawOutages() {
    const outages = this._outages;
    if (outages === null) {
      setText(element("outages"), this._state === "loading" ? t("timeline.loading") : "–");
      return;
    }
    const seen = this._person?.seen;
    setText(element("outages"), outagesText(outages, this._asOf, this.web.now(), {
      goesOn: seen?.status !== "CONNECTED",
      ownClose: seen?.reason === "CLIENT_CLOSED",
      compensated: this._compensated(),
    }));
    const gaps = element("outages-gaps");
    gaps.hidden = this._gaps.length === 0;
    const now = this.web.now();
    setText(gaps, this._gaps.map(({ missingFrom, missingTo }) => (
      t("outages.gap", { begin: moment(missingFrom, now), end: moment(missingTo, now) }))).join(" "));
  }

  _drawTimeline() {
    element("timeline-token").hidden = !this._expired;
    element("timeline-earlier").hidden = this._state !== "loaded" || !this._before;
    const note = element("timeline-note");
    const { entries } = this._timeline;
    note.hidden = this._state === "loaded" && entries.length > 0;
    if (this._state === "loading") setText(note, t("timeline.loading"));
    else if (this._state === "loaded") setText(note, t("timeline.none"));
    else setText(note, t("timeline.failed", { why: this._state }));
    const list = element("timeline");
    const now = this.web.now();
    while (list.children.length > entries.length) list.lastElementChild?.remove();
    entries.forEach((entry, at) => {
      const item = list.children[at] ?? list.appendChild(parts("li", "time", "span", "small"));
      item.setAttribute("data-what", entry.what);
      const when = /** @type {HTMLTimeElement} */ (item.children[0]);
      if (when.dateTime !== entry.time) {
        when.dateTime = entry.time;
        when.title = entry.time;
      }
      setText(when, entry.time ? timeText(entry.time, now) : "");
      setText(item.children[1], entryText(entry, now));
      const by = deciderOf(entry);
      setText(item.children[2], by ? t("timeline.by", { by }) : "");
    });
    list.lang = language();
  }
}

/** Return the time of an entry, under the date unless it is today. @param {string} when RFC 3339 @param {number} now ms */
function timeText(when, now) {
  return isToday(when, now) ? time(when) : `${date(when)}\n${time(when)}`;
}

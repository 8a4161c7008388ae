/**
 * What the alerts of one plan are about: the summaries for screen readers, and those whom a sound is for.
 */

import { t } from "../../common/i18n.js";
import { incidentName } from "../texts.js";

/** @typedef {import("../examinees.js").State} State */
/** @typedef {import("./detection.js").Incident} Incident */

/** A loss shorter than this (seconds) makes no sound: many examinees come back at once. */
export const SOUND_AFTER_SECONDS = 2;

/** States of examinees who were lost before and are not connected again. @type {ReadonlySet<State>} */
const NOT_BACK = new Set(["removed", "readmitted", "finished", "over", "notStarted"]);

/** @typedef {"exhausted" | "lost" | "help" | "syncFailed" | "back"} Change */

/** So many are named; of more, the number is said. */
const MOST_NAMED = 3;

/** Collects what has happened since the last summary. Pure but for the language. */
export class Summary {
  /**
   * @param {(id: string) => string} who returns id and name of an examinee
   * @param {(id: string) => Incident | null} incidentOf returns the open incident of an examinee
   */
  constructor(who, incidentOf) {
    this._who = who;
    this._incidentOf = incidentOf;
    /** @type {Map<string, Change>} */ this._changes = new Map();
    /** @type {Set<Incident>} */ this._began = new Set();
    /** @type {Set<Incident>} */ this._over = new Set();
    /** The sentences at the beginning. @type {string[]} */ this._sentences = [];
  }

  /** Add a sentence to the beginning of the summary. @param {string} sentence */
  say(sentence) {
    this._sentences.push(sentence);
  }

  /**
   * Note an examinee's new state. A loss that ends before the next summary is left out.
   * @param {string} id
   * @param {State} before
   * @param {State} state
   */
  changed(id, before, state) {
    if (state === "lost" || state === "exhausted" || state === "syncFailed" || state === "help") {
      this._changes.set(id, state);
    } else if (before === "lost" || before === "exhausted") {
      if (this._changes.get(id) === "lost") this._changes.delete(id);
      else if (!NOT_BACK.has(state)) this._changes.set(id, "back");
    }
  }

  /** Forget an examinee who has left the plan. @param {string} id */
  forget(id) {
    this._changes.delete(id);
  }

  /** Note a new incident; its members are not announced one by one. @param {Incident} incident */
  began(incident) {
    this._began.add(incident);
    for (const id of incident.members.keys()) if (this._changes.get(id) === "lost") this._changes.delete(id);
  }

  /** Note that an incident is over. @param {Incident} incident */
  over(incident) {
    this._over.add(incident);
  }

  /** Return the summary and begin a new one; empty: nothing to say. */
  take() {
    const sentences = this._sentences;
    for (const incident of this._began) {
      sentences.push(t("said.incident", { what: incidentName(incident), n: incident.size }));
    }
    for (const incident of this._takeJoined()) {
      sentences.push(t("said.joined", { what: incidentName(incident), n: incident.size }));
    }
    for (const change of /** @type {const} */ (["exhausted", "lost", "help", "syncFailed", "back"])) {
      const ids = [...this._changes].filter(([, what]) => what === change).map(([id]) => id);
      const n = ids.length;
      if (n > MOST_NAMED) sentences.push(t(`said.${change}`, { n }));
      else if (n > 0) sentences.push(t(`said.who.${change}`, { n, who: ids.map(this._who).join(", ") }));
    }
    for (const incident of this._over) sentences.push(t("said.over", { what: incidentName(incident) }));
    this._sentences = [];
    this._changes.clear();
    this._began.clear();
    this._over.clear();
    return sentences.join(" ");
  }

  /** Return the incidents that lost examinees have joined since they were announced; these examinees are counted there alone. */
  _takeJoined() {
    /** @type {Set<Incident>} */
    const joined = new Set();
    for (const [id, change] of this._changes) {
      const incident = change === "lost" ? this._incidentOf(id) : null;
      if (incident === null) continue;
      this._changes.delete(id);
      if (!this._began.has(incident)) joined.add(incident);
    }
    return joined;
  }
}

/** Examinees who need attention for a while and have had no sound yet. Pure. */
export class PendingAlerts {
  constructor() {
    /** @type {Map<string, number>} */ this._since = new Map();
  }

  /**
   * Note a change of an examinee.
   * @param {string} id @param {boolean} alarm whether they need attention now @param {number} now ms
   */
  changed(id, alarm, now) {
    if (!alarm) this._since.delete(id);
    else if (!this._since.has(id)) this._since.set(id, now);
  }

  /** Whether to play the sound now; those it is played for are removed. @param {number} now ms */
  due(now) {
    let due = false;
    for (const [id, since] of this._since) {
      if (now - since < SOUND_AFTER_SECONDS * 1000) continue;
      due = true;
      this._since.delete(id);
    }
    return due;
  }
}

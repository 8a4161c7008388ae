/**
 * The alerts of the wall: summaries for screen readers, a sound, and the title of the tab.
 */

import { t } from "../../common/i18n.js";
import { incidentName } from "../texts.js";

/** @typedef {import("../examinees.js").State} State */
/** @typedef {import("./detection.js").Incident} Incident */

/** The least seconds between two summaries: people switch off a screen reader that speaks all the time. */
export const SAY_EVERY_SECONDS = 5;
/** A loss shorter than this (seconds) makes no sound: many examinees come back at once. */
export const SOUND_AFTER_SECONDS = 2;
/** The sound comes at most this often (seconds). */
export const SOUND_EVERY_SECONDS = 5;

/** States of examinees who were lost before and are not connected again. @type {ReadonlySet<State>} */
const NOT_BACK = new Set(["removed", "readmitted", "finished", "over", "notStarted"]);

/** @typedef {"exhausted" | "lost" | "help" | "syncFailed" | "back"} Change */

/** Collects what has happened since the last summary. Pure but for the language. */
export class Summary {
  constructor() {
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
    for (const change of /** @type {const} */ (["exhausted", "lost", "help", "syncFailed", "back"])) {
      const ids = [...this._changes].filter(([, what]) => what === change).map(([id]) => id);
      if (ids.length === 1) sentences.push(t(`said.one.${change}`, { id: ids[0] }));
      else if (ids.length > 1) sentences.push(t(`said.${change}`, { n: ids.length }));
    }
    for (const incident of this._over) sentences.push(t("said.over", { what: incidentName(incident) }));
    this._sentences = [];
    this._changes.clear();
    this._began.clear();
    this._over.clear();
    return sentences.join(" ");
  }
}

/** Plays two soft tones, made without a file. Browsers allow sound only after a click or key on the page. */
export class Chime {
  constructor() {
    /** @type {AudioContext | null} */ this._audio = null;
    this._last = -Infinity;
  }

  /** Call it from a click or key: from then on the page may play sounds. */
  async allow() {
    if (typeof AudioContext === "undefined") return;
    this._audio ??= new AudioContext();
    if (this._audio.state === "suspended") await this._audio.resume();
  }

  /** Play the sound. @param {number} now ms @returns {boolean} whether it is played */
  play(now) {
    const audio = this._audio;
    if (!audio || audio.state !== "running" || now - this._last < SOUND_EVERY_SECONDS * 1000) return false;
    this._last = now;
    for (const [delay, pitch] of [[0, 660], [0.18, 880]]) {
      const [tone, volume] = [audio.createOscillator(), audio.createGain()];
      const at = audio.currentTime + delay;
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0, at);
      volume.gain.linearRampToValueAtTime(0.2, at + 0.02);
      volume.gain.exponentialRampToValueAtTime(0.001, at + 0.35);
      tone.connect(volume).connect(audio.destination);
      tone.start(at);
      tone.stop(at + 0.4);
    }
    return true;
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

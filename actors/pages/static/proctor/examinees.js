/**
 * The examinees of the wall: gives each `Seen` of examwire.js one state, and searches, filters and sorts them. Pure: no DOM,
 * no clock of its own.
 *
 * @typedef {import("../examwire.js").Seen} Seen
 *
 * @typedef {"exhausted" | "lost" | "syncFailed" | "migrating" | "waiting" | "readmitted" | "never" | "connected" | "done" | "help" | "helped"
 *   | "early" | "notStarted" | "finished" | "over" | "removed" | "unknown"} State
 * @typedef {import("./session/exam-times.js").Phase} Phase
 *
 * `tone`: the colours (common/base.css). `path`: the shape of the icon in a box of 16 × 16, different for each
 * state. `alarm`: needs attention. `away`: not connected, so the duration matters.
 * @typedef {{tone: string, path: string, alarm: boolean, away: boolean}} Look
 */

import { folded, searchFor } from "./toolbar/search.js";

/** The states in the order in which they need attention. @type {Readonly<Record<State, Look>>} */
export const STATES = Object.freeze({
  // an octagon with a bar, like a road sign
  exhausted: look("bad", "M5 1h6l4 4v6l-4 4H5l-4-4V5zM4 7v2.2h8V7z", { alarm: true, away: true }),
  // a triangle with an exclamation mark
  lost: look("bad", "M8 1 15.5 15H.5zM7.1 6l.3 4.4h1.2L8.9 6zM7.2 11.6v1.6h1.6v-1.6z", { alarm: true, away: true }),
  // a speech bubble with an exclamation mark
  help: look("warn", "M1 1h14v10H8l-4 4v-4H1zM7.1 2.8v4.4h1.8V2.8zM7.1 8v1.6h1.8V8z", { alarm: true }),
  // a phone with a cross
  syncFailed: look("warn", "M4 0h8v16H4zM5.2 5.6 6.9 7.3 8 8.4 6 10.4l1 1 2-2 2 2 1-1-2-2 2-2-1-1-2 2-2-2z", { alarm: true }),
  // an arrow to the right
  migrating: look("warn", "M1 6h7V2l7 6-7 6v-4H1z", { away: true }),
  // an hourglass
  waiting: look("info", "M2 0h12v2.5L9.5 8l4.5 5.5V16H2v-2.5L6.5 8 2 2.5z", {}),
  // a speech bubble with dots
  helped: look("info", "M1 1h14v10H8l-4 4v-4H1zM3.5 5v2h2V5zM7 5v2h2V5zM10.5 5v2h2V5z", {}),
  // a door that is open
  readmitted: look("info", "M2 1h8v14H2zM4 3v10h4V3zM11 6h2V4l3 4-3 4v-2h-2z", { away: true }),
  // a ring
  never: look("quiet", "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM8 3.2a4.8 4.8 0 1 1 0 9.6A4.8 4.8 0 0 1 8 3.2z", {}),
  // a disc
  connected: look("good", "M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2z", {}),
  // a tick
  done: look("good", "M13.6 2 16 4.3 6.3 14 0 7.9l2.3-2.3 4 3.8z", {}),
  // a half-filled ring
  early: look("info", "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM8 3.2a4.8 4.8 0 1 1 0 9.6z", {}),
  // a clock
  notStarted: look("quiet", "M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1zM8 3a5 5 0 1 1 0 10A5 5 0 0 1 8 3zM7.2 4.5v4.3l3 1.7.7-1.3-2.3-1.3V4.5z", {}),
  // a flag
  finished: look("good", "M2 0h2v1h10l-3 4 3 4H4v7H2z", {}),
  // a square
  over: look("quiet", "M2.5 2.5h11v11h-11zM5 5v6h6V5z", {}),
  // a cross
  removed: look("ended", "M3 1 8 6l5-5 2 2-5 5 5 5-2 2-5-5-5 5-2-2 5-5-5-5z", {}),
  // a question mark
  unknown: look("quiet", "M4 5a4 4 0 1 1 5.2 3.8V11H6.8V7H8a2 2 0 1 0-2-2zM6.8 12.6v2.4h2.4v-2.4z", {}),
});

/** Reasons of those who may connect, and whom nobody misses. @type {ReadonlySet<string | null>} */
const MAY_COME = new Set(["READMITTED", "RESUMED"]);

/** @type {readonly State[]} */
export const ORDER = Object.freeze(/** @type {State[]} */ (Object.keys(STATES)));
/** The states that need attention. @type {readonly State[]} */
export const ALARMS = Object.freeze(ORDER.filter((state) => STATES[state].alarm));

/** @param {string} tone @param {string} path @param {{alarm?: boolean, away?: boolean}} more @returns {Look} */
function look(tone, path, { alarm = false, away = false }) {
  return Object.freeze({ tone, path, alarm, away });
}

/**
 * Return the state of an examinee. Before the exam begins for them, and when it is over, nothing about them needs attention.
 * Else the connection comes first; a request for help and the phone count only while the examinee is connected.
 * @param {Seen} seen
 * @param {Phase} [phase]
 * @returns {State}
 */
export function stateOf(seen, phase = "RUNNING") {
  if (seen.removed) return "removed";
  if (seen.status === "FINISHED") return "finished";
  if (phase === "OVER") return "over";
  if (seen.status === "CONNECTED" && seen.help) return seen.help.takenBy ? "helped" : "help";
  if (phase === "BEFORE") return seen.status === "CONNECTED" || seen.status === "MIGRATING" ? "early" : "notStarted";
  if (seen.exhausted) return "exhausted";
  if (seen.status === "DISCONNECTED") return MAY_COME.has(seen.reason) ? "readmitted" : "lost";
  if (seen.status === "MIGRATING") return "migrating";
  if (seen.status === "NEVER") return "never";
  if (seen.status !== "CONNECTED") return "unknown"; // a newer server knows what it means
  if (seen.mobileSync === "WAITING") return "waiting";
  if (seen.mobileSync === "FAILED" || seen.mobileSync === "TIMED_OUT") return "syncFailed";
  return seen.mobileSync === "COMPLETED" ? "done" : "connected";
}

/**
 * Return the beginning of a state in ms since the epoch; `null`: unknown.
 * @param {Seen} seen
 * @param {State} state
 */
export function sinceOf(seen, state) {
  if (state === "help" || state === "helped") return milliseconds(seen.help?.since);
  const phone = state === "waiting" || state === "syncFailed" || state === "done";
  return milliseconds(phone ? (seen.mobileSyncAt ?? seen.since) : seen.since);
}

/** Return a time in ms since the epoch; `null`: none. @param {string | null | undefined} timestamp RFC 3339 */
export function milliseconds(timestamp) {
  const parsed = timestamp ? Date.parse(timestamp) : NaN;
  return Number.isNaN(parsed) ? null : parsed;
}

/**
 * What is strange about an examinee, whatever their state. `flagged`: another address, browser or device, and no proctor has
 * looked at it. `unstable`: away too often of late.
 * @typedef {"flagged" | "unstable"} Mark
 */

/** @type {readonly Mark[]} */
export const MARKS = Object.freeze(/** @type {Mark[]} */ (["flagged", "unstable"]));

/** States in which nothing is strange any more. @type {ReadonlySet<State>} */
const ENDED = new Set(["finished", "over", "removed"]);

/**
 * One examinee on the wall. `key` and `nameKey`: the sort keys of id and name; `text`: what is searched; `place`: the values
 * of the labels. `name` and `labels` are copies, for `seen` belongs to the plan's view, which changes it in place.
 * @typedef {{id: string, key: string, name: string | null, nameKey: string, text: string, place: string,
 *   labels: Record<string, string>, marks: readonly Mark[], seen: Seen, state: State, since: number | null,
 *   others?: string, ownStart?: number | null, laterEnd?: number | null}} Person `others`: what other proctors are doing with
 *   them. `ownStart`, `laterEnd`: when the exam begins or ends for them, if not as for the others (ms)
 * @typedef {Pick<Person, "state" | "since" | "name" | "place" | "marks">} Before the values before a change
 */

/**
 * All examinees of the wall, and the number in each state, with each mark, and with each value of each label.
 */
export class People {
  constructor() {
    /** @type {Map<string, Person>} */ this.all = new Map();
    /** @type {Record<Mark, number>} */ this.marks = { flagged: 0, unstable: 0 };
    /** The number of examinees by the label's name and value. @type {Map<string, Map<string, number>>} */
    this.labels = new Map();
    /** @type {Record<State, number>} */ this.counts = noCounts();
    /** All examinees sorted by id; `null`: to be sorted again. @type {Person[] | null} */ this._byId = null;
  }

  /**
   * Add or update an examinee.
   * @param {Seen} seen
   * @param {Phase} [phase] where they are in the exam
   * @param {boolean} [flagged] whether a proctor has yet to look at their flags
   * @returns {{person: Person, before: Before | null}} `before`: the previous values, `null` for a new examinee
   */
  put(seen, phase = "RUNNING", flagged = seen.flags.length > 0) {
    const id = seen.examineeId;
    const state = stateOf(seen, phase);
    const since = sinceOf(seen, state);
    const known = this.all.get(id);
    const marks = marksOf(state, flagged, seen.unstable);
    this.counts[state] += 1;
    for (const mark of marks) this.marks[mark] += 1;
    if (known === undefined) {
      const person = { id, key: natural(id), ...named(id, seen), marks, seen, state, since };
      this.all.set(id, person);
      this._countLabels(person.labels, 1);
      this._byId = null;
      return { person, before: null };
    }
    const before = { state: known.state, since: known.since, name: known.name, place: known.place, marks: known.marks };
    this.counts[before.state] -= 1;
    for (const mark of before.marks) this.marks[mark] -= 1;
    if (known.name !== seen.name || !isSame(known.labels, seen.labels)) {
      this._countLabels(known.labels, -1);
      Object.assign(known, named(id, seen));
      this._countLabels(known.labels, 1);
    }
    known.marks = marks;
    known.seen = seen;
    known.state = state;
    known.since = since;
    return { person: known, before };
  }

  /** Remove an examinee who has left the plan. @param {string} id */
  drop(id) {
    const known = this.all.get(id);
    if (known === undefined) return;
    this.counts[known.state] -= 1;
    for (const mark of known.marks) this.marks[mark] -= 1;
    this._countLabels(known.labels, -1);
    this.all.delete(id);
    this._byId = null;
  }

  /** Add to the numbers of examinees with these labels. @param {Record<string, string>} labels @param {number} by */
  _countLabels(labels, by) {
    for (const [name, value] of Object.entries(labels)) {
      let values = this.labels.get(name);
      if (values === undefined) this.labels.set(name, (values = new Map()));
      const count = (values.get(value) ?? 0) + by;
      if (count > 0) values.set(value, count);
      else values.delete(value);
    }
  }

  /** The number of examinees who need attention. */
  get alarms() {
    return ALARMS.reduce((sum, state) => sum + this.counts[state], 0);
  }

  /**
   * Return the examinees that the wall shows, in order.
   * @param {View} [view]
   * @returns {Person[]}
   */
  shown(view = {}) {
    this._byId ??= [...this.all.values()].sort((a, b) => compare(a.key, b.key));
    const shown = this._byId.filter(this._matcher(view));
    const { sort = "attention", together = NOBODY } = view;
    return sort === "id" ? shown : SORTED_BY[sort](shown, together);
  }

  /** Count those who need attention and whom the wall does not show. @param {View} view */
  hiddenAlarms(view) {
    if (!isNarrowed(view) && !folds(view)) return 0;
    const matches = this._matcher(view);
    let hidden = 0;
    for (const person of this.all.values()) if (STATES[person.state].alarm && !matches(person)) hidden += 1;
    return hidden;
  }

  /** Return whether the wall shows an examinee. @param {View} view @returns {(person: Person) => boolean} */
  _matcher(view) {
    const { search = "", labelName, states = NO_STATES, marks = NO_MARKS, labels = NO_LABELS, only = null, together = NOBODY } = view;
    const wanted = [...labels].filter(([, values]) => values.size > 0);
    const found = searchFor(search, this.labels, labelName);
    const behindLines = folds(view) ? together : NOBODY;
    return (person) => (
      (states.size === 0 || states.has(person.state)) &&
      !behindLines.has(person.id) &&
      (only === null || only.has(person.id)) &&
      (marks.size === 0 || person.marks.some((mark) => marks.has(mark))) &&
      wanted.every(([name, values]) => values.has(person.labels[name])) &&
      (found === null || found(person)));
  }
}

/** @type {ReadonlySet<string>} */
const NOBODY = new Set();
/** @type {ReadonlySet<string>} */
const NO_STATES = NOBODY;
/** @type {ReadonlySet<string>} */
const NO_MARKS = NO_STATES;
/** @type {ReadonlyMap<string, ReadonlySet<string>>} */
const NO_LABELS = new Map();

/**
 * What the wall shows: examinees whom `search` finds, where labels have the names of `labelName`, in one of `states` (empty:
 * all), with one of `marks` (empty: all), with one of the values of each label in `labels`, and in `only` (`null`: all); sorted
 * by `sort`. `together`: those who were lost together, and have the line of an incident. Sorted by attention they come after the
 * others who need it, by id; while nothing is searched or filtered, they are behind that line only, unless `whole`.
 * @typedef {{search?: string, labelName?: (name: string) => string, states?: ReadonlySet<string>, marks?: ReadonlySet<string>,
 *   together?: ReadonlySet<string>, whole?: boolean,
 *   labels?: ReadonlyMap<string, ReadonlySet<string>>, only?: {has: (id: string) => boolean} | null, sort?: Sort}} View
 * @typedef {"attention" | "id" | "name" | "since"} Sort
 */

/** Whether a search or filter may hide examinees. @param {View} view */
export function isNarrowed({ search = "", states = NO_STATES, marks = NO_MARKS, labels = NO_LABELS, only = null }) {
  return search.trim() !== "" || states.size > 0 || marks.size > 0 || isByLabel(labels) || only !== null;
}

/** Whether examinees are behind the lines of incidents. @param {View} view */
function folds(view) {
  return !view.whole && (view.together ?? NOBODY).size > 0 && (view.sort ?? "attention") === "attention" && !isNarrowed(view);
}

/** Whether a value of a label is chosen. @param {ReadonlyMap<string, ReadonlySet<string>>} labels */
function isByLabel(labels) {
  for (const values of labels.values()) if (values.size > 0) return true;
  return false;
}

/**
 * Whether a change of an examinee may change which examinees the wall shows, or their order.
 * @param {Person} person the new values
 * @param {Before | null} before the previous values; `null`: a new examinee
 * @param {View} view
 */
export function reorders(person, before, { search = "", states = NO_STATES, marks = NO_MARKS, labels = NO_LABELS, only = null, sort = "attention" }) {
  if (before === null) return true;
  const marksChanged = before.marks !== person.marks && before.marks.join() !== person.marks.join();
  if (marksChanged && (marks.size > 0 || sort === "attention")) return true;
  if (before.place !== person.place && (search !== "" || isByLabel(labels))) return true;
  const stateChanged = before.state !== person.state;
  const timeChanged = before.since !== person.since && (sort === "since" || isSortedByTime(person.state));
  if (before.name !== person.name && (search !== "" || sort === "name")) return true;
  if (stateChanged && (states.size > 0 || only !== null)) return true;
  return (stateChanged || timeChanged) && (sort === "attention" || sort === "since");
}

/** Whether those who are longest in the state come first. @param {State} state */
function isSortedByTime(state) {
  return STATES[state].alarm || STATES[state].away || state === "waiting";
}

/**
 * Each function gets examinees sorted by id, and keeps that order among equals. They do not use `localeCompare`, which
 * takes longer than a frame with 2,000 examinees.
 * @type {Readonly<Record<Exclude<Sort, "id">, (people: Person[], together: ReadonlySet<string>) => Person[]>>}
 */
const SORTED_BY = Object.freeze({
  // Within a state the longest first; states without trouble by id, so that their tiles do not move.
  attention: (people, together) => {
    /** @type {Map<Group, Person[]>} */
    const groups = new Map(GROUPS.map((group) => [group, []]));
    for (const person of people) groups.get(together.has(person.id) ? "together" : groupOf(person))?.push(person);
    return [...groups].flatMap(([group, members]) => (
      group === "marked" || group === "together" || !isSortedByTime(group)
        ? members
        : members.sort((a, b) => difference(a.since ?? Infinity, b.since ?? Infinity))));
  },
  name: (people) => people.sort((a, b) => compare(a.nameKey, b.nameKey)),
  // The newest change first.
  since: (people) => people.sort((a, b) => difference(b.since ?? -Infinity, a.since ?? -Infinity)),
});

/** @typedef {State | "together" | "marked"} Group */

/**
 * The groups in the order in which they need attention: after those who need attention now come those who were lost
 * together, then those with a mark.
 * @type {readonly Group[]}
 */
const GROUPS = ORDER.flatMap((state) => (state === "migrating" ? /** @type {Group[]} */ (["together", "marked", state]) : [state]));

/** @param {Person} person @returns {Group} */
function groupOf({ state, marks }) {
  return marks.length > 0 && !STATES[state].alarm ? "marked" : state;
}

/** Return the marks of an examinee in a state. @param {State} state @param {boolean} flagged @param {boolean} unstable @returns {readonly Mark[]} */
function marksOf(state, flagged, unstable) {
  if ((!flagged && !unstable) || ENDED.has(state)) return NO_MARK;
  return MARKS.filter((mark) => (mark === "flagged" ? flagged : unstable));
}

/** @type {readonly Mark[]} */
const NO_MARK = Object.freeze([]);

/** Whether two sets of labels are the same. @param {Record<string, string>} a @param {Record<string, string>} b */
function isSame(a, b) {
  if (a === b) return true;
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
}

/** Subtract; two infinities are equal. @param {number} a @param {number} b */
function difference(a, b) {
  return a === b ? 0 : a - b;
}

/** Compare two sort keys. @param {string} a @param {string} b */
function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Return the sort key of an id: numbers in it sort as numbers, E2 before E10. @param {string} id */
export function natural(id) {
  return id.replace(/\d+/g, (digits) => digits.padStart(16, "0"));
}

/** Return the fields that depend on the roster; examinees without a name sort last. @param {string} id @param {Seen} seen */
function named(id, { name, labels }) {
  const place = Object.values(labels).join(" · ");
  const key = folded(name ?? "");
  return { name, nameKey: key || "\uffff", text: `${folded(id)} ${key} ${folded(place)}`, place, labels: { ...labels } };
}

/** @returns {Record<State, number>} */
function noCounts() {
  return /** @type {Record<State, number>} */ (Object.fromEntries(ORDER.map((state) => [state, 0])));
}

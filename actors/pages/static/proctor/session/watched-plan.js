/**
 * One plan that the wall watches: the connection, the examinees, the incidents and the actions. It has no elements, so that
 * one page can watch several plans and show one of them.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("../incidents/detection.js").Incident} Incident
 * @typedef {import("../several/batch.js").BatchKind} BatchKind
 * @typedef {{person: Person, before: import("../examinees.js").Before | null}} Update
 */

import { ProctorClient } from "../../examwire.js";
import { t } from "../../common/i18n.js";
import { claimsOf } from "../../common/token.js";
import { ActionSender, newActionId } from "../panel/action-sender.js";
import { Actions } from "../panel/actions.js";
import { PendingAlerts, Summary } from "../incidents/alerts.js";
import { Incidents, LABEL, placesOf } from "../incidents/detection.js";
import { milliseconds, People, stateOf, STATES } from "../examinees.js";
import { ActionBatch, APPLIES } from "../several/batch.js";
import { ExamTimes } from "./exam-times.js";
import { PlanConnection } from "./plan-connection.js";
import { WebApi } from "./web-api.js";
import { nameOf } from "../texts.js";

/** The client fires `change` at most so long (ms) after a frame, also on a hidden page. */
const LOADED_AFTER_MS = 300;

/**
 * Fires `change` (detail: `{changed, gone, updates}`, at most once a frame), `plan` (the plan's state has changed), `message`
 * (each frame), `loaded` (a snapshot was applied), `actions` (the outcome of an action has changed) and `batch` (of one about several).
 */
export class WatchedPlan extends EventTarget {
  /** @param {string} token */
  constructor(token) {
    super();
    this.token = token;
    this.claims = claimsOf(token);
    this.web = new WebApi(token, this.claims?.plan ?? "", () => this.now());
    this.people = new People();
    this.incidents = new Incidents();
    this.actions = new Actions();
    this.summary = new Summary(
      (id) => nameOf(this.people.all.get(id) ?? { id, name: null }), (id) => this.incidents.of(id));
    this.pendingAlerts = new PendingAlerts();
    /** Whether a snapshot was applied: what it contains is not announced. */ this.loaded = false;
    /** The flags that a proctor has looked at, by examineeId. @type {Map<string, string>} */ this._seenFlags = new Map();
    this.times = new ExamTimes(null);
    /** The state from which `times` were made. @type {Record<string, any> | null} */ this._timesOf = null;
    /** When somebody's phase changes next, in ms since the epoch. */ this._nextPhase = Infinity;
    this.client = new ProctorClient({ endpointsUrl: "/v1/endpoints", token });
    this.connection = new PlanConnection(this.client, (sentence) => this.say(sentence));
    this.sender = new ActionSender({
      client: this.client,
      actions: this.actions,
      by: this.claims?.subject ?? "",
      now: () => this.now(),
      changed: () => this._fire("actions"),
    });
    /** The actions about several examinees, by their kind. */
    this.batches = /** @type {Record<BatchKind, ActionBatch>} */ (Object.fromEntries(
      Object.keys(APPLIES).map((kind) => [kind, this._makeBatch(/** @type {BatchKind} */ (kind))])));
    /** The one that has begun last. */ this.batch = this.batches.readmit;
    this._wire();
  }

  /** @param {BatchKind} kind */
  _makeBatch(kind) {
    return new ActionBatch({
      kind,
      ask: (examineeId, requestId, seconds) => this.sender.send({ kind, examineeId, requestId, seconds }),
      state: (id) => this.stateOf(id),
      ready: () => this.upToDate,
      changed: () => this._fire("batch"),
      newId: newActionId,
    });
  }

  /** Begin an action about several examinees. @param {BatchKind} kind @param {string[]} ids @param {number} seconds of an extension */
  begin(kind, ids, seconds) {
    this.batch = this.batches[kind];
    this.batch.add(ids, seconds);
  }

  /** Whether the plan allows an action at all: a closed one is opened again first, and only an end can be moved. @param {BatchKind} kind */
  canAct(kind) {
    if (kind === "resume") return this.times.status !== "CLOSED";
    if (kind === "extend_exam") return this.times.status !== "CLOSED" && this.times.end !== null;
    return true;
  }

  /** The id of the plan. */
  get id() {
    return this.web.plan;
  }

  /** What people call the plan. */
  get name() {
    return this.client.view.plan?.name ?? this.id;
  }

  /** The labels that the proctor is limited to, each with its values; `null`: not limited. */
  get scope() {
    return this.claims?.scope ?? null;
  }

  /** The title of its wall. */
  get title() {
    return this.client.view.plan?.name ?? t("title", { plan: this.id });
  }

  /** Whether the plan is known as it is now. */
  get upToDate() {
    return this.client.fresh && this.client.viewStatus.current;
  }

  /** The number of examinees who need attention. */
  get alarms() {
    return this.people.alarms;
  }

  /** Return ms since the epoch by the servers' clock, to which all times of the plan refer. */
  now() {
    return this.client.serverTime ?? Date.now();
  }

  /** Return the state of an examinee as the plan says it now, also if it is not shown yet; `null`: not in the plan. @param {string} id */
  stateOf(id) {
    const seen = this.client.view.examinees.get(id);
    return seen ? stateOf(seen, this.times.phaseOf(id, this.now())) : null;
  }

  start() {
    this.client.connect();
  }

  /** Announce a sentence with the next summary. @param {string} sentence */
  say(sentence) {
    this.summary.say(sentence);
  }

  /** Go on with a new token for the same plan. @param {string} token */
  setToken(token) {
    this.token = token;
    this.web.token = token;
    this.client.setToken(token);
  }

  /** Put the flags of an examinee aside: a proctor has looked at them. Another takeover flags them again. @param {string} id */
  putFlagsAside(id) {
    const seen = this.client.view.examinees.get(id);
    if (!seen) return;
    this._seenFlags.set(id, seen.flags.join());
    this._change({ changed: new Set([id]), gone: new Set() });
  }

  /** Continue what depends on the time; call it each second. */
  tick() {
    if (this.now() < this._nextPhase) return;
    this._phasesChanged();
  }

  // -- messages -------------------------------------------------------------------------------------

  _wire() {
    const { client } = this;
    client.addEventListener("message", (event) => this._message(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener("change", (event) => this._change(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener("welcome", (event) => this._welcome(/** @type {CustomEvent} */ (event).detail));
    client.addEventListener("fresh", () => this._upToDate());
    client.addEventListener("viewStatus", () => this._goOn());
    this.web.expired = () => client.tokenRefused();
  }

  /** @param {Record<string, any>} welcome */
  _welcome(welcome) {
    this.web.plan = welcome.planId;
    this._fire("plan");
  }

  /** @param {{type: string, data: Record<string, any>, verdict?: string}} message */
  _message(message) {
    if (message.type === "plan_state") this._planState();
    if (this.actions.receive(message)) this._fire("actions");
    if (message.verdict === "APPLIED") {
      this._countLoss(message);
      if (message.data.differs) this._seenFlags.delete(message.data.examineeId); // once more
    }
    this._fire("message", message);
  }

  /** Take over the plan's times, and announce its beginning and its end. */
  _planState() {
    const { plan } = this.client.view;
    if (plan === this._timesOf) return;
    const before = this.times.status;
    this._timesOf = plan;
    this.times = new ExamTimes(plan);
    if (this.loaded && before !== this.times.status) this.say(t(`said.plan.${this.times.status}`));
    if (this.loaded) this._phasesChanged();
    else this._nextPhase = this.times.nextChange(this.now());
    this._fire("plan");
  }

  /** Give everybody the state of their new phase. */
  _phasesChanged() {
    this._nextPhase = this.times.nextChange(this.now());
    this._change({ changed: new Set(this.people.all.keys()), gone: new Set() });
  }

  /**
   * Count each loss and each return for the incidents, also if both came within one frame and were never shown.
   * @param {{type: string, data: Record<string, any>}} message
   */
  _countLoss({ type, data }) {
    const at = milliseconds(data.timestamp);
    if (at === null) return;
    if (type === "examinee_disconnected") this._lost(data.examineeId, at, data.reason ?? null);
    else if (type === "examinee_connected") this.incidents.update(data.examineeId, "back", at);
  }

  /** Note a loss for the incidents, if the exam ran at that time. @param {string} id @param {number} at @param {string | null} reason */
  _lost(id, at, reason) {
    if (this.times.phaseOf(id, at) === "RUNNING") this.incidents.lost(id, at, reason);
  }

  /** Continue after a snapshot: the client is up to date. */
  _upToDate() {
    this._goOn();
    if (!this.client.fresh) return;
    // The next `change` applies the snapshot; what the first one contains is not announced.
    setTimeout(() => {
      this.loaded = true;
      this.say(t("said.loaded", { n: this.people.all.size, alarms: this.alarms }));
      this._fire("loaded");
    }, LOADED_AFTER_MS);
  }

  /** Continue the actions about several examinees. */
  _goOn() {
    for (const batch of Object.values(this.batches)) if (batch.size > 0) batch.goOn();
  }

  /** Apply changes, at most once a frame. @param {{changed: Set<string>, gone: Set<string>}} ids */
  _change({ changed, gone }) {
    const now = this.now();
    for (const id of gone) {
      this.people.drop(id);
      this.incidents.drop(id, now);
      this.summary.forget(id);
      this.pendingAlerts.changed(id, false, now);
    }
    const open = new Set(this.incidents.open);
    /** @type {Update[]} */
    const updates = [];
    for (const id of changed) {
      const update = this._update(id, now);
      if (update) updates.push(update);
    }
    this._detectIncidents(open);
    this._goOn();
    this._fire("change", { changed, gone, updates });
  }

  /** @param {string} id @param {number} now @returns {Update | null} */
  _update(id, now) {
    const seen = this.client.view.examinees.get(id);
    if (!seen) return null;
    const flagged = seen.flags.length > 0 && this._seenFlags.get(id) !== seen.flags.join();
    const update = this.people.put(seen, this.times.phaseOf(id, now), flagged);
    const { person, before } = update;
    Object.assign(person, this.times.differences(id));
    const { state } = person;
    if (before !== null && before.state !== state && this.loaded) {
      this.summary.changed(id, before.state, state);
      this.pendingAlerts.changed(id, STATES[state].alarm, now);
    }
    if (seen.status !== "NEVER") this.incidents.place(id, placesOf(seen));
    if (state === "lost" && person.since !== null) this._lost(id, person.since, seen.reason);
    else if (state === "exhausted" || state === "removed") this.incidents.update(id, "out", now);
    else if (state === "finished" || state === "over") this.incidents.update(id, "ended", now);
    else if (seen.status === "CONNECTED") this.incidents.update(id, "back", person.since ?? now);
    return update;
  }

  /** Announce new incidents, and those that are over. @param {Set<Incident>} open those that were open before */
  _detectIncidents(open) {
    for (const incident of this.incidents.detect()) {
      const { cause, name } = incident;
      if (cause.startsWith(LABEL)) incident.of = this.people.labels.get(cause.slice(LABEL.length))?.get(name) ?? 0;
      if (this.loaded) this.summary.began(incident);
    }
    for (const incident of open) if (incident.ended !== null) this.summary.over(incident);
  }

  /** @param {string} type @param {any} [detail] */
  _fire(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

// The client of a proctor: the plan, and actions.

import { Client, RequestFailed } from "./client.js";
import { PlanView } from "./plan-view.js";

/** @typedef {import("./client.js").ClientOptions} ClientOptions */
/** @typedef {import("./plan-view.js").Message} Message */
/**
 * A proctor's action that is not answered yet.
 * @typedef {{type: string, data: Record<string, unknown> & {requestId: string}, timer: string,
 *   resolve: (answer: Record<string, any>) => void, reject: (error: Error) => void}} Request
 */

/** Seconds between an answer and the next heartbeat of a proctor's client, which checks that its server answers. */
export const ASK_AGAIN_SECONDS = 1;
/** After so many seconds without an answer the proctor's view counts as out of date. */
export const UNANSWERED_SECONDS = 3;

/** What a proctor is doing with an examinee is said so often (seconds), and forgotten when it is not said again for so long. */
export const ACTIVITY_SECONDS = 5;
export const FORGET_ACTIVITY_SECONDS = 12;

/** A proctor's action fails without an answer within so many seconds. */
export const REQUEST_SECONDS = 30;

/**
 * A proctor's client; `view` is the plan as known so far.
 *
 *   const client = new ProctorClient({ endpointsUrl: "https://exam.example/v1/endpoints", token });
 *   client.addEventListener("change", (event) => redraw(client.view, event.detail.changed));
 *   client.connect();
 *
 * More events: `change` (`{changed, gone}`: sets of examineeIds, at most once per animation frame; after a reconnect
 * exactly what has changed meanwhile), `fresh` (`{fresh}`: whether the view is up to date, or as it was before the
 * connection was lost). If the server does not answer for `UNANSWERED_SECONDS`, `viewStatus` changes long before the
 * connection counts as lost. `message` has the view's `verdict`: an event with APPLIED is new.
 */
export class ProctorClient extends Client {
  /** @param {ClientOptions} options */
  constructor(options) {
    super(options);
    this.view = new PlanView();
    /** Whether a whole snapshot has arrived on the open connection. */
    this.fresh = false;
    /** @type {Set<Request>} */
    this._requests = new Set();
    this._requestCount = 0;
    /** Whether the answer to a heartbeat is awaited. */
    this._awaitsAnswer = false;
    /** @type {number | null} */
    this._frame = null;
    this._flushing = false;
  }

  /**
   * Let an examinee in again. Resolves with `accepted` once the action is in the log; the effect follows as an event. After
   * a lost connection an unanswered action is sent again with the same requestId, so it has one effect. Rejects with
   * `RequestFailed`.
   * @param {string} examineeId
   * @param {{requestId?: string}} [options]
   */
  readmit(examineeId, { requestId } = {}) {
    return this._request("readmit", { examineeId }, requestId);
  }

  /**
   * Shut an examinee out, until readmitted.
   * @param {string} examineeId
   * @param {{reason?: string, requestId?: string}} [options]
   */
  remove(examineeId, { reason, requestId } = {}) {
    return this._request("remove", { examineeId, reason }, requestId);
  }

  /**
   * Give an examinee `seconds` (10 to 3600) more for the picture.
   * @param {string} examineeId
   * @param {number} seconds
   * @param {{requestId?: string}} [options]
   */
  extend(examineeId, seconds, { requestId } = {}) {
    return this._request("extend_mobile_sync", { examineeId, seconds }, requestId);
  }

  /**
   * Accept a picture (`accepted`), or ask for another one (`rejected`): the examinee is told the reason.
   * @param {string} examineeId
   * @param {string} captureId
   * @param {"accepted" | "rejected"} verdict
   * @param {{reason?: string, requestId?: string}} [options]
   */
  reviewCapture(examineeId, captureId, verdict, { reason, requestId } = {}) {
    return this._request("capture_review", { examineeId, captureId, verdict, reason }, requestId);
  }

  /**
   * Show an examinee a message (at most 1000 characters).
   * @param {string} examineeId
   * @param {string} text
   * @param {{requestId?: string}} [options]
   */
  notify(examineeId, text, { requestId } = {}) {
    return this._request("notify", { examineeId, text }, requestId);
  }

  /**
   * Show a message to everybody, or to these examinees only.
   * @param {string} text
   * @param {{examinees?: string[], requestId?: string}} [options]
   */
  notifyPlan(text, { examinees, requestId } = {}) {
    return this._request("notify_plan", { text, examinees }, requestId);
  }

  /**
   * Take an examinee's request for help: "I am on it".
   * @param {string} examineeId
   * @param {string} helpId the `requestId` of the examinee's request
   * @param {{requestId?: string}} [options]
   */
  takeHelp(examineeId, helpId, { requestId } = {}) {
    return this._request("help_take", { examineeId, helpId }, requestId);
  }

  /**
   * Close an examinee's request for help.
   * @param {string} examineeId
   * @param {string} helpId
   * @param {{requestId?: string}} [options]
   */
  closeHelp(examineeId, helpId, { requestId } = {}) {
    return this._request("help_close", { examineeId, helpId }, requestId);
  }

  /**
   * Tell the other proctors what this one is doing with an examinee. Call it again every `ACTIVITY_SECONDS`, as long as it
   * lasts. They get `proctor_activity` as a `message`. Returns whether it was sent.
   * @param {string} examineeId
   * @param {"looking" | "writing" | "nothing"} doing
   */
  tellActivity(examineeId, doing) {
    return this.send("proctor_activity", { examineeId, doing });
  }

  /**
   * Say that the exam is over for an examinee; `resume` takes it back.
   * @param {string} examineeId
   * @param {{requestId?: string}} [options]
   */
  finish(examineeId, { requestId } = {}) {
    return this._request("finish", { examineeId }, requestId);
  }

  /**
   * Let a finished examinee go on with the exam. Rejects with CONFLICT if the plan is closed.
   * @param {string} examineeId
   * @param {{requestId?: string}} [options]
   */
  resume(examineeId, { requestId } = {}) {
    return this._request("resume", { examineeId }, requestId);
  }

  /**
   * Give an examinee, or everybody (`null`), `seconds` (1 to 86400) more for the exam. Rejects with CONFLICT if the plan is
   * closed or has no end.
   * @param {string | null} examineeId
   * @param {number} seconds
   * @param {{requestId?: string}} [options]
   */
  extendExam(examineeId, seconds, { requestId } = {}) {
    return this._request("extend_exam", { ...(examineeId === null ? {} : { examineeId }), seconds }, requestId);
  }

  /**
   * @param {string} type
   * @param {Record<string, unknown>} data
   * @param {string} [givenId]
   * @returns {Promise<Record<string, any>>}
   */
  _request(type, data, givenId) {
    const requestId = givenId ?? this._randomId();
    return new Promise((resolve, reject) => {
      const request = { type, data: { ...data, requestId }, timer: `_request ${++this._requestCount}`, resolve, reject };
      this._requests.add(request);
      this._timer(request.timer, REQUEST_SECONDS, () => {
        this._answer(request, new RequestFailed("TIMEOUT", "no answer; it may have had its effect", requestId));
      });
      this.send(type, request.data);
    });
  }

  /**
   * Find the request that an answer belongs to: the oldest of its type, for a session handles frames in order. Requests of
   * different types, or about different examinees, may have the same requestId.
   * @param {unknown} type
   * @param {string | undefined} requestId `undefined`: the server could not read the frame
   */
  _requestOf(type, requestId) {
    const waiting = [...this._requests].filter(({ data }) => requestId === undefined || data.requestId === requestId);
    return waiting.find((request) => request.type === type) ?? (requestId === undefined ? undefined : waiting[0]);
  }

  /** @param {Request | undefined} request @param {Record<string, any> | Error} answer */
  _answer(request, answer) {
    if (!request || !this._requests.delete(request)) return;
    this._stopTimer(request.timer);
    if (answer instanceof Error) request.reject(answer);
    else request.resolve(answer);
  }

  /** @protected */
  _welcomed() {
    this._timer("_ask", ASK_AGAIN_SECONDS, () => this._probe());
    for (const { type, data } of this._requests) this.send(type, data);
  }

  /** Send a heartbeat and await its answer. */
  _probe() {
    if (!this.send("heartbeat")) return;
    this._awaitsAnswer = true;
    this._awaitAnswer(this.now(), UNANSWERED_SECONDS);
  }

  /** @param {number} sentAt @param {number} seconds how long to wait */
  _awaitAnswer(sentAt, seconds) {
    const due = this.now() + seconds * 1000;
    this._timer("_answer", seconds, () => {
      const late = this.now() - due;
      // The page was suspended or slowed down: the answer may have arrived and not been read yet.
      if (late < 0 || late > 1000 * ASK_AGAIN_SECONDS) this._awaitAnswer(sentAt, UNANSWERED_SECONDS);
      else this._setViewStatus({ current: false, since: new Date(sentAt).toISOString(), waitingFor: "server" });
    });
  }

  /** @protected */
  _heard() {
    if (!this._awaitsAnswer) return;
    this._awaitsAnswer = false;
    this._stopTimer("_answer");
    this._setViewStatus();
    this._timer("_ask", ASK_AGAIN_SECONDS, () => this._probe());
  }

  /** Stop the heartbeats: the connection is gone. */
  _stopProbing() {
    this._awaitsAnswer = false;
    this._stopTimer("_ask");
    this._stopTimer("_answer");
    this._setViewStatus();
  }

  /** @protected */
  _lost() {
    this._setFresh(false);
    this._stopProbing();
  }

  /** @protected @param {string} code @param {string} detail */
  _ended(code, detail) {
    this._setFresh(false);
    this._stopProbing();
    for (const request of [...this._requests]) {
      this._answer(request, new RequestFailed(code, detail, request.data.requestId));
    }
  }

  /** @param {boolean} fresh */
  _setFresh(fresh) {
    if (this.fresh === fresh) return;
    this.fresh = fresh;
    this._emit("fresh", { fresh });
  }

  /** @protected @param {Message} message */
  _handle(message) {
    const { type, data } = message;
    if (type === "accepted" && typeof data.requestId === "string") {
      this._answer(this._requestOf(data.requestType, data.requestId), data);
    }
    else if (type === "error") this._refused(data);
    const verdict = this.view.apply(message);
    if (type === "plan_snapshot" && (data.part ?? 1) === (data.parts ?? 1)) this._setFresh(true);
    if (verdict === "APPLIED") this._scheduleChange();
    return { verdict };
  }

  /** @param {Record<string, any>} data of an `error` frame */
  _refused(data) {
    const givenId = typeof data.requestId === "string" ? data.requestId : undefined;
    const request = this._requestOf(data.requestType, givenId);
    if (request) {
      const { requestId } = request.data;
      this._answer(request, new RequestFailed(String(data.code), String(data.message), requestId, data.field ?? null));
    }
  }

  /** Fire `change` with the next animation frame; a hidden page has none, so a timer does it there. */
  _scheduleChange() {
    if (this._flushing) return;
    this._flushing = true;
    const raf = globalThis.requestAnimationFrame;
    if (raf && this._document?.visibilityState !== "hidden") this._frame = raf(() => this._flush());
    this._timer("_flush", this._frame === null ? 0 : 0.25, () => this._flush());
  }

  _flush() {
    this._stopTimer("_flush");
    if (this._frame !== null) globalThis.cancelAnimationFrame(this._frame);
    this._frame = null;
    this._flushing = false;
    const changes = this.view.takeChanges();
    if (changes.changed.size || changes.gone.size || changes.plan) this._emit("change", changes);
  }
}

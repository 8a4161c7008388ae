// The two roles that hold a connection: an examinee with the mobile step and messages, a proctor with the plan and actions.

import { Client } from "./client.js";
import { isObject } from "./frames.js";
import { PlanView } from "./plan-view.js";

/** @typedef {import("./client.js").ClientOptions} ClientOptions */
/** @typedef {import("./plan-view.js").Message} Message */
/**
 * A proctor's action that waits for its answer.
 * @typedef {{type: string, data: Record<string, unknown> & {requestId: string}, timer: string,
 *   resolve: (answer: Record<string, any>) => void, reject: (error: Error) => void}} Request
 */

/** A proctor's client asks its server so often whether it is there. */
export const ASK_AGAIN_SECONDS = 1;
/** Without an answer for so long, what a proctor sees is no longer known to be so now. */
export const UNANSWERED_SECONDS = 3;

/** What a proctor asks for fails when it is not answered within so long. */
export const REQUEST_SECONDS = 30;

/** What a proctor asked for was not done, as far as is known; `code` is the server's, or TIMEOUT, CLOSED. */
export class RequestFailed extends Error {
  /** @param {string} code @param {string} detail @param {string | null} requestId @param {string | null} [field] */
  constructor(code, detail, requestId, field = null) {
    super(`${code}: ${detail}`);
    this.name = "RequestFailed";
    this.code = code;
    this.detail = detail;
    this.requestId = requestId;
    this.field = field;
  }
}

/**
 * A message of a proctor: shown until `confirmNotice` is called.
 * @typedef {{actionId: string, text: string, by: string, sentAt: string, confirmedAt: string | null}} Notice
 */

/**
 * An examinee's connection. More events: `state` (the data of `session_state`), `mobileSync` (its view, when it
 * changed), `notice` (a `Notice`, once for each message of a proctor, also when it is told again after a reconnect).
 */
export class ExamineeClient extends Client {
  /** @param {ClientOptions} options */
  constructor(options) {
    super(options);
    /** The latest `session_state`. @type {Record<string, any> | null} */
    this.state = null;
    /** The latest that was told of the mobile sync stage, by version. @type {Record<string, any>} */
    this.mobileSync = { status: "NONE", version: 0 };
    /** @type {Map<string, Notice>} by actionId, in the order in which they came */
    this.notices = new Map();
    /** @type {Set<string>} */
    this._confirmed = new Set();
  }

  /** Enter the mobile sync stage; `mobileSync` with WAITING and its deadline follows. Returns whether it was sent. */
  enterMobileSync() {
    return this.send("mobile_sync_wait");
  }

  /**
   * The examinee has read a message. Without a connection it is told as soon as there is one again.
   * @param {string} actionId
   */
  confirmNotice(actionId) {
    this._confirmed.add(actionId);
    const notice = this.notices.get(actionId);
    if (notice) notice.confirmedAt ??= new Date(this.now()).toISOString();
    this.send("notice_confirm", { actionId });
  }

  /** @protected @param {Message} message */
  _takeIn({ type, data }) {
    if (type === "session_state") {
      this.state = data;
      if (isObject(data.mobileSync)) this._setMobileSync(data.mobileSync);
      const told = Array.isArray(data.notices) ? data.notices : [];
      for (const one of told) this._setNotice(one);
      this._emit("state", data);
    } else if (type === "mobile_sync_status" || type === "mobile_sync_completed") {
      this._setMobileSync({ imageUrl: data.captureInfo?.imageUrl, ...data });
    } else if (type === "notice") this._setNotice(data);
    return {};
  }

  /** @param {Record<string, any>} view */
  _setMobileSync(view) {
    const version = view.version ?? 0;
    if (version < this.mobileSync.version) return;
    const changed = version > this.mobileSync.version;
    this.mobileSync = { ...view, version };
    if (changed) this._emit("mobileSync", this.mobileSync);
  }

  /** @param {Record<string, any>} data */
  _setNotice(data) {
    const { actionId } = data;
    if (typeof actionId !== "string" || typeof data.text !== "string") return;
    if (this._confirmed.has(actionId)) {
      if (!data.confirmedAt) this.send("notice_confirm", { actionId }); // said on a connection that did not carry it
      return;
    }
    const known = this.notices.get(actionId);
    if (known) {
      known.confirmedAt ??= data.confirmedAt ?? null;
      return;
    }
    /** @type {Notice} */
    const notice = {
      actionId,
      text: data.text,
      by: String(data.by ?? ""),
      sentAt: String(data.sentAt ?? data.timestamp ?? ""),
      confirmedAt: data.confirmedAt ?? null,
    };
    this.notices.set(actionId, notice);
    this._emit("notice", notice);
  }
}

/**
 * A proctor's connection; `view` is the plan as told so far.
 *
 * More events: `change` (`{changed, gone}`: sets of examineeIds, once a frame of the screen; after a reconnect the
 * snapshot tells exactly what happened meanwhile), `fresh` (`{fresh}`: whether the view is the plan as it is now, or
 * as it was before the connection was lost). A server that does not answer for `UNANSWERED_SECONDS` makes `viewStatus`
 * another one long before the connection counts as lost. `message` has the view's `verdict`: an event with APPLIED is new.
 */
export class ProctorClient extends Client {
  /** @param {ClientOptions} options */
  constructor(options) {
    super(options);
    this.view = new PlanView();
    /** A whole snapshot has come over the connection that stands. */
    this.fresh = false;
    /** @type {Set<Request>} */
    this._requests = new Set();
    this._asked = 0;
    /** An answer to a heartbeat is awaited. */
    this._awaits = false;
    /** @type {number | null} */
    this._frame = null;
    this._flushing = false;
  }

  /**
   * Let an examinee in again. Resolves with `accepted` once that is in the log; its effect follows as an event.
   * An action that gets no answer because the connection broke is sent again with the same requestId on the next one:
   * it has one effect. Rejects with `RequestFailed`.
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
   * Show an examinee a message (at most 1000 characters).
   * @param {string} examineeId
   * @param {string} text
   * @param {{requestId?: string}} [options]
   */
  notify(examineeId, text, { requestId } = {}) {
    return this._request("notify", { examineeId, text }, requestId);
  }

  /**
   * @param {string} type
   * @param {Record<string, unknown>} data
   * @param {string} [given]
   * @returns {Promise<Record<string, any>>}
   */
  _request(type, data, given) {
    const requestId = given ?? this._randomId();
    return new Promise((resolve, reject) => {
      const request = { type, data: { ...data, requestId }, timer: `_request ${++this._asked}`, resolve, reject };
      this._requests.add(request);
      this._timer(request.timer, REQUEST_SECONDS, () => {
        this._answer(request, new RequestFailed("TIMEOUT", "no answer; it may have had its effect", requestId));
      });
      this.send(type, request.data);
    });
  }

  /**
   * What an answer is to: the first of its type that is waiting, for a session handles its frames in their order. Requests
   * of different types, or about different examinees, may have the same requestId.
   * @param {unknown} type
   * @param {string | undefined} requestId of a frame that could not be read there is none
   */
  _asking(type, requestId) {
    const waiting = [...this._requests].filter((one) => requestId === undefined || one.data.requestId === requestId);
    return waiting.find((one) => one.type === type) ?? (requestId === undefined ? undefined : waiting[0]);
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
    this._timer("_ask", ASK_AGAIN_SECONDS, () => this._ask());
    for (const { type, data } of this._requests) this.send(type, data);
  }

  /** Whether the server is there: a heartbeat each second, and the answer to each. */
  _ask() {
    if (!this.send("heartbeat")) return;
    this._awaits = true;
    this._awaitAnswer(this.now(), UNANSWERED_SECONDS);
  }

  /** @param {number} askedAt @param {number} seconds how long to wait for it */
  _awaitAnswer(askedAt, seconds) {
    const due = this.now() + seconds * 1000;
    this._timer("_answer", seconds, () => {
      const late = this.now() - due;
      // The page stood still, or is hidden and slowed down: an answer may lie there unread.
      if (late < 0 || late > 1000 * ASK_AGAIN_SECONDS) this._awaitAnswer(askedAt, UNANSWERED_SECONDS);
      else this._viewStatusIs({ current: false, since: new Date(askedAt).toISOString(), waitingFor: "server" });
    });
  }

  /** @protected */
  _heard() {
    if (!this._awaits) return;
    this._awaits = false;
    this._stopTimer("_answer");
    this._viewStatusIs();
    this._timer("_ask", ASK_AGAIN_SECONDS, () => this._ask());
  }

  /** The connection is gone: nothing is asked over it any more. */
  _askNoMore() {
    this._awaits = false;
    this._stopTimer("_ask");
    this._stopTimer("_answer");
    this._viewStatusIs();
  }

  /** @protected */
  _lost() {
    this._setFresh(false);
    this._askNoMore();
  }

  /** @protected @param {string} code @param {string} detail */
  _ended(code, detail) {
    this._setFresh(false);
    this._askNoMore();
    for (const one of [...this._requests]) this._answer(one, new RequestFailed(code, detail, one.data.requestId));
  }

  /** @param {boolean} fresh */
  _setFresh(fresh) {
    if (this.fresh === fresh) return;
    this.fresh = fresh;
    this._emit("fresh", { fresh });
  }

  /** @protected @param {Message} message */
  _takeIn(message) {
    const { type, data } = message;
    if (type === "accepted" && typeof data.requestId === "string") {
      this._answer(this._asking(data.requestType, data.requestId), data);
    }
    else if (type === "error") this._refused(data);
    const verdict = this.view.apply(message);
    if (type === "plan_snapshot" && (data.part ?? 1) === (data.parts ?? 1)) this._setFresh(true);
    if (verdict === "APPLIED") this._soon();
    return { verdict };
  }

  /** @param {Record<string, any>} data of an `error` frame */
  _refused(data) {
    const named = typeof data.requestId === "string" ? data.requestId : undefined;
    const request = this._asking(data.requestType, named);
    if (request) {
      const { requestId } = request.data;
      this._answer(request, new RequestFailed(String(data.code), String(data.message), requestId, data.field ?? null));
    }
  }

  /** Tell of changes with the next frame of the screen; a hidden page has none, so a timer stands behind. */
  _soon() {
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
    if (changes.changed.size || changes.gone.size) this._emit("change", changes);
  }
}

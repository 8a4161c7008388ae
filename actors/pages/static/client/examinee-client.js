// The client of an examinee: the mobile step, messages, and handing in.

import { Client, RequestFailed } from "./client.js";
import { isObject } from "./frames.js";

/** @typedef {import("./client.js").ClientOptions} ClientOptions */
/** @typedef {import("./plan-view.js").Message} Message */
/**
 * A message of a proctor, shown until `confirmNotice` is called.
 * @typedef {{actionId: string, text: string, by: string, byName: string | null, sentAt: string, confirmedAt: string | null}} Notice
 */

/** Where a request to hand in is kept over reloads. */
const HAND_IN_KEY = "examwire.finish";
/** A request to hand in that was refused, because there were too many, is repeated after so many seconds. */
export const HAND_IN_AGAIN_SECONDS = 5;

/** @typedef {import("./plan-view.js").Help} Help */
/** A request for help that was refused, because there were too many, is repeated after so many seconds. */
export const HELP_AGAIN_SECONDS = 5;

/**
 * Since when the exam is over for the examinee, and why: handed in, decided by a proctor (`by`), or the plan has ended.
 * @typedef {{by: string, reason: "HANDED_IN" | "DECIDED" | "PLAN_ENDED", since: string}} Finish
 */

/**
 * An examinee's client.
 *
 *   const client = new ExamineeClient({ endpointsUrl: "https://exam.example/v1/endpoints", token });
 *   client.addEventListener("notice", (event) => show(event.detail.text));
 *   client.connect();
 *
 * More events: `state` (the data of `session_state`), `mobileSync` (its view, when it has changed), `notice` (a `Notice`,
 * once for each message of a proctor, also if it is sent again after a reconnect), `finished` (a `Finish`: the exam is over
 * for the examinee), `resumed` (a finished examinee goes on), `help` (`help` or `askingForHelp` has changed). When the plan is closed, the status becomes `gaveUp` with the
 * name `EXAM_OVER`.
 */
export class ExamineeClient extends Client {
  /** @param {ClientOptions} options */
  constructor(options) {
    super(options);
    /** The latest `session_state`. @type {Record<string, any> | null} */
    this.state = null;
    /** The newest view of the mobile sync stage, by version. @type {Record<string, any>} */
    this.mobileSync = { status: "NONE", version: 0 };
    /** @type {Map<string, Notice>} by actionId, in the order in which they came */
    this.notices = new Map();
    /** @type {Set<string>} */
    this._confirmed = new Set();
    /** Whether the exam is over for the examinee, and why; `null`: it is not. @type {Finish | null} */
    this.finished = null;
    /** The open request for help; `takenBy`: the proctor who is on it. @type {Help | null} */
    this.help = null;
    this._helpVersion = 0;
    /** The request for help that is not recorded yet: it is sent again on each connection. @type {{requestId: string, text?: string} | null} */
    this.askingForHelp = null;
    /** The request for help that is being taken back. @type {string | null} */
    this._cancelledHelp = null;
    this._handIn = new HandIn({
      storage: this._storage,
      send: (type, data) => this.send(type, data),
      randomId: () => this._randomId(),
    });
  }

  /** The examinee's own name by the roster, for display; `null`: none. @returns {string | null} */
  get name() {
    return typeof this.state?.name === "string" ? this.state.name : null;
  }

  /**
   * Why the exam is over for the examinee, also when the plan was closed; `null`: it is not over.
   * @returns {Finish["reason"] | null}
   */
  get endReason() {
    const { status } = this;
    if (this.finished !== null) return this.finished.reason;
    const closed = this.plan?.status === "CLOSED" || (status.state === "gaveUp" && status.name === "EXAM_OVER");
    return closed ? "PLAN_ENDED" : null;
  }

  /** Whether a request to hand in is not accepted yet. */
  get finishing() {
    return this._handIn.requestId !== null;
  }

  /**
   * Hand in: the exam is over for this examinee. Resolves with `accepted` once that is in the log. Until then it is sent again
   * with the same requestId, also over reconnects and, with `storage`, over reloads. Rejects with `RequestFailed`: EXAM_OVER
   * (the plan was closed before), CLOSED (`close()` was called; the next `connect()` sends it again), or the server's code.
   */
  finish() {
    return this._handIn.ask();
  }

  /**
   * Ask the proctors for help. Without a connection it is sent after the next welcome. While a request is open, it does
   * nothing. The event `help` follows.
   * @param {string} [text] at most 1000 characters
   */
  askForHelp(text) {
    if (this.help !== null || this.askingForHelp !== null) return;
    this.askingForHelp = { requestId: this._randomId(), ...(text?.trim() ? { text: text.trim() } : {}) };
    this._sendHelp();
    this._emit("help", this.help);
  }

  /** Take the request for help back. */
  cancelHelp() {
    const requestId = this.help?.requestId ?? this.askingForHelp?.requestId ?? null;
    if (requestId === null) return;
    this.askingForHelp = null;
    this._cancelledHelp = requestId;
    this._sendHelp();
    this._emit("help", this.help);
  }

  /** Send what is not recorded yet. */
  _sendHelp() {
    if (this.askingForHelp !== null) this.send("help_request", this.askingForHelp);
    if (this._cancelledHelp !== null) this.send("help_cancel", { requestId: this._cancelledHelp });
  }

  /**
   * Take in the request for help, by version.
   * @param {Help | null} help @param {number} version
   */
  _setHelp(help, version) {
    if (version < this._helpVersion) return;
    const before = JSON.stringify([this.help, this.askingForHelp]);
    this._helpVersion = version;
    this.help = help;
    if (help !== null) this.askingForHelp = null; // it is recorded, or another one is open
    if (help?.requestId !== this._cancelledHelp && this.askingForHelp === null) this._cancelledHelp = null;
    if (JSON.stringify([this.help, this.askingForHelp]) !== before) this._emit("help", this.help);
  }

  /** @param {Record<string, any>} data of an answer @param {boolean} accepted */
  _handleHelpAnswer(data, accepted) {
    if (data.requestType === "help_cancel" && accepted) this._cancelledHelp = null;
    if (accepted || !["help_request", "help_cancel"].includes(data.requestType)) return;
    if (data.code === "TOO_MANY_REQUESTS") this._timer("_help", HELP_AGAIN_SECONDS, () => this._sendHelp());
    else if (data.requestId === this.askingForHelp?.requestId) {
      this.askingForHelp = null;
      this._emit("help", this.help);
    }
  }

  /** Enter the mobile sync stage; `mobileSync` with WAITING and its deadline follows. Returns whether it was sent. */
  enterMobileSync() {
    return this.send("mobile_sync_wait");
  }

  /**
   * Confirm that the examinee has read a message. Without a connection it is sent after the next welcome.
   * @param {string} actionId
   */
  confirmNotice(actionId) {
    this._confirmed.add(actionId);
    const notice = this.notices.get(actionId);
    if (notice) notice.confirmedAt ??= new Date(this.now()).toISOString();
    this.send("notice_confirm", { actionId });
  }

  /** @protected */
  _welcomed() {
    this._handIn.welcomed(this.welcome ?? {});
    this._sendHelp();
  }

  /** @protected @param {string} code @param {string} detail */
  _ended(code, detail) {
    if (code === "EXAM_OVER") this._handIn.settle(new RequestFailed(code, "the exam is over", this._handIn.requestId));
    else if (code === "CLOSED") this._handIn.answer(new RequestFailed(code, detail, this._handIn.requestId));
  }

  /** @param {Record<string, any>} data of an answer to `finish` @param {boolean} accepted */
  _handleHandIn(data, accepted) {
    const { requestId } = this._handIn;
    if (requestId === null || data.requestId !== requestId) return;
    if (accepted) this._handIn.settle(data);
    else if (data.code === "TOO_MANY_REQUESTS") {
      this._timer("_handIn", HAND_IN_AGAIN_SECONDS, () => this._handIn.repeat());
    } else this._handIn.settle(new RequestFailed(String(data.code), String(data.message), requestId));
  }

  /** @param {unknown} connection of a `session_state` */
  _setFinished(connection) {
    const over = isObject(connection) && connection.status === "FINISHED";
    const before = this.finished;
    const { finishedBy, reason, since } = over ? connection : {};
    this.finished = over ? { by: String(finishedBy ?? ""), reason, since: String(since ?? "") } : null;
    if (this.finished !== null && this.finishing) this._handIn.settle(this.finished); // so it was heard
    if (this.finished !== null && before === null) this._emit("finished", this.finished);
    else if (this.finished === null && before !== null) this._emit("resumed", {});
  }

  /** @protected @param {Message} message */
  _handle({ type, data }) {
    if (type === "accepted" || type === "error") {
      this._handleHandIn(data, type === "accepted");
      this._handleHelpAnswer(data, type === "accepted");
    } else if (type === "session_state") {
      this.state = data;
      this._setFinished(data.connection);
      if (isObject(data.mobileSync)) this._setMobileSync(data.mobileSync);
      const notices = Array.isArray(data.notices) ? data.notices : [];
      for (const notice of notices) this._setNotice(notice);
      this._setHelp(data.help ?? null, data.noticesVersion ?? 0);
      this._emit("state", data);
    } else if (type === "mobile_sync_status" || type === "mobile_sync_completed") {
      this._setMobileSync({ imageUrl: data.captureInfo?.imageUrl, ...data });
    } else if (type === "notice") this._setNotice(data);
    else if (type.startsWith("help_")) {
      if (type === "help_closed" && data.requestId === this.askingForHelp?.requestId) this.askingForHelp = null;
      this._setHelp(data.help ?? null, data.version ?? 0);
    }
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
      if (!data.confirmedAt) this.send("notice_confirm", { actionId }); // the first confirmation was lost with its connection
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
      byName: data.byName ?? null,
      sentAt: String(data.sentAt ?? data.timestamp ?? ""),
      confirmedAt: data.confirmedAt ?? null,
    };
    this.notices.set(actionId, notice);
    this._emit("notice", notice);
  }
}

/** @typedef {{resolve: (answer: Record<string, any>) => void, reject: (error: Error) => void}} Waiter */

/**
 * The request of an examinee to hand in (`finish`). It is sent again with the same requestId, over reconnects and reloads of
 * the tab, until the server has accepted it, so it has one effect and is never lost.
 *
 *   const handIn = new HandIn({ storage, send, randomId });
 *   handIn.welcomed(welcome); // sends again what the previous page or connection has asked for
 *   await handIn.ask();
 */
class HandIn {
  /** The requestId of the request that is not accepted yet. @type {string | null} */ requestId = null;

  /** @type {Pick<Storage, "getItem" | "setItem"> | null} */ #storage;
  /** @type {(type: string, data: Record<string, unknown>) => void} */ #send;
  /** @type {() => string} */ #randomId;
  /** Plan and examinee of the last welcome: another examinee may use the tab later. @type {string | null} */ #owner = null;
  /** @type {Waiter[]} */ #waiters = [];

  /**
   * @param {{storage: Pick<Storage, "getItem" | "setItem"> | null, send: (type: string, data: Record<string, unknown>) => void,
   *   randomId: () => string}} environment
   */
  constructor({ storage, send, randomId }) {
    this.#storage = storage;
    this.#send = send;
    this.#randomId = randomId;
  }

  /** Ask to hand in, or wait for what was asked. Resolves with `accepted`. @returns {Promise<Record<string, any>>} */
  ask() {
    const waiting = new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
    if (this.requestId === null) {
      this.requestId = this.#randomId();
      this.#store();
      this.repeat();
    }
    return waiting;
  }

  /** Send the request again, if there is one. */
  repeat() {
    if (this.requestId !== null) this.#send("finish", { requestId: this.requestId });
  }

  /** @param {Record<string, any>} welcome of a new connection */
  welcomed({ planId, examineeId }) {
    this.#owner = JSON.stringify([planId, examineeId]);
    if (this.requestId === null) this.requestId = this.#stored();
    else this.#store();
    this.repeat();
  }

  /** Accept the request, or give it up: it is not repeated any more. @param {Record<string, any> | Error} answer */
  settle(answer) {
    this.requestId = null;
    this.#store();
    this.answer(answer);
  }

  /** Answer those who wait. The request stays, and is repeated. @param {Record<string, any> | Error} answer */
  answer(answer) {
    for (const { resolve, reject } of this.#waiters.splice(0)) {
      if (answer instanceof Error) reject(answer);
      else resolve(answer);
    }
  }

  #store() {
    if (this.#owner === null) return; // stored after the welcome, when it is known for whom
    try {
      this.#storage?.setItem(HAND_IN_KEY, JSON.stringify({ owner: this.#owner, requestId: this.requestId }));
    } catch {
      this.#storage = null; // blocked or full: the request lasts until the page is closed
    }
  }

  /** @returns {string | null} */
  #stored() {
    try {
      const record = JSON.parse(this.#storage?.getItem(HAND_IN_KEY) ?? "null");
      const valid = record?.owner === this.#owner && /^[A-Za-z0-9_-]{1,64}$/.test(record.requestId ?? "");
      return valid ? record.requestId : null;
    } catch {
      return null; // storage is blocked, or the record is not ours
    }
  }
}

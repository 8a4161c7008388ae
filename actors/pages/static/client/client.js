// The public class `Client`: options, events and methods for a page. `Keeper` holds the connection.

import { Hints, Identity, Timers, randomId, sessionStorageIfAllowed } from "./browser.js";
import { Keeper } from "./connection-keeper.js";
import { ServerClock, examAt } from "./exam-clock.js";
import { Servers } from "./server-list.js";

/** @typedef {import("./exam-clock.js").PlanState} PlanState */
/** @typedef {import("./plan-view.js").Message} Message */
/** @typedef {import("./reconnect-rules.js").Status} Status */

/**
 * `url`: one or more socket servers (ws: or wss:), tried in this order. `endpointsUrl`: where the web server lists them
 * (`GET /v1/endpoints`); the client begins at a random one. One of the two is required. The client asks for the list when it
 * knows no address, and again after it has tried all in vain, for the servers may have moved. `token`: a JWT for the role.
 * `browserInfo` is shown to proctors (default: the user agent). `storage` keeps the client's id over reloads (default:
 * sessionStorage; `null`: not kept). The other options replace parts of the browser in tests: `now` in ms since the epoch,
 * `steady` in ms by a clock that nobody can set, `random` in [0, 1).
 * @typedef {object} ClientOptions
 * @property {string | readonly string[]} [url]
 * @property {string} [endpointsUrl]
 * @property {string} token
 * @property {string} [browserInfo]
 * @property {Pick<Storage, "getItem" | "setItem"> | null} [storage]
 * @property {typeof WebSocket} [WebSocket]
 * @property {(work: () => void, milliseconds: number) => any} [setTimeout]
 * @property {(timer: any) => void} [clearTimeout]
 * @property {() => number} [now]
 * @property {() => number} [steady]
 * @property {() => number} [random]
 * @property {EventTarget | null} [window]
 * @property {EventTarget & {visibilityState?: string} | null} [document]
 * @property {{onLine?: boolean, userAgent?: string} | null} [navigator]
 * @property {(url: string, init: RequestInit) => Promise<Response>} [fetch]
 */
/**
 * Whether the server is up to date: what happens is recorded, and shown to proctors. A client can be connected while it is
 * not. Then `since` is the time of the last known state (RFC 3339), and `waitingFor` names the part that the server waits
 * for, or is `server` if the server itself does not answer (only proctors check that).
 * @typedef {{current: boolean, since: string | null, waitingFor: string | null}} ViewStatus
 */

/** A request failed, or its effect is unknown. `code`: the server's, or TIMEOUT, CLOSED, or the name of a close code. */
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

/** @type {ViewStatus} */
const CURRENT = Object.freeze({ current: true, since: null, waitingFor: null });

/**
 * A connection to a socket server that reconnects automatically.
 *
 *   const client = new Client({ url: "wss://exam.example", token });
 *   client.addEventListener("status", (event) => show(event.detail));
 *   client.connect();
 *
 * Events (`CustomEvent` with the values in `detail`): `status` (a `Status`), `welcome` (the frame's data), `message`
 * (`{type, data, verdict?}`, every frame but heartbeats, `welcome` and `migrate`), `tokenNeeded` (`{code}`: a server did
 * not accept the token; call `setToken`), `token` (`setToken` was called with a new token), `viewStatus` (a `ViewStatus`,
 * when it has changed), `plan` (a `PlanState`: whether the exam runs, and its times).
 */
export class Client extends EventTarget {
  /** @param {ClientOptions} options */
  constructor(options) {
    super();
    const urls = typeof options.url === "string" ? [options.url] : [...(options.url ?? [])];
    if (!urls.length && !options.endpointsUrl) throw new TypeError("neither url nor endpointsUrl is given");
    const setTimeout = options.setTimeout ?? ((work, milliseconds) => globalThis.setTimeout(work, milliseconds));
    const clearTimeout = options.clearTimeout ?? ((timer) => globalThis.clearTimeout(timer));
    const fetch = options.fetch ?? ((url, init) => globalThis.fetch(url, init));
    const window = options.window === undefined ? (globalThis.window ?? null) : options.window;
    const storage = options.storage === undefined ? sessionStorageIfAllowed() : options.storage;
    /** Milliseconds since the epoch, by the clock that the client uses. @type {() => number} */
    this.now = options.now ?? Date.now;
    this.#clock = new ServerClock(options.steady ?? (() => performance.now()));
    this._document = options.document === undefined ? (globalThis.document ?? null) : options.document;
    this.#random = options.random ?? Math.random;
    this.#token = options.token;
    const navigator = options.navigator === undefined ? (globalThis.navigator ?? null) : options.navigator;
    this.#browserInfo = (options.browserInfo ?? navigator?.userAgent ?? "").slice(0, 256);
    this.#identity = new Identity(storage, this.#random);
    this._storage = storage;
    this.#timers = new Timers(setTimeout, clearTimeout);
    const environment = {
      servers: new Servers({ urls, listedAt: options.endpointsUrl ?? null, random: this.#random, fetch }),
      urls,
      WebSocket: options.WebSocket ?? globalThis.WebSocket,
      steps: new Timers(setTimeout, clearTimeout),
      beats: new Timers(setTimeout, clearTimeout),
      now: this.now,
      random: this.#random,
      navigator,
    };
    this.#keeper = new Keeper(environment, {
      token: () => this.#token,
      hello: () => this.#hello(),
      status: (status) => this._emit("status", status),
      welcomed: (welcome) => {
        this.tokenNeeded = false;
        this.#serverStatus = CURRENT;
        this._setViewStatus(CURRENT);
        this.#clock.restart(welcome.serverTime);
        this._welcomed();
        this._emit("welcome", welcome);
      },
      message: (message) => {
        if (message.type === "view_status") {
          this.#serverStatus = { ...CURRENT, ...message.data };
          this._setViewStatus(this.#serverStatus);
        }
        if (message.type === "plan_state") this.#setPlan(/** @type {PlanState & {version: number}} */ (message.data));
        const more = this._handle(message);
        this._emit("message", { ...message, ...more });
      },
      malformed: (elements) => {
        this.malformed += elements;
      },
      heard: () => this._heard(),
      lost: () => this._lost(),
      ended: (code, detail) => this._ended(code, detail),
      tokenRefused: (code) => this.#needToken(code),
    });
    this.#hints = new Hints({ window, document: this._document, now: this.now }, this.#hintListener());
    /** How many elements of frames were malformed. */
    this.malformed = 0;
    /** Whether a server has refused the token; `setToken` resets it. */
    this.tokenNeeded = false;
    /** The latest view status of the open connection. @type {ViewStatus} */
    this.viewStatus = CURRENT;
    /** The newest `plan_state`; `null` before the first. @type {PlanState | null} */
    this.plan = null;
  }

  /** @type {ServerClock} */ #clock;
  /** The latest view status that the server has sent. @type {ViewStatus} */ #serverStatus = CURRENT;

  /** @type {string} */ #token;
  /** @type {() => number} */ #random;
  /** @type {string} */ #browserInfo;
  /** @type {Identity} */ #identity;
  /** @type {Timers} */ #timers;
  /** @type {Keeper} */ #keeper;
  /** @type {Hints} */ #hints;

  /** The state of the connection. @returns {Status} */
  get status() {
    return this.#keeper.status;
  }

  /** The data of the last `welcome`. @returns {Record<string, any> | null} */
  get welcome() {
    return this.#keeper.welcome;
  }

  /** Whether the connection is open and welcomed, as far as this side knows. */
  get connected() {
    return this.#keeper.connected;
  }

  /** The id that names this client over reloads; empty before `connect()`. */
  get clientId() {
    return this.#identity.clientId;
  }

  /** The number of the latest connection attempt. */
  get connectionNo() {
    return this.#identity.connectionNo;
  }

  /** The server of the last welcome; before that, the one to try first. */
  get url() {
    return this.#keeper.url;
  }

  /** Ms since the epoch by the server's clock; `null` before the first welcome. */
  get serverTime() {
    return this.#clock.now();
  }

  /**
   * Where the exam stands now, by the server's clock: its phase, and the seconds until the next one (`null`: no time is set).
   * @returns {{phase: import("./exam-clock.js").ExamPhase, seconds: number | null}}
   */
  get exam() {
    return examAt(this.plan, this.serverTime);
  }

  // -- for the application -------------------------------------------------------------------------------

  /** Connect, and stay connected. Does nothing unless the client is `idle`. */
  connect() {
    if (!this.#keeper.idle) return;
    this.#identity.claim();
    this.#hints.listen(true);
    this.#keeper.begin();
  }

  /** Close with 1000 and do not reconnect. Harmless when repeated; `connect()` opens the client again. */
  close() {
    this.#hints.listen(false);
    this.#keeper.stop();
    this.#identity.release();
    this._ended("CLOSED", "the client was closed");
    this.#keeper.showIdle();
  }

  /**
   * Connect now, without waiting. After a close code that forbids to reconnect, only a person may do that: pass the event of
   * the click or key, which the browser marks as trusted. Attempts begin at least a second apart. Returns whether an attempt
   * begins within a second.
   * @param {Event | null} [userEvent]
   * @returns {boolean}
   */
  tryNow(userEvent = null) {
    return this.#keeper.tryNow(userEvent?.isTrusted === true);
  }

  /**
   * Connect again after the client gave up, because the application knows that the server would accept now: an examinee who
   * was shut out (4504) or removed (4508) was let in again, as `GET …/admission` says. For programs: no click is needed. Each
   * call is one attempt, not sooner than the first step of the backoff after the previous one. Returns whether an attempt
   * begins.
   * @returns {boolean}
   */
  comeBack() {
    return this.#keeper.comeBack();
  }

  /**
   * Use another token from now on. If the server refused the previous one, connect with the new one: at once the first time,
   * then after the backoff, so that a page whose tokens are all refused does not flood the server.
   * @param {string} token
   */
  setToken(token) {
    if (token === this.#token) return;
    this.#token = token;
    this.tokenNeeded = false;
    this.#keeper.tokenChanged();
    this._emit("token", {});
  }

  /**
   * Note that the web server no longer accepts the token (401), and fire `tokenNeeded`, once for each token. An open connection
   * stays open.
   * @param {number} [code]
   */
  tokenRefused(code = 401) {
    if (!this.tokenNeeded) this.#needToken(code);
  }

  /**
   * Send one frame; returns whether there was a connection to send it on.
   * @param {string} type
   * @param {Record<string, unknown>} [data]
   */
  send(type, data = {}) {
    return this.#keeper.send(type, data);
  }

  // -- for subclasses ----------------------------------------------------------------------------------------

  /**
   * Called after a welcome: send again what was not answered on the previous connection.
   * @protected
   */
  _welcomed() {}

  /**
   * Handle a message before the event `message`. The returned properties are added to the event.
   * @protected
   * @param {Message} message
   * @returns {Record<string, unknown>}
   */
  _handle(message) {
    void message;
    return {};
  }

  /** @protected Called after each frame. */
  _heard() {}

  /** @protected Called when the connection is lost and the client reconnects. */
  _lost() {}

  /**
   * Called when the client is closed or has given up: no answer will arrive.
   * @protected
   * @param {string} code
   * @param {string} detail
   */
  _ended(code, detail) {
    void [code, detail];
  }

  /** @protected @param {string} type @param {unknown} detail */
  _emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /**
   * Start a named timer that outlives the connection; a running timer of that name is replaced.
   * @protected
   * @param {string} name
   * @param {number} seconds
   * @param {() => void} work
   */
  _timer(name, seconds, work) {
    this.#timers.start(name, seconds, work);
  }

  /** @protected @param {string} name */
  _stopTimer(name) {
    this.#timers.stop(name);
  }

  /** @protected */
  _randomId() {
    return randomId(this.#random);
  }

  /** @param {PlanState & {version: number}} plan */
  #setPlan(plan) {
    this.#clock.correct(plan.serverTime);
    if (plan.version < (this.plan?.version ?? 0)) return;
    this.plan = plan;
    this._emit("plan", plan);
  }

  /** @param {number} code */
  #needToken(code) {
    this.tokenNeeded = true;
    this._emit("tokenNeeded", { code });
  }

  /**
   * Set the view status (default: the latest of the server) and fire `viewStatus` if it has changed.
   * @protected
   * @param {ViewStatus} [status]
   */
  _setViewStatus(status = this.#serverStatus) {
    const before = this.viewStatus;
    this.viewStatus = status;
    if (before.current !== status.current || before.waitingFor !== status.waitingFor) this._emit("viewStatus", status);
  }

  // -- the identity -----------------------------------------------------------------------------------------

  #hello() {
    return {
      token: this.#token,
      clientId: this.#identity.clientId,
      connectionNo: this.#identity.next(),
      clientInfo: this.#browserInfo ? { browserInfo: this.#browserInfo } : undefined,
    };
  }

  /** Pass the browser's events to the keeper, and claim or release the identity with the page. */
  #hintListener() {
    const keeper = this.#keeper;
    return {
      online: () => keeper.online(),
      offline: () => keeper.offline(),
      shown: (/** @type {number} */ hiddenFor) => keeper.shown(hiddenFor),
      leaving: (/** @type {boolean} */ persisted) => {
        this.#identity.release();
        keeper.leaving(persisted);
      },
      backFromCache: () => {
        this.#identity.claim();
        keeper.backFromCache();
      },
      refusedByPolicy: (/** @type {string} */ url) => keeper.refusedByPolicy(url),
    };
  }
}

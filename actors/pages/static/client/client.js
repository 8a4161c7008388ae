// The client: what a page holds. It keeps its connection by a `Keeper`; here are its face and who it is.

import { Hints, Identity, Timers, randomId, sessionStorageIfAllowed } from "./browser.js";
import { Keeper } from "./connection-keeper.js";
import { Servers } from "./server-list.js";

/** @typedef {import("./plan-view.js").Message} Message */
/** @typedef {import("./reconnect-rules.js").Status} Status */

/**
 * `url`: one or more socket servers (ws: or wss:), tried in this order; `endpointsUrl`: where the web server lists them
 * (`GET /v1/endpoints`), of which one is picked by chance. One of the two is needed; the list is asked for when no address
 * is known, and again when all that are known were tried in vain: servers may have moved. `token`: a JWT for the role. `browserInfo` is shown to
 * proctors (default: the user agent). `storage` keeps the client's id over reloads (default: sessionStorage; `null`:
 * nothing is kept). The rest is what the browser has, for tests: `now` in ms since the epoch, `random` in [0, 1).
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
 * @property {() => number} [random]
 * @property {EventTarget | null} [window]
 * @property {EventTarget & {visibilityState?: string} | null} [document]
 * @property {{onLine?: boolean, userAgent?: string} | null} [navigator]
 * @property {(url: string, init: RequestInit) => Promise<Response>} [fetch]
 */
/**
 * Whether what the server tells is so now: recorded, and shown to proctors. A connection may stand while it is not; then
 * `since` says how long it has not been so (RFC 3339), `waitingFor` what that takes: what the server names, or `server`
 * when the server itself does not answer (only proctors ask it that often).
 * @typedef {{current: boolean, since: string | null, waitingFor: string | null}} ViewStatus
 */

/** @type {ViewStatus} */
const CURRENT = Object.freeze({ current: true, since: null, waitingFor: null });

/**
 * A connection to a socket server that comes back by itself.
 *
 * Events (`CustomEvent`, what is said is in `detail`): `status` (a `Status`), `welcome` (the frame's data), `message`
 * (`{type, data, verdict?}`, every other frame but heartbeats, `welcome` and `migrate`), `tokenNeeded` (`{code}`: a
 * server did not accept the token; `setToken` goes on), `token` (another one was given), `viewStatus` (a `ViewStatus`, when
 * it is another one).
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
    this._document = options.document === undefined ? (globalThis.document ?? null) : options.document;
    this.#random = options.random ?? Math.random;
    this.#token = options.token;
    const navigator = options.navigator === undefined ? (globalThis.navigator ?? null) : options.navigator;
    this.#browserInfo = (options.browserInfo ?? navigator?.userAgent ?? "").slice(0, 256);
    this.#identity = new Identity(storage, this.#random);
    this.#kept = new Timers(setTimeout, clearTimeout);
    const ground = {
      servers: new Servers({ urls, listedAt: options.endpointsUrl ?? null, random: this.#random, fetch }),
      urls,
      WebSocket: options.WebSocket ?? globalThis.WebSocket,
      steps: new Timers(setTimeout, clearTimeout),
      beats: new Timers(setTimeout, clearTimeout),
      now: this.now,
      random: this.#random,
      navigator,
    };
    this.#keeper = new Keeper(ground, {
      token: () => this.#token,
      hello: () => this.#hello(),
      status: (status) => this._emit("status", status),
      welcomed: (welcome) => {
        this.tokenNeeded = false;
        this.#told = CURRENT;
        this._viewStatusIs(CURRENT);
        this._welcomed();
        this._emit("welcome", welcome);
      },
      message: (message) => {
        if (message.type === "view_status") {
          this.#told = { ...CURRENT, ...message.data };
          this._viewStatusIs(this.#told);
        }
        const more = this._takeIn(message);
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
    this.#hints = new Hints({ window, document: this._document, now: this.now }, this.#hinted());
    /** Elements of frames that were no message to use. */
    this.malformed = 0;
    /** A server has not accepted the token that it has; `setToken` changes that. */
    this.tokenNeeded = false;
    /** What the server has said last, over the connection that stands; or that it does not answer. @type {ViewStatus} */
    this.viewStatus = CURRENT;
  }

  /** What the server has said last. @type {ViewStatus} */ #told = CURRENT;

  /** @type {string} */ #token;
  /** @type {() => number} */ #random;
  /** @type {string} */ #browserInfo;
  /** @type {Identity} */ #identity;
  /** @type {Timers} */ #kept;
  /** @type {Keeper} */ #keeper;
  /** @type {Hints} */ #hints;

  /** Where the client stands. @returns {Status} */
  get status() {
    return this.#keeper.status;
  }

  /** The data of the last `welcome`. @returns {Record<string, any> | null} */
  get welcome() {
    return this.#keeper.welcome;
  }

  /** Whether a welcome has come over the connection that stands, as far as this side knows. */
  get connected() {
    return this.#keeper.connected;
  }

  /** The id that names this client over reloads; empty before `connect()`. */
  get clientId() {
    return this.#identity.clientId;
  }

  /** The number of the last connection that was tried. */
  get connectionNo() {
    return this.#identity.connectionNo;
  }

  /** The server of the last welcome; before that, the one to try first. */
  get url() {
    return this.#keeper.url;
  }

  // -- what an application does ----------------------------------------------------------------------------

  /** Connect, and stay connected. Does nothing unless the client is `idle`. */
  connect() {
    if (!this.#keeper.idle) return;
    this.#identity.claim();
    this.#hints.listen(true);
    this.#keeper.begin();
  }

  /** Close with 1000 and stop coming back. Harmless when repeated; `connect()` opens the client again. */
  close() {
    this.#hints.listen(false);
    this.#keeper.stop();
    this.#identity.release();
    this._ended("CLOSED", "the client was closed");
    this.#keeper.showIdle();
  }

  /**
   * Do not wait any longer. After the server said "do not connect again" (a close code without reconnect), only a person
   * may insist: pass the event of the click or key, which the browser marks as trusted. A try that would follow another
   * one within a second begins when that second is over. Returns whether there is one to come.
   * @param {Event | null} [userEvent]
   * @returns {boolean}
   */
  tryNow(userEvent = null) {
    return this.#keeper.tryNow(userEvent?.isTrusted === true);
  }

  /**
   * Connect again although the client had given up, because the application knows from elsewhere that it is worth it: an
   * examinee who was shut out (4504, 4508) was let in again, as `GET …/admission` says. For a program, without a hand on
   * it; each call is one try, never sooner than the first step of the backoff after the one before. Returns whether a try
   * begins.
   * @returns {boolean}
   */
  comeBack() {
    return this.#keeper.comeBack();
  }

  /**
   * Another token from now on. When the server had refused the old one, the client connects with it: at once the first
   * time, then by the backoff, so that a page whose tokens are all refused does not hammer.
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
   * The application was told elsewhere, by HTTP (401), that the token is not accepted any more: `tokenNeeded`, once for
   * each token. A connection that stands goes on.
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
   * A welcome has come; what was not answered on the connection before can be sent again.
   * @protected
   */
  _welcomed() {}

  /**
   * A message, before listeners are told. What it returns is told along with it.
   * @protected
   * @param {Message} message
   * @returns {Record<string, unknown>}
   */
  _takeIn(message) {
    void message;
    return {};
  }

  /** @protected A frame was dealt with, whatever it was. */
  _heard() {}

  /** @protected The connection is gone; the rules go on. */
  _lost() {}

  /**
   * Nothing will be answered any more.
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
   * A timer by name that outlives the connection; a name that runs already begins anew.
   * @protected
   * @param {string} name
   * @param {number} seconds
   * @param {() => void} work
   */
  _timer(name, seconds, work) {
    this.#kept.start(name, seconds, work);
  }

  /** @protected @param {string} name */
  _stopTimer(name) {
    this.#kept.stop(name);
  }

  /** @protected */
  _randomId() {
    return randomId(this.#random);
  }

  /** @param {number} code */
  #needToken(code) {
    this.tokenNeeded = true;
    this._emit("tokenNeeded", { code });
  }

  /**
   * By default what the server has said last.
   * @protected
   * @param {ViewStatus} [status]
   */
  _viewStatusIs(status = this.#told) {
    const before = this.viewStatus;
    this.viewStatus = status;
    if (before.current !== status.current || before.waitingFor !== status.waitingFor) this._emit("viewStatus", status);
  }

  // -- who it is ---------------------------------------------------------------------------------------------

  #hello() {
    return {
      token: this.#token,
      clientId: this.#identity.clientId,
      connectionNo: this.#identity.next(),
      clientInfo: this.#browserInfo ? { browserInfo: this.#browserInfo } : undefined,
    };
  }

  /** What the browser says is for the keeper; who the client is goes and comes with the page. */
  #hinted() {
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

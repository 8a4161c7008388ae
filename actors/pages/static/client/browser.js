// What the client uses of the browser: named timers, events of network and page, session storage.

const STORAGE_KEY = "examwire.client";
const SLICE_SECONDS = 5;

/**
 * The identity of a client: a `clientId` that survives a reload of its tab, and the number of its latest connection.
 *
 * The stored record says whether its page is closed (`released`, written on pagehide). A duplicated tab gets a copy of the
 * session storage while the original tab is open: its record is not released, so the new tab takes a new `clientId`.
 */
export class Identity {
  /** @param {Pick<Storage, "getItem" | "setItem"> | null} storage @param {() => number} random */
  constructor(storage, random) {
    this.storage = storage;
    this.random = random;
    this.clientId = "";
    this.connectionNo = 0;
  }

  /** Take over the released record of the previous page, or create a new id. Also for a page from the bfcache. */
  claim() {
    const record = this._read();
    if (record !== null && record.released) {
      // While this page was in the bfcache, another page of the tab may have used the id and counted further.
      this.connectionNo = record.clientId === this.clientId ? Math.max(record.no, this.connectionNo) : record.no;
      this.clientId = record.clientId;
    } else {
      this.clientId = randomId(this.random);
      this.connectionNo = 0;
    }
    this._write(false);
  }

  /** Count a new connection and return its number. */
  next() {
    this.connectionNo += 1;
    this._write(false);
    return this.connectionNo;
  }

  release() {
    this._write(true);
  }

  /** @returns {{clientId: string, no: number, released: boolean} | null} */
  _read() {
    try {
      const record = JSON.parse(this.storage?.getItem(STORAGE_KEY) ?? "null");
      const valid = record && /^[A-Za-z0-9_-]{1,64}$/.test(record.clientId) && Number.isSafeInteger(record.no) && record.no >= 0;
      return valid ? record : null;
    } catch {
      return null; // storage is blocked, or the record is not ours: then a reload is a new client, which is allowed
    }
  }

  /** @param {boolean} released */
  _write(released) {
    try {
      const record = { clientId: this.clientId, no: this.connectionNo, released };
      this.storage?.setItem(STORAGE_KEY, JSON.stringify(record));
    } catch {
      this.storage = null; // blocked or full: a reload is a new client
    }
  }
}

/** 16 hex digits. @param {() => number} random in [0, 1) */
export function randomId(random) {
  const half = () => Math.floor(random() * 2 ** 32).toString(16).padStart(8, "0");
  return half() + half();
}

/** The storage of this tab, if the page may use it. @returns {Storage | null} */
export function sessionStorageIfAllowed() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null; // reading the property throws where the browser blocks storage
  }
}

/** Named timers: starting a name again replaces its running timer. */
export class Timers {
  /**
   * @param {(work: () => void, milliseconds: number) => any} setTimeout
   * @param {(timer: any) => void} clearTimeout
   */
  constructor(setTimeout, clearTimeout) {
    this._setTimeout = setTimeout;
    this._clearTimeout = clearTimeout;
    /** @type {Map<string, any>} */
    this._running = new Map();
  }

  /** @param {string} name @param {number} seconds @param {() => void} work */
  start(name, seconds, work) {
    this.stop(name);
    const run = () => {
      this._running.delete(name);
      work();
    };
    this._running.set(name, this._setTimeout(run, Math.max(0, seconds * 1000)));
  }

  /**
   * Wait in slices of a few seconds: a timer stops while the laptop sleeps, the clock does not.
   * @param {string} name
   * @param {number} seconds the longest wait, also if the clock is set back
   * @param {number} at the end by the clock, in ms since the epoch
   * @param {() => number} now
   * @param {() => void} work
   */
  startInSlices(name, seconds, at, now, work) {
    const slice = Math.max(0, Math.min(seconds, (at - now()) / 1000, SLICE_SECONDS));
    this.start(name, slice, () => {
      // Timers have a resolution of 1 ms: a shorter rest counts as over.
      if (seconds - slice <= 0.001 || now() >= at - 1) work();
      else this.startInSlices(name, seconds - slice, at, now, work);
    });
  }

  /** @param {string} name */
  stop(name) {
    if (this._running.has(name)) this._clearTimeout(this._running.get(name));
    this._running.delete(name);
  }

  stopAll() {
    for (const name of [...this._running.keys()]) this.stop(name);
  }

  /** @param {string} name */
  runs(name) {
    return this._running.has(name);
  }
}

/**
 * Receives the browser's events. `hiddenFor`: seconds since the page was hidden. `persisted`: the page may come back from
 * the bfcache. `url`: the address that the page's Content-Security-Policy has refused, as far as the browser tells.
 * @typedef {object} HintListener
 * @property {() => void} online
 * @property {() => void} offline
 * @property {(hiddenFor: number) => void} shown
 * @property {(persisted: boolean) => void} leaving
 * @property {() => void} backFromCache
 * @property {(url: string) => void} refusedByPolicy
 */

/** Listens to the browser's events: network, visibility, bfcache, and violations of the page's policy. */
export class Hints {
  /**
   * @param {{window: EventTarget | null, document: (EventTarget & {visibilityState?: string}) | null,
   *   now: () => number}} browser
   * @param {HintListener} listener
   */
  constructor({ window, document, now }, listener) {
    this._window = window;
    this._document = document;
    this._now = now;
    this._listener = listener;
    /** @type {number | null} */
    this._hiddenAt = null;
    this._listening = false;
    this._hint = this._hint.bind(this);
  }

  /** Whether the page is hidden now. */
  get hidden() {
    return this._document?.visibilityState === "hidden";
  }

  /** Start or stop to listen. Harmless when repeated. @param {boolean} on */
  listen(on) {
    if (this._listening === on) return;
    this._listening = on;
    const method = on ? "addEventListener" : "removeEventListener";
    for (const type of ["online", "offline", "pagehide", "pageshow"]) this._window?.[method](type, this._hint);
    for (const type of ["visibilitychange", "securitypolicyviolation"]) this._document?.[method](type, this._hint);
    this._hiddenAt = this.hidden ? this._now() : null;
  }

  /** @param {Event} event */
  _hint(event) {
    const persisted = /** @type {PageTransitionEvent} */ (event).persisted === true;
    if (event.type === "online") this._listener.online();
    else if (event.type === "offline") this._listener.offline();
    else if (event.type === "visibilitychange") this._visibilityChanged();
    else if (event.type === "pagehide") this._listener.leaving(persisted);
    else if (event.type === "pageshow") {
      if (persisted) this._listener.backFromCache();
    } else {
      const { disposition, effectiveDirective, blockedURI } = /** @type {SecurityPolicyViolationEvent} */ (event);
      if (disposition !== "report" && effectiveDirective === "connect-src") this._listener.refusedByPolicy(blockedURI);
    }
  }

  _visibilityChanged() {
    const hiddenAt = this._hiddenAt;
    this._hiddenAt = this.hidden ? this._now() : null;
    if (!this.hidden && hiddenAt !== null) this._listener.shown((this._now() - hiddenAt) / 1000);
  }
}

// What the client takes from the browser: timers by name, its hints about network and page, its storage.

const STORAGE_KEY = "examwire.client";
const SLICE_SECONDS = 5;

/**
 * Who this client is: `clientId` over reloads of a tab, and the number of its next connection.
 *
 * The record says whether its page has gone (`released`, written on pagehide). A duplicated tab gets a copy of the
 * session storage while the original lives: it finds a record that is not released, and becomes a client of its own.
 */
export class Identity {
  /** @param {Pick<Storage, "getItem" | "setItem"> | null} storage @param {() => number} random */
  constructor(storage, random) {
    this.storage = storage;
    this.random = random;
    this.clientId = "";
    this.connectionNo = 0;
  }

  /** Take over what the page before has left, or begin anew; also after the page came back from the bfcache. */
  claim() {
    const kept = this._read();
    if (kept !== null && kept.released) {
      // While this page lay in the bfcache, another one of the tab may have used the name, and counted on.
      this.connectionNo = kept.clientId === this.clientId ? Math.max(kept.no, this.connectionNo) : kept.no;
      this.clientId = kept.clientId;
    } else {
      this.clientId = randomId(this.random);
      this.connectionNo = 0;
    }
    this._write(false);
  }

  /** The number of a new connection. */
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
      const kept = JSON.parse(this.storage?.getItem(STORAGE_KEY) ?? "null");
      const good = kept && /^[A-Za-z0-9_-]{1,64}$/.test(kept.clientId) && Number.isSafeInteger(kept.no) && kept.no >= 0;
      return good ? kept : null;
    } catch {
      return null; // storage is blocked, or holds what is not ours: a reload is a new client, which is allowed to be
    }
  }

  /** @param {boolean} released */
  _write(released) {
    try {
      const record = { clientId: this.clientId, no: this.connectionNo, released };
      this.storage?.setItem(STORAGE_KEY, JSON.stringify(record));
    } catch {
      this.storage = null; // blocked or full: as above
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

/** Timers by name: one that begins anew takes the place of the one before. */
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
   * A long wait, in slices: a timer may stand still while the laptop sleeps, the clock does not.
   * @param {string} name
   * @param {number} seconds that it takes at most, whatever happens to the clock
   * @param {number} at when it ends by the clock, in ms since the epoch
   * @param {() => number} now
   * @param {() => void} work
   */
  startInSlices(name, seconds, at, now, work) {
    const slice = Math.max(0, Math.min(seconds, (at - now()) / 1000, SLICE_SECONDS));
    this.start(name, slice, () => {
      // A thousandth is the resolution of timers: what is left then is nothing.
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
 * Who is told what the browser says. `hiddenFor`: seconds since the page was hidden. `persisted`: the page may come back
 * from the bfcache, or does. `url`: what the page's policy has just refused, as far as the browser tells.
 * @typedef {object} Hinted
 * @property {() => void} online
 * @property {() => void} offline
 * @property {(hiddenFor: number) => void} shown
 * @property {(persisted: boolean) => void} leaving
 * @property {() => void} backFromCache
 * @property {(url: string) => void} refusedByPolicy
 */

/** The browser's hints: about the network, about the page being seen, and about what its policy does not allow. */
export class Hints {
  /**
   * @param {{window: EventTarget | null, document: (EventTarget & {visibilityState?: string}) | null,
   *   now: () => number}} browser
   * @param {Hinted} hinted
   */
  constructor({ window, document, now }, hinted) {
    this._window = window;
    this._document = document;
    this._now = now;
    this._hinted = hinted;
    /** @type {number | null} */
    this._hiddenAt = null;
    this._listening = false;
    this._hint = this._hint.bind(this);
  }

  /** Whether the page is hidden now. */
  get hidden() {
    return this._document?.visibilityState === "hidden";
  }

  /** Listen, or no longer. Harmless when repeated. @param {boolean} on */
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
    if (event.type === "online") this._hinted.online();
    else if (event.type === "offline") this._hinted.offline();
    else if (event.type === "visibilitychange") this._visibilityChanged();
    else if (event.type === "pagehide") this._hinted.leaving(persisted);
    else if (event.type === "pageshow") {
      if (persisted) this._hinted.backFromCache();
    } else {
      const { disposition, effectiveDirective, blockedURI } = /** @type {SecurityPolicyViolationEvent} */ (event);
      if (disposition !== "report" && effectiveDirective === "connect-src") this._hinted.refusedByPolicy(blockedURI);
    }
  }

  _visibilityChanged() {
    const hiddenAt = this._hiddenAt;
    this._hiddenAt = this.hidden ? this._now() : null;
    if (!this.hidden && hiddenAt !== null) this._hinted.shown((this._now() - hiddenAt) / 1000);
  }
}

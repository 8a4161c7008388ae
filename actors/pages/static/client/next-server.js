// Where to go next: the pure rules with the servers that there are, chance and the clock. No sockets, no timers.

import { after, beginning, ring, roomFor, sentAway, spread, urlAt, welcomed } from "./reconnect-rules.js";

/** @typedef {import("./reconnect-rules.js").Comeback} Comeback */
/** @typedef {import("./reconnect-rules.js").GiveUp} GiveUp */
/** @typedef {import("./reconnect-rules.js").Happened} Happened */
/** @typedef {import("./reconnect-rules.js").Wait} Wait */
/** @typedef {import("./server-list.js").Servers} Servers */

/** The page's policy keeps it from every server that is left. @type {Readonly<GiveUp>} */
export const BLOCKED = Object.freeze({ kind: "giveUp", reason: "BLOCKED", code: null, status: null });

export class Course {
  /**
   * @param {Servers} servers
   * @param {readonly string[]} urls those to try first
   * @param {{now: () => number, random: () => number}} chance `now` in ms since the epoch, `random` in [0, 1)
   */
  constructor(servers, urls, { now, random }) {
    this._servers = servers;
    this._now = now;
    this._random = random;
    /** @type {Comeback} */
    this._comeback = beginning(urls);
    /** @type {number | null} */
    this._lostAt = null;
  }

  /** The server of the last welcome; before that, the one to try first. */
  get url() {
    return this._comeback.url;
  }

  get policy() {
    return this._comeback.policy;
  }

  get migrating() {
    return this._comeback.migrating;
  }

  /** Whether the web server is asked for the servers before the next try. */
  get mustAsk() {
    return this._servers.mustAsk(ring(this._comeback));
  }

  /** What is next, without a wait and without a further attempt. @returns {Wait} */
  step() {
    const { attempt, policy } = this._comeback;
    return { kind: "wait", seconds: 0, url: urlAt(this._comeback), attempt, maxAttempts: policy.maxAttempts };
  }

  /** One more try after the end, at the next server. @returns {Wait} */
  onceMore() {
    this._comeback = { ...this._comeback, position: this._comeback.position + 1 };
    return this.step();
  }

  /** The attempts are counted anew. */
  anew() {
    this._comeback = { ...this._comeback, attempt: 0, postponed: 0 };
  }

  /** @param {Happened} happened @returns {Wait | GiveUp} */
  next(happened) {
    const [state, step] = after(this._comeback, happened, 2 * this._random() - 1);
    this._comeback = state;
    if (step.kind === "giveUp") {
      // Nothing else is left, and of the servers that there are the page may not connect to some.
      return step.reason !== "CLOSE_CODE" && this._servers.reloadHelps ? BLOCKED : step;
    }
    const room = this._lostAt === null ? Infinity : roomFor(state, (this._now() - this._lostAt) / 1000);
    return happened.kind === "unreachable" ? spread(step, this._random(), room) : step;
  }

  /** A connection that was welcomed is gone. */
  lost() {
    this._lostAt = this._now();
  }

  forgetLoss() {
    this._lostAt = null;
  }

  /** A `migrate` of the server. @param {readonly string[]} endpoints */
  sentAway(endpoints) {
    this._comeback = sentAway(this._comeback, this._servers.allowed(endpoints));
  }

  /** @param {string} url @param {Record<string, any>} welcome */
  arrived(url, welcome) {
    this._servers.reached();
    // Those that were named by hand come last: a server that has just started may not know of the others yet.
    const endpoints = this._servers.allowed([...welcome.endpoints, ...this._servers.named]);
    this._comeback = welcomed(url, endpoints, welcome.reconnect);
    this._lostAt = null;
  }

  /**
   * The web server has listed servers: these are tried from now on. Returns where to begin; `null`: the page may connect to
   * none of them.
   * @param {readonly string[]} urls
   * @returns {string | null}
   */
  listed(urls) {
    const allowed = this._servers.allowed(urls);
    if (!allowed.length) return null;
    const { url, endpoints } = beginning(allowed);
    this._comeback = { ...this._comeback, url, endpoints, position: 0, migrating: false };
    return url;
  }

  /**
   * The page may not connect to what is next: the server that follows takes its place, which is no attempt. `null`: there is
   * none, and nobody to ask for others.
   * @returns {Wait | null}
   */
  skip() {
    const left = this._servers.reachable(this._comeback);
    if (left === null && !this.mustAsk) return null;
    this._comeback = left ?? this._comeback;
    return this.step();
  }
}

// Says which server is next and when: the pure rules, with the known servers, random numbers and the clock. No sockets, no
// timers.

import { after, beginning, ring, roomFor, sentAway, spread, urlAt, welcomed } from "./reconnect-rules.js";

/** @typedef {import("./reconnect-rules.js").Comeback} Comeback */
/** @typedef {import("./reconnect-rules.js").GiveUp} GiveUp */
/** @typedef {import("./reconnect-rules.js").Happened} Happened */
/** @typedef {import("./reconnect-rules.js").Wait} Wait */
/** @typedef {import("./server-list.js").Servers} Servers */

/** The page's policy refuses every server that is left. @type {Readonly<GiveUp>} */
export const BLOCKED = Object.freeze({ kind: "giveUp", reason: "BLOCKED", code: null, status: null });

/** Where the client stands in its attempts to reconnect, and what is next. */
export class NextServer {
  /**
   * @param {Servers} servers
   * @param {readonly string[]} urls the servers of the options, tried first
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

  /** The next server, at once and without counting an attempt. @returns {Wait} */
  step() {
    const { attempt, policy } = this._comeback;
    return { kind: "wait", seconds: 0, url: urlAt(this._comeback), attempt, maxAttempts: policy.maxAttempts };
  }

  /** Move on to the next server for one more try after the client gave up. @returns {Wait} */
  onceMore() {
    this._comeback = { ...this._comeback, position: this._comeback.position + 1 };
    return this.step();
  }

  /** Count the attempts from 0 again. */
  resetAttempts() {
    this._comeback = { ...this._comeback, attempt: 0, postponed: 0 };
  }

  /** Decide what follows a failure: a wait, or the end. @param {Happened} happened @returns {Wait | GiveUp} */
  next(happened) {
    const [state, step] = after(this._comeback, happened, 2 * this._random() - 1);
    this._comeback = state;
    if (step.kind === "giveUp") {
      // All servers failed, and the page's policy refuses some that are up: a reload may help.
      return step.reason !== "CLOSE_CODE" && this._servers.reloadHelps ? BLOCKED : step;
    }
    const room = this._lostAt === null ? Infinity : roomFor(state, (this._now() - this._lostAt) / 1000);
    return happened.kind === "unreachable" ? spread(step, this._random(), room) : step;
  }

  /** Note the loss of a welcomed connection. */
  lost() {
    this._lostAt = this._now();
  }

  forgetLoss() {
    this._lostAt = null;
  }

  /** Take in a `migrate` frame: go to these servers. @param {readonly string[]} endpoints */
  sentAway(endpoints) {
    this._comeback = sentAway(this._comeback, this._servers.allowed(endpoints));
  }

  /** Take in a `welcome` frame. @param {string} url @param {Record<string, any>} welcome */
  arrived(url, welcome) {
    this._servers.reached();
    // The servers of the options come last: a server that has just started may not know the others yet.
    const endpoints = this._servers.allowed([...welcome.endpoints, ...this._servers.named]);
    this._comeback = welcomed(url, endpoints, welcome.reconnect);
    this._lostAt = null;
  }

  /**
   * Take over the servers that the web server has listed. Returns the first to try; `null`: the page may connect to none.
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
   * Leave out the servers that the page's policy refuses, without counting an attempt. `null`: none is left, and the web
   * server need not be asked again.
   * @returns {Wait | null}
   */
  skip() {
    const reachable = this._servers.reachable(this._comeback);
    if (reachable === null && !this.mustAsk) return null;
    this._comeback = reachable ?? this._comeback;
    return this.step();
  }
}

// One attempt to connect: asks the web server for the socket servers if needed, skips those that the page's policy refuses,
// and opens a connection. The keeper decides whether and when the next attempt is made.

import { Connection, OPEN_SECONDS } from "./connection.js";
import { ASK_SECONDS } from "./server-list.js";

/** @typedef {import("./browser.js").Timers} Timers */
/** @typedef {import("./next-server.js").NextServer} NextServer */
/** @typedef {import("./connection.js").Listener} Listener */
/** @typedef {import("./reconnect-rules.js").Wait} Wait */
/** @typedef {import("./server-list.js").Servers} Servers */

/**
 * What a client is built on. `now`: ms since the epoch; `random`: in [0, 1). `steps`: the timers of waits and attempts;
 * `beats`: those of the open connection. Tests replace them.
 * @typedef {object} Environment
 * @property {Servers} servers
 * @property {readonly string[]} urls the servers of the options, tried first
 * @property {typeof WebSocket} WebSocket
 * @property {Timers} steps
 * @property {Timers} beats
 * @property {() => number} now
 * @property {() => number} random
 * @property {{onLine?: boolean} | null} navigator
 */

/**
 * Receives the end of an attempt that opened no connection. Nothing is called after `stop()`.
 * @typedef {object} AttemptListener
 * @property {(why: string | null) => void} failed no server could be tried
 * @property {() => void} blocked the page's policy refuses every server that is left
 */

/** The attempt that is under way, and the connection that it opens. */
export class ConnectAttempt {
  /** The connection that is being opened, or is open. @type {Connection | null} */ connection = null;

  /** @type {Environment} */ #environment;
  /** @type {NextServer} */ #nextServer;
  /** @type {AttemptListener} */ #attemptListener;
  /** @type {Listener} */ #listener;
  /** The step under way. @type {Wait | null} */ #step = null;
  /** Counts attempts: an answer that belongs to an earlier one is ignored. */ #turn = 0;

  /**
   * @param {Environment} environment
   * @param {NextServer} nextServer
   * @param {AttemptListener} attemptListener
   * @param {Listener} listener of the connection
   */
  constructor(environment, nextServer, attemptListener, listener) {
    this.#environment = environment;
    this.#nextServer = nextServer;
    this.#attemptListener = attemptListener;
    this.#listener = listener;
  }

  /** @param {Wait} step */
  begin(step) {
    this.stop();
    if (this.#nextServer.mustAsk) void this.#ask(step);
    else this.#open(step);
  }

  /** Close the connection and ignore a pending answer of the web server. */
  stop() {
    this.#turn += 1;
    this.#environment.steps.stop("ask");
    this.connection?.close();
    this.connection = null;
  }

  /** Ask the web server for the socket servers, then connect. @param {Wait} step */
  async #ask(step) {
    const turn = this.#turn;
    // The web server may be down while the socket servers are up: with a known address the wait is short.
    this.#environment.steps.start("ask", step.url ? ASK_SECONDS : OPEN_SECONDS, () => this.#unanswered(step, null));
    const { urls, why } = await this.#environment.servers.ask();
    if (turn !== this.#turn) return;
    if (!urls.length) {
      this.#unanswered(step, why);
      return;
    }
    const url = this.#nextServer.listed(urls);
    if (url === null) this.#attemptListener.blocked();
    else this.#open({ ...step, url });
  }

  /** @param {Wait} step @param {string | null} why */
  #unanswered(step, why) {
    if (step.url) this.#open(step);
    else this.#attemptListener.failed(why);
  }

  /** @param {Wait} step */
  #open(step) {
    this.stop(); // a pending answer is ignored
    this.#step = step;
    const { servers, beats, now, WebSocket } = this.#environment;
    if (!servers.allows(step.url)) {
      this.#skip(step);
      return;
    }
    servers.noteAttempt(step.url);
    this.connection = new Connection(step.url, { timers: beats, now }, this.#listener);
    try {
      this.connection.open(WebSocket);
    } catch (error) {
      // Not a valid address, or one that the page may not use.
      if (/** @type {Error} */ (error).name === "SecurityError") this.refusedByPolicy(step.url);
      else this.#attemptListener.failed(String(error));
    }
  }

  /** Try the next server: the page may not connect to this one. @param {Wait} step */
  #skip(step) {
    const next = this.#nextServer.skip();
    if (next === null) this.#attemptListener.blocked();
    else this.begin({ ...step, url: next.url });
  }

  /** Note that the page's policy has refused an address. @param {string} url */
  refusedByPolicy(url) {
    if (!/^wss?:/i.test(url)) return; // something else on the page
    this.#environment.servers.refuse(url);
    const { connection } = this;
    const opening = connection !== null && !connection.welcomed && this.#step !== null;
    if (opening && !this.#environment.servers.allows(connection.url)) this.#skip(/** @type {Wait} */ (this.#step));
  }
}

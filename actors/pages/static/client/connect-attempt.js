// One try at reaching a server: asks the web server where the socket servers are when it must, leaves out those that the page
// may not use, and opens a line to one. Whether and when there is a next try is the keeper's.

import { Line, OPEN_SECONDS } from "./connection.js";
import { ASK_SECONDS } from "./server-list.js";

/** @typedef {import("./browser.js").Timers} Timers */
/** @typedef {import("./next-server.js").Course} Course */
/** @typedef {import("./connection.js").Listener} Listener */
/** @typedef {import("./reconnect-rules.js").Wait} Wait */
/** @typedef {import("./server-list.js").Servers} Servers */

/**
 * What keeping a connection stands on; `now` in ms since the epoch, `random` in [0, 1), `steps` and `beats` timers that are its alone.
 * @typedef {object} Ground
 * @property {Servers} servers
 * @property {readonly string[]} urls those that are tried first
 * @property {typeof WebSocket} WebSocket
 * @property {Timers} steps
 * @property {Timers} beats
 * @property {() => number} now
 * @property {() => number} random
 * @property {{onLine?: boolean} | null} navigator
 */

/**
 * Who is told. None of it after `stop()`.
 * @typedef {object} Seeker
 * @property {(why: string | null) => void} failed no server was there to be tried
 * @property {() => void} blocked the page may connect to none that is left
 */

export class Reach {
  /** The connection that is tried, or stands. @type {Line | null} */ line = null;

  /** @type {Ground} */ #ground;
  /** @type {Course} */ #course;
  /** @type {Seeker} */ #seeker;
  /** @type {Listener} */ #listener;
  /** The step under way. @type {Wait | null} */ #step = null;
  /** Grows with each try: an answer to an earlier one is ignored. */ #turn = 0;

  /**
   * @param {Ground} ground
   * @param {Course} course
   * @param {Seeker} seeker
   * @param {Listener} listener of the line
   */
  constructor(ground, course, seeker, listener) {
    this.#ground = ground;
    this.#course = course;
    this.#seeker = seeker;
    this.#listener = listener;
  }

  /** @param {Wait} step */
  begin(step) {
    this.stop();
    if (this.#course.mustAsk) void this.#ask(step);
    else this.#open(step);
  }

  /** Close the line, and ask no more. */
  stop() {
    this.#turn += 1;
    this.#ground.steps.stop("ask");
    this.line?.close();
    this.line = null;
  }

  /** Ask the web server for the socket servers, then go on. @param {Wait} step */
  async #ask(step) {
    const turn = this.#turn;
    // The web server may be away while the socket servers are not: whoever knows addresses does not wait for it for long.
    this.#ground.steps.start("ask", step.url ? ASK_SECONDS : OPEN_SECONDS, () => this.#unanswered(step, null));
    const { urls, why } = await this.#ground.servers.ask();
    if (turn !== this.#turn) return;
    if (!urls.length) {
      this.#unanswered(step, why);
      return;
    }
    const url = this.#course.listed(urls);
    if (url === null) this.#seeker.blocked();
    else this.#open({ ...step, url });
  }

  /** @param {Wait} step @param {string | null} why */
  #unanswered(step, why) {
    if (step.url) this.#open(step);
    else this.#seeker.failed(why);
  }

  /** @param {Wait} step */
  #open(step) {
    this.stop(); // nothing is asked any more
    this.#step = step;
    const { servers, beats, now, WebSocket } = this.#ground;
    if (!servers.allows(step.url)) {
      this.#skip(step);
      return;
    }
    servers.tries(step.url);
    this.line = new Line(step.url, { timers: beats, now }, this.#listener);
    try {
      this.line.open(WebSocket);
    } catch (error) {
      // An address that is none, or one that the page may not use.
      if (/** @type {Error} */ (error).name === "SecurityError") this.refusedByPolicy(step.url);
      else this.#seeker.failed(String(error));
    }
  }

  /** The page may not connect to the server of this step. @param {Wait} step */
  #skip(step) {
    const next = this.#course.skip();
    if (next === null) this.#seeker.blocked();
    else this.begin({ ...step, url: next.url });
  }

  /** The page's policy has refused an address. @param {string} url */
  refusedByPolicy(url) {
    if (!/^wss?:/i.test(url)) return; // something else on the page
    this.#ground.servers.refuse(url);
    const { line } = this;
    const opening = line !== null && !line.welcomed && this.#step !== null;
    if (opening && !this.#ground.servers.allows(line.url)) this.#skip(/** @type {Wait} */ (this.#step));
  }
}

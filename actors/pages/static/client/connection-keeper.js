// Keeps a client connected: opens a connection, and opens it again after a loss. `NextServer` says which server is next and
// when, `ConnectAttempt` opens a `Connection`, `Hints` reports the browser's events.

import { BLOCKED, NextServer } from "./next-server.js";
import { ConnectAttempt } from "./connect-attempt.js";
import { mayReconnect, nameOf, remedyOf } from "./reconnect-rules.js";

/** @typedef {import("./browser.js").HintListener} HintListener */
/** @typedef {import("./plan-view.js").Message} Message */
/** @typedef {import("./connect-attempt.js").Environment} Environment */
/** @typedef {import("./reconnect-rules.js").GiveUp} GiveUp */
/** @typedef {import("./reconnect-rules.js").Happened} Happened */
/** @typedef {import("./reconnect-rules.js").Status} Status */
/** @typedef {import("./reconnect-rules.js").Wait} Wait */

/** A page that was hidden for longer (seconds) checks its connection when it is shown again. */
export const LONG_HIDDEN_SECONDS = 10;

/** Two attempts of `tryNow` are at least so many seconds apart. */
const QUICK_SECONDS = 1;

/**
 * The client: gives token and hello, and receives what happens.
 * @typedef {object} Owner
 * @property {() => string} token of a new connection
 * @property {() => Record<string, unknown>} hello the data of the hello of a new connection
 * @property {(status: Status) => void} status
 * @property {(welcome: Record<string, any>) => void} welcomed
 * @property {(message: Message) => void} message after the welcome; every type but heartbeat and `migrate`
 * @property {(elements: number) => void} malformed
 * @property {() => void} heard a frame was handled, of any type
 * @property {() => void} lost the connection is lost; the keeper reconnects
 * @property {(code: string, detail: string) => void} ended the server has closed it, and the keeper does not reconnect
 * @property {(code: number) => void} tokenRefused
 */

/** Keeps one client connected. @implements {HintListener} */
export class Keeper {
  /** The data of the last `welcome`. @type {Record<string, any> | null} */ welcome = null;
  /** @type {Status} */ status = { state: "idle" };

  /** @type {Environment} */ #environment;
  /** @type {Owner} */ #owner;
  /** @type {NextServer} */ #nextServer;
  /** @type {"idle" | "opening" | "connected" | "waiting" | "parked" | "ended"} */ #phase = "idle";
  /** @type {ConnectAttempt} */ #connectAttempt;
  /** The attempt that is under way, or the wait before it. @type {Wait | null} */ #step = null;
  /** What continues when the network is back. @type {{step: Wait} | {happened: Happened} | null} */ #parked = null;
  /** @type {GiveUp | null} */ #end = null;
  /** @type {string | null} */ #complaint = null;
  #offline = false;
  #triedAt = -Infinity;
  #tokenRefusals = 0;

  /** @param {Environment} environment @param {Owner} owner */
  constructor(environment, owner) {
    this.#environment = environment;
    this.#owner = owner;
    this.#nextServer = new NextServer(environment.servers, environment.urls, environment);
    this.#connectAttempt = new ConnectAttempt(environment, this.#nextServer, this.#attemptListener, this.#listener);
  }

  get connected() {
    return this.#phase === "connected";
  }

  get idle() {
    return this.#phase === "idle";
  }

  get url() {
    return this.#nextServer.url;
  }

  // -- called by the client --------------------------------------------------------------------------------

  begin() {
    this.#open(this.#nextServer.step());
  }

  /** Close the connection and do not reconnect; `begin()` starts again. */
  stop() {
    this.#release();
    this.#phase = "idle";
    this.#parked = this.#end = null;
    this.#nextServer.forgetLoss();
  }

  /** Report the state `idle`, after `stop`. */
  showIdle() {
    this.#show({ state: "idle" });
  }

  /** @param {boolean} byUser a person asked for it @returns {boolean} whether an attempt begins within a second */
  tryNow(byUser) {
    const since = this.#sinceTried();
    const rest = Math.max(0, QUICK_SECONDS - since);
    if (this.#phase === "waiting" || this.#phase === "parked") {
      if (rest > 0) this.#waitAtMost(rest, this.#pendingStep());
      else this.#open(this.#pendingStep());
      return true;
    }
    const end = this.#end;
    if (this.#phase !== "ended" || end === null) return false;
    if (end.reason === "CLOSE_CODE") {
      if (!byUser || remedyOf(end) !== "USER") return false;
    } else if (!byUser && since < this.#nextServer.policy.backoffSeconds[0]) return false;
    this.#onceMore(rest);
    return true;
  }

  /** Try again after the end, because the server would accept now. @returns {boolean} whether an attempt begins */
  comeBack() {
    const end = this.#end;
    if (this.#phase !== "ended" || end === null || ["TOKEN", "NONE"].includes(remedyOf(end))) return false;
    if (this.#sinceTried() < this.#nextServer.policy.backoffSeconds[0]) return false;
    // After a readmission the server counts the attempts from 0, so the client does the same.
    if (end.reason === "CLOSE_CODE") this.#nextServer.resetAttempts();
    this.#onceMore(0);
    return true;
  }

  /** Connect with the new token, if the server refused the previous one. */
  tokenChanged() {
    if (this.#phase !== "ended" || this.#end === null || remedyOf(this.#end) !== "TOKEN") return;
    const steps = this.#nextServer.policy.backoffSeconds;
    const seconds = this.#tokenRefusals > 1 ? steps[Math.min(this.#tokenRefusals - 2, steps.length - 1)] : 0;
    this.#onceMore(seconds);
  }

  /** @param {string} type @param {Record<string, unknown>} data @returns {boolean} whether there was a connection */
  send(type, data) {
    if (this.#phase !== "connected") return false;
    this.#connectAttempt.connection?.send(type, data);
    return true;
  }

  /** Seconds since the last attempt began; `Infinity` if the clock was set back. */
  #sinceTried() {
    const since = (this.#now() - this.#triedAt) / 1000;
    return since < 0 ? Infinity : since;
  }

  #now() {
    return this.#environment.now();
  }

  // -- connecting --------------------------------------------------------------------------------------------

  /** The next step. An attempt that is made early counts as the one that was due. @returns {Wait} */
  #pendingStep() {
    if (this.#phase === "waiting" && this.#step !== null) return this.#step;
    const parked = this.#parked;
    return parked !== null && "step" in parked ? parked.step : this.#nextServer.step();
  }

  /** Try once more after the end, at the next server. @param {number} seconds */
  #onceMore(seconds) {
    this.#end = null;
    const step = { ...this.#nextServer.onceMore(), seconds };
    if (seconds > 0) this.#wait(step);
    else this.#open(step);
  }

  /** Shorten the wait to so many seconds. @param {number} seconds @param {Wait} step */
  #waitAtMost(seconds, step) {
    const at = this.status.state === "waiting" ? this.status.at : Infinity;
    if (at - this.#now() > seconds * 1000) this.#wait({ ...step, seconds });
  }

  /** @param {Wait} step */
  #open(step) {
    this.#release();
    this.#phase = "opening";
    this.#step = step;
    this.#triedAt = this.#now();
    this.#complaint = null;
    const { attempt, maxAttempts } = step;
    if (!this.#offline) {
      this.#show({ state: "connecting", attempt, maxAttempts, migrating: this.#nextServer.migrating });
    }
    this.#connectAttempt.begin(step);
  }

  /** @param {string} url */
  refusedByPolicy(url) {
    this.#connectAttempt.refusedByPolicy(url);
  }

  /** @type {import("./connect-attempt.js").AttemptListener} */
  #attemptListener = {
    failed: (why) => {
      this.#release();
      this.#complaint = why;
      this.#judge({ kind: "unreachable" });
    },
    blocked: () => this.#giveUp(BLOCKED),
  };

  /** @type {import("./connection.js").Listener} */
  #listener = {
    token: () => this.#owner.token(),
    hello: () => this.#owner.hello(),
    welcomed: (welcome) => this.#arrive(welcome),
    message: (message) => this.#handle(message),
    malformed: (elements) => this.#owner.malformed(elements),
    heard: () => {
      this.#owner.heard();
      // The browser says "offline", but a frame has arrived: the network works.
      if (this.#phase !== "connected" || this.status.state !== "offline") return;
      this.#offline = false;
      this.#showConnected();
    },
    ended: (happened, why) => {
      const connected = this.#phase === "connected";
      this.#release();
      this.#complaint ??= why;
      if (connected) {
        this.#nextServer.lost();
        this.#owner.lost();
      }
      this.#judge(happened);
    },
  };

  /** @param {Message} message */
  #handle(message) {
    const { type, data } = message;
    if (type === "migrate") this.#nextServer.sentAway(data.endpoints);
    else if (this.#phase === "connected") this.#owner.message(message);
    else if (type === "error") this.#complaint = `${data.code}: ${data.message}`;
  }

  /** @param {Record<string, any>} welcome */
  #arrive(welcome) {
    this.#phase = "connected";
    this.#nextServer.arrived(this.#connectAttempt.connection?.url ?? this.#nextServer.url, welcome);
    this.#parked = this.#end = null;
    this.#offline = false;
    this.#tokenRefusals = 0;
    this.welcome = welcome;
    this.#showConnected();
    this.#owner.welcomed(welcome);
  }

  // -- after a loss ------------------------------------------------------------------------------------------

  /** @param {Happened} happened */
  #judge(happened) {
    const final = happened.kind === "lost" && !mayReconnect(happened.code);
    if (!final && this.#noNetwork()) {
      this.#park(this.#parked ?? { happened });
      return;
    }
    const parked = this.#parked;
    this.#parked = null;
    if (!final && parked !== null && "step" in parked) this.#wait(parked.step);
    else this.#goOn(final || parked === null || "step" in parked ? happened : parked.happened);
  }

  /** @param {Happened} happened */
  #goOn(happened) {
    const step = this.#nextServer.next(happened);
    if (step.kind === "giveUp") this.#giveUp(step);
    else this.#wait(step);
  }

  /** @param {Wait} step */
  #wait(step) {
    this.#phase = "waiting";
    this.#step = step;
    const at = this.#now() + step.seconds * 1000;
    const { seconds, attempt, maxAttempts } = step;
    const left = Math.max(0, maxAttempts - attempt);
    this.#show({ state: "waiting", seconds, at, attempt, maxAttempts, left, migrating: this.#nextServer.migrating });
    this.#environment.steps.startInSlices("wait", seconds, at, this.#environment.now, () => this.#open(step));
  }

  /** @param {GiveUp} end */
  #giveUp(end) {
    this.#release();
    this.#phase = "ended";
    this.#end = end;
    const { reason, code } = end;
    const name = nameOf(end);
    if (reason === "CLOSE_CODE") this.#owner.ended(name, "the server ended the session");
    this.#show({ state: "gaveUp", reason, code, name, remedy: remedyOf(end), detail: this.#complaint });
    if (code === 4502) {
      this.#tokenRefusals += 1;
      this.#owner.tokenRefused(code);
    }
  }

  /** Close the connection and stop all waits. */
  #release() {
    this.#environment.steps.stopAll();
    this.#connectAttempt.stop();
  }

  // -- events of the browser ---------------------------------------------------------------------------------

  #noNetwork() {
    this.#offline ||= this.#environment.navigator?.onLine === false;
    return this.#offline;
  }

  offline() {
    if (this.#phase === "ended") return;
    this.#offline = true;
    if (this.#phase === "waiting" && this.#step !== null) this.#park({ step: this.#step });
    else this.#show({ state: "offline" });
  }

  /**
   * Wait for the network without using up attempts. "Offline" is sometimes wrong (virtual machines, some VPNs), so an
   * attempt is still made after the longest step of the backoff.
   * @param {{step: Wait} | {happened: Happened}} parked
   */
  #park(parked) {
    this.#release();
    this.#phase = "parked";
    this.#parked = parked;
    this.#show({ state: "offline" });
    const { policy } = this.#nextServer;
    const seconds = Math.max(...policy.backoffSeconds) * (1 + policy.jitter * (2 * this.#environment.random() - 1));
    this.#environment.steps.start("park", seconds, () => this.#open(this.#pendingStep()));
  }

  online() {
    this.#offline = false;
    if (this.#phase === "connected") {
      this.#connectAttempt.connection?.probe(); // the socket may belong to the previous network; an answer shows "connected" again
    } else if (this.#phase === "opening" && this.#step !== null) {
      const { attempt, maxAttempts } = this.#step;
      this.#show({ state: "connecting", attempt, maxAttempts, migrating: this.#nextServer.migrating });
    } else this.#hurry();
  }

  /** Try soon, after a random wait: a whole hall may get its network back in the same moment. */
  #hurry() {
    const { policy } = this.#nextServer;
    const soon = policy.jitter * policy.backoffSeconds[0] * this.#environment.random();
    if (this.#phase === "waiting" && this.#step !== null) this.#waitAtMost(soon, this.#step);
    else if (this.#phase === "parked" && this.#parked !== null) {
      const parked = this.#parked;
      this.#parked = null;
      if ("step" in parked) this.#wait({ ...parked.step, seconds: soon });
      else this.#goOn(parked.happened);
    } else if (this.#phase === "ended" && this.#end !== null && this.#end.reason !== "CLOSE_CODE") {
      // The attempts may have been used up without a network: try once more.
      if (this.#sinceTried() >= policy.backoffSeconds[0]) this.#onceMore(soon);
    }
  }

  /** @param {number} hiddenFor seconds */
  shown(hiddenFor) {
    if (hiddenFor < LONG_HIDDEN_SECONDS) return;
    if (this.#phase === "connected") {
      this.#connectAttempt.connection?.probe();
      return;
    }
    this.#environment.servers.doubt();
    if (!this.#noNetwork()) this.#hurry();
  }

  /** @param {boolean} persisted whether the page may come back from the bfcache */
  leaving(persisted) {
    if (!persisted || this.#phase === "ended" || this.#phase === "idle") return;
    // A page in the bfcache cannot answer: close now, before the server's timeout.
    const connected = this.#phase === "connected";
    const lasted = connected ? (this.#connectAttempt.connection?.lasted() ?? 0) : 0;
    this.#release();
    if (connected) {
      this.#nextServer.lost();
      this.#owner.lost();
    }
    const step = this.#step;
    this.#parked ??= connected || step === null ? { happened: { kind: "lost", code: null, lasted } } : { step };
    this.#phase = "parked";
  }

  backFromCache() {
    if (this.#phase !== "parked") return;
    this.#offline = this.#environment.navigator?.onLine === false;
    this.#environment.servers.doubt();
    this.#open(this.#pendingStep());
  }

  // -- the status --------------------------------------------------------------------------------------------

  #showConnected() {
    this.#show({ state: "connected", serverId: String(this.welcome?.serverId ?? "") });
  }

  /** @param {Status} status */
  #show(status) {
    if (JSON.stringify(status) === JSON.stringify(this.status)) return;
    this.status = status;
    this.#owner.status(status);
  }
}

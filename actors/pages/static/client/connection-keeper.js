// Keeps a connection: opens it, and opens it again when it is lost. What comes next is said by the pure rules, where the
// servers are by `Servers`, how one is reached by `Reach`, what happens on one connection by `Line`, what is new on this side
// by the hints of the browser.

import { BLOCKED, Course } from "./next-server.js";
import { Reach } from "./connect-attempt.js";
import { mayReconnect, nameOf, remedyOf } from "./reconnect-rules.js";

/** @typedef {import("./browser.js").Hinted} Hinted */
/** @typedef {import("./plan-view.js").Message} Message */
/** @typedef {import("./connect-attempt.js").Ground} Ground */
/** @typedef {import("./reconnect-rules.js").GiveUp} GiveUp */
/** @typedef {import("./reconnect-rules.js").Happened} Happened */
/** @typedef {import("./reconnect-rules.js").Status} Status */
/** @typedef {import("./reconnect-rules.js").Wait} Wait */

/** A page that was hidden for longer looks at its connection at once when it is shown. */
export const LONG_HIDDEN_SECONDS = 10;

const QUICK_SECONDS = 1;

/**
 * Whose connection it is.
 * @typedef {object} Owner
 * @property {() => string} token of a new connection
 * @property {() => Record<string, unknown>} hello the data of the hello of a new connection
 * @property {(status: Status) => void} status
 * @property {(welcome: Record<string, any>) => void} welcomed
 * @property {(message: Message) => void} message over a connection that was welcomed; no heartbeat, no `migrate`
 * @property {(elements: number) => void} malformed
 * @property {() => void} heard a frame was dealt with, whatever it was
 * @property {() => void} lost the connection is gone; the rules go on
 * @property {(code: string, detail: string) => void} ended the server has ended it for good
 * @property {(code: number) => void} tokenRefused
 */

/** @implements {Hinted} */
export class Keeper {
  /** The data of the last `welcome`. @type {Record<string, any> | null} */ welcome = null;
  /** @type {Status} */ status = { state: "idle" };

  /** @type {Ground} */ #ground;
  /** @type {Owner} */ #owner;
  /** @type {Course} */ #course;
  /** @type {"idle" | "opening" | "connected" | "waiting" | "parked" | "ended"} */ #phase = "idle";
  /** @type {Reach} */ #reach;
  /** The step that is waited for or under way. @type {Wait | null} */ #step = null;
  /** What goes on when the network is back. @type {{step: Wait} | {happened: Happened} | null} */ #parked = null;
  /** @type {GiveUp | null} */ #end = null;
  /** @type {string | null} */ #complaint = null;
  #offline = false;
  #triedAt = -Infinity;
  #tokenRefusals = 0;

  /** @param {Ground} ground @param {Owner} owner */
  constructor(ground, owner) {
    this.#ground = ground;
    this.#owner = owner;
    this.#course = new Course(ground.servers, ground.urls, ground);
    this.#reach = new Reach(ground, this.#course, this.#seeker, this.#listener);
  }

  get connected() {
    return this.#phase === "connected";
  }

  get idle() {
    return this.#phase === "idle";
  }

  get url() {
    return this.#course.url;
  }

  // -- what its owner asks for -----------------------------------------------------------------------------

  begin() {
    this.#open(this.#course.step());
  }

  /** Close, and come back no more; `begin()` goes on. */
  stop() {
    this.#letGo();
    this.#phase = "idle";
    this.#parked = this.#end = null;
    this.#course.forgetLoss();
  }

  /** Say, after `stop`, that it is so. */
  showIdle() {
    this.#show({ state: "idle" });
  }

  /** @param {boolean} byUser whether a person insists @returns {boolean} whether a try begins, at once or within a second */
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
    } else if (!byUser && since < this.#course.policy.backoffSeconds[0]) return false;
    this.#onceMore(rest);
    return true;
  }

  /** After the end, when the server is known to have changed its mind. @returns {boolean} whether a try begins */
  comeBack() {
    const end = this.#end;
    if (this.#phase !== "ended" || end === null || ["TOKEN", "NONE"].includes(remedyOf(end))) return false;
    if (this.#sinceTried() < this.#course.policy.backoffSeconds[0]) return false;
    // Let in again, the attempts are counted anew, as the server does.
    if (end.reason === "CLOSE_CODE") this.#course.anew();
    this.#onceMore(0);
    return true;
  }

  /** There is another token: go on, if the one before was refused. */
  tokenChanged() {
    if (this.#phase !== "ended" || this.#end === null || remedyOf(this.#end) !== "TOKEN") return;
    const steps = this.#course.policy.backoffSeconds;
    const seconds = this.#tokenRefusals > 1 ? steps[Math.min(this.#tokenRefusals - 2, steps.length - 1)] : 0;
    this.#onceMore(seconds);
  }

  /** @param {string} type @param {Record<string, unknown>} data @returns {boolean} whether there was a connection */
  send(type, data) {
    if (this.#phase !== "connected") return false;
    this.#reach.line?.send(type, data);
    return true;
  }

  /** Seconds since the last try began; a clock that was set back says nothing. */
  #sinceTried() {
    const since = (this.#now() - this.#triedAt) / 1000;
    return since < 0 ? Infinity : since;
  }

  #now() {
    return this.#ground.now();
  }

  // -- connecting --------------------------------------------------------------------------------------------

  /** What would be tried next; a try that is made early is not a further attempt. @returns {Wait} */
  #pendingStep() {
    if (this.#phase === "waiting" && this.#step !== null) return this.#step;
    const parked = this.#parked;
    return parked !== null && "step" in parked ? parked.step : this.#course.step();
  }

  /** One more try after the end, at the next server. @param {number} seconds */
  #onceMore(seconds) {
    this.#end = null;
    const step = { ...this.#course.onceMore(), seconds };
    if (seconds > 0) this.#wait(step);
    else this.#open(step);
  }

  /** In so many seconds, unless what is waited for comes sooner. @param {number} seconds @param {Wait} step */
  #waitAtMost(seconds, step) {
    const at = this.status.state === "waiting" ? this.status.at : Infinity;
    if (at - this.#now() > seconds * 1000) this.#wait({ ...step, seconds });
  }

  /** @param {Wait} step */
  #open(step) {
    this.#letGo();
    this.#phase = "opening";
    this.#step = step;
    this.#triedAt = this.#now();
    this.#complaint = null;
    const { attempt, maxAttempts } = step;
    if (!this.#offline) {
      this.#show({ state: "connecting", attempt, maxAttempts, migrating: this.#course.migrating });
    }
    this.#reach.begin(step);
  }

  /** @param {string} url */
  refusedByPolicy(url) {
    this.#reach.refusedByPolicy(url);
  }

  /** @type {import("./connect-attempt.js").Seeker} */
  #seeker = {
    failed: (why) => {
      this.#letGo();
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
      // Whatever the browser believes of the network: the server is heard.
      if (this.#phase !== "connected" || this.status.state !== "offline") return;
      this.#offline = false;
      this.#showConnected();
    },
    ended: (happened, why) => {
      const connected = this.#phase === "connected";
      this.#letGo();
      this.#complaint ??= why;
      if (connected) {
        this.#course.lost();
        this.#owner.lost();
      }
      this.#judge(happened);
    },
  };

  /** @param {Message} message */
  #handle(message) {
    const { type, data } = message;
    if (type === "migrate") this.#course.sentAway(data.endpoints);
    else if (this.#phase === "connected") this.#owner.message(message);
    else if (type === "error") this.#complaint = `${data.code}: ${data.message}`;
  }

  /** @param {Record<string, any>} welcome */
  #arrive(welcome) {
    this.#phase = "connected";
    this.#course.arrived(this.#reach.line?.url ?? this.#course.url, welcome);
    this.#parked = this.#end = null;
    this.#offline = false;
    this.#tokenRefusals = 0;
    this.welcome = welcome;
    this.#showConnected();
    this.#owner.welcomed(welcome);
  }

  // -- losing ------------------------------------------------------------------------------------------------

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
    const step = this.#course.next(happened);
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
    this.#show({ state: "waiting", seconds, at, attempt, maxAttempts, left, migrating: this.#course.migrating });
    this.#ground.steps.startInSlices("wait", seconds, at, this.#ground.now, () => this.#open(step));
  }

  /** @param {GiveUp} end */
  #giveUp(end) {
    this.#letGo();
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

  /** Forget the line, and whatever is waited for. */
  #letGo() {
    this.#ground.steps.stopAll();
    this.#reach.stop();
  }

  // -- the browser's hints -----------------------------------------------------------------------------------

  #noNetwork() {
    this.#offline ||= this.#ground.navigator?.onLine === false;
    return this.#offline;
  }

  offline() {
    if (this.#phase === "ended") return;
    this.#offline = true;
    if (this.#phase === "waiting" && this.#step !== null) this.#park({ step: this.#step });
    else this.#show({ state: "offline" });
  }

  /**
   * Wait for the network without using up attempts. "No network" is sometimes wrong (virtual machines, some VPNs), so
   * one try in the ladder's longest step goes on.
   * @param {{step: Wait} | {happened: Happened}} parked
   */
  #park(parked) {
    this.#letGo();
    this.#phase = "parked";
    this.#parked = parked;
    this.#show({ state: "offline" });
    const { policy } = this.#course;
    const seconds = Math.max(...policy.backoffSeconds) * (1 + policy.jitter * (2 * this.#ground.random() - 1));
    this.#ground.steps.start("park", seconds, () => this.#open(this.#pendingStep()));
  }

  online() {
    this.#offline = false;
    if (this.#phase === "connected") {
      this.#reach.line?.probe(); // the socket may be of the network that was; an answer shows "connected" again
    } else if (this.#phase === "opening" && this.#step !== null) {
      const { attempt, maxAttempts } = this.#step;
      this.#show({ state: "connecting", attempt, maxAttempts, migrating: this.#course.migrating });
    } else this.#hurry();
  }

  /** Something has changed for the better: try soon. All of a hall see it in the same moment, so not at once. */
  #hurry() {
    const { policy } = this.#course;
    const soon = policy.jitter * policy.backoffSeconds[0] * this.#ground.random();
    if (this.#phase === "waiting" && this.#step !== null) this.#waitAtMost(soon, this.#step);
    else if (this.#phase === "parked" && this.#parked !== null) {
      const parked = this.#parked;
      this.#parked = null;
      if ("step" in parked) this.#wait({ ...parked.step, seconds: soon });
      else this.#goOn(parked.happened);
    } else if (this.#phase === "ended" && this.#end !== null && this.#end.reason !== "CLOSE_CODE") {
      // Attempts that were used up while there was no network: what has changed is worth one more.
      if (this.#sinceTried() >= policy.backoffSeconds[0]) this.#onceMore(soon);
    }
  }

  /** @param {number} hiddenFor seconds */
  shown(hiddenFor) {
    if (hiddenFor < LONG_HIDDEN_SECONDS) return;
    if (this.#phase === "connected") {
      this.#reach.line?.probe();
      return;
    }
    this.#ground.servers.doubt();
    if (!this.#noNetwork()) this.#hurry();
  }

  /** @param {boolean} persisted whether the page may come back from the bfcache */
  leaving(persisted) {
    if (!persisted || this.#phase === "ended" || this.#phase === "idle") return;
    // A page that lies in the bfcache can answer nobody: leave now, instead of when the server notices.
    const connected = this.#phase === "connected";
    const lasted = connected ? (this.#reach.line?.lasted() ?? 0) : 0;
    this.#letGo();
    if (connected) {
      this.#course.lost();
      this.#owner.lost();
    }
    const step = this.#step;
    this.#parked ??= connected || step === null ? { happened: { kind: "lost", code: null, lasted } } : { step };
    this.#phase = "parked";
  }

  backFromCache() {
    if (this.#phase !== "parked") return;
    this.#offline = this.#ground.navigator?.onLine === false;
    this.#ground.servers.doubt();
    this.#open(this.#pendingStep());
  }

  // -- telling -----------------------------------------------------------------------------------------------

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

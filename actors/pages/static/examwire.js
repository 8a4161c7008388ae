// examwire.js: the client of `examwire.v1` for browsers. One file, no imports, nothing loaded from elsewhere.
//
//   import { ExamineeClient } from "https://exam.example/static/examwire.js";
//   const client = new ExamineeClient({ endpointsUrl: "https://exam.example/v1/endpoints", token });
//   client.addEventListener("status", (event) => show(event.detail));
//   client.connect();
//
// Part 1 is pure: no DOM, no timers, no WebSocket. It says what `protocol/client_rules.py`, `protocol/close_codes.py`
// and `protocol/plan_view.py` say; a test replays random walks of both and compares. Part 2 is the shell around it.

export const SUBPROTOCOL = "examwire.v1";
export const CONNECT_PATH = "/v1/connect";

// -- part 1: close codes (protocol/close_codes.py) ---------------------------------------------------------

/**
 * What a close code means: a stable word, and whether the client connects again by itself.
 * @typedef {{name: string, reconnect: boolean}} CloseRule
 */

/** @type {ReadonlyMap<number, CloseRule>} */
export const CLOSE_RULES = new Map([
  [1000, { name: "NORMAL", reconnect: false }],
  [1001, { name: "GOING_AWAY", reconnect: true }],
  [1003, { name: "UNSUPPORTED_DATA", reconnect: false }],
  [1009, { name: "TOO_LARGE", reconnect: false }],
  [1011, { name: "INTERNAL_ERROR", reconnect: true }],
  [1012, { name: "SERVICE_RESTART", reconnect: true }],
  [4000, { name: "PING_TIMEOUT", reconnect: true }],
  [4001, { name: "SLOW_CLIENT", reconnect: true }],
  [4002, { name: "SERVER_ISOLATED", reconnect: true }],
  [4003, { name: "SERVER_SUPERSEDED", reconnect: true }],
  [4004, { name: "NOT_READY", reconnect: true }],
  [4005, { name: "HELLO_TIMEOUT", reconnect: true }],
  [4006, { name: "MIGRATE", reconnect: true }],
  [4007, { name: "KICKED", reconnect: true }],
  [4501, { name: "INVALID_HELLO", reconnect: false }],
  [4502, { name: "INVALID_TOKEN", reconnect: false }],
  [4503, { name: "REPLACED", reconnect: false }],
  [4504, { name: "RECONNECT_LIMIT_EXCEEDED", reconnect: false }],
  [4505, { name: "TOO_MANY_ERRORS", reconnect: false }],
  [4506, { name: "FORBIDDEN", reconnect: false }],
  [4508, { name: "REMOVED", reconnect: false }],
]);

/**
 * Whether a client connects again by itself after `code` (`null`: the connection broke without one).
 * @param {number | null} code
 * @returns {boolean}
 */
export function mayReconnect(code) {
  if (code === null) return true;
  return CLOSE_RULES.get(code)?.reconnect ?? !(code >= 4500 && code <= 4999);
}

// -- part 1: how a client comes back (protocol/client_rules.py) --------------------------------------------

/** A connection that lasted shorter (seconds) is not tried again at once: something is wrong with it. */
export const STABLE_SECONDS = 1;
/** After so many heartbeat intervals without a frame from the server, the connection is dead. */
export const SILENT_INTERVALS = 2.5;
/** A client that was told "later" so often in a row gives up. */
export const MAX_POSTPONED = 100;
/** Over so many seconds those spread that are sent away in the same moment. */
export const MIGRATE_SPREAD_SECONDS = 0.2;
/** A wait after a refused handshake is lengthened by up to this share of itself (see `spread`). */
export const CROWD_SHARE = 0.5;

/**
 * How a client comes back: attempt 1 almost at once, attempt k+1 after `backoffSeconds[k-1]` × (1 ± `jitter`).
 * @typedef {{maxAttempts: number, backoffSeconds: readonly number[], jitter: number}} Policy
 */

/**
 * Where a client stands. `url` is the server of the last welcome (or the first one to try). `attempt`: attempts made
 * since the last welcome. `position`: which URL of `ring` was tried last. `migrating`: the server of the last welcome
 * is drained and comes last.
 * @typedef {{url: string, endpoints: readonly string[], policy: Policy, attempt: number, position: number,
 *   postponed: number, migrating: boolean}} Comeback
 */

/**
 * `lost`: the connection ended with `code` (`null`: without one), `lasted` seconds after its welcome (0: before it).
 * `refused`: the handshake was answered with an HTTP `status`; `retryAfter` in seconds (a browser cannot see either).
 * `unreachable`: no connection, no answer in time, or an answer that is none.
 * @typedef {{kind: "lost", code: number | null, lasted: number}
 *   | {kind: "refused", status: number, retryAfter: number | null}
 *   | {kind: "unreachable"}} Happened
 */

/**
 * Wait `seconds`, then try `url`: attempt `attempt` of `maxAttempts`.
 * @typedef {{kind: "wait", seconds: number, url: string, attempt: number, maxAttempts: number}} Wait
 */

/**
 * Do not connect again; the close `code` or HTTP `status` that ended it, if one did.
 * @typedef {{kind: "giveUp", reason: "CLOSE_CODE" | "HTTP_STATUS" | "ATTEMPTS_USED_UP" | "ALWAYS_BUSY",
 *   code: number | null, status: number | null}} GiveUp
 */

/** Until the first `welcome`; the defaults of the settings. @type {Policy} */
export const DEFAULT_POLICY = Object.freeze({
  maxAttempts: 5,
  backoffSeconds: Object.freeze([5, 10, 20, 40, 60]),
  jitter: 0.3,
});

const NEXT_ENDPOINT = new Set([1001, 1012, 4002, 4004]);
const AFTER_BACKOFF = new Set([1001, 1011, 4003, 4007]);
const LATER = new Set([429, 503]);
const MIGRATE = 4006;

/**
 * A socket server's address as the URL to connect to: `/v1/connect` is added where there is no path.
 * @param {string} url
 */
export function connectUrl(url) {
  return /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*\/?$/i.test(url) ? url.replace(/\/+$/, "") + CONNECT_PATH : url;
}

/** @param {readonly string[]} urls */
const named = (urls) => [...new Set(urls.map(connectUrl))];

/**
 * Where a client stands that was never welcomed. `urls`: socket servers in the order to try them.
 * @param {readonly string[]} urls
 * @returns {Comeback}
 */
export function beginning(urls) {
  const [url = "", ...endpoints] = named(urls);
  return { url, endpoints, policy: DEFAULT_POLICY, attempt: 0, position: 0, postponed: 0, migrating: false };
}

/**
 * The URLs that are tried in turn: the last server, then the endpoints in the order the server gave.
 * @param {Comeback} state
 */
export function ring(state) {
  const others = state.endpoints.filter((one) => one !== state.url);
  return state.migrating ? [...others, state.url] : [state.url, ...others];
}

/**
 * A `welcome` from the server at `url`: the attempts are counted anew, by its policy.
 * @param {string} url
 * @param {readonly string[]} endpoints
 * @param {Policy} policy
 * @returns {Comeback}
 */
export function welcomed(url, endpoints, policy) {
  // A ladder without steps would be a loop without a pause.
  const steps = policy.backoffSeconds.length ? policy.backoffSeconds : DEFAULT_POLICY.backoffSeconds;
  const ours = { maxAttempts: policy.maxAttempts, backoffSeconds: steps, jitter: policy.jitter };
  return { url, endpoints: named(endpoints), policy: ours, attempt: 0, position: 0, postponed: 0, migrating: false };
}

/**
 * A `migrate` from the server: whatever ends the connection now, these are next (if it names none: those known).
 * @param {Comeback} state
 * @param {readonly string[]} endpoints
 * @returns {Comeback}
 */
export function sentAway(state, endpoints) {
  const given = named(endpoints);
  return { ...state, endpoints: given.length ? given : state.endpoints, migrating: true, position: -1 };
}

/**
 * What to do next. `draw` is a random number in [-1, 1): the jitter, drawn by the caller.
 * @param {Comeback} state
 * @param {Happened} happened
 * @param {number} draw
 * @returns {[Comeback, Wait | GiveUp]}
 */
export function after(state, happened, draw) {
  if (happened.kind === "lost") {
    if (!mayReconnect(happened.code)) return [state, giveUp("CLOSE_CODE", happened.code)];
    // Told to go elsewhere, and nothing was tried since.
    const leaving = state.migrating && !state.attempt && !state.postponed;
    if (happened.code === MIGRATE || leaving) return moving(state, draw);
  }
  if (happened.kind === "refused") {
    if (LATER.has(happened.status)) return postponed(state, happened, draw);
    if (happened.status < 500) return [state, giveUp("HTTP_STATUS", null, happened.status)];
  }
  if (state.attempt >= state.policy.maxAttempts) {
    return [state, giveUp("ATTEMPTS_USED_UP", happened.kind === "lost" ? happened.code : null)];
  }
  const attempt = state.attempt + 1;
  const position = state.position + (movesOn(state, happened) ? 1 : 0);
  const moved = { ...state, attempt, postponed: 0, position };
  return [moved, wait(moved, attempt, secondsBefore(state, attempt, happened, draw))];
}

/** @param {Comeback} state @param {number} draw @returns {[Comeback, Wait | GiveUp]} */
function moving(state, draw) {
  if (state.postponed >= MAX_POSTPONED) return [state, giveUp("ALWAYS_BUSY", MIGRATE)];
  // Sent on by one server after another before any welcome: that is no attempt either, but then there is no hurry.
  const atOnce = !state.attempt && !state.postponed;
  const away = state.migrating ? state : sentAway(state, []);
  const moved = { ...away, postponed: state.postponed + 1, position: away.position + 1 };
  const seconds = atOnce ? (MIGRATE_SPREAD_SECONDS * (1 + draw)) / 2 : stepOf(state.policy, 0, draw);
  return [moved, wait(moved, Math.max(1, state.attempt), seconds)];
}

/**
 * @param {Comeback} state
 * @param {{status: number, retryAfter: number | null}} refused
 * @param {number} draw
 * @returns {[Comeback, Wait | GiveUp]}
 */
function postponed(state, refused, draw) {
  // "Later" uses up no attempt: a hall that comes back at once must not be locked out by its own size.
  if (state.postponed >= MAX_POSTPONED) return [state, giveUp("ALWAYS_BUSY", null, refused.status)];
  const least = refused.retryAfter ?? state.policy.backoffSeconds[0];
  const seconds = least + (state.policy.jitter * Math.max(least, 1) * (1 + draw)) / 2;
  const moved = { ...state, postponed: state.postponed + 1, position: state.position + 1 };
  return [moved, wait(moved, Math.max(1, state.attempt), seconds)];
}

/** @param {GiveUp["reason"]} reason @param {number | null} code @param {number | null} [status] @returns {GiveUp} */
function giveUp(reason, code, status = null) {
  return { kind: "giveUp", reason, code, status };
}

/** @param {Comeback} state @param {number} attempt @param {number} seconds @returns {Wait} */
function wait(state, attempt, seconds) {
  return { kind: "wait", seconds, url: urlAt(state), attempt, maxAttempts: state.policy.maxAttempts };
}

/** @param {Comeback} state */
function urlAt(state) {
  const urls = ring(state);
  return urls[((state.position % urls.length) + urls.length) % urls.length];
}

/** @param {Comeback} state @param {Happened} happened */
function movesOn(state, happened) {
  if (happened.kind !== "lost" || state.attempt !== 0) return true;
  return happened.code !== null && NEXT_ENDPOINT.has(happened.code);
}

/** @param {Comeback} state @param {number} attempt @param {Happened} happened @param {number} draw */
function secondsBefore(state, attempt, happened, draw) {
  const { policy } = state;
  const lasted =
    happened.kind === "lost" &&
    happened.lasted >= STABLE_SECONDS &&
    !(happened.code !== null && AFTER_BACKOFF.has(happened.code));
  if (attempt === 1 && (lasted || state.migrating)) return (policy.jitter * policy.backoffSeconds[0] * (1 + draw)) / 2;
  return stepOf(policy, Math.max(attempt - 2, 0), draw);
}

/** @param {Policy} policy @param {number} number @param {number} draw */
function stepOf(policy, number, draw) {
  const steps = policy.backoffSeconds;
  return steps[Math.min(number, steps.length - 1)] * (1 + policy.jitter * draw);
}

/**
 * How long after a loss the server refuses (RECONNECT_LIMIT_EXCEEDED), in seconds.
 * @param {Policy} policy
 */
export function ladderSeconds(policy) {
  let total = 0;
  for (let k = 0; k < policy.maxAttempts; k += 1) total += stepOf(policy, k, 0);
  return total;
}

/**
 * How much time the ladder leaves for a wait, in seconds, so that the attempts after it begin before the server refuses.
 * @param {Comeback} state
 * @param {number} elapsed since the loss
 */
export function roomFor(state, elapsed) {
  let later = 0;
  for (let k = state.attempt + 1; k <= state.policy.maxAttempts; k += 1) later += stepOf(state.policy, k - 2, 1);
  return ladderSeconds(state.policy) - elapsed - later;
}

/**
 * The wait after a try that failed, lengthened so that a crowd spreads. A browser is not shown the 503 and its
 * Retry-After with which a busy server refuses a handshake: to it that is an unreachable server and uses up an attempt.
 * So that a hall is not locked out by its own size, each wait is spread over half of itself more, as far as
 * `room` (see `roomFor`; `Infinity` when nobody counts) allows.
 * @param {Wait} step
 * @param {number} share in [0, 1), drawn by the caller
 * @param {number} room
 * @returns {Wait}
 */
export function spread(step, share, room) {
  const longer = Math.min(step.seconds * (1 + CROWD_SHARE * share), room - 1);
  return { ...step, seconds: Math.max(step.seconds, longer) };
}

// -- part 1: a plan as a proctor sees it (protocol/plan_view.py) -------------------------------------------

/**
 * A message of the wire.
 * @typedef {{type: string, data: Record<string, any>}} Message
 */

/**
 * What a frame did to the view. DOUBLED: the event that was applied last, once more. LATE: older than the event that
 * was applied last. COVERED: not newer than a snapshot that was applied since; harmless. OTHER: not about the plan.
 * @typedef {"APPLIED" | "DOUBLED" | "LATE" | "COVERED" | "OTHER"} Verdict
 */

/**
 * One examinee as the proctor sees them. Versions are 0 until something was seen; times are RFC 3339.
 *
 * `since`: when the status began to be so. `recoveredAfter`: seconds of the outage that has just ended. `browserInfo` is
 * known from the connection's event only, not from a snapshot. `notices`: how many messages were sent;
 * `unconfirmed`: the actionIds of those that the examinee has not confirmed.
 */
export class Seen {
  /** @param {string} examineeId */
  constructor(examineeId) {
    this.examineeId = examineeId;
    /** @type {string | null} */ this.name = null;
    /** @type {"CONNECTED" | "DISCONNECTED" | "MIGRATING" | "NEVER"} */ this.status = "NEVER";
    /** @type {string | null} */ this.since = null;
    /** @type {string | null} */ this.lastActiveTime = null;
    /** @type {string | null} */ this.socketId = null;
    /** @type {string | null} */ this.serverId = null;
    /** @type {string | null} */ this.reason = null;
    this.attempt = 0;
    /** @type {number | null} */ this.maxAttempts = null;
    /** @type {string | null} */ this.nextAttemptAt = null;
    this.exhausted = false;
    this.removed = false;
    this.recoveries = 0;
    /** @type {number | null} */ this.recoveredAfter = null;
    /** @type {string | null} */ this.ipAddress = null;
    /** @type {string | null} */ this.browserInfo = null;
    this.version = 0;
    /** @type {"NONE" | "WAITING" | "COMPLETED" | "FAILED" | "TIMED_OUT"} */ this.mobileSync = "NONE";
    /** @type {string | null} */ this.mobileSyncReason = null;
    /** @type {string | null} */ this.mobileSyncAt = null;
    /** @type {string | null} */ this.deadline = null;
    /** @type {string | null} */ this.deviceId = null;
    /** @type {string | null} */ this.imageUrl = null;
    this.mobileSyncVersion = 0;
    this.notices = 0;
    /** @type {string[]} */ this.unconfirmed = [];
    this.noticesVersion = 0;
    this.versionFromEvent = false;
    this.mobileSyncFromEvent = false;
    this.noticesFromEvent = false;
  }

  get connected() {
    return this.status === "CONNECTED";
  }
}

/**
 * Every examinee of a plan by id (`examinees`), and counts of what came in.
 *
 * Connection events of an examinee share one line of versions, mobile sync events and notices have others. Whatever is
 * not newer than what was seen changes nothing, so any order and any repetition of frames ends in the same view.
 * `complete`: a whole snapshot has been applied. `events`: events applied, by type.
 */
export class PlanView {
  constructor() {
    /** @type {Map<string, Seen>} */ this.examinees = new Map();
    this.complete = false;
    this.snapshots = 0;
    this.resyncs = 0;
    this.doubled = 0;
    this.late = 0;
    this.covered = 0;
    /** @type {Record<string, number>} */ this.events = {};
    /** @type {Set<string>} */ this._changed = new Set();
    /** @type {Set<string>} */ this._gone = new Set();
    /** @type {Set<string> | null} */ this._sinceFirstPart = null;
  }

  /**
   * Take in a frame.
   * @param {Message} message
   * @returns {Verdict}
   */
  apply(message) {
    if (message.type === "plan_snapshot") return this._snapshot(message.data);
    const change = CHANGES.get(message.type);
    if (change === undefined) return "OTHER";
    const verdict = change(this, message);
    if (verdict === "APPLIED") {
      this.events[message.type] = (this.events[message.type] ?? 0) + 1;
      this._changed.add(message.data.examineeId);
    } else if (verdict === "DOUBLED") this.doubled += 1;
    else if (verdict === "LATE") this.late += 1;
    else this.covered += 1;
    return verdict;
  }

  /**
   * Which examinees look different since the last call, and which are no longer in the plan.
   * @returns {{changed: Set<string>, gone: Set<string>}}
   */
  takeChanges() {
    const taken = { changed: this._changed, gone: this._gone };
    this._changed = new Set();
    this._gone = new Set();
    return taken;
  }

  /** @param {string} examineeId */
  _seen(examineeId) {
    let seen = this.examinees.get(examineeId);
    if (seen === undefined) {
      seen = new Seen(examineeId);
      this.examinees.set(examineeId, seen);
      this._changed.add(examineeId);
      this._gone.delete(examineeId);
    }
    this._sinceFirstPart?.add(examineeId);
    return seen;
  }

  /** @param {Record<string, any>} data @returns {Verdict} */
  _snapshot(data) {
    const part = data.part ?? 1;
    if (part === 1) this._sinceFirstPart = new Set();
    for (const row of data.examinees) {
      if (takeRow(this._seen(row.examineeId), row)) this._changed.add(row.examineeId);
    }
    if (part === (data.parts ?? 1)) {
      // Events between the parts are newer than the snapshot, so whoever they name stays, too.
      if (this._sinceFirstPart !== null) {
        for (const examineeId of [...this.examinees.keys()]) {
          if (!this._sinceFirstPart.has(examineeId)) this._forget(examineeId);
        }
        this.complete = true;
      }
      this._sinceFirstPart = null;
      this.snapshots += 1;
      if (data.resync) this.resyncs += 1;
    }
    return "APPLIED";
  }

  /** @param {string} examineeId */
  _forget(examineeId) {
    this.examinees.delete(examineeId);
    this._changed.delete(examineeId);
    this._gone.add(examineeId);
  }
}

/** @param {number} version @param {number} seen @param {boolean} fromEvent @returns {Verdict} */
function notNewer(version, seen, fromEvent) {
  if (!fromEvent) return "COVERED";
  return version === seen ? "DOUBLED" : "LATE";
}

const DATED = new Set(["examinee_connected", "examinee_disconnected", "examinee_migrating"]);

/** @param {PlanView} view @param {Message} message @returns {Verdict} */
function applyConnection(view, { type, data }) {
  const seen = view._seen(data.examineeId);
  if (data.version <= seen.version) {
    const verdict = notNewer(data.version, seen.version, seen.versionFromEvent);
    seen.versionFromEvent ||= data.version === seen.version; // from now on it would be doubled
    return verdict;
  }
  seen.version = data.version;
  seen.versionFromEvent = true;
  const before = seen.status;
  seen.name = data.name ?? null;
  seen.removed = type === "examinee_removed";
  seen.status = statusAfter(type, data);
  if (seen.status === "NEVER") seen.since = null;
  else if (DATED.has(type) || before !== seen.status || seen.since === null) seen.since = data.timestamp ?? null;
  if (!data.restated) seen.nextAttemptAt = data.nextAttemptAt ?? null;
  switch (type) {
    case "examinee_connected":
      setPlace(seen, data);
      seen.ipAddress = data.clientInfo?.ipAddress ?? seen.ipAddress;
      seen.browserInfo = data.clientInfo?.browserInfo ?? seen.browserInfo;
      seen.recoveredAfter = data.recovered ? (data.outageSeconds ?? null) : null;
      if (data.recovered && !data.restated) seen.recoveries += 1;
      seen.reason = null;
      seen.exhausted = false;
      setAttempt(seen, 0, null);
      break;
    case "examinee_disconnected":
      seen.reason = data.reason ?? null;
      seen.exhausted = data.reason === "RECONNECT_LIMIT_EXCEEDED"; // told anew while shut out
      if (!data.restated) setAttempt(seen, data.attempt ?? 0, data.maxAttempts); // else its ladder goes on
      break;
    case "examinee_migrating":
      setPlace(seen, data);
      seen.reason = "SERVER_DRAINING";
      seen.exhausted = false;
      setAttempt(seen, 0, null);
      break;
    case "examinee_reconnecting":
      seen.exhausted = false;
      setAttempt(seen, data.attempt, data.maxAttempts);
      break;
    case "examinee_reconnect_exhausted":
      seen.exhausted = true;
      seen.reason = "RECONNECT_LIMIT_EXCEEDED";
      break;
    case "examinee_readmitted":
    case "examinee_removed":
      seen.exhausted = false;
      seen.reason = seen.status === "NEVER" ? null : type === "examinee_removed" ? "REMOVED" : "READMITTED";
      setAttempt(seen, 0, null);
      break;
    case "examinee_enrolled":
      takeConnection(seen, data.connection, data.reconnect, data.removed);
      break;
  }
  return "APPLIED";
}

/** @param {string} type @param {Record<string, any>} data @returns {Seen["status"]} */
function statusAfter(type, data) {
  if (type === "examinee_connected") return "CONNECTED";
  if (type === "examinee_migrating") return "MIGRATING";
  if (type === "examinee_readmitted" || type === "examinee_removed") return data.status ?? "DISCONNECTED";
  // Whoever reconnects or has used up the attempts is gone, even if the loss was never seen.
  return "DISCONNECTED";
}

/**
 * @param {Seen} seen
 * @param {Record<string, any>} connection
 * @param {Record<string, any>} reconnect
 * @param {boolean | undefined} removed
 */
function takeConnection(seen, connection, reconnect, removed) {
  seen.status = connection.status ?? "NEVER";
  seen.since = connection.since ?? null;
  setPlace(seen, connection);
  seen.ipAddress = connection.ipAddress ?? seen.ipAddress;
  seen.reason = connection.reason ?? null;
  setAttempt(seen, reconnect.attempt ?? 0, reconnect.maxAttempts);
  seen.nextAttemptAt = reconnect.nextAttemptAt ?? null;
  seen.exhausted = reconnect.exhausted ?? false;
  seen.recoveries = reconnect.count ?? 0;
  seen.removed = removed ?? false;
}

/** @param {Seen} seen @param {Record<string, any>} data */
function setPlace(seen, data) {
  seen.socketId = data.socketId ?? null;
  seen.serverId = data.serverId ?? null;
}

/** @param {Seen} seen @param {number} attempt @param {number | null | undefined} maxAttempts */
function setAttempt(seen, attempt, maxAttempts) {
  seen.attempt = attempt;
  seen.maxAttempts = maxAttempts ?? null;
}

/** @param {PlanView} view @param {Message} message @returns {Verdict} */
function applyMobileSync(view, { type, data }) {
  const seen = view._seen(data.examineeId);
  const version = data.version ?? 0;
  if (version <= seen.mobileSyncVersion) {
    const verdict = notNewer(version, seen.mobileSyncVersion, seen.mobileSyncFromEvent);
    seen.mobileSyncFromEvent ||= version === seen.mobileSyncVersion;
    return verdict;
  }
  seen.mobileSyncVersion = version;
  seen.mobileSyncFromEvent = true;
  const completed = type === "mobile_sync_completed";
  seen.mobileSync = completed ? "COMPLETED" : data.status;
  seen.mobileSyncReason = completed ? null : (data.reason ?? null);
  seen.imageUrl = (completed ? data.imageUrl : data.captureInfo?.imageUrl) ?? null;
  seen.mobileSyncAt = data.timestamp ?? null;
  seen.deviceId = data.deviceId ?? null;
  seen.deadline = completed ? null : (data.deadline ?? null);
  return "APPLIED";
}

/** @param {PlanView} view @param {Message} message @returns {Verdict} */
function applyNotices(view, { data }) {
  const seen = view._seen(data.examineeId);
  const version = data.version ?? 0;
  if (version <= seen.noticesVersion) {
    const verdict = notNewer(version, seen.noticesVersion, seen.noticesFromEvent);
    seen.noticesFromEvent ||= version === seen.noticesVersion;
    return verdict;
  }
  seen.noticesVersion = version;
  seen.noticesFromEvent = true;
  seen.notices = data.sent ?? 0;
  seen.unconfirmed = [...(data.unconfirmed ?? [])];
  return "APPLIED";
}

/** @param {Seen} seen @param {Record<string, any>} row @returns {boolean} whether it looks different now */
function takeRow(seen, row) {
  const { connection, mobileSync, reconnect, notices } = row;
  let changed = false;
  if (row.version > seen.version) {
    seen.version = row.version;
    seen.versionFromEvent = false;
    seen.name = row.name ?? null;
    seen.recoveredAfter = null;
    takeConnection(seen, connection, reconnect, row.removed);
    changed = true;
  }
  if (mobileSync.version > seen.mobileSyncVersion) {
    seen.mobileSync = mobileSync.status;
    seen.mobileSyncVersion = mobileSync.version;
    seen.mobileSyncReason = mobileSync.reason ?? null;
    seen.imageUrl = mobileSync.imageUrl ?? null;
    seen.mobileSyncAt = mobileSync.timestamp ?? null;
    seen.deviceId = mobileSync.deviceId ?? null;
    seen.deadline = mobileSync.status === "COMPLETED" ? null : (mobileSync.deadline ?? null);
    seen.mobileSyncFromEvent = false;
    changed = true;
  }
  if (isObject(notices) && notices.version > seen.noticesVersion) {
    seen.notices = notices.sent ?? 0;
    seen.unconfirmed = [...(notices.unconfirmed ?? [])];
    seen.noticesVersion = notices.version;
    seen.noticesFromEvent = false;
    changed = true;
  }
  // Told by a snapshot only, without a version: it is the latest word.
  seen.lastActiveTime = row.lastActiveTime ?? seen.lastActiveTime;
  return changed;
}

/** @type {ReadonlyMap<string, (view: PlanView, message: Message) => Verdict>} */
const CHANGES = new Map([
  ["examinee_connected", applyConnection],
  ["examinee_disconnected", applyConnection],
  ["examinee_migrating", applyConnection],
  ["examinee_reconnecting", applyConnection],
  ["examinee_reconnect_exhausted", applyConnection],
  ["examinee_readmitted", applyConnection],
  ["examinee_removed", applyConnection],
  ["examinee_enrolled", applyConnection],
  ["mobile_sync_status", applyMobileSync],
  ["mobile_sync_completed", applyMobileSync],
  ["notice", applyNotices],
  ["notice_confirmed", applyNotices],
]);

// -- part 2: the shell ------------------------------------------------------------------------------------

/** A socket that does not open, and one that opens and sends no welcome, count as unreachable after so long. */
export const OPEN_SECONDS = 10;
/** A connection in doubt (the network changed, the laptop slept) has so long to answer a heartbeat. */
export const PROBE_SECONDS = 4;
/** A page that was hidden for longer looks at its connection at once when it is shown. */
export const LONG_HIDDEN_SECONDS = 10;
/** What a proctor asks for fails when it is not answered within so long. */
export const REQUEST_SECONDS = 30;

const SLICE_SECONDS = 5; // a wait is cut into slices: a timer may stand still while the laptop sleeps, the clock does not
const QUICK_SECONDS = 1;
const STORAGE_KEY = "examwire.client";
const HEARTBEAT = '{"type":"heartbeat","data":{}}';

/**
 * What an application may do about the end of trying. `USER`: a person may try again (`tryNow(event)`). `TOKEN`: another
 * token is needed (`setToken`). `NONE`: nothing here helps, the client must be mended.
 * @typedef {"USER" | "TOKEN" | "NONE"} Remedy
 */

/** @type {ReadonlyMap<number, Remedy>} */
const REMEDIES = new Map([
  [1003, "NONE"],
  [1009, "NONE"],
  [4501, "NONE"],
  [4502, "TOKEN"],
  [4506, "TOKEN"],
]);

/**
 * Where the client stands, as one value for a page.
 * - `idle`: `connect()` was not called yet, or `close()` was.
 * - `connecting`: attempt `attempt` (0: the first connection) of `maxAttempts` is under way.
 * - `connected`.
 * - `waiting`: the next attempt begins at `at` (ms since the epoch), which is in `seconds`; `left`: attempts after it.
 * - `offline`: the browser says that there is no network; no attempts are used up.
 * - `gaveUp`: it does not connect again by itself; `name` is the word for the close `code`, `detail` the server's words.
 *
 * `migrating`: the server sent the client to another one, which is no loss: nothing that a page should shout about.
 * @typedef {{state: "idle"}
 *   | {state: "connecting", attempt: number, maxAttempts: number, migrating: boolean}
 *   | {state: "connected", serverId: string}
 *   | {state: "waiting", seconds: number, at: number, attempt: number, maxAttempts: number, left: number,
 *      migrating: boolean}
 *   | {state: "offline"}
 *   | {state: "gaveUp", reason: GiveUp["reason"], code: number | null, name: string, remedy: Remedy,
 *      detail: string | null}} Status
 */

/**
 * `url`: one or more socket servers (ws: or wss:), tried in this order; or `endpointsUrl`: where the web server lists
 * them (`GET /v1/endpoints`), of which one is picked by chance. `token`: a JWT for the role. `browserInfo` is shown to
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

/** What a proctor asked for was not done, as far as is known; `code` is the server's, or TIMEOUT, CLOSED. */
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

/**
 * Who this client is: `clientId` over reloads of a tab, and the number of its next connection.
 *
 * The record says whether its page has gone (`released`, written on pagehide). A duplicated tab gets a copy of the
 * session storage while the original lives: it finds a record that is not released, and becomes a client of its own.
 */
class Identity {
  /** @param {ClientOptions["storage"]} storage @param {() => number} random */
  constructor(storage, random) {
    this.storage = storage ?? null;
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

/** @param {() => number} random */
function randomId(random) {
  const half = () => Math.floor(random() * 2 ** 32).toString(16).padStart(8, "0");
  return half() + half();
}

/** @returns {Storage | null} */
function sessionStorageIfAllowed() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null; // reading the property throws where the browser blocks storage
  }
}

/**
 * The messages of a frame, and how many of its elements are none that can be used: a newer server may say things that
 * we do not know.
 * @param {unknown} text
 * @returns {{messages: Message[], malformed: number}}
 */
export function decode(text) {
  let parsed;
  try {
    parsed = typeof text === "string" ? JSON.parse(text) : null;
  } catch {
    parsed = null;
  }
  const elements = Array.isArray(parsed) ? parsed : [parsed];
  const messages = elements.filter(isMessage).map((one) => ({ type: one.type, data: one.data ?? {} }));
  return { messages, malformed: elements.length - messages.length };
}

/** @param {any} value */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** @param {any} element @returns {boolean} */
function isMessage(element) {
  if (!isObject(element) || typeof element.type !== "string") return false;
  const data = element.data ?? {};
  if (!isObject(data)) return false;
  if (element.type === "welcome") return isWelcome(data);
  if (element.type === "migrate") return isUrls(data.endpoints);
  if (element.type === "plan_snapshot") return Array.isArray(data.examinees) && data.examinees.every(isRow);
  if (element.type === "examinee_enrolled" && !(isObject(data.connection) && isObject(data.reconnect))) return false;
  if (CHANGES.has(element.type)) return typeof data.examineeId === "string" && Number.isSafeInteger(data.version ?? 0);
  return true;
}

/** @param {any} data */
function isWelcome(data) {
  const { reconnect: policy, heartbeatSeconds } = data;
  /** @param {any} value */
  const isNumber = (value) => Number.isFinite(value) && value >= 0;
  return (
    heartbeatSeconds > 0 &&
    Number.isFinite(heartbeatSeconds) &&
    isUrls(data.endpoints) &&
    isObject(policy) &&
    isNumber(policy.maxAttempts) &&
    isNumber(policy.jitter) &&
    Array.isArray(policy.backoffSeconds) &&
    policy.backoffSeconds.every(isNumber)
  );
}

/** @param {any} value */
const isUrls = (value) => Array.isArray(value) && value.every((one) => typeof one === "string");

/** @param {any} row */
const isRow = (row) =>
  isObject(row) &&
  typeof row.examineeId === "string" &&
  Number.isSafeInteger(row.version) &&
  [row.connection, row.mobileSync, row.reconnect].every(isObject) &&
  Number.isSafeInteger(row.mobileSync.version);

/**
 * A connection to a socket server that comes back by itself.
 *
 * Events (`CustomEvent`, what is said is in `detail`): `status` (a `Status`), `welcome` (the frame's data), `message`
 * (`{type, data, verdict?}`, every other frame but heartbeats, `welcome` and `migrate`), `tokenNeeded` (`{code}`: the
 * server did not accept the token; `setToken` goes on).
 */
export class Client extends EventTarget {
  /** @param {ClientOptions} options */
  constructor(options) {
    super();
    const urls = typeof options.url === "string" ? [options.url] : [...(options.url ?? [])];
    if (!urls.length && !options.endpointsUrl) throw new TypeError("neither url nor endpointsUrl is given");
    this.#endpointsUrl = urls.length ? null : (options.endpointsUrl ?? null);
    this.#given = urls;
    this.#comeback = beginning(urls);
    this.#token = options.token;
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#setTimeout = options.setTimeout ?? ((work, milliseconds) => globalThis.setTimeout(work, milliseconds));
    this.#clearTimeout = options.clearTimeout ?? ((timer) => globalThis.clearTimeout(timer));
    this.#fetch = options.fetch ?? ((url, init) => globalThis.fetch(url, init));
    this.#random = options.random ?? Math.random;
    this.#window = options.window === undefined ? (globalThis.window ?? null) : options.window;
    this._document = options.document === undefined ? (globalThis.document ?? null) : options.document;
    this.#navigator = options.navigator === undefined ? (globalThis.navigator ?? null) : options.navigator;
    this.#browserInfo = (options.browserInfo ?? this.#navigator?.userAgent ?? "").slice(0, 256);
    /** Milliseconds since the epoch, by the clock that the client uses. @type {() => number} */
    this.now = options.now ?? Date.now;
    this.#identity = new Identity(
      options.storage === undefined ? sessionStorageIfAllowed() : options.storage,
      this.#random,
    );
    /** The data of the last `welcome`. @type {Record<string, any> | null} */
    this.welcome = null;
    /** Elements of frames that were no message to use. */
    this.malformed = 0;
  }

  /** @type {string | null} */ #endpointsUrl;
  /** The servers that were named before any welcome. @type {readonly string[]} */ #given;
  /** @type {Comeback} */ #comeback;
  /** @type {string} */ #token;
  /** @type {typeof WebSocket} */ #WebSocket;
  /** @type {(work: () => void, milliseconds: number) => any} */ #setTimeout;
  /** @type {(timer: any) => void} */ #clearTimeout;
  /** @type {(url: string, init: RequestInit) => Promise<Response>} */ #fetch;
  /** @type {() => number} */ #random;
  /** @type {EventTarget | null} */ #window;
  /** @type {{onLine?: boolean, userAgent?: string} | null} */ #navigator;
  /** @type {string} */ #browserInfo;
  /** @type {Identity} */ #identity;

  /** @type {"idle" | "opening" | "connected" | "waiting" | "parked" | "ended"} */ #phase = "idle";
  /** @type {Status} */ #status = { state: "idle" };
  /** @type {WebSocket | null} */ #ws = null;
  /** Grows with each try: whatever belongs to an earlier one is ignored. */ #turn = 0;
  /** @type {Map<string, any>} */ #timers = new Map();
  /** The step that is waited for or under way. @type {Wait | null} */ #step = null;
  /** What goes on when the network is back. @type {{step: Wait} | {happened: Happened} | null} */ #parked = null;
  /** @type {GiveUp | null} */ #end = null;
  /** @type {string | null} */ #complaint = null;
  #offline = false;
  #heard = 0;
  #heardAt = 0;
  #beatDue = 0;
  #welcomedAt = 0;
  #triedAt = -Infinity;
  /** @type {number | null} */ #lostAt = null;
  /** @type {number | null} */ #hiddenAt = null;
  #tokenRefusals = 0;
  #listening = false;

  /** Where the client stands. @returns {Status} */
  get status() {
    return this.#status;
  }

  /** Whether a welcome has come over the connection that stands, as far as this side knows. */
  get connected() {
    return this.#phase === "connected";
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
    return this.#comeback.url;
  }

  // -- what an application does ----------------------------------------------------------------------------

  /** Connect, and stay connected. Does nothing unless the client is `idle`. */
  connect() {
    if (this.#phase !== "idle") return;
    this.#identity.claim();
    this.#listen(true);
    this.#open(this.#firstStep());
  }

  /** Close with 1000 and stop coming back. Harmless when repeated; `connect()` opens the client again. */
  close() {
    this.#listen(false);
    this.#letGo(1000, "");
    this.#phase = "idle";
    this.#parked = this.#end = this.#lostAt = null;
    this.#identity.release();
    this._ended("CLOSED", "the client was closed");
    this.#show({ state: "idle" });
  }

  /**
   * Do not wait any longer. After the server said "do not connect again" (a close code without reconnect), only a person
   * may insist: pass the event of the click or key, which the browser marks as trusted. Returns whether a try begins.
   * @param {Event | null} [userEvent]
   * @returns {boolean}
   */
  tryNow(userEvent = null) {
    const byUser = userEvent?.isTrusted === true;
    const since = (this.now() - this.#triedAt) / 1000;
    if (since >= 0 && since < QUICK_SECONDS) return false;
    if (this.#phase === "waiting" || this.#phase === "parked") {
      this.#open(this.#pendingStep());
      return true;
    }
    const end = this.#end;
    if (this.#phase !== "ended" || end === null) return false;
    if (end.reason === "CLOSE_CODE") {
      if (!byUser || this.#remedy(end) !== "USER") return false;
    } else if (!byUser && since < this.#comeback.policy.backoffSeconds[0]) return false;
    this.#onceMore(0);
    return true;
  }

  /**
   * Another token from now on. When the server had refused the old one, the client connects with it: at once the first
   * time, then by the backoff, so that a page whose tokens are all refused does not hammer.
   * @param {string} token
   */
  setToken(token) {
    const same = token === this.#token;
    this.#token = token;
    if (same || this.#phase !== "ended" || this.#end === null || this.#remedy(this.#end) !== "TOKEN") return;
    const steps = this.#comeback.policy.backoffSeconds;
    const seconds = this.#tokenRefusals > 1 ? steps[Math.min(this.#tokenRefusals - 2, steps.length - 1)] : 0;
    this.#onceMore(seconds);
  }

  /**
   * Send one frame; returns whether there was a connection to send it on.
   * @param {string} type
   * @param {Record<string, unknown>} [data]
   */
  send(type, data = {}) {
    if (this.#phase !== "connected") return false;
    this.#ws?.send(JSON.stringify({ type, data }));
    return true;
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
   * A timer by name; a name that runs already begins anew. All end with the connection but those that begin with `_`.
   * @protected
   * @param {string} name
   * @param {number} seconds
   * @param {() => void} work
   */
  _timer(name, seconds, work) {
    this._stopTimer(name);
    const run = () => {
      this.#timers.delete(name);
      work();
    };
    this.#timers.set(name, this.#setTimeout(run, Math.max(0, seconds * 1000)));
  }

  /** @protected @param {string} name */
  _stopTimer(name) {
    if (this.#timers.has(name)) this.#clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  /** @protected */
  _randomId() {
    return randomId(this.#random);
  }

  // -- connecting --------------------------------------------------------------------------------------------

  /** @returns {Wait} */
  #firstStep() {
    const { attempt, policy } = this.#comeback;
    return { kind: "wait", seconds: 0, url: urlAt(this.#comeback), attempt, maxAttempts: policy.maxAttempts };
  }

  /** What would be tried next; a try that is made early is not a further attempt. @returns {Wait} */
  #pendingStep() {
    if (this.#phase === "waiting" && this.#step !== null) return this.#step;
    const parked = this.#parked;
    return parked !== null && "step" in parked ? parked.step : this.#firstStep();
  }

  /** One more try after the end, at the next server. @param {number} seconds */
  #onceMore(seconds) {
    this.#end = null;
    this.#comeback = { ...this.#comeback, position: this.#comeback.position + 1 };
    const step = { ...this.#firstStep(), seconds };
    if (seconds > 0) this.#wait(step);
    else this.#open(step);
  }

  /** @param {Wait} step */
  #open(step) {
    this.#letGo(1000, "");
    this.#phase = "opening";
    this.#step = step;
    this.#triedAt = this.now();
    this.#complaint = null;
    const { attempt, maxAttempts } = step;
    if (!this.#offline) {
      this.#show({ state: "connecting", attempt, maxAttempts, migrating: this.#comeback.migrating });
    }
    this._timer("open", OPEN_SECONDS, () => this.#failed());
    if (step.url) this.#openSocket(step.url);
    else void this.#locate(step);
  }

  /** Ask the web server for the socket servers, then go on. @param {Wait} step */
  async #locate(step) {
    const turn = this.#turn;
    let urls = [];
    try {
      const init = /** @type {RequestInit} */ ({ cache: "no-store", credentials: "omit" });
      const response = await this.#fetch(this.#endpointsUrl ?? "", init);
      const body = response.ok ? await response.json() : null;
      if (isUrls(body?.socketServers)) urls = body.socketServers;
    } catch (error) {
      if (turn === this.#turn) this.#complaint = String(error);
    }
    if (turn !== this.#turn) return;
    if (!urls.length) {
      this.#failed();
      return;
    }
    // Everybody is given the same list: who takes one by chance spreads the hall over the servers.
    const first = Math.floor(this.#random() * urls.length);
    this.#given = [...urls.slice(first), ...urls.slice(0, first)];
    const { url, endpoints } = beginning(this.#given);
    this.#comeback = { ...this.#comeback, url, endpoints, position: 0 };
    this.#openSocket((this.#step = { ...step, url }).url);
  }

  /** @param {string} url */
  #openSocket(url) {
    let ws;
    try {
      ws = new this.#WebSocket(url, SUBPROTOCOL);
    } catch (error) {
      this.#complaint = String(error); // an address that is none, or one that the page may not use
      this.#failed();
      return;
    }
    this.#ws = ws;
    ws.onopen = () => this.#greet(ws);
    ws.onmessage = (event) => this.#received(ws, event.data);
    // A refused handshake: browsers tell of it by a close event as well, other implementations by this alone.
    ws.onerror = () => this.#closed(ws, 1006, "");
    ws.onclose = (event) => this.#closed(ws, event.code, event.reason);
  }

  /** @param {WebSocket} ws */
  #greet(ws) {
    if (this.#ws !== ws) return;
    ws.onerror = null; // from now on a close event tells how it ended
    if (ws.protocol !== SUBPROTOCOL) {
      this.#complaint = `${ws.url} is no socket server: it does not speak ${SUBPROTOCOL}`;
      this.#failed();
      return;
    }
    this._timer("open", OPEN_SECONDS, () => this.#failed());
    const hello = {
      token: this.#token,
      clientId: this.#identity.clientId,
      connectionNo: this.#identity.next(),
      clientInfo: this.#browserInfo ? { browserInfo: this.#browserInfo } : undefined,
    };
    ws.send(JSON.stringify({ type: "hello", data: hello }));
  }

  /** @param {WebSocket} ws @param {unknown} text */
  #received(ws, text) {
    if (this.#ws !== ws) return;
    this.#heard += 1;
    this.#heardAt = this.now();
    const { messages, malformed } = decode(text);
    this.malformed += malformed;
    for (const message of messages) {
      if (this.#ws !== ws) return; // a listener closed the client
      this.#handle(message);
    }
    // Whatever the browser believes of the network: the server is heard.
    if (this.#phase === "connected" && this.#status.state === "offline") {
      this.#offline = false;
      this.#showConnected();
    }
  }

  /** @param {Message} message */
  #handle(message) {
    const { type, data } = message;
    if (this.#phase !== "connected") {
      if (type === "welcome") this.#arrive(data);
      else if (type === "migrate") this.#comeback = sentAway(this.#comeback, data.endpoints);
      else if (type === "error") this.#complaint = `${data.code}: ${data.message}`;
      return;
    }
    if (type === "heartbeat") return;
    if (type === "migrate") {
      this.#comeback = sentAway(this.#comeback, data.endpoints);
      return;
    }
    const more = this._takeIn(message);
    this._emit("message", { ...message, ...more });
  }

  /** @param {Record<string, any>} welcome */
  #arrive(welcome) {
    this._stopTimer("open");
    this.#phase = "connected";
    // Those that were named by hand come last: a server that has just started may not know of the others yet.
    const endpoints = [...welcome.endpoints, ...this.#given];
    this.#comeback = welcomed(this.#step?.url ?? this.#comeback.url, endpoints, welcome.reconnect);
    this.#parked = this.#end = this.#lostAt = null;
    this.#offline = false;
    this.#tokenRefusals = 0;
    this.#welcomedAt = this.now();
    this.welcome = welcome;
    this.#scheduleBeat();
    this.#showConnected();
    this._welcomed();
    this._emit("welcome", welcome);
  }

  // -- life --------------------------------------------------------------------------------------------------

  #scheduleBeat() {
    const seconds = this.welcome?.heartbeatSeconds ?? 5;
    this.#beatDue = this.now() + seconds * 1000;
    this._timer("beat", seconds, () => this.#beat(seconds * 1000));
  }

  /** @param {number} interval in ms */
  #beat(interval) {
    const now = this.now();
    const late = now - this.#beatDue;
    this.#scheduleBeat();
    if (now < this.#heardAt) this.#heardAt = now; // the clock was set back
    if (late > 2 * interval) {
      // The laptop slept, or the browser slowed a hidden page down: silence proves nothing, so ask.
      this.#probe();
    } else if (now - this.#heardAt > SILENT_INTERVALS * interval) {
      this.#drop();
    } else {
      this.#ws?.send(HEARTBEAT);
    }
  }

  /** Whether the server is still there: one heartbeat, and an answer within `PROBE_SECONDS`. */
  #probe() {
    if (this.#phase !== "connected" || this.#timers.has("probe")) return;
    const { readyState } = /** @type {WebSocket} */ (this.#ws);
    if (readyState !== 1) {
      this.#drop(); // closing or closed: the browser has not told us yet
      return;
    }
    const heard = this.#heard;
    this.#ws?.send(HEARTBEAT);
    this._timer("probe", PROBE_SECONDS, () => {
      if (this.#heard === heard) this.#drop();
    });
  }

  // -- losing ------------------------------------------------------------------------------------------------

  /** The connection is dead, whatever the browser says: a close handshake with nobody would take a minute. */
  #drop() {
    this.#letGo(4000, "PING_TIMEOUT");
    this.#lose({ kind: "lost", code: null, lasted: this.#lasted() });
  }

  /** @param {WebSocket} ws @param {number} code @param {string} reason */
  #closed(ws, code, reason) {
    if (this.#ws !== ws) return;
    const connected = this.#phase === "connected";
    this.#letGo(1000, "");
    const given = code === 1006 ? null : code;
    if (connected) this.#lose({ kind: "lost", code: given, lasted: this.#lasted() });
    else if (given === null) this.#judge({ kind: "unreachable" });
    else {
      this.#complaint ??= reason || null;
      this.#judge({ kind: "lost", code: given, lasted: 0 });
    }
  }

  #lasted() {
    const seconds = (this.now() - this.#welcomedAt) / 1000;
    return seconds < 0 ? STABLE_SECONDS : seconds; // the clock was set back: nothing speaks against the connection
  }

  #failed() {
    this.#letGo(1000, "");
    this.#judge({ kind: "unreachable" });
  }

  /** @param {Happened} happened */
  #lose(happened) {
    this.#lostAt = this.now();
    this._lost();
    this.#judge(happened);
  }

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
    const [state, step] = after(this.#comeback, happened, 2 * this.#random() - 1);
    this.#comeback = state;
    if (step.kind === "giveUp") {
      this.#giveUp(step);
      return;
    }
    const room = this.#lostAt === null ? Infinity : roomFor(state, (this.now() - this.#lostAt) / 1000);
    this.#wait(happened.kind === "unreachable" ? spread(step, this.#random(), room) : step);
  }

  /** @param {Wait} step */
  #wait(step) {
    this.#phase = "waiting";
    this.#step = step;
    const at = this.now() + step.seconds * 1000;
    const { seconds, attempt, maxAttempts } = step;
    const left = Math.max(0, maxAttempts - attempt);
    this.#show({ state: "waiting", seconds, at, attempt, maxAttempts, left, migrating: this.#comeback.migrating });
    this.#slice(step, at, step.seconds);
  }

  /** @param {Wait} step @param {number} at @param {number} left seconds, whatever happens to the clock */
  #slice(step, at, left) {
    const seconds = Math.max(0, Math.min(left, (at - this.now()) / 1000, SLICE_SECONDS));
    this._timer("wait", seconds, () => {
      // A thousandth is the resolution of timers: what is left then is nothing.
      if (left - seconds <= 0.001 || this.now() >= at - 1) this.#open(step);
      else this.#slice(step, at, left - seconds);
    });
  }

  /** @param {GiveUp} end */
  #giveUp(end) {
    this.#phase = "ended";
    this.#end = end;
    const name = end.code === null ? end.reason : (CLOSE_RULES.get(end.code)?.name ?? `CLOSED_${end.code}`);
    const remedy = this.#remedy(end);
    const { reason, code } = end;
    if (reason === "CLOSE_CODE") this._ended(name, "the server ended the session");
    this.#show({ state: "gaveUp", reason, code, name, remedy, detail: this.#complaint });
    if (code === 4502) {
      this.#tokenRefusals += 1;
      this._emit("tokenNeeded", { code });
    }
  }

  /** @param {GiveUp} end @returns {Remedy} */
  #remedy(end) {
    return (end.code === null ? null : REMEDIES.get(end.code)) ?? "USER";
  }

  /** Forget the socket and everything that waits for it. @param {number} code @param {string} reason */
  #letGo(code, reason) {
    const ws = this.#ws;
    this.#ws = null;
    this.#turn += 1;
    for (const name of [...this.#timers.keys()]) if (!name.startsWith("_")) this._stopTimer(name);
    if (ws === null) return;
    ws.onopen = ws.onmessage = ws.onerror = ws.onclose = null;
    if (ws.readyState <= 1) ws.close(code, reason);
  }

  // -- the browser's hints -----------------------------------------------------------------------------------

  /** @param {boolean} on */
  #listen(on) {
    if (this.#listening === on) return;
    this.#listening = on;
    const method = on ? "addEventListener" : "removeEventListener";
    for (const type of ["online", "offline", "pagehide", "pageshow"]) this.#window?.[method](type, this.#onHint);
    this._document?.[method]("visibilitychange", this.#onHint);
    this.#hiddenAt = this._document?.visibilityState === "hidden" ? this.now() : null;
  }

  #onHint = (/** @type {Event} */ event) => {
    const persisted = /** @type {PageTransitionEvent} */ (event).persisted === true;
    if (event.type === "online") this.#cameOnline();
    else if (event.type === "offline") this.#wentOffline();
    else if (event.type === "visibilitychange") this.#visibilityChanged();
    else if (event.type === "pagehide") this.#hidden(persisted);
    else if (persisted) this.#shownAgain();
  };

  #noNetwork() {
    this.#offline ||= this.#navigator?.onLine === false;
    return this.#offline;
  }

  #wentOffline() {
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
    this.#letGo(1000, "");
    this.#phase = "parked";
    this.#parked = parked;
    this.#show({ state: "offline" });
    const { policy } = this.#comeback;
    const seconds = Math.max(...policy.backoffSeconds) * (1 + policy.jitter * (2 * this.#random() - 1));
    this._timer("park", seconds, () => this.#open(this.#pendingStep()));
  }

  #cameOnline() {
    this.#offline = false;
    if (this.#phase === "connected") {
      this.#probe(); // the socket may be of the network that was; an answer shows "connected" again
    } else if (this.#phase === "opening" && this.#step !== null) {
      const { attempt, maxAttempts } = this.#step;
      this.#show({ state: "connecting", attempt, maxAttempts, migrating: this.#comeback.migrating });
    } else this.#hurry();
  }

  /** Something has changed for the better: try soon. All of a hall see it in the same moment, so not at once. */
  #hurry() {
    const { policy } = this.#comeback;
    const soon = policy.jitter * policy.backoffSeconds[0] * this.#random();
    if (this.#phase === "waiting" && this.#step !== null) {
      const at = this.#status.state === "waiting" ? this.#status.at : 0;
      if (at - this.now() > soon * 1000) this.#wait({ ...this.#step, seconds: soon });
    } else if (this.#phase === "parked" && this.#parked !== null) {
      const parked = this.#parked;
      this.#parked = null;
      if ("step" in parked) this.#wait({ ...parked.step, seconds: soon });
      else this.#goOn(parked.happened);
    } else if (this.#phase === "ended" && this.#end !== null && this.#end.reason !== "CLOSE_CODE") {
      // Attempts that were used up while there was no network: what has changed is worth one more.
      const since = (this.now() - this.#triedAt) / 1000;
      if (since < 0 || since >= policy.backoffSeconds[0]) this.#onceMore(soon);
    }
  }

  #visibilityChanged() {
    if (this._document?.visibilityState === "hidden") {
      this.#hiddenAt = this.now();
      return;
    }
    const hiddenAt = this.#hiddenAt;
    this.#hiddenAt = null;
    if (hiddenAt === null || this.now() - hiddenAt < LONG_HIDDEN_SECONDS * 1000) return;
    if (this.#phase === "connected") this.#probe();
    else if (!this.#noNetwork()) this.#hurry();
  }

  /** @param {boolean} persisted whether the page may come back from the bfcache */
  #hidden(persisted) {
    this.#identity.release();
    if (!persisted || this.#phase === "ended" || this.#phase === "idle") return;
    // A page that lies in the bfcache can answer nobody: leave now, instead of when the server notices.
    const connected = this.#phase === "connected";
    const lasted = this.#lasted();
    this.#letGo(1000, "");
    if (connected) {
      this.#lostAt = this.now();
      this._lost();
    }
    const step = this.#step;
    this.#parked ??= connected || step === null ? { happened: { kind: "lost", code: null, lasted } } : { step };
    this.#phase = "parked";
  }

  #shownAgain() {
    if (this.#phase === "idle") return;
    this.#identity.claim();
    if (this.#phase !== "parked") return;
    this.#offline = this.#navigator?.onLine === false;
    this.#open(this.#pendingStep());
  }

  // -- telling -----------------------------------------------------------------------------------------------

  #showConnected() {
    this.#show({ state: "connected", serverId: String(this.welcome?.serverId ?? "") });
  }

  /** @param {Status} status */
  #show(status) {
    if (JSON.stringify(status) === JSON.stringify(this.#status)) return;
    this.#status = status;
    this._emit("status", status);
  }
}

/**
 * A message of a proctor: shown until `confirmNotice` is called.
 * @typedef {{actionId: string, text: string, by: string, sentAt: string, confirmedAt: string | null}} Notice
 */

/**
 * An examinee's connection. More events: `state` (the data of `session_state`), `mobileSync` (its view, when it
 * changed), `notice` (a `Notice`, once for each message of a proctor, also when it is told again after a reconnect).
 */
export class ExamineeClient extends Client {
  /** @param {ClientOptions} options */
  constructor(options) {
    super(options);
    /** The latest `session_state`. @type {Record<string, any> | null} */
    this.state = null;
    /** The latest that was told of the mobile sync stage, by version. @type {Record<string, any>} */
    this.mobileSync = { status: "NONE", version: 0 };
    /** @type {Map<string, Notice>} by actionId, in the order in which they came */
    this.notices = new Map();
    /** @type {Set<string>} */
    this._confirmed = new Set();
  }

  /** Enter the mobile sync stage; `mobileSync` with WAITING and its deadline follows. Returns whether it was sent. */
  enterMobileSync() {
    return this.send("mobile_sync_wait");
  }

  /**
   * The examinee has read a message. Without a connection it is told as soon as there is one again.
   * @param {string} actionId
   */
  confirmNotice(actionId) {
    this._confirmed.add(actionId);
    const notice = this.notices.get(actionId);
    if (notice) notice.confirmedAt ??= new Date(this.now()).toISOString();
    this.send("notice_confirm", { actionId });
  }

  /** @protected @param {Message} message */
  _takeIn({ type, data }) {
    if (type === "session_state") {
      this.state = data;
      if (isObject(data.mobileSync)) this._setMobileSync(data.mobileSync);
      const told = Array.isArray(data.notices) ? data.notices : [];
      for (const one of told) this._setNotice(one);
      this._emit("state", data);
    } else if (type === "mobile_sync_status" || type === "mobile_sync_completed") {
      this._setMobileSync({ imageUrl: data.captureInfo?.imageUrl, ...data });
    } else if (type === "notice") this._setNotice(data);
    return {};
  }

  /** @param {Record<string, any>} view */
  _setMobileSync(view) {
    const version = view.version ?? 0;
    if (version < this.mobileSync.version) return;
    const changed = version > this.mobileSync.version;
    this.mobileSync = { ...view, version };
    if (changed) this._emit("mobileSync", this.mobileSync);
  }

  /** @param {Record<string, any>} data */
  _setNotice(data) {
    const { actionId } = data;
    if (typeof actionId !== "string" || typeof data.text !== "string") return;
    if (this._confirmed.has(actionId)) {
      if (!data.confirmedAt) this.send("notice_confirm", { actionId }); // said on a connection that did not carry it
      return;
    }
    const known = this.notices.get(actionId);
    if (known) {
      known.confirmedAt ??= data.confirmedAt ?? null;
      return;
    }
    /** @type {Notice} */
    const notice = {
      actionId,
      text: data.text,
      by: String(data.by ?? ""),
      sentAt: String(data.sentAt ?? data.timestamp ?? ""),
      confirmedAt: data.confirmedAt ?? null,
    };
    this.notices.set(actionId, notice);
    this._emit("notice", notice);
  }
}

/**
 * A proctor's connection; `view` is the plan as told so far.
 *
 * More events: `change` (`{changed, gone}`: sets of examineeIds, once a frame of the screen; after a reconnect the
 * snapshot tells exactly what happened meanwhile), `fresh` (`{fresh}`: whether the view is the plan as it is now, or
 * as it was before the connection was lost). `message` has the view's `verdict`: an event with APPLIED is new.
 */
export class ProctorClient extends Client {
  /** @param {ClientOptions} options */
  constructor(options) {
    super(options);
    this.view = new PlanView();
    /** A whole snapshot has come over the connection that stands. */
    this.fresh = false;
    /** @type {Map<string, {type: string, data: Record<string, unknown>,
     *   resolve: (answer: Record<string, any>) => void, reject: (error: Error) => void}>} */
    this._requests = new Map();
    /** @type {number | null} */
    this._frame = null;
    this._flushing = false;
  }

  /**
   * Let an examinee in again. Resolves with `accepted` once that is in the log; its effect follows as an event.
   * An action that gets no answer because the connection broke is sent again with the same requestId on the next one:
   * it has one effect. Rejects with `RequestFailed`.
   * @param {string} examineeId
   * @param {{requestId?: string}} [options]
   */
  readmit(examineeId, { requestId } = {}) {
    return this._request("readmit", { examineeId }, requestId);
  }

  /**
   * Shut an examinee out, until readmitted.
   * @param {string} examineeId
   * @param {{reason?: string, requestId?: string}} [options]
   */
  remove(examineeId, { reason, requestId } = {}) {
    return this._request("remove", { examineeId, reason }, requestId);
  }

  /**
   * Give an examinee `seconds` (10 to 3600) more for the picture.
   * @param {string} examineeId
   * @param {number} seconds
   * @param {{requestId?: string}} [options]
   */
  extend(examineeId, seconds, { requestId } = {}) {
    return this._request("extend_mobile_sync", { examineeId, seconds }, requestId);
  }

  /**
   * Show an examinee a message (at most 1000 characters).
   * @param {string} examineeId
   * @param {string} text
   * @param {{requestId?: string}} [options]
   */
  notify(examineeId, text, { requestId } = {}) {
    return this._request("notify", { examineeId, text }, requestId);
  }

  /**
   * @param {string} type
   * @param {Record<string, unknown>} data
   * @param {string} [given]
   * @returns {Promise<Record<string, any>>}
   */
  _request(type, data, given) {
    const requestId = given ?? this._randomId();
    return new Promise((resolve, reject) => {
      const request = { type, data: { ...data, requestId }, resolve, reject };
      this._requests.set(requestId, request);
      this._timer(`_request ${requestId}`, REQUEST_SECONDS, () => {
        this._answer(requestId, new RequestFailed("TIMEOUT", "no answer; it may have had its effect", requestId));
      });
      this.send(type, request.data);
    });
  }

  /** @param {string} requestId @param {Record<string, any> | Error} answer */
  _answer(requestId, answer) {
    const request = this._requests.get(requestId);
    if (!request) return;
    this._requests.delete(requestId);
    this._stopTimer(`_request ${requestId}`);
    if (answer instanceof Error) request.reject(answer);
    else request.resolve(answer);
  }

  /** @protected */
  _welcomed() {
    for (const { type, data } of this._requests.values()) this.send(type, data);
  }

  /** @protected */
  _lost() {
    this._setFresh(false);
  }

  /** @protected @param {string} code @param {string} detail */
  _ended(code, detail) {
    this._setFresh(false);
    for (const id of [...this._requests.keys()]) this._answer(id, new RequestFailed(code, detail, id));
  }

  /** @param {boolean} fresh */
  _setFresh(fresh) {
    if (this.fresh === fresh) return;
    this.fresh = fresh;
    this._emit("fresh", { fresh });
  }

  /** @protected @param {Message} message */
  _takeIn(message) {
    const { type, data } = message;
    if (type === "accepted" && typeof data.requestId === "string") this._answer(data.requestId, data);
    else if (type === "error") this._refused(data);
    const verdict = this.view.apply(message);
    if (type === "plan_snapshot" && (data.part ?? 1) === (data.parts ?? 1)) this._setFresh(true);
    if (verdict === "APPLIED") this._soon();
    return { verdict };
  }

  /** @param {Record<string, any>} data of an `error` frame */
  _refused(data) {
    // An error that names no request answers the first of its type: a session handles its frames in their order.
    const first = [...this._requests].find(([, request]) => request.type === data.requestType)?.[0];
    const id = typeof data.requestId === "string" ? data.requestId : first;
    if (id !== undefined) {
      this._answer(id, new RequestFailed(String(data.code), String(data.message), id, data.field ?? null));
    }
  }

  /** Tell of changes with the next frame of the screen; a hidden page has none, so a timer stands behind. */
  _soon() {
    if (this._flushing) return;
    this._flushing = true;
    const raf = globalThis.requestAnimationFrame;
    if (raf && this._document?.visibilityState !== "hidden") this._frame = raf(() => this._flush());
    this._timer("_flush", this._frame === null ? 0 : 0.25, () => this._flush());
  }

  _flush() {
    this._stopTimer("_flush");
    if (this._frame !== null) globalThis.cancelAnimationFrame(this._frame);
    this._frame = null;
    this._flushing = false;
    const changes = this.view.takeChanges();
    if (changes.changed.size || changes.gone.size) this._emit("change", changes);
  }
}

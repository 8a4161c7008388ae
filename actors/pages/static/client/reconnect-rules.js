// The rules by which a client of `examwire.v1` reconnects. Pure: no DOM, no timers, no WebSocket, no imports. The same as
// `protocol/close_codes.py` and `protocol/client/reconnect.py`: a test runs random sequences through both and compares.

export const SUBPROTOCOL = "examwire.v1";
/** Prefix of a second offered subprotocol that contains the token: a busy server can check it before the hello. */
export const TOKEN_SUBPROTOCOL = "examwire.token.";
/** The longest token in the handshake, whose headers are limited; a longer one is sent in the hello only. */
export const TOKEN_IN_HANDSHAKE = 4096;
export const CONNECT_PATH = "/v1/connect";

// -- close codes -------------------------------------------------------------------------------------------

/**
 * The meaning of a close code: a stable name, and whether the client reconnects.
 * @typedef {{name: string, reconnect: boolean}} CloseRule
 */

/** @type {ReadonlyMap<number, CloseRule>} */
export const CLOSE_RULES = new Map([
  [1000, { name: "NORMAL", reconnect: false }],
  [1001, { name: "GOING_AWAY", reconnect: true }],
  [1003, { name: "UNSUPPORTED_DATA", reconnect: false }],
  [1008, { name: "POLICY_VIOLATION", reconnect: false }],
  [1009, { name: "TOO_LARGE", reconnect: false }],
  [1011, { name: "INTERNAL_ERROR", reconnect: true }],
  [1012, { name: "SERVICE_RESTART", reconnect: true }],
  [1013, { name: "TRY_AGAIN_LATER", reconnect: true }],
  [4000, { name: "PING_TIMEOUT", reconnect: true }],
  [4001, { name: "SLOW_CLIENT", reconnect: true }],
  [4002, { name: "SERVER_ISOLATED", reconnect: true }],
  [4003, { name: "SERVER_SUPERSEDED", reconnect: true }],
  [4004, { name: "NOT_READY", reconnect: true }],
  [4005, { name: "HELLO_TIMEOUT", reconnect: true }],
  [4006, { name: "MIGRATE", reconnect: true }],
  [4007, { name: "KICKED", reconnect: true }],
  [4009, { name: "TOO_OFTEN", reconnect: true }],
  [4010, { name: "TOKEN_NOT_YET_VALID", reconnect: true }],
  [4501, { name: "INVALID_HELLO", reconnect: false }],
  [4502, { name: "INVALID_TOKEN", reconnect: false }],
  [4503, { name: "REPLACED", reconnect: false }],
  [4504, { name: "RECONNECT_LIMIT_EXCEEDED", reconnect: false }],
  [4505, { name: "TOO_MANY_ERRORS", reconnect: false }],
  [4506, { name: "FORBIDDEN", reconnect: false }],
  [4508, { name: "REMOVED", reconnect: false }],
  [4509, { name: "EXAM_OVER", reconnect: false }],
]);

/**
 * Whether a client reconnects after `code` (`null`: the connection broke without a close code).
 * @param {number | null} code
 * @returns {boolean}
 */
export function mayReconnect(code) {
  if (code === null) return true;
  return CLOSE_RULES.get(code)?.reconnect ?? !(code >= 4500 && code <= 4999);
}

// -- reconnecting ------------------------------------------------------------------------------------------

/** After a connection that lasted less (seconds) the client waits before it reconnects: something may be wrong. */
export const STABLE_SECONDS = 1;
/** After so many heartbeat intervals without a frame from the server the connection counts as lost. */
export const SILENT_INTERVALS = 2.5;
/** A client that was told "later" so many times in a row gives up. */
export const MAX_POSTPONED = 100;
/** Clients that migrate in the same moment spread over so many seconds. */
export const MIGRATE_SPREAD_SECONDS = 0.2;
/** The wait after an unreachable server is lengthened by up to this share (see `spread`). */
export const CROWD_SHARE = 0.5;

/**
 * The reconnect policy: attempt 1 almost at once, attempt k+1 after `backoffSeconds[k-1]` × (1 ± `jitter`).
 * `shutOut` false: used-up attempts refuse nobody, and the client goes on with the last step.
 * @typedef {{maxAttempts: number, backoffSeconds: readonly number[], jitter: number, shutOut?: boolean | null}} Policy
 */

/**
 * The state of reconnecting. `url`: the server of the last welcome, or the first to try. `attempt`: attempts since the last
 * welcome. `position`: the index in `ring` of the URL tried last. `postponed`: how many times in a row the client was told
 * "later". `migrating`: the server of the last welcome is drained and comes last.
 * @typedef {{url: string, endpoints: readonly string[], policy: Policy, attempt: number, position: number,
 *   postponed: number, migrating: boolean}} Comeback
 */

/**
 * `lost`: the connection ended with `code` (`null`: without one), `lasted` seconds after its welcome (0: before it).
 * `refused`: the handshake was answered with an HTTP `status`; `retryAfter` in seconds (a browser cannot see either).
 * `unreachable`: no connection, no answer in time, or an answer that is not of a socket server.
 * @typedef {{kind: "lost", code: number | null, lasted: number}
 *   | {kind: "refused", status: number, retryAfter: number | null}
 *   | {kind: "unreachable"}} Happened
 */

/**
 * Wait `seconds`, then try `url`: attempt `attempt` of `maxAttempts`.
 * @typedef {{kind: "wait", seconds: number, url: string, attempt: number, maxAttempts: number}} Wait
 */

/**
 * Do not reconnect. `code` and `status`: the close code or HTTP status that caused it, if any. `BLOCKED` exists only here,
 * not in Python: the page's Content-Security-Policy, fixed when it was loaded, refuses the servers that are left.
 * @typedef {{kind: "giveUp", reason: "CLOSE_CODE" | "HTTP_STATUS" | "ATTEMPTS_USED_UP" | "ALWAYS_BUSY" | "BLOCKED",
 *   code: number | null, status: number | null}} GiveUp
 */

/** The policy until the first `welcome`: the defaults of the settings. @type {Policy} */
export const DEFAULT_POLICY = Object.freeze({
  maxAttempts: 5,
  backoffSeconds: Object.freeze([5, 10, 20, 40, 60]),
  jitter: 0.3,
});

const NEXT_ENDPOINT = new Set([1001, 1012, 4002, 4004]);
const AFTER_BACKOFF = new Set([1001, 1011, 4003, 4007, 4009]);
const LATER = new Set([429, 503]);
const MIGRATE = 4006;
const TRY_AGAIN_LATER = 1013;

/**
 * The subprotocols to offer with a token: the second one shows it to the server before the hello.
 * @param {string} token
 */
export function subprotocols(token) {
  const fits = typeof token === "string" && token.length <= TOKEN_IN_HANDSHAKE && /^[A-Za-z0-9._~-]+$/.test(token);
  return fits ? [SUBPROTOCOL, TOKEN_SUBPROTOCOL + token] : [SUBPROTOCOL];
}

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
 * The state of a client that was never welcomed. `urls`: socket servers in the order to try them.
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
  const endpoints = state.endpoints.filter((url) => url !== state.url);
  return state.migrating ? [...endpoints, state.url] : [state.url, ...endpoints];
}

/**
 * The state after a `welcome` from the server at `url`: no attempts, and the policy of that server.
 * @param {string} url
 * @param {readonly string[]} endpoints
 * @param {Policy} policy
 * @returns {Comeback}
 */
export function welcomed(url, endpoints, policy) {
  // A policy without steps would be a loop without a pause.
  const steps = policy.backoffSeconds.length ? policy.backoffSeconds : DEFAULT_POLICY.backoffSeconds;
  const checkedPolicy = { ...policy, backoffSeconds: steps };
  return { url, endpoints: named(endpoints), policy: checkedPolicy, attempt: 0, position: 0, postponed: 0, migrating: false };
}

/**
 * The state after a `migrate` frame: these servers are next; if it names none, the known ones.
 * @param {Comeback} state
 * @param {readonly string[]} endpoints
 * @returns {Comeback}
 */
export function sentAway(state, endpoints) {
  const targets = named(endpoints);
  return { ...state, endpoints: targets.length ? targets : state.endpoints, migrating: true, position: -1 };
}

/**
 * The state without `url`, to which the page may not connect: the server after it is next. `null`: none is left.
 * @param {Comeback} state
 * @param {string} url
 * @returns {Comeback | null}
 */
export function without(state, url) {
  const urls = ring(state);
  const removed = urls.indexOf(url);
  if (removed < 0) return state;
  const rest = urls.filter((candidate) => candidate !== url);
  if (!rest.length) return null;
  const current = state.position < 0 ? state.position : state.position % urls.length;
  const position = current > removed ? current - 1 : current;
  const endpoints = state.migrating ? rest.slice(0, -1) : rest.slice(1);
  return { ...state, url: state.migrating ? rest[rest.length - 1] : rest[0], endpoints, position };
}

/**
 * What to do next: the new state, and a wait or the end. `draw`: a random number in [-1, 1) for the jitter.
 * @param {Comeback} state
 * @param {Happened} happened
 * @param {number} draw
 * @returns {[Comeback, Wait | GiveUp]}
 */
export function after(state, happened, draw) {
  if (happened.kind === "lost") {
    if (!mayReconnect(happened.code)) return [state, giveUp("CLOSE_CODE", happened.code)];
    // The server sent `migrate`, and nothing was tried since.
    const leaving = state.migrating && !state.attempt && !state.postponed;
    if (happened.code === MIGRATE || leaving) return moving(state, draw);
    if (happened.code === TRY_AGAIN_LATER) return postponed(state, { ...happened, retryAfter: null }, draw);
  }
  if (happened.kind === "refused") {
    if (LATER.has(happened.status)) return postponed(state, happened, draw);
    if (happened.status < 500) return [state, giveUp("HTTP_STATUS", null, happened.status)];
  }
  const following = state.attempt + 1;
  if (following > state.policy.maxAttempts && state.policy.shutOut !== false) {
    return [state, giveUp("ATTEMPTS_USED_UP", happened.kind === "lost" ? happened.code : null)];
  }
  const attempt = Math.min(following, state.policy.maxAttempts);
  const position = state.position + (movesOn(state, happened) ? 1 : 0);
  const moved = { ...state, attempt, postponed: 0, position };
  return [moved, wait(moved, attempt, secondsBefore(state, following, happened, draw))];
}

/** @param {Comeback} state @param {number} draw @returns {[Comeback, Wait | GiveUp]} */
function moving(state, draw) {
  if (state.postponed >= MAX_POSTPONED) return [state, giveUp("ALWAYS_BUSY", MIGRATE)];
  // Several servers in a row sent `migrate` before a welcome: that uses up no attempt, but the client waits.
  const atOnce = !state.attempt && !state.postponed;
  const leaving = state.migrating ? state : sentAway(state, []);
  const moved = { ...leaving, postponed: state.postponed + 1, position: leaving.position + 1 };
  const seconds = atOnce ? (MIGRATE_SPREAD_SECONDS * (1 + draw)) / 2 : stepOf(state.policy, 0, draw);
  return [moved, wait(moved, Math.max(1, state.attempt), seconds)];
}

/**
 * @param {Comeback} state
 * @param {{status?: number, code?: number | null, retryAfter: number | null}} refused
 * @param {number} draw
 * @returns {[Comeback, Wait | GiveUp]}
 */
function postponed(state, refused, draw) {
  // "Later" uses up no attempt: a hall that reconnects at once must not be shut out because of its size.
  if (state.postponed >= MAX_POSTPONED) return [state, giveUp("ALWAYS_BUSY", refused.code ?? null, refused.status ?? null)];
  const minimum = refused.retryAfter ?? state.policy.backoffSeconds[0];
  const seconds = minimum + (state.policy.jitter * Math.max(minimum, 1) * (1 + draw)) / 2;
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

/** The URL of `ring` that is next. @param {Comeback} state */
export function urlAt(state) {
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
 * Seconds after a loss from which the server refuses the client (RECONNECT_LIMIT_EXCEEDED).
 * @param {Policy} policy
 */
export function ladderSeconds(policy) {
  let total = 0;
  for (let k = 0; k < policy.maxAttempts; k += 1) total += stepOf(policy, k, 0);
  return total;
}

/**
 * The longest wait, in seconds, after which all further attempts still begin before the server refuses the client.
 * @param {Comeback} state
 * @param {number} elapsed since the loss
 */
export function roomFor(state, elapsed) {
  if (state.policy.shutOut === false) return Infinity;
  let later = 0;
  for (let k = state.attempt + 1; k <= state.policy.maxAttempts; k += 1) later += stepOf(state.policy, k - 2, 1);
  return ladderSeconds(state.policy) - elapsed - later;
}

/**
 * Lengthen the wait after an unreachable server, so that a crowd spreads. A proxy or an overloaded server refuses handshakes
 * with 503 and Retry-After, but a browser shows neither to the page: to the client the server is unreachable, which uses up
 * an attempt. (A busy socket server closes a browser's connection with 1013 instead.) Each wait grows by up to half of
 * itself, so that a hall is not shut out because of its size, as far as `room` allows (see `roomFor`; `Infinity`: no limit).
 * @param {Wait} step
 * @param {number} share in [0, 1), drawn by the caller
 * @param {number} room
 * @returns {Wait}
 */
export function spread(step, share, room) {
  const longer = Math.min(step.seconds * (1 + CROWD_SHARE * share), room - 1);
  return { ...step, seconds: Math.max(step.seconds, longer) };
}

// -- the status for the page -------------------------------------------------------------------------------

/**
 * What an application can do after the client gave up. `USER`: a person may try again (`tryNow(event)`). `TOKEN`: another
 * token is needed (`setToken`). `RELOAD`: the page must be reloaded; its policy refuses the servers that are up. `NONE`:
 * nothing helps, the client has a fault.
 * @typedef {"USER" | "TOKEN" | "RELOAD" | "NONE"} Remedy
 */

/** @type {ReadonlyMap<number, Remedy>} */
const REMEDIES = new Map([
  [1003, "NONE"],
  [1008, "NONE"],
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
 * - `gaveUp`: the client does not reconnect; `name` is the name of the close `code`, `detail` the server's message.
 *
 * `migrating`: the client moves to another server, which is not a loss: a page should not warn about it.
 * @typedef {{state: "idle"}
 *   | {state: "connecting", attempt: number, maxAttempts: number, migrating: boolean}
 *   | {state: "connected", serverId: string}
 *   | {state: "waiting", seconds: number, at: number, attempt: number, maxAttempts: number, left: number,
 *      migrating: boolean}
 *   | {state: "offline"}
 *   | {state: "gaveUp", reason: GiveUp["reason"], code: number | null, name: string, remedy: Remedy,
 *      detail: string | null}} Status
 */

/** @param {GiveUp} end @returns {Remedy} */
export function remedyOf(end) {
  if (end.reason === "BLOCKED") return "RELOAD";
  return (end.code === null ? null : REMEDIES.get(end.code)) ?? "USER";
}

/** The name of an end: that of its close code, else its reason. @param {GiveUp} end */
export function nameOf(end) {
  return end.code === null ? end.reason : (CLOSE_RULES.get(end.code)?.name ?? `CLOSED_${end.code}`);
}

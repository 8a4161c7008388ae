// The rules of one picture's upload. Pure: no DOM, no network, no clock. `mobile/upload-driver.js` runs them.
//
// A picture is sent until the server has stored it (201), refuses it for good (4xx), or the deadline has passed. The server
// recognises a repeated upload, so a repetition is harmless.

/** Seconds before the second, third, … try; the last one repeats. Short, because the mobile step lasts two minutes. */
export const BACKOFF_SECONDS = [1, 2, 4, 8, 15];
/** Each wait is spread by this share: a room full of phones shares one access point. */
export const JITTER = 0.25;
/** A last try begins at least so long before the deadline; for the server the time of arrival counts. */
export const LAST_TRY_SECONDS = 3;

/**
 * What is known about the upload. Times are milliseconds since the epoch, by the server's clock.
 *
 * - `ready`: to be sent at `nextAt`
 * - `sending`: on its way
 * - `stored`: the server has it, `record` is its answer
 * - `late`: the deadline has passed; the picture is kept, because a proctor may give more time (`resume`)
 * - `refused`: the server refuses it for good; `cause` says why
 *
 * @typedef {object} Upload
 * @property {"ready"|"sending"|"stored"|"late"|"refused"} state
 * @property {number} tries tries that were begun
 * @property {number} nextAt
 * @property {number|null} deadline
 * @property {Cause|null} cause of the latest failure
 * @property {string|null} detail the server's message, for the log and for support
 * @property {object|null} record
 */

/**
 * Why a try failed, as a stable name. The first six are tried again.
 *
 * @typedef {"OFFLINE"|"NETWORK"|"STALLED"|"BUSY"|"SERVER"|"STORE"|"TOKEN"|"REMOVED"|"TOO_LARGE"|"NOT_A_PICTURE"|"LATE"
 *   |"ALREADY_STORED"|"REJECTED"|"REFUSED"} Cause
 */

/**
 * How a try ended.
 *
 * @typedef {{kind: "answer", status: number, retryAfter?: number|null, body?: any}
 *   | {kind: "network", stalled?: boolean, offline?: boolean}} Result
 */

/**
 * Return the upload of a new picture, which is sent now.
 *
 * @param {number} now
 * @param {number|null} deadline `null`: not known, the server decides
 * @returns {Upload}
 */
export function begin(now, deadline) {
  return { state: "ready", tries: 0, nextAt: now, deadline, cause: null, detail: null, record: null };
}

/** Return the upload after a try has begun. @param {Upload} upload @returns {Upload} */
export function sending(upload) {
  return { ...upload, state: "sending", tries: upload.tries + 1 };
}

/**
 * Return the upload after a try has ended.
 *
 * @param {Upload} upload
 * @param {Result} result
 * @param {number} now
 * @param {number} draw a random number in [-1, 1)
 * @returns {Upload}
 */
export function after(upload, result, now, draw) {
  if (result.kind === "answer" && (result.status === 201 || result.status === 200)) {
    return { ...upload, state: "stored", cause: null, detail: null, record: result.body ?? null };
  }
  const cause = causeOf(result);
  const detail = result.kind === "answer" ? (result.body?.detail ?? null) : null;
  const failed = { ...upload, cause, detail };
  if (cause === "LATE") return { ...failed, state: "late" };
  if (!isRetried(cause)) return { ...failed, state: "refused" };
  if (upload.deadline !== null && now >= upload.deadline) return { ...failed, state: "late" };
  return { ...failed, state: "ready", nextAt: nextTry(upload, result, now, draw) };
}

/**
 * End a wait: the network is back, or the page is visible again. A wait that the server has asked for (`BUSY`) is kept.
 *
 * @param {Upload} upload
 * @param {number} now
 * @returns {Upload}
 */
export function hurry(upload, now) {
  return upload.state === "ready" && upload.cause !== "BUSY" ? { ...upload, nextAt: Math.min(upload.nextAt, now) } : upload;
}

/**
 * Try again, with a new deadline or token, or because a person asks for it.
 *
 * @param {Upload} upload
 * @param {number} now
 * @param {number|null} deadline
 * @returns {Upload}
 */
export function resume(upload, now, deadline) {
  if (upload.state === "sending" || upload.state === "stored") return { ...upload, deadline };
  return { ...upload, state: "ready", nextAt: now, deadline };
}

/**
 * Refuse an upload that waits for the proctor: the token has expired, so the wait would never end.
 *
 * @param {Upload} upload
 * @returns {Upload}
 */
export function expired(upload) {
  const waits = upload.state === "late" || (upload.state === "refused" && upload.cause === "REMOVED");
  return waits ? { ...upload, state: "refused", cause: "TOKEN", detail: null } : upload;
}

/**
 * Continue after a reload: repeat the try that was under way, for its result is unknown.
 *
 * @param {Upload} upload
 * @param {number} now
 * @returns {Upload}
 */
export function restored(upload, now) {
  return upload.state === "sending" || upload.state === "ready" ? { ...upload, state: "ready", nextAt: now } : upload;
}

/**
 * Whether the server would accept the picture now: there is more time, or the examinee was let in again.
 *
 * @param {Upload} upload
 * @param {{status: string, removed: boolean, deadline: number|null}} stage
 * @param {number} now
 * @returns {boolean}
 */
export function isWelcome(upload, stage, now) {
  if (stage.removed) return false;
  if (upload.state === "refused") return upload.cause === "REMOVED";
  const open = stage.status === "WAITING" || stage.status === "FAILED";
  return upload.state === "late" && open && stage.deadline !== null && stage.deadline > now;
}

/** Whether another try may succeed without anybody doing anything. @param {Cause} cause */
export function isRetried(cause) {
  return ["OFFLINE", "NETWORK", "STALLED", "BUSY", "SERVER", "STORE"].includes(cause);
}

/**
 * Return why a try failed, by RFC 9110's status and, where it says more, the problem document's `code`.
 *
 * @param {Result} result
 * @returns {Cause}
 */
export function causeOf(result) {
  if (result.kind === "network") return result.offline ? "OFFLINE" : result.stalled ? "STALLED" : "NETWORK";
  const { status } = result;
  if (status === 408) return "STALLED";
  if (status === 425 || status === 429) return "BUSY";
  if (status === 507) return "STORE";
  if (status >= 500) return "SERVER";
  if (status === 403 && result.body?.code === "REMOVED") return "REMOVED";
  if (status === 401 || status === 403) return "TOKEN";
  if (status === 409 && ["ALREADY_STORED", "REJECTED"].includes(result.body?.code)) return result.body.code;
  if (status === 409) return "LATE";
  if (status === 413) return "TOO_LARGE";
  if (status === 415) return "NOT_A_PICTURE";
  return "REFUSED";
}

/**
 * Return `Retry-After` (RFC 9110, 10.2.3: seconds or an HTTP date) as seconds from `now`; `null`: not given or not readable.
 *
 * @param {string|null} header
 * @param {number} now
 * @returns {number|null}
 */
export function retryAfterSeconds(header, now) {
  if (header === null) return null;
  const text = header.trim();
  if (/^\d+$/.test(text)) return Number(text);
  const moment = Date.parse(text);
  return Number.isNaN(moment) ? null : Math.max(0, (moment - now) / 1000);
}

/**
 * Return the time of the next try.
 * @param {Upload} upload
 * @param {Result} result
 * @param {number} now
 * @param {number} draw
 */
function nextTry(upload, result, now, draw) {
  const step = BACKOFF_SECONDS[Math.min(Math.max(upload.tries, 1), BACKOFF_SECONDS.length) - 1];
  const retryAfter = result.kind === "answer" ? (result.retryAfter ?? 0) : 0;
  // Spread the tries after Retry-After, never before it.
  const seconds = retryAfter >= step ? retryAfter + (step * JITTER * (1 + draw)) / 2 : Math.max(retryAfter, step * (1 + JITTER * draw));
  const wanted = now + seconds * 1000;
  if (upload.deadline === null || retryAfter >= step) return wanted;
  // Shorten a wait that would leave no time for a last try before the deadline.
  const last = upload.deadline - LAST_TRY_SECONDS * 1000;
  return wanted > last && last > now ? last : wanted;
}

/**
 * The short code that connects a phone to an examinee: reading what was typed, formatting it, redeeming it.
 */

import { latinKeys } from "../common/korean-keys.js";

/** The number of characters of a code; case and separators do not matter. */
export const CODE_LENGTH = 8;

/**
 * Read a code from what was typed or pasted (also a whole link); `null`: there is no code in it. Full-width letters, and
 * Korean ones that the same keys type, are understood, as by the server (protocol/access/phone_codes.py).
 * @param {string} typed
 * @returns {string | null}
 */
export function codeOf(typed) {
  const linked = /#(?:.*&)?code=([^&]*)/.exec(typed);
  const keys = latinKeys(linked ? linked[1] : typed).replace(/[^\p{L}\p{M}\p{N}]|ー/gu, "").toUpperCase();
  return /^[A-Z0-9]+$/.test(keys) && keys.length === CODE_LENGTH ? keys : null;
}

/** Format a code for people: "ABCD-EFGH". @param {string} code */
export function spaced(code) {
  return `${code.slice(0, CODE_LENGTH / 2)}-${code.slice(CODE_LENGTH / 2)}`;
}

/**
 * What a phone gets for its code. `deadline`: ms since the epoch, `null`: none is known.
 * `offset`: how much the server's clock is ahead of this one, in ms. `challenge`: what the picture must show.
 * `rejected`: the picture that a proctor has rejected, so that another one is waited for.
 * @typedef {{captureId: string, reason: string}} Rejected
 * @typedef {{token: string, planId: string, examineeId: string, deadline: number | null, offset: number,
 *   challenge?: string | null, rejected?: Rejected | null}} Pass
 */

/**
 * Why there is no pass. `UNKNOWN`: no such code, or it was used up. `EXPIRED`: it is no longer valid. `BUSY`: too many
 * wrong codes were tried, by this phone or others; `retryAfter` in seconds. `NETWORK`, `SERVER`: try again. `REMOVED`: a
 * proctor has removed the examinee. `OTHER_DEVICE`: another device has redeemed it. `USED_UP`: the picture is there.
 * `REFUSED`: the server says why.
 * @typedef {{kind: "UNKNOWN" | "EXPIRED" | "OTHER_DEVICE" | "USED_UP" | "BUSY" | "NETWORK" | "SERVER" | "REMOVED" | "REFUSED", retryAfter: number,
 *   detail: string | null}} NoPass
 */

/** After so many seconds without an answer the network counts as failed. */
const ANSWER_SECONDS = 15;

/**
 * Redeem a code for this device, to which it is bound from then on: `POST /v1/phone-codes/{code}?deviceId`.
 * @param {string} code
 * @param {string} deviceId
 * @param {typeof fetch} [get] for tests
 * @returns {Promise<{pass: Pass} | {failure: NoPass}>}
 */
export async function redeem(code, deviceId, get = fetch) {
  let response;
  let body;
  try {
    const signal = AbortSignal.timeout?.(ANSWER_SECONDS * 1000);
    const query = new URLSearchParams({ deviceId });
    response = await get(`/v1/phone-codes/${encodeURIComponent(code)}?${query}`, { method: "POST", cache: "no-store", signal });
    body = await response.json();
  } catch {
    // No answer, or one that is not the server's (a captive portal): the network has failed.
    return { failure: { kind: "NETWORK", retryAfter: 0, detail: null } };
  }
  if (response.ok) {
    const { token, planId, examineeId, deadline } = body;
    return { pass: { token, planId, examineeId, ...timesOf(deadline, body.secondsLeft, Date.now()), ...askedOf(body) } };
  }
  const retryAfter = Number(response.headers.get("Retry-After"));
  return {
    failure: {
      kind: failureOf(response.status, body?.code),
      retryAfter: Number.isFinite(retryAfter) && retryAfter > 0 ? retryAfter : 5,
      detail: body?.detail ?? null,
    },
  };
}

/** Return the kind of a failure. @param {number} status @param {unknown} code of the problem document @returns {NoPass["kind"]} */
function failureOf(status, code) {
  if (status === 403 && code === "REMOVED") return "REMOVED";
  if (status === 404) return "UNKNOWN";
  if (status === 409 && code === "OTHER_DEVICE") return "OTHER_DEVICE";
  if (status === 410) return code === "USED_UP" ? "USED_UP" : "EXPIRED";
  if (status === 429) return "BUSY";
  return status >= 500 ? "SERVER" : "REFUSED";
}

/**
 * Read what is asked of the picture from an answer of the server.
 * @param {{challenge?: unknown, review?: {captureId?: string, verdict?: string, reason?: string}}} body
 * @returns {{challenge: string | null, rejected: Rejected | null}}
 */
export function askedOf({ challenge, review }) {
  const rejected = review?.verdict === "rejected";
  return {
    challenge: typeof challenge === "string" ? challenge : null,
    rejected: rejected ? { captureId: review?.captureId ?? "", reason: review?.reason ?? "" } : null,
  };
}

/**
 * Read a time of the server, and how much its clock is ahead of ours. A difference below a second is not corrected: the
 * answer took that long to arrive.
 * @param {unknown} moment RFC 3339
 * @param {unknown} secondsLeft until then, when the server answered
 * @param {number} now ms since the epoch, by our clock
 * @returns {{deadline: number | null, offset: number}}
 */
export function timesOf(moment, secondsLeft, now) {
  const deadline = typeof moment === "string" ? Date.parse(moment) : Number.NaN;
  if (Number.isNaN(deadline)) return { deadline: null, offset: 0 };
  const offset = typeof secondsLeft === "number" ? deadline - secondsLeft * 1000 - now : 0;
  return { deadline, offset: Math.abs(offset) < 1000 ? 0 : offset };
}

/**
 * The short code that joins a phone to an examinee: how it is typed, where it stands in the address, redeeming it.
 */

/** So many characters make a code; case and whatever people put between them do not matter. */
export const CODE_LENGTH = 8;

/**
 * A code as the server knows it, from what was typed or pasted (a whole link will do too); `null`: it is none.
 * @param {string} typed
 * @returns {string | null}
 */
export function codeOf(typed) {
  const linked = /#(?:.*&)?code=([^&]*)/.exec(typed);
  const bare = (linked ? linked[1] : typed).toUpperCase().replace(/[^A-Z0-9]/g, "");
  return bare.length === CODE_LENGTH ? bare : null;
}

/** A code as people read it: "ABCD-EFGH". @param {string} code */
export function spaced(code) {
  return `${code.slice(0, CODE_LENGTH / 2)}-${code.slice(CODE_LENGTH / 2)}`;
}

/**
 * What a phone may do after its code was redeemed. `deadline`: ms since the epoch, `null`: none is known.
 * `offset`: how much the server's clock is ahead of this one, in ms (to the second, from the `Date` of the answer).
 * @typedef {{token: string, planId: string, examineeId: string, deadline: number | null, offset: number}} Pass
 */

/**
 * Why there is no pass. `UNKNOWN`: no such code, or it was used up. `EXPIRED`: its time is over. `BUSY`: too many codes
 * were tried from this network; `retryAfter` in seconds. `NETWORK`, `SERVER`: try again. `REFUSED`: the server says why.
 * @typedef {{kind: "UNKNOWN" | "EXPIRED" | "BUSY" | "NETWORK" | "SERVER" | "REFUSED", retryAfter: number,
 *   detail: string | null}} NoPass
 */

/**
 * Redeem a code: `POST /v1/phone-codes/{code}`.
 * @param {string} code
 * @param {typeof fetch} [get] for tests
 * @returns {Promise<{pass: Pass} | {failure: NoPass}>}
 */
export async function redeem(code, get = fetch) {
  let response;
  let body;
  try {
    response = await get(`/v1/phone-codes/${encodeURIComponent(code)}`, { method: "POST", cache: "no-store" });
    body = await response.json();
  } catch {
    // No answer, or one that is none (a captive portal): both are the network.
    return { failure: { kind: "NETWORK", retryAfter: 0, detail: null } };
  }
  const now = Date.now();
  if (response.ok) {
    const { token, planId, examineeId, deadline } = body;
    return { pass: { token, planId, examineeId, deadline: momentOf(deadline), offset: offsetOf(response, now) } };
  }
  const asked = Number(response.headers.get("Retry-After"));
  return {
    failure: {
      kind: failureOf(response.status),
      retryAfter: Number.isFinite(asked) && asked > 0 ? asked : 5,
      detail: body?.detail ?? null,
    },
  };
}

/** @param {number} status @returns {NoPass["kind"]} */
function failureOf(status) {
  if (status === 404) return "UNKNOWN";
  if (status === 410) return "EXPIRED";
  if (status === 429) return "BUSY";
  return status >= 500 ? "SERVER" : "REFUSED";
}

/** RFC 3339 as ms, `null` where there is none. @param {unknown} text @returns {number | null} */
export function momentOf(text) {
  const moment = typeof text === "string" ? Date.parse(text) : Number.NaN;
  return Number.isNaN(moment) ? null : moment;
}

/**
 * How much the server's clock is ahead. `Date` is cut to the second, so its middle is the best guess; what is within a
 * second is not worth correcting.
 * @param {Response} response
 * @param {number} now
 */
export function offsetOf(response, now) {
  const said = Date.parse(response.headers.get("Date") ?? "");
  const offset = said + 500 - now;
  return Number.isNaN(offset) || Math.abs(offset) < 1500 ? 0 : offset;
}

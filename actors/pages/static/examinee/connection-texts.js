/**
 * What an examinee is told about the connection, pure: a `Status` of the client becomes words, a shape and what can be
 * done. No DOM, no clock.
 */

/** A loss that is over within so many milliseconds is not shown: most are a change of server or of the Wi-Fi's cell. */
export const GRACE_MS = 1000;

/**
 * @typedef {object} View
 * @property {"good" | "info" | "warn" | "bad" | "ended" | "quiet"} tone
 * @property {"good" | "busy" | "lost" | "ended" | "elsewhere"} icon
 * @property {string} key of the texts: `{key}.title`, `{key}.text`
 * @property {"now" | "again" | "here" | "reload" | null} button what the button says: try now, try again, use it here,
 *   load the page anew
 * @property {"in" | "now" | null} next what the line below says: in so many seconds, or at this moment
 * @property {boolean} asksToken
 * @property {"shut" | "dead" | null} asks ask the web server now and then whether to come back: the examinee is shut out
 *   and a proctor can change that, or no socket server could be reached and that may have passed
 */

const CALM = { button: null, next: null, asksToken: false, asks: null };

/** What is shown when the server has ended it, by the word for its close code. @type {Record<string, Partial<View>>} */
const ENDS = {
  RECONNECT_LIMIT_EXCEEDED: { icon: "ended", key: "exhausted", button: "again", asks: "shut" },
  REMOVED: { icon: "ended", key: "removed", asks: "shut" },
  REPLACED: { tone: "warn", icon: "elsewhere", key: "replaced", button: "here" },
  INVALID_TOKEN: { tone: "warn", icon: "ended", key: "token", asksToken: true },
  FORBIDDEN: { icon: "ended", key: "forbidden", asksToken: true },
  TOKEN_NOT_YET_VALID: { tone: "warn", icon: "ended", key: "early", button: "again", asksToken: true },
};

/**
 * @param {import("../examwire.js").Status} status
 * @param {boolean} settled whether the server has said, after its welcome, that the examinee is in, or says nothing for long
 * @param {boolean} [shutOut] whether the web server has said that a connection would be refused
 * @param {boolean} [recorded] whether the server has said it: then proctors see it as well
 * @param {boolean} [current] whether what happens now is recorded now, and shown to proctors
 * @param {boolean} [expired] whether the web server no longer accepts the token: then it says nothing more either
 * @returns {View}
 */
export function viewOf(status, settled, shutOut = false, recorded = true, current = true, expired = false) {
  switch (status.state) {
    case "connected":
      if (expired) return { ...CALM, tone: "warn", icon: "ended", key: "renew", asksToken: true };
      if (!current) return { ...CALM, tone: "warn", icon: "busy", key: "behind" };
      if (!settled) return { ...CALM, tone: "info", icon: "busy", key: "connecting" };
      return { ...CALM, tone: "good", icon: "good", key: recorded ? "connected" : "unrecorded" };
    case "idle":
      return { ...CALM, tone: "quiet", icon: "busy", key: "idle", asksToken: true };
    case "offline":
      return { ...CALM, tone: "bad", icon: "lost", key: "offline", button: "now" };
    case "connecting":
      if (status.migrating) return { ...CALM, tone: "info", icon: "busy", key: "moving" };
      if (status.attempt === 0) return { ...CALM, tone: "info", icon: "busy", key: "connecting" };
      return { ...CALM, tone: "bad", icon: "lost", key: "lost", next: "now" };
    case "waiting":
      if (status.migrating) return { ...CALM, tone: "info", icon: "busy", key: "moving" };
      return { ...CALM, tone: "bad", icon: "lost", key: "lost", button: "now", next: "in" };
    case "gaveUp": {
      const end = endOf(status, shutOut);
      // What is asked for now and then is not told without a token: waiting for it would be waiting for ever.
      if (expired && end.asks) return { ...CALM, tone: "warn", icon: "ended", key: "token", asksToken: true };
      return { ...CALM, tone: "bad", icon: "lost", ...end };
    }
  }
}

/**
 * @param {Extract<import("../examwire.js").Status, {state: "gaveUp"}>} status
 * @param {boolean} shutOut
 * @returns {Partial<View> & {key: string}}
 */
function endOf(status, shutOut) {
  const known = /** @type {Partial<View> & {key: string} | undefined} */ (ENDS[status.name]);
  if (status.name === "TOKEN_NOT_YET_VALID" && known) return known; // after the last attempt, as after each before it
  if (status.reason !== "CLOSE_CODE") {
    if (shutOut) return { key: "exhausted", ...ENDS.RECONNECT_LIMIT_EXCEEDED };
    if (status.remedy === "RELOAD") return { key: "outdated", button: "reload", asks: "dead" };
    return { key: "unreachable", button: "again", asks: "dead" };
  }
  if (known) return known;
  return { icon: "ended", key: "broken", button: status.remedy === "USER" ? "again" : null };
}

/**
 * Whether a view is shown at once or only if it lasts: what replaces "connected" may be over in a moment.
 * @param {string} before the key that is shown
 * @param {View} view
 */
export function isPatient(before, view) {
  return ["connected", "unrecorded", "behind", "renew"].includes(before) && ["lost", "moving", "connecting"].includes(view.key);
}

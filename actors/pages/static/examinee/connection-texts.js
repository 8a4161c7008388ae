/**
 * Maps the `Status` of the client to what the examinee's page shows: text keys, icon, button. Pure: no DOM, no clock.
 */

/** A loss shorter than this (ms) is not shown: most are a change of the server or of the Wi-Fi access point. */
export const GRACE_MS = 1000;

/**
 * @typedef {object} View
 * @property {"good" | "info" | "warn" | "bad" | "ended" | "quiet"} tone
 * @property {"good" | "busy" | "lost" | "ended" | "elsewhere"} icon
 * @property {string} key of the texts: `{key}.title`, `{key}.text`
 * @property {"now" | "again" | "here" | "reload" | null} button the button: try now, try again, continue here, reload
 * @property {"in" | "now" | null} next the line about the next attempt: in so many seconds, or now
 * @property {boolean} asksToken
 * @property {"shut" | "dead" | null} asks why to ask the web server regularly whether to reconnect: the examinee is
 *   shut out until a proctor readmits them, or no socket server could be reached
 */

const CALM = { button: null, next: null, asksToken: false, asks: null };

/** The views after the server has closed the connection, by the name of the close code. @type {Record<string, Partial<View>>} */
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
 * @param {boolean} settled the server has confirmed after its welcome that the examinee is in, or has not refused for a while
 * @param {boolean} [shutOut] whether the web server has said that a connection would be refused
 * @param {boolean} [recorded] the server has confirmed it: then proctors see it as well
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
      // The web server gives no answer without a valid token, so asking it is useless.
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
 * Whether a view is shown only if it lasts: a loss may be over in a moment.
 * @param {string} before the key that is shown
 * @param {View} view
 */
export function isPatient(before, view) {
  return ["connected", "waiting", "unrecorded", "behind", "renew"].includes(before) && ["lost", "moving", "connecting"].includes(view.key);
}

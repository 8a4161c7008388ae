/**
 * Shows the state of the connection of the shown plan, and a banner above a wall that is not up to date.
 *
 * @typedef {import("../../examwire.js").Status} Status
 * @typedef {import("./plan-connection.js").PlanConnection} PlanConnection
 */

import { hasText, t, time } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { paintIcons } from "../tiles/icons.js";
import { STATES } from "../examinees.js";
import { isOnlyAway, whyText } from "./plan-connection.js";

const BROKEN = "M8 1 15.5 15H.5zM7.1 6l.3 4.4h1.2L8.9 6zM7.2 11.6v1.6h1.6v-1.6z";
const TRYING = "M8 1a7 7 0 0 1 6.3 4H12a5 5 0 1 0 .9 4h2A7 7 0 1 1 8 1zM15.5 1v5.5H10z";

/**
 * Return text, colour and icon of the connection's state.
 * @param {Status} status
 * @param {boolean} fresh whether a snapshot has arrived on the open connection
 * @param {number} now ms, by this computer's clock
 * @param {boolean} [current] whether the server is up to date
 * @param {string | null} [waitingFor] what the server waits for, if not
 * @returns {{text: string, tone: string, path: string}}
 */
export function connectionText(status, fresh, now, current = true, waitingFor = null) {
  const trying = (/** @type {string} */ text) => ({ text, tone: "warn", path: TRYING });
  const broken = (/** @type {string} */ text) => ({ text, tone: "bad", path: BROKEN });
  switch (status.state) {
    case "connected":
      if (waitingFor === "server") return broken(t("link.silent"));
      if (!current) return broken(t("link.behind"));
      if (!fresh) return trying(t("link.loading"));
      return { text: t("link.connected", { server: status.serverId }), tone: "good", path: STATES.connected.path };
    case "connecting":
      if (status.migrating && status.attempt <= 1) return trying(t("link.moving"));
      if (status.attempt === 0) return trying(t("link.connecting"));
      return trying(t("link.retry", { attempt: status.attempt, most: status.maxAttempts }));
    case "waiting": {
      if (status.migrating && status.attempt <= 1) return trying(t("link.moving"));
      const seconds = Math.max(0, Math.ceil((status.at - now) / 1000));
      return trying(t("link.waiting", { attempt: status.attempt, most: status.maxAttempts, seconds }));
    }
    case "offline":
      return broken(t("link.offline"));
    case "gaveUp":
      return broken(t("link.gaveUp", { why: whyText(status) }));
    default:
      return broken(t("link.idle"));
  }
}

/** Return the sentence that says why the server is not up to date. @param {string | null} waitingFor */
export function behindText(waitingFor) {
  if (waitingFor === "server") return t("stale.silent");
  const key = `behind.${waitingFor}`;
  return t("stale.behind", { what: t(hasText(key) ? key : "behind.other") });
}

/** Draws the state in the header, and the banner above a wall that is not up to date. */
export class ConnectionBanner {
  /**
   * @param {() => PlanConnection} connection returns that of the shown plan
   * @param {() => void} otherToken called when the proctor wants to use another token
   */
  constructor(connection, otherToken) {
    this._connection = connection;
    element("try-now").addEventListener("click", (event) => {
      connection().insist(event);
      this.show();
    });
    element("other-token").addEventListener("click", otherToken);
    element("link").addEventListener("click", (event) => {
      const { status } = connection().client;
      if (status.state === "gaveUp" && status.remedy === "TOKEN") otherToken();
      else connection().insist(event);
    });
  }

  /** Draw; called each second, for it counts. */
  show() {
    const connection = this._connection();
    const { client, behind, moving } = connection;
    const { status, viewStatus } = client;
    const fresh = connection.upToDate;
    const { text, tone, path } = connectionText(status, client.fresh, Date.now(), viewStatus.current, viewStatus.waitingFor);
    const link = element("link");
    link.dataset.tone = tone;
    link.querySelector("path")?.setAttribute("d", path);
    setText(link.querySelector(".link-text"), text);
    const root = document.documentElement;
    if (root.hasAttribute("data-stale") !== (!fresh && !moving)) {
      root.toggleAttribute("data-stale");
      paintIcons();
    }
    const stale = element("stale");
    // Show nothing while the page connects for the first time.
    stale.hidden = fresh || moving || (!behind && connection.first);
    stale.dataset.tone = behind || status.state === "gaveUp" || status.state === "offline" ? "bad" : "warn";
    const asOf = client.fresh ? viewStatus.since : connection.asOf;
    setText(element("stale-what"), asOf === null ? t("stale.never") : t("stale.since", { time: time(asOf) }));
    setText(element("stale-why"), behind ? behindText(viewStatus.waitingFor) : staleText(status));
    const token = status.state === "gaveUp" && status.remedy === "TOKEN";
    element("other-token").hidden = !token;
    element("try-now").hidden = token || !(status.state === "waiting" || status.state === "gaveUp" || status.state === "offline");
  }
}

/** Return the sentence that says why the wall is out of date. @param {Status} status */
function staleText(status) {
  if (status.state === "connected") return t("stale.loading");
  if (status.state === "offline") return t("stale.offline");
  if (status.state === "gaveUp") return t(isOnlyAway(status) ? "stale.goesOn" : "stale.gaveUp", { why: whyText(status) });
  return t("stale.waiting");
}

/**
 * Shows the state of the proctor's own connection, and a banner above a wall that is not up to date.
 *
 * @typedef {import("../../examwire.js").Status} Status
 * @typedef {import("../../examwire.js").ProctorClient} ProctorClient
 */

import { hasText, t, time } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { paintIcons } from "../tiles/icons.js";
import { STATES } from "../examinees.js";

/** After all attempts have failed the wall tries again every so many seconds, ± a quarter. */
const COME_BACK_SECONDS = 8;
/** A wall that moves to another server counts as out of date only after so long. */
const MOVE_SECONDS = 4;
const NO_SERVER = new Set(["ATTEMPTS_USED_UP", "ALWAYS_BUSY"]);
const BROKEN = "M8 1 15.5 15H.5zM7.1 6l.3 4.4h1.2L8.9 6zM7.2 11.6v1.6h1.6v-1.6z";
const TRYING = "M8 1a7 7 0 0 1 6.3 4H12a5 5 0 1 0 .9 4h2A7 7 0 1 1 8 1zM15.5 1v5.5H10z";

/** Return the sentence that says why the client does not reconnect. @param {Extract<Status, {state: "gaveUp"}>} status */
export function whyText({ name, reason }) {
  for (const word of [name, reason]) if (hasText(`why.${word}`)) return t(`why.${word}`);
  return t("why.other", { name });
}

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

/** Whether no server has answered: then the wall can try again without a person. @param {Status} status */
function isOnlyAway(status) {
  return status.state === "gaveUp" && NO_SERVER.has(status.reason);
}

/** Draws the state in the header, and the banner above a wall that is not up to date. */
export class ConnectionBanner {
  /**
   * @param {ProctorClient} client
   * @param {(sentence: string) => void} say
   * @param {() => void} otherToken called when the proctor wants to use another token
   */
  constructor(client, say, otherToken) {
    this._client = client;
    this._say = say;
    /** The last time the wall was up to date. @type {number | null} */ this._asOf = null;
    /** The start of a move to another server, until that has sent the plan. @type {number | null} */ this._movesSince = null;
    /** The state that was announced last. */ this._announced = "";
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._timer = undefined;
    const tryNow = element("try-now");
    tryNow.addEventListener("click", (event) => {
      this._insist(event);
      this.show();
    });
    element("other-token").addEventListener("click", otherToken);
    element("link").addEventListener("click", (event) => {
      if (client.status.state === "gaveUp" && client.status.remedy === "TOKEN") otherToken();
      else this._insist(event);
    });
    client.addEventListener("status", () => {
      this._comeBackLater();
      this.show();
    });
    client.addEventListener("viewStatus", () => this.show());
    client.addEventListener("fresh", () => {
      const { current, since } = client.viewStatus;
      if (!client.fresh) this._asOf = current || since === null ? Date.now() : Date.parse(since);
      this.show();
    });
  }

  /** Try now, for a person asks for it. @param {Event} event */
  _insist(event) {
    const { status } = this._client;
    if (status.state === "gaveUp" && status.remedy === "RELOAD") return location.reload(); // only a new page may reach the servers
    this._client.tryNow(event);
  }

  /**
   * Try again automatically if only the servers were down: nobody may be near the wall to press the button, and a proctor's
   * attempts are not limited.
   */
  _comeBackLater() {
    clearTimeout(this._timer);
    if (!isOnlyAway(this._client.status)) return;
    this._timer = setTimeout(
      () => {
        this._client.comeBack();
        this._comeBackLater();
      },
      COME_BACK_SECONDS * (0.75 + Math.random() / 2) * 1000,
    );
  }

  /** Draw; called each second, for it counts. */
  show() {
    const { status, viewStatus } = this._client;
    const behind = status.state === "connected" && !viewStatus.current;
    const fresh = this._client.fresh && viewStatus.current;
    const { text, tone, path } = connectionText(status, this._client.fresh, Date.now(), viewStatus.current, viewStatus.waitingFor);
    const link = element("link");
    link.dataset.tone = tone;
    link.querySelector("path")?.setAttribute("d", path);
    setText(link.querySelector(".link-text"), text);
    const migrating = !behind && this._isMoving(status);
    const root = document.documentElement;
    if (root.hasAttribute("data-stale") !== (!fresh && !migrating)) {
      root.toggleAttribute("data-stale");
      paintIcons();
    }
    const stale = element("stale");
    // Show nothing while the page connects for the first time.
    stale.hidden = fresh || migrating || (!behind && this._asOf === null && (status.state === "connecting" || status.state === "connected" || status.state === "idle"));
    stale.dataset.tone = behind || status.state === "gaveUp" || status.state === "offline" ? "bad" : "warn";
    const asOf = this._client.fresh ? viewStatus.since : this._asOf;
    setText(element("stale-what"), asOf === null ? t("stale.never") : t("stale.since", { time: time(asOf) }));
    setText(element("stale-why"), behind ? behindText(viewStatus.waitingFor) : this._why(status));
    const token = status.state === "gaveUp" && status.remedy === "TOKEN";
    element("other-token").hidden = !token;
    element("try-now").hidden = token || !(status.state === "waiting" || status.state === "gaveUp" || status.state === "offline");
    this._announce(status, fresh, migrating, behind ? (viewStatus.waitingFor === "server" ? "silent" : "behind") : null);
  }

  /** Whether the wall began to move to another server a short time ago. @param {Status} status */
  _isMoving(status) {
    const away = "migrating" in status && status.migrating;
    if (away) this._movesSince ??= Date.now();
    else if (status.state !== "connected" || this._client.fresh) this._movesSince = null;
    if (this._movesSince === null) return false;
    const seconds = (Date.now() - this._movesSince) / 1000;
    return seconds >= 0 && seconds < MOVE_SECONDS;
  }

  /** Return the sentence that says why the wall is out of date. @param {Status} status */
  _why(status) {
    if (status.state === "connected") return t("stale.loading");
    if (status.state === "offline") return t("stale.offline");
    if (status.state === "gaveUp") return t(isOnlyAway(status) ? "stale.goesOn" : "stale.gaveUp", { why: whyText(status) });
    return t("stale.waiting");
  }

  /**
   * Announce each change of the state once, not each attempt.
   * @param {Status} status @param {boolean} fresh @param {boolean} migrating
   * @param {"silent" | "behind" | null} behind
   */
  _announce(status, fresh, migrating, behind) {
    let announcement = this._announced;
    if (behind !== null) announcement = behind;
    else if (fresh) announcement = "connected";
    else if (status.state === "gaveUp") announcement = "gaveUp";
    else if (announcement !== "gaveUp" && this._asOf !== null && !migrating && status.state !== "connected") announcement = "lost";
    if (announcement === this._announced) return;
    this._announced = announcement;
    const why = status.state === "gaveUp" ? whyText(status) : "";
    this._say(t(`link.said.${announcement}`, { why }));
  }
}

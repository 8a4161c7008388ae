/**
 * The proctor's own connection: always visible, in words; a screen that is not up to date says so.
 *
 * @typedef {import("../../examwire.js").Status} Status
 * @typedef {import("../../examwire.js").ProctorClient} ProctorClient
 */

import { hasText, t, time } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { paintIcons } from "../tiles/icons.js";
import { STATES } from "../examinees.js";

/** A wall that reached no server for all its attempts tries again so often, spread by a quarter either way. */
const GO_ON_SECONDS = 8;
/** A wall that changes servers is not called out of date unless it takes longer. */
const MOVE_SECONDS = 4;
const NO_SERVER = new Set(["ATTEMPTS_USED_UP", "ALWAYS_BUSY"]);
const BROKEN = "M8 1 15.5 15H.5zM7.1 6l.3 4.4h1.2L8.9 6zM7.2 11.6v1.6h1.6v-1.6z";
const TRYING = "M8 1a7 7 0 0 1 6.3 4H12a5 5 0 1 0 .9 4h2A7 7 0 1 1 8 1zM15.5 1v5.5H10z";

/** Why the client does not connect again by itself, as a sentence. @param {Extract<Status, {state: "gaveUp"}>} status */
export function whyText({ name, reason }) {
  for (const one of [name, reason]) if (hasText(`why.${one}`)) return t(`why.${one}`);
  return t("why.other", { name });
}

/**
 * What the connection's state is called, and how it looks.
 * @param {Status} status
 * @param {boolean} fresh whether a snapshot has come over the connection that stands
 * @param {number} now ms, by this computer's clock
 * @param {boolean} [current] whether what the server tells is so now
 * @param {string | null} [waitingFor] and if not, why
 * @returns {{text: string, tone: string, path: string}}
 */
export function linkText(status, fresh, now, current = true, waitingFor = null) {
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

/** Why what the server tells is not so now, as a sentence. @param {string | null} waitingFor */
export function behindText(waitingFor) {
  if (waitingFor === "server") return t("stale.silent");
  const key = `behind.${waitingFor}`;
  return t("stale.behind", { what: t(hasText(key) ? key : "behind.other") });
}

/** No server has answered: nothing that a person would have to decide. @param {Status} status */
function isOnlyAway(status) {
  return status.state === "gaveUp" && NO_SERVER.has(status.reason);
}

/** Shows it, in the header and above a wall that is not up to date. */
export class Link {
  /**
   * @param {ProctorClient} client
   * @param {(sentence: string) => void} say
   * @param {() => void} otherToken what to do when another token is asked for
   */
  constructor(client, say, otherToken) {
    this._client = client;
    this._say = say;
    /** When the wall was up to date last. @type {number | null} */ this._asOf = null;
    /** When it began to change servers, until the plan has come from the new one. @type {number | null} */ this._movesSince = null;
    this._said = "";
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._later = undefined;
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
      this._goOn();
      this.show();
    });
    client.addEventListener("viewStatus", () => this.show());
    client.addEventListener("fresh", () => {
      const { current, since } = client.viewStatus;
      if (!client.fresh) this._asOf = current || since === null ? Date.now() : Date.parse(since);
      this.show();
    });
  }

  /** @param {Event} event */
  _insist(event) {
    const { status } = this._client;
    if (status.state === "gaveUp" && status.remedy === "RELOAD") return location.reload(); // only a new page may reach the servers
    this._client.tryNow(event);
  }

  /**
   * A wall hangs where nobody may be near to press the button, and nobody counts a proctor's attempts: when only the
   * servers were away it comes back by itself.
   */
  _goOn() {
    clearTimeout(this._later);
    if (!isOnlyAway(this._client.status)) return;
    this._later = setTimeout(
      () => {
        this._client.comeBack();
        this._goOn();
      },
      GO_ON_SECONDS * (0.75 + Math.random() / 2) * 1000,
    );
  }

  /** Now, and again each second: it counts. */
  show() {
    const { status, viewStatus } = this._client;
    const behind = status.state === "connected" && !viewStatus.current;
    const fresh = this._client.fresh && viewStatus.current;
    const { text, tone, path } = linkText(status, this._client.fresh, Date.now(), viewStatus.current, viewStatus.waitingFor);
    const link = element("link");
    link.dataset.tone = tone;
    link.querySelector("path")?.setAttribute("d", path);
    setText(link.querySelector(".link-text"), text);
    const migrating = !behind && this._moves(status);
    const root = document.documentElement;
    if (root.hasAttribute("data-stale") !== (!fresh && !migrating)) {
      root.toggleAttribute("data-stale");
      paintIcons();
    }
    const stale = element("stale");
    // The first moments of a page are no trouble yet.
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

  /** Whether the wall is between two servers, and has not been for long. @param {Status} status */
  _moves(status) {
    const away = "migrating" in status && status.migrating;
    if (away) this._movesSince ??= Date.now();
    else if (status.state !== "connected" || this._client.fresh) this._movesSince = null;
    if (this._movesSince === null) return false;
    const seconds = (Date.now() - this._movesSince) / 1000;
    return seconds >= 0 && seconds < MOVE_SECONDS;
  }

  /** @param {Status} status */
  _why(status) {
    if (status.state === "connected") return t("stale.loading");
    if (status.state === "offline") return t("stale.offline");
    if (status.state === "gaveUp") return t(isOnlyAway(status) ? "stale.goesOn" : "stale.gaveUp", { why: whyText(status) });
    return t("stale.waiting");
  }

  /**
   * Once for each turn, not for each attempt.
   * @param {Status} status @param {boolean} fresh @param {boolean} migrating
   * @param {"silent" | "behind" | null} behind
   */
  _announce(status, fresh, migrating, behind) {
    let said = this._said;
    if (behind !== null) said = behind;
    else if (fresh) said = "connected";
    else if (status.state === "gaveUp") said = "gaveUp";
    else if (said !== "gaveUp" && this._asOf !== null && !migrating && status.state !== "connected") said = "lost";
    if (said === this._said) return;
    this._said = said;
    const why = status.state === "gaveUp" ? whyText(status) : "";
    this._say(t(`link.said.${said}`, { why }));
  }
}

/**
 * The connection of one plan: since when its view is out of date, which change is announced, and when to try again. No DOM.
 *
 * @typedef {import("../../examwire.js").Status} Status
 * @typedef {import("../../examwire.js").ProctorClient} ProctorClient
 */

import { hasText, t } from "../../common/i18n.js";

/** After all attempts have failed the wall tries again every so many seconds, ± a quarter. */
const COME_BACK_SECONDS = 8;
/** A wall that moves to another server counts as out of date only after so long. */
const MOVE_SECONDS = 4;
const NO_SERVER = new Set(["ATTEMPTS_USED_UP", "ALWAYS_BUSY"]);

/** Return the sentence that says why the client does not reconnect. @param {Extract<Status, {state: "gaveUp"}>} status */
export function whyText({ name, reason }) {
  for (const word of [name, reason]) if (hasText(`why.${word}`)) return t(`why.${word}`);
  return t("why.other", { name });
}

/** Whether no server has answered: then the wall can try again without a person. @param {Status} status */
export function isOnlyAway(status) {
  return status.state === "gaveUp" && NO_SERVER.has(status.reason);
}

/** Watches the client of a plan. Call `announce` each second, for it counts. */
export class PlanConnection {
  /** @param {ProctorClient} client @param {(sentence: string) => void} say */
  constructor(client, say) {
    this.client = client;
    this._say = say;
    /** The last time the view was up to date. @type {number | null} */ this.asOf = null;
    /** The start of a move to another server, until that has sent the plan. @type {number | null} */ this._movesSince = null;
    /** The state that was announced last. */ this._announced = "";
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this._timer = undefined;
    client.addEventListener("status", () => this._comeBackLater());
    client.addEventListener("fresh", () => {
      const { current, since } = client.viewStatus;
      if (!client.fresh) this.asOf = current || since === null ? Date.now() : Date.parse(since);
    });
  }

  /** Whether it is connected to a server that is not up to date. */
  get behind() {
    return this.client.status.state === "connected" && !this.client.viewStatus.current;
  }

  /** Whether everything that is shown is so now. */
  get upToDate() {
    return this.client.fresh && this.client.viewStatus.current;
  }

  /** Whether it began to move to another server a short time ago. */
  get moving() {
    const { status } = this.client;
    if (this.behind) return false;
    const away = "migrating" in status && status.migrating;
    if (away) this._movesSince ??= Date.now();
    else if (status.state !== "connected" || this.client.fresh) this._movesSince = null;
    if (this._movesSince === null) return false;
    const seconds = (Date.now() - this._movesSince) / 1000;
    return seconds >= 0 && seconds < MOVE_SECONDS;
  }

  /** Whether it connects for the first time. */
  get first() {
    const { state } = this.client.status;
    return this.asOf === null && (state === "connecting" || state === "connected" || state === "idle");
  }

  /** Try now, for a person asks for it. @param {Event} event */
  insist(event) {
    const { status } = this.client;
    if (status.state === "gaveUp" && status.remedy === "RELOAD") return location.reload(); // only a new page may reach the servers
    this.client.tryNow(event);
  }

  /**
   * Try again automatically if only the servers were down: nobody may be near the wall to press the button, and a proctor's
   * attempts are not limited.
   */
  _comeBackLater() {
    clearTimeout(this._timer);
    if (!isOnlyAway(this.client.status)) return;
    this._timer = setTimeout(
      () => {
        this.client.comeBack();
        this._comeBackLater();
      },
      COME_BACK_SECONDS * (0.75 + Math.random() / 2) * 1000,
    );
  }

  /** Announce each change of the state once, not each attempt. */
  announce() {
    const { status, viewStatus } = this.client;
    let announcement = this._announced;
    if (this.behind) announcement = viewStatus.waitingFor === "server" ? "silent" : "behind";
    else if (this.upToDate) announcement = "connected";
    else if (status.state === "gaveUp") announcement = "gaveUp";
    else if (announcement !== "gaveUp" && this.asOf !== null && !this.moving && status.state !== "connected") announcement = "lost";
    if (announcement === this._announced) return;
    this._announced = announcement;
    const why = status.state === "gaveUp" ? whyText(status) : "";
    this._say(t(`link.said.${announcement}`, { why }));
  }
}

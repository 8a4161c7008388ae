/** The exam on the examinee's page: the clock by the server's time, and handing in. */

import { clock, languages, appointment, t } from "../common/i18n.js";
import { announce, byId } from "../common/parts.js";
import { minutesToAnnounce } from "../examwire.js";
import { clockView } from "./exam-texts.js";

/** Twice a second, so that no second is left out. */
const TICK_MS = 500;

/** Draws the clock and the button to hand in. Fires `phase` at the client when the exam begins or ends. */
export class Exam {
  /** @param {import("../examwire.js").ExamineeClient} client */
  constructor(client) {
    this._client = client;
    /** @type {import("../examwire.js").ExamPhase} */ this._phase = "UNKNOWN";
    /** Seconds left at the last tick. @type {number | null} */ this._left = null;
    /** The end that was shown last. @type {string | null} */ this._endsAt = null;
    this._dialog = /** @type {HTMLDialogElement} */ (byId("hand-in-dialog"));
    for (const type of ["plan", "state", "status", "finished", "resumed"]) client.addEventListener(type, () => this.show());
    languages.addEventListener("change", () => this.show());
    byId("hand-in").addEventListener("click", () => this._ask());
    byId("hand-in-yes").addEventListener("click", () => this._handIn());
    byId("hand-in-no").addEventListener("click", () => this._dialog.close());
    setInterval(() => this.show(), TICK_MS);
    this.show();
  }

  /** Ask whether the examinee really wants to hand in. */
  _ask() {
    byId("hand-in-offline").hidden = this._client.connected;
    this._dialog.showModal();
  }

  _handIn() {
    this._dialog.close();
    // The page shows what follows by the state of the client; an answer that is lost is asked for again.
    this._client.finish().catch((error) => console.info("examwire: not handed in:", String(error)));
    this.show();
  }

  /** Draw the clock and the button. */
  show() {
    const client = this._client;
    const { phase, seconds } = client.exam;
    const over = client.endReason !== null;
    const view = over ? null : clockView({ phase, seconds }, client.plan);
    byId("exam").hidden = view === null;
    if (over && this._dialog.open) this._dialog.close();
    if (view !== null) {
      byId("exam").dataset.tone = view.tone;
      setText("exam-title", client.plan?.name ?? t("exam.title"));
      setText("exam-clock", t(view.clock, { time: clock(Math.ceil(view.seconds ?? 0)) }));
      setText("exam-text", t(view.text, { time: view.at === null ? "" : appointment(view.at, client.serverTime) }));
      const asked = client.finishing;
      const may = phase === "RUNNING" || phase === "GRACE" || phase === "OVER";
      byId("hand-in").hidden = !may || asked;
      byId("hand-in-asked").hidden = !asked;
      setText("hand-in-asked", t(client.connected ? "exam.handingIn" : "exam.handInLater"));
    }
    if (!over) this._announce(phase, seconds);
    if (phase !== this._phase) {
      this._phase = phase;
      client.dispatchEvent(new Event("phase"));
    }
  }

  /** @param {import("../examwire.js").ExamPhase} phase @param {number | null} seconds */
  _announce(phase, seconds) {
    const endsAt = this._client.plan?.endsAt ?? null;
    const running = phase === "RUNNING";
    if (running && this._phase === "BEFORE") announce(t("exam.begun"));
    if (phase === "GRACE" && this._phase === "RUNNING") announce(t("exam.timeUpHandIn"));
    if (running && this._phase === "RUNNING" && endsAt !== null && endsAt !== this._endsAt) {
      announce(t("exam.newEnd", { time: appointment(endsAt, this._client.serverTime) }));
    } else {
      const minutes = running && this._phase === "RUNNING" ? minutesToAnnounce(this._left, seconds) : null;
      if (minutes !== null) announce(t("exam.soon", { n: minutes }));
    }
    this._left = running ? seconds : null;
    this._endsAt = endsAt;
  }
}

/** Set a text only if it has changed: a screen reader or a selection is not disturbed. @param {string} id @param {string} text */
function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

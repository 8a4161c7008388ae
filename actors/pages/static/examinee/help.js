/** Help on the examinee's page: ask the proctors, see that somebody is on it, take the request back. */

import { languages, person, t, time } from "../common/i18n.js";
import { announce, byId } from "../common/parts.js";

/** @typedef {"idle" | "writing" | "asking" | "later" | "sent" | "taken"} Step */

/**
 * What the section shows. `later`: the request is sent when the connection is back.
 * @param {{help: import("../examwire.js").Help | null, askingForHelp: object | null, connected: boolean}} client
 * @param {boolean} writing whether the form is open
 * @returns {Step}
 */
export function stepOf({ help, askingForHelp, connected }, writing) {
  if (help !== null) return help.takenBy === undefined ? "sent" : "taken";
  if (askingForHelp !== null) return connected ? "asking" : "later";
  return writing ? "writing" : "idle";
}

export class Help {
  /** @param {import("../examwire.js").ExamineeClient} client */
  constructor(client) {
    this._client = client;
    this._writing = false;
    /** @type {Step} */ this._step = "idle";
    this._saidBy = "";
    const text = /** @type {HTMLTextAreaElement} */ (byId("help-text"));
    for (const type of ["help", "status", "plan", "state", "finished", "resumed"]) client.addEventListener(type, () => this._show());
    languages.addEventListener("change", () => this._show());
    byId("help-ask").addEventListener("click", () => this._write(true));
    byId("help-no").addEventListener("click", () => this._write(false));
    byId("help-back").addEventListener("click", () => client.cancelHelp());
    byId("help-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this._writing = false;
      client.askForHelp(text.value);
      text.value = "";
    });
    this._show();
  }

  /** Open or close the form. @param {boolean} writing */
  _write(writing) {
    this._writing = writing;
    this._show();
    byId(writing ? "help-text" : "help-ask").focus();
  }

  _show() {
    const client = this._client;
    const { state } = client.status;
    const section = byId("help");
    const focused = section.contains(document.activeElement);
    const step = stepOf(client, this._writing);
    section.hidden = client.endReason !== null || state === "idle" || state === "gaveUp";
    section.dataset.step = step;
    const open = step !== "idle" && step !== "writing";
    byId("help-ask").hidden = step !== "idle";
    byId("help-form").hidden = step !== "writing";
    byId("help-open").hidden = !open;
    const request = client.help ?? client.askingForHelp;
    const by = client.help?.takenBy ? person(client.help.takenBy, client.help.takenByName) : "";
    byId("help-state").textContent = open ? t(`help.${step}`, { by }) : t("help.idle");
    const said = /** @type {{text?: string, since?: string} | null} */ (request);
    byId("help-said").hidden = !said?.text;
    byId("help-said").textContent = said?.text ?? "";
    byId("help-since").textContent = said?.since ? t("help.since", { time: time(said.since) }) : "";
    this._announce(step, by);
    // The pressed button is gone: the focus stays in the section.
    if (focused && !section.hidden && !visible(document.activeElement)) byId("help-title").focus();
  }

  /** @param {Step} step @param {string} by */
  _announce(step, by) {
    const closed = (this._step === "sent" || this._step === "taken") && (step === "idle" || step === "writing");
    if (closed) announce(t("help.closed"));
    else if ((step === "sent" || step === "taken") && (step !== this._step || by !== this._saidBy)) {
      announce(t(`help.${step}`, { by }));
    }
    [this._step, this._saidBy] = [step, by];
  }
}

/** @param {Element | null} element */
function visible(element) {
  return element instanceof HTMLElement && element !== document.body && element.offsetParent !== null;
}

/**
 * The panel of one examinee: what is known and what a proctor can do; with what happened (`History`) and the picture.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("./actions.js").Actions} Actions
 * @typedef {import("../session/web-api.js").Web} Web
 */

import { dateTime, duration, hasText, t, time } from "../../common/i18n.js";
import { element, parts, setText } from "../../common/elements.js";
import { History } from "./history.js";
import { milliseconds, STATES } from "../examinees.js";
import { Picture } from "./picture.js";
import { describe, nameOf, reasonText } from "../texts.js";

const EXTENSIONS = [30, 60, 120, 300, 600];

/** Fires `close`, and `act` (detail: `{kind, examineeId, text?, seconds?}`). */
export class Panel extends EventTarget {
  /** @param {{actions: Actions, web: Web, online: () => boolean}} given */
  constructor({ actions, web, online }) {
    super();
    this._root = element("panel");
    this._actions = actions;
    this._web = web;
    this._online = online;
    /** @type {Person | null} */ this.person = null;
    this._history = new History(web);
    this._picture = new Picture(web);
    element("panel-close").addEventListener("click", () => this.close());
    this._root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        this.close();
      }
    });
    this._wire();
  }

  get open() {
    return this.person !== null;
  }

  /** @param {Person} person */
  show(person) {
    const other = this.person?.id !== person.id;
    this.person = person;
    this._root.hidden = false;
    document.documentElement.dataset.panel = "open";
    if (other) {
      this._picture.forget();
      /** @type {HTMLTextAreaElement} */ (element("notify-text")).value = "";
      this._root.scrollTop = 0;
      this._history.begin(person);
    }
    this.refresh();
    element("panel-name").focus({ preventScroll: true });
  }

  close() {
    if (this.person === null) return;
    this.person = null;
    this._history.end();
    this._picture.forget();
    this._root.hidden = true;
    delete document.documentElement.dataset.panel;
    this.dispatchEvent(new Event("close"));
  }

  /** A message about anybody. @param {{type: string, data: Record<string, any>}} message */
  told(message) {
    if (message.data.examineeId === this.person?.id) this._history.told(message);
  }

  /** The page is up to date again, or has another token: there may be more in the log. */
  readAgain() {
    if (this.person === null) return;
    this._history.read();
    this._picture.again(this.person);
  }

  /** The examinee has changed, or the language. */
  refresh() {
    const { person } = this;
    if (person === null) return;
    setText(element("panel-name"), nameOf(person));
    const chip = element("panel-state");
    chip.dataset.tone = STATES[person.state].tone;
    chip.querySelector("path")?.setAttribute("d", STATES[person.state].path);
    setText(chip.querySelector("span"), t(`state.${person.state}`));
    this._drawFacts(person);
    const { seen } = person;
    const readmit = seen.exhausted || seen.removed;
    offer("readmit", readmit, "act.readmit.not");
    offer("extend", ["WAITING", "FAILED", "TIMED_OUT"].includes(seen.mobileSync), "act.extend.not");
    offer("remove", !seen.removed, "act.remove.means");
    this.drawActions();
    this._picture.show(person);
    this.tick();
  }

  /** Time has passed. */
  tick() {
    if (this.person === null) return;
    const said = describe(this.person, this._web.now());
    setText(element("panel-more"), [said.clock, said.more].filter(Boolean).join(" · "));
    this._history.tick();
  }

  /** The language has changed. */
  translate() {
    drawExtensions();
    this.refresh();
    this._history.draw();
  }

  // -- what can be done ------------------------------------------------------------------------------

  _wire() {
    drawExtensions();
    const text = /** @type {HTMLTextAreaElement} */ (element("notify-text"));
    const seconds = /** @type {HTMLSelectElement} */ (element("extend-seconds"));
    const dialog = /** @type {HTMLDialogElement} */ (element("remove-dialog"));
    const reason = /** @type {HTMLInputElement} */ (element("remove-reason"));
    element("notify-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const said = text.value.trim();
      if (!said) return;
      this._act({ kind: "notify", text: said });
      text.value = "";
    });
    text.addEventListener("keydown", (event) => {
      // Ctrl+Enter sends, Enter alone makes a new line: a message that goes out half written cannot be taken back.
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) text.form?.requestSubmit();
    });
    element("readmit").addEventListener("click", (event) => isOffered(event) && this._act({ kind: "readmit" }));
    element("extend").addEventListener("click", (event) => {
      if (isOffered(event)) this._act({ kind: "extend_mobile_sync", seconds: Number(seconds.value) });
    });
    element("remove").addEventListener("click", (event) => {
      if (!isOffered(event) || this.person === null) return;
      dialog.dataset.id = this.person.id;
      dialog.returnValue = "no";
      reason.value = "";
      setText(element("remove-question"), t("act.remove.question", { who: nameOf(this.person) }));
      dialog.showModal();
    });
    reason.addEventListener("keydown", (event) => {
      // A form's Enter presses its first button, which is Cancel: whoever typed a reason would believe that it was done.
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      if (!event.repeat) /** @type {HTMLElement} */ (dialog.querySelector('[value="yes"]')).focus();
    });
    dialog.addEventListener("close", () => {
      // The panel may show somebody else by now: the one who was asked about is meant.
      const examineeId = dialog.dataset.id;
      if (dialog.returnValue === "yes" && examineeId) {
        this._act({ kind: "remove", text: reason.value.trim(), examineeId });
      }
    });
  }

  /** @param {{kind: string, examineeId?: string, text?: string, seconds?: number}} what */
  _act(what) {
    const examineeId = what.examineeId ?? this.person?.id;
    if (examineeId) this.dispatchEvent(new CustomEvent("act", { detail: { ...what, examineeId } }));
  }

  /** What was asked for from here, and what became of it. */
  drawActions() {
    if (this.person === null) return;
    const list = element("actions");
    const lines = this._actions.of(this.person.id).slice(0, 8).map((action) => {
      const what = t(`did.${action.kind}`, { text: action.text, duration: duration(action.seconds) });
      const own = `did.${action.outcome}.${action.kind}`;
      const state = action.outcome === "pending" && !this._online() ? "did.waiting" : `did.${action.outcome}`;
      const became = t(hasText(own) ? own : state, { why: action.why });
      return { outcome: action.outcome, what, became, by: t("did.by", { time: time(action.at), by: action.by }) };
    });
    list.hidden = lines.length === 0;
    while (list.children.length > lines.length) list.lastElementChild?.remove();
    lines.forEach((line, at) => {
      const item = list.children[at] ?? list.appendChild(parts("li", "strong", "span", "small"));
      item.setAttribute("data-outcome", line.outcome);
      setText(item.children[0], line.what);
      setText(item.children[1], line.became);
      setText(item.children[2], line.by);
    });
  }

  // -- what is known ---------------------------------------------------------------------------------

  /** @param {Person} person */
  _drawFacts({ seen, since }) {
    const at = (/** @type {string | null} */ when) => (when && milliseconds(when) !== null ? dateTime(when) : "");
    /** @type {[string, string][]} */
    const facts = [
      ["fact.since", since === null ? "" : dateTime(since)],
      ["fact.reason", reasonText(seen.reason)],
      ["fact.attempt", seen.attempt > 0 ? t("fact.attempts", { attempt: seen.attempt, most: seen.maxAttempts ?? "?" }) : ""],
      ["fact.next", at(seen.nextAttemptAt)],
      ["fact.server", seen.serverId ?? ""],
      ["fact.address", seen.ipAddress ?? ""],
      ["fact.browser", seen.browserInfo ?? ""],
      ["fact.recoveries", seen.recoveries > 0 ? t("fact.times", { n: seen.recoveries }) : ""],
      ["fact.phone", [t(`phone.${seen.mobileSync}`), reasonText(seen.mobileSyncReason)].filter(Boolean).join(": ")],
      ["fact.deadline", seen.mobileSync === "WAITING" ? at(seen.deadline) : ""],
    ];
    const list = element("panel-facts");
    const told = facts.filter(([, value]) => value);
    while (list.children.length > told.length) list.lastElementChild?.remove();
    told.forEach(([key, value], row) => {
      const line = list.children[row] ?? list.appendChild(parts("div", "dt", "dd"));
      setText(line.children[0], t(key));
      setText(line.children[1], value);
    });
  }
}

/**
 * What cannot be done now stays where it is, can be reached, and says why.
 * @param {string} id @param {boolean} possible @param {string} why
 */
function offer(id, possible, why) {
  const button = element(id);
  button.setAttribute("aria-disabled", String(!possible));
  button.title = possible ? "" : t(why);
}

/** @param {Event} event */
function isOffered(event) {
  return event.currentTarget instanceof Element && event.currentTarget.getAttribute("aria-disabled") !== "true";
}

function drawExtensions() {
  const select = /** @type {HTMLSelectElement} */ (element("extend-seconds"));
  const chosen = select.value || "60";
  select.replaceChildren(...EXTENSIONS.map((seconds) => new Option(`+ ${duration(seconds)}`, String(seconds))));
  select.value = chosen;
}

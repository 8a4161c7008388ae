/**
 * The panel of one examinee: facts, actions, timeline and outages (`History`), and the picture.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("./actions.js").Actions} Actions
 * @typedef {import("../session/web-api.js").WebApi} WebApi
 */

import { duration, hasText, t, time, useTexts } from "../../common/i18n.js";
import { offer } from "../../common/disabled.js";
import { element, parts, setText } from "../../common/elements.js";
import { History } from "./history.js";
import { STATES } from "../examinees.js";
import { APPLIES } from "../several/batch.js";
import { isComposing, keyOf } from "../toolbar/keyboard.js";
import { Picture } from "./picture.js";
import { drawFacts } from "./facts.js";
import { describe, flagsText, nameOf } from "../texts.js";
import { texts as en } from "./texts.en.js";
import { texts as ko } from "./texts.ko.js";

useTexts({ en, ko });

const EXTENSIONS = [30, 60, 120, 300, 600];
/**
 * The action that a state needs, by the id of its element: it stands first.
 * @type {Readonly<Partial<Record<import("../examinees.js").State, string>>>}
 */
const NEEDED = Object.freeze({ exhausted: "readmit", syncFailed: "extend-row" });

/**
 * Fires `close`, `act` (detail: `{kind, examineeId, text?, seconds?}`), and `ask` (detail: `{kind, examineeId, who}`: an action
 * that is to be confirmed), and `seen` (detail: the id of an examinee whose flags were looked at).
 *
 * @typedef {{plan: import("../session/watched-plan.js").WatchedPlan, actions: Actions, web: WebApi,
 *   online: () => boolean}} Parts
 */
export class Panel extends EventTarget {
  /** @param {Parts} given */
  constructor({ plan, actions, web, online }) {
    super();
    this._plan = plan;
    this._root = element("panel");
    this._actions = actions;
    this._web = web;
    this._online = online;
    /** @type {Person | null} */ this.person = null;
    this._history = new History(web, {
      changed: () => this._drawFacts(),
      compensated: () => Boolean(this._plan.client.view.plan?.policy?.compensateClientClosed),
    });
    this._picture = new Picture(web);
    element("panel-close").addEventListener("click", () => this.close());
    element("attention").addEventListener("click", () => this._coversTheWall() && this.close());
    element("picture-look").addEventListener("click", () => {
      if (this.person !== null) this.dispatchEvent(new CustomEvent("pictures", { detail: this.person.id }));
    });
    this._root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !isComposing(event)) {
        event.stopPropagation();
        this.close();
      }
    });
    this._wire();
  }

  /** Show examinees of another plan from now on. @param {Parts} given */
  use({ plan, actions, web, online }) {
    this.close();
    [this._plan, this._actions, this._web, this._online] = [plan, actions, web, online];
    this._history.web = this._picture.web = web;
  }

  get open() {
    return this.person !== null;
  }

  /** Whether the panel is a page of its own, on small screens. */
  _coversTheWall() {
    return this.open && this._root.getBoundingClientRect().left <= 0;
  }

  /** Open the panel of an examinee. @param {Person} person */
  show(person) {
    const changed = this.person?.id !== person.id;
    this.person = person;
    this._root.hidden = false;
    document.documentElement.dataset.panel = "open";
    if (changed) {
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

  /** Handle a message about any examinee. @param {{type: string, data: Record<string, any>}} message */
  receive(message) {
    if (message.data.examineeId === this.person?.id) this._history.receive(message);
    // The log says what a change of the plan means for this examinee.
    else if (this.person && (message.type === "plan_state" || message.type === "plan_notice")) this._history.readSoon();
  }

  /** Read the log again: the page is up to date again, or has a new token. */
  readAgain() {
    if (this.person === null) return;
    this._history.read();
    this._picture.again(this.person);
  }

  /** Draw again: the examinee or the language has changed. */
  refresh() {
    const { person } = this;
    if (person === null) return;
    setText(element("panel-name"), nameOf(person));
    const chip = element("panel-state");
    chip.dataset.tone = STATES[person.state].tone;
    chip.querySelector("path")?.setAttribute("d", STATES[person.state].path);
    setText(chip.querySelector("span"), t(`state.${person.state}`));
    this._drawFlags(person);
    this._drawFacts();
    const { seen, state } = person;
    const readmit = state === "exhausted" || state === "removed";
    offer(element("readmit"), readmit ? "" : t("act.readmit.not"));
    offer(element("extend"), ["WAITING", "FAILED", "TIMED_OUT"].includes(seen.mobileSync) ? "" : t("act.extend.not"));
    offer(element("remove"), seen.removed ? t("act.remove.not") : "");
    element("finish").hidden = !APPLIES.finish(state);
    element("resume").hidden = !APPLIES.resume(state);
    offer(element("resume"), this._plan.canAct("resume") ? "" : t("act.not.closed"));
    const { times } = this._plan;
    const noMoreTime = seen.removed ? "act.not.removed" : times.status === "CLOSED" ? "act.not.closed" : times.endOf(person.id) === null ? "act.not.noEnd" : "";
    offer(element("extend-exam"), noMoreTime && t(noMoreTime));
    this._drawNeeded(person);
    this.drawActions();
    this._picture.show(person);
    this.tick();
  }

  /** Put the action that the state needs first, and say why. What has the focus stays where it is. @param {Person} person */
  _drawNeeded({ state }) {
    const needed = NEEDED[state];
    const first = element("panel-needed-acts");
    for (const id of Object.values(NEEDED)) {
      const action = element(id);
      const home = id === needed ? first : element("panel-acts");
      (action.querySelector("button") ?? action).classList.toggle("primary", id === needed);
      if (action.parentElement === home || action.contains(document.activeElement)) continue;
      home.insertBefore(action, home === first || id === "readmit" ? home.firstChild : element("remove"));
    }
    const box = element("panel-needed");
    box.hidden = first.children.length === 0;
    box.dataset.tone = STATES[state].tone;
    setText(element("panel-needed-text"), needed ? t(`act.needed.${state}`) : "");
  }

  /** List the facts. */
  _drawFacts() {
    if (this.person !== null) drawFacts(this.person, this._plan.times, this._history.agent, this._web.now());
  }

  /** Update the counting parts. */
  tick() {
    if (this.person === null) return;
    const detail = describe(this.person, this._web.now());
    setText(element("panel-more"), [detail.clock, detail.more].filter(Boolean).join(" · "));
    this._history.tick();
  }

  /** Draw in a new language. */
  translate() {
    drawExtensions();
    this.refresh();
    this._history.draw();
  }

  // -- actions ------------------------------------------------------------------------------

  _wire() {
    drawExtensions();
    const text = /** @type {HTMLTextAreaElement} */ (element("notify-text"));
    const seconds = /** @type {HTMLSelectElement} */ (element("extend-seconds"));
    const dialog = /** @type {HTMLDialogElement} */ (element("remove-dialog"));
    const reason = /** @type {HTMLInputElement} */ (element("remove-reason"));
    element("notify-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const message = text.value.trim();
      if (!message) return;
      this._act({ kind: "notify", text: message });
      text.value = "";
    });
    text.addEventListener("keydown", (event) => {
      // Ctrl+Enter sends, Enter begins a new line: a sent message cannot be taken back.
      if (keyOf(event) !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      const send = () => text.value.trim() && text.form?.requestSubmit();
      // The key also ends the last syllable, which is part of the message.
      if (event.isComposing) text.addEventListener("compositionend", () => setTimeout(send), { once: true });
      else send();
    });
    element("readmit").addEventListener("click", () => this._act({ kind: "readmit" }));
    element("flags-seen").addEventListener("click", () => {
      this.dispatchEvent(new CustomEvent("seen", { detail: this.person?.id }));
      element("panel-name").focus({ preventScroll: true });
    });
    element("panel-needed").addEventListener("focusout", () => setTimeout(() => this.person !== null && this._drawNeeded(this.person)));
    element("resume").addEventListener("click", () => this._act({ kind: "resume" }));
    element("finish").addEventListener("click", () => this._ask("finish"));
    element("extend-exam").addEventListener("click", () => this._ask("extend_exam"));
    element("extend").addEventListener("click", () => this._act({ kind: "extend_mobile_sync", seconds: Number(seconds.value) }));
    element("remove").addEventListener("click", () => {
      if (this.person === null) return;
      dialog.dataset.id = this.person.id;
      dialog.returnValue = "no";
      reason.value = "";
      setText(element("remove-question"), t("act.remove.question", { who: nameOf(this.person) }));
      dialog.showModal();
    });
    reason.addEventListener("keydown", (event) => {
      // Enter would press the first button of the form, which is Cancel.
      if (event.key !== "Enter" || isComposing(event)) return;
      event.preventDefault();
      if (!event.repeat) /** @type {HTMLElement} */ (dialog.querySelector('[value="yes"]')).focus();
    });
    dialog.addEventListener("close", () => {
      // The panel may show another examinee by now: act on the one of the question.
      const examineeId = dialog.dataset.id;
      if (dialog.returnValue === "yes" && examineeId) {
        this._act({ kind: "remove", text: reason.value.trim(), examineeId });
      }
    });
  }

  /** Fire `ask`. @param {"finish" | "extend_exam"} kind */
  _ask(kind) {
    if (this.person === null) return;
    this.dispatchEvent(new CustomEvent("ask", { detail: { kind, examineeId: this.person.id, who: nameOf(this.person) } }));
  }

  /** Fire `act`. @param {{kind: string, examineeId?: string, text?: string, seconds?: number}} what */
  _act(what) {
    const examineeId = what.examineeId ?? this.person?.id;
    if (examineeId) this.dispatchEvent(new CustomEvent("act", { detail: { ...what, examineeId } }));
  }

  /** List the actions of this page and their outcomes. */
  drawActions() {
    if (this.person === null) return;
    const list = element("actions");
    const lines = this._actions.of(this.person.id).slice(0, 8).map((action) => {
      const what = t(`did.${action.kind}`, { text: action.text, duration: duration(action.seconds) });
      const own = `did.${action.outcome}.${action.kind}`;
      const state = action.outcome === "pending" && !this._online() ? "did.waiting" : `did.${action.outcome}`;
      const outcome = t(hasText(own) ? own : state, { why: action.why });
      return { state: action.outcome, what, outcome, by: t("did.by", { time: time(action.at), by: action.by }) };
    });
    list.hidden = lines.length === 0;
    while (list.children.length > lines.length) list.lastElementChild?.remove();
    lines.forEach((line, at) => {
      const item = list.children[at] ?? list.appendChild(parts("li", "strong", "span", "small"));
      item.setAttribute("data-outcome", line.state);
      setText(item.children[0], line.what);
      setText(item.children[1], line.outcome);
      setText(item.children[2], line.by);
    });
  }

  /** Say in words what is strange about the examinee. @param {Person} person */
  _drawFlags({ marks, seen }) {
    element("panel-marks").hidden = marks.length === 0;
    const sentences = [];
    if (marks.includes("flagged")) sentences.push(t("flags.means", { flags: flagsText(seen.flags) }));
    if (marks.includes("unstable")) sentences.push(t("unstable.means"));
    setText(element("panel-marks-text"), sentences.join(" "));
    element("flags-seen").hidden = !marks.includes("flagged");
  }
}

function drawExtensions() {
  const select = /** @type {HTMLSelectElement} */ (element("extend-seconds"));
  const chosen = select.value || "60";
  select.replaceChildren(...EXTENSIONS.map((seconds) => new Option(`+ ${duration(seconds)}`, String(seconds))));
  select.value = chosen;
}

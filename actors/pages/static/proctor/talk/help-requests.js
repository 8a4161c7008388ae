/**
 * The open requests for help: a list above the tiles, and a part of the panel. A proctor takes a request, so that all others
 * see who is on it, answers with a message, and closes it.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("../session/watched-plan.js").WatchedPlan} WatchedPlan
 */

import { clock, person as nameOfPerson, t } from "../../common/i18n.js";
import { element, parts, setText } from "../../common/elements.js";
import { milliseconds } from "../examinees.js";
import { nameOf } from "../texts.js";

/** The most requests that are listed; all are counted, and the tiles show them. */
const MOST_LINES = 30;

/**
 * Return those whose request is open: first those whom nobody helps yet, of them the longest waiting first. Whoever has
 * finished, or was removed, needs no help any more.
 * @param {Iterable<Person>} people
 * @returns {Person[]}
 */
export function openRequests(people) {
  const open = [...people].filter(({ seen, state }) => (
    seen.help !== null && state !== "finished" && state !== "removed" && state !== "over"));
  const rank = (/** @type {Person} */ { seen }) => `${seen.help?.takenBy ? 1 : 0} ${seen.help?.since}`;
  return open.sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
}

/** Lists the requests of the shown plan. Fires `open` (detail: the examinee's id). */
export class HelpRequests extends EventTarget {
  /** @param {{plan: () => WatchedPlan, person: () => Person | null, leave: () => void}} given `person`: of the open panel.
   *   `leave`: move the focus, for the focused button is gone */
  constructor({ plan, person, leave }) {
    super();
    this._plan = plan;
    this._person = person;
    this._leave = leave;
    /** Errors of actions, by the requestId of the help. @type {Map<string, string>} */ this._errors = new Map();
    element("help-list").addEventListener("click", (event) => this._clicked(event));
    element("panel-help").addEventListener("click", (event) => this._clicked(event));
  }

  /** Draw the list and the panel's part. */
  show() {
    const plan = this._plan();
    const all = openRequests(plan.people.all.values());
    const open = all.slice(0, MOST_LINES);
    const root = element("help-requests");
    const list = element("help-list");
    const focused = list.contains(document.activeElement);
    root.hidden = open.length === 0;
    setText(element("help-count"), t("help.open", { n: all.length }));
    while (list.children.length > open.length) list.lastElementChild?.remove();
    open.forEach((person, at) => this._fill(list.children[at] ?? list.appendChild(makeLine()), person, plan));
    if (focused && !list.contains(document.activeElement)) this._leave();
    this.showPanel();
  }

  /** Draw the panel's part. */
  showPanel() {
    const person = this._person();
    const root = element("panel-help");
    root.hidden = person === null || person.seen.help === null;
    if (person === null || person.seen.help === null) return;
    if (root.querySelector(".help-line") === null) root.append(makeLine("div"));
    this._fill(/** @type {Element} */ (root.querySelector(".help-line")), person, this._plan());
  }

  /** @param {Element} line @param {Person} person @param {WatchedPlan} plan */
  _fill(line, person, plan) {
    const { help } = person.seen;
    if (help === null || !(line instanceof HTMLElement)) return;
    const mine = help.takenBy === (plan.claims?.subject ?? "");
    const since = milliseconds(help.since);
    line.dataset.id = person.id;
    line.dataset.tone = help.takenBy ? "info" : "warn";
    setText(line.querySelector(".help-who"), nameOf(person));
    setText(line.querySelector(".help-text"), help.text ?? t("help.noText"));
    const by = help.takenBy ? nameOfPerson(help.takenBy, help.takenByName) : "";
    const status = by ? t(mine ? "help.mine" : "help.taken", { by }) : t("help.waiting");
    setText(line.querySelector(".help-status"), status);
    setText(line.querySelector(".help-clock"), since === null ? "" : clock((plan.now() - since) / 1000));
    setText(line.querySelector(".help-error"), this._errors.get(help.requestId) ?? "");
    const take = /** @type {HTMLElement} */ (line.querySelector(".help-take"));
    if (mine && document.activeElement === take) /** @type {HTMLElement} */ (line.querySelector(".help-close")).focus();
    take.hidden = mine;
    name(take, t("help.take"), person);
    name(line.querySelector(".help-close"), t("help.close"), person);
  }

  /** @param {Event} event */
  _clicked(event) {
    const button = event.target instanceof Element ? event.target.closest("button") : null;
    const id = /** @type {HTMLElement | null | undefined} */ (button?.closest(".help-line"))?.dataset.id;
    const plan = this._plan();
    const help = id === undefined ? null : (plan.people.all.get(id)?.seen.help ?? null);
    if (!button || id === undefined || help === null) return;
    if (button.classList.contains("help-who")) this.dispatchEvent(new CustomEvent("open", { detail: id }));
    else {
      const { client } = plan;
      const taken = button.classList.contains("help-take");
      const answer = taken ? client.takeHelp(id, help.requestId) : client.closeHelp(id, help.requestId);
      this._errors.delete(help.requestId);
      answer.catch((error) => {
        this._errors.set(help.requestId, t("help.failed", { why: String(error.detail ?? error) }));
        this.show();
      });
      if (taken) this.dispatchEvent(new CustomEvent("open", { detail: id }));
    }
  }
}

/** @param {string} [tag] */
function makeLine(tag = "li") {
  const line = parts(tag, "button", "span", "span", "span", "span", "button", "button");
  line.className = "help-line";
  ["help-who quiet", "help-text", "help-status", "help-clock number", "help-error", "help-take primary", "help-close"].forEach((names, at) => {
    line.children[at].className = names;
  });
  for (const button of line.querySelectorAll("button")) button.type = "button";
  return line;
}

/** Name a button, for screen readers with the examinee. @param {Element | null} button @param {string} text @param {Person} person */
function name(button, text, person) {
  setText(button, text);
  button?.setAttribute("aria-label", `${text}: ${nameOf(person)}`);
}

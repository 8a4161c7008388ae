/**
 * Messages to everybody, to those that a search or filter lists, or to an incident's examinees: one message for all of them.
 * The wall counts who has confirmed each.
 *
 * @typedef {import("../session/watched-plan.js").WatchedPlan} WatchedPlan
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {{actionId: string, text: string, by: string, byName?: string, timestamp: string, examinees?: string[], version?: number}} PlanNotice
 */

import { number, person, t, time } from "../../common/i18n.js";
import { element, parts, setText } from "../../common/elements.js";
import { newActionId } from "../panel/action-sender.js";
import { namesOf } from "../several/several.js";
import { nameOf } from "../texts.js";

/**
 * Count the confirmations of all messages at once.
 * @param {Iterable<Person>} people
 * @returns {Map<string, number>} by actionId
 */
export function confirmations(people) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const { seen } of people) {
    for (const actionId of seen.confirmedPlanNotices) counts.set(actionId, (counts.get(actionId) ?? 0) + 1);
  }
  return counts;
}

/**
 * Return those for whom a message is. Whoever was removed does not count.
 * @param {PlanNotice} notice
 * @param {ReadonlyMap<string, Person>} people
 * @returns {Person[]}
 */
export function addressees({ examinees }, people) {
  const all = examinees === undefined ? [...people.values()] : examinees.flatMap((id) => people.get(id) ?? []);
  return all.filter(({ state }) => state !== "removed");
}

/** Fill a choice of the plan's canned texts; without any it is hidden. @param {string} id @param {readonly string[]} texts */
export function fillCanned(id, texts) {
  const select = /** @type {HTMLSelectElement} */ (element(id));
  const wanted = JSON.stringify([t("canned.choose"), ...texts]);
  /** @type {HTMLElement} */ (select.closest(".canned")).hidden = texts.length === 0;
  if (select.dataset.shown === wanted) return;
  select.dataset.shown = wanted;
  select.replaceChildren(new Option(t("canned.choose"), ""), ...texts.map((text) => new Option(text, text)));
}

/** Put a chosen text into the field of a message. @param {string} id of the choice @param {string} field */
export function useCanned(id, field) {
  const select = /** @type {HTMLSelectElement} */ (element(id));
  const text = /** @type {HTMLTextAreaElement} */ (element(field));
  select.addEventListener("change", () => {
    if (!select.value) return;
    text.value = select.value;
    select.value = "";
    text.dispatchEvent(new Event("input", { bubbles: true }));
    text.focus();
  });
}

/** Fires `open` (detail: an examinee's id). */
export class PlanMessages extends EventTarget {
  /** @param {{plan: () => WatchedPlan, leave: () => void}} given */
  constructor({ plan, leave }) {
    super();
    this._plan = plan;
    this._leave = leave;
    /** Whom the open dialog is for; `null`: everybody. @type {string[] | null} */ this._chosen = null;
    /** Those listed by a search or filter; `null`: nothing is narrowed. @type {string[] | null} */ this._listed = null;
    /** What was not accepted yet, or refused. @type {{plan: WatchedPlan, text: string, why: string} | null} */ this._sending = null;
    this._wire();
  }

  /** The canned texts of the plan's policy. @returns {readonly string[]} */
  get canned() {
    return this._plan().client.view.plan?.policy?.cannedTexts ?? [];
  }

  /** Offer to write to those that are listed. @param {string[] | null} ids `null`: everybody */
  offer(ids) {
    this._listed = ids;
    const count = ids === null ? this._plan().people.all.size : ids.length;
    const button = element("message-many");
    button.hidden = count === 0;
    setText(button, t(ids === null ? "talk.toAll" : "talk.toListed", { n: count }));
  }

  /** Open the dialog. @param {string[] | null} ids `null`: everybody */
  ask(ids) {
    if (ids?.length === 0) return;
    this._chosen = ids;
    const { people } = this._plan();
    const n = ids === null ? people.all.size : ids.length;
    setText(element("message-question"), t(ids === null ? "talk.all" : "talk.listed", { n }));
    const names = (ids ?? []).map((id) => nameOf(people.all.get(id) ?? { id, name: null }));
    setText(element("message-who"), ids === null ? t("talk.allMeans") : namesOf(names));
    fillCanned("message-canned", this.canned);
    const dialog = /** @type {HTMLDialogElement} */ (element("message-dialog"));
    dialog.returnValue = "no";
    dialog.showModal();
    element("message-text").focus();
  }

  _wire() {
    const dialog = /** @type {HTMLDialogElement} */ (element("message-dialog"));
    const text = /** @type {HTMLTextAreaElement} */ (element("message-text"));
    useCanned("message-canned", "message-text");
    element("message-many").addEventListener("click", () => this.ask(this._listed));
    element("message-cancel").addEventListener("click", () => dialog.close());
    element("message-form").addEventListener("submit", () => {
      if (text.value.trim()) void this._send(text.value.trim(), this._chosen);
      text.value = "";
    });
    dialog.addEventListener("close", () => {
      if (document.activeElement === null || document.activeElement === document.body) element("message-many").focus();
    });
    element("sent-list").addEventListener("click", (event) => {
      const id = event.target instanceof HTMLElement ? event.target.dataset.id : undefined;
      if (id) this.dispatchEvent(new CustomEvent("open", { detail: id }));
    });
    element("sent").addEventListener("toggle", () => this.show(), true);
  }

  /** @param {string} text @param {string[] | null} ids */
  async _send(text, ids) {
    const plan = this._plan();
    const sending = (this._sending = { plan, text, why: "" });
    this.show();
    try {
      await plan.client.notifyPlan(text, { examinees: ids ?? undefined, requestId: newActionId() });
      if (this._sending === sending) this._sending = null;
      plan.say(t("said.message"));
    } catch (error) {
      sending.why = String(/** @type {{detail?: string}} */ (error).detail ?? error);
      plan.say(t("talk.failed", { why: sending.why }));
    }
    this.show();
  }

  /** Draw the sent messages, the newest first. */
  show() {
    const plan = this._plan();
    const notices = /** @type {PlanNotice[]} */ ([...plan.client.view.planNotices.values()]);
    notices.sort((a, b) => (a.timestamp < b.timestamp ? 1 : -1));
    const counts = confirmations(plan.people.all.values());
    const sending = this._sending?.plan === plan ? this._sending : null;
    element("sent").hidden = notices.length === 0 && sending === null;
    const newest = notices.length > 0 ? this._summary(notices[0], counts) : "";
    const state = sending === null ? newest : sending.why ? t("talk.failed", { why: sending.why }) : t("talk.sending");
    setText(element("sent-newest"), state);
    setText(element("sent-text"), sending?.text ?? notices[0]?.text ?? "");
    const list = element("sent-list");
    // Who has not confirmed is looked for only while somebody looks at it.
    const shown = list.closest("details")?.open ? notices : [];
    while (list.children.length > shown.length) list.lastElementChild?.remove();
    shown.forEach((notice, at) => this._fill(list.children[at] ?? list.appendChild(makeNotice()), notice, counts));
  }

  /** @param {PlanNotice} notice @param {Map<string, number>} counts */
  _summary(notice, counts) {
    const all = addressees(notice, this._plan().people.all).length;
    const n = Math.min(counts.get(notice.actionId) ?? 0, all);
    return t("talk.confirmed", { done: number(n), all: number(all) });
  }

  /** @param {Element} item @param {PlanNotice} notice @param {Map<string, number>} counts */
  _fill(item, notice, counts) {
    const { people } = this._plan();
    const [text, from, summary, details] = item.children;
    setText(text, notice.text);
    const to = notice.examinees === undefined ? t("talk.toEverybody") : t("talk.toSome", { n: notice.examinees.length });
    setText(from, t("talk.from", { by: person(notice.by, notice.byName), time: time(notice.timestamp), to }));
    setText(summary, this._summary(notice, counts));
    const missing = addressees(notice, people.all).filter(({ seen }) => !seen.confirmedPlanNotices.includes(notice.actionId));
    const opened = /** @type {HTMLDetailsElement} */ (details);
    opened.hidden = missing.length === 0;
    setText(details.querySelector("summary"), t("talk.missing", { n: missing.length }));
    const list = /** @type {HTMLElement} */ (details.querySelector("ul"));
    const shown = opened.open ? missing : [];
    while (list.children.length > shown.length) list.lastElementChild?.remove();
    shown.forEach((person, at) => {
      const button = /** @type {HTMLElement} */ ((list.children[at] ?? list.appendChild(makePerson())).firstElementChild);
      button.dataset.id = person.id;
      setText(button, nameOf(person));
    });
  }
}

function makeNotice() {
  const item = parts("li", "p", "small", "strong", "details");
  item.children[0].className = "sent-text";
  item.children[3].append(document.createElement("summary"), document.createElement("ul"));
  return item;
}

function makePerson() {
  const item = parts("li", "button");
  const button = /** @type {HTMLButtonElement} */ (item.firstElementChild);
  button.type = "button";
  button.className = "quiet";
  return item;
}

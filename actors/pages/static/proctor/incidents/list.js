/**
 * The incidents above the wall, a line each: the cause, how many are back, and the list of the examinees.
 *
 * @typedef {import("./detection.js").Incident} Incident
 */

import { duration, t, time } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { natural } from "../examinees.js";
import { incidentName } from "../texts.js";

/**
 * The line of an incident that is over stays for so many seconds; not if the end of the exam has ended it. It stays as long
 * as one of its examinees is shut out.
 */
const STAYS_SECONDS = 120;
/** The states of a member who needs attention because of the incident, by the state in it. @type {Readonly<Record<string, string>>} */
const BEHIND = Object.freeze({ lost: "lost", out: "exhausted" });
/** The text of each state of a member, in the order of the list. */
const STATE_KEYS = Object.freeze({
  lost: "incident.notBack", out: "incident.away", back: "incident.back", ended: "incident.ended" });

/**
 * Fires `only` (detail: the incident whose examinees alone are to be shown; `null`: all), `open` (detail: the id of an
 * examinee) and `readmit` and `message`
 * (detail: the ids of an incident's examinees).
 */
export class IncidentList extends EventTarget {
  /**
   * @param {import("../session/watched-plan.js").WatchedPlan} plan
   * @param {(ids: Iterable<string>) => string[]} candidates those who can be readmitted
   */
  constructor(plan, candidates) {
    super();
    this._plan = plan;
    this._candidates = candidates;
    this._root = element("incidents");
    /** @type {Map<Incident, HTMLElement>} */ this._lines = new Map();
    /** @type {Set<Incident>} */ this._dismissed = new Set();
    /** @type {Incident | null} */ this.only = null;
  }

  /** Show the incidents of another plan from now on. @param {import("../session/watched-plan.js").WatchedPlan} plan */
  use(plan) {
    this._plan = plan;
    for (const line of this._lines.values()) line.remove();
    this._lines.clear();
    this.choose(null);
  }

  /** Return the incidents that have a line, the oldest first. @param {number} now ms since the epoch, by the servers' clock */
  _shown(now) {
    return this._plan.incidents.all.filter((incident) => !this._dismissed.has(incident) && (
      incident.ended === null ||
      (incident.over === 0 && now - incident.ended < STAYS_SECONDS * 1000) ||
      (incident.out > 0 && !this._behind(incident).next().done)));
  }

  /** Iterate over the ids of an incident's members who need attention because of it. @param {Incident} incident */
  *_behind({ members }) {
    const { all } = this._plan.people;
    for (const [id, state] of members) if (all.get(id)?.state === BEHIND[state]) yield id;
  }

  /** Return those who need attention and are behind the lines. @param {number} now ms since the epoch, by the servers' clock */
  together(now) {
    /** @type {Set<string>} */
    const ids = new Set();
    for (const incident of this._shown(now)) for (const id of this._behind(incident)) ids.add(id);
    return ids;
  }

  /**
   * Draw the lines.
   * @param {number} now ms since the epoch, by the servers' clock
   */
  show(now) {
    const shown = this._shown(now);
    for (const [incident, line] of this._lines) {
      if (shown.includes(incident)) continue;
      line.remove();
      this._lines.delete(incident);
    }
    for (const incident of shown) {
      let line = this._lines.get(incident);
      if (!line) {
        line = this._make(incident);
        this._lines.set(incident, line);
        this._root.prepend(line);
      }
      this._fill(line, incident);
    }
    this._root.hidden = shown.length === 0;
  }

  /** Draw the lines in another language. @param {number} now */
  translate(now) {
    for (const line of this._lines.values()) line.remove();
    this._lines.clear();
    this.show(now);
  }

  /** Show only the examinees of an incident. @param {Incident | null} chosen `null`: all examinees */
  choose(chosen) {
    this.only = chosen;
    for (const [incident, line] of this._lines) {
      line.querySelector(".incident-show")?.setAttribute("aria-pressed", String(incident === chosen));
    }
    this.dispatchEvent(new CustomEvent("only", { detail: chosen }));
  }

  /** Create the line of an incident. @param {Incident} incident */
  _make(incident) {
    const line = document.createElement("div");
    line.className = "note incident";
    line.innerHTML = `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="M8 1 15.5 15H.5zM7.1 6l.3 4.4h1.2L8.9 6zM7.2 11.6v1.6h1.6v-1.6z" /></svg>
      <p><strong></strong> <span class="incident-text"></span></p>
      <progress max="1" value="0" aria-hidden="true"></progress>
      <details><summary></summary><ul class="incident-who"></ul></details>
      <button type="button" class="incident-readmit" aria-haspopup="dialog" hidden></button>
      <button type="button" class="incident-message" aria-haspopup="dialog"></button>
      <button type="button" class="incident-show" aria-pressed="false"></button>
      <button type="button" class="incident-dismiss quiet"><span aria-hidden="true">✕</span></button>`;
    const show = /** @type {HTMLButtonElement} */ (line.querySelector(".incident-show"));
    show.textContent = t("incident.show");
    show.addEventListener("click", () => this.choose(this.only === incident ? null : incident));
    show.setAttribute("aria-pressed", String(this.only === incident));
    const message = /** @type {HTMLButtonElement} */ (line.querySelector(".incident-message"));
    message.textContent = t("incident.message");
    message.addEventListener("click", () => (
      this.dispatchEvent(new CustomEvent("message", { detail: [...incident.members.keys()] }))));
    line.querySelector(".incident-readmit")?.addEventListener("click", () => (
      this.dispatchEvent(new CustomEvent("readmit", { detail: [...incident.members.keys()] }))));
    const dismiss = /** @type {HTMLButtonElement} */ (line.querySelector(".incident-dismiss"));
    dismiss.addEventListener("click", () => {
      this._dismissed.add(incident);
      line.remove();
      this._lines.delete(incident);
      this._root.hidden = this._lines.size === 0;
      this.choose(this.only === incident ? null : this.only); // its members are on the wall again
    });
    setText(line.querySelector("summary"), t("incident.list"));
    line.querySelector("details")?.addEventListener("toggle", () => this._list(line, incident));
    line.querySelector("ul")?.addEventListener("click", (event) => {
      const id = event.target instanceof HTMLElement ? event.target.dataset.id : undefined;
      if (id) this.dispatchEvent(new CustomEvent("open", { detail: id }));
    });
    return line;
  }

  /** Write what is known about an incident into its line. @param {HTMLElement} line @param {Incident} incident */
  _fill(line, incident) {
    line.dataset.tone = incident.ended === null ? "bad" : "quiet";
    const name = incidentName(incident);
    setText(line.querySelector("strong"), `${name}:`);
    line.querySelector(".incident-dismiss")?.setAttribute("aria-label", t("incident.dismiss", { what: name }));
    const parts = [t(incident.of > 0 ? "incident.lineOf" : "incident.line", {
      of: incident.of, lost: incident.size, back: incident.back, notBack: incident.notBack, time: time(incident.began) })];
    if (incident.out > 0) parts.push(t("incident.out", { n: incident.out }));
    if (incident.over > 0) parts.push(t("incident.gone", { n: incident.over }));
    if (incident.ended !== null) parts.push(t("incident.over", { duration: duration((incident.ended - incident.began) / 1000) }));
    setText(line.querySelector(".incident-text"), parts.join(" · "));
    const progress = /** @type {HTMLProgressElement} */ (line.querySelector("progress"));
    progress.max = incident.size;
    progress.value = incident.back;
    this._offerReadmit(line, incident);
    this._list(line, incident);
  }

  /** Show the button that readmits, if somebody can be readmitted. @param {HTMLElement} line @param {Incident} incident */
  _offerReadmit(line, incident) {
    const readmit = /** @type {HTMLButtonElement} */ (line.querySelector(".incident-readmit"));
    const { length: n } = this._candidates(incident.members.keys());
    if (n === 0 && document.activeElement === readmit) {
      /** @type {HTMLElement} */ (line.querySelector(".incident-show")).focus();
    }
    readmit.hidden = n === 0;
    if (n > 0) setText(readmit, t("several.readmit", { n }));
  }

  /** List the members while the list is open, those who are not back first. @param {HTMLElement} line @param {Incident} incident */
  _list(line, incident) {
    const [details, list] = [line.querySelector("details"), line.querySelector("ul")];
    if (!details?.open || !list) return;
    const order = Object.keys(STATE_KEYS);
    const key = (/** @type {string} */ id) => this._plan.people.all.get(id)?.key ?? natural(id);
    const members = [...incident.members].sort(([idA, stateA], [idB, stateB]) => (
      order.indexOf(stateA) - order.indexOf(stateB) || (key(idA) < key(idB) ? -1 : 1)));
    while (list.children.length > members.length) list.lastElementChild?.remove();
    members.forEach(([id, state], place) => {
      let item = list.children[place];
      if (!item) {
        item = document.createElement("li");
        item.append(Object.assign(document.createElement("button"), { type: "button", className: "quiet" }));
        list.append(item);
      }
      const button = /** @type {HTMLButtonElement} */ (item.firstElementChild);
      button.dataset.id = id;
      button.dataset.state = state;
      setText(button, `${id} · ${t(STATE_KEYS[state])}`);
    });
  }
}

/**
 * The lines of the incidents above the wall: what they have in common, how many are back, and who is in them.
 *
 * @typedef {import("./detection.js").Incident} Incident
 * @typedef {import("./detection.js").Incidents} Incidents
 */

import { duration, t, time } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { incidentName } from "../texts.js";

/** An incident that is over stays for so long. */
const STAYS_SECONDS = 120;
const FATES = Object.freeze({ lost: "incident.gone", out: "incident.away", back: "incident.back" });

/**
 * Fires `only` (detail: the incident whose examinees are to be shown, or `null`), `open` (detail: an id) and `readmit`
 * (detail: the ids of an incident's examinees).
 */
export class IncidentList extends EventTarget {
  /** @param {Incidents} incidents @param {(ids: Iterable<string>) => string[]} shutOut who of them can be readmitted */
  constructor(incidents, shutOut) {
    super();
    this._incidents = incidents;
    this._shutOut = shutOut;
    this._root = element("incidents");
    /** @type {Map<Incident, HTMLElement>} */ this._lines = new Map();
    /** @type {Set<Incident>} */ this._dismissed = new Set();
    /** @type {Incident | null} */ this.only = null;
  }

  /**
   * Bring the lines up to date.
   * @param {number} now ms, by the servers' clock
   */
  show(now) {
    const shown = this._incidents.all.filter((one) => (
      !this._dismissed.has(one) && (one.ended === null || now - one.ended < STAYS_SECONDS * 1000)));
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

  /** The language has changed: make the lines anew. @param {number} now */
  translate(now) {
    for (const line of this._lines.values()) line.remove();
    this._lines.clear();
    this.show(now);
  }

  /** @param {Incident | null} incident */
  choose(incident) {
    this.only = incident;
    for (const [one, line] of this._lines) {
      line.querySelector(".incident-show")?.setAttribute("aria-pressed", String(one === incident));
    }
    this.dispatchEvent(new CustomEvent("only", { detail: incident }));
  }

  /** @param {Incident} incident */
  _make(incident) {
    const line = document.createElement("div");
    line.className = "note incident";
    line.innerHTML = `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="M8 1 15.5 15H.5zM7.1 6l.3 4.4h1.2L8.9 6zM7.2 11.6v1.6h1.6v-1.6z" /></svg>
      <p><strong></strong> <span class="incident-text"></span></p>
      <progress max="1" value="0" aria-hidden="true"></progress>
      <details><summary></summary><ul class="incident-who"></ul></details>
      <button type="button" class="incident-readmit" aria-haspopup="dialog" hidden></button>
      <button type="button" class="incident-show" aria-pressed="false"></button>
      <button type="button" class="incident-dismiss quiet"><span aria-hidden="true">✕</span></button>`;
    const show = /** @type {HTMLButtonElement} */ (line.querySelector(".incident-show"));
    show.textContent = t("incident.show");
    show.addEventListener("click", () => this.choose(this.only === incident ? null : incident));
    show.setAttribute("aria-pressed", String(this.only === incident));
    line.querySelector(".incident-readmit")?.addEventListener("click", () => (
      this.dispatchEvent(new CustomEvent("readmit", { detail: [...incident.members.keys()] }))));
    const dismiss = /** @type {HTMLButtonElement} */ (line.querySelector(".incident-dismiss"));
    dismiss.addEventListener("click", () => {
      this._dismissed.add(incident);
      if (this.only === incident) this.choose(null);
      line.remove();
      this._lines.delete(incident);
      this._root.hidden = this._lines.size === 0;
    });
    setText(line.querySelector("summary"), t("incident.list"));
    line.querySelector("details")?.addEventListener("toggle", () => this._list(line, incident));
    line.querySelector("ul")?.addEventListener("click", (event) => {
      const id = event.target instanceof HTMLElement ? event.target.dataset.id : undefined;
      if (id) this.dispatchEvent(new CustomEvent("open", { detail: id }));
    });
    return line;
  }

  /** @param {HTMLElement} line @param {Incident} incident */
  _fill(line, incident) {
    line.dataset.tone = incident.ended === null ? "bad" : "quiet";
    const what = incidentName(incident);
    setText(line.querySelector("strong"), `${what}:`);
    line.querySelector(".incident-dismiss")?.setAttribute("aria-label", t("incident.dismiss", { what }));
    const parts = [t("incident.line", {
      lost: incident.size, back: incident.back, gone: incident.gone, time: time(incident.began) })];
    if (incident.out > 0) parts.push(t("incident.out", { n: incident.out }));
    if (incident.ended !== null) parts.push(t("incident.over", { duration: duration((incident.ended - incident.began) / 1000) }));
    setText(line.querySelector(".incident-text"), parts.join(" · "));
    const progress = /** @type {HTMLProgressElement} */ (line.querySelector("progress"));
    progress.max = incident.size;
    progress.value = incident.back;
    this._offer(line, incident);
    this._list(line, incident);
  }

  /** @param {HTMLElement} line @param {Incident} incident */
  _offer(line, incident) {
    const readmit = /** @type {HTMLButtonElement} */ (line.querySelector(".incident-readmit"));
    const { length: n } = this._shutOut(incident.members.keys());
    if (n === 0 && document.activeElement === readmit) {
      /** @type {HTMLElement} */ (line.querySelector(".incident-show")).focus();
    }
    readmit.hidden = n === 0;
    if (n > 0) setText(readmit, t("several.readmit", { n }));
  }

  /** Who is in it, those who are gone first; only while the list is open. @param {HTMLElement} line @param {Incident} incident */
  _list(line, incident) {
    const [details, list] = [line.querySelector("details"), line.querySelector("ul")];
    if (!details?.open || !list) return;
    const order = Object.keys(FATES);
    const members = [...incident.members].sort(([a, one], [b, other]) => (
      order.indexOf(one) - order.indexOf(other) || (a < b ? -1 : 1)));
    while (list.children.length > members.length) list.lastElementChild?.remove();
    members.forEach(([id, fate], at) => {
      let item = list.children[at];
      if (!item) {
        item = document.createElement("li");
        item.append(Object.assign(document.createElement("button"), { type: "button", className: "quiet" }));
        list.append(item);
      }
      const button = /** @type {HTMLButtonElement} */ (item.firstElementChild);
      button.dataset.id = id;
      button.dataset.fate = fate;
      setText(button, `${id} · ${t(FATES[fate])}`);
    });
  }
}

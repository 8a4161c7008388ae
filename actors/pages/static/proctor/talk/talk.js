/**
 * Talking on the wall: requests for help, messages to several, and what the other proctors are doing. The wall gives it the
 * shown plan and its parts, and calls it when they change.
 *
 * @typedef {import("../session/watched-plan.js").WatchedPlan} WatchedPlan
 */

import { element, setText } from "../../common/elements.js";
import { HelpRequests } from "./help-requests.js";
import { OtherActivities, OwnActivity } from "./activity.js";
import { fillCanned, PlanMessages, useCanned } from "./plan-messages.js";

/** Fires `open` (detail: an examinee's id). */
export class Talk extends EventTarget {
  /**
   * @param {{plan: () => WatchedPlan, panel: import("../panel/panel.js").Panel, tiles: import("../tiles/tiles.js").Tiles,
   *   leave: () => void}} given `leave`: move the focus, for the focused element is gone
   */
  constructor({ plan, panel, tiles, leave }) {
    super();
    this._plan = plan;
    this._panel = panel;
    this._tiles = tiles;
    this.help = new HelpRequests({ plan, person: () => panel.person, leave });
    this.messages = new PlanMessages({ plan, leave });
    this._own = new OwnActivity();
    /** @type {Map<WatchedPlan, OtherActivities>} */ this._others = new Map();
    for (const part of [this.help, this.messages]) {
      part.addEventListener("open", (event) => this.dispatchEvent(new CustomEvent("open", { detail: /** @type {CustomEvent} */ (event).detail })));
    }
    useCanned("notify-canned", "notify-text");
    for (const type of ["input", "focus", "blur"]) element("notify-text").addEventListener(type, () => this._sayActivity());
    panel.addEventListener("close", () => this.panelChanged());
  }

  /** Listen to a plan. @param {WatchedPlan} plan */
  follow(plan) {
    const others = new OtherActivities();
    this._others.set(plan, others);
    plan.addEventListener("message", (event) => {
      const { type, data } = /** @type {CustomEvent} */ (event).detail;
      if (type === "proctor_activity") this._activityChanged(plan, others.receive(data));
    });
  }

  /** Draw what has changed in the plan. @param {string[] | null} listed by a search or filter; `null`: everybody */
  show(listed) {
    this.help.show();
    this.messages.offer(listed);
    this.messages.show();
    fillCanned("notify-canned", this.messages.canned);
  }

  /** Draw in another language. */
  translate() {
    for (const [plan, others] of this._others) {
      for (const person of plan.people.all.values()) {
        if (person.others) person.others = others.textOf(person.id, plan.claims?.subject ?? "");
      }
    }
    this._showOthers();
  }

  /** Continue what lasts; called each second. */
  tick() {
    for (const [plan, others] of this._others) this._activityChanged(plan, others.forget());
    this._sayActivity();
  }

  /** The panel shows another examinee, or was closed. */
  panelChanged() {
    this.help.showPanel();
    this._showOthers();
    this._sayActivity();
  }

  /** Say what the proctor of this page does. */
  _sayActivity() {
    const { client } = this._plan();
    const text = /** @type {HTMLTextAreaElement} */ (element("notify-text"));
    const writing = text.value.trim() !== "" && document.activeElement === text;
    this._own.update(this._panel.person?.id ?? null, writing ? "writing" : "looking", (id, doing) => client.tellActivity(id, doing));
  }

  /** @param {WatchedPlan} plan @param {string[]} ids */
  _activityChanged(plan, ids) {
    const others = this._others.get(plan);
    for (const id of ids) {
      const person = plan.people.all.get(id);
      if (person && others) person.others = others.textOf(id, plan.claims?.subject ?? "");
    }
    if (plan !== this._plan() || ids.length === 0) return;
    this._tiles.refresh(new Set(ids));
    this._showOthers();
  }

  _showOthers() {
    const line = element("panel-others");
    const text = this._panel.person?.others ?? "";
    line.hidden = text === "";
    setText(line, text);
  }
}

/**
 * The plans that the page watches, a button each: the name, the counts, the alarms, and a connection that is lost. Hidden for
 * one plan.
 *
 * @typedef {import("./watched-plan.js").WatchedPlan} WatchedPlan
 */

import { t } from "../../common/i18n.js";
import { element, parts, setText } from "../../common/elements.js";
import { connectionText } from "./connection-banner.js";
import { summaryText } from "../texts.js";

/** Fires `choose` (detail: a `WatchedPlan`). */
export class PlanTabs extends EventTarget {
  /** @param {readonly WatchedPlan[]} plans */
  constructor(plans) {
    super();
    this._root = element("plans");
    this._root.hidden = plans.length < 2;
    /** @type {Map<WatchedPlan, HTMLElement>} */ this._buttons = new Map();
    for (const plan of plans) {
      const button = parts("button", "strong", "span", "span", "span");
      button.setAttribute("type", "button");
      button.className = "plan-tab";
      button.children[2].className = "plan-alarms";
      button.children[3].className = "plan-link";
      button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("choose", { detail: plan })));
      this._buttons.set(plan, button);
      this._root.append(button);
    }
  }

  /** Draw; called each second. @param {WatchedPlan} current the plan that is shown */
  show(current) {
    if (this._root.hidden) return;
    for (const [plan, button] of this._buttons) {
      if (plan === current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
      const { client } = plan;
      const [name, counts, alarms, link] = button.children;
      setText(name, plan.name);
      setText(counts, plan.loaded ? summaryText(plan.people) : "");
      setText(alarms, plan.alarms > 0 ? t("plan.alarms", { n: plan.alarms }) : "");
      const { waitingFor, current: upToDate } = client.viewStatus;
      const { text } = connectionText(client.status, client.fresh, Date.now(), upToDate, waitingFor);
      setText(link, plan.upToDate ? "" : text);
      button.toggleAttribute("data-behind", !plan.upToDate);
    }
  }
}

/**
 * Who needs attention, in view wherever one has scrolled to: the number in the header, those whom the filters hide, and those
 * who are below the lower edge of the window.
 *
 * @typedef {import("../session/watched-plan.js").WatchedPlan} WatchedPlan
 * @typedef {import("../examinees.js").View} View
 */

import { t, useTexts } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { ALARMS, isNarrowed } from "../examinees.js";
import { Throttle } from "../tiles/throttle.js";
import { texts as en } from "./texts.en.js";
import { texts as ko } from "./texts.ko.js";

useTexts({ en, ko });

/** The number of those below follows the scrolling so often. */
const BELOW_EVERY_MS = 250;

export class Attention {
  /**
   * @param {{plans: readonly WatchedPlan[], plan: () => WatchedPlan, choose: (plan: WatchedPlan) => void, view: () => View,
   *   list: import("./list.js").IncidentList, controls: import("../toolbar/controls.js").Controls,
   *   tiles: import("../tiles/tiles.js").Tiles, leave: () => void}} given `plan`: the shown one. `choose`: show another.
   *   `leave`: move the focus, for the focused element is gone
   */
  constructor(given) {
    this._given = given;
    this._below = new Throttle(() => this._drawBelow(), BELOW_EVERY_MS);
    element("attention").addEventListener("click", () => this._toggle());
    element("hidden-show").addEventListener("click", () => this._toggle());
    element("below").addEventListener("click", () => given.tiles.goBelow());
    addEventListener("scroll", () => this._below.ask(), { passive: true });
  }

  /** The number of those who need attention, in all plans. */
  get alarms() {
    return this._given.plans.reduce((sum, plan) => sum + plan.alarms, 0);
  }

  /** Whether the wall shows those who need attention and nobody else. */
  get _alone() {
    const { states = new Set(), ...others } = this._given.view();
    return states.size === ALARMS.length && ALARMS.every((state) => states.has(state)) && !isNarrowed(others);
  }

  /** Show those who need attention and nobody else, or everybody again. If only another plan has some, show that plan. */
  _toggle() {
    const { plans, plan, choose, list, controls, tiles } = this._given;
    const alone = this._alone;
    const other = plans.find(({ alarms }) => alarms > 0);
    if (!alone && plan().alarms === 0 && other) choose(other);
    if (list.only !== null) list.choose(null);
    controls.clear(alone ? [] : ALARMS);
    tiles.scrollToTop();
  }

  /** Draw all of it. @param {View} view with those who were lost together */
  draw(view) {
    const { people } = this._given.plan();
    this._drawCount(people.alarms, this.alarms - people.alarms);
    this._drawHidden(people.hiddenAlarms(view), isNarrowed(view));
    this._below.ask();
  }

  /** Draw the number in the header. @param {number} here in the shown plan @param {number} elsewhere in other plans */
  _drawCount(here, elsewhere) {
    const [button, alone] = [element("attention"), this._alone];
    const parts = [];
    if (here > 0 || alone) parts.push(t("plan.alarms", { n: here }));
    if (elsewhere > 0) parts.push(t("attention.elsewhere", { n: elsewhere }));
    button.setAttribute("aria-pressed", String(alone));
    button.dataset.tone = here + elsewhere > 0 ? "bad" : "quiet";
    setText(button.querySelector("span"), parts.join(" · "));
    this._show(button, parts.length > 0);
  }

  /**
   * Say how many who need attention are not among the tiles.
   * @param {number} n @param {boolean} narrowed whether a search or filter hides them; else they are behind the lines of incidents
   */
  _drawHidden(n, narrowed) {
    if (n > 0) setText(element("hidden-text"), t(narrowed ? "attention.hidden" : "attention.together", { n }));
    element("hidden").dataset.tone = narrowed ? "bad" : "quiet";
    this._show(element("hidden"), n > 0);
  }

  /** Say how many are below the window; in the overview always, for there everybody is to be seen at once. */
  _drawBelow() {
    const { tiles, controls } = this._given;
    const without = tiles.below(false); // the line itself must not be the reason to show it
    const shown = without.alarms > 0 || (without.people > 0 && controls.size === "dots");
    const { people, alarms } = tiles.below(shown);
    const parts = [t("attention.below", { n: people })];
    if (alarms > 0) parts.push(t("plan.alarms", { n: alarms }));
    if (shown) setText(element("below").querySelector("span"), parts.join(" · "));
    element("below").dataset.tone = alarms > 0 ? "bad" : "quiet";
    document.documentElement.toggleAttribute("data-below", shown);
    this._show(element("below"), shown);
  }

  /** Show or hide an element; one that has the focus gives it away. @param {HTMLElement} part @param {boolean} shown */
  _show(part, shown) {
    if (part.hidden === !shown) return;
    const focused = !shown && part.contains(document.activeElement);
    part.hidden = !shown;
    if (focused) this._given.leave();
  }
}

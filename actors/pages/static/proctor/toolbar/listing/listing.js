/**
 * Prints the list as it is filtered, and saves it as a table for spreadsheets. The tiles of the wall are drawn only where they
 * are in view, so the paper has a table of its own, which is there only while the browser prints.
 *
 * @typedef {import("../../examinees.js").Person} Person
 * @typedef {import("../../session/watched-plan.js").WatchedPlan} WatchedPlan
 */

import { dateTime, t, useTexts } from "../../../common/i18n.js";
import { element, parts, setText } from "../../../common/elements.js";
import { isNarrowed } from "../../examinees.js";
import { csvTable } from "./csv.js";
import { exportedRows, filterText, printedRows, stamp } from "./table.js";
import { texts as en } from "./texts.en.js";
import { texts as ko } from "./texts.ko.js";

useTexts({ en, ko });

/** Some browsers read a file that is saved only after the click (ms). */
const READ_MS = 60_000;

/**
 * The two buttons, and what the browser prints.
 * @typedef {{plan: () => WatchedPlan, shown: () => readonly Person[], view: () => import("../../examinees.js").View,
 *   incident: () => import("../../incidents/detection.js").Incident | null}} Parts
 */
export class Listing {
  /** @param {Parts} given what the wall shows */
  constructor(given) {
    this._given = given;
    element("list-print").addEventListener("click", () => print());
    element("list-csv").addEventListener("click", () => this._save());
    addEventListener("beforeprint", () => this._fill());
    addEventListener("afterprint", () => element("paper-table").replaceChildren());
  }

  /** Return whom the wall shows, and those who are behind the lines of incidents: no filter leaves them out. */
  _listed() {
    const view = this._given.view();
    return isNarrowed(view) ? this._given.shown() : this._given.plan().people.shown(view);
  }

  /** Write what is printed. */
  _fill() {
    const plan = this._given.plan();
    const people = this._listed();
    setText(element("paper-title"), plan.title);
    const filter = filterText(this._given.view(), this._given.incident());
    const count = t("list.count", { n: people.length, all: plan.people.all.size });
    const behind = plan.upToDate ? "" : t("list.behind");
    setText(element("paper-what"), [dateTime(plan.now()), count, filter && t("list.filter", { filter }), behind].filter(Boolean).join(" · "));
    const [header, ...rows] = printedRows(people, plan.now());
    const table = parts("table", "thead", "tbody");
    table.children[0].append(rowOf("th", header));
    table.children[1].append(...rows.map((row) => rowOf("td", row)));
    element("paper-table").replaceChildren(...table.children);
  }

  /** Save the list as a file. */
  _save() {
    const plan = this._given.plan();
    const people = this._listed();
    const text = csvTable(exportedRows(people, plan.times, plan.now()));
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    const name = `examwire-${plan.id}-${stamp(plan.now()).replace(" ", "-").replaceAll(":", "")}.csv`;
    Object.assign(document.createElement("a"), { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), READ_MS);
    plan.say(t("list.saved", { n: people.length }));
  }
}

/** @param {"th" | "td"} kind @param {readonly string[]} cells */
function rowOf(kind, cells) {
  const row = document.createElement("tr");
  row.append(...cells.map((text) => {
    const cell = document.createElement(kind);
    cell.textContent = text;
    return cell;
  }));
  return row;
}

/**
 * The filters besides the states: by mark (flagged, unstable) and by the values of the labels (rooms). Each chip is there while
 * somebody has it, or it is pressed.
 *
 * @typedef {import("../examinees.js").Mark} Mark
 * @typedef {import("../examinees.js").People} People
 */

import { t } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { MARKS } from "../examinees.js";
import { counted, labelText } from "../texts.js";

/** A label with more values has no chips: each seat has one examinee, who is found by the search. */
const MOST_VALUES = 12;
export const MARK_PATHS = Object.freeze({
  // an eye
  flagged: "M8 3c4 0 7 3.2 8 5-1 1.8-4 5-8 5S1 9.8 0 8c1-1.8 4-5 8-5zM8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 6.6a1.4 1.4 0 1 1 0 2.8 1.4 1.4 0 0 1 0-2.8z",
  // a wave
  unstable: "M0 9h3l2-7 3 12 3-9 1.5 4H16v2h-4.8l-.6-1.5L7.9 16 5.1 6 4.5 11H0z",
});

/** Fires `change` when a chip was pressed. */
export class MoreFilters extends EventTarget {
  constructor() {
    super();
    this._root = element("more-filters");
    /** @type {Set<Mark>} */ this.marks = new Set();
    /** The chosen values by the label's name. @type {Map<string, Set<string>>} */ this.labels = new Map();
    /** @type {Map<string, HTMLButtonElement>} by mark, or by label and value */ this._chips = new Map();
  }

  /** Clear the filters. */
  clear() {
    this.marks.clear();
    this.labels.clear();
  }

  /** Draw the chips. @param {People} people */
  show(people) {
    /** @type {Set<string>} */
    const shown = new Set();
    for (const mark of MARKS) {
      const [count, pressed] = [people.marks[mark], this.marks.has(mark)];
      if (count === 0 && !pressed) continue;
      shown.add(mark);
      this._draw(mark, counted(t(`mark.${mark}`), count), pressed, () => toggle(this.marks, mark), MARK_PATHS[mark]);
    }
    for (const [name, values] of people.labels) {
      const chosen = this.labels.get(name) ?? new Set();
      if (values.size > MOST_VALUES || values.size === 0 || Math.max(...values.values()) < 2) continue;
      for (const value of [...new Set([...values.keys(), ...chosen])].sort(byNumber)) {
        const key = JSON.stringify([name, value]);
        shown.add(key);
        const text = counted(labelText(name, value), values.get(value) ?? 0);
        this._draw(key, text, chosen.has(value), () => toggle(this._valuesOf(name), value));
      }
    }
    for (const [key, chip] of this._chips) {
      if (shown.has(key)) continue;
      chip.remove();
      this._chips.delete(key);
    }
    this._root.hidden = shown.size === 0;
  }

  /** @param {string} name of a label */
  _valuesOf(name) {
    const chosen = this.labels.get(name) ?? new Set();
    this.labels.set(name, chosen);
    return chosen;
  }

  /**
   * Draw one chip.
   * @param {string} key @param {string} text @param {boolean} pressed @param {() => void} press @param {string} [path] of its icon
   */
  _draw(key, text, pressed, press, path) {
    let chip = this._chips.get(key);
    if (!chip) {
      chip = document.createElement("button");
      chip.type = "button";
      chip.className = "filter";
      chip.dataset.key = key;
      if (path) {
        chip.dataset.tone = "warn";
        chip.innerHTML = `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="${path}" /></svg>`;
      }
      chip.append(document.createElement("span"));
      chip.addEventListener("click", () => {
        press();
        this.dispatchEvent(new Event("change"));
      });
      this._chips.set(key, chip);
      if (path) this._root.prepend(chip);
      else this._root.append(chip);
    }
    chip.setAttribute("aria-pressed", String(pressed));
    setText(chip.querySelector("span"), text);
  }
}

/** @template T @param {Set<T>} set @param {T} value */
function toggle(set, value) {
  if (!set.delete(value)) set.add(value);
}

/** Compare so that room 2 comes before room 10. @param {string} a @param {string} b */
function byNumber(a, b) {
  return a.localeCompare(b, undefined, { numeric: true });
}

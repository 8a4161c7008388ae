/**
 * One place on the wall, and the examinee that it shows. It writes only what has changed.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {"large" | "small" | "dots"} Size
 */

import { language, t } from "../../common/i18n.js";
import { describe, marksText, nameOf } from "../texts.js";
import { STATES } from "../examinees.js";

/** What is written on a tile of each size. The rest is in its accessible name, and in its tooltip. */
const PARTS = Object.freeze({
  large: /** @type {const} */ (["id", "name", "word", "clock", "more", "place"]),
  small: /** @type {const} */ (["id", "word", "clock"]),
  dots: /** @type {const} */ ([]),
});

/** A text of so many letters always fits; CJK letters count twice. */
const SHORT = 10;
const LATIN = /^[\u0000-\u024f\u2010-\u2027]*$/;

/** A list item with the button of one examinee. */
export class Tile {
  /** @param {Size} size */
  constructor(size) {
    this._size = size;
    /** The list item. Its place in the list stays when it shows another examinee. */
    this.slot = document.createElement("div");
    this.slot.className = "slot";
    this.slot.setAttribute("role", "listitem");
    this.button = document.createElement("button");
    this.button.type = "button";
    this.button.className = "tile";
    this.button.tabIndex = -1;
    this.slot.append(this.button);
    /** Has the icon as its background; of a dot it is the button itself, which saves an element. @type {HTMLElement} */
    this._icon = this.button;
    if (size !== "dots") {
      this._icon = document.createElement("i");
      this._icon.className = "icon";
      this.button.append(this._icon);
    }
    /** @type {[keyof ReturnType<typeof detailOf>, Text][]} */
    this._texts = PARTS[size].map((part) => {
      const element = span(`tile-${part}`);
      const text = document.createTextNode("");
      element.append(text);
      this.button.append(element);
      return [part, text];
    });
    if (size === "large") {
      // Id and name have a line of their own, and so have what happens next and the place.
      const [who, foot] = [span("tile-who"), span("tile-foot")];
      who.append(...this.button.querySelectorAll(".tile-id, .tile-name"));
      foot.append(...this.button.querySelectorAll(".tile-more, .tile-place"));
      this._icon.after(who);
      this.button.append(foot);
    }
    this._shown = { id: "", state: "", where: "", marks: "", label: "", language: "", place: -1, total: -1, tabStop: false };
    /** @type {string | null} */ this._name = null;
  }

  /** The examinee that it shows. */
  get id() {
    return this._shown.id;
  }

  /** Its place in the list, from 0. */
  get place() {
    return this._shown.place;
  }

  /** Set the place in the list, from 0, and the length of the list. @param {number} place @param {number} total */
  setPlace(place, total) {
    const shown = this._shown;
    if (shown.place !== place) this.slot.setAttribute("aria-posinset", String(place + 1));
    if (shown.total !== total) this.slot.setAttribute("aria-setsize", String(total));
    [shown.place, shown.total] = [place, total];
  }

  /** Whether it is in the tab order. @param {boolean} tabStop */
  set tabStop(tabStop) {
    if (this._shown.tabStop === tabStop) return;
    this._shown.tabStop = tabStop;
    this.button.tabIndex = tabStop ? 0 : -1;
  }

  /** Show an examinee. @param {Person} person @param {number} now ms since the epoch, by the servers' clock */
  show(person, now) {
    const shown = this._shown;
    const { id, state, name } = person;
    const marks = person.marks.length > 0 ? marksText(person) : "";
    const same = shown.id === id && shown.state === state && this._name === name && shown.language === language() &&
      shown.marks === marks && shown.where === person.place;
    if (same && this._size === "dots") return; // it has no countdown
    if (shown.id !== id) this.button.dataset.id = id;
    if (shown.state !== state) {
      this.button.dataset.state = state;
      this.button.dataset.tone = STATES[state].tone;
      this._icon.dataset.icon = state;
    }
    if ((shown.marks === "") !== (marks === "")) this.button.toggleAttribute("data-marked", marks !== "");
    [shown.id, shown.state, this._name, shown.language] = [id, state, name, language()];
    [shown.marks, shown.where] = [marks, person.place];
    if (this._size === "dots") {
      this._label(nameOf(person), person.place, t(`state.${state}`), marks);
      return;
    }
    const detail = detailOf(person, now);
    for (const [part, text] of this._texts) {
      if (text.data === detail[part]) continue;
      text.data = detail[part];
      // A text that can be cut off costs the browser a layer, so only long texts can.
      text.parentElement?.classList.toggle("long", isLong(text.data));
    }
    if (this._size === "small") this._label(nameOf(person), person.place, detail.word, detail.clock, detail.more, detail.more === marks ? "" : marks);
  }

  /** Set the accessible name, if not all of it is written on the tile. @param {...string} words */
  _label(...words) {
    const label = words.filter(Boolean).join(" · ");
    if (this._shown.label !== label) this.button.setAttribute("aria-label", (this._shown.label = label));
  }
}

/** Return all texts of a tile. @param {Person} person @param {number} now */
function detailOf(person, now) {
  const texts = describe(person, now);
  const more = [person.others, texts.more].filter(Boolean).join(" · ");
  return { id: person.id, name: person.name ?? "", place: person.place, ...texts, more };
}

/** Create a `<span>`. @param {string} className */
function span(className) {
  return Object.assign(document.createElement("span"), { className });
}

/** Whether a text may have to be cut off. @param {string} text */
function isLong(text) {
  return text.length * (LATIN.test(text) ? 1 : 2) > SHORT;
}

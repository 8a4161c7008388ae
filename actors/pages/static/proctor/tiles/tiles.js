/**
 * The tiles of the wall. The list may have any length: only rows in view are in the document (`Rows`). One tile is in the
 * tab order, and the arrow keys move the focus from tile to tile. The focus stays with its examinee when the order changes.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("./tile.js").Size} Size
 */

import { element } from "../../common/elements.js";
import { STATES } from "../examinees.js";
import { fitDots, rowLabel } from "./fit.js";
import { Rows } from "./rows.js";

/** So many rows above and below the view are drawn, too. */
const SPARE_ROWS = 2;
/**
 * The distance between the dots of the overview, in rem. A finger needs 1.75, with the gap (WCAG 2.5.8). For a mouse they are smaller where
 * all of them fit only so: the search and the larger tiles do the same (its exception "equivalent").
 */
const DOTS = Object.freeze({ most: 2, leastForFinger: 1.75, leastForMouse: 1 });
/** The dots leave room for the line of an incident (rem), so that nobody loses their place when one begins. */
const ROOM_FOR_INCIDENT = 5;
/** The dots are fitted for a multiple of this number, so that they keep their size while a few come or go. */
const DOTS_STEP = 250;
/** The width of a letter in the label of a row (rem). */
const LABEL_LETTER = 0.5;

/** Fires `open` (detail: the examinee's id) when a tile is chosen. */
export class Tiles extends EventTarget {
  /** @param {HTMLElement} root @param {() => number} now ms since the epoch, by the servers' clock */
  constructor(root, now) {
    super();
    this._root = root;
    this._now = now;
    this._rows = new Rows(root, now);
    /** @type {readonly Person[]} */ this._people = [];
    /** The place of each examinee in the list. @type {Map<string, number>} */ this._places = new Map();
    /** @type {Size | null} */ this._size = null;
    /** The width of the list in px. */ this._width = 0;
    /** Where the list begins, in px below the upper edge of the window. */
    this._top = 0;
    /** Where the part of the window ends that nothing but the line below the tiles may cover, in px. */ this._edge = innerHeight;
    /** How much of it that line covers while it is shown, in px. */ this._footHeight = 0;
    /** Where the list begins, in px below the beginning of the page, when that was last measured. */ this._pageTop = 0;
    this._columns = 1;
    /** From one row to the next, in px. */ this._rowHeight = 1;
    /** The parts above the tiles that are always there. */ this._above = [".bar", "#exam", "#plans", ".controls"].map(
      (selector) => /** @type {HTMLElement} */ (document.querySelector(selector)));
    /** The height of these parts, in px. */ this._aboveHeight = 0;
    /** What the size of the dots was computed from. */ this._fittedFor = "";
    /** The examinee whose tile is in the tab order. @type {string | null} */ this._current = null;
    /** When the pointer or the keys last moved over the tiles (`performance.now()`): their order waits for that. */
    this.touched = -Infinity;
    // The tiles also move when something above them changes its height.
    const resizes = new ResizeObserver(() => this._resized());
    for (const part of [root, document.body, ...this._above]) resizes.observe(part);
    addEventListener("resize", () => this._measure(true), { passive: true });
    addEventListener("scroll", () => this._updateView(), { passive: true });
    root.addEventListener("click", (event) => this._clicked(event));
    root.addEventListener("keydown", (event) => this._key(event));
    root.addEventListener("focusin", (event) => this._focused(event));
    for (const type of ["pointerover", "pointerout"]) root.addEventListener(type, (event) => this._hovered(event));
    root.addEventListener("pointermove", () => (this.touched = performance.now()), { passive: true });
  }

  /** How many tiles are in the document. */
  get drawn() {
    return this._rows.drawn;
  }

  /** Handle a change of the list's width or place. */
  _resized() {
    const above = this._above.reduce((sum, part) => sum + part.offsetHeight, 0);
    const refits = chosenSize() === "dots" && above !== this._aboveHeight;
    this._aboveHeight = above;
    const before = this._top;
    if (this._root.clientWidth !== this._width || refits) {
      this._measure(true);
      return;
    }
    this._updateView();
    const pageTop = this._top + scrollY;
    const moved = pageTop !== this._pageTop;
    this._pageTop = pageTop;
    // Whoever has scrolled down goes on to see what is there, while a line comes or goes above. At the end of the page the
    // browser has scrolled already.
    if (moved && this._top < 0) scrollBy(0, this._top - before);
  }

  /** Compute rows and columns. What is looked at stays in its place. @param {boolean} draw whether to draw the tiles, too */
  _measure(draw) {
    const anchor = this._anchor();
    this._width = this._root.clientWidth;
    this._size = chosenSize();
    if (this._size === "dots") this._fitDots();
    else this._readSizes();
    this._root.style.setProperty("--columns", String(this._columns));
    this._rows.shape(this._size, this._columns, this._rowHeight);
    if (draw) this._draw();
    this._pageTop = this._root.getBoundingClientRect().top + scrollY;
    if (anchor !== null) scrollTo(0, this._pageTop + this._yOf(anchor.place) - anchor.y);
    this._updateView();
  }

  /** Compute rows and columns from the sizes in the style sheet. */
  _readSizes() {
    const style = getComputedStyle(document.documentElement);
    const rem = parseFloat(style.fontSize);
    const read = (/** @type {string} */ name) => parseFloat(style.getPropertyValue(name)) * rem;
    const [width, height, gap] = [read("--tile-width"), read("--tile-height"), read("--tile-gap")];
    this._columns = Math.max(1, Math.floor((this._width + gap) / (width + gap)));
    this._rowHeight = height + gap;
    for (const name of ["--tile-height", "--tile-gap", "--row-label"]) this._root.style.removeProperty(name);
  }

  /** Compute rows and columns so that all dots fit into the window, if they can. */
  _fitDots() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const letters = this._labelLetters();
    const label = letters === 0 ? 0 : (letters * LABEL_LETTER + 0.5) * rem;
    const finger = matchMedia("(pointer: coarse)").matches;
    const { pitch, columns } = fitDots({
      count: Math.ceil(this._people.length / DOTS_STEP) * DOTS_STEP,
      width: this._width - label,
      height: innerHeight - this._aboveHeight,
      spare: ROOM_FOR_INCIDENT * rem,
      least: (finger ? DOTS.leastForFinger : DOTS.leastForMouse) * rem,
      most: DOTS.most * rem,
      otherwise: DOTS.leastForFinger * rem,
    });
    [this._columns, this._rowHeight] = [columns, pitch];
    const gap = pitch < 1.5 * rem ? 2 : 4;
    this._root.style.setProperty("--tile-height", `${pitch - gap}px`);
    this._root.style.setProperty("--tile-gap", `${gap}px`);
    this._root.style.setProperty("--row-label", `${label}px`);
    this._fittedFor = this._fitKey();
  }

  /** The letters of the longest label of a row; 0: rows have none. */
  _labelLetters() {
    if (!this._rows.labelled) return 0;
    return this._people.reduce((longest, { id }) => Math.max(longest, rowLabel(id).length), 0);
  }

  /** What the size of the dots depends on, beside the window. */
  _fitKey() {
    return `${Math.ceil(this._people.length / DOTS_STEP)} ${this._labelLetters()}`;
  }

  /**
   * Show examinees in this order.
   * @param {readonly Person[]} people
   * @param {boolean} byId whether they are in the order of their ids: then each row of the overview begins with one
   */
  order(people, byId) {
    this._rows.labelled = byId;
    const previousPlace = this._currentPlace();
    const inView = this._focusIsInView();
    this._people = people;
    this._places = new Map(people.map((person, place) => [person.id, place]));
    if (this._current === null || !this._places.has(this._current)) {
      // The examinee in the tab order is no longer shown: take the one who is at that place now.
      this._current = people[Math.min(previousPlace, people.length - 1)]?.id ?? null;
    }
    const size = chosenSize();
    if (this._size !== size || (size === "dots" && this._fittedFor !== this._fitKey())) this._measure(false);
    this._draw();
    if (inView) this._bringIntoView(this._currentPlace());
  }

  /** Update the tiles of examinees who have changed. @param {Iterable<string>} ids */
  refresh(ids) {
    const now = this._now();
    for (const id of ids) {
      const place = this._places.get(id);
      if (place !== undefined) this._rows.tile(place)?.show(this._people[place], now);
    }
  }

  /** Update the times that count. */
  tick() {
    const now = this._now();
    for (const tile of this._rows.tiles()) tile.show(this._people[tile.place], now);
  }

  /** Draw the rows in view. */
  _draw() {
    const losesFocus = this._people.length === 0 && this._root.contains(document.activeElement);
    this._root.style.height = `${Math.ceil(this._people.length / this._columns) * this._rowHeight}px`;
    this._rows.show(this._people, this._rowsToDraw(), this._currentPlace());
    if (losesFocus) this._root.focus({ preventScroll: true });
  }

  /** Draw the rows in view after the page was scrolled. Reading the position forces a layout, so it is not done while writing. */
  _updateView() {
    this._top = this._root.getBoundingClientRect().top;
    this._edge = innerHeight - (parseFloat(getComputedStyle(document.documentElement).scrollPaddingBottom) || 0);
    const foot = element("foot");
    this._footHeight = getComputedStyle(foot).position === "sticky" ? foot.offsetHeight : 0;
    this._rows.view(this._rowsToDraw());
  }

  /** Return the numbers of the rows to draw: those in view, and the row of the tile in the tab order. */
  _rowsToDraw() {
    const rows = Math.ceil(this._people.length / this._columns);
    const limited = (/** @type {number} */ row) => Math.min(rows, Math.max(0, row));
    const first = limited(Math.floor(-this._top / this._rowHeight) - SPARE_ROWS);
    const last = limited(Math.ceil((innerHeight - this._top) / this._rowHeight) + SPARE_ROWS);
    const numbers = Array.from({ length: Math.max(0, last - first) }, (_, k) => first + k);
    const current = Math.floor(this._currentPlace() / this._columns);
    if (current < rows && (current < first || current >= last)) numbers.push(current);
    return numbers;
  }

  /** Return the place of the tile in the tab order. */
  _currentPlace() {
    return this._current === null ? 0 : (this._places.get(this._current) ?? 0);
  }

  // -- what is in view -------------------------------------------------------------------------------------------

  /** Return where the row of a place begins, in px below the beginning of the list. @param {number} place */
  _yOf(place) {
    return Math.floor(place / this._columns) * this._rowHeight;
  }

  /** The px at the upper and the lower edge of the window that other parts cover. */
  _covered() {
    const { scrollPaddingTop, scrollPaddingBottom } = getComputedStyle(document.documentElement);
    const header = this._above[0].getBoundingClientRect().bottom;
    // `scroll-padding` would scroll the page whenever this line itself gets the focus.
    const line = element("foot");
    const covers = !element("below").hidden && getComputedStyle(line).position === "sticky";
    const foot = covers ? innerHeight - line.getBoundingClientRect().top : 0;
    return { above: Math.max(header, parseFloat(scrollPaddingTop) || 0), below: Math.max(foot, parseFloat(scrollPaddingBottom) || 0) };
  }

  /** Return the places of which at least half of the row is in view, as the first and the one after the last. */
  _placesInView() {
    const { above, below } = this._covered();
    const top = this._pageTop - scrollY;
    return { first: this._placeAt(above - top), end: this._placeAt(innerHeight - below - top) };
  }

  /** Return the first place in or below the row at `y`, if half of that row is below it. @param {number} y in px, in the list */
  _placeAt(y) {
    const row = Math.max(0, Math.ceil(y / this._rowHeight - 0.5));
    return Math.min(this._people.length, row * this._columns);
  }

  /** Return the place that is looked at, and where its row is in the window: of the current tile if it is in view, else the first. */
  _anchor() {
    const { first, end } = this._placesInView();
    const current = this._currentPlace();
    const place = current >= first && current < end ? current : first;
    if (scrollY === 0 || this._people.length === 0) return null;
    return { place, y: this._pageTop - scrollY + this._yOf(place) };
  }

  /**
   * Count the tiles below the window, and those of them that need attention. Reads no layout: it is asked all the time.
   * @param {boolean} withFoot whether those count that the line below the tiles covers while it is shown
   */
  below(withFoot) {
    const end = this._placeAt(this._edge - (withFoot ? this._footHeight : 0) - this._top);
    let alarms = 0;
    for (let place = end; place < this._people.length; place += 1) if (STATES[this._people[place].state].alarm) alarms += 1;
    return { people: this._people.length - end, alarms };
  }

  /** Go to the first below the window who needs attention, else to the first one there. */
  goBelow() {
    const { end } = this._placesInView();
    const alarm = this._people.findIndex(({ state }, place) => place >= end && STATES[state].alarm);
    const place = alarm >= 0 ? alarm : end;
    if (place >= this._people.length) return;
    scrollBy(0, this._root.getBoundingClientRect().top + this._yOf(place) - this._covered().above - 8);
    this.focus(this._people[place].id);
  }

  /** Bring the beginning of the list into view, if it is above the window. */
  scrollToTop() {
    if (this._root.getBoundingClientRect().top < this._covered().above) element("wall").scrollIntoView();
  }

  // -- pointer, keys and focus ------------------------------------------------------------------------------------

  /** Fire `open` for the tile that was clicked. @param {Event} event */
  _clicked(event) {
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    if (tile instanceof HTMLElement && tile.dataset.id) {
      this.dispatchEvent(new CustomEvent("open", { detail: tile.dataset.id }));
    }
  }

  /** Show what does not fit on a tile as a tooltip. @param {Event} event */
  _hovered(event) {
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    const label = event.type === "pointerover" ? tile?.getAttribute("aria-label") : null;
    if (label) tile?.setAttribute("title", label);
    else tile?.removeAttribute("title");
  }

  /** Put the focused tile into the tab order. @param {FocusEvent} event */
  _focused(event) {
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    if (event.target === this._root) this.focus();
    if (!(tile instanceof HTMLElement) || !tile.dataset.id) return;
    this._current = tile.dataset.id;
    this._rows.setTabStop(this._currentPlace());
  }

  /** Move the focus with the arrow keys. @param {KeyboardEvent} event */
  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this._current === null) return;
    const page = Math.max(1, Math.floor(innerHeight / this._rowHeight) - 1) * this._columns;
    const place = this._currentPlace();
    /** @type {Record<string, number>} */
    const targets = {
      ArrowLeft: place - 1,
      ArrowRight: place + 1,
      ArrowUp: place - this._columns,
      ArrowDown: place + this._columns,
      PageUp: Math.max(place % this._columns, place - page),
      PageDown: Math.min(this._people.length - 1, place + page),
      Home: 0,
      End: this._people.length - 1,
    };
    const target = targets[event.key];
    if (target === undefined) return;
    event.preventDefault();
    this.touched = performance.now();
    if (target >= 0 && target < this._people.length) this.focus(this._people[target].id);
  }

  /**
   * Give the focus to an examinee's tile (default: the one in the tab order), and bring it into view.
   * @param {string | null} [id]
   * @returns {boolean} whether it is on the wall
   */
  focus(id = this._current) {
    const place = id === null ? undefined : this._places.get(id);
    if (id === null || place === undefined) return false;
    this._current = id;
    this._bringIntoView(place);
    this._rows.setTabStop(place);
    const tile = this._rows.tile(place);
    tile?.button.focus({ preventScroll: true });
    return tile !== undefined;
  }

  /** Scroll until the row of a place is in view. @param {number} place */
  _bringIntoView(place) {
    const top = this._root.getBoundingClientRect().top + this._yOf(place);
    const { above, below } = this._covered();
    if (top < above) scrollBy(0, top - above - 8);
    else if (top + this._rowHeight > innerHeight - below) scrollBy(0, top + this._rowHeight - innerHeight + below + 8);
    this._updateView();
  }

  /** Whether a tile has the focus and is in view. A person may also have scrolled away from it. */
  _focusIsInView() {
    const focused = document.activeElement;
    if (focused === null || focused === this._root || !this._root.contains(focused)) return false;
    const { top, bottom } = focused.getBoundingClientRect();
    const { above, below } = this._covered();
    return bottom > above && top < innerHeight - below;
  }

  /** Give the focus to an examinee's tile if it is in view, else to the first tile that is: nothing scrolls. @param {string | null} id */
  focusInView(id) {
    const { first, end } = this._placesInView();
    const place = (id === null ? undefined : this._places.get(id)) ?? -1;
    const inView = place >= first && place < end ? place : Math.min(first, this._people.length - 1);
    this._current = this._people[inView]?.id ?? null;
    this._rows.setTabStop(inView);
    this._rows.tile(inView)?.button.focus({ preventScroll: true });
  }
}

/** Return the size of the tiles that the page is set to. @returns {Size} */
function chosenSize() {
  return /** @type {Size} */ (document.documentElement.dataset.size ?? "large");
}

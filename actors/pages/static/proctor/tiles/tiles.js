/**
 * The tiles of the wall. The list may have any length: only rows in view are in the document (`Rows`). One tile is in the
 * tab order, and the arrow keys move the focus from tile to tile. The focus stays with its examinee when the order changes.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("./tile.js").Size} Size
 */

import { Rows } from "./rows.js";

/** So many rows above and below the view are drawn, too. */
const SPARE_ROWS = 2;

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
    this._columns = 1;
    /** From one row to the next, in px. */ this._rowHeight = 1;
    /** The examinee whose tile is in the tab order. @type {string | null} */ this._current = null;
    /** When the pointer or the keys last moved over the tiles (`performance.now()`): their order waits for that. */
    this.touched = -Infinity;
    // The tiles also move when something above them changes its height.
    const resizes = new ResizeObserver(() => this._resized());
    resizes.observe(root);
    resizes.observe(document.body);
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
    if (this._root.clientWidth !== this._width) this._measure(true);
    else this._updateView();
  }

  /** Compute rows and columns from the sizes in the style sheet. @param {boolean} draw whether to draw the tiles, too */
  _measure(draw) {
    const style = getComputedStyle(this._root);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const read = (/** @type {string} */ name) => parseFloat(style.getPropertyValue(name)) * rem;
    const [width, height, gap] = [read("--tile-width"), read("--tile-height"), read("--tile-gap")];
    this._width = this._root.clientWidth;
    this._top = this._root.getBoundingClientRect().top;
    this._columns = Math.max(1, Math.floor((this._width + gap) / (width + gap)));
    this._rowHeight = height + gap;
    this._root.style.setProperty("--columns", String(this._columns));
    this._size = chosenSize();
    this._rows.shape(this._size, this._columns, this._rowHeight);
    if (draw) this._draw();
  }

  /** Show examinees in this order. @param {readonly Person[]} people */
  order(people) {
    if (this._size !== chosenSize()) this._measure(false);
    const previousPlace = this._currentPlace();
    const inView = this._focusIsInView();
    this._people = people;
    this._places = new Map(people.map((person, place) => [person.id, place]));
    if (this._current === null || !this._places.has(this._current)) {
      // The examinee in the tab order is no longer shown: take the one who is at that place now.
      this._current = people[Math.min(previousPlace, people.length - 1)]?.id ?? null;
    }
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
    const top = this._root.getBoundingClientRect().top + Math.floor(place / this._columns) * this._rowHeight;
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

  /** The px at the upper and the lower edge of the window that other parts cover. */
  _covered() {
    const { scrollPaddingTop, scrollPaddingBottom } = getComputedStyle(document.documentElement);
    return { above: parseFloat(scrollPaddingTop) || 0, below: parseFloat(scrollPaddingBottom) || 0 };
  }
}

/** Return the size of the tiles that the page is set to. @returns {Size} */
function chosenSize() {
  return /** @type {Size} */ (document.documentElement.dataset.size ?? "large");
}

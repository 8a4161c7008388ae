/**
 * The tiles: a list of any length of which only what can be seen is in the document (`Rows`). The arrows move from tile
 * to tile (one of them is in the tab order), and the focus stays with its examinee when the order changes.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("./tile.js").Size} Size
 */

import { Rows } from "./rows.js";

/** Rows above and below what can be seen. */
const SPARE_ROWS = 2;

/** Fires `open` (detail: the examinee's id) when one is chosen. */
export class Tiles extends EventTarget {
  /** @param {HTMLElement} root @param {() => number} now */
  constructor(root, now) {
    super();
    this._root = root;
    this._now = now;
    this._rows = new Rows(root, now);
    /** @type {readonly Person[]} */ this._people = [];
    /** @type {Map<string, number>} */ this._places = new Map();
    /** @type {Size | null} */ this._size = null;
    this._space = 0;
    /** Where the list begins, in px below the upper edge of the window. */
    this._top = 0;
    this._columns = 1;
    this._height = 1;
    /** Whose tile is in the tab order. @type {string | null} */ this._current = null;
    /** When a person last moved over the tiles: they should not run away then. */
    this.touched = -Infinity;
    // What is above the tiles moves them, too.
    const moved = new ResizeObserver(() => this._moved());
    moved.observe(root);
    moved.observe(document.body);
    addEventListener("resize", () => this._measure(true), { passive: true });
    addEventListener("scroll", () => this._look(), { passive: true });
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

  _moved() {
    if (this._root.clientWidth !== this._space) this._measure(true);
    else this._look();
  }

  /** The size of a tile comes from the style sheet. @param {boolean} show whether to draw what is shown now */
  _measure(show) {
    const style = getComputedStyle(this._root);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const read = (/** @type {string} */ name) => parseFloat(style.getPropertyValue(name)) * rem;
    const [least, height, gap] = [read("--tile-width"), read("--tile-height"), read("--tile-gap")];
    this._space = this._root.clientWidth;
    this._top = this._root.getBoundingClientRect().top;
    this._columns = Math.max(1, Math.floor((this._space + gap) / (least + gap)));
    this._height = height + gap;
    this._root.style.setProperty("--columns", String(this._columns));
    this._size = chosenSize();
    this._rows.shape(this._size, this._columns, this._height);
    if (show) this._show();
  }

  /** Show these, in this order. @param {readonly Person[]} people */
  order(people) {
    if (this._size !== chosenSize()) this._measure(false);
    const before = this._current === null ? 0 : (this._places.get(this._current) ?? 0);
    this._people = people;
    this._places = new Map(people.map((person, at) => [person.id, at]));
    if (this._current === null || !this._places.has(this._current)) {
      // Who had the focus is no longer shown: it stays at the place, with who stands there now.
      this._current = people[Math.min(before, people.length - 1)]?.id ?? null;
    }
    this._show();
  }

  /** These examinees have changed. @param {Iterable<string>} ids */
  refresh(ids) {
    const now = this._now();
    for (const id of ids) {
      const at = this._places.get(id);
      if (at !== undefined) this._rows.tile(at)?.show(this._people[at], now);
    }
  }

  /** Time has passed: whatever counts goes on. */
  tick() {
    const now = this._now();
    for (const tile of this._rows.tiles()) tile.show(this._people[tile.at], now);
  }

  _show() {
    const held = this._people.length === 0 && this._root.contains(document.activeElement);
    this._root.style.height = `${Math.ceil(this._people.length / this._columns) * this._height}px`;
    this._rows.show(this._people, this._wanted(), this._currentAt());
    if (held) this._root.focus({ preventScroll: true });
  }

  /** It was scrolled, or moved. Asking where it is makes the browser lay out everything: not while there is writing. */
  _look() {
    this._top = this._root.getBoundingClientRect().top;
    this._rows.view(this._wanted());
  }

  /** The numbers of the rows to draw: those in view, and the one that has the tab order's tile. */
  _wanted() {
    const rows = Math.ceil(this._people.length / this._columns);
    const within = (/** @type {number} */ row) => Math.min(rows, Math.max(0, row));
    const first = within(Math.floor(-this._top / this._height) - SPARE_ROWS);
    const last = within(Math.ceil((innerHeight - this._top) / this._height) + SPARE_ROWS);
    const wanted = Array.from({ length: Math.max(0, last - first) }, (_, k) => first + k);
    const current = Math.floor(this._currentAt() / this._columns);
    if (current < rows && (current < first || current >= last)) wanted.push(current);
    return wanted;
  }

  _currentAt() {
    return this._current === null ? 0 : (this._places.get(this._current) ?? 0);
  }

  // -- choosing ------------------------------------------------------------------------------------

  /** @param {Event} event */
  _clicked(event) {
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    if (tile instanceof HTMLElement && tile.dataset.id) {
      this.dispatchEvent(new CustomEvent("open", { detail: tile.dataset.id }));
    }
  }

  /** What does not fit on a tile is there for whoever points at it. @param {Event} event */
  _hovered(event) {
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    const label = event.type === "pointerover" ? tile?.getAttribute("aria-label") : null;
    if (label) tile?.setAttribute("title", label);
    else tile?.removeAttribute("title");
  }

  /** @param {FocusEvent} event */
  _focused(event) {
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    if (event.target === this._root) this.focus();
    if (!(tile instanceof HTMLElement) || !tile.dataset.id) return;
    this._current = tile.dataset.id;
    this._rows.stopAt(this._currentAt());
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this._current === null) return;
    const page = Math.max(1, Math.floor(innerHeight / this._height) - 1) * this._columns;
    const at = this._currentAt();
    /** @type {Record<string, number>} */
    const to = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at - this._columns,
      ArrowDown: at + this._columns,
      PageUp: Math.max(at % this._columns, at - page),
      PageDown: Math.min(this._people.length - 1, at + page),
      Home: 0,
      End: this._people.length - 1,
    };
    const goal = to[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    this.touched = performance.now();
    if (goal >= 0 && goal < this._people.length) this.focus(this._people[goal].id);
  }

  /**
   * Give the focus to an examinee's tile (default: the one in the tab order), and bring it into view.
   * @param {string | null} [id]
   * @returns {boolean} whether it is on the wall
   */
  focus(id = this._current) {
    const at = id === null ? undefined : this._places.get(id);
    if (id === null || at === undefined) return false;
    this._current = id;
    const y = Math.floor(at / this._columns) * this._height;
    const top = this._root.getBoundingClientRect().top + y;
    // Whatever stays in view while one scrolls must not lie over what has the focus.
    const { scrollPaddingTop, scrollPaddingBottom } = getComputedStyle(document.documentElement);
    const [above, below] = [scrollPaddingTop, scrollPaddingBottom].map((one) => parseFloat(one) || 0);
    if (top < above) scrollBy(0, top - above - 8);
    else if (top + this._height > innerHeight - below) scrollBy(0, top + this._height - innerHeight + below + 8);
    this._look();
    this._rows.stopAt(at);
    const tile = this._rows.tile(at);
    tile?.button.focus({ preventScroll: true });
    return tile !== undefined;
  }
}

/** The size of the tiles that the page's style is set to. @returns {Size} */
function chosenSize() {
  return /** @type {Size} */ (document.documentElement.dataset.size ?? "large");
}

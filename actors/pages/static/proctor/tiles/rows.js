/**
 * The rows of tiles that are in the document.
 *
 * A tile has a fixed place and shows the examinee who is at that place. A new order changes the text of some tiles, but
 * moves no element, so the browser computes no new layout. Each row is a layer of its own, so a change repaints only its
 * row. Large changes are written row by row over several frames, so that the page stays responsive.
 *
 * Only the focused tile moves with its examinee, and the elements around it are moved instead: an element that is taken
 * out of the document loses the focus.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("./tile.js").Size} Size
 */

import { rowLabel } from "./fit.js";
import { Tile } from "./tile.js";

/** Write at most so long in one frame (ms); the layout and painting that follow take several times as long. */
const WRITE_MS = 2;

/** One row: an element and its tiles. `number`: its place from the top, from 0. */
class Row {
  constructor() {
    this.element = document.createElement("div");
    this.element.className = "tile-row";
    this.element.setAttribute("role", "presentation");
    /** @type {Tile[]} */ this.tiles = [];
    this.number = -1;
    this._label = "";
  }

  /** Set the text at the beginning of the row. @param {string} label */
  set label(label) {
    if (this._label !== label) this.element.dataset.label = this._label = label;
  }

  /** Add or remove tiles until there are so many. @param {number} count @param {Size} size */
  fit(count, size) {
    while (this.tiles.length > count) this.tiles.pop()?.slot.remove();
    while (this.tiles.length < count) {
      const tile = new Tile(size);
      this.tiles.push(tile);
      this.element.append(tile.slot);
    }
  }
}

/** The rows that are in the document. */
export class Rows {
  /** @param {HTMLElement} root @param {() => number} now ms since the epoch, by the servers' clock */
  constructor(root, now) {
    this._root = root;
    this._now = now;
    /** The rows by their number. @type {Map<number, Row>} */ this._rows = new Map();
    /** @type {Size} */ this._size = "large";
    /** Whether each row of dots begins with the id of its first examinee. Writing it costs a layout of the row. */
    this.labelled = true;
    this._columns = 1;
    /** From one row to the next, in px. */ this._rowHeight = 1;
    /** @type {readonly Person[]} */ this._people = [];
    /** The tile in the tab order. @type {Tile | null} */ this._tabStop = null;
    /** Rows that still show an earlier order. @type {Set<Row>} */ this._outdated = new Set();
    /** Whether the next frame continues to write. */ this._scheduled = false;
  }

  /**
   * Set the size of the tiles and the arrangement of the rows.
   * @param {Size} size
   * @param {number} columns
   * @param {number} rowHeight from one row to the next, in px
   */
  shape(size, columns, rowHeight) {
    if (size !== this._size) {
      for (const row of this._rows.values()) row.element.remove();
      this._rows.clear();
      this._outdated.clear();
      this._tabStop = null;
    }
    [this._size, this._columns, this._rowHeight] = [size, columns, rowHeight];
    for (const row of this._rows.values()) row.element.style.top = `${row.number * rowHeight}px`;
  }

  /** How many tiles are in the document. */
  get drawn() {
    return [...this._rows.values()].reduce((sum, row) => sum + row.tiles.length, 0);
  }

  /** Return the tile at a place, up to date, if it is drawn. @param {number} place @returns {Tile | undefined} */
  tile(place) {
    const row = this._rows.get(Math.floor(place / this._columns));
    if (row && this._outdated.has(row)) this._fill(row);
    return row?.tiles[place % this._columns];
  }

  /** Iterate over the tiles that show the latest order. @returns {Iterable<Tile>} */
  *tiles() {
    for (const row of this._rows.values()) if (!this._outdated.has(row)) yield* row.tiles;
  }

  /**
   * Draw these rows and no others. Rows that are drawn already stay as they are; others are reused.
   * @param {readonly number[]} numbers
   */
  view(numbers) {
    const wanted = new Set(numbers);
    const unused = [...this._rows.values()].filter((row) => !wanted.has(row.number));
    for (const row of unused) this._rows.delete(row.number);
    let changed = unused.length > 0;
    for (const number of numbers) {
      if (this._rows.has(number)) continue;
      const row = unused.pop() ?? new Row();
      this._place(row, number);
      this._outdated.add(row);
      changed = true;
    }
    for (const row of unused) {
      row.element.remove();
      this._outdated.delete(row);
    }
    if (changed) this._sortElements(null);
    this._write();
  }

  /**
   * Show examinees in the rows with these numbers.
   * @param {readonly Person[]} people all of them, in order
   * @param {readonly number[]} numbers
   * @param {number} current the place of the tile in the tab order; a focused tile moves there
   */
  show(people, numbers, current) {
    this._people = people;
    const focused = document.activeElement;
    const focusedRow = [...this._rows.values()].find((row) => row.tiles.some((tile) => tile.button === focused));
    if (focusedRow && people.length > 0) {
      this._moveTile(focusedRow, focusedRow.tiles.findIndex((tile) => tile.button === focused), current);
    }
    for (const row of this._rows.values()) this._outdated.add(row);
    this.view(numbers);
    this.setTabStop(current);
  }

  /** Write outdated rows for as long as a frame allows; the next frame continues. */
  _write() {
    const began = performance.now();
    for (const row of this._outdated) {
      this._fill(row);
      if (performance.now() - began > WRITE_MS) break;
    }
    if (this._outdated.size === 0 || this._scheduled) return;
    this._scheduled = true;
    requestAnimationFrame(() => {
      this._scheduled = false;
      this._write();
    });
  }

  /** Put the tile at this place into the tab order, and no other. @param {number} place */
  setTabStop(place) {
    const tile = this.tile(place) ?? null;
    if (this._tabStop !== null && this._tabStop !== tile) this._tabStop.tabStop = false;
    if (tile !== null) tile.tabStop = true;
    this._tabStop = tile;
  }

  /** Put a row at a place from the top. @param {Row} row @param {number} number */
  _place(row, number) {
    row.number = number;
    row.element.style.top = `${number * this._rowHeight}px`;
    this._rows.set(number, row);
  }

  /** Write the examinees of a row into its tiles. @param {Row} row */
  _fill(row) {
    this._outdated.delete(row);
    const now = this._now();
    const [first, total] = [row.number * this._columns, this._people.length];
    row.fit(Math.max(0, Math.min(this._columns, total - first)), this._size);
    if (this._size === "dots") row.label = this.labelled ? rowLabel(this._people[first]?.id ?? "") : "";
    row.tiles.forEach((tile, column) => {
      tile.setPlace(first + column, total);
      tile.show(this._people[first + column], now);
    });
  }

  /**
   * Move a tile to another place without taking it out of the document: its row becomes the row at that place, and the
   * other elements are moved around it.
   * @param {Row} row @param {number} column @param {number} place
   */
  _moveTile(row, column, place) {
    const [source, target] = [row.number, Math.floor(place / this._columns)];
    if (source !== target) {
      const other = this._rows.get(target);
      this._rows.delete(source);
      if (other) this._place(other, source);
      this._place(row, target);
      this._sortElements(row);
    }
    const targetColumn = place % this._columns;
    if (column === targetColumn) return;
    row.fit(Math.max(row.tiles.length, targetColumn + 1), this._size);
    const [tile] = row.tiles.splice(column, 1);
    row.tiles.splice(targetColumn, 0, tile);
    arrange(row.element, row.tiles.map(({ slot }) => slot), tile.slot);
  }

  /** Sort the elements as they are seen, for screen readers. @param {Row | null} fixed a row that must not be moved */
  _sortElements(fixed) {
    const rows = [...this._rows.values()].sort((a, b) => a.number - b.number);
    const focused = fixed?.element ?? rows.find((row) => row.element.contains(document.activeElement))?.element ?? null;
    arrange(this._root, rows.map((row) => row.element), focused);
  }
}

/**
 * Put elements in order.
 * @param {Element} parent @param {Element[]} elements
 * @param {Element | null} fixed the element that must not be moved, for it has the focus
 */
function arrange(parent, elements, fixed) {
  /** @type {Element | null} */
  let next = null;
  for (const element of elements.reverse()) {
    if (element !== fixed && (element.parentNode !== parent || element.nextSibling !== next)) parent.insertBefore(element, next);
    next = element;
  }
}

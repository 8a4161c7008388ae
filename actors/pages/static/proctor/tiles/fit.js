/**
 * How large the dots of the overview are, so that all of them fit into the window. Pure.
 */

/** Sizes are tried in steps of so many px. */
const STEP = 0.5;

/**
 * Choose the largest distance between dots with which all fit and leave `spare` room below them. If they do not, they are as
 * small as they may be; `otherwise`, if even so they need more than twice the height. Where there are many columns, their
 * number is round: the ids at the beginning of the rows are easier to count from.
 * @param {{count: number, width: number, height: number, spare: number, least: number, most: number, otherwise: number}} given
 *   lengths in px
 * @returns {{pitch: number, columns: number}} `pitch`: from one dot to the next, in px
 */
export function fitDots({ count, width, height, spare, least, most, otherwise }) {
  const needed = (/** @type {number} */ pitch) => Math.ceil(count / round(width / pitch)) * pitch;
  for (let pitch = most; pitch >= least; pitch -= STEP) {
    if (needed(pitch) <= height - spare) return { pitch, columns: round(width / pitch) };
  }
  const pitch = needed(least) <= 2 * height ? least : otherwise;
  return { pitch, columns: round(width / pitch) };
}

/** Round a number of columns down. @param {number} columns */
function round(columns) {
  const unit = columns >= 50 ? 10 : columns >= 20 ? 5 : 1;
  return Math.max(1, Math.floor(columns / unit) * unit);
}

/** The label of a row has at most so many letters. */
const LABEL_LETTERS = 10;

/** Return an id as the label of a row: the end of a long one, which differs from row to row. @param {string} id */
export function rowLabel(id) {
  return id.length > LABEL_LETTERS ? `…${id.slice(1 - LABEL_LETTERS)}` : id;
}

/** Elements of the page: those that it has from the start, making more, and writing into them. */

/**
 * An element of the page that is there by its id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function element(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`proctor.html has no element #${id}`);
  return found;
}

/** Write a text unless it stands there already. @param {Element | null} where @param {string} text */
export function setText(where, text) {
  if (where && where.textContent !== text) where.textContent = text;
}

/** An element with empty parts. @param {string} outer @param {...string} inner */
export function parts(outer, ...inner) {
  const made = document.createElement(outer);
  made.append(...inner.map((one) => document.createElement(one)));
  return made;
}

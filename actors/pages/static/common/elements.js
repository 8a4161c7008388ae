/** Helpers for elements of the proctor's page: find by id, set a text, create. */

/**
 * Return the element with an id. Throws if the page has none.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function element(id) {
  const target = document.getElementById(id);
  if (target === null) throw new Error(`proctor.html has no element #${id}`);
  return target;
}

/** Set a text if it differs. @param {Element | null} where @param {string} text */
export function setText(where, text) {
  if (where && where.textContent !== text) where.textContent = text;
}

/** Create an element with empty children. @param {string} outer @param {...string} inner */
export function parts(outer, ...inner) {
  const created = document.createElement(outer);
  created.append(...inner.map((name) => document.createElement(name)));
  return created;
}

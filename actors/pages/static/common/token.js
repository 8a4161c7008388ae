/**
 * How a token comes to a page: in the fragment of the address (`#token=…`), which is never sent to a server. It is taken
 * out of the address bar at once and kept in sessionStorage, so that a reload of this tab finds it again.
 */

/**
 * What a token says about itself. It is not verified here: for display only; the server's `welcome` is the truth.
 * @typedef {{plan: string, role: string, subject: string, expires: number | null}} Said
 */

/**
 * Take a value from the fragment and remember it in this tab, or find the one that was remembered.
 * @param {string} page the name it is kept under: a tab may hold one token of each page
 * @param {string} [name] of the parameter in the fragment
 * @returns {string | null}
 */
export function fromAddress(page, name = "token") {
  const key = keyOf(page, name);
  const given = new URLSearchParams(location.hash.slice(1)).get(name);
  if (given) {
    remember(page, given, name);
    history.replaceState(history.state, "", location.pathname + location.search);
    return given;
  }
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null; // storage is forbidden here: the page asks again after a reload
  }
}

/** @param {string} page @param {string} value @param {string} [name] */
export function remember(page, value, name = "token") {
  try {
    sessionStorage.setItem(keyOf(page, name), value);
  } catch {
    // It works until the tab is reloaded.
  }
}

/** @param {string} page @param {string} [name] */
export function forget(page, name = "token") {
  try {
    sessionStorage.removeItem(keyOf(page, name));
  } catch {
    // Nothing was kept.
  }
}

/**
 * The claims of a JWT, unverified; `null` when it is none.
 * @param {string} token
 * @returns {Said | null}
 */
export function said(token) {
  try {
    const middle = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(middle), (one) => one.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof claims !== "object" || claims === null) return null;
    const expires = typeof claims.exp === "number" ? claims.exp * 1000 : null;
    return { plan: String(claims.plan ?? ""), role: String(claims.role ?? ""), subject: String(claims.sub ?? ""), expires };
  } catch {
    return null;
  }
}

/** @param {string} page @param {string} name */
function keyOf(page, name) {
  return `examwire.${page}.${name}`;
}

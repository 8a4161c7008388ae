/**
 * Takes the token of a page from the fragment of the address (`#token=…`), which is never sent to a server. The token is
 * removed from the address bar at once, and stored in sessionStorage, so that a reload of the tab finds it.
 */

/**
 * The claims of a token. Not verified here: for display only; the server verifies the token. `scope`: the labels that a
 * proctor is limited to, each with its values; `null`: not limited.
 * @typedef {{plan: string, role: string, subject: string, expires: number | null, scope: Record<string, string[]> | null}} Claims
 */

/**
 * Take a value from the fragment and store it for this tab, or return the stored one.
 * @param {string} page the name it is stored under: a tab can hold one token for each page
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
    return null; // storage is blocked: the page asks again after a reload
  }
}

/**
 * Take all tokens from the fragment (`#token=…&token=…`), one for each plan, and store them for this tab; or return the
 * stored ones.
 * @param {string} page
 * @returns {string[]}
 */
export function allFromAddress(page) {
  const given = new URLSearchParams(location.hash.slice(1)).getAll("token").join(" ");
  if (given) {
    remember(page, given);
    history.replaceState(history.state, "", location.pathname + location.search);
  }
  try {
    return onePerPlan((given || (sessionStorage.getItem(keyOf(page, "token")) ?? "")).split(/\s+/).filter(Boolean));
  } catch {
    return onePerPlan(given.split(/\s+/).filter(Boolean)); // storage is blocked: the page asks again after a reload
  }
}

/** Return the last token for each plan, in the order of the plans. @param {string[]} tokens */
export function onePerPlan(tokens) {
  return [...new Map(tokens.map((token) => [claimsOf(token)?.plan ?? token, token])).values()];
}

/** Store a value for this tab. @param {string} page @param {string} value @param {string} [name] */
export function remember(page, value, name = "token") {
  try {
    sessionStorage.setItem(keyOf(page, name), value);
  } catch {
    // Storage is blocked: the token lasts until the tab is reloaded.
  }
}

/** Remove a stored value. @param {string} page @param {string} [name] */
export function forget(page, name = "token") {
  try {
    sessionStorage.removeItem(keyOf(page, name));
  } catch {
    // Storage is blocked: nothing is stored.
  }
}

/**
 * Return the claims of a JWT, unverified; `null`: it is not a JWT.
 * @param {string} token
 * @returns {Claims | null}
 */
export function claimsOf(token) {
  try {
    const middle = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(middle), (character) => character.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof claims !== "object" || claims === null) return null;
    const expires = typeof claims.exp === "number" ? claims.exp * 1000 : null;
    const [plan, role, subject] = [claims.plan, claims.role, claims.sub].map((value) => String(value ?? ""));
    return { plan, role, subject, expires, scope: scopeOf(claims.scope) };
  } catch {
    return null;
  }
}

/** @param {unknown} claim @returns {Record<string, string[]> | null} */
function scopeOf(claim) {
  if (typeof claim !== "object" || claim === null) return null;
  return Object.fromEntries(Object.entries(claim).map(([name, values]) => [name, [values].flat().map(String)]));
}

/** @param {string} page @param {string} name */
function keyOf(page, name) {
  return `examwire.${page}.${name}`;
}

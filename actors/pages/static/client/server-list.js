// Which socket servers there are, for a client that was given their addresses or where they are listed: when to ask for
// them, and which of them the page may not connect to.

import { isUrls } from "./frames.js";
import { connectUrl, ring, without } from "./reconnect-rules.js";

/** @typedef {import("./reconnect-rules.js").Comeback} Comeback */

/** A client that knows addresses to try asks for others no longer than this. */
export const ASK_SECONDS = 4;

export class Servers {
  /**
   * @param {{urls: readonly string[], listedAt: string | null, random: () => number,
   *   fetch: (url: string, init: RequestInit) => Promise<Response>}} options `listedAt`: `GET /v1/endpoints`
   */
  constructor({ urls, listedAt, random, fetch }) {
    /** Those that were named by hand, or listed last. @type {readonly string[]} */
    this.named = urls;
    this._listedAt = listedAt;
    this._random = random;
    this._fetch = fetch;
    /** Tried since the last welcome or the last question. @type {Set<string>} */
    this._inVain = new Set();
    /** Origins to which the page may not connect. @type {Set<string>} */
    this._refused = new Set();
    /** The last answer. @type {readonly string[]} */
    this._listed = [];
    /** The last answer. @type {readonly string[]} */
    this._listed = [];
    this._doubted = false;
  }

  /**
   * Whether the page, loaded anew, could connect to servers to which it may not connect as it is. Where there is a list it
   * must have been told of them by its last answer: with no network, a page that is loaded anew is no page.
   */
  get reloadHelps() {
    return this._listedAt === null ? this._refused.size > 0 : !this._listed.every((url) => this.allows(url));
  }

  /**
   * Whether to ask before the next try: no address is known, each of them was tried in vain (all may have moved), or the
   * page was away for long.
   * @param {readonly string[]} known
   */
  mustAsk(known) {
    if (this._listedAt === null) return false;
    return this._doubted || known.every((url) => !url || this._inVain.has(url));
  }

  /**
   * Ask the web server, which begins the list of those in vain anew, whatever it answers.
   * @returns {Promise<{urls: readonly string[], why: string | null}>} none, with why: it could not be asked; none without:
   *   it knows no server now
   */
  async ask() {
    this._inVain.clear();
    this._doubted = false;
    this._listed = [];
    try {
      const init = /** @type {RequestInit} */ ({ cache: "no-store", credentials: "omit" });
      const response = await this._fetch(this._listedAt ?? "", init);
      const body = response.ok ? await response.json() : null;
      if (isUrls(body?.socketServers)) this._listed = body.socketServers;
    } catch (error) {
      return { urls: [], why: String(error) };
    }
    if (this._listed.length) this.named = this._byChance(this._listed);
    return { urls: this._listed.length ? this.named : [], why: null };
  }

  /**
   * Everybody is given the same list: who takes one by chance first spreads the hall over the servers.
   * @param {readonly string[]} urls
   */
  _byChance(urls) {
    const first = Math.floor(this._random() * urls.length);
    return [...urls.slice(first), ...urls.slice(0, first)];
  }

  /** A try begins; if a welcome comes of it, `reached` is called. @param {string} url */
  tries(url) {
    this._inVain.add(url);
  }

  reached() {
    this._inVain.clear();
    this._doubted = false;
  }

  /** What is known of the servers may be of long ago. */
  doubt() {
    this._doubted = true;
  }

  /** The page may not connect there: its policy says so, which does not change before it is loaded anew. @param {string} url */
  refuse(url) {
    const origin = originOf(url);
    if (origin !== null) this._refused.add(origin);
  }

  /** Whether the page may connect there, as far as was tried. @param {string} url */
  allows(url) {
    const origin = originOf(url);
    return origin === null || !this._refused.has(origin);
  }

  /** Where a client stands without the servers to which the page may not connect; `null`: none is left. @param {Comeback} state */
  reachable(state) {
    /** @type {Comeback | null} */
    let left = state;
    for (const url of ring(state)) if (left !== null && !this.allows(url)) left = without(left, url);
    return left;
  }

  /** Those of some addresses to which the page may connect, as URLs. @param {readonly string[]} urls */
  allowed(urls) {
    return urls.map(connectUrl).filter((url) => this.allows(url));
  }
}

/** @param {string} url @returns {string | null} scheme, host and port; `null` for what is no address */
function originOf(url) {
  try {
    const { protocol, host } = new URL(url);
    return `${protocol}//${host}`;
  } catch {
    return null;
  }
}

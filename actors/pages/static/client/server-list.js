// The socket servers that a client knows: named in its options or listed by the web server. Says when to ask the web server
// for the list, and which servers the page's policy refuses.

import { isUrls } from "./frames.js";
import { connectUrl, ring, without } from "./reconnect-rules.js";

/** @typedef {import("./reconnect-rules.js").Comeback} Comeback */

/** A client that knows addresses waits at most so long for the web server's list. */
export const ASK_SECONDS = 4;

/** The known socket servers, those tried in vain, and those that the page's policy refuses. */
export class Servers {
  /**
   * @param {{urls: readonly string[], listedAt: string | null, random: () => number,
   *   fetch: (url: string, init: RequestInit) => Promise<Response>}} options `listedAt`: `GET /v1/endpoints`
   */
  constructor({ urls, listedAt, random, fetch }) {
    /** The servers of the options, or of the latest list. @type {readonly string[]} */
    this.named = urls;
    this._listedAt = listedAt;
    this._random = random;
    this._fetch = fetch;
    /** Tried since the last welcome or the last request for the list. @type {Set<string>} */
    this._inVain = new Set();
    /** Origins that the page's policy refuses. @type {Set<string>} */
    this._refused = new Set();
    /** The servers of the latest list. @type {readonly string[]} */
    this._listed = [];
    this._doubted = false;
  }

  /**
   * Whether a reload of the page may help: its policy refuses a known server. If the web server has a list, the refused server
   * must be on the latest one: without a network a reload would lose the page.
   */
  get reloadHelps() {
    return this._listedAt === null ? this._refused.size > 0 : !this._listed.every((url) => this.allows(url));
  }

  /**
   * Whether to ask for the list before the next attempt: no address is known, all were tried in vain (the servers may have
   * moved), or the page was away for long.
   * @param {readonly string[]} known
   */
  mustAsk(known) {
    if (this._listedAt === null) return false;
    return this._doubted || known.every((url) => !url || this._inVain.has(url));
  }

  /**
   * Ask the web server for the list, and forget which servers were tried in vain.
   * @returns {Promise<{urls: readonly string[], why: string | null}>} no `urls` with `why`: the request failed; no `urls`
   *   without `why`: the web server knows no socket server at the moment
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
    if (this._listed.length) this.named = this._rotateRandomly(this._listed);
    return { urls: this._listed.length ? this.named : [], why: null };
  }

  /**
   * Begin the list at a random server: all clients get the same list, so this spreads a hall over the servers.
   * @param {readonly string[]} urls
   */
  _rotateRandomly(urls) {
    const first = Math.floor(this._random() * urls.length);
    return [...urls.slice(first), ...urls.slice(0, first)];
  }

  /** Note an attempt. After a welcome call `reached`. @param {string} url */
  noteAttempt(url) {
    this._inVain.add(url);
  }

  /** Note a welcome: no server counts as tried in vain. */
  reached() {
    this._inVain.clear();
    this._doubted = false;
  }

  /** Ask for the list before the next attempt: the known addresses may be old. */
  doubt() {
    this._doubted = true;
  }

  /** Note that the page's policy refuses an address. That lasts until the page is reloaded. @param {string} url */
  refuse(url) {
    const origin = originOf(url);
    if (origin !== null) this._refused.add(origin);
  }

  /** Whether the page may connect to an address, as far as is known. @param {string} url */
  allows(url) {
    const origin = originOf(url);
    return origin === null || !this._refused.has(origin);
  }

  /** Remove the refused servers from a state; `null`: none is left. @param {Comeback} state */
  reachable(state) {
    /** @type {Comeback | null} */
    let reachable = state;
    for (const url of ring(state)) if (reachable !== null && !this.allows(url)) reachable = without(reachable, url);
    return reachable;
  }

  /** The addresses to which the page may connect, as URLs. @param {readonly string[]} urls */
  allowed(urls) {
    return urls.map(connectUrl).filter((url) => this.allows(url));
  }
}

/** @param {string} url @returns {string | null} scheme, host and port; `null`: not an address */
function originOf(url) {
  try {
    const { protocol, host } = new URL(url);
    return `${protocol}//${host}`;
  } catch {
    return null;
  }
}
